//! `PersistentVolume`.

use machinery::name::subdomain_fault;
use machinery::rules::{Column, Rules, age, text};
use machinery::{Cause, Faults, Object};
use serde_json::{Map, Value, json};

use super::field::{part, text as text_of};
use super::persistent_volume_claim::{validate_access_modes, validate_amount};
use super::pod::validate_node_selector;
use super::volume_cells::{access_modes, or_unset, phase, storage_class};
use super::volume_source::{self, Of};

pub(crate) struct PersistentVolume;

/// Where a volume's storage may come from, in the order in which upstream looks at them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    FLEX,
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// The one that upstream doesn't mind beside an earlier one.
const FLEX: &str = "flexVolume";

const EXPANSION: &str = "controllerExpandSecretRef";

impl Rules for PersistentVolume {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (2, 0)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Value::Object(status) = object.0.entry("status").or_insert_with(|| json!({})) {
            status.entry("phase").or_insert_with(|| "Pending".into());
        }
        let Some(Value::Object(spec)) = object.0.get_mut("spec") else { return };
        spec.entry("persistentVolumeReclaimPolicy").or_insert_with(|| "Retain".into());
        spec.entry("volumeMode").or_insert_with(|| "Filesystem".into());
        for (source, field, value) in [
            ("hostPath", "type", json!("")),
            ("iscsi", "iscsiInterface", json!("default")),
            ("rbd", "pool", json!("rbd")),
            ("rbd", "user", json!("admin")),
            ("rbd", "keyring", json!("/etc/ceph/keyring")),
            ("azureDisk", "cachingMode", json!("ReadWrite")),
            ("azureDisk", "kind", json!("Shared")),
            ("azureDisk", "fsType", json!("ext4")),
            ("azureDisk", "readOnly", json!(false)),
            ("scaleIO", "storageMode", json!("ThinProvisioned")),
            ("scaleIO", "fsType", json!("xfs")),
        ] {
            if let Some(Value::Object(source)) = spec.get_mut(source) {
                source.entry(field).or_insert(value);
            }
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        let since = object.meta("creationTimestamp").cloned().unwrap_or(Value::Null);
        object.0.insert("status".into(), json!({ "phase": "Pending", "lastPhaseTransitionTime": since }));
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        validate_access_modes(&spec["accessModes"], "spec.accessModes", faults);
        match spec["capacity"].as_object() {
            None => {
                faults.push(Cause::required("spec.capacity", ""));
                faults.push(Cause::not_supported("spec.capacity", &Value::Null, &["storage"]));
            }
            Some(capacity) => {
                if capacity.len() != 1 || !capacity.contains_key("storage") {
                    faults.push(Cause::not_supported("spec.capacity", &spec["capacity"], &["storage"]));
                }
                for (resource, amount) in capacity {
                    let field = format!("spec.capacity[{resource}]");
                    validate_amount(amount, field.clone(), false, faults);
                    validate_amount(amount, field, true, faults);
                }
            }
        }
        validate_source(spec, faults);
        validate_node_affinity(&spec["nodeAffinity"], faults);
        for field in ["storageClassName", "volumeAttributesClassName"] {
            let name = spec[field].as_str().filter(|name| !name.is_empty());
            if let Some(why) = name.and_then(subdomain_fault) {
                faults.push(Cause::invalid(format!("spec.{field}"), &spec[field], why));
            }
        }
        if let Some(class) = spec["volumeAttributesClassName"].as_str() {
            if class.is_empty() {
                let why = "an empty string is disallowed";
                faults.push(Cause::required("spec.volumeAttributesClassName", why));
            }
            if spec["csi"].is_null() {
                let why = "has to be specified when using volumeAttributesClassName";
                faults.push(Cause::required("spec.csi", why));
            }
        }
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            return;
        }
        let sources = |object: &Object| {
            let spec = object.0.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
            spec.into_iter().filter(|(field, _)| SOURCES.contains(&field.as_str())).collect::<Map<_, _>>()
        };
        let (mut new, before) = (sources(object), sources(old));
        // Whose secret a volume is expanded with may change.
        if let Some(Value::Object(csi)) = new.get_mut("csi")
            && csi.get(EXPANSION).is_some_and(Value::is_object)
        {
            csi.remove(EXPANSION);
            csi.extend(
                before
                    .get("csi")
                    .and_then(|csi| csi.get(EXPANSION))
                    .map(|known| (EXPANSION.into(), known.clone())),
            );
        }
        if new != before {
            let why = "spec.persistentvolumesource is immutable after creation";
            faults.push(Cause::forbidden("spec.persistentvolumesource", why));
        }
        // Upstream names these two without the spec that they stand in.
        let value = |object: &Object, field: &str| part(object, "spec")[field].clone();
        let (mode, affinity) = (value(object, "volumeMode"), value(object, "nodeAffinity"));
        if mode != value(old, "volumeMode") {
            faults.push(Cause::invalid("volumeMode", &mode, "field is immutable"));
        }
        let before = value(old, "nodeAffinity");
        if !before.is_null() && !same_but_for_stable_keys(&affinity, &before) {
            let why = "field is immutable, except for updating from beta label to GA";
            faults.push(Cause::invalid("nodeAffinity", &affinity, why));
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Capacity"),
                Column::text("Access Modes"),
                Column::text("Reclaim Policy"),
                Column::text("Status"),
                Column::text("Claim"),
                Column::text("StorageClass"),
                Column::text("VolumeAttributesClass"),
                Column::text("Reason"),
                Column::text("Age"),
                Column::wide("VolumeMode"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let claim = match text(object, "/spec/claimRef/name") {
            "" => String::new(),
            name => format!("{}/{name}", text(object, "/spec/claimRef/namespace")),
        };
        vec![
            json!(object.name()),
            text(object, "/spec/capacity/storage").into(),
            access_modes(object.pointer("/spec/accessModes")).into(),
            text(object, "/spec/persistentVolumeReclaimPolicy").into(),
            phase(object).into(),
            claim.into(),
            storage_class(object).into(),
            or_unset(object, "/spec/volumeAttributesClassName").into(),
            text(object, "/status/reason").into(),
            age(object, now),
            or_unset(object, "/spec/volumeMode").into(),
        ]
    }
}

/// A volume comes from one source, which says what it must.
fn validate_source(spec: &Value, faults: &mut Faults) {
    let mut first = true;
    for source in SOURCES.into_iter().filter(|source| spec[*source].is_object()) {
        if first || source == FLEX {
            volume_source::validate(source, &spec[source], "spec", Of::Persistent, faults);
            if source == "local" && spec["nodeAffinity"].is_null() {
                faults.push(Cause::required("spec.nodeAffinity", "Local volume requires node affinity"));
            }
        } else {
            let field = format!("spec.{}", volume_source::name_of_more(source));
            faults.push(Cause::forbidden(field, "may not specify more than 1 volume type"));
        }
        first = false;
    }
    if first {
        faults.push(Cause::required("spec", "must specify a volume type"));
    }
    if text_of(&spec["hostPath"], "path") == "/" && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        faults.push(Cause::forbidden("spec.persistentVolumeReclaimPolicy", why));
    }
}

