//! Whether versions say the same: what all of them share, upstream keeps once, and judges there.

use serde_json::Value;

/// Fields of a schema whose values are schemas by name.
const MAPS: [&str; 4] = ["properties", "definitions", "patternProperties", "dependencies"];
/// Those that are lists of schemas.
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Those that are schemas.
const ONE: [&str; 3] = ["not", "items", "additionalProperties"];
/// Those that are values of the custom resource, and aren't looked into.
const VALUES: [&str; 2] = ["default", "example"];

/// Whether a part of all versions is the same, as `apiequality.Semantic.DeepEqual` upstream finds it: where lists and maps may be
/// empty, none is the same as one without anything.
pub(super) fn all_share(versions: &[Value], part: &str) -> bool {
    let Some(first) = versions.first() else { return true };
    versions.iter().all(|version| same_part(&version[part], &first[part]))
}

/// Whether two versions' parts of one name are the same.
pub(super) fn same_part(one: &Value, other: &Value) -> bool {
    match (one.get("openAPIV3Schema"), other.get("openAPIV3Schema")) {
        (Some(one), Some(other)) => same_schema(one, other),
        _ => one == other || is_no_list(one) && is_no_list(other),
    }
}

fn is_no_list(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn is_no_map(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(|map| map.is_empty())
}

fn same_schema(one: &Value, other: &Value) -> bool {
    let (Some(fields), Some(others)) = (one.as_object(), other.as_object()) else { return one == other };
    let same = |key: &str| {
        let (one, other) = (&one[key], &other[key]);
        match key {
            _ if MAPS.contains(&key) => is_no_map(one) && is_no_map(other) || same_map(one, other),
            _ if LISTS.contains(&key) => is_no_list(one) && is_no_list(other) || same_list(one, other),
            _ if ONE.contains(&key) => same_schema(one, other),
            _ if VALUES.contains(&key) => one == other,
            _ => one == other || is_no_list(one) && is_no_list(other),
        }
    };
    fields.keys().all(|key| same(key))
        && others.keys().filter(|key| !fields.contains_key(*key)).all(|key| same(key))
}

fn same_map(one: &Value, other: &Value) -> bool {
    let (Some(fields), Some(others)) = (one.as_object(), other.as_object()) else { return one == other };
    fields.len() == others.len()
        && fields
            .iter()
            .all(|(name, schema)| others.get(name).is_some_and(|other| same_schema(schema, other)))
}

fn same_list(one: &Value, other: &Value) -> bool {
    let (Some(items), Some(others)) = (one.as_array(), other.as_array()) else { return one == other };
    items.len() == others.len() && items.iter().zip(others).all(|(one, other)| same_schema(one, other))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_empty_is_the_same_as_nothing_where_it_says_as_little() {
        let part = |spec: Value| json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
        for same in [
            json!({"type": "object", "anyOf": []}),
            json!({"type": "object", "enum": [], "required": []}),
            json!({"type": "object", "definitions": {}, "properties": {}}),
            json!({"type": "object", "x-kubernetes-validations": []}),
        ] {
            assert!(same_part(&part(same.clone()), &part(json!({"type": "object"}))), "{same}");
            assert!(same_part(&part(json!({"type": "object"})), &part(same.clone())), "{same}");
        }
        for other in [
            json!({"type": "object", "not": {}}),
            json!({"type": "object", "default": []}),
            json!({"type": "object", "anyOf": [{}]}),
            json!({"type": "object", "properties": {"a": {}}}),
            json!({"type": "object", "additionalProperties": {}}),
        ] {
            assert!(!same_part(&part(other.clone()), &part(json!({"type": "object"}))), "{other}");
        }
        assert!(all_share(&[json!({"selectableFields": []}), json!({})], "selectableFields"));
        assert!(!all_share(&[json!({"subresources": {}}), json!({})], "subresources"));
    }
}
