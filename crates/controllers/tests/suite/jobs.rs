//! Jobs: pods are made, counted each once and replaced, also when the leader changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::dice::Dice;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use objects::{Delete, Propagation};
use serde_json::{Value, json};

const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Makes the Job `j`.
pub async fn create(cluster: &Cluster, spec: Value) {
    let mut job = json!({
        "kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j", "namespace": "default"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}],
        }}},
    });
    job["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    cluster.create(job).await;
}

pub async fn change(cluster: &Cluster, spec: Value) {
    cluster.patch("batch/v1", "Job", "default", "j", "", json!({"spec": spec})).await.unwrap();
}

pub fn status(cluster: &Cluster) -> JobStatus {
    cluster.get::<Job>("default", "j").unwrap().status.unwrap_or_default()
}

/// The conditions that hold, in their order.
pub fn conditions(cluster: &Cluster) -> Vec<(String, String)> {
    let conditions = status(cluster).conditions.into_iter().flatten();
    let hold = conditions.filter(|condition| condition.status == "True");
    hold.map(|condition| (condition.type_, condition.reason.unwrap_or_default())).collect()
}

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(kind, reason)| ((*kind).to_owned(), (*reason).to_owned())).collect()
}

/// The pods that run, by name, with their index.
pub fn running(cluster: &Cluster) -> BTreeMap<String, String> {
    let running = cluster
        .list::<Pod>()
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && phase(pod) == "Running");
    running.map(|pod| (pod.metadata.name.clone().unwrap(), index(&pod))).collect()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn index(pod: &Pod) -> String {
    pod.metadata.annotations.as_ref().and_then(|all| all.get(INDEX).cloned()).unwrap_or_default()
}

/// A pod of this index ends.
pub async fn end_index(cluster: &mut Cluster, index: &str, code: i32) {
    let name = running(cluster).into_iter().find(|(_, own)| own == index).unwrap().0;
    cluster.end("default", &name, code).await;
    cluster.settle().await;
}

/// Any pod ends.
pub async fn end_one(cluster: &mut Cluster, code: i32) {
    let name = running(cluster).into_keys().next().unwrap();
    cluster.end("default", &name, code).await;
    cluster.settle().await;
}

fn tracked(cluster: &Cluster) -> usize {
    let has = |pod: &Arc<Pod>| pod.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    cluster.list::<Pod>().into_iter().filter(has).count()
}

#[tokio::test]
async fn pods_run_until_enough_have_succeeded() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"completions": 3, "parallelism": 2})).await;
    cluster.settle().await;
    assert_eq!((running(&cluster).len(), tracked(&cluster)), (2, 2));
    let begun = status(&cluster);
    assert_eq!((begun.active, begun.ready, begun.terminating), (Some(2), Some(2), Some(0)));
    assert!(begun.start_time.is_some() && begun.succeeded.is_none());
    end_one(&mut cluster, 0).await;
    assert_eq!((status(&cluster).succeeded, running(&cluster).len()), (Some(1), 2));
    end_one(&mut cluster, 0).await;
    assert_eq!((status(&cluster).succeeded, running(&cluster).len()), (Some(2), 1));
    assert_eq!(conditions(&cluster), []);
    end_one(&mut cluster, 0).await;
    let over = status(&cluster);
    assert_eq!((over.active, over.ready, over.succeeded, over.failed), (None, Some(0), Some(3), None));
    assert_eq!(over.uncounted_terminated_pods, Some(Default::default()));
    assert!(over.completion_time.is_some());
    let reason = "CompletionsReached";
    assert_eq!(conditions(&cluster), pairs(&[("SuccessCriteriaMet", reason), ("Complete", reason)]));
    assert_eq!((cluster.list::<Pod>().len(), tracked(&cluster)), (3, 0), "their logs can be read");
    assert_eq!(cluster.told("j", "SuccessfulCreate").len(), 3);
    assert_eq!(cluster.told("j", "Completed"), ["Job completed"]);
}

#[tokio::test]
async fn without_a_number_one_success_is_enough_once_the_others_have_ended() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"parallelism": 2, "completions": null})).await;
    cluster.settle().await;
    end_one(&mut cluster, 0).await;
    assert_eq!((running(&cluster).len(), conditions(&cluster)), (1, Vec::new()));
    end_one(&mut cluster, 1).await;
    assert_eq!(conditions(&cluster)[1].0, "Complete");
    assert_eq!((status(&cluster).succeeded, status(&cluster).failed), (Some(1), Some(1)));
}

