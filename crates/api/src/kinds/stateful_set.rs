//! `StatefulSet`.

use machinery::rules::{Column, Rules, age, number};
use machinery::{Cause, Faults, LabelSelector, Object, name};
use serde_json::{Map, Value, json};

use super::field::{items, one_of, part, paths, text};
use super::persistent_volume_claim::{set_claim_defaults, validate_claim_spec};
use super::workload::{
    container_cells, set_default, set_template_defaults, template_warnings, validate_always_restarts,
    validate_counts, validate_fits, validate_not_negative, validate_selector_of, validate_template,
    validate_template_metadata, validate_value_not_negative,
};

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
            // An object that names the type says the rest too.
            if !strategy.contains_key("type") {
                strategy.insert("type".into(), "RollingUpdate".into());
                strategy.entry("rollingUpdate").or_insert_with(|| json!({}));
            }
            if strategy.get("type").is_some_and(|kind| kind == "RollingUpdate")
                && let Some(Value::Object(rolling)) = strategy.get_mut("rollingUpdate")
            {
                rolling.entry("partition").or_insert_with(|| 0.into());
            }
            // Upstream has this one switched off.
            if let Some(Value::Object(rolling)) = strategy.get_mut("rollingUpdate") {
                rolling.remove("maxUnavailable");
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

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/spec/template")
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
        for field in ["replicas", "minReadySeconds"] {
            validate_not_negative(object, field, faults);
        }
        validate_value_not_negative(&spec["ordinals"]["start"], "spec.ordinals.start".into(), faults);
        // What its claims say of themselves counts only for new ones.
        faults.retain(|fault| !fault.field.starts_with("spec.volumeClaimTemplates["));
        validate_pods(spec, faults);
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        if let Some(why) =
            Some(text(spec, "serviceName")).filter(|name| !name.is_empty()).and_then(name::label_fault)
        {
            faults.push(Cause::invalid("spec.serviceName", &spec["serviceName"], why));
        }
        for (path, claim) in paths(&spec["volumeClaimTemplates"], "spec.volumeClaimTemplates") {
            validate_claim_spec(&claim["spec"], &format!("{path}.spec"), faults);
            let mode = &claim["spec"]["volumeMode"];
            if !mode.is_null() {
                one_of(mode, format!("{path}.spec.volumeMode"), &["Block", "Filesystem"], faults);
            }
        }
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

/// The spec without what may change.
fn fixed(object: &Object) -> Option<Map<String, Value>> {
    let mut spec = object.0.get("spec")?.as_object()?.clone();
    spec.retain(|field, _| !MAY_CHANGE.contains(&field.as_str()));
    Some(spec)
}

/// The pods that the template makes. Names of hosts are the controller's, and claims become volumes, before the others.
fn validate_pods(spec: &Value, faults: &mut Faults) {
    if !validate_selector_of(spec, "statefulset", faults) {
        return;
    }
    let path = "spec.template";
    let mut template = spec["template"].clone();
    let mut volumes: Vec<Value> = Vec::new();
    for name in items(&spec["volumeClaimTemplates"]).iter().map(|claim| &claim["metadata"]["name"]) {
        // Of claims of one name the last one counts.
        if volumes.iter().all(|volume| volume["name"] != *name) {
            volumes.push(json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
        }
    }
    if let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) {
        pod.remove("hostname");
        pod.remove("subdomain");
        let own = pod.get("volumes").cloned().unwrap_or_default();
        let others =
            items(&own).iter().filter(|own| volumes.iter().all(|claim| claim["name"] != own["name"]));
        let others: Vec<Value> = others.cloned().collect();
        volumes.extend(others);
        pod.insert("volumes".into(), volumes.into());
    }
    validate_fits(LabelSelector::from_value(&spec["selector"]).as_ref(), &template, faults);
    // Upstream looks at these twice.
    validate_template_metadata(&template, path, faults);
    validate_template(&template, path, faults);
    validate_always_restarts(&template, path, "statefulset", faults);
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
