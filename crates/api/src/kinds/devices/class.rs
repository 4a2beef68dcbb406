//! `DeviceClass`.

use machinery::rules::Rules;
use machinery::{Cause, Faults, Object, name};

use super::{validate_count, validate_opaque, validate_selectors};
use crate::kinds::field::{part, paths, text};

pub(crate) struct DeviceClass;

impl Rules for DeviceClass {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (0, 2)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn looks_at_prefix(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate_selectors(&spec["selectors"], "spec.selectors", faults);
        validate_count(&spec["config"], "spec.config", faults);
        for (path, config) in paths(&spec["config"], "spec.config") {
            validate_opaque(config, &path, faults);
        }
        let extended = text(spec, "extendedResourceName");
        let is_own = extended.contains('/') && !extended.contains("kubernetes.io/");
        let fits = is_own && name::qualified_fault(extended).is_none();
        if !spec["extendedResourceName"].is_null() && !fits {
            let why = "must be the name of an extended resource, such as example.com/name";
            faults.push(Cause::invalid("spec.extendedResourceName", &spec["extendedResourceName"], why));
        }
    }
}
