//! `storage.k8s.io`.

mod attachment;
mod attributes_class;
mod capacity;
mod class;
mod driver;
mod node;

pub(crate) use attachment::VolumeAttachment;
pub(crate) use attributes_class::VolumeAttributesClass;
pub(crate) use capacity::CsiStorageCapacity;
pub(crate) use class::StorageClass;
pub(crate) use driver::CsiDriver;
pub(crate) use node::CsiNode;

use machinery::{Cause, Faults, Object, name};
use serde_json::Value;

use super::field;

/// The most parameters of a class, and the most bytes of them together.
const MOST_PARAMETERS: usize = 512;
const MOST_PARAMETER_BYTES: usize = 256 * 1024;
const LONGEST_DRIVER: usize = 63;

/// The name of a CSI driver.
fn validate_driver(value: &Value, path: &str, faults: &mut Faults) {
    let driver = value.as_str().unwrap_or_default();
    if !field::require(value, path, "", faults) {
        return;
    }
    if driver.len() > LONGEST_DRIVER {
        faults.push(Cause::too_long(path, LONGEST_DRIVER));
    }
    if let Some(why) = name::subdomain_fault(&driver.to_ascii_lowercase()) {
        faults.push(Cause::invalid(path, value, why));
    }
}

/// Who makes the volumes of a class.
fn validate_provisioner(value: &Value, path: &str, faults: &mut Faults) {
    if field::require(value, path, "", faults)
        && let Some(why) = name::qualified_fault(&value.as_str().unwrap_or_default().to_ascii_lowercase())
    {
        faults.push(Cause::invalid(path, value, why));
    }
}

/// The parameters of a class, which nobody but its driver reads.
fn validate_parameters(parameters: &Value, required: bool, faults: &mut Faults) {
    let map = parameters.as_object();
    let count = map.map_or(0, |map| map.len());
    if count > MOST_PARAMETERS {
        faults.push(Cause::too_long("parameters", MOST_PARAMETERS));
        return;
    }
    let mut size = 0;
    for (key, value) in map.into_iter().flatten() {
        if key.is_empty() {
            faults.push(Cause::invalid("parameters", &Value::from(""), "field can not be empty."));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MOST_PARAMETER_BYTES {
        faults.push(Cause::too_long("parameters", MOST_PARAMETER_BYTES));
    }
    if required && count == 0 {
        let why = "must contain at least one key/value pair";
        faults.push(Cause::required("parameters", why));
    }
}

/// Fields of which upstream says with another reason that they stay.
fn validate_stays(field: &str, object: &Object, old: &Object, faults: &mut Faults) {
    if object.0.get(field) != old.0.get(field) {
        faults.push(Cause::forbidden(field, &format!("updates to {field} are forbidden.")));
    }
}

/// A class's name, marked if it is the one that who names none gets.
fn class_name(object: &Object, annotations: &[&str]) -> Value {
    let is_default = annotations.iter().any(|annotation| {
        object.meta("annotations").and_then(|all| all.get(*annotation)).is_some_and(|value| value == "true")
    });
    if is_default { format!("{} (default)", object.name()).into() } else { object.name().into() }
}
