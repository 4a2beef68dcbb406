//! Whether the expressions of a policy fit the kinds that it is about, which its status tells.
//!
//! Follows `pkg/admission/plugin/policy/validating/typechecking.go` of apiserver.

use std::collections::BTreeSet;

use cel::{Environment, Program, Stage, Type};
use machinery::schema::{Schema, Shape};
use machinery::{Definition, OBJECT_META, Object};
use serde_json::{Map, Value, json};

use super::environment::{environment, namespace};
use crate::{resource, resource_of_kind};

/// The most kinds that are looked at.
const MOST_KINDS: usize = 10;
/// What lies deeper in an object may be anything.
const DEEPEST: usize = 24;

/// What is wrong with the validations of a `ValidatingAdmissionPolicy`, as `status.typeChecking.expressionWarnings` has
/// it. Kinds are those that are part of the program or come from `definitions`, and that the policy names without
/// wildcards.
pub fn type_check(policy: &Object, definitions: &[Definition]) -> Vec<Value> {
    let spec = policy.0.get("spec").unwrap_or(&Value::Null);
    let kinds = kinds(spec, definitions);
    let params = &spec["paramKind"];
    let params = params.is_object().then(|| schema_of_kind(params, definitions));
    let mut warnings = Vec::new();
    for (index, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(text) = validation[field].as_str().filter(|text| !text.is_empty()) else { continue };
            let faults: Vec<String> = kinds
                .iter()
                .filter_map(|kind| {
                    let environment = environment_of(spec, &kind.schema, params.as_ref().map(Option::as_ref));
                    let error = Program::compile(&environment, text).err()?;
                    // Only types are checked here, as upstream does.
                    (error.stage() == Stage::Compilation).then_some(())?;
                    Some(format!("{}/{}, Kind={}: {error}", kind.group, kind.version, kind.kind))
                })
                .collect();
            if !faults.is_empty() {
                let place = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": place, "warning": faults.join("\n")}));
            }
        }
    }
    warnings
}

/// A kind that a policy is about.
struct Kind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    schema: Value,
}

/// The kinds that the rules name.
fn kinds<'a>(spec: &'a Value, definitions: &'a [Definition]) -> Vec<Kind<'a>> {
    let mut kinds: Vec<Kind<'_>> = Vec::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let names = |key: &str| -> BTreeSet<&'a str> {
            rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let (groups, versions) = (names("apiGroups"), names("apiVersions"));
        // As upstream: resources count beside a wildcard, groups and versions don't.
        if groups.contains("*") || versions.contains("*") {
            continue;
        }
        for group in groups {
            for version in &versions {
                for plural in names("resources") {
                    let known = |kind: &str| {
                        kinds.iter().any(|k| (k.group, k.version, k.kind) == (group, *version, kind))
                    };
                    let found = find(group, version, plural, definitions);
                    let found = found.filter(|found| kinds.len() < MOST_KINDS && !known(found.kind));
                    kinds.extend(found);
                }
            }
        }
    }
    kinds.sort_by_key(|kind| (kind.group, kind.version, kind.kind));
    kinds
}

fn find<'a>(
    group: &'a str,
    version: &'a str,
    plural: &str,
    definitions: &'a [Definition],
) -> Option<Kind<'a>> {
    if let Some(resource) = resource(group, version, plural) {
        return Some(Kind { group, version, kind: resource.kind, schema: structural(resource.schema.get()) });
    }
    let definition = definitions.iter().find(|d| (d.group(), d.plural()) == (group, plural))?;
    let schema = definition.served_schema(version)?;
    Some(Kind { group, version, kind: definition.kind(), schema: custom(schema) })
}

/// The schema of a policy's parameters, if there is such a kind.
fn schema_of_kind(reference: &Value, definitions: &[Definition]) -> Option<Value> {
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if let Some(resource) = resource_of_kind(api_version, kind) {
        return Some(structural(resource.schema.get()));
    }
    let (group, version) = api_version.split_once('/')?;
    let mut of_kind = definitions.iter().filter(|d| (d.group(), d.kind()) == (group, kind));
    of_kind.find_map(|definition| definition.served_schema(version)).map(custom)
}

/// A schema of a definition, with what every object has.
fn custom(mut schema: Value) -> Value {
    let Some(root) = schema.as_object_mut() else { return anything() };
    root.remove("x-kubernetes-embedded-resource");
    let is_open = root.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let properties = match root.get_mut("properties") {
        Some(Value::Object(properties)) => properties,
        _ if is_open => return anything(),
        _ => return custom(json!({"type": "object", "properties": {}})),
    };
    for name in ["apiVersion", "kind"] {
        properties.insert(name.to_owned(), json!({"type": "string"}));
    }
    properties.insert("metadata".to_owned(), structural(OBJECT_META.get()));
    schema
}

fn environment_of<'s>(spec: &Value, schema: &'s Value, params: Option<Option<&'s Value>>) -> Environment<'s> {
    let mut environment = environment(params.is_some())
        .with("object", Type::of_schema(schema))
        .with("oldObject", Type::of_schema(schema))
        .with("namespaceObject", Type::of_schema(namespace()));
    if let Some(Some(params)) = params {
        environment = environment.with("params", Type::of_schema(params));
    }
    for variable in spec["variables"].as_array().into_iter().flatten() {
        let text = |key: &str| variable[key].as_str().unwrap_or_default();
        // A fault of a variable is none of the expressions that use it.
        let of = Program::compile(&environment, text("expression")).map_or(Type::Dyn, |(_, of)| of);
        environment = environment.with(format!("variables.{}", text("name")), of);
    }
    environment
}

/// A published schema with all that it refers to.
fn structural(schema: Option<&Schema>) -> Value {
    schema.map_or_else(anything, |schema| object(schema, &mut Vec::new()))
}

fn anything() -> Value {
    json!({"x-kubernetes-preserve-unknown-fields": true})
}

fn object<'s>(schema: &'s Schema, above: &mut Vec<&'s str>) -> Value {
    // Some schemas hold themselves.
    if above.contains(&schema.name) || above.len() > DEEPEST {
        return anything();
    }
    above.push(schema.name);
    let fields = schema.fields().iter();
    let properties: Map<String, Value> =
        fields.map(|field| (field.name.to_owned(), shape(&field.shape, above))).collect();
    above.pop();
    json!({"type": "object", "properties": properties})
}

fn shape(of: &Shape, above: &mut Vec<&str>) -> Value {
    match of {
        Shape::Text => json!({"type": "string"}),
        Shape::Int32 | Shape::Int64 => json!({"type": "integer"}),
        Shape::Number => json!({"type": "number"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
        Shape::Quantity
        | Shape::IntOrString
        | Shape::Any
        | Shape::ObjectOrBoolean(_)
        | Shape::ObjectOrList(_) => anything(),
        Shape::Object(of) => object(of.get(), above),
        Shape::List(items) => json!({"type": "array", "items": shape(items, above)}),
        Shape::Map(values) => json!({"type": "object", "additionalProperties": shape(values, above)}),
    }
}
