//! `CSIDriver`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use crate::kinds::field::{self, between, default, items, part, paths, text};

pub(crate) struct CsiDriver;

const MODES: [&str; 2] = ["Ephemeral", "Persistent"];
const FS_GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
/// What may change, and counts as a new generation when it does.
const COUNTED: [&str; 3] = ["tokenRequests", "requiresRepublish", "seLinuxMount"];

impl Rules for CsiDriver {
    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        let Some(spec) = object.0.get_mut("spec") else { return };
        if let Value::Object(spec) = spec {
            // Upstream has this one switched off.
            spec.remove("preventPodSchedulingIfMissing");
        }
        default(spec, "attachRequired", true);
        default(spec, "podInfoOnMount", false);
        default(spec, "storageCapacity", false);
        default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default(spec, "volumeLifecycleModes", json!(["Persistent"]));
        default(spec, "requiresRepublish", false);
        default(spec, "seLinuxMount", false);
    }

    fn prepare_update(&self, _subresource: &str, object: &mut Object, old: &Object) {
        let (spec, before) = (part(object, "spec"), part(old, "spec"));
        if COUNTED.iter().any(|field| spec[*field] != before[*field]) {
            let generation = old.meta("generation").and_then(Value::as_i64).unwrap_or_default();
            object.set_meta("generation", generation.saturating_add(1));
        }
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        if name.len() > super::LONGEST_DRIVER {
            return Some("must be no more than 63 characters");
        }
        name::subdomain_fault(&name.to_ascii_lowercase())
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        for mode in items(&spec["volumeLifecycleModes"]) {
            field::one_of(mode, "spec.volumeLifecycleModes", &MODES, faults);
        }
        field::one_of(&spec["fsGroupPolicy"], "spec.fsGroupPolicy", &FS_GROUP_POLICIES, faults);
        let requests = &spec["tokenRequests"];
        let in_secrets = &spec["serviceAccountTokenInSecrets"];
        if !in_secrets.is_null() && items(requests).is_empty() {
            let why = "must not be set where no tokens are requested";
            faults.push(Cause::invalid("spec.serviceAccountTokenInSecrets", in_secrets, why));
        }
        for (path, request) in paths(requests, "spec.tokenRequests") {
            let seconds = &request["expirationSeconds"];
            let path = format!("{path}.expirationSeconds");
            if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
                faults.push(Cause::invalid(path, seconds, "may not specify a duration less than 10 minutes"));
            } else if seconds.as_i64().is_some_and(|seconds| seconds > 1 << 32) {
                let why = "may not specify a duration larger than 2^32 seconds";
                faults.push(Cause::invalid(path, seconds, why));
            }
        }
        field::unique_by(requests, "audience", "spec.tokenRequests", faults);
        let period = &spec["nodeAllocatableUpdatePeriodSeconds"];
        between(period, "spec.nodeAllocatableUpdatePeriodSeconds", 10, i64::MAX, faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        field::immutable("spec.attachRequired", object, old, faults);
        field::immutable("spec.volumeLifecycleModes", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column { name: "AttachRequired", kind: "boolean", priority: 0 },
                Column { name: "PodInfoOnMount", kind: "boolean", priority: 0 },
                Column { name: "StorageCapacity", kind: "boolean", priority: 0 },
                Column::text("TokenRequests"),
                Column { name: "RequiresRepublish", kind: "boolean", priority: 0 },
                Column::text("Modes"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        let audiences: Vec<&str> =
            items(&spec["tokenRequests"]).iter().map(|r| text(r, "audience")).collect();
        let audiences = if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
        let modes: Vec<&str> =
            items(&spec["volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        let modes = if modes.is_empty() { "<none>".to_owned() } else { modes.join(",") };
        vec![
            object.name().into(),
            (spec["attachRequired"] != false).into(),
            (spec["podInfoOnMount"] == true).into(),
            (spec["storageCapacity"] == true).into(),
            audiences.into(),
            (spec["requiresRepublish"] == true).into(),
            modes.into(),
            age(object, now),
        ]
    }
}
