//! Compiles the rules of a schema, and says what is wrong with them.

use std::sync::Arc;

use cel::{Environment, Program, Stage, Type};
use serde_json::{Value, json};

use super::costs::{Costs, below};
use super::field_path::field_path;
use super::{Node, REASONS, Rule, SchemaRules};
use crate::faults::Faults;
use crate::status::Cause;

const RULES: &str = "x-kubernetes-validations";
/// Schemas are no deeper where they are valid.
const DEEPEST: usize = 64;

impl SchemaRules {
    /// The rules of the structural schema of a kind; what is wrong with them goes to `faults`, where `path`
    /// leads to the schema.
    pub fn compile(schema: &Value, path: &str, faults: &mut Faults) -> Self {
        let schema = of_resource(schema);
        let root = Walk { faults, costs: None, depth: 0 }.node(&schema, path, Above::default());
        SchemaRules { schema: Arc::new(schema), root }
    }

    /// The rules of the schema of a value within an object.
    pub fn compile_part(schema: &Value, faults: &mut Faults) -> Self {
        let root = Walk { faults, costs: None, depth: 0 }.node(schema, "", Above::default());
        SchemaRules { schema: Arc::new(schema.clone()), root }
    }

    /// Tells which rules may cost too much, however small the objects may be that they will meet.
    pub fn check_costs(schema: &Value, path: &str, faults: &mut Faults) {
        let schema = of_resource(schema);
        let mut costs = Costs::default();
        Walk { faults: &mut Faults::default(), costs: Some(&mut costs), depth: 0 }.node(
            &schema,
            path,
            Above::default(),
        );
        costs.finish(path, faults);
    }
}

/// An object has apiVersion, kind and metadata, whatever its schema says.
fn of_resource(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(map) = &mut schema {
        map.insert("x-kubernetes-embedded-resource".into(), json!(true));
    }
    schema
}

/// What stands above a schema.
#[derive(Debug, Clone, Copy)]
struct Above<'a> {
    /// The place from which on no value can be matched with one of the old object.
    uncorrelatable: Option<&'a str>,
    /// How many values there can be here in one object, where that is limited.
    count: Option<u64>,
}

impl Default for Above<'_> {
    fn default() -> Self {
        Above { uncorrelatable: None, count: Some(1) }
    }
}

struct Walk<'f, 's> {
    faults: &'f mut Faults,
    costs: Option<&'f mut Costs<'s>>,
    depth: usize,
}

