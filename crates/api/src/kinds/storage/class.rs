//! `StorageClass`.

use std::collections::HashSet;

use machinery::metadata::validate_label_key;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::{class_name, validate_parameters, validate_provisioner};
use crate::kinds::field::{self, part, paths, text};

pub(crate) struct StorageClass;

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Rules for StorageClass {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        object.0.entry("reclaimPolicy").or_insert_with(|| "Delete".into());
        object.0.entry("volumeBindingMode").or_insert_with(|| "Immediate".into());
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_provisioner(part(object, "provisioner"), "provisioner", faults);
        validate_parameters(part(object, "parameters"), false, faults);
        // The schema knows one more, for old volumes, and upstream takes one that says nothing.
        let policy = part(object, "reclaimPolicy");
        if policy.as_str().is_some_and(|policy| !policy.is_empty()) {
            field::one_of(policy, "reclaimPolicy", &["Delete", "Retain"], faults);
        }
        // A term that says nothing is as if it had been said before.
        let mut terms = HashSet::from([&Value::Null]);
        for (path, term) in paths(part(object, "allowedTopologies"), "allowedTopologies") {
            let path = format!("{path}.matchLabelExpressions");
            if !terms.insert(&term["matchLabelExpressions"]) {
                faults.push(Cause::duplicate(&path, &term["matchLabelExpressions"]));
            }
            let mut keys = HashSet::new();
            for (path, expression) in paths(&term["matchLabelExpressions"], &path) {
                let key = json!(text(expression, "key"));
                validate_label_key(&key, &format!("{path}.key"), faults);
                if !keys.insert(text(expression, "key")) {
                    faults.push(Cause::duplicate(format!("{path}.key"), &key));
                }
                field::require(&expression["values"], format!("{path}.values"), "", faults);
                field::unique(&expression["values"], &format!("{path}.values"), faults);
            }
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            field::immutable(field, object, old, faults);
        }
        field::immutable("volumeBindingMode", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Provisioner"),
                Column::text("ReclaimPolicy"),
                Column::text("VolumeBindingMode"),
                Column::text("AllowVolumeExpansion"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        vec![
            class_name(object, &DEFAULT),
            part(object, "provisioner").clone(),
            part(object, "reclaimPolicy").clone(),
            part(object, "volumeBindingMode").clone(),
            (part(object, "allowVolumeExpansion") == true).into(),
            age(object, now),
        ]
    }
}
