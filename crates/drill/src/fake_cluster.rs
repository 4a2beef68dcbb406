//! A cluster for tests: an API server of a few kinds in this process, hosts that are only names, and power cuts
//! that last as long as the test says.

use crate::fake_objects::{app, discovery, is_of, merge};
use crate::fake_processes::{FakeProcesses, signed};
use crate::{BoxFuture, Fault, Happening, Held, Memory, Site};
use bytes::Bytes;
use client::Kubeconfig;
use futures::StreamExt;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

type Body = BoxBody<Bytes, Infallible>;

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

    fn did(&self, what: &str, host: &str) {
        self.done.lock().unwrap().push(format!("{what} {host}"));
    }

    /// Says who has the virtual address, and takes it from a host that leads until somebody else does.
    fn silence(self: &Arc<Self>, host: &str) -> bool {
        if let Some(held) = self.held.lock().unwrap().as_ref() {
            drop(held.send(Held { at: now(), by: self.script.holders }));
        }
        let leads = *self.leader.lock().unwrap() == host;
        if leads {
            self.silence.send_modify(|n| *n += 1);
        }
        leads
    }

    fn take_over(&self, host: &str) -> &'static str {
        let next = if host == "n1" { "n2" } else { "n3" };
        self.silence.send_modify(|n| *n += 1);
        self.tell(next, "election-won", &[("term", "2")]);
        *self.leader.lock().unwrap() = next.to_owned();
        next
    }

    /// A fault that passes by: who led leads no more, and nothing else comes of it but what the script says.
    fn disturb(self: &Arc<Self>, host: &str) {
        let (cluster, host) = (self.clone(), host.to_owned());
        let leads = self.silence(&host);
        tokio::spawn(async move {
            tokio::time::sleep(cluster.script.silent).await;
            if leads {
                cluster.take_over(&host);
            }
            if cluster.script.hasty {
                let on_it = |(_, pod): &(String, Value)| pod["spec"]["nodeName"] == host.as_str();
                let (path, _) = cluster.all(PODS).into_iter().rfind(on_it).unwrap();
                cluster.remove(&path);
                let (deployment, _) = cluster.all("/deployments").remove(0);
                cluster.set_pod(&deployment, &cluster.next_name(), &host, true);
            }
        });
    }

    /// A host that stays away: another one leads, and its pods are replaced.
    fn lose(self: &Arc<Self>, host: &str) {
        let (cluster, host) = (self.clone(), host.to_owned());
        let lost = cluster.lose_stateful(&host, cluster.script.lives_on);
        let leads = self.silence(&host);
        tokio::spawn(async move {
            tokio::time::sleep(cluster.script.silent).await;
            let next = if host == "n1" { "n2" } else { "n3" };
            let ms = cluster.script.silent.as_millis().to_string();
            cluster.tell(next, "host-silent", &[("subject", &host), ("last_heard_ms_ago", &ms)]);
            if leads {
                cluster.take_over(&host);
            }
            cluster.set_node(&host, false);
            let (deployment, _) = cluster.all("/deployments").remove(0);
            for (path, pod) in cluster.all(PODS) {
                if pod["spec"]["nodeName"] == host.as_str() {
                    cluster.remove(&path);
                }
            }
            cluster.replace_stateful(&host, lost);
            let (name, on) = (cluster.next_name(), cluster.on());
            cluster.set_pod(&deployment, &name, on.last().unwrap(), false);
            tokio::time::sleep(cluster.script.starting).await;
            cluster.set_pod(&deployment, &name, on.last().unwrap(), true);
        });
    }

    fn tell(&self, host: &str, what: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let happening = Happening { at: now(), host: host.into(), what: what.into(), fields };
        if let Some(inside) = self.inside.lock().unwrap().as_ref() {
            drop(inside.send(happening));
        }
    }

    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        is_vip: bool,
    ) -> Result<Response<Body>, Infallible> {
        let silence = self.silence.subscribe();
        let began = *silence.borrow();
        if is_vip && began % 2 == 1 {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if query.contains("watch=true") {
            return Ok(Response::new(self.watch(&path, &query, is_vip.then_some((silence, began)))));
        }
        let (code, value) = match self.proxied(&path) {
            Some(Some(text)) => return Ok(Response::new(Full::new(Bytes::from(text)).boxed())),
            Some(None) => (503, json!({})),
            None => self.answer(&parts.method, &path, app(&query), &body),
        };
        let response =
            Response::builder().status(code).body(Full::new(Bytes::from(value.to_string())).boxed());
        Ok(response.unwrap())
    }

    /// What a pod answers through the API, if one does; nothing where the path leads to none.
    fn proxied(&self, path: &str) -> Option<Option<String>> {
        let path = path.strip_suffix("/proxy/")?;
        let Some((_, rest)) = path.split_once("/pods/") else {
            // The service, turn and turn about.
            let ready =
                self.all(PODS).into_iter().filter(|(_, p)| p["status"]["conditions"] == condition(true));
            let ready: Vec<Value> = ready.map(|(_, pod)| pod).collect();
            let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Some(ready.get(turn % ready.len().max(1)).map(|pod| self.words_of(pod)));
        };
        let name = rest.split(':').next()?;
        let (_, pod) = self.found(|path| path.ends_with(&format!("/pods/{name}"))).pop()?;
        if name.starts_with("db-") {
            return Some(self.answer_of(&pod));
        }
        Some((pod["status"]["conditions"] == condition(true)).then(|| self.words_of(&pod)))
    }

    fn words_of(&self, pod: &Value) -> String {
        let name = pod["metadata"]["name"].as_str().unwrap();
        signed(name, name, pod["spec"]["nodeName"].as_str().unwrap())
    }

    fn answer(&self, method: &Method, path: &str, app: Option<&str>, body: &[u8]) -> (u16, Value) {
        let missing = || (404, json!({"kind": "Status", "reason": "NotFound", "message": path}));
        if path == "/api" {
            let kinds = [("Pod", "pods"), ("Service", "services")];
            return (200, discovery("", &kinds));
        }
        if path == "/apis" {
            return (
                200,
                discovery("apps", &[("Deployment", "deployments"), ("StatefulSet", "statefulsets")]),
            );
        }
        match *method {
            Method::POST => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                let made = self.put(&path, object);
                if path.starts_with("/api/v1/namespaces/") && path.split('/').count() == 5 {
                    self.put(
                        &format!("{path}/serviceaccounts/default"),
                        json!({"metadata": {"name": "default"}}),
                    );
                }
                if path.contains("-load-") {
                    self.count(&path, made.clone());
                } else if path.contains("/statefulsets/") {
                    self.make_stateful(&path);
                } else if path.contains("/deployments/") {
                    for host in ["n1", "n2", "n3"] {
                        self.set_pod(&path, &self.next_name(), host, self.script.healthy);
                    }
                }
                (201, made)
            }
            Method::PATCH => {
                let Some(mut object) = self.get(path) else { return missing() };
                merge(&mut object, &serde_json::from_slice(body).unwrap());
                let made = self.put(path, object);
                self.roll(path);
                (200, made)
            }
            Method::DELETE => {
                let Some(gone) = self.remove(path) else { return missing() };
                if let (Some((deployment, _)), true) =
                    (self.all("/deployments").first(), path.contains("/pods/"))
                {
                    let taken: Vec<Value> =
                        self.all(PODS).into_iter().map(|(_, p)| p["spec"]["nodeName"].clone()).collect();
                    let on = self.on();
                    let free = on.iter().find(|h| !taken.contains(&json!(h))).or(on.last()).unwrap();
                    self.set_pod(deployment, &self.next_name(), free, true);
                }
                (200, gone)
            }
            _ => match self.get(path) {
                Some(object) => (200, object),
                None if path.ends_with('s') || path.ends_with("endpointslices") => {
                    let state = self.state.lock().unwrap();
                    let of = |(p, o): &(&String, &Value)| collection_of(p) == Some(path) && is_of(o, app);
                    let items: Vec<&Value> = state.objects.iter().filter(of).map(|(_, o)| o).collect();
                    let revision = state.log.len().to_string();
                    (200, json!({"metadata": {"resourceVersion": revision}, "items": items}))
                }
                None => missing(),
            },
        }
    }

    /// Events from a revision on. Through the virtual address they end, unsaid, with the next silence.
    fn watch(&self, path: &str, query: &str, until: Option<(watch::Receiver<u64>, u64)>) -> Body {
        let from = query.split('&').find_map(|p| p.strip_prefix("resourceVersion=")).unwrap();
        let (state, path, app) = (self.state.clone(), path.to_owned(), app(query).map(str::to_owned));
        let begin = (from.parse::<usize>().unwrap(), self.changed.subscribe());
        let events = stream::unfold(begin, move |(mut at, mut changed)| {
            let (state, path, app, until) = (state.clone(), path.clone(), app.clone(), until.clone());
            async move {
                loop {
                    changed.borrow_and_update();
                    if until.as_ref().is_some_and(|(silence, began)| *silence.borrow() != *began) {
                        std::future::pending::<()>().await;
                    }
                    let next = {
                        let state = state.lock().unwrap();
                        let is_asked = |c: &String, object| *c == path && is_of(object, app.as_deref());
                        let found =
                            state.log.iter().enumerate().skip(at).find(|(_, (c, _, o))| is_asked(c, o));
                        found.map(|(i, (_, kind, object))| (i, json!({"type": kind, "object": object})))
                    };
                    match next {
                        Some((i, event)) => {
                            at = i + 1;
                            let line = Bytes::from(format!("{event}\n"));
                            return Some((Ok::<_, Infallible>(Frame::data(line)), (at, changed)));
                        }
                        None => changed.changed().await.ok()?,
                    }
                }
            }
        });
        BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(events.boxed()))))
    }
}