impl<'s> Walk<'_, 's> {
    /// The rules from `schema` on down.
    fn node(&mut self, schema: &'s Value, path: &str, above: Above<'_>) -> Node {
        let mut node = Node::default();
        if self.depth > DEEPEST {
            return node;
        }
        self.depth += 1;
        let rules = schema.get(RULES).and_then(Value::as_array);
        for (index, rule) in rules.into_iter().flatten().enumerate() {
            let path = format!("{path}.{RULES}[{index}]");
            node.rules.extend(self.rule(schema, rule, &path, above));
        }
        let count = above.count.zip(below(schema)).map(|(above, each)| above.saturating_mul(each));
        let above = Above { count, ..above };
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let below = self.node(property, &format!("{path}.properties[{name}]"), above);
            if !below.is_empty() {
                node.properties.insert(name.clone(), below);
            }
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            let below = self.node(values, &format!("{path}.additionalProperties"), above);
            node.items = (!below.is_empty()).then(|| Box::new(below));
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            let path = format!("{path}.items");
            let has_keys = schema.get("x-kubernetes-list-type").and_then(Value::as_str) == Some("map");
            let uncorrelatable = above.uncorrelatable.or((!has_keys).then_some(path.as_str()));
            let below = self.node(items, &path, Above { uncorrelatable, ..above });
            node.items = (!below.is_empty()).then(|| Box::new(below));
        }
        self.depth -= 1;
        node
    }

    fn rule(&mut self, schema: &'s Value, rule: &Value, path: &str, above: Above<'_>) -> Option<Rule> {
        let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().trim();
        if text("rule").is_empty() {
            return None;
        }
        let value_type = Type::of_schema(schema);
        let old_is_optional = rule.get("optionalOldSelf") == Some(&json!(true));
        let old_type = match old_is_optional {
            true => Type::Optional(Box::new(value_type.clone())),
            false => value_type.clone(),
        };
        let environment = Environment::default()
            .with_schema("self", value_type, schema)
            .with_schema("oldSelf", old_type, schema);
        let (program, cost) = self.program(&environment, rule, path, "rule", "bool")?;
        if let Some(costs) = &mut self.costs {
            costs.rule(schema, above.count, cost, format!("{path}.rule"));
        }
        let is_transition = program.uses("oldSelf");
        if is_transition && let Some(place) = above.uncorrelatable {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
            self.faults.push(Cause::invalid(format!("{path}.rule"), &rule["rule"], &why));
            return None;
        }
        if old_is_optional && !is_transition {
            let why = "may not be set if oldSelf is not used in rule";
            self.faults.push(Cause::invalid(format!("{path}.optionalOldSelf"), &json!(true), why));
        }
        let has_expression = !text("messageExpression").is_empty();
        let message_program = match has_expression {
            true => self.program(&environment, rule, path, "messageExpression", "string"),
            false => None,
        };
        if let (Some(costs), Some((_, cost))) = (&mut self.costs, &message_program) {
            costs.message(*cost, format!("{path}.messageExpression"));
        }
        let message_program = message_program.map(|(program, _)| program);
        // Definitions with other reasons and places are refused.
        let reason =
            REASONS.into_iter().find(|known| *known == text("reason")).unwrap_or("FieldValueInvalid");
        let field_path = field_path(schema, text("fieldPath")).unwrap_or_default();
        let (rule, message) = (text("rule").trim(), text("message").trim());
        let (name, message) = match message {
            "" => (rule, format!("failed rule: {rule}")),
            message => (message, message.to_owned()),
        };
        let name = name.to_owned();
        Some(Rule {
            program,
            message,
            name,
            message_program,
            reason,
            field_path,
            is_transition,
            old_is_optional,
        })
    }

    fn program(
        &mut self,
        environment: &Environment<'s>,
        rule: &Value,
        path: &str,
        field: &str,
        wanted: &str,
    ) -> Option<(Program, u64)> {
        let text = rule.get(field).and_then(Value::as_str).unwrap_or_default();
        let compiled = match &self.costs {
            Some(costs) => Program::compile_with_cost(environment, text, &costs.sizes),
            None => Program::compile(environment, text).map(|(program, result)| (program, result, 0)),
        };
        let why = match compiled {
            Ok((program, result, cost)) if result.to_string() == wanted => return Some((program, cost)),
            Ok(_) if field == "rule" => "cel expression must evaluate to a bool".to_owned(),
            Ok(_) => "messageExpression must evaluate to a string".to_owned(),
            Err(error) => match (field, error.stage()) {
                ("rule", Stage::Compilation) => format!("compilation failed: {error}"),
                ("rule", Stage::Planning) => format!("program instantiation failed: {error}"),
                (_, Stage::Compilation) => format!("messageExpression compilation failed: {error}"),
                (_, Stage::Planning) => format!("messageExpression instantiation failed: {error}"),
            },
        };
        let cause = Cause::invalid(format!("{path}.{field}"), &Value::Null, &why);
        self.faults.push(Cause { message: format!("Invalid value: {}: {why}", shown(rule)), ..cause });
        None
    }
}

/// A rule as upstream shows one that doesn't compile: in its own type, of which nothing is left out, as Go writes JSON.
fn shown(rule: &Value) -> String {
    let in_go = |value: Value| {
        let json = value.to_string();
        json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    };
    let text = |key: &str| in_go(rule.get(key).cloned().unwrap_or_else(|| "".into()));
    let other = |key: &str| in_go(rule.get(key).cloned().unwrap_or_default());
    format!(
        r#"{{"Rule":{},"Message":{},"MessageExpression":{},"Reason":{},"FieldPath":{},"OptionalOldSelf":{}}}"#,
        text("rule"),
        text("message"),
        text("messageExpression"),
        other("reason"),
        text("fieldPath"),
        other("optionalOldSelf")
    )
}
