//! `Namespace`.

use machinery::rules::{Column, Rules, age};
use machinery::{Object, keep, name};
use serde_json::{Value, json};

pub(crate) struct Namespace;

/// The label that tells a namespace's name, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Rules for Namespace {
    fn set_defaults(&self, object: &mut Object) {
        let name = object.name().to_owned();
        if name.is_empty() {
            return;
        }
        if let Value::Object(labels) = object.metadata_mut().entry("labels").or_insert_with(|| json!({})) {
            labels.insert(NAME_LABEL.into(), name.into());
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({ "phase": "Active" }));
        let spec = object.0.entry("spec").or_insert_with(|| json!({}));
        if let Value::Object(spec) = spec
            && let Value::Array(finalizers) = spec.entry("finalizers").or_insert_with(|| json!([]))
            && !finalizers.iter().any(|finalizer| finalizer == "kubernetes")
        {
            finalizers.push("kubernetes".into());
        }
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        // A namespace is finalized through the subresource alone.
        if subresource.is_empty() {
            keep(&mut object.0, Some(&old.0), "spec");
        }
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        name::label_fault(name)
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("status.phase", "/status/phase"), ("name", "/metadata/name")]
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Status"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let phase = object.pointer("/status/phase").cloned().unwrap_or_else(|| "".into());
        vec![object.name().into(), phase, age(object, now)]
    }
}
