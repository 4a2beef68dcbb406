//! Manifests: one or many documents, YAML or JSON.

use crate::Error;
use serde_json::Value;

/// The objects of a manifest: every document of a stream, every item of a `List`.
pub fn documents(text: &str, origin: &str) -> Result<Vec<Value>, Error> {
    let wrong = |why: String| Error::Manifest { origin: origin.to_owned(), why };
    let parsed = |e: &dyn std::fmt::Display| wrong(format!("cannot be parsed: {e}"));
    let mut objects = Vec::new();
    for values::Document { value, duplicates } in values::documents(text).map_err(|e| parsed(&e))? {
        if let Some(duplicate) = duplicates.first() {
            return Err(parsed(duplicate));
        }
        match value {
            Value::Null => {}
            Value::Object(ref map) => match map.get("items") {
                Some(Value::Array(items)) if map.get("kind").and_then(Value::as_str) == Some("List") => {
                    objects.extend(items.iter().cloned());
                }
                _ => objects.push(value),
            },
            _ => {
                return Err(wrong(
                    "a document is not an object: it needs apiVersion, kind and metadata".into(),
                ));
            }
        }
    }
    for object in &objects {
        for field in ["apiVersion", "kind"] {
            if object.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(wrong(format!("an object has no {field}")));
            }
        }
        let metadata = object.get("metadata");
        let named = |field| metadata.and_then(|m| m.get(field)).and_then(Value::as_str).is_some();
        if !named("name") && !named("generateName") {
            let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
            return Err(wrong(format!("an object of kind {kind} has no metadata.name")));
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn reads_streams_lists_and_json() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
        let json = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}]}"#;
        for (text, count) in [
            (pod.to_owned(), 1),
            (format!("---\n{pod}---\n\n---\n{pod}"), 2),
            (json.to_owned(), 1),
            (format!("{pod}base: &x {{a: b}}\ndata: {{<<: *x, a: c}}\n"), 1),
            (String::new(), 0),
        ] {
            assert_eq!(documents(&text, "x").unwrap().len(), count, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("- a", "not an object"),
            ("kind: Pod\nmetadata: {name: a}", "no apiVersion"),
            ("apiVersion: v1\nmetadata: {name: a}", "no kind"),
            ("apiVersion: v1\nkind: Pod", "kind Pod has no metadata.name"),
            ("a: [", "cannot be parsed"),
            ("a: 1\na: 2", "line 2: key \"a\" already set in map"),
            (&"[".repeat(1_000_000), "nested more than"),
            (&"- ".repeat(500_000), "nested more than"),
        ] {
            let error = documents(text, "file.yaml").unwrap_err().to_string();
            assert!(error.starts_with("file.yaml: ") && error.contains(says), "{text:?}: {error}");
        }
    }
}
