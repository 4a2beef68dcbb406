//! Whether the expressions of a policy fit the kinds that it is about, which its status tells.
//!
//! Follows `pkg/admission/plugin/policy/validating/typechecking.go` of apiserver.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::environment::{environment, namespace};
use crate::cel::{Environment, Program, Type};
use crate::object::Object;
use crate::resource::{self, Resource};
use crate::schema::{Schema, Shape, schemas};

/// So many kinds are looked at.
const MOST_KINDS: usize = 10;
/// What lies deeper in an object may be anything.
const DEEPEST: usize = 24;

/// What is wrong with the validations of a `ValidatingAdmissionPolicy`, as `status.typeChecking.expressionWarnings` has
/// it. Kinds are those that are part of the program and that the policy names without wildcards.
pub fn type_check(policy: &Object) -> Vec<Value> {
    let spec = policy.0.get("spec").unwrap_or(&Value::Null);
    let kinds: Vec<(String, Value)> =
        kinds(spec).into_iter().map(|r| (title(r), structural(r.schema))).collect();
    let params = &spec["paramKind"];
    let params = params.is_object().then(|| {
        let text = |key: &str| params[key].as_str().unwrap_or_default();
        resource::resource_of_kind(text("apiVersion"), text("kind")).map(|r| structural(r.schema))
    });
    let mut warnings = Vec::new();
    for (index, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(text) = validation[field].as_str().filter(|text| !text.is_empty()) else { continue };
            let faults: Vec<String> = kinds
                .iter()
                .filter_map(|(title, schema)| {
                    let environment = environment_of(spec, schema, params.as_ref().map(Option::as_ref));
                    let error = Program::compile(&environment, text).err()?;
                    Some(format!("{title}: {error}"))
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

/// The built-in kinds that the rules name.
fn kinds(spec: &Value) -> Vec<&'static Resource> {
    let mut found: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    let mut kinds = Vec::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let names = |key: &str| -> BTreeSet<&str> {
            let all = rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            let all: BTreeSet<&str> = all.collect();
            if all.contains("*") { BTreeSet::new() } else { all }
        };
        for group in names("apiGroups") {
            for version in names("apiVersions") {
                for plural in names("resources") {
                    let Some(resource) = resource::resource(group, version, plural) else { continue };
                    if kinds.len() < MOST_KINDS && found.insert((group, version, resource.kind)) {
                        kinds.push(resource);
                    }
                }
            }
        }
    }
    kinds.sort_by_key(|resource| (resource.group, resource.version, resource.kind));
    kinds
}

fn title(resource: &Resource) -> String {
    format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind)
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
        // What is wrong with a variable is not wrong with who uses it.
        let of = Program::compile(&environment, text("expression")).map_or(Type::Dyn, |(_, of)| of);
        environment = environment.with(format!("variables.{}", text("name")), of);
    }
    environment
}

/// A published schema with all that it refers to.
fn structural(name: &str) -> Value {
    schemas().named(name).map_or_else(anything, |schema| object(schema, &mut Vec::new()))
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
        Shape::Quantity | Shape::IntOrString | Shape::Any => anything(),
        Shape::Object(number) => object(schemas().numbered(*number), above),
        Shape::List(items) => json!({"type": "array", "items": shape(items, above)}),
        Shape::Map(values) => json!({"type": "object", "additionalProperties": shape(values, above)}),
    }
}