/// A stream behind a lock: bodies have to be `Sync`.
struct SyncStream<S>(Mutex<S>);

impl<S: stream::Stream + Unpin> stream::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.get_mut().0.get_mut().unwrap().poll_next_unpin(context)
    }
}

#[allow(clippy::disallowed_methods, reason = "a site says when it did something")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The cluster as a site.
pub(crate) struct FakeSite(pub(crate) Arc<FakeCluster>);

impl Site for FakeSite {
    fn hosts(&self) -> Vec<String> {
        ["n1", "n2", "n3"].map(str::to_owned).into()
    }

    fn workers(&self) -> Vec<String> {
        self.0.script.has_worker.then(|| "n3".to_owned()).into_iter().collect()
    }

    fn net(&self) -> &str {
        "loopback"
    }

    fn api_address(&self, _: &str) -> Option<String> {
        self.0.script.own_addresses.then(|| self.0.own.clone())
    }

    fn can(&self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Command => Err("there is no command".into()),
            _ => Ok(()),
        }
    }

    fn inject<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        let at = now();
        self.0.did(fault.name(), host);
        match fault.takes_host_away() {
            true => self.0.lose(host),
            false => self.0.disturb(host),
        }
        Box::pin(async move { Ok(at) })
    }

    fn reaches_pods(&self) -> bool {
        true
    }

    fn holders(&self) -> Result<mpsc::UnboundedReceiver<Held>, String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.held.lock().unwrap() = Some(sender);
        Ok(receiver)
    }

    fn memory<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Memory>> {
        Box::pin(async { Some(Memory { resident: 30_000_000, peak: 40_000_000 }) })
    }

    fn heal<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        let at = now();
        self.0.did("healed", host);
        if fault.takes_host_away() {
            self.0.set_node(host, true);
        }
        if fault.ends_program() {
            self.0.tell(host, "store-caught-up", &[]);
        }
        Box::pin(async move { Ok(at) })
    }

    fn leader<'a>(&'a self) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        let leader = self.0.leader.lock().unwrap().clone();
        Box::pin(async move { Ok(Some(leader)) })
    }

    fn timeline(&self) -> mpsc::UnboundedReceiver<Happening> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.inside.lock().unwrap() = Some(sender);
        receiver
    }
}
