//! `DeviceClass`.

use super::{validate_count, validate_opaque, validate_selectors};
use crate::faults::Faults;
use crate::kinds::field::{self, part, paths, text};
use crate::kinds::rules::Rules;
use crate::name;
use crate::object::Object;

pub(crate) struct DeviceClass;

impl Rules for DeviceClass {
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
