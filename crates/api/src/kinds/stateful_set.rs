//! `StatefulSet`.

use serde_json::{Map, Value, json};

use super::persistent_volume_claim::set_claim_defaults;
use super::rules::{Column, Rules, age, number};
use super::workload::{
    container_cells, set_default, set_template_defaults, validate_counts, validate_not_negative,
    validate_selector_and_template, validate_value_not_negative,
};
use crate::faults::Faults;
use crate::name;
use crate::object::Object;
use crate::status::Cause;

pub(crate) struct StatefulSet;

/// What of the spec may change.
const MAY_CHANGE: [&str; 7] = [
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "revisionHistoryLimit",
    "template",
    "updateStrategy",
];

impl Rules for StatefulSet {
    fn set_defaults(&self, object: &mut Object) {
        set_default(object, "podManagementPolicy", "OrderedReady".into());
        set_default(object, "updateStrategy", json!({}));
        set_default(object, "persistentVolumeClaimRetentionPolicy", json!({}));
        set_default(object, "replicas", 1.into());
        set_default(object, "revisionHistoryLimit", 10.into());
        set_template_defaults(object);
        let Some(Value::Object(spec)) = object.0.get_mut("spec") else { return };
        if let Some(Value::Object(strategy)) = spec.get_mut("updateStrategy") {
            let kind = strategy.entry("type").or_insert_with(|| "RollingUpdate".into());
            if kind == "RollingUpdate"
                && let Value::Object(rolling) = strategy.entry("rollingUpdate").or_insert_with(|| json!({}))
            {
                rolling.entry("partition").or_insert_with(|| 0.into());
            }
        }
        if let Some(Value::Object(policy)) = spec.get_mut("persistentVolumeClaimRetentionPolicy") {
            for field in ["whenDeleted", "whenScaled"] {
                policy.entry(field).or_insert_with(|| "Retain".into());
            }
        }
        let claims = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
        for claim in claims.into_iter().flatten().filter_map(Value::as_object_mut) {
            claim.insert("kind".into(), "PersistentVolumeClaim".into());
            claim.insert("apiVersion".into(), "v1".into());
            set_claim_defaults(claim);
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        let policy = &spec["podManagementPolicy"];
        // Upstream calls these two invalid, not unsupported as the schema's choices would have it.
        faults
            .retain(|f| !matches!(f.field.as_str(), "spec.podManagementPolicy" | "spec.updateStrategy.type"));
        if !matches!(policy.as_str(), Some("OrderedReady" | "Parallel")) {
            let why = "must be 'OrderedReady' or 'Parallel'";
            faults.push(Cause::invalid("spec.podManagementPolicy", policy, why));
        }
        validate_strategy(&spec["updateStrategy"], faults);
        for field in ["whenDeleted", "whenScaled"] {
            let value = &spec["persistentVolumeClaimRetentionPolicy"][field];
            if !matches!(value.as_str(), None | Some("Retain" | "Delete")) {
                let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
                faults.push(Cause::not_supported(path, value, &["Delete", "Retain"]));
            }
        }
        for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
            validate_not_negative(object, field, faults);
        }
        validate_value_not_negative(&spec["ordinals"]["start"], "spec.ordinals.start".into(), faults);
        if let Some(why) =
            spec["serviceName"].as_str().filter(|n| !n.is_empty()).and_then(name::label_1035_fault)
        {
            faults.push(Cause::invalid("spec.serviceName", &spec["serviceName"], why));
        }
        validate_selector_and_template(object, "statefulset", faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            validate_counts(object, &["observedGeneration", "collisionCount"], ("replicas", &parts), faults);
            return;
        }
        if fixed(object) != fixed(old) {
            let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                'minReadySeconds' are forbidden";
            faults.push(Cause::forbidden("spec", why));
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Ready"),
                Column::text("Age"),
                Column::wide("Containers"),
                Column::wide("Images"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let ready =
            format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"));
        let [names, images] = container_cells(object, "/spec/template");
        vec![json!(object.name()), ready.into(), age(object, now), names, images]
    }
}

/// The spec without what may change; the status that a template of a claim carries counts for nothing.
fn fixed(object: &Object) -> Option<Map<String, Value>> {
    let mut spec = object.0.get("spec")?.as_object()?.clone();
    spec.retain(|field, _| !MAY_CHANGE.contains(&field.as_str()));
    let claims = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten().filter_map(Value::as_object_mut) {
        claim.remove("status");
    }
    Some(spec)
}

fn validate_strategy(strategy: &Value, faults: &mut Faults) {
    let path = "spec.updateStrategy";
    let rolling = &strategy["rollingUpdate"];
    match strategy["type"].as_str().unwrap_or_default() {
        "" => faults.push(Cause::required(path, "")),
        "RollingUpdate" => {
            let path = format!("{path}.rollingUpdate");
            validate_value_not_negative(&rolling["partition"], format!("{path}.partition"), faults);
        }
        "OnDelete" if rolling.is_null() => {}
        "OnDelete" => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            faults.push(Cause::invalid(format!("{path}.rollingUpdate"), rolling, why));
        }
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            faults.push(Cause::invalid(path, strategy, why));
        }
    }
}
