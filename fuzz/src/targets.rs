//! What is fuzzed, each with the laws that it has to keep.

use machinery::{FieldManager, FieldSelector, LabelSelector, Object, Patch, PatchType, Resource, Typing};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::grow::Growing;
use crate::law::Law;
use crate::{
    containers, definitions, designs, expressions, files, grow, mutate, names, virtual_routers, wire,
};

/// Something that reads input from outside.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Makes an input.
    pub make: fn(&mut StdRng, &Corpus) -> Vec<u8>,
    /// Makes one that grows.
    pub grow: fn(&mut StdRng, &Corpus) -> Growing,
    /// Reads one; panics where a law is broken.
    pub read: fn(&[u8]),
    /// What reading may cost.
    pub law: Law,
}

const MIB: u64 = 1 << 20;

/// All of them but those that need a server: whole requests, and etcd's calls.
pub fn targets() -> Vec<Target> {
    let law = |base, per_byte| Law { base, per_byte };
    vec![
        Target { name: "json", make: json_text, grow: grow_json, read: json, law: law(MIB, 800) },
        Target { name: "yaml", make: yaml_text, grow: grow_yaml, read: yaml, law: law(MIB, 300) },
        Target { name: "cbor", make: cbor_bytes, grow: grow_cbor, read: cbor, law: law(MIB, 1000) },
        Target {
            name: "protobuf",
            make: protobuf_bytes,
            grow: grow_protobuf,
            read: protobuf,
            law: law(MIB, 500),
        },
        Target { name: "objects", make: tree_text, grow: grow_tree, read: objects, law: law(4 * MIB, 300) },
        Target { name: "patch", make: pair_text, grow: grow_pair, read: patch, law: law(4 * MIB, 600) },
        Target { name: "apply", make: pair_text, grow: grow_pair, read: apply, law: law(4 * MIB, 300) },
        Target {
            name: "selectors",
            make: selector_text,
            grow: grow_selector,
            read: selectors,
            law: law(MIB, 300),
        },
        Target {
            name: "openapi",
            make: schema_text,
            grow: grow_schema,
            read: openapi,
            law: law(4 * MIB, 600),
        },
        Target {
            name: "cel",
            make: expressions::make,
            grow: expressions::grow,
            read: expressions::read,
            law: law(64 * MIB, 3000),
        },
        Target {
            name: "definitions",
            make: definitions::make,
            grow: definitions::grow,
            read: definitions::read,
            law: law(64 * MIB, 800),
        },
        Target {
            name: "kubeconfig",
            make: files::make_kubeconfig,
            grow: files::grow_kubeconfig,
            read: files::kubeconfig,
            law: law(MIB, 400),
        },
        Target {
            name: "manifest",
            make: files::make_manifest,
            grow: files::grow_manifest,
            read: files::manifest,
            law: law(MIB, 400),
        },
        Target {
            name: "files",
            make: files::make_file,
            grow: files::grow_file,
            read: files::file,
            // A host's configuration is read as values, as JSON is above.
            law: law(MIB, 800),
        },
        Target {
            name: "designs",
            make: designs::make,
            grow: designs::grow,
            read: designs::read,
            law: law(4 * MIB, 1500),
        },
        Target {
            name: "pem",
            make: files::make_pem,
            grow: files::grow_pem,
            read: files::pem,
            law: law(MIB, 300),
        },
        Target {
            name: "heartbeats",
            make: wire::make_heartbeat,
            grow: wire::grow_heartbeat,
            read: wire::heartbeat,
            law: law(MIB, 50),
        },
        Target {
            name: "frames",
            make: wire::make_frame,
            grow: wire::grow_frame,
            read: wire::frame,
            law: law(MIB, 60),
        },
        Target {
            name: "commands",
            make: wire::make_command,
            grow: wire::grow_command,
            read: wire::command,
            law: law(MIB, 60),
        },
        Target {
            name: "images",
            make: wire::make_image,
            grow: wire::grow_image,
            read: wire::image,
            law: law(MIB, 100),
        },
        Target {
            name: "backups",
            make: wire::make_backup,
            grow: wire::grow_backup,
            read: wire::backup,
            law: law(MIB, 150),
        },
        Target {
            name: "logs",
            make: wire::make_log,
            grow: wire::grow_log,
            read: wire::log,
            law: law(MIB, 20),
        },
        Target {
            name: "questions",
            make: names::make_question,
            grow: names::grow_question,
            read: names::question,
            law: law(MIB, 100),
        },
        Target {
            name: "answers",
            make: names::make_answer,
            grow: names::grow_answer,
            read: names::answer,
            law: law(4 * MIB, 2000),
        },
        Target {
            name: "spdy",
            make: wire::make_spdy,
            grow: wire::grow_spdy,
            read: wire::spdy,
            law: law(MIB, 60),
        },
        Target {
            name: "vrrp",
            make: virtual_routers::make,
            grow: virtual_routers::grow,
            read: virtual_routers::read,
            law: law(MIB, 20),
        },
        Target {
            name: "layers",
            make: containers::make_layer,
            grow: containers::grow_layer,
            read: containers::layer,
            law: law(2 * MIB, 60),
        },
        Target {
            name: "registries",
            make: containers::make_saying,
            grow: containers::grow_saying,
            read: containers::saying,
            law: law(MIB, 300),
        },
    ]
}

