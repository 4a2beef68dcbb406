//! Objects as a list of their fields, without what differs from run to run.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

pub type Flat = BTreeMap<String, Value>;

/// What the server gives each object anew.
pub const GIVEN: [&str; 4] = ["uid", "resourceVersion", "creationTimestamp", "selfLink"];

fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

static TIME: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"));
static UID: LazyLock<Regex> =
    LazyLock::new(|| pattern("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static ACCESS: LazyLock<Regex> = LazyLock::new(|| pattern("(kube-api-access-)[a-z0-9]{5}"));
static CLUSTER_IP: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d+\.96\."));
static PORT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(spec\.ports\[\d+\]\.nodePort|spec\.healthCheckNodePort)$"));

/// The fields of an object: `{"spec.ports[0].port": 80}`.
pub fn flat(object: &Value) -> Flat {
    let mut fields = Flat::new();
    flatten(object, "", &mut fields);
    fields
}

fn flatten(value: &Value, path: &str, fields: &mut Flat) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let given = path == "metadata" && (key == "managedFields" || GIVEN.contains(&key.as_str()));
                if !given {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    flatten(value, &path, fields);
                }
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, item) in list.iter().enumerate() {
                flatten(item, &format!("{path}[{index}]"), fields);
            }
        }
        _ => _ = fields.insert(path.to_owned(), without_chance(path, value)),
    }
}

/// The value of a field with placeholders for what is never the same twice.
fn without_chance(path: &str, value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let text = without_times(&UID.replace_all(text, "<uid>"));
            let text = ACCESS.replace_all(&text, "${1}<gen>");
            let is_address = matches!(path, "spec.clusterIP" | "spec.clusterIPs[0]");
            if is_address && CLUSTER_IP.is_match(&text) { json!("<ip>") } else { json!(text) }
        }
        Value::Number(number) if number.as_f64() != Some(0.0) && PORT.is_match(path) => json!("<port>"),
        other => other.clone(),
    }
}

/// A text with placeholders for times.
pub fn without_times(text: &str) -> String {
    TIME.replace_all(text, "<time>").into_owned()
}

/// Whether two values say the same: 1 and 1.0 do.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => left == right,
    }
}

/// The fields in which `fields` is not `base`, with their values (null: gone), as a recorded answer has them.
pub fn difference(fields: &Flat, base: &Flat) -> Value {
    let gone = base.keys().filter(|path| !fields.contains_key(*path)).map(|path| (path, &Value::Null));
    let other = fields.iter().filter(|(path, value)| base.get(*path).is_none_or(|base| !same(base, value)));
    let all: BTreeMap<&String, &Value> = other.chain(gone).collect();
    all.into_iter().map(|(path, value)| json!([path, value])).collect()
}
