//! From `kubectl apply` by the client, which keeps what it applied in an annotation, to that by the server.

use serde_json::Value;

use super::compare::{compare, fields_of};
use super::field_manager::{FieldManager, bare};
use super::field_set::FieldSet;
use crate::metadata::MOST_ANNOTATIONS;
use crate::object::Object;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn annotation(object: &Object) -> Option<&str> {
    object.meta("annotations")?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// The fields that are as the client last applied them: they may be changed as if they were the applier's own.
pub(super) fn allowed(manager: &FieldManager<'_>, live: &Object) -> Option<FieldSet> {
    let applied: Object = serde_json::from_str(annotation(live)?).ok()?;
    if applied.api_version() != manager.api_version {
        return None;
    }
    let root = manager.typing.root();
    let difference = compare(root, &applied.0, &live.0);
    Some(fields_of(root, &bare(&applied)).difference(&difference.changed).difference(&difference.removed))
}

/// Keeps the annotation, where there is one, at what is applied now.
pub(super) fn renew(object: &mut Object, applied: &Object) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(annotations)) = applied.metadata_mut().get_mut("annotations") {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{}\n", Value::Object(applied.0));
    let Some(Value::Object(annotations)) = object.metadata_mut().get_mut("annotations") else { return };
    annotations.insert(ANNOTATION.to_owned(), text.into());
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > MOST_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}
