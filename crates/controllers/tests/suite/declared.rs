//! What the simulated cluster is to run, and whether it does.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::agents::{has_ended, is_ready};
use crate::cluster::Cluster;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "c:1"}]}})
}

/// A change of a workload's image.
pub fn image(number: usize) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "c", "image": format!("c:{number}")}]}}})
}

pub fn deployment(namespace: &str, name: &str, replicas: usize) -> Value {
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)},
    })
}

/// A Job whose pods may each end with an error.
pub fn job(number: usize, is_indexed: bool) -> Value {
    let mut template = template("job");
    template["spec"]["restartPolicy"] = "Never".into();
    json!({
        "kind": "Job", "apiVersion": "batch/v1",
        "metadata": {"name": format!("job-{number}"), "namespace": "default"},
        "spec": {
            "completions": 3, "parallelism": 2, "template": template, "backoffLimit": 1000,
            "completionMode": if is_indexed { "Indexed" } else { "NonIndexed" },
        },
    })
}

/// All that is to be in the namespace `default`.
pub fn objects() -> Vec<Value> {
    let object = |api_version: &str, kind: &str, name: &str, spec: Value| json!({"kind": kind, "apiVersion": api_version, "metadata": {"name": name, "namespace": "default"}, "spec": spec});
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
        "resources": {"requests": {"storage": "1Gi"}},
    }});
    let tick = json!({"template": {"spec": {
        "restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "c:1"}],
    }}});
    vec![
        deployment("default", "web", 3),
        object("v1", "Service", "web", json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})),
        object(
            "policy/v1",
            "PodDisruptionBudget",
            "web",
            json!({"minAvailable": 2, "selector": selector("web")}),
        ),
        object(
            "apps/v1",
            "StatefulSet",
            "db",
            json!({
                "replicas": 3, "serviceName": "db", "selector": selector("db"), "template": template("db"),
                "volumeClaimTemplates": [claim],
            }),
        ),
        object(
            "apps/v1",
            "DaemonSet",
            "agent",
            json!({"selector": selector("agent"), "template": template("agent")}),
        ),
        object(
            "batch/v1",
            "CronJob",
            "tick",
            json!({
                "schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": tick},
            }),
        ),
    ]
}

fn is_owned_by(metadata: &ObjectMeta, kind: &str, name: &str) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && owner.kind == kind && owner.name == name)
}

fn image_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers[0].image.as_deref()
}

