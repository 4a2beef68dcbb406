use serde_json::{Value, json};

use super::*;
use crate::faults::Faults;
use crate::status::Cause;

fn compiled(schema: &Value) -> SchemaRules {
    let mut faults = Faults::default();
    let rules = SchemaRules::compile(schema, "schema", &mut faults);
    assert_eq!(faults, Faults::default());
    rules
}

fn told(faults: impl IntoIterator<Item = Cause>) -> Vec<(String, String)> {
    faults.into_iter().map(|fault| (fault.field, fault.message)).collect()
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.size <= self.most", "messageExpression": "'size must be at most %d'.format([self.most])",
                    "fieldPath": ".size"},
                {"rule": "self.size >= oldSelf.size", "message": "may only grow", "reason": "FieldValueForbidden"},
                {"rule": "!oldSelf.hasValue() || self.most == oldSelf.value().most", "optionalOldSelf": true},
            ],
            "properties": {
                "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self % 2 == 0"}]},
                "most": {"type": "integer"},
                "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
                        "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "message": "n shrinks"}]}},
                "labels": {"type": "object", "additionalProperties": {"type": "string",
                    "x-kubernetes-validations": [{"rule": "self != ''", "message": "is empty"}]}},
            },
        }},
        "x-kubernetes-validations": [{"rule": "self.metadata.name != 'forbidden'", "message": "bad name"}]})
}

#[test]
fn rules_hold_or_say_why_they_do_not() {
    let rules = compiled(&schema());
    let object =
        |size: i64, most: i64| json!({"metadata": {"name": "a"}, "spec": {"size": size, "most": most}});
    assert_eq!(told(rules.validate(&object(2, 4), None)), vec![]);
    assert_eq!(
        told(rules.validate(&object(6, 4), None)),
        [("spec.size".into(), "Invalid value: size must be at most 4".into())]
    );
    assert_eq!(
        told(rules.validate(&object(3, 4), None)),
        [("spec.size".into(), "Invalid value: 3: failed rule: self % 2 == 0".into())]
    );
    let forbidden = json!({"metadata": {"name": "forbidden"}, "spec": {"size": 2, "most": 4}});
    assert_eq!(told(rules.validate(&forbidden, None)), [("<nil>".into(), "Invalid value: bad name".into())]);
    let missing = json!({"metadata": {"name": "a"}, "spec": {"size": 2}});
    let faults = told(rules.validate(&missing, None));
    assert_eq!(
        faults[0].1,
        "Invalid value: \"object\": no such key: most evaluating rule: self.size <= self.most"
    );
}

#[test]
fn transitions_compare_with_what_was() {
    let rules = compiled(&schema());
    let object = |size: i64, parts: Value| json!({"metadata": {"name": "a"}, "spec": {"size": size, "most": 8, "parts": parts}});
    let old = object(4, json!([{"name": "p", "n": 3}, {"name": "q", "n": 3}]));
    assert_eq!(
        told(rules.validate(&object(2, json!([{"name": "q", "n": 1}, {"name": "new", "n": 0}])), Some(&old))),
        [
            ("spec".into(), "Forbidden: may only grow".into()),
            ("spec.parts[0]".into(), "Invalid value: n shrinks".into()),
        ]
    );
    let mut most = old.clone();
    most["spec"]["most"] = json!(10);
    assert_eq!(told(rules.validate(&most, Some(&old))).len(), 1);
    // What was wrong before and is the same is left alone; beside a change it is not.
    let wrong = json!({"metadata": {"name": "a"}, "spec": {"size": 2, "most": 8, "labels": {"a": ""}}});
    let mut changed = wrong.clone();
    changed["spec"]["size"] = json!(4);
    assert_eq!(told(rules.validate(&changed, Some(&wrong))), vec![]);
    changed["spec"]["labels"]["b"] = json!("");
    assert_eq!(
        told(rules.validate(&changed, Some(&wrong))),
        [("spec.labels[b]".into(), "Invalid value: \"\": is empty".into())]
    );
}

