//! CronJobs: Jobs at their times, each once, also when the leader changes.

use std::time::Duration;

use crate::cluster::Cluster;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::Pod;
use objects::Delete;
use serde_json::{Value, json};

/// A cluster at this time, with the CronJob `c`, whose last Job was made for that one.
async fn begin(now: &str, last: &str, spec: Value) -> Cluster {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.settle().await;
    let now: Timestamp = now.parse().unwrap();
    cluster.pass(Duration::try_from(now.duration_since(cluster.now.wall)).unwrap());
    let mut cron = json!({
        "kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": "c", "namespace": "default"},
        "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}},
        }}},
    });
    cron["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    cluster.create(cron).await;
    let status = json!({"status": {"lastScheduleTime": last}});
    cluster.patch("batch/v1", "CronJob", "default", "c", "status", status).await.unwrap();
    cluster.settle().await;
    cluster
}

async fn until(cluster: &mut Cluster, time: &str) {
    let time: Timestamp = time.parse().unwrap();
    cluster.pass(Duration::try_from(time.duration_since(cluster.now.wall)).unwrap());
    cluster.settle().await;
}

fn status(cluster: &Cluster) -> CronJobStatus {
    cluster.get::<CronJob>("default", "c").unwrap().status.unwrap_or_default()
}

/// The Jobs by the times that they were made for.
fn jobs(cluster: &Cluster) -> Vec<String> {
    let annotation = |job: &Job| {
        job.metadata.annotations.as_ref().unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"].clone()
    };
    cluster.list::<Job>().iter().map(|job| annotation(job)).collect()
}

fn active(cluster: &Cluster) -> usize {
    status(cluster).active.map_or(0, |active| active.len())
}

/// All pods that run end.
async fn end_all(cluster: &mut Cluster, code: i32) {
    for pod in cluster.list::<Pod>() {
        if pod.status.as_ref().unwrap().phase.as_deref() == Some("Running") {
            cluster.end("default", pod.metadata.name.as_ref().unwrap(), code).await;
        }
    }
    cluster.settle().await;
}

#[tokio::test]
async fn a_job_is_made_at_each_time_and_its_end_is_seen() {
    let mut cluster = begin("2100-01-01T00:02:00Z", "2100-01-01T00:00:00Z", json!({})).await;
    assert_eq!(jobs(&cluster), [""; 0]);
    until(&mut cluster, "2100-01-01T00:05:01Z").await;
    assert_eq!(jobs(&cluster), ["2100-01-01T00:05:00Z"]);
    let job = cluster.list::<Job>().remove(0);
    let minutes = "2100-01-01T00:05:00Z".parse::<Timestamp>().unwrap().as_second() / 60;
    assert_eq!(job.metadata.name, Some(format!("c-{minutes}")));
    assert_eq!(job.metadata.labels.as_ref().unwrap()["a"], "b");
    let owner = &job.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.api_version.as_str(), owner.controller),
        ("CronJob", "batch/v1", Some(true))
    );
    assert_eq!(status(&cluster).active.unwrap()[0].uid, job.metadata.uid);
    assert_eq!(status(&cluster).last_schedule_time.unwrap().0.to_string(), "2100-01-01T00:05:00Z");
    cluster.take_over();
    cluster.settle().await;
    assert_eq!(jobs(&cluster).len(), 1, "another leader knows of it");
    end_all(&mut cluster, 0).await;
    assert_eq!((active(&cluster), status(&cluster).last_successful_time.is_some()), (0, true));
    let name = job.metadata.name.as_ref().unwrap();
    assert_eq!(cluster.told("c", "SuccessfulCreate"), ["Created job {}"]);
    assert_eq!(
        cluster.told("c", "SawCompletedJob"),
        [format!("Saw completed job: {name}, condition: Complete")]
    );
    until(&mut cluster, "2100-01-01T00:10:01Z").await;
    assert_eq!(jobs(&cluster).len(), 2);
    assert_eq!(cluster.told("c", "UnexpectedJob"), [""; 0]);
}

#[tokio::test]
async fn what_was_missed_is_made_up_for_once_unless_it_is_too_late() {
    for (spec, expected, reason) in [
        (json!({}), vec!["2100-01-03T00:00:00Z"], "TooManyMissedTimes"),
        (json!({"startingDeadlineSeconds": 600}), vec!["2100-01-03T00:00:00Z"], ""),
        (json!({"schedule": "0 22 * * *", "startingDeadlineSeconds": 600}), vec![], ""),
        (json!({"schedule": "0 22 * * *"}), vec!["2100-01-02T22:00:00Z"], ""),
        (json!({"suspend": true}), vec![], ""),
    ] {
        let cluster = begin("2100-01-03T00:02:00Z", "2100-01-01T00:00:00Z", spec.clone()).await;
        assert_eq!(jobs(&cluster), expected, "{spec}");
        let told = cluster.told("c", "TooManyMissedTimes");
        assert_eq!(told.is_empty(), reason.is_empty(), "{spec}");
    }
}

