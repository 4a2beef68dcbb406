//! The OpenAPI v2 document (Swagger), made out of v3 documents: what older clients read for `explain` and validation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::REFERENCE;

const DEFINITIONS: &str = "#/definitions/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// An OpenAPI v2 document in its parts, each as it is wanted: JSON text, or what another encoder makes of it.
pub(super) struct Swagger<T> {
    /// The items of `paths`, in order.
    pub(super) paths: Vec<(String, T)>,
    /// The schemas, by name.
    pub(super) definitions: BTreeMap<String, T>,
}

impl<T> Swagger<T> {
    /// Makes one out of v3 documents; `each` makes of an item or schema what is kept.
    pub(super) fn of(
        documents: impl Iterator<Item = Value>,
        path_item: impl Fn(&Map<String, Value>) -> T,
        schema: impl Fn(&Map<String, Value>) -> T,
    ) -> Self {
        let mut swagger = Swagger { paths: Vec::new(), definitions: BTreeMap::new() };
        // Those that name more kinds in each document.
        let mut shared: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for mut document in documents {
            if let Some(Value::Object(paths)) = document.get_mut("paths").map(Value::take) {
                for (path, item) in paths {
                    let Value::Object(item) = item else { continue };
                    swagger.paths.push((path, path_item(&item_of(item))));
                }
            }
            let schemas = document.pointer_mut("/components/schemas").map(Value::take);
            let Some(Value::Object(schemas)) = schemas else { continue };
            for (name, found) in schemas {
                let found = schema_of(preserving_all(found));
                let many = found.get(KINDS).and_then(Value::as_array).is_some_and(|kinds| kinds.len() > 1);
                match shared.get_mut(&name) {
                    Some(known) => add_kinds(known, &found),
                    None if many => _ = shared.insert(name, found),
                    None if swagger.definitions.contains_key(&name) => {}
                    None => _ = swagger.definitions.insert(name, schema(&found)),
                }
            }
        }
        swagger.definitions.extend(shared.into_iter().map(|(name, found)| (name, schema(&found))));
        swagger.paths.sort_by(|(a, _), (b, _)| a.cmp(b));
        swagger
    }
}

/// What stands around the parts.
pub(super) fn info() -> Value {
    json!({ "title": "Kubernetes", "version": "v1.36.2" })
}

/// How requests are authenticated.
pub(super) fn security() -> Value {
    let description = "Bearer Token authentication";
    json!({ "description": description, "type": "apiKey", "name": "authorization", "in": "header" })
}

impl Swagger<String> {
    /// The document as JSON.
    pub(super) fn json(documents: impl Iterator<Item = Value>) -> String {
        let text = |map: &Map<String, Value>| serde_json::to_string(map).unwrap_or_default();
        let swagger = Self::of(documents, text, text);
        let mut out = format!("{{\"swagger\":\"2.0\",\"info\":{},\"paths\":{{", info());
        put_all(&mut out, swagger.paths.into_iter());
        out.push_str("},\"definitions\":{");
        put_all(&mut out, swagger.definitions.into_iter());
        let security = security();
        out.push_str(&format!(
            "}},\"securityDefinitions\":{{\"BearerToken\":{security}}},\"security\":[{{\"BearerToken\":[]}}]}}"
        ));
        out
    }
}

fn put_all(out: &mut String, parts: impl Iterator<Item = (String, String)>) {
    for (at, (name, text)) in parts.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(name).to_string());
        out.push(':');
        out.push_str(&text);
    }
}

/// Of a kind that takes any fields v2 says nothing else: its clients would take the fields that it names for all of them
/// (upstream's `buildKubeNative`).
fn preserving_all(mut schema: Value) -> Value {
    match schema.get("x-kubernetes-preserve-unknown-fields") {
        Some(Value::Bool(true)) => json!({ "type": "object", KINDS: schema[KINDS].take() }),
        _ => schema,
    }
}

fn add_kinds(known: &mut Map<String, Value>, other: &Map<String, Value>) {
    let (Some(Value::Array(known)), Some(Value::Array(more))) = (known.get_mut(KINDS), other.get(KINDS))
    else {
        return;
    };
    for kind in more {
        if !known.contains(kind) {
            known.push(kind.clone());
        }
    }
}

fn item_of(item: Map<String, Value>) -> Map<String, Value> {
    let convert = |(key, value): (String, Value)| {
        let value = match value {
            Value::Array(list) if key == "parameters" => list.into_iter().map(parameter_of).collect(),
            Value::Object(operation) => operation_of(operation).into(),
            other => other,
        };
        (key, value)
    };
    item.into_iter().map(convert).collect()
}

/// A parameter says itself of what type it is.
fn parameter_of(parameter: Value) -> Value {
    let Value::Object(mut parameter) = parameter else { return parameter };
    if let Some(Value::Object(schema)) = parameter.remove("schema") {
        parameter.extend(schema);
    }
    parameter.into()
}

