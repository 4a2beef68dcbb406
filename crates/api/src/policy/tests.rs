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
