//! Pod templates: when two are the same, and the name that one gives to its ReplicaSet.

use serde_json::Value;

/// The label that tells the pods of a deployment's sets apart.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// A template without what doesn't make it another one: the hash label and empty metadata.
pub(crate) fn normalised(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
        metadata.retain(|_, value| !is_empty(value));
    }
    if let Some(template) = template.as_object_mut() {
        template.retain(|_, value| !is_empty(value));
    }
    template
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// FNV-1a (32 bits) of the template, written as Kubernetes does.
pub(crate) fn hash(normalised: &Value, collisions: i32) -> String {
    let mut hash = Fnv(0x811c_9dc5);
    hash.value(normalised);
    if collisions != 0 {
        hash.bytes(&collisions.to_le_bytes());
    }
    encode(hash.0)
}

/// A hash as it stands in names: its digits in an alphabet without vowels (`rand.SafeEncodeString`).
pub(crate) fn encode(hash: u32) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

struct Fnv(u32);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Takes a value in with its objects' keys sorted, so that their order doesn't matter.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut fields: Vec<_> = map.iter().collect();
                fields.sort_by_key(|(key, _)| *key);
                self.bytes(b"{");
                for (key, value) in fields {
                    self.bytes(key.as_bytes());
                    self.bytes(b":");
                    self.value(value);
                }
                self.bytes(b"}");
            }
            Value::Array(list) => {
                self.bytes(b"[");
                for value in list {
                    self.value(value);
                    self.bytes(b",");
                }
                self.bytes(b"]");
            }
            other => self.bytes(other.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_are_the_same_whatever_the_order_of_their_fields() {
        let a = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"x": 1, "y": [1, 2]}});
        let b = json!({
            "spec": {"y": [1, 2], "x": 1},
            "metadata": {"creationTimestamp": null, "labels": {"app": "a", (HASH_LABEL): "abc"}},
        });
        assert_eq!(normalised(&a), normalised(&b));
        assert_eq!(hash(&normalised(&a), 0), hash(&normalised(&b), 0));
        assert_ne!(hash(&normalised(&a), 0), hash(&normalised(&a), 1), "a collision gives another name");
        let c = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"x": 1, "y": [2, 1]}});
        assert_ne!(hash(&normalised(&a), 0), hash(&normalised(&c), 0));
    }
}
