//! Holds an object against its schema's rules.

use cel::{Budget, Error};
use serde_json::{Value, json};

use super::{Node, Rule, SchemaRules};
use crate::faults::{Faults, MOST_FAULTS};
use crate::status::Cause;

/// The longest message that an expression may make, as upstream.
const LONGEST_MESSAGE: usize = 5 * 1024;

impl SchemaRules {
    /// The faults of `new`, which otherwise fits its schema; `old` is what it shall replace. A fault that was
    /// there before, of a value that is the same, is not reported (KEP-4008).
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        self.validate_within(new, old, &mut Budget::default())
    }

    /// The same with what is left of a budget that others use too.
    pub fn validate_within(&self, new: &Value, old: Option<&Value>, budget: &mut Budget) -> Vec<Cause> {
        let mut walk = Walk { budget, faults: Vec::new(), is_over: false };
        walk.node(&self.root, &self.schema, new, old, "");
        walk.faults
    }

    /// Adds the rules' faults to those that the schema found; where these leave open what the value is, the
    /// rules are not evaluated, and a fault says so.
    pub fn validate_after(&self, new: &Value, old: Option<&Value>, causes: &mut Faults) {
        if self.is_empty() {
            return;
        }
        let blocks = |cause: &Cause| {
            matches!(
                cause.reason.as_str(),
                "FieldValueRequired"
                    | "FieldValueNotSupported"
                    | "FieldValueTooLong"
                    | "FieldValueTooMany"
                    | "FieldValueTypeInvalid"
            )
        };
        if causes.iter().any(blocks) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors \
                to complete validation";
            causes.push(Cause::invalid("<nil>", &Value::Null, why));
            return;
        }
        causes.extend(self.validate(new, old));
    }
}

struct Walk<'a> {
    budget: &'a mut Budget,
    faults: Vec<Cause>,
    is_over: bool,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, schema: &Value, new: &Value, old: Option<&Value>, path: &str) {
        if self.is_over || new.is_null() {
            return;
        }
        // What didn't change isn't judged anew.
        let is_same = old == Some(new);
        for rule in &node.rules {
            if self.is_over || (is_same && !rule.is_transition) {
                continue;
            }
            self.rule(rule, schema, new, old, path);
        }
        let below = |key: &str| schema.get(key);
        match new {
            Value::Object(map) => {
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    let property = below("properties").and_then(|all| all.get(name));
                    match (node.properties.get(name), property, &node.items, below("additionalProperties")) {
                        (Some(node), Some(schema), _, _) => {
                            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                            self.node(node, schema, value, old, &path);
                        }
                        (None, None, Some(node), Some(schema)) => {
                            self.node(node, schema, value, old, &format!("{path}[{name}]"));
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(items) => {
                let (Some(node), Some(item_schema)) = (&node.items, below("items")) else { return };
                let before = Before::of(schema, old);
                for (index, item) in items.iter().enumerate() {
                    let old = before.as_ref().and_then(|before| before.find(item));
                    self.node(node, item_schema, item, old, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Value, new: &Value, old: Option<&Value>, path: &str) {
        let value = cel::Value::of_json(new, Some(schema));
        let old = old.filter(|old| !old.is_null()).map(|old| cel::Value::of_json(old, Some(schema)));
        let old = match (old, rule.old_is_optional) {
            (old, true) => cel::Value::Optional(old.map(std::sync::Arc::new)),
            (Some(old), false) => old,
            (None, false) if rule.is_transition => return,
            (None, false) => cel::Value::Null,
        };
        let variables = [("self", value), ("oldSelf", old)];
        let field = |below: &str| {
            let field = format!("{path}{below}");
            let field = if path.is_empty() { field.trim_start_matches('.').to_owned() } else { field };
            // The root has no name.
            if field.is_empty() { "<nil>".to_owned() } else { field }
        };
        let why = match rule.program.evaluate(&variables, self.budget) {
            Ok(cel::Value::Bool(true)) => return,
            Ok(cel::Value::Bool(false)) => {
                let message = self.message(rule, &variables).unwrap_or_else(|| rule.message.clone());
                self.tell(Self::unfulfilled(rule, schema, new, field(rule.field_path.as_str()), &message));
                return;
            }
            Err(Error::TooExpensive) if self.budget.left() == 0 => {
                self.is_over = true;
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .into()
            }
            Err(Error::TooExpensive) => format!(
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost \
                 exceeds limit for rule: {}",
                rule.name
            ),
            Err(Error::Failed(why)) => format!("{why} evaluating rule: {}", rule.name),
            Ok(_) => format!("the result is no bool evaluating rule: {}", rule.name),
        };
        // It couldn't be asked: the value isn't at fault, and its type stands for it.
        let kind = schema.get("type").cloned().unwrap_or_else(|| json!(""));
        self.tell(Cause::invalid(field(""), &kind, &why));
    }

    /// The fault of a value for which a rule doesn't hold. Objects and lists aren't shown.
    fn unfulfilled(rule: &Rule, schema: &Value, value: &Value, field: String, why: &str) -> Cause {
        let is_shown = !matches!(schema.get("type").and_then(Value::as_str), Some("object" | "array"));
        match rule.reason {
            "FieldValueRequired" => Cause::required(field, why),
            "FieldValueForbidden" => Cause::forbidden(field, why),
            "FieldValueDuplicate" if is_shown => Cause::duplicate(field, value),
            "FieldValueDuplicate" => {
                Cause { reason: rule.reason.into(), message: "Duplicate value".into(), field }
            }
            _ if is_shown => Cause::invalid(field, value, why),
            _ => Cause::invalid_part(field, why),
        }
    }

    fn tell(&mut self, cause: Cause) {
        self.faults.push(cause);
        self.is_over |= self.faults.len() >= MOST_FAULTS;
    }

    /// What the rule's own expression says, if that is a message.
    fn message<'a>(&mut self, rule: &'a Rule, variables: &[(&str, cel::Value<'a>); 2]) -> Option<String> {
        let program = rule.message_program.as_ref()?;
        let value = program.evaluate(variables, self.budget).ok()?;
        let text = value.as_str()?.trim();
        let fits = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
        fits.then(|| text.to_owned())
    }
}

/// The items of a list as they were, to be found by their keys.
struct Before<'a> {
    items: std::collections::HashMap<String, &'a Value>,
    keys: Vec<&'a str>,
}

impl<'a> Before<'a> {
    fn of(schema: &'a Value, old: Option<&'a Value>) -> Option<Self> {
        if schema.get("x-kubernetes-list-type").and_then(Value::as_str) != Some("map") {
            return None;
        }
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
        let items = old?.as_array()?.iter().map(|item| (key_of(&keys, item), item)).collect();
        Some(Before { items, keys })
    }

    fn find(&self, item: &Value) -> Option<&'a Value> {
        self.items.get(&key_of(&self.keys, item)).copied()
    }
}

fn key_of(keys: &[&str], item: &Value) -> String {
    let parts: Vec<&Value> = keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null)).collect();
    json!(parts).to_string()
}