#[test]
fn faults_of_rules_are_told_when_they_are_written() {
    let mut faults = Faults::default();
    let rule = |rule: &str| json!([{"rule": rule}]);
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": rule("self > 'x'")},
        "b": {"type": "string", "x-kubernetes-validations": rule("self")},
        "c": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": rule("self == oldSelf")}},
        "d": {"type": "object", "properties": {"e": {"type": "string"}}, "x-kubernetes-validations": [
            {"rule": "true", "messageExpression": "1"},
            {"rule": "self.e != ''", "optionalOldSelf": true}]},
    }});
    SchemaRules::compile(&schema, "s", &mut faults);
    let places: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(
        places,
        [
            "s.properties[a].x-kubernetes-validations[0].rule",
            "s.properties[b].x-kubernetes-validations[0].rule",
            "s.properties[c].items.x-kubernetes-validations[0].rule",
            "s.properties[d].x-kubernetes-validations[0].messageExpression",
            "s.properties[d].x-kubernetes-validations[1].optionalOldSelf",
        ]
    );
    assert!(faults[0].message.contains("compilation failed: ERROR: <input>:1:6: found no matching overload"));
    let schema = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "1 < ''", "reason": "FieldValueInvalid"}]});
    let mut faults = Faults::default();
    SchemaRules::compile(&schema, "s", &mut faults);
    let shown = r#"Invalid value: {"Rule":"1 \u003c ''","Message":"","MessageExpression":"","Reason":"FieldValueInvalid","FieldPath":"","OptionalOldSelf":null}: compilation failed: "#;
    assert!(faults[0].message.starts_with(shown), "{}", faults[0].message);
}

#[test]
fn all_rules_together_have_one_budget() {
    let rules = compiled(
        &json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "integer"},
        "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a == b))"}]}}}),
    );
    let ones: Vec<i64> = vec![1; 3000];
    let faults = told(rules.validate(&json!({"list": ones}), None));
    assert_eq!(faults.len(), 1);
    assert!(faults[0].1.contains("due to call cost exceeds limit"), "{faults:?}");
}

#[test]
fn rules_are_not_asked_of_what_does_not_fit_the_schema() {
    let rules = compiled(&schema());
    let mut causes = Faults::default();
    causes.push(Cause::required("spec.size", ""));
    rules.validate_after(&json!({"spec": {}}), None, &mut causes);
    assert_eq!(causes.len(), 2);
    assert_eq!((causes[1].reason.as_str(), causes[1].field.as_str()), ("FieldValueInvalid", "<nil>"));
}

#[test]
fn rules_that_may_cost_too_much_are_told() {
    let told_of = |schema: &Value| {
        let mut faults = Faults::default();
        SchemaRules::check_costs(schema, "s", &mut faults);
        told(faults)
    };
    let list = |limits: Value, rule: &str| {
        let mut list = json!({"type": "array", "items": {"type": "integer"},
            "x-kubernetes-validations": [{"rule": rule}]});
        list.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        json!({"type": "object", "properties": {"list": list}})
    };
    let advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
        strings are declared)";
    let (quadratic, linear) = ("self.all(x, self.all(y, x == y))", "self.all(x, x > 0)");
    let place = "s.properties[list].x-kubernetes-validations[0].rule";
    assert_eq!(
        told_of(&list(json!({}), quadratic)),
        [
            (place, "estimated rule cost exceeds budget by factor of more than 100x"),
            (
                place,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            ),
            (
                "s",
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds \
                budget by factor of more than 100x"
            ),
        ]
        .map(|(place, why)| match why.starts_with("contributed") {
            true => (place.to_owned(), format!("Forbidden: {why}")),
            false => (place.to_owned(), format!("Forbidden: {why} {advice}")),
        })
    );
    assert_eq!(told_of(&list(json!({"maxItems": 100}), quadratic)), []);
    assert_eq!(told_of(&list(json!({}), linear)), []);
    // A rule counts as often as there can be values that it is about.
    let many =
        json!({"type": "object", "properties": {"outer": list(json!({"maxItems": 1_000_000}), linear)}});
    assert_eq!(told_of(&many), []);
    let outer = |most: u64| {
        json!({"type": "object", "properties": {"outer": {"type": "array", "maxItems": most,
            "items": list(json!({"maxItems": 10_000}), linear)}}})
    };
    assert_eq!(told_of(&outer(190)), []);
    let [(_, why)] = told_of(&outer(230)).try_into().unwrap();
    assert!(why.contains("by factor of 1.150046x"), "{why}");
    let [(_, why)] = told_of(&outer(1000)).try_into().unwrap();
    assert!(why.contains("by factor of 5.0x"), "{why}");
}
