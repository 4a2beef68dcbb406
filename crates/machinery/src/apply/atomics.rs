//! What of a configuration would replace something as a whole.

use serde_json::Value;

use super::types::{Atom, Type};

/// The paths of lists, maps and objects in `value` that aren't merged but replaced, such as `.spec.selector`.
pub(super) fn atomics(of: Type<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(of, value, &mut String::new(), &mut found);
    found
}

fn walk(of: Type<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    if !value.is_array() && !value.is_object() {
        return;
    }
    let end = path.len();
    match of.atom(Some(value)) {
        Atom::Leaf => found.push(path.clone()),
        Atom::List { keys, items } => {
            for item in value.as_array().into_iter().flatten() {
                let parts: Vec<String> = match keys {
                    [] => vec![format!("={item}")],
                    keys => keys.iter().map(|key| format!("{key}={}", item[&**key])).collect(),
                };
                path.push_str(&format!("[{}]", parts.join(",")));
                walk(items, item, path, found);
                path.truncate(end);
            }
        }
        Atom::Map(fields) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                path.push('.');
                path.push_str(name);
                walk(fields.of(name), value, path, found);
                path.truncate(end);
            }
        }
    }
}
