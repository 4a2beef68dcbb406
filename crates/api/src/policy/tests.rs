use cel::Budget;
use machinery::{Definition, Faults, Object};
use serde_json::{Value, json};

use super::*;

fn object(spec: Value) -> Object {
    Object::from_value(json!({"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": spec}))
        .unwrap()
}

fn rulings(spec: Value, new: Value) -> Vec<Ruling> {
    let mut faults = Faults::default();
    let policy = Policy::compile(&object(spec), &mut faults);
    assert_eq!(faults, Faults::default());
    let request =
        json!({"operation": "CREATE", "userInfo": {"username": "jo", "groups": ["a"]}, "name": "x"});
    let inputs = Inputs {
        object: Some(&new),
        old_object: None,
        request: &request,
        namespace: None,
        params: Some(&json!({"most": 3})),
        authorizer: None,
    };
    Scope::new(&policy, inputs).validate(&mut Budget::default())
}

#[test]
fn validations_see_variables_params_and_the_request() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [
            {"name": "n", "expression": "object.spec.replicas"},
            {"name": "twice", "expression": "variables.n * 2"},
        ],
        "validations": [
            {"expression": "variables.twice <= params.most * 2", "reason": "Forbidden",
                "messageExpression": "'%s asks for %d'.format([request.userInfo.username, variables.n])"},
            {"expression": "request.operation == 'CREATE' && oldObject == null"},
            {"expression": "object.nothing == 1", "message": "m"},
            {"expression": "variables.n < 1"},
        ],
    });
    let found = rulings(spec.clone(), json!({"spec": {"replicas": 5}}));
    let deny = |message: &str, reason: &str| Ruling::Deny { message: message.into(), reason: reason.into() };
    assert_eq!(found[0], deny("jo asks for 5", "Forbidden"));
    assert_eq!(found[1], Ruling::Admit);
    assert_eq!(
        found[2],
        Ruling::Failed("expression 'object.nothing == 1' resulted in error: no such key: nothing".into())
    );
    assert_eq!(found[3], deny("failed expression: variables.n < 1", ""));
    assert_eq!(rulings(spec, json!({"spec": {"replicas": 2}}))[0], Ruling::Admit);
}

#[test]
fn what_is_wrong_with_a_policy_is_told_with_its_field() {
    let mut faults = Faults::default();
    let spec = json!({
        "matchConditions": [{"name": "a", "expression": "namespaceObject.x == 1"}, {"name": "b", "expression": "1"}],
        "variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1 +"}],
        "validations": [{"expression": "variables.a == variables.b"}, {"expression": "params.x == 1", "messageExpression": "1"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "1"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[1]"}},
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{a: 1}}"}}],
    });
    Policy::compile(&object(spec), &mut faults);
    let places: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(
        places,
        [
            "spec.matchConditions[0].expression",
            "spec.matchConditions[1].expression",
            "spec.variables[0].expression",
            "spec.variables[1].expression",
            "spec.validations[1].expression",
            "spec.validations[1].messageExpression",
            "spec.auditAnnotations[0].valueExpression",
            "spec.mutations[0].jsonPatch.expression",
        ]
    );
}

