//! A cluster for tests: an API server of a few kinds in this process (`api`), hosts that are only names, and faults that last as long as the test
//! says (`site`).

use crate::fake_processes::FakeProcesses;
use crate::{Happening, Held};
use client::Kubeconfig;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

mod api;
mod site;

pub(crate) use site::FakeSite;

/// How a cut goes.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// How long nobody answers on the virtual address.
    pub(crate) silent: Duration,
    /// How long after that the new pod is there but not Ready.
    pub(crate) starting: Duration,
    /// Whether the surviving hosts can be asked themselves.
    pub(crate) own_addresses: bool,
    /// Whether replicas become Ready at all.
    pub(crate) healthy: bool,
    /// How long what ran on a host goes on after the cut.
    pub(crate) lives_on: Duration,
    /// How many hosts say after a cut that they have the virtual address.
    pub(crate) holders: usize,
    /// Whether a fault that passes by costs a pod.
    pub(crate) hasty: bool,
    /// Whether n3 is outside of the control plane.
    pub(crate) has_worker: bool,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    log: Vec<(String, &'static str, Value)>,
    serial: usize,
}

pub(crate) struct FakeCluster {
    pub(crate) kubeconfig: Kubeconfig,
    own: String,
    script: Script,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<usize>,
    /// Counts the changes between answering (even) and silence (odd) of the virtual address.
    silence: watch::Sender<u64>,
    leader: Arc<Mutex<String>>,
    inside: Mutex<Option<mpsc::UnboundedSender<Happening>>>,
    held: Mutex<Option<mpsc::UnboundedSender<Held>>>,
    /// What was done to hosts, in order.
    pub(crate) done: Mutex<Vec<String>>,
    pub(crate) processes: FakeProcesses,
    turn: std::sync::atomic::AtomicUsize,
}

const PODS: &str = "/pods";
const NODES: &str = "/api/v1/nodes";

fn collection_of(path: &str) -> Option<&str> {
    Some(path.rsplit_once('/')?.0)
}

pub(crate) fn condition(ready: bool) -> Value {
    json!([{"type": "Ready", "status": if ready { "True" } else { "Unknown" }}])
}

