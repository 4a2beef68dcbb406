//! ValidatingAdmissionPolicies say what their expressions get wrong.
#![allow(clippy::unwrap_used)]

mod cluster;

use cluster::Cluster;
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