#[test]
fn expressions_are_held_against_the_kinds_that_a_policy_names() {
    let rules = |groups: &[&str], resources: &[&str]| json!({"resourceRules": [{"apiGroups": groups, "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources}]});
    let spec = json!({
        "matchConstraints": rules(&["apps"], &["deployments", "deployments/scale", "daemonsets"]),
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "n", "expression": "object.metadata.name"}],
        "validations": [
            {"expression": "object.spec.replicas > 1", "messageExpression": "object.nothing"},
            {"expression": "variables.n.startsWith(params.data['x']) && oldObject == null"},
            {"expression": "object.spec.template.spec.containers.all(c, c.image != '' && c.resources.limits['cpu'] != 1)"},
            {"expression": "variables.n > 1"},
        ],
    });
    let found = type_check(&object(spec), &[]);
    let told: Vec<(&str, &str)> =
        found.iter().map(|w| (w["fieldRef"].as_str().unwrap(), w["warning"].as_str().unwrap())).collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert_eq!(
        told[0],
        (
            "spec.validations[0].expression",
            "apps/v1, Kind=DaemonSet: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1\n | ...........^"
        )
    );
    assert_eq!(told[1].0, "spec.validations[0].messageExpression");
    let both = ["apps/v1, Kind=DaemonSet: ERROR", "\napps/v1, Kind=Deployment: ERROR"];
    assert!(both.iter().all(|part| told[1].1.contains(part)), "{}", told[1].1);
    assert_eq!(told[2].0, "spec.validations[3].expression");
    // What is named by wildcards is any kind.
    let any = json!({"matchConstraints": rules(&["*"], &["deployments"]), "validations": [{"expression": "object.x == 1"}]});
    assert_eq!(type_check(&object(any), &[]), Vec::<Value>::new());
    // Each built-in kind has a schema to hold expressions against, also those that hold themselves.
    for resource in crate::resources() {
        let rules = json!({"resourceRules": [{"apiGroups": [resource.group], "apiVersions": [resource.version],
            "operations": ["*"], "resources": [resource.plural]}]});
        let spec = json!({"matchConstraints": rules, "validations": [{"expression": "object.kind != '' && object.metadata.name != ''"}]});
        let found = type_check(&object(spec), &[]);
        assert_eq!(found, Vec::<Value>::new(), "{}", resource.plural);
    }
}

/// A definition of `Widget` in `example.com`, whose versions have these schemas.
fn widgets(versions: Value) -> Definition {
    let versions: Value = versions
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, schema)| {
            json!({"name": name, "served": name != "v0", "storage": name == "v1", "schema": {"openAPIV3Schema": schema}})
        })
        .collect();
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": versions}});
    Definition::parse(definition.to_string().into(), 1, None).unwrap()
}

#[test]
fn expressions_are_held_against_kinds_of_definitions_too() {
    let spec_of = |field: &str| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {field: {"type": "integer"}}}}});
    let definitions = [widgets(json!({
        "v0": spec_of("old"), "v1": spec_of("size"), "v2": spec_of("length"),
        "v3": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "v4": {"type": "object"},
    }))];
    let rules = |versions: &[&str]| {
        json!({"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": versions,
        "operations": ["CREATE"], "resources": ["*", "widgets", "widgets/status", "gadgets"]}]})
    };
    let told = |versions: &[&str], param_version: &str, expression: &str| -> String {
        let spec = json!({"matchConstraints": rules(versions),
            "paramKind": {"apiVersion": format!("example.com/{param_version}"), "kind": "Widget"},
            "validations": [{"expression": expression}]});
        let found = type_check(&object(spec), &definitions);
        found.iter().map(|warning| warning["warning"].as_str().unwrap().to_owned()).collect()
    };
    let fits = "object.spec.size > 1 && object.metadata.labels['a'] == object.kind && object.metadata.generation > 0";
    assert_eq!(told(&["v1"], "v1", fits), "");
    assert_eq!(
        told(&["v1", "v2"], "v1", "object.spec.size > 1"),
        "example.com/v2, Kind=Widget: ERROR: <input>:1:12: undefined field 'size'\n | object.spec.size > 1\n \
            | ...........^"
    );
    assert!(told(&["v1"], "v1", "object.spec.size == 'x'").contains("no matching overload"));
    assert!(told(&["v1"], "v1", "object.metadata.nothing == 'x'").contains("undefined field 'nothing'"));
    assert!(told(&["v4"], "v1", "object.spec.size > 1").contains("undefined field 'spec'"));
    // What may be anything is, and what isn't served is none.
    for versions in [&["v3"][..], &["v0"], &["v9"], &["*"]] {
        assert_eq!(told(versions, "v1", "object.anything.goes == 1"), "", "{versions:?}");
    }
    assert!(told(&["v1"], "v2", "params.spec.size > 1").contains("undefined field 'size'"));
    assert_eq!(told(&["v1"], "v2", "params.spec.length > object.spec.size"), "");
    assert_eq!(told(&["v1"], "v9", "params.spec.size > 1"), "");
}