/// Every step in an order of chance, with other leaders in between: at the end each pod that ended counts once.
#[tokio::test]
async fn every_pod_counts_once_in_any_order_and_under_any_leader() {
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let mut cluster = Cluster::new(&["n1", "n2"]).await;
        let mode = if seed % 2 == 0 { "NonIndexed" } else { "Indexed" };
        create(
            &cluster,
            json!({"completions": 5, "parallelism": 3, "backoffLimit": 50, "completionMode": mode}),
        )
        .await;
        let (mut succeeded, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for step in 0.. {
            assert!(step < 4000, "seed {seed}: {:?}", status(&cluster));
            match dice.below(12) {
                0 => cluster.take_over(),
                1 => cluster.pass(Duration::from_secs(60)),
                2 => drop(cluster.place().await),
                3 => drop(cluster.run_pods(1).await),
                4 | 5 => {
                    let all: Vec<_> = running(&cluster).into_keys().collect();
                    if let Some(name) = all.get(dice.below(all.len().max(1))) {
                        let code = i32::try_from(dice.below(3) / 2).unwrap();
                        cluster.end("default", name, code).await;
                        if code == 0 {
                            succeeded.insert(name.clone())
                        } else {
                            failed.insert(name.clone())
                        };
                    }
                }
                6 if dice.below(4) == 0 => {
                    if let Some(name) = running(&cluster).into_keys().next() {
                        cluster.delete("v1", "Pod", "default", &name, Delete::default()).await;
                        failed.insert(name);
                    }
                }
                _ => {
                    let due = cluster.due();
                    if let Some(key) = due.get(dice.below(due.len().max(1))) {
                        cluster.reconcile(key.clone()).await;
                    }
                }
            }
            if status(&cluster).completion_time.is_some() {
                break;
            }
        }
        cluster.settle().await;
        let over = status(&cluster);
        assert_eq!(over.succeeded, Some(5), "seed {seed}");
        assert_eq!(succeeded.len(), 5, "seed {seed}: none ran in vain");
        assert_eq!(usize::try_from(over.failed.unwrap_or(0)).unwrap(), failed.len(), "seed {seed}");
        assert_eq!(tracked(&cluster), 0, "seed {seed}");
        if mode == "Indexed" {
            assert_eq!(over.completed_indexes.as_deref(), Some("0-4"), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn each_index_has_a_pod_that_knows_it() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"})).await;
    cluster.settle().await;
    let pods = cluster.list::<Pod>();
    assert_eq!(pods.iter().map(|pod| index(pod)).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let (metadata, spec) = (&pods[2].metadata, pods[2].spec.as_ref().unwrap());
    assert!(metadata.name.as_ref().unwrap().starts_with("j-2-"));
    assert_eq!(metadata.labels.as_ref().unwrap()[INDEX], "2");
    assert_eq!(metadata.labels.as_ref().unwrap()["batch.kubernetes.io/job-name"], "j");
    assert_eq!(spec.hostname.as_deref(), Some("j-2"));
    let variable = &spec.containers[0].env.as_ref().unwrap()[0];
    let source = variable.value_from.as_ref().unwrap().field_ref.as_ref().unwrap();
    assert_eq!(
        (variable.name.as_str(), source.field_path.as_str()),
        ("JOB_COMPLETION_INDEX", "metadata.labels['batch.kubernetes.io/job-completion-index']")
    );
    for index in ["0", "1", "3"] {
        end_index(&mut cluster, index, 0).await;
    }
    assert_eq!(status(&cluster).completed_indexes.as_deref(), Some("0,1,3"));
    // It shrinks: what lies beyond is given up, and what of it succeeded counts no more.
    change(&cluster, json!({"completions": 2, "parallelism": 2})).await;
    cluster.settle().await;
    assert_eq!((status(&cluster).completed_indexes.as_deref(), status(&cluster).failed), (Some("0,1"), None));
    assert_eq!(conditions(&cluster)[1].0, "Complete");
}

#[tokio::test]
async fn a_failed_pod_is_replaced_later_each_time_and_the_limit_ends_it() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"backoffLimit": 2})).await;
    cluster.settle().await;
    for wait in [10, 20] {
        end_one(&mut cluster, 1).await;
        cluster.take_over();
        cluster.pass(Duration::from_secs(wait - 2));
        cluster.settle().await;
        assert_eq!(running(&cluster).len(), 0, "{wait}");
        cluster.pass(Duration::from_secs(3));
        cluster.settle().await;
        assert_eq!(running(&cluster).len(), 1, "{wait}");
    }
    end_one(&mut cluster, 1).await;
    let reason = "BackoffLimitExceeded";
    assert_eq!(conditions(&cluster), pairs(&[("FailureTarget", reason), ("Failed", reason)]));
    assert_eq!((status(&cluster).failed, tracked(&cluster)), (Some(3), 0));
    assert_eq!(cluster.told("j", reason), ["Job has reached the specified backoff limit"]);
}

