//! What built-in kinds and their fields mean, in Kubernetes' words. They take more room than all schemas together, and are
//! wanted when somebody asks for a document: so they lie compressed in the program, and in memory only while one is made.

use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

/// A line a schema: its name, a tab, and an object of descriptions by field; that of the whole has no name. Made by the
/// test `descriptions`.
const COMPRESSED: &[u8] = include_bytes!("../../schemas/descriptions.gz");

/// The descriptions, for as long as somebody holds them.
pub(super) struct Descriptions {
    text: String,
    /// Where the lines are, in the order of their names.
    lines: Vec<Range<usize>>,
}

impl Descriptions {
    /// Those that somebody holds, or new ones.
    pub(super) fn get() -> Arc<Self> {
        static HELD: Mutex<Weak<Descriptions>> = Mutex::new(Weak::new());
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::read());
            *held = Arc::downgrade(&new);
            new
        })
    }

    fn read() -> Self {
        let mut text = String::new();
        if let Err(error) = GzDecoder::new(COMPRESSED).read_to_string(&mut text) {
            unreachable!("they are part of the program, and a test reads them: {error}");
        }
        let mut start = 0;
        let lines = text.split_inclusive('\n').map(|line| {
            let range = start..start + line.trim_end().len();
            start += line.len();
            range
        });
        let lines = lines.collect();
        Descriptions { text, lines }
    }

    /// The descriptions of the schema of that name and of its fields.
    pub(super) fn of(&self, name: &str) -> Map<String, Value> {
        let parts = |range: &Range<usize>| self.text[range.clone()].split_once('\t').unwrap_or_default();
        let found = self.lines.binary_search_by(|range| parts(range).0.cmp(name));
        found.ok().and_then(|at| serde_json::from_str(parts(&self.lines[at]).1).ok()).unwrap_or_default()
    }

    /// Puts the descriptions of a published schema and of its fields into it.
    pub(super) fn describe(&self, name: &str, schema: &mut Value) {
        for (field, description) in self.of(name) {
            let described = match field.as_str() {
                "" => Some(&mut *schema),
                field => schema.get_mut("properties").and_then(|properties| properties.get_mut(field)),
            };
            if let Some(Value::Object(described)) = described {
                described.insert("description".into(), description);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_kept_while_they_are_held() {
        let first = Descriptions::get();
        assert!(Arc::ptr_eq(&first, &Descriptions::get()));
        let pod = first.of("io.k8s.api.core.v1.Pod");
        assert!(pod[""].as_str().unwrap().starts_with("Pod is a collection of containers"), "{pod:?}");
        assert!(first.of("io.k8s.api.core.v1.Nothing").is_empty());
        let mut schema = serde_json::json!({"properties": {"spec": {"allOf": [{}]}, "other": {}}});
        first.describe("io.k8s.api.core.v1.Pod", &mut schema);
        assert!(schema["properties"]["spec"]["description"].is_string());
        assert_eq!(schema["properties"]["other"], serde_json::json!({}));
    }
}