fn content_of(holder: &Value) -> impl Iterator<Item = (&String, &Value)> {
    holder.get("content").and_then(Value::as_object).into_iter().flatten()
}

fn schema_in(holder: &Value) -> Option<Value> {
    let schema = content_of(holder).find_map(|(_, content)| content.get("schema"))?;
    Some(schema_of(schema.clone()).into())
}

fn operation_of(mut operation: Map<String, Value>) -> Map<String, Value> {
    let body = operation.remove("requestBody");
    let responses = operation.remove("responses").unwrap_or_default();
    let parameters = operation.remove("parameters");
    let produces: Vec<&String> =
        responses.get("200").into_iter().flat_map(content_of).map(|(kind, _)| kind).collect();
    // Of definitions' kinds, which have no protobuf, upstream says that all takes the same.
    let is_resource = operation.contains_key("x-kubernetes-action")
        && *produces != ["application/json", "application/yaml"];
    let consumes = match &body {
        Some(body) => content_of(body).map(|(kind, _)| kind.clone()).collect(),
        None if is_resource => vec!["*/*".to_owned()],
        None => produces.iter().map(|kind| (*kind).clone()).collect(),
    };
    operation.insert("consumes".into(), json!(consumes));
    operation.insert("produces".into(), json!(produces));
    operation.insert("schemes".into(), json!(["https"]));
    let mut all: Vec<Value> = Vec::new();
    if let Some(body) = &body {
        let mut parameter = json!({ "name": "body", "in": "body", "schema": schema_in(body) });
        if body["required"] == true {
            parameter["required"] = true.into();
        }
        all.push(parameter);
    }
    if let Some(Value::Array(parameters)) = parameters {
        all.extend(parameters.into_iter().map(parameter_of));
    }
    if !all.is_empty() {
        operation.insert("parameters".into(), all.into());
    }
    let answers = responses.as_object().into_iter().flatten().map(|(code, response)| {
        let mut answer = json!({ "description": phrase(code) });
        if let Some(schema) = schema_in(response) {
            answer["schema"] = schema;
        }
        (code.clone(), answer)
    });
    let answers: Map<String, Value> = answers.collect();
    operation.insert("responses".into(), answers.into());
    operation
}

fn phrase(code: &str) -> &'static str {
    match code {
        "201" => "Created",
        "202" => "Accepted",
        "401" => "Unauthorized",
        _ => "OK",
    }
}

/// A schema as v2 can say it: without defaults, alternatives and null (upstream's `PruneDefaults` and
/// `ToStructuralOpenAPIV2`).
fn schema_of(schema: Value) -> Map<String, Value> {
    let Value::Object(mut schema) = schema else { return Map::new() };
    let alternatives = schema.remove("oneOf");
    for key in ["anyOf", "not", "default"] {
        schema.remove(key);
    }
    // Text stands for whatever may be text or something else.
    let may_be_text = alternatives.as_ref().and_then(Value::as_array).into_iter().flatten();
    if !schema.contains_key("type") && may_be_text.into_iter().any(|other| other["type"] == "string") {
        schema.insert("type".into(), "string".into());
    }
    let is = |schema: &Map<String, Value>, key: &str| schema.get(key) == Some(&Value::Bool(true));
    let is_null = schema.remove("nullable") == Some(Value::Bool(true));
    drop_required_nulls(&mut schema);
    // Clients of v2 would refuse what these allow.
    if is(&schema, "x-kubernetes-int-or-string") {
        schema.remove("type");
    }
    if is_null || is(&schema, "x-kubernetes-preserve-unknown-fields") {
        for key in ["type", "items", "properties"] {
            schema.remove(key);
        }
    }
    if schema.get("type").is_some_and(|kind| kind == "array") && !schema.contains_key("items") {
        schema.remove("type");
    }
    match schema.remove("allOf") {
        Some(Value::Array(mut parts)) if parts.len() == 1 && parts[0].get("$ref").is_some() => {
            schema.extend(schema_of(parts.remove(0)));
        }
        // What else is all of several is validated here alone.
        _ => {}
    }
    for (key, value) in &mut schema {
        match (key.as_str(), &mut *value) {
            ("$ref", Value::String(reference)) => {
                if let Some(name) = reference.strip_prefix(REFERENCE) {
                    *reference = format!("{DEFINITIONS}{name}");
                }
            }
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(|property| *property = schema_of(property.take()).into());
            }
            ("items" | "additionalProperties", Value::Object(_)) => *value = schema_of(value.take()).into(),
            _ => {}
        }
    }
    schema
}

/// What may be null can't be required in v2, which has no null.
fn drop_required_nulls(schema: &mut Map<String, Value>) {
    let is_null = |property: &Value| property.get("nullable") == Some(&Value::Bool(true));
    if schema.get("additionalProperties").is_some_and(is_null) {
        schema.remove("required");
    }
    let nulls: Vec<Value> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| is_null(property))
        .map(|(name, _)| json!(name))
        .collect();
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !nulls.contains(name));
        if required.is_empty() {
            schema.remove("required");
        }
    }
}