#[tokio::test]
async fn a_suspended_job_runs_nothing_and_loses_nothing() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"suspend": true, "completions": 2, "parallelism": 2})).await;
    cluster.settle().await;
    assert_eq!((cluster.list::<Pod>().len(), status(&cluster).start_time), (0, None));
    assert_eq!(conditions(&cluster), pairs(&[("Suspended", "JobSuspended")]));
    for suspended in [false, true, false] {
        change(&cluster, json!({"suspend": suspended})).await;
        cluster.pass(Duration::from_secs(100));
        cluster.settle().await;
        assert_eq!(running(&cluster).len(), if suspended { 0 } else { 2 });
    }
    let resumed = status(&cluster);
    assert_eq!((resumed.failed, resumed.terminating), (None, Some(0)), "nobody failed");
    assert_eq!(resumed.start_time.unwrap().0.as_second(), cluster.now.wall.as_second());
    assert_eq!((cluster.told("j", "Suspended").len(), cluster.told("j", "Resumed").len()), (2, 2));
}

#[tokio::test]
async fn with_less_parallelism_the_surplus_goes_and_counts_for_nothing() {
    let mut cluster = Cluster::new(&["n1"]).await;
    create(&cluster, json!({"completions": 9, "parallelism": 4, "backoffLimit": 0})).await;
    cluster.settle().await;
    change(&cluster, json!({"parallelism": 1})).await;
    cluster.settle().await;
    assert_eq!((running(&cluster).len(), status(&cluster).failed), (1, None));
    assert_eq!(cluster.told("j", "SuccessfulDelete").len(), 3);
}

#[tokio::test]
async fn pods_of_a_job_that_goes_are_freed() {
    for (propagation, left) in
        [(Propagation::Background, 0), (Propagation::Foreground, 0), (Propagation::Orphan, 2)]
    {
        let mut cluster = Cluster::new(&["n1"]).await;
        create(&cluster, json!({"completions": 4, "parallelism": 2})).await;
        cluster.settle().await;
        let options = Delete { propagation: Some(propagation), ..Delete::default() };
        cluster.delete("batch/v1", "Job", "default", "j", options).await;
        cluster.settle().await;
        assert!(cluster.get::<Job>("default", "j").is_none(), "{propagation:?}");
        assert_eq!((cluster.list::<Pod>().len(), tracked(&cluster)), (left, 0), "{propagation:?}");
    }
}

#[tokio::test]
async fn a_job_adopts_what_it_selects_and_frees_what_it_no_longer_does() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let labels = json!({"app": "x"});
    cluster.create(json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "orphan", "namespace": "default", "labels": labels},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]},
    })).await;
    create(
        &cluster,
        json!({"manualSelector": true, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}}}),
    )
    .await;
    cluster.settle().await;
    assert_eq!((cluster.list::<Pod>().len(), tracked(&cluster)), (1, 1), "it is counted like its own");
    let other = json!({"metadata": {"labels": {"app": "y"}}});
    cluster.patch("v1", "Pod", "default", "orphan", "", other).await.unwrap();
    cluster.settle().await;
    let orphan: Pod = cluster.get("default", "orphan").unwrap();
    assert_eq!((orphan.metadata.owner_references, orphan.metadata.finalizers), (None, None));
    assert_eq!(running(&cluster).len(), 2, "another took its place");
}
