//! The defaults of a definition's schema, held against the schema that they stand in.
//!
//! Follows `pkg/apiserver/schema/defaulting` of apiextensions-apiserver: each is judged as it is written, without the
//! defaults of what lies within it; the rules are asked of it with them.

use cel::Budget;
use serde_json::Value;

use super::fill::fill_default;
use super::object::validate_embedded;
use super::prune;
use super::schema::Schema;
use super::validate::validate;
use crate::faults::Faults;
use crate::schema_rules::SchemaRules;
use crate::status::Cause;

const RULES: &str = "x-kubernetes-validations";

/// Adds the faults of the defaults in a definition's schema at `path`.
pub fn validate_defaults(given: &Value, path: &str, faults: &mut Faults) {
    // An object has apiVersion, kind and metadata, whatever its schema says.
    let root = Schema { embedded: true, ..Schema::of_resource(given) };
    Walk { faults, budget: Budget::default() }.schema(&root, given, path, false);
}

struct Walk<'a> {
    faults: &'a mut Faults,
    /// What the rules of all defaults may cost together.
    budget: Budget,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Schema, given: &Value, path: &str, of_metadata: bool) {
        let of_metadata = of_metadata && !schema.embedded;
        if let Some(default) = schema.default.as_ref().filter(|default| !default.is_null()) {
            self.default(schema, given, default, &format!("{path}.default"), of_metadata);
        }
        // Defaults below additionalProperties are not looked at upstream either.
        if let Some(items) = &schema.items {
            self.schema(items, &given["items"], &format!("{path}.items"), of_metadata);
        }
        for (name, property) in &schema.properties {
            let of_metadata =
                of_metadata || (schema.embedded && matches!(&**name, "metadata" | "apiVersion" | "kind"));
            let given = &given["properties"][&**name];
            self.schema(property, given, &format!("{path}.properties[{name}]"), of_metadata);
        }
    }

    fn default(&mut self, schema: &Schema, given: &Value, default: &Value, path: &str, of_metadata: bool) {
        // The server fills metadata by its own schema, and keeps all that it has.
        if !of_metadata && prune::has_unknown(schema, default) {
            self.faults.push(Cause::invalid(path, default, "must not have unknown fields"));
        }
        let mut found = Faults::default();
        if !of_metadata {
            validate_embedded(schema, default, None, path, &mut found);
        }
        if found.is_empty() {
            validate(schema, default, None, "", &mut found);
            found.iter_mut().for_each(|cause| lead_to(cause, path));
        }
        if found.is_empty() && has_rules(given) {
            // What is wrong with the rules themselves is reported where they stand.
            let rules = SchemaRules::compile_part(given, &mut Faults::default());
            // They are asked of what objects will have, and that has the defaults within this one.
            let mut filled = default.clone();
            if fill_default(schema, &mut filled).is_ok() {
                found.extend(rules.validate_within(&filled, None, &mut self.budget));
            }
            found.iter_mut().for_each(|cause| lead_to(cause, path));
        }
        self.faults.append(found);
    }
}

/// The place of a fault in a default, as one in the schema.
fn lead_to(cause: &mut Cause, path: &str) {
    cause.field = match cause.field.as_str() {
        "" | "<nil>" => path.to_owned(),
        inner if inner.starts_with('[') => format!("{path}{inner}"),
        inner => format!("{path}.{inner}"),
    };
}