/// A tree that grows, as whatever a target reads.
fn growing(rng: &mut StdRng, value: Value, written: impl Fn(&Value) -> Vec<u8> + 'static) -> Growing {
    let tree = grow::tree(rng, value);
    Box::new(move |times| written(&tree(times)))
}

/// Either a tree that grows, or its bytes.
fn growing_bytes(rng: &mut StdRng, value: Value, written: impl Fn(&Value) -> Vec<u8> + 'static) -> Growing {
    match rng.random_range(0..2) {
        0 => grow::bytes(rng, &written(&value)),
        _ => growing(rng, value, written),
    }
}

fn text_of(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn grow_json(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let value = changed(rng, corpus);
    growing_bytes(rng, value, text_of)
}

fn grow_yaml(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let value = changed(rng, corpus);
    growing_bytes(rng, value, |value| values::to_yaml(value).into_bytes())
}

fn grow_cbor(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let value = changed(rng, corpus);
    growing_bytes(rng, value, machinery::to_cbor)
}

fn grow_protobuf(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let value = any(rng, &corpus.values).clone();
    let written =
        |value: &Value| value.as_object().and_then(api::to_protobuf).unwrap_or_else(|| b"k8s\0".to_vec());
    growing_bytes(rng, value, written)
}

fn grow_tree(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let value = changed(rng, corpus);
    growing(rng, value, text_of)
}

/// An object and a patch: what grows may be in either, or in both.
fn grow_pair(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let pair = serde_json::from_slice(&pair_text(rng, corpus)).unwrap_or_default();
    growing(rng, pair, text_of)
}

fn grow_selector(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let text = selector_text(rng, corpus);
    grow::bytes(rng, &text)
}

fn grow_schema(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let schema = serde_json::from_slice(&schema_text(rng, corpus)).unwrap_or_default();
    growing(rng, schema, text_of)
}

fn any<'a>(rng: &mut StdRng, list: &'a [Value]) -> &'a Value {
    &list[rng.random_range(0..list.len())]
}

fn changed(rng: &mut StdRng, corpus: &Corpus) -> Value {
    let (value, other) = (any(rng, &corpus.values).clone(), any(rng, &corpus.values));
    mutate::tree(rng, value, other)
}

/// Bytes, half of the time changed once more.
fn bent(rng: &mut StdRng, input: Vec<u8>, corpus: &Corpus) -> Vec<u8> {
    if rng.random() {
        return input;
    }
    let others = any(rng, &corpus.values).to_string();
    mutate::bytes(rng, input, others.as_bytes())
}

fn json_text(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let text = changed(rng, corpus).to_string();
    bent(rng, text.into_bytes(), corpus)
}

fn tree_text(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    changed(rng, corpus).to_string().into_bytes()
}

fn yaml_text(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let value = changed(rng, corpus);
    let text = values::to_yaml(&value);
    bent(rng, text.into_bytes(), corpus)
}

fn cbor_bytes(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let bytes = machinery::to_cbor(&changed(rng, corpus));
    bent(rng, bytes, corpus)
}

fn protobuf_bytes(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let value = any(rng, &corpus.values);
    let bytes = value.as_object().and_then(api::to_protobuf).unwrap_or_else(|| b"k8s\0".to_vec());
    bent(rng, bytes, corpus)
}

