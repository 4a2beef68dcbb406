//! ValidatingAdmissionPolicies say what their expressions get wrong.
#![allow(clippy::unwrap_used)]

use crate::cluster::Cluster;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

const GROUP: &str = "admissionregistration.k8s.io/v1";

fn status(cluster: &Cluster) -> Value {
    let policy = cluster.get::<ValidatingAdmissionPolicy>("", "p").unwrap();
    assert_eq!(policy.status.as_ref().unwrap().observed_generation, policy.metadata.generation);
    serde_json::to_value(policy.status.unwrap().type_checking).unwrap()
}

#[tokio::test]
async fn a_policy_tells_which_expressions_do_not_fit_its_kinds() {
    let mut cluster = Cluster::new(&[]).await;
    let spec = |expression: &str| {
        json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["deployments"]}]}, "validations": [{"expression": expression}]})
    };
    let policy = json!({"kind": "ValidatingAdmissionPolicy", "apiVersion": GROUP, "metadata": {"name": "p"},
        "spec": spec("object.replicas > 1")});
    cluster.create(policy).await;
    cluster.settle().await;
    let warning = "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n \
        | ......^";
    assert_eq!(
        status(&cluster),
        json!({"expressionWarnings": [{"fieldRef": "spec.validations[0].expression", "warning": warning}]})
    );

    let repaired = json!({"spec": spec("object.spec.replicas > 1")});
    let kind = "ValidatingAdmissionPolicy";
    cluster.patch(GROUP, kind, "", "p", "", repaired).await.unwrap();
    cluster.settle().await;
    assert_eq!(status(&cluster), json!({}));
}

#[tokio::test]
async fn kinds_and_parameters_of_definitions_are_known() {
    let mut cluster = Cluster::new(&[]).await;
    let schema = |field: &str| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {field: {"type": "integer"}}}}});
    for (plural, kind, field) in [("widgets", "Widget", "size"), ("limits", "Limit", "most")] {
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema(field)}});
        let definition = json!({"kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
                "versions": [version]}});
        cluster.create(definition).await;
    }
    let spec = |expression: &str| {
        json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["widgets"]}]},
            "paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"}, "validations": [{"expression": expression}]})
    };
    let policy = json!({"kind": "ValidatingAdmissionPolicy", "apiVersion": GROUP, "metadata": {"name": "p"},
        "spec": spec("object.spec.size <= params.spec.least")});
    cluster.create(policy).await;
    cluster.settle().await;
    let told = status(&cluster);
    let warning = told["expressionWarnings"][0]["warning"].as_str().unwrap_or_default();
    let expected = "example.com/v1, Kind=Widget: ERROR: <input>:1:32: undefined field 'least'";
    assert!(warning.starts_with(expected), "{told}");

    let repaired = json!({"spec": spec("object.spec.size <= params.spec.most")});
    cluster.patch(GROUP, "ValidatingAdmissionPolicy", "", "p", "", repaired).await.unwrap();
    cluster.settle().await;
    assert_eq!(status(&cluster), json!({}));
}
