//! The subresource `scale`: how many there are of something, whatever it is.

use serde_json::{Map, Value, json};

use crate::object::Object;
use crate::resource::Resource;
use crate::selector::LabelSelector;
use crate::status::{Cause, Status};

/// The `autoscaling/v1 Scale` of `object`; nothing if its kind has none.
pub fn scale_of(resource: &Resource, object: &Object) -> Option<Object> {
    resource.subresource("scale")?;
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.meta(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let (asked, there, selector) = match resource.custom() {
        Some(custom) => custom.read_scale(object)?,
        None => {
            // A ReplicationController is older than selectors: its labels are one.
            let read = match resource.kind {
                "ReplicationController" => LabelSelector::from_labels,
                _ => LabelSelector::from_value,
            };
            let selector = object.pointer("/spec/selector").and_then(read);
            let selector = selector.map(|selector| selector.to_string()).unwrap_or_default();
            (count("/spec/replicas"), count("/status/replicas"), selector)
        }
    };
    let mut spec = Map::new();
    if asked != 0 {
        spec.insert("replicas".into(), asked.into());
    }
    let mut status = json!({ "replicas": there });
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    Object::from_value(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status,
    }))
}

/// The path at which an object of a definition should say how many replicas it wants, if it doesn't: upstream shows
/// no scale then.
pub fn missing_replicas(resource: &Resource, object: &Object) -> Option<String> {
    resource.custom()?.missing_replicas(object)
}

/// Gives `object` the number of replicas that `scale` asks for.
///
/// # Errors
/// If the kind has no scale, or the number is none that can be had.
pub fn apply_scale(resource: &Resource, object: &mut Object, scale: &Object) -> Result<(), Status> {
    if resource.subresource("scale").is_none() {
        return Err(Status::method_not_allowed());
    }
    let invalid = |value: &Value, why: &str| {
        let cause = Cause::invalid("spec.replicas", value, why);
        Status::invalid("autoscaling", "Scale", object.name(), vec![cause])
    };
    let zero = Value::from(0);
    let asked = scale.pointer("/spec/replicas").filter(|asked| !asked.is_null()).unwrap_or(&zero);
    let Some(replicas) = asked.as_i64().and_then(|n| i32::try_from(n).ok()) else {
        return Err(invalid(asked, "must be an integer of 32 bits"));
    };
    // What a definition's kind can't have is reported for its own field, when the object is validated.
    if replicas < 0 && resource.custom().is_none() {
        return Err(invalid(asked, "must be greater than or equal to 0"));
    }
    if let Some(custom) = resource.custom() {
        custom.write_scale(object, i64::from(replicas));
    } else if let Value::Object(spec) = object.0.entry("spec").or_insert_with(|| json!({})) {
        spec.insert("replicas".into(), replicas.into());
    }
    Ok(())
}