fn pair_text(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let object = any(rng, &corpus.values).clone();
    let patch = match rng.random_range(0..4) {
        0 => operations(rng, &object),
        1 => changed(rng, corpus),
        _ => {
            let other = any(rng, &corpus.values);
            mutate::tree(rng, object.clone(), other)
        }
    };
    json!([object, patch]).to_string().into_bytes()
}

/// Operations of RFC 6902 on paths that an object has, or hasn't.
fn operations(rng: &mut StdRng, object: &Value) -> Value {
    let mut path = String::new();
    let mut place = object;
    while let Some(map) = place.as_object().filter(|map| !map.is_empty() && rng.random_range(0..4) > 0) {
        let Some((key, value)) = map.iter().nth(rng.random_range(0..map.len())) else { break };
        path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        place = value;
    }
    let operation = |rng: &mut StdRng| {
        let names = ["add", "remove", "replace", "move", "copy", "test", "none"];
        let ends = ["", "", "/0", "/-", "/18446744073709551616", "/01", "/x", "/~2"];
        let end = ends[rng.random_range(0..ends.len())];
        let from = format!("{path}{}", ends[rng.random_range(0..ends.len())]);
        json!({"op": names[rng.random_range(0..names.len())], "path": format!("{path}{end}"), "from": from,
            "value": mutate::leaf(rng)})
    };
    (0..rng.random_range(0..6)).map(|_| operation(rng)).collect()
}

fn selector_text(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let parts = [
        "a",
        "=",
        "==",
        "!=",
        " in ",
        " notin ",
        "(",
        ")",
        ",",
        "!",
        "b/c",
        ">",
        "<",
        "1",
        "\\,",
        "metadata.name",
    ];
    let mut text = String::new();
    for _ in 0..rng.random_range(0..14) {
        text += if rng.random_range(0..8) == 0 {
            mutate::word(rng)
        } else {
            parts[rng.random_range(0..parts.len())]
        };
    }
    bent(rng, text.into_bytes(), corpus)
}

fn schema_text(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let schema = json!({"type": "object", "nullable": true, "properties": {"a": {"oneOf": [{"type": "string"}],
        "allOf": [{"$ref": "#/components/schemas/x"}], "default": {}}, "b": {"items": {"enum": [1, null]},
        "additionalProperties": true, "x-kubernetes-int-or-string": true, "minimum": 0.5}}});
    let document = json!({"openapi": "3.0.0", "paths": {"/a": {"parameters": [{"in": "path", "name": "n",
        "schema": {"type": "string"}}], "get": {"parameters": [], "requestBody": {"content": {"*/*": {"schema": schema}}},
        "responses": {"200": {"content": {"application/json": {"schema": schema}}}}, "tags": ["a"]}}},
        "components": {"schemas": {"x": schema}, "securitySchemes": {}}});
    let other = any(rng, &corpus.values);
    mutate::tree(rng, document, other).to_string().into_bytes()
}

/// The resource that a value says to be of; pods for one that says nothing.
fn resource_of(value: &Value) -> &'static Resource {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let known = api::resource_of_kind(text("apiVersion"), text("kind"));
    known.or_else(|| api::resource("", "v1", "pods")).unwrap_or_else(|| unreachable!("pods are served"))
}

fn json(input: &[u8]) {
    let _ = values::json_and_duplicates(input);
    let value = serde_json::from_slice(input).unwrap_or_default();
    let _ = machinery::decode(resource_of(&value), input);
}

fn yaml(input: &[u8]) {
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

fn cbor(input: &[u8]) {
    if let Ok(value) = machinery::from_cbor(input) {
        let again = machinery::from_cbor(&machinery::to_cbor(&value));
        assert_eq!(again.ok().as_ref(), Some(&value), "what was read is written and read again");
    }
}

fn protobuf(input: &[u8]) {
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

fn objects(input: &[u8]) {
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

fn patch(input: &[u8]) {
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

fn apply(input: &[u8]) {
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

fn selectors(input: &[u8]) {
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

fn openapi(input: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(input) else { return };
    let text = api::openapi_v2(std::iter::once(document.clone()));
    assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    api::openapi_v2_protobuf(std::iter::once(document.clone()));
    api::openapi_v3_protobuf(&document);
}
