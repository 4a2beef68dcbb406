//! `DeviceClass`.

use machinery::rules::Rules;
use machinery::{Faults, Object, name};

use super::{validate_count, validate_opaque, validate_selectors};
use crate::kinds::field::{self, part, paths, text};

pub(crate) struct DeviceClass;

impl Rules for DeviceClass {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (0, 2)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate_selectors(&spec["selectors"], "spec.selectors", faults);
        validate_count(&spec["config"], "spec.config", faults);
        for (path, config) in paths(&spec["config"], "spec.config") {
            validate_opaque(config, &path, faults);
        }
        if !text(spec, "extendedResourceName").is_empty() {
            let path = "spec.extendedResourceName";
            field::named(&spec["extendedResourceName"], path, name::qualified_fault, faults);
        }
    }
}
