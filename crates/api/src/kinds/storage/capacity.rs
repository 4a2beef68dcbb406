//! `CSIStorageCapacity`.

use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, Object, name};
use serde_json::Value;

use crate::kinds::field::{self, part};
use crate::kinds::workload::validate_selector;

pub(crate) struct CsiStorageCapacity;

impl Rules for CsiStorageCapacity {
    fn demands_version(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        field::named(part(object, "storageClassName"), "storageClassName", name::subdomain_fault, faults);
        validate_selector(part(object, "nodeTopology"), "nodeTopology", faults);
        let capacity = part(object, "capacity");
        if capacity.as_str().is_some_and(|quantity| quantity.starts_with('-')) {
            faults.push(Cause::invalid("capacity", capacity, "must be greater than or equal to 0"));
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        field::immutable("nodeTopology", object, old, faults);
        field::immutable("storageClassName", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("StorageClassName"), Column::text("Capacity")] }
    }

    fn cells(&self, object: &Object, _now: i64) -> Vec<Value> {
        let capacity = part(object, "capacity").as_str().unwrap_or("<unset>");
        vec![object.name().into(), part(object, "storageClassName").clone(), capacity.into()]
    }
}