/// What isn't as the objects declare.
pub fn faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            faults.push(what);
        }
    };
    let pods = cluster.list::<Pod>();
    for pod in &pods {
        let name = pod.metadata.name.as_deref().unwrap();
        must(pod.metadata.deletion_timestamp.is_none(), format!("{name} is still being deleted"));
        must(is_ready(pod) || has_ended(pod), format!("{name} doesn't run"));
    }
    let of = |kind: &str, name: &str| -> Vec<Arc<Pod>> {
        pods.iter().filter(|pod| is_owned_by(&pod.metadata, kind, name)).cloned().collect()
    };

    for deployment in cluster.list::<Deployment>() {
        let (name, spec) = (deployment.metadata.name.as_deref().unwrap(), deployment.spec.as_ref().unwrap());
        let own = |set: &Arc<ReplicaSet>| {
            is_owned_by(&set.metadata, "Deployment", name)
                && set.metadata.namespace == deployment.metadata.namespace
        };
        let sets: Vec<_> = cluster.list::<ReplicaSet>().into_iter().filter(own).collect();
        // What has ended stays until there are very many of it, as upstream.
        let all: Vec<_> = sets
            .iter()
            .flat_map(|set| of("ReplicaSet", set.metadata.name.as_deref().unwrap()))
            .filter(|pod| !has_ended(pod))
            .collect();
        let wanted = spec.template.spec.as_ref().unwrap().containers[0].image.as_deref();
        must(
            all.len() == 3 - usize::from(name == "till") && all.iter().all(|pod| image_of(pod) == wanted),
            format!(
                "{name} has {:?}, of {wanted:?}",
                all.iter().map(|pod| (name_of(pod), image_of(pod))).collect::<Vec<_>>()
            ),
        );
        let status = deployment.status.clone().unwrap_or_default();
        must(
            status.available_replicas == spec.replicas
                && status.updated_replicas == spec.replicas
                && status.observed_generation == deployment.metadata.generation,
            format!("{name} says {status:?}"),
        );
    }

    let db: StatefulSet = cluster.get("default", "db").unwrap();
    let wanted = db.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].image.clone();
    let own: BTreeMap<_, _> = of("StatefulSet", "db")
        .iter()
        .map(|pod| (pod.metadata.name.clone().unwrap(), image_of(pod).map(str::to_owned)))
        .collect();
    must(own == [0, 1, 2].map(|n| (format!("db-{n}"), wanted.clone())).into(), format!("db has {own:?}"));
    let status = db.status.unwrap_or_default();
    must(
        status.ready_replicas == Some(3) && status.updated_replicas == Some(3),
        format!("db says {status:?}"),
    );
    let claims = cluster.list::<PersistentVolumeClaim>();
    let bound: BTreeSet<_> =
        claims.iter().filter_map(|claim| claim.spec.as_ref()?.volume_name.clone()).collect();
    let volumes: BTreeSet<_> = cluster
        .list::<PersistentVolume>()
        .iter()
        .map(|volume| volume.metadata.name.clone().unwrap())
        .collect();
    must(bound.len() == 3 && bound == volumes, format!("the claims have {bound:?} of {volumes:?}"));

    let hosts: BTreeSet<_> =
        cluster.list::<Node>().iter().map(|node| node.metadata.name.clone().unwrap()).collect();
    let agents = of("DaemonSet", "agent");
    let served: BTreeSet<_> =
        agents.iter().filter_map(|pod| pod.spec.as_ref().unwrap().node_name.clone()).collect();
    must(
        agents.len() == hosts.len() && served == hosts,
        format!("agents are on {served:?}: {}", agents.len()),
    );
    let daemons: DaemonSet = cluster.get("default", "agent").unwrap();
    let status = daemons.status.unwrap_or_default();
    must(
        status.number_ready == 3 && status.updated_number_scheduled == Some(3),
        format!("agent says {status:?}"),
    );

    for job in cluster.list::<Job>() {
        let name = job.metadata.name.as_deref().unwrap();
        let status = job.status.clone().unwrap_or_default();
        let completions = job.spec.as_ref().unwrap().completions;
        // More where a host fell silent: its pod was replaced, and ended well all the same when the host was back. Upstream counts
        // both, and says that a program may be started twice.
        must(
            status.succeeded >= completions && status.active.is_none() && status.completion_time.is_some(),
            format!("{name} says {status:?}"),
        );
    }

    let serving: BTreeSet<_> =
        of_app(&pods, "web").filter(|pod| is_ready(pod) && !has_ended(pod)).map(name_of).collect();
    let mut endpoints = BTreeSet::new();
    for slice in cluster.list::<EndpointSlice>() {
        let labels = slice.metadata.labels.clone().unwrap_or_default();
        if labels.get("kubernetes.io/service-name").map(String::as_str) == Some("web") {
            let own = slice.endpoints.iter().flatten();
            endpoints.extend(own.map(|endpoint| endpoint.target_ref.as_ref().unwrap().name.clone().unwrap()));
        }
    }
    must(endpoints == serving, format!("the Service leads to {endpoints:?}, and {serving:?} serve"));
    let budget: PodDisruptionBudget = cluster.get("default", "web").unwrap();
    let status = budget.status.unwrap_or_default();
    // As upstream it counts a pod that was given up for lost while it still said that it was ready.
    let healthy = of_app(&pods, "web").filter(|pod| is_ready(pod)).count();
    must(
        status.current_healthy.map(usize::try_from) == Some(Ok(healthy)),
        format!("of {healthy} pods the budget says {status:?}"),
    );
    let shop = cluster.get::<Namespace>("", "shop");
    must(
        shop.is_none_or(|shop| shop.metadata.deletion_timestamp.is_none()),
        "the namespace shop is still being deleted".to_owned(),
    );
    faults
}

fn of_app<'a>(pods: &'a [Arc<Pod>], app: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
    let is = move |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("app")).is_some_and(|own| own == app)
            && pod.metadata.namespace.as_deref() == Some("default")
    };
    pods.iter().filter(is)
}

fn name_of(pod: &Arc<Pod>) -> String {
    pod.metadata.name.clone().unwrap()
}
