//! What ends a Job: limits for each index, failure and success policies, deadlines; and who replaces what when.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::jobs::{change, conditions, create, end_index, end_one, pairs, running, status};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use objects::Delete;
use serde_json::json;

#[tokio::test]
async fn each_index_has_its_own_limit() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(
        &cluster,
        json!({
            "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        }),
    )
    .await;
    cluster.settle().await;
    end_index(&mut cluster, "1", 1).await;
    assert_eq!((running(&cluster).len(), status(&cluster).failed_indexes.as_deref()), (2, Some("")));
    cluster.pass(Duration::from_secs(11));
    cluster.settle().await;
    let replaced = cluster.list::<Pod>().into_iter().filter(|pod| {
        let annotations = pod.metadata.annotations.as_ref().unwrap();
        annotations["batch.kubernetes.io/job-index-failure-count"] == "1"
    });
    assert_eq!(replaced.count(), 1, "the next pod of the index knows of the first");
    assert_eq!(status(&cluster).failed, Some(1));
    end_index(&mut cluster, "1", 1).await;
    assert_eq!(status(&cluster).failed_indexes.as_deref(), Some("1"));
    cluster.pass(Duration::from_secs(1000));
    cluster.settle().await;
    assert_eq!(running(&cluster).len(), 2, "the index is given up, the others go on");
    end_index(&mut cluster, "0", 0).await;
    end_index(&mut cluster, "2", 0).await;
    assert_eq!(
        conditions(&cluster),
        pairs(&[("FailureTarget", "FailedIndexes"), ("Failed", "FailedIndexes")])
    );
    let over = status(&cluster);
    assert_eq!((over.completed_indexes.as_deref(), over.failed), (Some("0,2"), Some(2)));
}

#[tokio::test]
async fn too_many_failed_indexes_end_the_job() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({
        "completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 1,
    })).await;
    cluster.settle().await;
    end_index(&mut cluster, "0", 1).await;
    assert_eq!(running(&cluster).len(), 3);
    end_index(&mut cluster, "3", 1).await;
    let reason = "MaxFailedIndexesExceeded";
    assert_eq!(conditions(&cluster), pairs(&[("FailureTarget", reason), ("Failed", reason)]));
    let over = status(&cluster);
    assert_eq!(
        (over.failed_indexes.as_deref(), over.failed, running(&cluster).len()),
        (Some("0,3"), Some(4), 0)
    );
}

#[tokio::test]
async fn a_failure_policy_tells_failures_apart() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(
        &cluster,
        json!({
            "completions": 4, "parallelism": 2, "backoffLimit": 0,
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
            ]},
        }),
    )
    .await;
    cluster.settle().await;
    end_one(&mut cluster, 7).await;
    cluster.pass(Duration::from_secs(11));
    cluster.settle().await;
    assert_eq!((running(&cluster).len(), status(&cluster).failed), (2, None), "that one doesn't count");
    end_one(&mut cluster, 42).await;
    assert_eq!(
        conditions(&cluster),
        pairs(&[("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")])
    );
    let told = cluster.told("j", "PodFailurePolicy");
    assert!(
        told[0].starts_with("Container c for pod default/j-")
            && told[0].ends_with("failed with exit code 42 matching FailJob rule at index 1"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_success_policy_ends_the_job_before_all_have_succeeded() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(
        &cluster,
        json!({
            "completions": 4, "parallelism": 4, "completionMode": "Indexed",
            "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        }),
    )
    .await;
    cluster.settle().await;
    end_index(&mut cluster, "2", 0).await;
    assert_eq!(running(&cluster).len(), 3);
    end_index(&mut cluster, "0", 0).await;
    assert_eq!(
        conditions(&cluster),
        pairs(&[("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")])
    );
    let over = status(&cluster);
    assert_eq!(
        (over.succeeded, over.failed, running(&cluster).len()),
        (Some(2), None, 0),
        "who was sent away didn't fail"
    );
}

#[tokio::test]
async fn a_deadline_ends_the_job() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"activeDeadlineSeconds": 30})).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(28));
    cluster.settle().await;
    assert_eq!(running(&cluster).len(), 1);
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    assert_eq!(
        conditions(&cluster),
        pairs(&[("FailureTarget", "DeadlineExceeded"), ("Failed", "DeadlineExceeded")])
    );
    assert_eq!((running(&cluster).len(), status(&cluster).failed), (0, Some(1)));
}

