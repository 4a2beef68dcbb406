//! Faults of an object: its metadata, its schema's choices, and what its kind's code finds.

use serde_json::{Map, Value, json};

use crate::faults::Faults;
use crate::name::{label_value_fault, qualified_fault, validate_name};
use crate::object::Object;
use crate::resource::Resource;
use crate::schema::{Field, Schema, Shape, schemas};
use crate::status::Cause;

/// All annotations of an object together, in bytes.
const MOST_ANNOTATIONS: usize = 256 * 1024;

/// The faults of a new object; none, if it may be stored.
pub fn validate_create(resource: &Resource, object: &Object) -> Vec<Cause> {
    let mut faults = Faults::default();
    faults.extend(validate_name(resource, object.name()));
    validate_object(resource, object, None, &mut faults);
    resource.rules.validate_create(object, &mut faults);
    faults.into_causes()
}

/// The faults of an object that is to replace `old` through `subresource`, changes that are forbidden among them.
pub fn validate_update(resource: &Resource, subresource: &str, object: &Object, old: &Object) -> Vec<Cause> {
    let mut faults = Faults::default();
    // Upstream looks at labels, annotations and owners of an update three times, and clients see it.
    let metadata = object.0.get("metadata").unwrap_or(&Value::Null);
    for _ in 0..2 {
        validate_own_metadata(resource, metadata, &mut faults);
    }
    validate_object(resource, object, Some(old), &mut faults);
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
    resource.rules.validate_update(subresource, object, old, &mut faults);
    faults.into_causes()
}

fn validate_object(resource: &Resource, object: &Object, old: Option<&Object>, faults: &mut Faults) {
    validate_own_metadata(resource, object.0.get("metadata").unwrap_or(&Value::Null), faults);
    if let Some(schema) = schemas().named(resource.schema) {
        let mut path = String::new();
        for field in schema.fields().iter().filter(|f| !matches!(f.name, "metadata" | "status")) {
            if let Some(value) = object.0.get(field.name) {
                path.push_str(field.name);
                validate_choices(&field.shape, &field.choices, value, &mut path, faults);
                path.clear();
            }
        }
    }
    resource.rules.validate(object, faults);
    if let Some(custom) = &resource.custom {
        custom.validate(object, old, faults);
    }
}

/// Labels, annotations, finalizers and owners of an object or a pod template.
pub(crate) fn validate_metadata(metadata: &Value, path: &str, faults: &mut Faults) {
    validate_labels(&metadata["labels"], &format!("{path}.labels"), faults);
    let annotations = metadata["annotations"].as_object();
    let field = format!("{path}.annotations");
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        if let Some(fault) = qualified_fault(&key.to_ascii_lowercase()) {
            faults.push(Cause::invalid(&field, &json!(key), fault));
        }
    }
    if size > MOST_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MOST_ANNOTATIONS} bytes");
        faults.push(Cause { reason: "FieldValueTooLong".into(), message, field });
    }
    validate_owners(&metadata["ownerReferences"], &format!("{path}.ownerReferences"), faults);
    let finalizers = metadata["finalizers"].as_array();
    for finalizer in finalizers.into_iter().flatten() {
        if let Some(fault) = qualified_fault(finalizer.as_str().unwrap_or_default()) {
            faults.push(Cause::invalid(format!("{path}.finalizers"), finalizer, fault));
        }
    }
}

/// The metadata of an object. What is not of Kubernetes' own kinds may call its finalizers as it likes.
fn validate_own_metadata(resource: &Resource, metadata: &Value, faults: &mut Faults) {
    validate_metadata(metadata, "metadata", faults);
    if resource.custom.is_some() || resource.group == "apiextensions.k8s.io" {
        return;
    }
    let finalizers = metadata["finalizers"].as_array();
    for (index, finalizer) in finalizers.into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        if !text.contains('/') && !matches!(text, "orphan" | "foregroundDeletion" | "kubernetes") {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            faults.push(Cause::invalid(format!("metadata.finalizers[{index}]"), finalizer, why));
        }
    }
}

fn validate_owners(owners: &Value, path: &str, faults: &mut Faults) {
    let mut controller = None;
    for (index, owner) in owners.as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                faults.push(Cause::required(format!("{path}[{index}].{field}"), "must not be empty"));
            }
        }
        if owner["controller"] == true && controller.replace(index).is_some() {
            let why = "only one reference can have controller set to true";
            faults.push(Cause::invalid(path, &owner["name"], why));
        }
    }
}

/// Keys and values of a map of labels.
pub(crate) fn validate_labels(labels: &Value, field: &str, faults: &mut Faults) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Some(fault) = qualified_fault(key) {
            faults.push(Cause::invalid(field, &json!(key), fault));
        }
        if let Some(fault) = label_value_fault(value.as_str().unwrap_or_default()) {
            faults.push(Cause::invalid(field, value, fault));
        }
    }
}

/// Values that are none of those that the schema lists.
fn validate_choices(shape: &Shape, choices: &[&str], value: &Value, path: &mut String, faults: &mut Faults) {
    let length = path.len();
    match (shape, value) {
        (Shape::Text, Value::String(text)) if !choices.is_empty() && !text.is_empty() => {
            let known = choices.contains(&text.as_str());
            faults.extend((!known).then(|| Cause::not_supported(path.as_str(), value, choices)));
        }
        (Shape::Object(number), Value::Object(object)) => {
            validate_fields(schemas().numbered(*number), object, path, faults);
        }
        (Shape::List(items), Value::Array(list)) => {
            for (index, item) in list.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                validate_choices(items, choices, item, path, faults);
                path.truncate(length);
            }
        }
        (Shape::Map(values), Value::Object(map)) => {
            for (key, value) in map {
                path.push_str(&format!("[{key}]"));
                validate_choices(values, choices, value, path, faults);
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
        validate_choices(&field.shape, &field.choices, value, path, faults);
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
