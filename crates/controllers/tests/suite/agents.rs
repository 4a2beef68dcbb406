//! What agents do, and what really runs on their hosts: a silent host runs on what it ran.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;
use objects::{Delete, Meta, Reader};
use serde_json::json;

/// The agents of all hosts. Nothing that a host runs ends because its Node or its pods are gone from the API: its agent ends it
/// once it is heard again.
#[derive(Default)]
pub struct Agents {
    /// What runs on each host: `namespace/name` and uid of pods.
    running: BTreeMap<String, BTreeSet<(String, String)>>,
    /// The code with which pods end that are there to end; without one they run on.
    pub exit: Option<i32>,
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub fn has_ended(pod: &Pod) -> bool {
    ["Succeeded", "Failed"].contains(&phase(pod))
}

impl Agents {
    /// A host that is heard starts what is placed on it, ends what is deleted, and says so. True if it did anything.
    pub async fn act(&mut self, cluster: &mut Cluster, host: &str) -> bool {
        let own = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(host));
        let running = self.running.entry(host.to_owned()).or_default();
        let mut there = BTreeSet::new();
        let mut acted = false;
        for pod in cluster.list::<Pod>().into_iter().filter(|pod| own(pod)) {
            let namespace = pod.metadata.namespace.as_deref().unwrap();
            let name = pod.metadata.name.as_deref().unwrap();
            let process = (format!("{namespace}/{name}"), pod.metadata.uid.clone().unwrap());
            if pod.metadata.deletion_timestamp.is_some() {
                running.remove(&process);
                // What something else still holds has ended, and its host has done its part.
                if pod.metadata.finalizers.is_some() {
                    if has_ended(&pod) {
                        continue;
                    }
                    cluster.end(namespace, name, 143).await;
                }
                let now = Delete { grace_seconds: Some(0), ..Delete::default() };
                cluster.delete("v1", "Pod", namespace, name, now).await;
                acted = true;
                continue;
            }
            if has_ended(&pod) {
                continue;
            }
            there.insert(process.clone());
            let ends = pod.spec.as_ref().unwrap().restart_policy.as_deref() != Some("Always");
            if running.insert(process) || !is_ready(&pod) {
                cluster.start(namespace, name, true).await;
            } else if let Some(code) = self.exit.filter(|_| ends) {
                cluster.end(namespace, name, code).await;
            } else {
                continue;
            }
            acted = true;
        }
        let before = running.len();
        running.retain(|process| there.contains(process));
        acted |= running.len() != before;
        acted | release_volumes(cluster, host).await
    }

    /// A host loses its power: nothing runs there.
    pub fn power_off(&mut self, host: &str) {
        self.running.remove(host);
    }

    /// How many processes each pod has, by `namespace/name`.
    pub fn processes(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (name, _) in self.running.values().flatten() {
            *counts.entry(name.as_str()).or_default() += 1;
        }
        counts
    }
}

/// Lets volumes go whose folders are on this host and not needed any more.
async fn release_volumes(cluster: &Cluster, host: &str) -> bool {
    let mut acted = false;
    for volume in Reader::<objects::PersistentVolume>::default().list(&cluster.state()) {
        let is_here = volume.spec.as_ref().and_then(objects::host_of) == Some(host);
        if is_here && objects::is_local_path(&volume.metadata) && objects::awaits_folder(&volume.metadata) {
            let free = json!({"metadata": {"finalizers": null}});
            let name = volume.metadata.name().to_owned();
            cluster.patch("v1", "PersistentVolume", "", &name, "", free).await.unwrap();
            acted = true;
        }
    }
    acted
}