#[tokio::test]
async fn a_deleted_pod_is_replaced_at_once_or_once_it_has_ended() {
    for (policy, at_once) in [("TerminatingOrFailed", true), ("Failed", false)] {
        let mut cluster = Cluster::new(&["n1", "n2"]).await;
        create(&cluster, json!({"podReplacementPolicy": policy})).await;
        cluster.settle().await;
        let pod = cluster.list::<Pod>().remove(0);
        let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
        // Its host doesn't get to end it.
        cluster.silence(&node);
        cluster.delete("v1", "Pod", "default", pod.metadata.name.as_ref().unwrap(), Delete::default()).await;
        cluster.pass(Duration::from_secs(1));
        cluster.settle().await;
        cluster.pass(Duration::from_secs(60));
        cluster.settle().await;
        assert_eq!(
            (running(&cluster).len(), status(&cluster).terminating),
            (usize::from(at_once), Some(1)),
            "{policy}"
        );
        cluster.hear(&node).await;
        cluster.settle().await;
        cluster.pass(Duration::from_secs(60));
        cluster.settle().await;
        assert_eq!((running(&cluster).len(), status(&cluster).failed), (1, Some(1)), "{policy}");
    }
}

#[tokio::test]
async fn restarts_in_place_count_towards_the_limit() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(
        &cluster,
        json!({"backoffLimit": 2, "template": {"spec": {
            "restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "c"}],
        }}}),
    )
    .await;
    cluster.settle().await;
    let name = running(&cluster).into_keys().next().unwrap();
    for (restarts, left) in [(1, 1), (2, 0)] {
        let container = json!({"name": "c", "image": "c", "imageID": "", "ready": true, "restartCount": restarts,
            "state": {"running": {}}});
        let restarted = json!({"status": {"containerStatuses": [container]}});
        cluster.patch("v1", "Pod", "default", &name, "status", restarted).await.unwrap();
        cluster.settle().await;
        assert_eq!(running(&cluster).len(), left, "{restarts}");
    }
    assert_eq!(conditions(&cluster)[1], ("Failed".into(), "BackoffLimitExceeded".into()));
}

#[tokio::test]
async fn a_job_that_is_over_goes_after_its_time() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"ttlSecondsAfterFinished": 100})).await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(200));
    cluster.settle().await;
    end_one(&mut cluster, 0).await;
    cluster.pass(Duration::from_secs(98));
    cluster.settle().await;
    assert!(cluster.get::<Job>("default", "j").is_some());
    change(&cluster, json!({"ttlSecondsAfterFinished": 200})).await;
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    assert!(cluster.get::<Job>("default", "j").is_some(), "it was given more time");
    cluster.pass(Duration::from_secs(100));
    cluster.settle().await;
    assert!(cluster.get::<Job>("default", "j").is_none());
    assert_eq!(cluster.list::<Pod>().len(), 0);
}

#[tokio::test]
async fn what_another_manages_is_left_alone() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"managedBy": "acme.io/jobs"})).await;
    cluster.settle().await;
    assert_eq!((cluster.list::<Pod>().len(), status(&cluster)), (0, Default::default()));
}

#[tokio::test]
async fn a_job_whose_pods_are_refused_says_so_and_holds_up_no_other() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "full"}})).await;
    cluster.create(json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q", "namespace": "full"},
        "spec": {"hard": {"pods": "0"}}})).await;
    cluster.settle().await;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}});
    cluster.create(json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "refused", "namespace": "full"},
        "spec": {"template": template}})).await;
    create(&cluster, json!({})).await;
    cluster.settle().await;
    assert_eq!(running(&cluster).len(), 1);
    assert!(cluster.told("refused", "FailedCreate")[0].starts_with("Error creating: "));
    let refused: Job = cluster.get("full", "refused").unwrap();
    assert_eq!(refused.status.unwrap().active, None);
}
