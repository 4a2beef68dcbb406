//! The hosts of a cluster in memory, and what their agents do.

use crate::cluster::{Cluster, wire};
use controllers::Key;
use k8s_openapi::api::core::v1::{Node, Pod};
use objects::Delete;
use serde_json::{Value, json};

impl Cluster {
    /// A host joins, and is ready.
    pub async fn join(&self, host: &str) {
        let address = format!("10.73.0.{}", self.list::<Node>().len() + 1);
        let metadata = json!({
            "name": host, "labels": {objects::HOSTNAME: host},
            "annotations": {objects::HEARTBEATS: "2381", objects::VOLUMES: "/data/volumes"},
        });
        self.create(json!({"kind": "Node", "apiVersion": "v1", "metadata": metadata, "spec": {}})).await;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "conditions": [self.condition("Ready", "True")],
        }});
        self.patch("v1", "Node", "", host, "status", status).await.unwrap();
        // Not every test has a controller that would take it away.
        let ready = json!({"spec": {"taints": null}});
        self.patch("v1", "Node", "", host, "", ready).await.unwrap();
    }

    pub fn condition(&self, kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "lastTransitionTime": wire(self.now.wall)})
    }

    /// A host falls silent.
    pub fn silence(&mut self, host: &str) {
        self.silence.insert(host.to_owned(), self.now.instant);
        Key::heard(host, |key, _| self.due.extend([key]));
    }

    /// A host is heard again, and its agent says so.
    pub async fn hear(&mut self, host: &str) {
        self.silence.remove(host);
        Key::heard(host, |key, _| self.due.extend([key]));
        let status = json!({"status": {"conditions": [self.condition("Ready", "True")]}});
        self.patch("v1", "Node", "", host, "status", status).await.unwrap();
    }

    /// The hosts that are heard start what was placed and end what was deleted; at most `most` pods.
    pub async fn run_pods(&mut self, most: usize) -> bool {
        let mut done = 0;
        for pod in self.list::<Pod>() {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
            if done == most || self.silence.contains_key(&node) {
                continue;
            }
            let (namespace, name) =
                (pod.metadata.namespace.clone().unwrap(), pod.metadata.name.clone().unwrap());
            let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
            let ended = ["Succeeded", "Failed"].contains(&phase.as_str());
            if pod.metadata.deletion_timestamp.is_some() {
                // What something else still holds has ended, and its host has done its part.
                if pod.metadata.finalizers.is_some() {
                    if ended {
                        continue;
                    }
                    self.end(&namespace, &name, 143).await;
                }
                let now = Delete { grace_seconds: Some(0), ..Delete::default() };
                self.delete("v1", "Pod", &namespace, &name, now).await;
            } else if !ended && phase != "Running" && self.serving {
                self.start(&namespace, &name, true).await;
            } else {
                continue;
            }
            done += 1;
        }
        done > 0
    }

    pub async fn start(&mut self, namespace: &str, name: &str, ready: bool) {
        self.addresses += 1;
        let ip = format!("10.244.{}.{}", self.addresses / 250, self.addresses % 250 + 1);
        let status = json!({"status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [self.condition("Ready", if ready { "True" } else { "False" })],
        }});
        self.patch("v1", "Pod", namespace, name, "status", status).await.unwrap();
    }

    /// A pod's container ends with a code, and with it the pod.
    pub async fn end(&mut self, namespace: &str, name: &str, code: i32) {
        let terminated = json!({"exitCode": code, "finishedAt": wire(self.now.wall)});
        let status = json!({"status": {
            "phase": if code == 0 { "Succeeded" } else { "Failed" },
            "conditions": [self.condition("Ready", "False")],
            "containerStatuses": [{"name": "c", "image": "c", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": terminated}}],
        }});
        self.patch("v1", "Pod", namespace, name, "status", status).await.unwrap();
    }
}
