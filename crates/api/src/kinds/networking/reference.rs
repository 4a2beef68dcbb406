//! References to objects of any kind.

use machinery::{Faults, name};
use serde_json::Value;

use crate::kinds::field;

/// Group, kind and name of an object that may be of any kind.
pub(crate) fn validate_reference(reference: &Value, path: &str, faults: &mut Faults) {
    if !reference["apiGroup"].is_null() {
        field::named(&reference["apiGroup"], format!("{path}.apiGroup"), name::subdomain_fault, faults);
    }
    for part in ["kind", "name"] {
        let path = format!("{path}.{part}");
        if field::require(&reference[part], &path, "", faults) {
            field::named(&reference[part], path, field::segment_fault, faults);
        }
    }
}