impl FakeCluster {
    pub(crate) async fn start(script: Script) -> Arc<Self> {
        let vip = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
        let cluster = Arc::new(FakeCluster {
            kubeconfig: Kubeconfig::anonymous(url(&vip)),
            own: url(&own),
            script,
            state: Arc::default(),
            changed: watch::channel(0).0,
            silence: watch::channel(0).0,
            leader: Arc::new(Mutex::new("n1".into())),
            inside: Mutex::new(None),
            held: Mutex::new(None),
            done: Mutex::default(),
            processes: FakeProcesses::default(),
            turn: Default::default(),
        });
        for host in ["n1", "n2", "n3"] {
            cluster.set_node(host, true);
        }
        for (listener, is_vip) in [(vip, true), (own, false)] {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let cluster = cluster.clone();
                    tokio::spawn(async move {
                        let service = service_fn(move |request| cluster.clone().serve(request, is_vip));
                        let http = hyper::server::conn::http1::Builder::new();
                        drop(http.serve_connection(TokioIo::new(tcp), service).await);
                    });
                }
            });
        }
        cluster
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let revision = state.log.len() + 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let kind = if state.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        state.objects.insert(path.to_owned(), object.clone());
        state.log.push((collection_of(path).unwrap().to_owned(), kind, object.clone()));
        self.changed.send_replace(revision);
        object
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        let object = state.objects.remove(path)?;
        state.log.push((collection_of(path).unwrap().to_owned(), "DELETED", object.clone()));
        self.changed.send_replace(state.log.len());
        Some(object)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    fn set_node(&self, host: &str, ready: bool) {
        let node =
            json!({"metadata": {"name": host, "uid": host}, "status": {"conditions": condition(ready)}});
        self.put(&format!("{NODES}/{host}"), node);
    }

    /// The objects of the workload's collections whose paths end so.
    fn all(&self, suffix: &str) -> Vec<(String, Value)> {
        self.found(|path| {
            !path.contains("-load-")
                && !path.contains("/pods/db-")
                && collection_of(path).is_some_and(|c| c.ends_with(suffix))
        })
    }

    /// What is there, by its path.
    pub(crate) fn found(&self, of: impl Fn(&str) -> bool) -> Vec<(String, Value)> {
        let state = self.state.lock().unwrap();
        state.objects.iter().filter(|(path, _)| of(path)).map(|(p, o)| (p.clone(), o.clone())).collect()
    }

    /// The hosts that are on.
    pub(crate) fn on(&self) -> Vec<String> {
        let is_on = |host: &&&str| {
            self.get(&format!("{NODES}/{host}"))
                .is_some_and(|node| node["status"]["conditions"] == condition(true))
        };
        ["n1", "n2", "n3"].iter().filter(is_on).map(|host| (*host).to_owned()).collect()
    }

    /// Makes the Deployment's pods as many as it asks for, all of its template.
    fn roll(&self, deployment: &str) {
        let wanted = self.get(deployment).unwrap();
        let mark = &wanted["spec"]["template"]["metadata"]["annotations"];
        let (old, mut new): (Vec<_>, Vec<_>) =
            self.all(PODS).into_iter().partition(|(_, pod)| pod["metadata"]["annotations"] != *mark);
        let replicas = wanted["spec"]["replicas"].as_u64().unwrap() as usize;
        let excess = new.split_off(replicas.min(new.len()));
        for host in self.on().iter().cycle().take(replicas - new.len()) {
            self.set_pod(deployment, &self.next_name(), host, true);
        }
        old.into_iter().chain(excess).for_each(|(path, _)| drop(self.remove(&path)));
        self.tally(deployment);
    }

    /// A pod of the Deployment, on a host.
    fn set_pod(&self, deployment: &str, name: &str, host: &str, ready: bool) {
        let namespace = deployment.split('/').nth(5).unwrap();
        let template = self.get(deployment).unwrap()["spec"]["template"]["metadata"]["annotations"].clone();
        let pod = json!({
            "metadata": {"name": name, "namespace": namespace, "uid": name, "creationTimestamp": name,
                "annotations": template},
            "spec": {"nodeName": host,
                "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"conditions": condition(ready), "containerStatuses": [{"state": {"running": {}}}]}});
        self.put(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), pod);
        self.tally(deployment);
    }

    pub(crate) fn next_name(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.serial += 1;
        format!("web-{:03}", state.serial)
    }

    /// The Deployment's status and the Service's endpoints, by its pods.
    fn tally(&self, path: &str) {
        let pods = self.all(PODS);
        let ready = pods.iter().filter(|(_, p)| p["status"]["conditions"] == condition(true));
        let endpoints: Vec<Value> = ready
            .map(|(_, p)| {
                json!({"addresses": [p["metadata"]["name"]], "nodeName": p["spec"]["nodeName"],
                       "conditions": {"ready": true}})
            })
            .collect();
        let mut deployment = self.get(path).unwrap();
        deployment["status"] = json!({"readyReplicas": endpoints.len()});
        let namespace = deployment["metadata"]["namespace"].as_str().unwrap().to_owned();
        self.put(path, deployment);
        let slice = json!({"metadata": {"name": "web-1", "namespace": namespace, "uid": "slice",
            "labels": {"kubernetes.io/service-name": "web"}}, "endpoints": endpoints});
        self.put(&format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/web-1"), slice);
    }

    /// What the controllers say of a preloaded owner.
    fn count(&self, path: &str, mut owner: Value) {
        let replicas = owner["spec"]["replicas"].clone();
        if replicas.is_number() {
            owner["status"] = json!({"replicas": replicas, "updatedReplicas": replicas});
            self.put(path, owner);
        }
    }
}
