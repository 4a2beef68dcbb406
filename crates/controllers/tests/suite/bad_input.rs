//! What can't be as it is declared says why, in upstream's words, and holds up nobody else.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use crate::volumes::class;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use objects::{ObjectRef, Uid, Write};
use serde_json::{Value, json};

fn object(kind: &str, api_version: &str, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "apiVersion": api_version, "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn job(node_selector: Value) -> Value {
    let container = json!({"name": "c", "image": "c"});
    json!({"template": {"spec":
        {"restartPolicy": "Never", "containers": [container], "nodeSelector": node_selector}}})
}

fn claim(class: Value) -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": "1Gi"}}})
}

/// Each type with its status and reason.
fn conditions(conditions: Value) -> Vec<String> {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let all = conditions.as_array().cloned().unwrap_or_default();
    all.iter().map(|c| ["type", "status", "reason"].map(|field| text(c, field)).join(" ")).collect()
}

async fn evict(cluster: &Cluster, name: &str) -> Result<(), (u16, String)> {
    let uid = Uid::of(&cluster.get::<objects::Pod>("default", name).unwrap()).unwrap();
    let write = Write::Evict { pod: ObjectRef::new("default", name), uid };
    let refused = |status: machinery::Status| {
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        (status.code, causes.into_iter().map(|cause| cause.message).collect())
    };
    cluster.writer.write("kubernetes-admin", write).await.map(|_| ()).map_err(refused)
}

