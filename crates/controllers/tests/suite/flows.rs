//! FlowSchemas say whether their priority level is there.
#![allow(clippy::unwrap_used)]

use crate::cluster::Cluster;
use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use objects::Delete;
use serde_json::json;

const GROUP: &str = "flowcontrol.apiserver.k8s.io/v1";

fn dangling(cluster: &Cluster) -> (String, String) {
    let schema = cluster.get::<FlowSchema>("", "a").unwrap();
    let condition = schema.status.unwrap().conditions.unwrap().remove(0);
    assert_eq!(condition.type_.as_deref(), Some("Dangling"));
    (condition.status.unwrap(), condition.reason.unwrap())
}

#[tokio::test]
async fn a_schema_dangles_while_its_level_is_missing() {
    let mut cluster = Cluster::new(&[]).await;
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "u"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/x"]}]}]);
    let spec = json!({"priorityLevelConfiguration": {"name": "l"}, "rules": rules});
    cluster
        .create(json!({"kind": "FlowSchema", "apiVersion": GROUP, "metadata": {"name": "a"}, "spec": spec}))
        .await;
    cluster.settle().await;
    assert_eq!(dangling(&cluster), ("True".into(), "NotFound".into()));

    let level = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}});
    cluster
        .create(json!({"kind": "PriorityLevelConfiguration", "apiVersion": GROUP, "metadata": {"name": "l"},
            "spec": level}))
        .await;
    cluster.settle().await;
    assert_eq!(dangling(&cluster), ("False".into(), "Found".into()));

    cluster.delete(GROUP, "PriorityLevelConfiguration", "", "l", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(dangling(&cluster), ("True".into(), "NotFound".into()));
}
