//! What is given and isn't kept: it is judged as it was given.

use api::resource_of_kind;
use machinery::{Object, prepare_update, settle};
use serde_json::{Value, json};

use crate::{NONE, faults, prepared};

#[test]
fn empty_lists_are_judged_before_they_are_left_out() {
    let pod = |more: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        faults("v1", "Pod", "x", json!({ "spec": spec }))
    };
    assert_eq!(pod(json!({"resources": {"claims": []}})), ["Forbidden spec.resources.claims"]);
    assert_eq!(pod(json!({"resources": {}, "volumes": [], "tolerations": []})), NONE);
    let scaler = |policies: Value| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"});
        let behavior = json!({"scaleUp": {"policies": policies}});
        let spec = json!({"scaleTargetRef": target, "maxReplicas": 2, "behavior": behavior});
        faults("autoscaling/v2", "HorizontalPodAutoscaler", "x", json!({ "spec": spec }))
    };
    assert_eq!(scaler(json!([])), ["Required spec.behavior.scaleUp.policies"]);
    assert_eq!(scaler(Value::Null), NONE);
}

#[test]
fn an_empty_list_changes_a_network_policy_and_is_not_written() {
    let resource = resource_of_kind("networking.k8s.io/v1", "NetworkPolicy").unwrap();
    let policy = |spec: Value| {
        prepared(
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "x"},
            "spec": spec}),
        )
    };
    let old = policy(json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    let generation = |spec: Value| {
        let mut new = policy(spec);
        prepare_update(resource, "", &mut new, &old);
        settle(resource, &mut new);
        assert_eq!(new.0["spec"], old.0["spec"]);
        new.meta("generation").unwrap().clone()
    };
    assert_eq!(generation(json!({"podSelector": {}, "policyTypes": ["Ingress"]})), 1);
    assert_eq!(generation(json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": []})), 2);
    let selector = json!({"matchExpressions": []});
    assert_eq!(generation(json!({"podSelector": selector, "policyTypes": ["Ingress"]})), 2);
}

#[test]
fn what_is_always_written_is_null_where_it_is_empty() {
    let resource = resource_of_kind("rbac.authorization.k8s.io/v1", "Role").unwrap();
    let role = |rules: Value| {
        let manifest = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "x"}, "rules": rules});
        prepared(&manifest)
    };
    let settled = |mut object: Object| {
        settle(resource, &mut object);
        object.0["rules"].clone()
    };
    assert_eq!(role(json!([])).0["rules"], json!([]));
    assert_eq!(settled(role(json!([]))), Value::Null);
    assert_eq!(settled(role(Value::Null)), Value::Null);
}

#[test]
fn items_of_lists_are_held_against_their_choices() {
    let policy = |types: Value| {
        let spec = json!({"podSelector": {}, "policyTypes": types});
        faults("networking.k8s.io/v1", "NetworkPolicy", "x", json!({ "spec": spec }))
    };
    assert_eq!(policy(json!(["Ingress"])), NONE);
    assert_eq!(policy(json!(["Ingress", "Sideways"])), ["NotSupported spec.policyTypes[1]"]);
    assert_eq!(policy(json!([""])), ["NotSupported spec.policyTypes[0]"]);
    let quota = |scopes: Value| {
        let spec = json!({"hard": {"pods": "1"}, "scopes": scopes});
        faults("v1", "ResourceQuota", "x", json!({ "spec": spec }))
    };
    assert_eq!(quota(json!(["Terminating"])), NONE);
    // Upstream says it of this one in other words.
    assert_eq!(quota(json!(["Odd"])), ["Invalid spec.scopes"]);
}

#[test]
fn a_stateful_set_mounts_the_volumes_that_it_claims() {
    let claim = |name: &str| {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let of = |mounts: Value| {
        let container = json!({"name": "redis", "image": "redis:7", "volumeMounts": mounts});
        let volumes = json!([{"name": "conf", "configMap": {"name": "redis-cluster", "defaultMode": 0o755}}]);
        let template = json!({"metadata": {"labels": {"app": "r"}},
            "spec": {"containers": [container], "volumes": volumes}});
        let spec = json!({"serviceName": "r", "selector": {"matchLabels": {"app": "r"}}, "template": template,
            "volumeClaimTemplates": [claim("data")]});
        faults("apps/v1", "StatefulSet", "r", json!({ "spec": spec }))
    };
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    assert_eq!(of(json!([mount("conf"), mount("data")])), NONE);
    assert_eq!(
        of(json!([mount("other")])),
        ["NotFound spec.template.spec.containers[0].volumeMounts[0].name"]
    );
}
