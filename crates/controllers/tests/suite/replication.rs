//! ReplicationControllers: what ReplicaSets do, for the kind before them.

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use objects::{Delete, Propagation};
use serde_json::{Value, json};

async fn create(cluster: &Cluster, replicas: u32) {
    let labels = json!({"app": "web"});
    cluster.create(json!({
        "kind": "ReplicationController", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": labels, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "c"}]},
        }},
    })).await;
}

async fn scale(cluster: &mut Cluster, replicas: u32) {
    let scale: Value = json!({"spec": {"replicas": replicas}});
    cluster.patch("v1", "ReplicationController", "default", "web", "", scale).await.unwrap();
    cluster.settle().await;
}

#[tokio::test]
async fn it_has_as_many_pods_as_it_asks_for() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    create(&cluster, 3).await;
    cluster.settle().await;
    for replicas in [3, 5, 1] {
        scale(&mut cluster, replicas).await;
        let pods = cluster.list::<Pod>();
        assert_eq!(u32::try_from(pods.len()), Ok(replicas));
        let owner = &pods[0].metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.api_version.as_str()), ("ReplicationController", "v1"));
        let status = cluster.get::<ReplicationController>("default", "web").unwrap().status.unwrap();
        let wanted = i32::try_from(replicas).unwrap();
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas),
            (wanted, Some(wanted), Some(wanted))
        );
        assert_eq!(status.fully_labeled_replicas, Some(wanted));
    }
    assert_eq!(
        (cluster.told("web", "SuccessfulCreate").len(), cluster.told("web", "SuccessfulDelete").len()),
        (5, 4)
    );
}

#[tokio::test]
async fn it_adopts_orphans_and_leaves_them_behind() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, 2).await;
    cluster.settle().await;
    let orphan = Delete { propagation: Some(Propagation::Orphan), ..Delete::default() };
    cluster.delete("v1", "ReplicationController", "default", "web", orphan).await;
    cluster.settle().await;
    let names = |cluster: &Cluster| -> Vec<_> {
        cluster.list::<Pod>().iter().map(|pod| pod.metadata.name.clone()).collect()
    };
    let left = names(&cluster);
    assert_eq!(left.len(), 2);
    create(&cluster, 2).await;
    cluster.settle().await;
    assert_eq!(names(&cluster), left);
}

#[tokio::test]
async fn what_is_refused_it_says_in_its_status() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.create(json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q", "namespace": "default"},
        "spec": {"hard": {"pods": "1"}}})).await;
    cluster.settle().await;
    create(&cluster, 2).await;
    cluster.settle().await;
    let status = cluster.get::<ReplicationController>("default", "web").unwrap().status.unwrap();
    let condition = &status.conditions.unwrap()[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref(), status.replicas),
        ("ReplicaFailure", Some("FailedCreate"), 1)
    );
}
