//! `Pod`, and the pod template that other kinds carry.

mod defaults;
mod gates;
mod quality;
mod subresources;
mod table;
mod update;
mod validation;
mod warnings;

use machinery::name::{label_fault, subdomain_fault};
use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, Object, keep};
use serde_json::{Value, json};

pub(crate) use defaults::set_pod_spec_defaults;
pub(crate) use validation::{
    validate_node_selector, validate_overhead, validate_pod_spec, validate_resource_name,
    validate_tolerations,
};
pub(crate) use warnings::{fraction, pod_warnings};

use super::field::{part, paths, text};

pub(crate) struct Pod;

impl Rules for Pod {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(spec) = object.0.get_mut("spec") {
            set_pod_spec_defaults(spec);
            defaults::set_pod_defaults(spec);
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        let quality = quality::of_pod(object.0.get("spec").unwrap_or(&Value::Null));
        if let Some(grace) =
            object.0.get_mut("spec").and_then(|spec| spec.get_mut("terminationGracePeriodSeconds"))
            && grace.as_i64().is_some_and(|seconds| seconds < 0)
        {
            *grace = 1.into();
        }
        let mut status = json!({ "phase": "Pending", "qosClass": quality });
        if let Some(conditions) = gates::first_conditions(object) {
            status["conditions"] = conditions;
        }
        object.0.insert("status".into(), status);
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        match subresource {
            "ephemeralcontainers" => return subresources::keep_all_but_ephemeral(object, old),
            "resize" => return subresources::keep_all_but_resources(object, old),
            "status" => {}
            _ => return,
        }
        let before = old.0.get("metadata").and_then(Value::as_object);
        keep(object.metadata_mut(), before, "ownerReferences");
        let before = old.0.get("status").and_then(Value::as_object);
        if let Some(Value::Object(status)) = object.0.get_mut("status") {
            keep(status, before, "qosClass");
        }
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        // Most changes of pods are controllers', which nobody reads the warnings of.
        if old.is_some() {
            return Vec::new();
        }
        let odd_name = label_fault(object.name()).map(|why| {
            format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
                 recommended: [{why}]"
            )
        });
        odd_name.into_iter().chain(pod_warnings(part(object, "metadata"), part(object, "spec"), "")).collect()
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        validation::validate_pod_spec(spec, "spec", faults);
        for (path, volume) in paths(&spec["volumes"], "spec.volumes") {
            // The claim of such a volume is called after the pod.
            let claim = format!("{}-{}", object.name(), text(volume, "name"));
            let is_named = !object.name().is_empty() && !text(volume, "name").is_empty();
            if is_named
                && !volume["ephemeral"].is_null()
                && let Some(why) = subdomain_fault(&claim)
            {
                faults.push(Cause::invalid(format!("{path}.name"), &volume["name"], why));
            }
        }
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        if object
            .pointer("/spec/ephemeralContainers")
            .and_then(Value::as_array)
            .is_some_and(|l| !l.is_empty())
        {
            faults.push(Cause::forbidden("spec.ephemeralContainers", "cannot be set on create"));
        }
        gates::validate_unplaced(object, faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        match subresource {
            "" => {
                validate_tokens(object.0.get("spec").unwrap_or(&Value::Null), faults);
                update::validate_spec_stays(object, old, faults);
            }
            "ephemeralcontainers" => subresources::validate_ephemeral_stay(object, old, faults),
            "resize" => subresources::validate_resize(object, old, faults),
            _ => {}
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("spec.nodeName", "/spec/nodeName"),
            ("spec.restartPolicy", "/spec/restartPolicy"),
            ("spec.schedulerName", "/spec/schedulerName"),
            ("spec.serviceAccountName", "/spec/serviceAccountName"),
            ("spec.hostNetwork", "/spec/hostNetwork"),
            ("status.phase", "/status/phase"),
            ("status.podIP", "/status/podIP"),
            ("status.podIPs", "/status/podIP"),
            ("status.nominatedNodeName", "/status/nominatedNodeName"),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        table::cells(object, now)
    }
}

/// A pod that gives up its account has nobody whose tokens its volumes could show. A new one always has an account.
fn validate_tokens(spec: &Value, faults: &mut Faults) {
    if !text(spec, "serviceAccountName").is_empty() {
        return;
    }
    for (path, volume) in paths(&spec["volumes"], "spec.volumes") {
        for (path, source) in paths(&volume["projected"]["sources"], &format!("{path}.projected.sources")) {
            if !source["serviceAccountToken"].is_null() {
                let why = "must not be specified when serviceAccountName is not set";
                faults.push(Cause::forbidden(format!("{path}.serviceAccountToken"), why));
            }
        }
    }
}
