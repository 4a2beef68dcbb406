//! Admission policies: expressions that judge and change what is written.

use http::Request;
use serde_json::{Value, json};

use crate::house::{House, admin, body_of, text};

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

pub fn matching(operations: &[&str], resources: &[&str]) -> Value {
    json!({"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": resources}]})
}

pub async fn make(house: &House, kind: &str, name: &str, spec: Value) -> (u16, Value) {
    let plural = match kind {
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies".to_owned(),
        "MutatingAdmissionPolicy" => "mutatingadmissionpolicies".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    let body = json!({"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}, "spec": spec});
    house.ask("POST", &format!("{GROUP}/{plural}"), Some(body)).await
}

pub async fn policy(house: &House, spec: Value, binding: Value) {
    let (code, answer) = make(house, "ValidatingAdmissionPolicy", "p", spec).await;
    assert_eq!(code, 201, "{answer}");
    let (code, answer) = make(house, "ValidatingAdmissionPolicyBinding", "b", binding).await;
    assert_eq!(code, 201, "{answer}");
}

pub fn map(name: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_policy_judges_with_its_parameters_and_says_why() {
    let house = House::new().await;
    assert_eq!(house.ask("POST", MAPS, Some(map("limits", json!({"most": "3"})))).await.0, 201);
    policy(
        &house,
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": matching(&["CREATE", "UPDATE"], &["configmaps"]),
            "matchConditions": [{"name": "not-exempt", "expression": "!('exempt' in object.data)"}],
            "variables": [{"name": "most", "expression": "int(params.data.most)"}],
            "validations": [
                {"expression": "size(object.data) <= variables.most", "reason": "Forbidden",
                    "messageExpression": "'at most %d in %s'.format([variables.most, namespaceObject.metadata.name])"},
                {"expression": "object.metadata.name != 'bad'"},
            ],
        }),
        json!({"policyName": "p", "validationActions": ["Deny"],
            "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}}),
    )
    .await;
    let five = json!({"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"});
    let (code, answer) = house.ask("POST", MAPS, Some(map("m", five.clone()))).await;
    assert_eq!((code, answer["reason"].as_str()), (403, Some("Forbidden")));
    assert_eq!(
        answer["message"],
        "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: at most 3 in default"
    );
    let (code, answer) = house.ask("POST", MAPS, Some(map("bad", json!({"k": "v"})))).await;
    assert_eq!((code, answer["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(
        answer["details"]["causes"][0]["message"],
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.metadata.name != 'bad'"
    );
    let mut exempt = five;
    exempt["exempt"] = json!("1");
    assert_eq!(house.ask("POST", MAPS, Some(map("m", exempt))).await.0, 201);
    assert_eq!(
        house.ask("PATCH", &format!("{MAPS}/m"), Some(json!({"data": {"exempt": null}}))).await.0,
        403
    );

    // Without its parameters the policy can't say yes.
    assert_eq!(house.ask("DELETE", &format!("{MAPS}/limits"), None).await.0, 200);
    let (code, answer) = house.ask("POST", MAPS, Some(map("n", json!({"k": "v"})))).await;
    assert_eq!(code, 422);
    assert!(answer["message"].as_str().unwrap().contains("no params found for policy binding"), "{answer}");
    let path = format!("{GROUP}/validatingadmissionpolicybindings/b");
    let allow = json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}});
    assert_eq!(house.ask("PATCH", &path, Some(allow)).await.0, 200);
    assert_eq!(house.ask("POST", MAPS, Some(map("n", json!({"k": "v"})))).await.0, 201);
}

#[tokio::test]
async fn a_binding_may_only_warn_and_a_policy_may_be_ignored_where_it_fails() {
    let house = House::new().await;
    policy(
        &house,
        json!({"matchConstraints": matching(&["CREATE"], &["configmaps"]),
            "validations": [{"expression": "object.data.k == 'v'", "message": "odd"}]}),
        json!({"policyName": "p", "validationActions": ["Warn", "Audit"],
            "matchResources": {"objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]}}}),
    )
    .await;
    let send = async |body: Value| {
        let request = Request::post(MAPS).header("content-type", "application/json");
        house.server.handle(request.body(body_of(body.to_string())).unwrap(), Some(admin())).await
    };
    let response = send(map("a", json!({"k": "w"}))).await;
    assert_eq!(response.status(), 201);
    assert_eq!(
        response.headers()["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': odd\""
    );
    let response = send(map("b", json!({"other": "x"}))).await;
    let warning = response.headers()["warning"].to_str().unwrap().to_owned();
    assert!(warning.contains("resulted in error: no such key: k"), "{warning}");
    let mut skipped = map("c", json!({"k": "w"}));
    skipped["metadata"]["labels"] = json!({"skip": ""});
    assert!(send(skipped).await.headers().get("warning").is_none());
    // What fails, and is ignored, says nothing.
    let path = format!("{GROUP}/validatingadmissionpolicies/p");
    assert_eq!(house.ask("PATCH", &path, Some(json!({"spec": {"failurePolicy": "Ignore"}}))).await.0, 200);
    let response = send(map("d", json!({"other": "x"}))).await;
    assert!(response.headers().get("warning").is_none());
    assert!(text(response).await.contains("\"uid\""));
}

#[tokio::test]
async fn policies_see_deletes_subresources_and_what_the_user_may_do() {
    let house = House::new().await;
    policy(
        &house,
        json!({"matchConstraints": matching(&["DELETE", "UPDATE"], &["configmaps", "deployments/scale"]),
            "validations": [
                {"expression": "request.operation != 'DELETE' || oldObject.data.k != 'keep'", "message": "kept"},
                {"expression": "request.subResource != 'scale' || object.spec.replicas <= 2", "message": "too many"},
                {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()",
                    "message": "no"},
            ]}),
        json!({"policyName": "p", "validationActions": ["Deny"]}),
    )
    .await;
    assert_eq!(house.ask("POST", MAPS, Some(map("keep", json!({"k": "keep"})))).await.0, 201);
    let (code, answer) = house.ask("DELETE", &format!("{MAPS}/keep"), None).await;
    assert!(code == 422 && answer["message"].as_str().unwrap().ends_with("denied request: kept"), "{answer}");
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(house.ask("POST", apps, Some(deployment)).await.0, 201);
    for (replicas, code) in [(3, 422), (2, 200)] {
        let scale = json!({"spec": {"replicas": replicas}});
        assert_eq!(house.ask("PATCH", &format!("{apps}/d/scale"), Some(scale)).await.0, code);
    }
    let (code, _) = house.ask("GET", &format!("{MAPS}/keep"), None).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_policy_that_can_not_work_is_refused_when_it_is_written() {
    let house = House::new().await;
    let spec = json!({"matchConstraints": matching(&["CREATE"], &["configmaps"]),
        "validations": [{"expression": "request.nothing == 1"}, {"expression": "object.a +"}]});
    let (code, answer) = make(&house, "ValidatingAdmissionPolicy", "p", spec).await;
    assert_eq!(code, 422);
    let causes = answer["details"]["causes"].as_array().unwrap();
    let fields: Vec<&Value> = causes.iter().map(|cause| &cause["field"]).collect();
    assert_eq!(fields, ["spec.validations[0].expression", "spec.validations[1].expression"]);
    assert_eq!(causes[0]["reason"], "FieldValueInvalid");
    let message = causes[0]["message"].as_str().unwrap();
    assert!(
        message.contains("compilation failed: ERROR: <input>:1:8: undefined field 'nothing'"),
        "{message}"
    );
}

#[tokio::test]
async fn policies_change_objects_by_what_they_apply_and_by_patches() {
    let house = House::new().await;
    let spec = json!({
        "matchConstraints": matching(&["CREATE"], &["pods"]),
        "matchConditions": [{"name": "c", "expression": "!object.spec.containers.exists(c, c.name == 'side')"}],
        "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'seen': 'yes'}}, spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 's'}]}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/count'), value: string(size(object.spec.containers))}]"}},
        ],
    });
    let (code, answer) = make(&house, "MutatingAdmissionPolicy", "p", spec).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(make(&house, "MutatingAdmissionPolicyBinding", "b", json!({"policyName": "p"})).await.0, 201);
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod.clone())).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["labels"], json!({"seen": "yes", "a/count": "2"}));
    let containers = made["spec"]["containers"].as_array().unwrap();
    let names: Vec<&Value> = containers.iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["c", "side"]);
    assert_eq!(containers[1]["imagePullPolicy"], "Always");

    // What fails refuses the change, and what comes out is validated as everything is.
    for (expression, code) in [
        ("[JSONPatch{op: 'add', path: '/metadata/labels/x', value: object.nothing}]", 403),
        ("[JSONPatch{op: 'remove', path: '/spec/nothing'}]", 403),
        ("[JSONPatch{op: 'add', path: '/metadata/labels', value: {'a b': ''}}]", 422),
    ] {
        let house = House::new().await;
        let spec = json!({"matchConstraints": matching(&["CREATE"], &["pods"]), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]});
        let (made, answer) = make(&house, "MutatingAdmissionPolicy", "p", spec).await;
        assert_eq!(made, 201, "{answer}");
        assert_eq!(
            make(&house, "MutatingAdmissionPolicyBinding", "b", json!({"policyName": "p"})).await.0,
            201
        );
        let (found, answer) = house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod.clone())).await;
        assert_eq!(found, code, "{answer}");
    }
}

