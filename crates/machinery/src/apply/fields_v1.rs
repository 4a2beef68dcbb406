//! The encoding of field sets: `fieldsV1`.

use serde_json::{Map, Value};

use super::field_set::{FieldSet, Node};
use super::item::{key_element, value_element};

/// How deep a set may be; an object's own depth has a bound too.
const DEEPEST: usize = 128;

impl FieldSet {
    /// The set as `fieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::with_capacity(self.nodes().len());
        self.encode_into(&mut map);
        Value::Object(map)
    }

    fn encode_into(&self, map: &mut Map<String, Value>) {
        for node in self.nodes() {
            let mut below = Map::with_capacity(node.children.nodes().len() + 1);
            if node.member && !node.children.is_empty() {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            node.children.encode_into(&mut below);
            map.insert(node.element.clone().into(), Value::Object(below));
        }
    }

    /// The set that `fieldsV1` describes, whichever program wrote it; elements of unknown sorts are left out, as upstream.
    pub fn from_fields_v1(fields: &Value) -> Option<Self> {
        decode(fields, &|element| canonical(element), 0).map(|(_, set)| set)
    }

    /// Whether one of the set's paths is in `fields`, which this program wrote.
    pub(super) fn touches(&self, fields: &Value) -> bool {
        self.nodes().iter().any(|node| {
            let Some(Value::Object(below)) = fields.get(&*node.element) else { return false };
            node.member && (below.is_empty() || below.contains_key("."))
                || !below.is_empty()
                    && !node.children.is_empty()
                    && node.children.touches(&fields[&*node.element])
        })
    }

    /// Likewise, of a text that this program wrote.
    pub(super) fn from_own_fields_v1(fields: &Value) -> Self {
        decode(fields, &|element| Some(element.into()), 0).map(|(_, set)| set).unwrap_or_default()
    }
}

/// What stands below an element: whether the element itself is a member, and its children.
fn decode(
    fields: &Value,
    element: &dyn Fn(&str) -> Option<Box<str>>,
    depth: usize,
) -> Option<(bool, FieldSet)> {
    let map = fields.as_object().filter(|_| depth < DEEPEST)?;
    let mut nodes = Vec::with_capacity(map.len());
    let mut itself = map.is_empty();
    for (key, below) in map {
        if key == "." {
            itself = true;
            continue;
        }
        let (member, children) = decode(below, element, depth + 1)?;
        nodes.extend(element(key).map(|element| Node { element, member, children }));
    }
    let mut set = FieldSet::of_nodes(nodes);
    set.join_twins();
    Some((itself, set))
}

/// An element as this program writes it.
fn canonical(element: &str) -> Option<Box<str>> {
    let (sort, rest) = element.split_once(':')?;
    match sort {
        "f" => Some(element.into()),
        "i" => rest.parse::<i64>().ok().map(|index| format!("i:{index}").into()),
        "v" => serde_json::from_str::<Value>(rest).ok().map(|value| value_element(&value)),
        "k" => match serde_json::from_str::<Value>(rest).ok()? {
            Value::Object(keys) => Some(key_element(keys.iter().map(|(key, value)| (key.as_str(), value)))),
            _ => None,
        },
        _ => None,
    }
}

/// A path as people read it: `.spec.containers[name="web"].image`.
pub(super) fn path_text(path: &[&str]) -> String {
    let mut text = String::new();
    for element in path {
        match element.split_once(':') {
            Some(("f", name)) => {
                text.push('.');
                text.push_str(name);
            }
            Some(("v", value)) => text.push_str(&format!("[={value}]")),
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                text.push_str(&format!("[{}]", keys.join(",")));
            }
            _ => text.push_str(&format!("[{}]", element.trim_start_matches("i:"))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_are_written_as_upstream_writes_them() {
        let set = FieldSet::of(&[
            &["f:spec", "f:containers", r#"k:{"name":"a"}"#],
            &["f:spec", "f:containers", r#"k:{"name":"a"}"#, "f:image"],
            &["f:metadata", "f:finalizers", r#"v:"x""#],
            &["f:data"],
        ]);
        let encoded = json!({"f:data": {}, "f:metadata": {"f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}});
        assert_eq!(set.to_fields_v1(), encoded);
        assert_eq!(FieldSet::from_fields_v1(&encoded).unwrap(), set);
        let texts: Vec<String> = set.paths().iter().map(|path| path_text(path)).collect();
        assert_eq!(
            texts,
            [
                ".data",
                ".metadata.finalizers[=\"x\"]",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image"
            ]
        );
    }

    #[test]
    fn what_others_wrote_becomes_canonical_or_is_left_out() {
        let odd = json!({"k:{\"protocol\": \"TCP\", \"containerPort\": 80.0}": {}, "x:y": {}, "k:[]": {}, "v:1.0": {},
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {"f:name": {}}});
        let set = FieldSet::from_fields_v1(&odd).unwrap();
        let key = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
        assert_eq!(set, FieldSet::of(&[&[key], &[key, "f:name"], &["v:1"]]));
        assert_eq!(FieldSet::from_fields_v1(&json!({"f:a": 1})), None);
    }
}
