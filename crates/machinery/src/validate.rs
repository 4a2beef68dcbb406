//! Faults of an object: its metadata, its schema's choices, and what its kind's code finds.

use serde_json::{Map, Value};

use crate::conform::Empties;
use crate::faults::Faults;
use crate::metadata;
use crate::object::Object;
use crate::resource::Resource;
use crate::schema::{Field, Schema, Shape};
use crate::status::Cause;

/// The faults of a new object; none, if it may be stored.
pub fn validate_create(resource: &Resource, object: &Object) -> Vec<Cause> {
    let mut faults = Faults::default();
    metadata::validate_own(resource, object, &mut faults);
    validate_object(resource, object, None, "", &mut faults);
    resource.rules.validate_create(object, &mut faults);
    faults.into_causes()
}

/// The faults of an object that is to replace `old` through `subresource`, changes that are forbidden among them.
pub fn validate_update(resource: &Resource, subresource: &str, object: &Object, old: &Object) -> Vec<Cause> {
    let mut faults = Faults::default();
    let looks = metadata::validate_update(resource, object, &mut faults);
    for _ in 0..if resource.rules.looks_at_changes() { looks } else { 0 } {
        validate_object(resource, object, Some(old), subresource, &mut faults);
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let value = object.meta(field);
        if value != old.meta(field) {
            let value = value.unwrap_or(&Value::Null);
            faults.push(Cause::invalid(format!("metadata.{field}"), value, "field is immutable"));
        }
    }
    if object.deletion_timestamp().is_some() {
        let before = old.finalizers();
        for finalizer in object.finalizers().iter().filter(|f| !before.contains(f)) {
            let why =
                format!("no new finalizers can be added if the object is being deleted, found {finalizer:?}");
            faults.push(Cause::forbidden("metadata.finalizers", &why));
        }
    }
    let plain = Empties::All.without(resource, object).filter(|_| !resource.rules.sees_empties());
    resource.rules.validate_update(subresource, plain.as_ref().unwrap_or(object), old, &mut faults);
    faults.into_causes()
}

fn validate_object(
    resource: &Resource,
    object: &Object,
    old: Option<&Object>,
    subresource: &str,
    faults: &mut Faults,
) {
    if let Some(schema) = resource.schema.get() {
        let mut path = String::new();
        for field in schema.fields().iter().filter(|f| !matches!(f.name, "metadata" | "status")) {
            if let Some(value) = object.0.get(field.name) {
                path.push_str(field.name);
                validate_choices(&field.shape, field, value, &mut path, faults);
                path.clear();
            }
        }
    }
    resource.rules.validate(object, faults);
    if let Some(custom) = &resource.custom {
        custom.validate(object, old, subresource, faults);
    }
}

/// Values that are none of those that the schema lists.
fn validate_choices(shape: &Shape, field: &Field, value: &Value, path: &mut String, faults: &mut Faults) {
    let length = path.len();
    match (shape, value) {
        (Shape::Text, Value::String(text)) if !field.choices.is_empty() => {
            // What says nothing, though it must say something, is the kind's to find.
            let says_nothing = text.is_empty() && !field.is_pointer && matches!(field.shape, Shape::Text);
            let known = says_nothing || field.choices.contains(&text.as_str());
            faults.extend((!known).then(|| Cause::not_supported(path.as_str(), value, &field.choices)));
        }
        (Shape::Object(of), Value::Object(object)) => {
            validate_fields(of.get(), object, path, faults);
        }
        (Shape::List(items), Value::Array(list)) => {
            for (index, item) in list.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                validate_choices(items, field, item, path, faults);
                path.truncate(length);
            }
        }
        (Shape::Map(values), Value::Object(map)) => {
            for (key, value) in map {
                path.push_str(&format!("[{key}]"));
                validate_choices(values, field, value, path, faults);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn validate_fields(schema: &Schema, object: &Map<String, Value>, path: &mut String, faults: &mut Faults) {
    let length = path.len();
    let mut validate = |field: &Field, value: &Value| {
        path.push('.');
        path.push_str(field.name);
        validate_choices(&field.shape, field, value, path, faults);
        path.truncate(length);
    };
    for field in schema.fields_with_choices() {
        if let Some(value) = object.get(field.name) {
            validate(field, value);
        }
    }
    for (name, value) in object.iter().filter(|(_, value)| value.is_object() || value.is_array()) {
        if let Some(field) = schema.field(name).filter(|field| field.choices.is_empty()) {
            validate(field, value);
        }
    }
}