/// A cluster with a Deployment of three pods beside all that can't be.
async fn with_mistakes() -> Cluster {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    cluster.deploy("web", 3, json!({})).await;
    class(&cluster, "gone", "disks.example.org", "Immediate", "Delete").await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let metric = json!({"type": "Resource", "resource":
        {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    let cron = json!({"schedule": "* * * * *", "suspend": true, "jobTemplate": {"spec": job(json!({}))}});
    let mut never = job(json!({"disk": "none"}));
    never["activeDeadlineSeconds"] = json!(60);
    for object in [
        object("CronJob", "batch/v1", "impossible", cron),
        object("PersistentVolumeClaim", "v1", "no-class", claim(json!("none"))),
        object("PersistentVolumeClaim", "v1", "no-provisioner", claim(json!("gone"))),
        object("PersistentVolumeClaim", "v1", "no-volume", claim(json!(""))),
        object("Job", "batch/v1", "never", never),
        object(
            "HorizontalPodAutoscaler",
            "autoscaling/v2",
            "blind",
            json!({"scaleTargetRef": target, "maxReplicas": 5, "metrics": [metric]}),
        ),
        object(
            "PodDisruptionBudget",
            "policy/v1",
            "tight",
            json!({"minAvailable": 3, "selector": {"matchLabels": {"app": "web"}}}),
        ),
    ] {
        cluster.create(object).await;
    }
    // The API takes no such time zone; a restored backup may have one.
    let mut cron = serde_json::to_value(cluster.get::<CronJob>("default", "impossible").unwrap()).unwrap();
    cron["kind"] = "CronJob".into();
    cron["apiVersion"] = "batch/v1".into();
    cron["spec"]["suspend"] = false.into();
    cron["spec"]["timeZone"] = "Mars/Olympus".into();
    cluster.store_raw("batch", "cronjobs", "impossible", cron).await;
    cluster.settle().await;
    cluster
}

#[tokio::test]
async fn each_says_why() {
    let mut cluster = with_mistakes().await;
    assert!(cluster.told("impossible", "UnknownTimeZone")[0].contains("Mars/Olympus"));

    for (name, reason, message) in [
        ("no-class", "ProvisioningFailed", "storageclass.storage.k8s.io \"none\" not found"),
        (
            "no-provisioner",
            "ExternalProvisioning",
            "Waiting for a volume to be created either by the external provisioner 'disks.example.org' or manually \
             by the system administrator. If volume creation is delayed, please verify that the provisioner is \
             running and correctly registered.",
        ),
        (
            "no-volume",
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        ),
    ] {
        assert_eq!(cluster.told(name, reason).last().unwrap(), message);
        let claim: PersistentVolumeClaim = cluster.get("default", name).unwrap();
        assert_eq!(claim.status.unwrap().phase.as_deref(), Some("Pending"), "{name}");
    }

    let blind: HorizontalPodAutoscaler = cluster.get("default", "blind").unwrap();
    assert_eq!(
        conditions(json!(blind.status.unwrap().conditions)),
        ["AbleToScale True SucceededGetScale", "ScalingActive False FailedGetResourceMetric"]
    );
    assert!(!cluster.told("blind", "FailedGetResourceMetric").is_empty());

    let tight: PodDisruptionBudget = cluster.get("default", "tight").unwrap();
    assert_eq!(
        conditions(json!(tight.status.unwrap().conditions)),
        ["DisruptionAllowed False InsufficientPods"]
    );
    let web = |pod: &std::sync::Arc<Pod>| pod.metadata.name.clone().filter(|name| name.starts_with("web-"));
    let pod = cluster.list::<Pod>().iter().find_map(web).unwrap();
    let needs = "The disruption budget tight needs 3 healthy pods and has 3 currently".to_owned();
    assert_eq!(evict(&cluster, &pod).await, Err((429, needs)));

    let waits = cluster.list::<Pod>().into_iter().find(|pod| {
        pod.metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.get("job-name").is_some_and(|n| n == "never"))
    });
    assert_eq!(waits.unwrap().spec.as_ref().unwrap().node_name, None);
    let never: Job = cluster.get("default", "never").unwrap();
    let status = never.status.unwrap();
    assert_eq!((status.active, status.ready, status.conditions), (Some(1), Some(0), None));
    cluster.pass(Duration::from_secs(61));
    cluster.settle().await;
    let never: Job = cluster.get("default", "never").unwrap();
    assert_eq!(
        conditions(json!(never.status.unwrap().conditions)),
        ["FailureTarget True DeadlineExceeded", "Failed True DeadlineExceeded"]
    );
    let told = cluster.told("never", "DeadlineExceeded");
    assert_eq!(told, ["Job was active longer than specified deadline"]);
}

#[tokio::test]
async fn the_others_go_on() {
    let mut cluster = with_mistakes().await;
    let schedule = json!({"schedule": "* * * * *", "jobTemplate": {"spec": job(json!({}))}});
    let volume = json!({"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "v"}, "spec":
        {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "own",
            "hostPath": {"path": "/tmp/v"}}});
    for object in [
        object("CronJob", "batch/v1", "clock", schedule),
        object("Job", "batch/v1", "work", job(json!({}))),
        object("PersistentVolumeClaim", "v1", "data", claim(json!("own"))),
        volume,
    ] {
        cluster.create(object).await;
    }
    let scale = json!({"spec": {"replicas": 4}});
    cluster.patch("apps/v1", "Deployment", "default", "web", "", scale).await.unwrap();
    cluster.settle().await;
    cluster.pass(Duration::from_secs(61));
    cluster.settle().await;

    let web: Deployment = cluster.get("default", "web").unwrap();
    assert_eq!(web.status.unwrap().ready_replicas, Some(4));
    let data: PersistentVolumeClaim = cluster.get("default", "data").unwrap();
    assert_eq!(data.status.unwrap().phase.as_deref(), Some("Bound"));
    let jobs = cluster.list::<Job>();
    assert!(jobs.iter().any(|job| job.metadata.name.as_ref().unwrap().starts_with("clock-")));
    let work: Job = cluster.get("default", "work").unwrap();
    assert_eq!(work.status.unwrap().ready, Some(1));
    // With one more pod than the budget needs, one may go.
    let tight: PodDisruptionBudget = cluster.get("default", "tight").unwrap();
    assert_eq!(tight.status.unwrap().disruptions_allowed, Some(1));
}
