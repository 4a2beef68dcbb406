//! Autoscalers follow what metrics ask for, and say why they don't.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::{Cluster, wire};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use serde_json::{Value, json};

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// A Deployment whose pods ask for a processor and have run for long.
async fn deploy(replicas: u32) -> Cluster {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    cluster.deploy("web", replicas, json!({})).await;
    let container = json!({"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "100m"}},
        "ports": [{"name": "http", "containerPort": 8080}]});
    let template = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    cluster.patch("apps/v1", "Deployment", "default", "web", "", template).await.unwrap();
    cluster.settle().await;
    cluster.pass(Duration::from_secs(3600));
    cluster.settle().await;
    cluster
}

async fn autoscale(cluster: &mut Cluster, name: &str, spec: Value) {
    let mut all = json!({"maxReplicas": 10,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    cluster
        .create(json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
            "metadata": {"name": name, "namespace": "default"}, "spec": all}))
        .await;
    cluster.settle().await;
}

fn utilization(percent: u32) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
}

/// All pods run since an hour, and use this much.
async fn use_up(cluster: &mut Cluster, cpu: &str) {
    let (now, mut items) = (wire(cluster.now.wall), Vec::new());
    let started = wire(cluster.now.wall - Duration::from_secs(3600));
    for pod in cluster.list::<Pod>() {
        let name = pod.metadata.name.clone().unwrap();
        let status = json!({"status": {"startTime": started, "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": started}]}});
        cluster.patch("v1", "Pod", "default", &name, "status", status).await.unwrap();
        items.push(json!({"metadata": {"name": name}, "timestamp": now, "window": "15s",
            "containers": [{"name": "web", "usage": {"cpu": cpu, "memory": "1Mi"}}]}));
    }
    cluster.answers.insert(PODS.to_owned(), json!({"items": items}));
}

/// Time goes on until the metrics are looked at again.
async fn look(cluster: &mut Cluster) {
    cluster.pass(Duration::from_secs(16));
    cluster.settle().await;
}

fn replicas(cluster: &Cluster) -> i32 {
    cluster.get::<Deployment>("default", "web").unwrap().spec.unwrap().replicas.unwrap()
}

/// Type, status and reason of each condition.
fn conditions(cluster: &Cluster, name: &str) -> Vec<String> {
    let autoscaler: HorizontalPodAutoscaler = cluster.get("default", name).unwrap();
    let conditions = autoscaler.status.unwrap().conditions.unwrap();
    conditions.into_iter().map(|c| format!("{} {} {}", c.type_, c.status, c.reason.unwrap())).collect()
}

#[tokio::test]
async fn there_are_as_many_pods_as_their_use_asks_for() {
    let mut cluster = deploy(2).await;
    use_up(&mut cluster, "90000001n").await;
    autoscale(&mut cluster, "hpa", json!({"metrics": utilization(50)})).await;
    assert_eq!(replicas(&cluster), 4);
    let told = "New size: 4; reason: cpu resource utilization (percentage of request) above target";
    assert_eq!(cluster.told("hpa", "SuccessfulRescale"), [told]);
    assert_eq!(
        conditions(&cluster, "hpa"),
        [
            "AbleToScale True SucceededRescale",
            "ScalingActive True ValidMetricFound",
            "ScalingLimited False DesiredWithinRange"
        ]
    );
    let status = cluster.get::<HorizontalPodAutoscaler>("default", "hpa").unwrap().status.unwrap();
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(2), 4));
    assert!(status.last_scale_time.is_some());
    let metric = serde_json::to_value(&status.current_metrics.unwrap()[0]).unwrap();
    assert_eq!(metric["resource"]["current"], json!({"averageUtilization": 91, "averageValue": "91m"}));

    // What is within a tenth is borne, and less is followed once five minutes have agreed.
    use_up(&mut cluster, "54m").await;
    look(&mut cluster).await;
    assert_eq!(replicas(&cluster), 4);
    assert_eq!(conditions(&cluster, "hpa")[0], "AbleToScale True ReadyForNewScale");
    use_up(&mut cluster, "1m").await;
    look(&mut cluster).await;
    assert_eq!(replicas(&cluster), 4);
    assert_eq!(conditions(&cluster, "hpa")[0], "AbleToScale True ScaleDownStabilized");
    for _ in 0..20 {
        look(&mut cluster).await;
    }
    assert_eq!(replicas(&cluster), 1);
    assert_eq!(cluster.told("hpa", "SuccessfulRescale")[1], "New size: 1; reason: All metrics below target");
}

#[tokio::test]
async fn a_replication_controller_follows_what_its_pods_use() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let container = json!({"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "100m"}}});
    let template = json!({"metadata": {"labels": {"app": "rc"}}, "spec": {"containers": [container]}});
    cluster
        .create(json!({"kind": "ReplicationController", "apiVersion": "v1",
            "metadata": {"name": "rc", "namespace": "default"},
            "spec": {"replicas": 2, "selector": {"app": "rc"}, "template": template}}))
        .await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(3600));
    use_up(&mut cluster, "100m").await;
    let target = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "rc"});
    autoscale(&mut cluster, "hpa", json!({"scaleTargetRef": target, "metrics": utilization(50)})).await;
    let rc: ReplicationController = cluster.get("default", "rc").unwrap();
    assert_eq!(rc.spec.unwrap().replicas, Some(4));
}