#[tokio::test]
async fn jobs_run_beside_each_other_or_not_as_it_is_asked() {
    for (policy, made, running) in [("Allow", 2, 2), ("Forbid", 1, 1), ("Replace", 1, 1)] {
        let spec = json!({"concurrencyPolicy": policy});
        let mut cluster = begin("2100-01-01T00:02:00Z", "2100-01-01T00:00:00Z", spec).await;
        until(&mut cluster, "2100-01-01T00:05:01Z").await;
        let first = jobs(&cluster);
        until(&mut cluster, "2100-01-01T00:10:01Z").await;
        assert_eq!((jobs(&cluster).len(), active(&cluster)), (made, running), "{policy}");
        assert_eq!(jobs(&cluster).contains(&first[0]), policy != "Replace", "{policy}");
        let told = cluster.told("c", "JobAlreadyActive");
        assert_eq!(told.is_empty(), policy != "Forbid", "{policy}");
        end_all(&mut cluster, 0).await;
        // The one that was not made is made late.
        let (all, late) = if policy == "Forbid" { (2, 1) } else { (made, 0) };
        assert_eq!((jobs(&cluster).len(), active(&cluster)), (all, late), "{policy}");
        assert_eq!(cluster.told("c", "MissingJob"), [""; 0]);
    }
}

#[tokio::test]
async fn only_so_many_that_are_over_are_kept() {
    let spec = json!({"successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {
        "backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}},
    }}});
    let mut cluster = begin("2100-01-01T00:02:00Z", "2100-01-01T00:00:00Z", spec).await;
    for (minute, code) in [(5, 0), (10, 1), (15, 0), (20, 0), (25, 1)] {
        until(&mut cluster, &format!("2100-01-01T00:{minute:02}:01Z")).await;
        end_all(&mut cluster, code).await;
    }
    let kept = ["2100-01-01T00:15:00Z", "2100-01-01T00:20:00Z", "2100-01-01T00:25:00Z"];
    assert_eq!(jobs(&cluster), kept);
    assert_eq!(cluster.told("c", "SuccessfulDelete").len(), 2);
    assert_eq!(cluster.list::<Pod>().len(), 3, "their pods went with the others");
}

#[tokio::test]
async fn times_are_those_of_a_time_zone() {
    let spec = json!({"schedule": "30 8 * * *", "timeZone": "Europe/Zurich"});
    let mut cluster = begin("2100-07-01T05:00:00Z", "2100-06-30T06:30:00Z", spec).await;
    until(&mut cluster, "2100-07-01T06:29:00Z").await;
    assert_eq!(jobs(&cluster), [""; 0]);
    until(&mut cluster, "2100-07-01T06:30:01Z").await;
    assert_eq!(jobs(&cluster), ["2100-07-01T08:30:00+02:00"]);
}

#[tokio::test]
async fn what_can_t_be_followed_is_told_and_holds_up_no_other() {
    for (spec, reason) in [
        (json!({"timeZone": "Mars/Olympus"}), "UnknownTimeZone"),
        (json!({"schedule": "every day"}), "UnparseableSchedule"),
        (json!({"schedule": "59 23 31 2 *"}), "InvalidSchedule"),
    ] {
        let mut cluster =
            begin("2100-01-01T00:02:00Z", "2100-01-01T00:00:00Z", json!({"suspend": true})).await;
        // The API takes no such thing; a restored backup may have it.
        let mut stored = serde_json::to_value(cluster.get::<CronJob>("default", "c").unwrap()).unwrap();
        stored["kind"] = "CronJob".into();
        stored["apiVersion"] = "batch/v1".into();
        stored["spec"]["suspend"] = false.into();
        stored["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let mut other = stored.clone();
        other["metadata"] = json!({"name": "other", "namespace": "default"});
        other["spec"]["schedule"] = "* * * * *".into();
        other["spec"].as_object_mut().unwrap().remove("timeZone");
        other.as_object_mut().unwrap().remove("status");
        cluster.store_raw("batch", "cronjobs", "c", stored).await;
        cluster.create(other).await;
        cluster.settle().await;
        until(&mut cluster, "2100-01-01T00:03:01Z").await;
        assert!(!cluster.told("c", reason).is_empty(), "{reason}");
        assert!(!jobs(&cluster).is_empty(), "{reason}: of the other");
    }
}

#[tokio::test]
async fn a_job_that_went_is_forgotten_and_one_that_nobody_made_is_told_of() {
    let mut cluster = begin("2100-01-01T00:02:00Z", "2100-01-01T00:00:00Z", json!({})).await;
    until(&mut cluster, "2100-01-01T00:05:01Z").await;
    let job = cluster.list::<Job>().remove(0);
    let mut owned = json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "extra", "namespace": "default"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}}}});
    owned["metadata"]["ownerReferences"] = json!(job.metadata.owner_references);
    cluster.create(owned).await;
    cluster
        .delete(
            "batch/v1",
            "Job",
            "default",
            job.metadata.name.as_ref().unwrap(),
            Delete { propagation: Some(objects::Propagation::Background), ..Delete::default() },
        )
        .await;
    cluster.settle().await;
    assert_eq!(active(&cluster), 0);
    assert_eq!(cluster.told("c", "MissingJob").len(), 1);
    assert!(cluster.told("c", "UnexpectedJob")[0].ends_with("extra"));
    assert_eq!(jobs_named(&cluster), ["extra"], "its time has passed, and it isn't made again");
}

fn jobs_named(cluster: &Cluster) -> Vec<String> {
    cluster.list::<Job>().iter().map(|job| job.metadata.name.clone().unwrap()).collect()
}
