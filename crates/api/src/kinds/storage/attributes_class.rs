//! `VolumeAttributesClass`.

use machinery::rules::{Column, Rules, age};
use machinery::{Faults, Object};
use serde_json::Value;

use super::{class_name, validate_parameters, validate_provisioner, validate_stays};
use crate::kinds::field::part;

pub(crate) struct VolumeAttributesClass;

impl Rules for VolumeAttributesClass {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_provisioner(part(object, "driverName"), "driverName", faults);
        validate_parameters(part(object, "parameters"), true, faults);
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        validate_stays("driverName", object, old, faults);
        validate_stays("parameters", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("DriverName"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let name = class_name(object, &["storageclass.kubernetes.io/is-default-class"]);
        vec![name, part(object, "driverName").clone(), age(object, now)]
    }
}
