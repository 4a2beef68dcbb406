//! The OpenAPI documents held against those of a kube-apiserver 1.36.2.

#![allow(missing_docs, clippy::unwrap_used)]

use serde_json::Value;

/// Path and hash of every document: FNV-1a, 64 bits, of the JSON with its keys in order and no spaces, and without what
/// schemas and fields mean (the test `descriptions` holds that).
const RECORDED: &str = include_str!("../testdata/openapi.txt");

/// Documents of groups that are not served whole yet.
const NOT_WHOLE: [&str; 6] = [
    "api/v1",
    "apis/authentication.k8s.io",
    "apis/authentication.k8s.io/v1",
    "apis/authorization.k8s.io",
    "apis/authorization.k8s.io/v1",
    "apis/certificates.k8s.io/v1",
];

fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Takes out what schemas and their fields mean. A field that is itself called `description` has an object there.
fn undescribe(schemas: &mut Value) {
    match schemas {
        Value::Object(map) => {
            map.retain(|name, value| name != "description" || !value.is_string());
            map.values_mut().for_each(undescribe);
        }
        Value::Array(list) => list.iter_mut().for_each(undescribe),
        _ => {}
    }
}

#[test]
fn documents_are_those_of_the_recorded_server() {
    let mut different = Vec::new();
    for line in RECORDED.lines() {
        let (path, recorded) = line.split_once(' ').unwrap();
        let mut ours: Value = match api::openapi_v3(&api::Catalog::default(), path) {
            Some(document) => serde_json::from_str(&document).unwrap(),
            None => Value::Null,
        };
        if let Some(schemas) = ours.pointer_mut("/components/schemas") {
            undescribe(schemas);
        }
        let same = format!("{:016x}", hash(&ours.to_string())) == recorded;
        if !same && !NOT_WHOLE.contains(&path) {
            different.push(path);
        }
    }
    assert_eq!(different, [""; 0]);
}

fn swagger() -> Value {
    serde_json::from_str(&api::openapi_v2(api::openapi_v3_documents(&api::Catalog::default()))).unwrap()
}

/// Everything that a document refers to.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_v2_document_has_every_path_operation_and_schema_of_the_v3_documents() {
    let v2 = swagger();
    assert_eq!(v2["swagger"], "2.0");
    let (mut paths, mut operations) = (0, 0);
    for v3 in api::openapi_v3_documents(&api::Catalog::default()) {
        for (path, item) in v3["paths"].as_object().unwrap() {
            paths += 1;
            for (method, operation) in
                item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
            {
                operations += 1;
                let other = &v2["paths"][path][method];
                for same in ["operationId", "tags", "x-kubernetes-action", "x-kubernetes-group-version-kind"]
                {
                    assert_eq!(other[same], operation[same], "{method} {path}");
                }
                let names = |operation: &Value| -> Vec<String> {
                    let all = operation["parameters"].as_array().into_iter().flatten();
                    all.map(|p| p["name"].as_str().unwrap().to_owned())
                        .filter(|name| name != "body")
                        .collect()
                };
                assert_eq!(names(other), names(operation), "{method} {path}");
                let has_body = other["parameters"].as_array().is_some_and(|all| all[0]["in"] == "body");
                assert_eq!(has_body, operation.get("requestBody").is_some(), "{method} {path}");
                assert!(other["parameters"][0].get("content").is_none());
            }
        }
        for (name, schema) in v3["components"]["schemas"].as_object().into_iter().flatten() {
            let other = &v2["definitions"][name];
            assert!(other.is_object(), "{name}");
            let fields = |schema: &Value| -> Vec<String> {
                schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
            };
            assert_eq!(fields(other), fields(schema), "{name}");
            assert_eq!(other["required"], schema["required"], "{name}");
            for kind in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                assert!(
                    other["x-kubernetes-group-version-kind"].as_array().unwrap().contains(kind),
                    "{name}"
                );
            }
        }
    }
    assert!(paths >= 400 && operations > 750, "{paths} {operations}");
    assert_eq!(v2["paths"].as_object().unwrap().len(), paths);
    let mut found = Vec::new();
    references(&v2, &mut found);
    for reference in found {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        assert!(v2["definitions"].get(name).is_some(), "{reference}");
    }
}

