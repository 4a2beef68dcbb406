//! What is fuzzed, each with the laws that it has to keep.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::grow::Growing;
use crate::law::Law;
use crate::{
    containers, definitions, designs, documents, expressions, files, grow, mutate, names, virtual_routers,
    wire,
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
        Target { name: "json", make: json_text, grow: grow_json, read: documents::json, law: law(MIB, 800) },
        Target { name: "yaml", make: yaml_text, grow: grow_yaml, read: documents::yaml, law: law(MIB, 300) },
        Target {
            name: "cbor",
            make: cbor_bytes,
            grow: grow_cbor,
            read: documents::cbor,
            law: law(MIB, 1000),
        },
        Target {
            name: "protobuf",
            make: protobuf_bytes,
            grow: grow_protobuf,
            read: documents::protobuf,
            law: law(MIB, 500),
        },
        Target {
            name: "objects",
            make: tree_text,
            grow: grow_tree,
            read: documents::objects,
            law: law(4 * MIB, 300),
        },
        Target {
            name: "patch",
            make: pair_text,
            grow: grow_pair,
            read: documents::patch,
            law: law(4 * MIB, 600),
        },
        Target {
            name: "apply",
            make: pair_text,
            grow: grow_pair,
            read: documents::apply,
            law: law(4 * MIB, 300),
        },
        Target {
            name: "selectors",
            make: selector_text,
            grow: grow_selector,
            read: documents::selectors,
            law: law(MIB, 300),
        },
        Target {
            name: "openapi",
            make: schema_text,
            grow: grow_schema,
            read: documents::openapi,
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