#[tokio::test]
async fn bounds_come_before_metrics() {
    let mut cluster = deploy(5).await;
    autoscale(&mut cluster, "hpa", json!({"maxReplicas": 3, "metrics": utilization(50)})).await;
    assert_eq!(replicas(&cluster), 3, "nobody knows what they use");
    let told = "New size: 3; reason: Current number of replicas above Spec.MaxReplicas";
    assert_eq!(cluster.told("hpa", "SuccessfulRescale"), [told]);
    let off = json!({"spec": {"replicas": 0}});
    cluster.patch("apps/v1", "Deployment", "default", "web", "", off).await.unwrap();
    cluster.settle().await;
    look(&mut cluster).await;
    assert_eq!(replicas(&cluster), 0, "it is switched off by hand");
    assert!(conditions(&cluster, "hpa").contains(&"ScalingActive False ScalingDisabled".to_owned()));
}

#[tokio::test]
async fn why_it_cannot_scale_is_said() {
    let mut cluster = deploy(2).await;
    autoscale(&mut cluster, "hpa", json!({"metrics": utilization(50)})).await;
    let why = "failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from \
               resource metrics API: the server could not find the requested resource";
    assert_eq!(cluster.told("hpa", "FailedGetResourceMetric").last().unwrap(), why);
    let all = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {why}"
    );
    assert_eq!(cluster.told("hpa", "FailedComputeMetricsReplicas").last().unwrap(), &all);
    assert_eq!(
        conditions(&cluster, "hpa"),
        ["AbleToScale True SucceededGetScale", "ScalingActive False FailedGetResourceMetric"]
    );
    assert_eq!(replicas(&cluster), 2);
    // Others go on, and so does this one once there are metrics.
    use_up(&mut cluster, "100m").await;
    look(&mut cluster).await;
    assert_eq!(replicas(&cluster), 4);

    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"});
    autoscale(&mut cluster, "lost", json!({"scaleTargetRef": target, "metrics": utilization(50)})).await;
    assert_eq!(cluster.told("lost", "FailedGetScale").last().unwrap(), "deployments.apps \"none\" not found");
    assert_eq!(conditions(&cluster, "lost"), ["AbleToScale False FailedGetScale"]);

    autoscale(&mut cluster, "rival", json!({"metrics": utilization(50)})).await;
    let why = "pods by selector app=web are controlled by multiple HPAs: [{default hpa} {default rival}]";
    assert_eq!(cluster.told("rival", "AmbiguousSelector").last().unwrap(), why);
    assert!(conditions(&cluster, "rival").contains(&"ScalingActive False AmbiguousSelector".to_owned()));
}

#[tokio::test]
async fn other_metrics_are_asked_for_where_they_are_served() {
    let mut cluster = deploy(2).await;
    use_up(&mut cluster, "1m").await;
    let external = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue";
    cluster.answers.insert(external.into(), json!({"items": [{"metricName": "queue", "value": "31"}]}));
    let custom = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests";
    let pods: Vec<Value> = cluster
        .list::<Pod>()
        .iter()
        .map(|pod| json!({"describedObject": {"name": pod.metadata.name}, "value": "300m"}))
        .collect();
    cluster.answers.insert(custom.into(), json!({"items": pods}));
    let object = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/services/web/depth";
    let value = json!({"items": [{"describedObject": {"name": "web"}, "value": "20"}]});
    cluster.answers.insert(object.into(), value);
    let average = |value: &str| json!({"type": "AverageValue", "averageValue": value});
    let metrics = json!([
        {"type": "External", "external": {"metric": {"name": "queue"}, "target": average("10")}},
        {"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": average("100m")}},
        {"type": "Object", "object": {"metric": {"name": "depth"}, "target": {"type": "Value", "value": "10"},
            "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"}}},
    ]);
    autoscale(&mut cluster, "hpa", json!({"metrics": metrics})).await;
    assert_eq!(replicas(&cluster), 4, "doubled at most, of 6 that the pods' metric asks for");
    assert_eq!(
        cluster.told("hpa", "SuccessfulRescale"),
        ["New size: 4; reason: pods metric requests above target"]
    );
    assert!(conditions(&cluster, "hpa").contains(&"ScalingLimited True ScaleUpLimit".to_owned()));
    let status = cluster.get::<HorizontalPodAutoscaler>("default", "hpa").unwrap().status.unwrap();
    let current = serde_json::to_value(status.current_metrics.unwrap()).unwrap();
    assert_eq!(current[0]["external"]["current"]["averageValue"], "15500m");
    assert_eq!(current[2]["object"]["current"]["value"], "20");
    // One that says nothing keeps the number from sinking.
    cluster.answers.remove(custom);
    cluster.answers.insert(external.into(), json!({"items": [{"metricName": "queue", "value": "1"}]}));
    cluster.answers.insert(object.into(), json!({"items": []}));
    for _ in 0..25 {
        look(&mut cluster).await;
    }
    assert_eq!(replicas(&cluster), 4);
    assert!(conditions(&cluster, "hpa").contains(&"ScalingActive False FailedGetPodsMetric".to_owned()));
}