/// Whether a schema has rules, or one below it.
fn has_rules(given: &Value) -> bool {
    let below = |key: &str| given.get(key).filter(|below| below.is_object());
    given.get(RULES).is_some_and(|rules| !rules.is_null())
        || ["items", "additionalProperties"].into_iter().filter_map(below).any(has_rules)
        || below("properties").and_then(Value::as_object).into_iter().flatten().any(|(_, p)| has_rules(p))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::faults::MOST_FAULTS;

    fn told(spec: Value) -> Vec<(String, String)> {
        let mut faults = Faults::default();
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        validate_defaults(&schema, "s", &mut faults);
        let short = |field: &str| field.strip_prefix("s.properties[spec]").unwrap_or(field).to_owned();
        faults.into_iter().map(|cause| (short(&cause.field), cause.message)).collect()
    }

    fn of(property: Value) -> Vec<(String, String)> {
        told(json!({"type": "object", "properties": {"a": property}}))
    }

    #[test]
    fn a_default_fits_its_schema() {
        for fits in [
            json!({"type": "integer", "default": 1}),
            json!({"type": "integer", "default": 1.0}),
            json!({"type": "number", "default": 1}),
            json!({"type": "string", "default": "a", "enum": ["a"], "pattern": "^a$", "minLength": 1}),
            json!({"x-kubernetes-int-or-string": true, "default": "5%"}),
            json!({"type": "object", "default": {}}),
            json!({"type": "string", "nullable": true, "default": null}),
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "default": {"z": [{"y": 1}]}}),
            json!({"type": "object", "additionalProperties": {"type": "integer"}, "default": {"z": 1}}),
            json!({"type": "integer", "default": 2, "x-kubernetes-validations": [{"rule": "self > 1"}]}),
            json!({"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 4}},
                "x-kubernetes-validations": [{"rule": "self.b > 3"}]}),
        ] {
            assert_eq!(of(fits.clone()), [], "{fits}");
        }
        for (wrong, place, why) in [
            (
                json!({"type": "integer", "default": "x"}),
                "",
                "Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ),
            (json!({"type": "integer", "default": 1.5}), "", "must be of type integer"),
            (json!({"type": "string", "default": "b", "enum": ["a"]}), "", "Unsupported value: \"b\""),
            (json!({"type": "string", "default": "b", "pattern": "^a$"}), "", "should match '^a$'"),
            (json!({"type": "integer", "default": 0, "minimum": 1}), "", "greater than or equal to 1"),
            (json!({"type": "string", "default": "", "minLength": 1}), "", "at least 1 chars long"),
            (
                json!({"type": "object", "default": {}, "required": ["b"], "properties": {"b": {"type": "string"}}}),
                ".b",
                "Required value",
            ),
            (
                // The default within is not there yet.
                json!({"type": "object", "default": {}, "required": ["b"], "properties": {"b": {"type": "string", "default": "x"}}}),
                ".b",
                "Required value",
            ),
            (
                json!({"type": "array", "default": [1, "x"], "items": {"type": "integer"}}),
                "[1]",
                "must be of type integer",
            ),
            (
                json!({"type": "array", "default": [{"b": 1, "c": 2}], "items": {"type": "object", "properties": {"b": {"type": "integer"}}}}),
                "",
                "Invalid value: [{\"b\":1,\"c\":2}]: must not have unknown fields",
            ),
            (json!({"type": "object", "default": {"z": 1}}), "", "must not have unknown fields"),
            (
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "default": {"z": {"y": 1}},
                    "properties": {"z": {"type": "object"}}}),
                "",
                "must not have unknown fields",
            ),
            (
                json!({"type": "object", "x-kubernetes-embedded-resource": true,
                    "x-kubernetes-preserve-unknown-fields": true, "default": {"kind": "Pod"}}),
                ".apiVersion",
                "Required value: must not be empty",
            ),
            (
                json!({"type": "integer", "default": 1, "x-kubernetes-validations": [{"rule": "self > 1"}]}),
                "",
                "failed rule: self > 1",
            ),
            (
                json!({"type": "object", "default": {"b": 1}, "properties": {"b": {"type": "integer",
                    "x-kubernetes-validations": [{"rule": "self > 1", "message": "too small"}]}}}),
                ".b",
                "too small",
            ),
        ] {
            let found = of(wrong.clone());
            // What is no whole number is of another type and out of the range of whole ones, which upstream says both.
            let faults = if wrong["default"] == 1.5 { 2 } else { 1 };
            assert_eq!(found.len(), faults, "{wrong}: {found:?}");
            assert_eq!(found[0].0, format!(".properties[a].default{place}"), "{wrong}");
            assert!(found[0].1.contains(why), "{wrong}: {found:?}");
        }
        let both = told(json!({"type": "object", "default": {"a": 1, "zz": 2},
            "properties": {"a": {"type": "integer", "maximum": 0}}}));
        let places: Vec<&str> = both.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, [".default", ".default.a"]);
        assert_eq!(
            of(json!({"type": "array", "items": {"type": "integer", "default": "x"}}))[0].0,
            ".properties[a].items.default"
        );
    }

    #[test]
    fn metadata_has_what_its_own_schema_has() {
        let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
            "kind": {"type": "string", "default": "Pod"},
            "metadata": {"type": "object", "default": {"labels": {"a": "b"}}},
        }});
        assert_eq!(of(embedded), []);
    }

    #[test]
    fn faults_and_costs_of_many_defaults_are_bounded() {
        let wrong = json!({"type": "integer", "default": "x"});
        let many: serde_json::Map<String, Value> =
            (0..1000).map(|index| (format!("p{index}"), wrong.clone())).collect();
        assert_eq!(
            told(json!({"type": "object", "properties": many})).len(),
            MOST_FAULTS + 1,
            "and how many there are more"
        );
        let slow = json!({"type": "array", "items": {"type": "integer"}, "default": vec![1; 400],
            "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a == b))"}]});
        let many: serde_json::Map<String, Value> =
            (0..50).map(|index| (format!("p{index}"), slow.clone())).collect();
        let found = told(json!({"type": "object", "properties": many}));
        assert!(found.iter().any(|(_, why)| why.contains("running out of cost budget")), "{found:?}");
    }
}
