//! `VolumeAttachment`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use super::validate_driver;
use crate::kinds::field::{self, part, text};

pub(crate) struct VolumeAttachment;

impl Rules for VolumeAttachment {
    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn demands_version(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({ "attached": false }));
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        // Upstream doesn't look at what stands in for a volume.
        faults.retain(|fault| !fault.field.starts_with("spec.source.inlineVolumeSpec."));
        validate_driver(&spec["attacher"], "spec.attacher", faults);
        let source = &spec["source"];
        let volume = &source["persistentVolumeName"];
        match (volume.is_null(), source["inlineVolumeSpec"].is_null()) {
            (true, true) => {
                let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                faults.push(Cause::required("spec.source", why));
            }
            (false, false) => {
                let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                faults.push(Cause::forbidden("spec.source", why));
            }
            (false, true) => {
                let path = "spec.source.persistentVolumeName";
                field::require(volume, path, "", faults);
                field::named(volume, path, name::subdomain_fault, faults);
            }
            (true, false) => {}
        }
        field::named(&spec["nodeName"], "spec.nodeName", name::subdomain_fault, faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        field::immutable("spec", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Attacher"),
                Column::text("PV"),
                Column::text("Node"),
                Column { name: "Attached", kind: "boolean", priority: 0 },
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        vec![
            object.name().into(),
            text(spec, "attacher").into(),
            text(&spec["source"], "persistentVolumeName").into(),
            text(spec, "nodeName").into(),
            (part(object, "status")["attached"] == true).into(),
            age(object, now),
        ]
    }
}
