use serde_json::{Value, json};

use super::*;
use crate::cel::Budget;
use crate::object::Object;

fn object(spec: Value) -> Object {
    Object::from_value(json!({"kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": spec}))
        .unwrap()
}

fn verdicts(spec: Value, new: Value) -> Vec<Verdict> {
    let mut faults = Vec::new();
    let policy = Policy::compile(&object(spec), &mut faults);
    assert_eq!(faults, vec![]);
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
    let found = verdicts(spec.clone(), json!({"spec": {"replicas": 5}}));
    let deny = |message: &str, reason: &str| Verdict::Deny { message: message.into(), reason: reason.into() };
    assert_eq!(found[0], deny("jo asks for 5", "Forbidden"));
    assert_eq!(found[1], Verdict::Admit);
    assert_eq!(
        found[2],
        Verdict::Failed("expression 'object.nothing == 1' resulted in error: no such key: nothing".into())
    );
    assert_eq!(found[3], deny("failed expression: variables.n < 1", ""));
    assert_eq!(verdicts(spec, json!({"spec": {"replicas": 2}}))[0], Verdict::Admit);
}

#[test]
fn what_is_wrong_with_a_policy_is_told_with_its_field() {
    let mut faults = Vec::new();
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
    let found = type_check(&object(spec));
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
    assert_eq!(type_check(&object(any)), Vec::<Value>::new());
    // Each built-in kind has a schema to hold expressions against, also those that hold themselves.
    for resource in crate::resources() {
        let rules = json!({"resourceRules": [{"apiGroups": [resource.group], "apiVersions": [resource.version],
            "operations": ["*"], "resources": [resource.plural]}]});
        let spec = json!({"matchConstraints": rules, "validations": [{"expression": "object.kind != '' && object.metadata.name != ''"}]});
        let found = type_check(&object(spec));
        assert_eq!(found, Vec::<Value>::new(), "{}", resource.plural);
    }
}
