//! `x-kubernetes-validations`: rules in CEL that a schema has for its values.
//!
//! Follows `pkg/apiserver/schema/cel` of apiextensions-apiserver. What a rule could cost at most is estimated when
//! it is written, and what it does cost is held against a budget when it runs.

mod compile;
mod costs;
mod evaluate;
mod field_path;

#[cfg(test)]
mod tests;

pub use field_path::field_path;

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::Program;
use serde_json::Value;

/// The reasons that a rule may give.
pub const REASONS: [&str; 4] =
    ["FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate"];

/// The compiled rules of a schema.
#[derive(Debug)]
pub struct SchemaRules {
    schema: Arc<Value>,
    root: Node,
}

/// The rules at one place of a schema, and those below it.
#[derive(Debug, Default)]
struct Node {
    rules: Vec<Rule>,
    properties: BTreeMap<String, Node>,
    /// Of a list's items or a map's values.
    items: Option<Box<Node>>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.properties.is_empty() && self.items.is_none()
    }
}

#[derive(Debug)]
struct Rule {
    program: Program,
    /// What to say if it doesn't hold.
    message: String,
    /// What it is called where it can't be asked: its message, or itself.
    name: String,
    message_program: Option<Program>,
    /// Such as `FieldValueInvalid`.
    reason: &'static str,
    /// What to put behind the path of the value.
    field_path: String,
    /// Whether it compares with what was.
    is_transition: bool,
    /// Whether it also applies where there was nothing.
    old_is_optional: bool,
}

impl SchemaRules {
    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}