/// Which nodes reach the volume.
/// Labels of nodes by their older names, with the present ones (`betaToGALabel` upstream).
const STABLE_KEYS: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Whether two node affinities are the same, where some labels may go by their present names now.
fn same_but_for_stable_keys(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            new.len() == old.len()
                && new.iter().all(|(field, value)| match (old.get(field), field.as_str()) {
                    (Some(before), "key") => {
                        let stable = STABLE_KEYS.iter().find(|(older, _)| before == older);
                        value == before || stable.is_some_and(|(_, stable)| value == stable)
                    }
                    (Some(before), _) => same_but_for_stable_keys(value, before),
                    (None, _) => false,
                })
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len()
                && new.iter().zip(old).all(|(value, before)| same_but_for_stable_keys(value, before))
        }
        _ => new == old,
    }
}

fn validate_node_affinity(affinity: &Value, faults: &mut Faults) {
    if affinity.is_null() {
        return;
    }
    let path = "spec.nodeAffinity.required";
    if affinity["required"].is_null() {
        return faults.push(Cause::required(path, "must specify required node constraints"));
    }
    validate_node_selector(&affinity["required"], path, faults);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_an_affinity_may_go_by_their_present_names() {
        let affinity = |key: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}]}});
        let (older, zone) = ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone");
        for (new, old, same) in
            [(zone, older, true), (zone, zone, true), (older, zone, false), ("x", older, false)]
        {
            assert_eq!(same_but_for_stable_keys(&affinity(new), &affinity(old)), same, "{new} for {old}");
        }
        assert!(!same_but_for_stable_keys(&json!({}), &affinity(zone)));
    }
}
