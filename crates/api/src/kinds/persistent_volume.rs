//! `PersistentVolume`.

use serde_json::{Map, Value, json};

use super::persistent_volume_claim::{validate_access_modes, validate_amount};
use super::rules::{Column, Rules, age, text};
use super::volume_cells::{access_modes, or_unset, phase, storage_class};
use super::workload::validate_stays;
use crate::faults::Faults;
use crate::name::subdomain_fault;
use crate::object::Object;
use crate::status::Cause;

pub(crate) struct PersistentVolume;

/// Where a volume's storage may come from.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// What a source must say.
const NEEDED: [(&str, &[&str]); 10] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("csi", &["driver", "volumeHandle"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("hostPath", &["path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
];

impl Rules for PersistentVolume {
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
            None => faults.push(Cause::required("spec.capacity", "")),
            Some(capacity) => {
                if capacity.len() != 1 || !capacity.contains_key("storage") {
                    faults.push(Cause::not_supported("spec.capacity", &spec["capacity"], &["storage"]));
                }
                for (resource, amount) in capacity {
                    validate_amount(amount, format!("spec.capacity[{resource}]"), true, faults);
                }
            }
        }
        validate_source(spec, faults);
        for field in ["storageClassName", "volumeAttributesClassName"] {
            let name = spec[field].as_str().filter(|name| !name.is_empty());
            if let Some(why) = name.and_then(subdomain_fault) {
                faults.push(Cause::invalid(format!("spec.{field}"), &spec[field], why));
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
        if sources(object) != sources(old) {
            let why = "spec.persistentvolumesource is immutable after creation";
            faults.push(Cause::forbidden("spec.persistentvolumesource", why));
        }
        validate_stays(object, old, "/spec/volumeMode", faults);
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
    let given: Vec<&str> = SOURCES.into_iter().filter(|source| spec[*source].is_object()).collect();
    let Some((first, more)) = given.split_first() else {
        return faults.push(Cause::required("spec", "must specify a volume type"));
    };
    for source in more {
        faults.push(Cause::forbidden(format!("spec.{source}"), "may not specify more than 1 volume type"));
    }
    let source = &spec[*first];
    let (_, needed) = NEEDED.iter().find(|(source, _)| source == first).unwrap_or(&("", &[]));
    for field in *needed {
        let missing = match &source[*field] {
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            other => other.is_null(),
        };
        if missing {
            faults.push(Cause::required(format!("spec.{first}.{field}"), ""));
        }
    }
    let path = source["path"].as_str().unwrap_or_default();
    if matches!(*first, "hostPath" | "local") && path.split('/').any(|part| part == "..") {
        faults.push(Cause::invalid(format!("spec.{first}.path"), &source["path"], "must not contain '..'"));
    }
    if *first == "local" && spec["nodeAffinity"]["required"].is_null() {
        faults.push(Cause::required("spec.nodeAffinity", "Local volume requires node affinity"));
    }
    if *first == "hostPath" && path == "/" && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        faults.push(Cause::forbidden("spec.persistentVolumeReclaimPolicy", why));
    }
}
