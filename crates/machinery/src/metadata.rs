//! Faults of metadata: `ValidateObjectMeta` and `ValidateObjectMetaUpdate` upstream.

use serde_json::{Value, json};

use crate::faults::Faults;
use crate::name::{label_value_fault, qualified_faults, without_dash_at_end};
use crate::object::Object;
use crate::resource::Resource;
use crate::status::Cause;

/// All annotations of an object together, in bytes, as upstream (`TotalAnnotationSizeLimitB`).
pub(crate) const MOST_ANNOTATIONS: usize = 256 * 1024;

static NULL: Value = Value::Null;

/// The metadata of an object by itself.
pub fn validate_own(resource: &Resource, object: &Object, faults: &mut Faults) {
    let generate_name = object.meta("generateName").and_then(Value::as_str).unwrap_or_default();
    if !generate_name.is_empty() {
        let whys = match resource.rules.looks_at_prefix() {
            true => resource.rules.name_faults_in(&without_dash_at_end(generate_name), object),
            false if generate_name.contains(['/', '%']) => vec!["may not contain '/' or '%'"],
            false => Vec::new(),
        };
        for why in whys {
            faults.push(Cause::invalid("metadata.generateName", &json!(generate_name), why));
        }
    }
    if object.name().is_empty() {
        faults.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        for why in resource.rules.name_faults_in(object.name(), object) {
            faults.push(Cause::invalid("metadata.name", &json!(object.name()), why));
        }
    }
    validate_generation(object, faults);
    validate_metadata(of(object), "metadata", faults);
    validate_standard_finalizers(resource, of(object), faults);
}

/// The metadata of an object that replaces another, as often as upstream looks at it: clients see each fault so often. How
/// often it looks at the whole object comes back.
pub fn validate_update(resource: &Resource, object: &Object, faults: &mut Faults) -> usize {
    let metadata = of(object);
    // What upstream does for every kind.
    if object.meta("generateName").and_then(Value::as_str).is_some_and(|name| name.contains(['/', '%'])) {
        let why = "may not contain '/' or '%'";
        faults.push(Cause::invalid("metadata.generateName", &metadata["generateName"], why));
    }
    validate_generation(object, faults);
    validate_metadata(metadata, "metadata", faults);
    validate_changing(metadata, faults);
    // What the kind's own code does.
    let (whole, changes) = resource.rules.looks_at_metadata();
    for _ in 0..whole {
        validate_own(resource, object, faults);
    }
    for _ in 0..changes {
        validate_changing(metadata, faults);
        validate_standard_finalizers(resource, metadata, faults);
    }
    whole.max(1)
}

fn of(object: &Object) -> &Value {
    object.0.get("metadata").unwrap_or(&NULL)
}

fn validate_generation(object: &Object, faults: &mut Faults) {
    if let Some(generation) =
        object.meta("generation").filter(|number| number.as_i64().is_some_and(|n| n < 0))
    {
        let why = "must be greater than or equal to 0";
        faults.push(Cause::invalid("metadata.generation", generation, why));
    }
}

/// Labels, annotations, finalizers and owners.
pub fn validate_metadata(metadata: &Value, path: &str, faults: &mut Faults) {
    validate_changing_at(metadata, path, faults);
    let finalizers = metadata["finalizers"].as_array();
    for finalizer in finalizers.into_iter().flatten() {
        for fault in qualified_faults(finalizer.as_str().unwrap_or_default()) {
            faults.push(Cause::invalid(format!("{path}.finalizers"), finalizer, fault));
        }
    }
}

/// The metadata of a template: labels and annotations, and nothing that makes an object that one.
pub fn validate_template_metadata(metadata: &Value, path: &str, faults: &mut Faults) {
    validate_labels(&metadata["labels"], &format!("{path}.labels"), faults);
    validate_annotations(&metadata["annotations"], &format!("{path}.annotations"), faults);
    for (field, _) in metadata.as_object().into_iter().flatten() {
        if !matches!(field.as_str(), "labels" | "annotations") {
            // Upstream makes this name of one in Go.
            let field = if field == "uid" { "uID" } else { field };
            faults.push(Cause::forbidden(format!("{path}.{field}"), "cannot be set"));
        }
    }
}

fn validate_changing(metadata: &Value, faults: &mut Faults) {
    validate_changing_at(metadata, "metadata", faults);
}

/// What upstream looks at again when metadata changes.
fn validate_changing_at(metadata: &Value, path: &str, faults: &mut Faults) {
    validate_labels(&metadata["labels"], &format!("{path}.labels"), faults);
    validate_annotations(&metadata["annotations"], &format!("{path}.annotations"), faults);
    validate_owners(&metadata["ownerReferences"], &format!("{path}.ownerReferences"), faults);
}

/// Keys of a map of annotations, and the size of all.
pub fn validate_annotations(annotations: &Value, path: &str, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        for fault in qualified_faults(&key.to_ascii_lowercase()) {
            faults.push(Cause::invalid(path, &json!(key), fault));
        }
    }
    if size > MOST_ANNOTATIONS {
        faults.push(Cause::too_long(path, MOST_ANNOTATIONS));
    }
}

/// Finalizers of Kubernetes' own kinds. What is not of them may call its finalizers as it likes.
fn validate_standard_finalizers(resource: &Resource, metadata: &Value, faults: &mut Faults) {
    if resource.custom.is_some() || resource.group == "apiextensions.k8s.io" {
        return;
    }
    let finalizers = metadata["finalizers"].as_array();
    for (index, finalizer) in finalizers.into_iter().flatten().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        if !is_domain_qualified(text) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            faults.push(Cause::invalid(format!("metadata.finalizers[{index}]"), finalizer, why));
        }
    }
}

/// Whether a finalizer's name says whose it is, or is one of Kubernetes' own.
pub(crate) fn is_domain_qualified(finalizer: &str) -> bool {
    finalizer.contains('/') || matches!(finalizer, "orphan" | "foregroundDeletion" | "kubernetes")
}

/// Upstream names none of them by its index.
fn validate_owners(owners: &Value, path: &str, faults: &mut Faults) {
    let mut controller = None;
    for (index, owner) in owners.as_array().into_iter().flatten().enumerate() {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        let version = match text("apiVersion").split('/').collect::<Vec<_>>()[..] {
            [version] | [_, version] => version,
            _ => "",
        };
        for (field, value, why) in [
            ("apiVersion", version, "version must not be empty"),
            ("kind", text("kind"), "must not be empty"),
            ("name", text("name"), "must not be empty"),
            ("uid", text("uid"), "must not be empty"),
        ] {
            if value.is_empty() {
                // One that isn't there is an empty one to upstream, which decodes it first.
                faults.push(Cause::invalid(format!("{path}.{field}"), &text(field).into(), why));
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            faults.push(Cause::invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner["controller"] == true && controller.replace(index).is_some() {
            let why = "only one reference can have controller set to true";
            faults.push(Cause::invalid(path, &owner["name"], why));
        }
    }
}

/// Keys and values of a map of labels.
pub fn validate_labels(labels: &Value, field: &str, faults: &mut Faults) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        for fault in qualified_faults(key) {
            faults.push(Cause::invalid(field, &json!(key), fault));
        }
        if let Some(fault) = label_value_fault(value.as_str().unwrap_or_default()) {
            faults.push(Cause::invalid(field, value, fault));
        }
    }
}

/// A key of a label that stands by itself.
pub fn validate_label_key(key: &Value, field: &str, faults: &mut Faults) {
    for fault in qualified_faults(key.as_str().unwrap_or_default()) {
        faults.push(Cause::invalid(field, key, fault));
    }
}