#[tokio::test]
async fn a_configuration_merges_lists_by_their_keys_and_replaces_nothing_as_a_whole() {
    let house = House::new().await;
    let made = |expression: &str| {
        json!({"matchConstraints": matching(&["CREATE"], &["deployments"]), "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
    };
    let spec = made(
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
            Object.spec.template.spec.containers{name: 'b', env: [
                Object.spec.template.spec.containers.env{name: 'MODE', value: 'quiet'}]}]}}}}",
    );
    let (code, answer) = make(&house, "MutatingAdmissionPolicy", "p", spec).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(make(&house, "MutatingAdmissionPolicyBinding", "b", json!({"policyName": "p"})).await.0, 201);
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i", "env": [{"name": "X", "value": "y"}]}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let (code, answer) = house.ask("POST", deployments, Some(deployment.clone())).await;
    assert_eq!(code, 201, "{answer}");
    let containers = &answer["spec"]["template"]["spec"]["containers"];
    assert_eq!((&containers[0]["name"], &containers[0]["env"]), (&json!("a"), &Value::Null));
    assert_eq!(
        containers[1]["env"],
        json!([{"name": "X", "value": "y"}, {"name": "MODE", "value": "quiet"}])
    );

    let spec = made("Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'c': 'd'}}}}");
    let (code, answer) = make(&house, "MutatingAdmissionPolicy", "q", spec).await;
    assert_eq!(code, 201, "{answer}");
    let binding = json!({"policyName": "q"});
    assert_eq!(make(&house, "MutatingAdmissionPolicyBinding", "q", binding).await.0, 201);
    let (code, answer) = house.ask("POST", deployments, Some(deployment)).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap();
    let why = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector";
    assert!(message.contains(why), "{message}");
}