#[test]
fn the_v2_document_says_what_v2_can_say() {
    let mut v2 = swagger();
    undescribe(&mut v2["definitions"]);
    let text = v2.to_string();
    for word in ["\"requestBody\":", "\"oneOf\":[", "#/components/"] {
        assert!(!text.contains(word), "{word}");
    }
    let definition = |name: &str| &v2["definitions"][name];
    assert_eq!(
        definition("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
        &serde_json::json!({"format": "int-or-string", "type": "string"})
    );
    assert_eq!(
        definition("io.k8s.apimachinery.pkg.api.resource.Quantity"),
        &serde_json::json!({"type": "string"})
    );
    let pod = &definition("io.k8s.api.core.v1.PodSpec")["properties"];
    assert_eq!(pod["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(pod["affinity"], serde_json::json!({"$ref": "#/definitions/io.k8s.api.core.v1.Affinity"}));
    let options =
        &definition("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")["x-kubernetes-group-version-kind"];
    assert!(options.as_array().unwrap().len() > 15);
    let create = &v2["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(
        create["parameters"][0],
        serde_json::json!({"in": "body", "name": "body", "required": true,
            "schema": {"$ref": "#/definitions/io.k8s.api.core.v1.Pod"}})
    );
    assert_eq!(create["responses"]["201"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    assert_eq!(create["consumes"], serde_json::json!(["*/*"]));
    let patch = &v2["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"];
    assert_eq!(patch["patch"]["consumes"].as_array().unwrap().len(), 4);
    let name = patch["parameters"].as_array().unwrap().iter().find(|p| p["name"] == "name").unwrap();
    assert_eq!(
        name,
        &serde_json::json!({"in": "path", "name": "name", "required": true, "type": "string",
        "uniqueItems": true})
    );
}

#[test]
fn schemas_of_custom_resources_are_said_as_far_as_v2_can() {
    let document = serde_json::json!({"paths": {}, "components": {"schemas": {"a": {
        "type": "object",
        "properties": {
            "port": {"x-kubernetes-int-or-string": true, "type": "string", "anyOf": [{"type": "integer"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"b": {}}},
            "none": {"type": "string", "nullable": true},
            "size": {"type": "integer", "default": 1, "minimum": 0, "maximum": 7.5},
        },
    }}}});
    let v2: Value = serde_json::from_str(&api::openapi_v2(std::iter::once(document))).unwrap();
    assert_eq!(
        v2["definitions"]["a"]["properties"],
        serde_json::json!({
            "port": {"x-kubernetes-int-or-string": true}, "free": {"x-kubernetes-preserve-unknown-fields": true},
            "none": {}, "size": {"type": "integer", "minimum": 0, "maximum": 7.5},
        })
    );
}

/// The fields of a message: number, and the bytes of those that have a length.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for at in 0.. {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                let before = bytes;
                varint(&mut bytes);
                all.push((key >> 3, &before[..before.len() - bytes.len()]));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).unwrap(),
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, &bytes[..length]));
        bytes = &bytes[length..];
    }
    all
}

fn field<'a>(message: &[(u64, &'a [u8])], number: u64) -> &'a [u8] {
    message.iter().find(|(known, _)| *known == number).map(|(_, bytes)| *bytes).unwrap_or_default()
}

/// The value of that name in a list of pairs.
fn named<'a>(pairs: &[(u64, &'a [u8])], name: &str) -> &'a [u8] {
    let found = pairs.iter().map(|(_, pair)| fields(pair)).find(|pair| field(pair, 1) == name.as_bytes());
    field(&found.unwrap(), 2)
}

#[test]
fn documents_as_protobuf_are_gnostics_messages() {
    // Numbers as in gnostic's OpenAPIv2.proto.
    let bytes = api::openapi_v2_protobuf(api::openapi_v3_documents(&api::Catalog::default()));
    let document = fields(&bytes);
    assert_eq!(field(&document, 1), b"2.0");
    let (paths, definitions) = (fields(field(&document, 8)), fields(field(&document, 9)));
    let v2 = swagger();
    assert_eq!(paths.len(), v2["paths"].as_object().unwrap().len());
    assert_eq!(definitions.len(), v2["definitions"].as_object().unwrap().len());
    let pod = fields(named(&definitions, "io.k8s.api.core.v1.Pod"));
    let extensions: Vec<_> = pod.iter().filter(|(number, _)| *number == 31).copied().collect();
    let kinds = fields(named(&extensions, "x-kubernetes-group-version-kind"));
    assert_eq!(field(&kinds, 2), br#"[{"group":"","kind":"Pod","version":"v1"}]"#);
    let properties = fields(field(&pod, 25));
    let spec = fields(named(&properties, "spec"));
    assert_eq!(field(&spec, 1), b"#/definitions/io.k8s.api.core.v1.PodSpec");
    let patch = fields(named(&paths, "/api/v1/namespaces/{namespace}/pods/{name}"));
    let patch = fields(field(&patch, 8));
    let query = patch.iter().filter(|(number, _)| *number == 8).filter_map(|(_, item)| {
        let parameter = fields(field(&fields(item), 1));
        let query = fields(field(&fields(field(&parameter, 2)), 3));
        let name = field(&query, 4);
        (!name.is_empty()).then(|| (String::from_utf8(name.to_vec()).unwrap(), field(&query, 6)))
    });
    assert!(query.into_iter().any(|(name, kind)| name == "dryRun" && kind == b"string"));

    // And in OpenAPIv3.proto.
    let apps: Value =
        serde_json::from_str(&api::openapi_v3(&api::Catalog::default(), "apis/apps/v1").unwrap()).unwrap();
    let bytes = api::openapi_v3_protobuf(&apps);
    let document = fields(&bytes);
    assert_eq!(field(&document, 1), b"3.0.0");
    let schemas = fields(field(&fields(field(&document, 5)), 1));
    let deployment = fields(field(&fields(named(&schemas, "io.k8s.api.apps.v1.Deployment")), 1));
    assert_eq!(field(&deployment, 25), b"object");
    assert_eq!(fields(field(&document, 4)).len(), apps["paths"].as_object().unwrap().len());
}
