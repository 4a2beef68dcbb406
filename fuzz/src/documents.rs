//! What reads objects and what is said of them, with the laws that it has to keep.

use machinery::{FieldManager, FieldSelector, LabelSelector, Object, Patch, PatchType, Resource, Typing};
use serde_json::{Value, json};

/// The resource that a value says to be of; pods for one that says nothing.
fn resource_of(value: &Value) -> &'static Resource {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let known = api::resource_of_kind(text("apiVersion"), text("kind"));
    known.or_else(|| api::resource("", "v1", "pods")).unwrap_or_else(|| unreachable!("pods are served"))
}

pub(crate) fn json(input: &[u8]) {
    let _ = values::json_and_duplicates(input);
    let value = serde_json::from_slice(input).unwrap_or_default();
    let _ = machinery::decode(resource_of(&value), input);
}

pub(crate) fn yaml(input: &[u8]) {
    let Ok(value) = values::from_yaml(input) else { return };
    // JSON knows 1.0, YAML takes it for 1: after that nothing changes.
    let again = |value: &Value| {
        let text = values::to_yaml(value);
        values::from_yaml(text.as_bytes())
            .unwrap_or_else(|error| panic!("what was written can't be read: {error}\n{text}"))
    };
    let once = again(&value);
    assert_eq!(again(&once), once, "written and read it stays the same");
}

pub(crate) fn cbor(input: &[u8]) {
    if let Ok(value) = machinery::from_cbor(input) {
        let again = machinery::from_cbor(&machinery::to_cbor(&value));
        assert_eq!(again.ok().as_ref(), Some(&value), "what was read is written and read again");
    }
}

pub(crate) fn protobuf(input: &[u8]) {
    let Ok(value) = api::from_protobuf(input, ("", "")) else { return };
    assert!(value.to_string().len() <= 100 * (input.len() + 1000), "grows");
    if let Some(bytes) = value.as_object().and_then(api::to_protobuf) {
        let again = api::from_protobuf(&bytes, ("", ""));
        let once = again.unwrap_or_else(|error| panic!("what was written can't be read: {error}"));
        let bytes = once.as_object().and_then(api::to_protobuf).unwrap_or_default();
        assert_eq!(
            api::from_protobuf(&bytes, ("", "")).ok(),
            Some(once),
            "written and read it stays the same"
        );
    }
}

pub(crate) fn objects(input: &[u8]) {
    let value: Value = serde_json::from_slice(input).unwrap_or_default();
    let resource = resource_of(&value);
    let Some(mut object) = Object::from_value(value) else { return };
    if machinery::check(resource, &mut object).is_err() {
        return;
    }
    let old = object.clone();
    assert!(
        machinery::set_defaults(resource, &mut object).is_ok(),
        "only definitions have defaults without end"
    );
    let defaulted = object.clone();
    assert!(
        machinery::set_defaults(resource, &mut object).is_ok(),
        "only definitions have defaults without end"
    );
    assert_eq!(object, defaulted, "defaults set again change nothing");
    machinery::prepare_create(resource, &mut object);
    for cause in machinery::validate_create(resource, &object) {
        assert!(!cause.reason.is_empty() && !cause.message.is_empty(), "{cause:?}");
    }
    for subresource in ["", "status"] {
        let mut new = object.clone();
        machinery::prepare_update(resource, subresource, &mut new, &old);
        machinery::validate_update(resource, subresource, &new, &old);
    }
    machinery::table(resource, std::slice::from_ref(&object), &json!({}), machinery::Include::Object, 0);
    machinery::partial_metadata(resource, &object);
    if let Ok(fields) = FieldSelector::parse(resource, "metadata.name=a,metadata.namespace!=b") {
        fields.matches(&object);
    }
}

fn pair(input: &[u8]) -> Option<(&'static Resource, Object, Value)> {
    let Ok(Value::Array(mut both)) = serde_json::from_slice(input) else { return None };
    let (patch, object) = (both.pop()?, both.pop()?);
    let resource = resource_of(&object);
    let mut object = Object::from_value(object)?;
    machinery::check(resource, &mut object).ok()?;
    Some((resource, object, patch))
}

pub(crate) fn patch(input: &[u8]) {
    let Some((resource, object, patch)) = pair(input) else { return };
    for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
        if let Ok(patched) = machinery::patch(resource, kind, &object, &patch) {
            let (before, after) = (object.clone().into_value(), patched.into_value());
            let (before, after, own) =
                (before.to_string().len(), after.to_string().len(), patch.to_string().len());
            assert!(after <= 64 * (before + own) + 1000, "{before} patched by {own} grows to {after}");
        }
    }
}

pub(crate) fn apply(input: &[u8]) {
    let Some((resource, object, patch)) = pair(input) else { return };
    let Some(patch) = Object::from_value(patch) else { return };
    let version = resource.api_version();
    let manager = |name| FieldManager {
        name,
        api_version: &version,
        subresource: "",
        typing: Typing::Resource(resource),
        has_status: true,
        now: "2026-01-01T00:00:00Z",
        conversions: None,
    };
    let mut live = object.clone();
    manager("one")
        .update(None, &mut live)
        .unwrap_or_else(|why| panic!("built-in kinds need no webhook: {why}"));
    for force in [false, true] {
        let Ok(applied) = manager("two").apply(Some(&live), &Patch { object: &patch, force }) else {
            continue;
        };
        let again = |live: &Object| {
            let applied = manager("two").apply(Some(live), &Patch { object: &patch, force: true });
            applied.unwrap_or_else(|status| panic!("what was applied can't be applied again: {status}"))
        };
        // Once more may still give up what is empty; after that nothing changes.
        let settled = again(&again(&applied));
        assert_eq!(again(&settled), settled, "applied again it changes nothing");
    }
}

pub(crate) fn selectors(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let object = Object::from_value(json!({"metadata": {"name": "a", "labels": {"a": "b", "b/c": "1"}}}));
    let Some(object) = object else { return };
    if let Ok(labels) = LabelSelector::parse(&text) {
        labels.matches(&object);
    }
    let resource = resource_of(&Value::Null);
    if let Ok(fields) = FieldSelector::parse(resource, &text) {
        fields.matches(&object);
    }
}

pub(crate) fn openapi(input: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(input) else { return };
    let text = api::openapi_v2(std::iter::once(document.clone()));
    assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    api::openapi_v2_protobuf(std::iter::once(document.clone()));
    api::openapi_v3_protobuf(&document);
}
