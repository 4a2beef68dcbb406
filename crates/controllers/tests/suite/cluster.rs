//! A cluster in memory: the real write path over a store without replication, the controllers and the
//! scheduler, and hosts that start and stop pods at once. Every step is taken by the test, in an order of
//! its choosing, at a time of its choosing.
#![allow(dead_code)]

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use controllers::{Action, Answers, Ended, Key, Moment, Note, Notes, Now, Plan, Silence, View};
use futures::future::{BoxFuture, ready};
use jiff::Timestamp;
use machinery::{Object, Status};
use objects::{
    AddressPool, Asker, Delete, Kind, ObjectRef, Occurrence, Pool, Question, Reader, TypedRef, Uid, Write,
    Writer,
};
use scheduler::Waiting;
use serde_json::{Value, json};
use server::{Backends, Edge, Options, Server, SystemEdge};
use store::{Memory, State, Store, Txn};

/// What stands for the authority's certificate.
pub const CERTIFICATE: &str = "a certificate";
const ADMIN: &str = "kubernetes-admin";
/// More steps than any test needs to come to rest.
const RESTLESS: usize = 5000;

struct NoBackends;

impl Backends for NoBackends {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<tokio::net::TcpStream, io::Error>> {
        Box::pin(ready(Err(io::ErrorKind::NotConnected.into())))
    }

    fn is_silent(&self, _: &str) -> bool {
        false
    }

    fn allows(&self, _: std::net::IpAddr) -> bool {
        false
    }
}

/// Who knows nothing that isn't in the state.
pub struct Nobody;

impl Asker for Nobody {
    fn ask<'a>(&'a self, _: &'a str, _: &'a Question) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(ready(Err(Status::unavailable("nobody knows".to_owned()))))
    }
}

pub struct Cluster {
    pub store: Arc<Memory>,
    pub writer: Arc<dyn Writer>,
    pub silence: Silence,
    /// When the leases of nodes that send no heartbeats were last renewed.
    pub leases: Silence,
    /// Whose leases are over.
    pub ended: Ended,
    /// The addresses that Services of type LoadBalancer get, by the next member that takes over.
    pub pool: AddressPool,
    /// What is answered to questions, by their paths.
    pub answers: BTreeMap<String, Value>,
    answered: BTreeMap<Key, Answers>,
    notes: BTreeMap<Key, Notes>,
    pub now: Now,
    view: View,
    waiting: Waiting,
    pub due: BTreeSet<Key>,
    later: BTreeMap<Key, Instant>,
    pub addresses: u32,
    /// What was reported, as Events will show it.
    pub told: Vec<Occurrence>,
    /// Whether hosts make pods ready by themselves.
    pub serving: bool,
    /// How long each key is not looked at again, whatever changes. The steps here don't wait.
    pub pauses: BTreeMap<Key, Duration>,
    /// Whether controllers and the scheduler still see what was there before.
    pub lags: bool,
    /// What was read last of each kind: a history of thousands of steps decodes what changes, and no more.
    readers: RefCell<HashMap<TypeId, Box<dyn Any>>>,
}

/// The authority that signs what is asked for.
pub fn signer() -> Arc<pki::Authority> {
    static SIGNER: OnceLock<Arc<pki::Authority>> = OnceLock::new();
    // A test stands for the driver: the authority is valid from now on.
    #[allow(clippy::disallowed_methods)]
    let now = std::time::SystemTime::now();
    SIGNER.get_or_init(|| Arc::new(pki::Authority::create("requests", now).unwrap())).clone()
}

pub fn writer_over(store: Arc<Memory>, edge: Arc<dyn Edge>) -> Arc<dyn Writer> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let options = Options {
        store,
        services: "10.96.0.0/16".parse().unwrap(),
        backends: Arc::new(NoBackends),
        kubelet_client_tls: Arc::new(tls),
        front_proxy: None,
        authority: None,
        limits: server::Limits::default(),
        tokens: server::Tokens::new(pki::TokenKey::create().unwrap(), ""),
        metrics: Vec::new(),
        audit: None,
        edge,
    };
    Server::new(options).writer()
}

/// Makes a key due at a time, or earlier if it was to be due earlier, as the controllers' own queue does.
fn earlier(later: &mut BTreeMap<Key, Instant>, key: Key, at: Instant) {
    let known = later.entry(key).or_insert(at);
    *known = at.min(*known);
}

impl Cluster {
    /// One whose names come by chance, at the time of this machine.
    pub async fn new(hosts: &[&str]) -> Self {
        Self::with(hosts, Arc::new(SystemEdge)).await
    }

    // The start of the cluster's own time, which the tests move on.
    #[allow(clippy::disallowed_methods)]
    pub async fn with(hosts: &[&str], edge: Arc<dyn Edge>) -> Self {
        let store = Arc::new(Memory::default());
        let now = Now { wall: edge.now(), instant: Instant::now() };
        let pods = Pool::default();
        let cluster = Cluster {
            writer: writer_over(store.clone(), edge),
            silence: Silence::new(),
            leases: Silence::new(),
            ended: Ended::new(),
            pool: AddressPool::default(),
            answers: BTreeMap::new(),
            answered: BTreeMap::new(),
            notes: BTreeMap::new(),
            now,
            view: View::load(store.snapshot(), &pods).publishing(CERTIFICATE.into()).signing(Some(signer())),
            waiting: Waiting::load(store.snapshot(), &pods),
            due: BTreeSet::new(),
            later: BTreeMap::new(),
            addresses: 0,
            told: Vec::new(),
            serving: true,
            pauses: BTreeMap::new(),
            lags: false,
            readers: RefCell::default(),
            store,
        };
        cluster
            .create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "default"}}))
            .await;
        cluster
            .create(json!({
                "kind": "ServiceAccount", "apiVersion": "v1",
                "metadata": {"name": "default", "namespace": "default"},
            }))
            .await;
        for host in hosts {
            cluster.join(host).await;
        }
        cluster
    }

    pub async fn create(&self, object: Value) -> Object {
        let object = Object::from_value(object).unwrap();
        self.writer.write(ADMIN, Write::Create(object)).await.unwrap()
    }

    pub async fn patch(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        subresource: &'static str,
        patch: Value,
    ) -> Result<Object, Status> {
        let subject = subject(api_version, kind, namespace, name);
        self.writer.write(ADMIN, Write::Merge { subject, subresource, patch }).await
    }

    pub async fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str, options: Delete) {
        let subject = subject(api_version, kind, namespace, name);
        self.writer.write(ADMIN, Write::Delete { subject, options }).await.unwrap();
    }

    /// Stores an object of the namespace `default` past the API, as a backup that is restored does.
    pub async fn store_raw(&self, group: &str, plural: &str, name: &str, mut object: Value) {
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let key = objects::key(group, plural, "default", name);
        self.store.txn(Txn::put(key, object.to_string())).await.unwrap();
    }

    pub fn state(&self) -> Arc<State> {
        self.store.snapshot()
    }

    pub fn list<T: Kind + 'static>(&self) -> Vec<Arc<T>> {
        let mut readers = self.readers.borrow_mut();
        let reader =
            readers.entry(TypeId::of::<T>()).or_insert_with(|| Box::<Reader<T>>::default() as Box<dyn Any>);
        reader.downcast_mut::<Reader<T>>().unwrap().list(&self.state())
    }

    pub fn get<T: Kind>(&self, namespace: &str, name: &str) -> Option<T> {
        Reader::<T>::get(&self.state(), namespace, name)
    }

    /// Time goes on.
    pub fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time;
    }

    /// A node is looked at.
    pub fn look_at(&mut self, node: &str) {
        Key::heard(node, |key, _| self.due.extend([key]));
    }

    fn follow(&mut self) {
        let (due, later, now) = (&mut self.due, &mut self.later, self.now.instant);
        if !self.lags {
            let followed = self.view.advance(self.store.snapshot(), |view, change| {
                Key::touched(view, change, |key, wait| {
                    if wait.is_zero() {
                        due.insert(key);
                    } else {
                        earlier(later, key, now + wait);
                    }
                });
            });
            assert!(followed, "the history is complete");
        }
        due.extend(later.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()));
        later.retain(|_, at| *at > now);
    }

    /// What the controllers could do next.
    pub fn due(&mut self) -> Vec<Key> {
        self.follow();
        self.due.iter().cloned().collect()
    }

    /// A key is looked at, whether something changed or not.
    pub fn look_again(&mut self, key: &Key) {
        self.due.insert(key.clone());
    }

    /// Reconciles one key. True if it wrote something.
    pub async fn reconcile(&mut self, key: Key) -> bool {
        let plan = self.decide(&key);
        let wrote = !plan.actions.is_empty();
        let mut otherwise = Vec::new();
        for action in plan.actions {
            otherwise.extend(self.carry_out(&key, action).await);
        }
        if let Some(write) = otherwise.into_iter().next() {
            self.writer.write("system:kube-controller-manager", write).await.unwrap();
        }
        wrote
    }

    /// What is to be done about a key.
    pub fn decide(&mut self, key: &Key) -> Plan {
        self.follow();
        self.due.remove(key);
        let (answers, notes) = (self.answered.remove(key), self.notes.get(key));
        let (now, silence, leases, ended) = (self.now, &self.silence, &self.leases, &self.ended);
        let moment = Moment { now, silence, leases, ended, answers: answers.as_ref(), notes };
        let mut plan = key.reconcile(&self.view, &moment);
        self.notes.extend(plan.notes.take().map(|notes| (key.clone(), notes)));
        if !plan.ask.is_empty() {
            let answer = |question: Question| {
                let answer = self.answers.get(&question.path).cloned();
                (
                    question,
                    answer.ok_or_else(|| "the server could not find the requested resource".to_owned()),
                )
            };
            self.answered.insert(key.clone(), plan.ask.drain(..).map(answer).collect());
            self.due.insert(key.clone());
        }
        if let Some(wait) = plan.again_in {
            earlier(&mut self.later, key.clone(), self.now.instant + wait);
        }
        self.pauses.insert(key.clone(), plan.pause);
        self.told.append(&mut plan.told);
        plan
    }

    /// Carries out one thing of a plan. What to write instead, if it was refused.
    pub async fn carry_out(&mut self, key: &Key, action: Action) -> Option<Write> {
        match self.writer.write("system:kube-controller-manager", action.write).await {
            Ok(_) => self.told.extend(action.done.into_iter().filter_map(|note| match note {
                Note::Event(occurrence) => Some(occurrence),
                Note::Timeline { .. } => None,
            })),
            // A write refused for what it is is tried again later, and may be reported in a status.
            Err(status)
                if [403, 422].contains(&status.code)
                    && (action.refused.is_some() || action.otherwise.is_some()) =>
            {
                self.told.extend(action.refused);
                earlier(&mut self.later, key.clone(), self.now.instant + Duration::from_secs(1));
                return action.otherwise.map(|write| controllers::with_reason(write, &status.message));
            }
            // Its namespace was deleted after the controller looked.
            Err(status)
                if status.code == 403 && status.message.ends_with("because it is being terminated") =>
            {
                earlier(&mut self.later, key.clone(), self.now.instant + Duration::from_secs(1));
            }
            Err(status) => {
                assert!([404, 409].contains(&status.code), "{key:?}: {status}");
                self.due.insert(key.clone());
            }
        }
        None
    }

    /// Places all pods that wait. True if one was placed.
    pub async fn place(&mut self) -> bool {
        if !self.lags {
            self.waiting.advance(self.store.snapshot());
        }
        let mut placed = false;
        for decision in self.waiting.decide(&self.silence, usize::MAX, self.now.instant) {
            let Ok(node) = decision.place else { continue };
            let uid = Uid::of(&*decision.pod).unwrap();
            if let Some(writes) = decision.before {
                // Once its claims have volumes, it is decided again.
                for write in writes {
                    placed |= self.writer.write("system:kube-scheduler", write).await.is_ok();
                }
                self.waiting.forget(&uid);
                continue;
            }
            let write = Write::Bind { pod: ObjectRef::of(&*decision.pod), uid: uid.clone(), node };
            match self.writer.write("system:kube-scheduler", write).await {
                Ok(_) => placed = true,
                Err(_) => self.waiting.forget(&uid),
            }
        }
        placed
    }

    /// Another member leads: it knows what is stored, and nothing else.
    pub fn take_over(&mut self) {
        let view = View::load(self.store.snapshot(), &Pool::default());
        self.view = view.publishing(CERTIFICATE.into()).signing(Some(signer())).lending(self.pool.clone());
        self.waiting = Waiting::load(self.store.snapshot(), &Pool::default());
        self.lags = false;
        self.due.clear();
        self.later.clear();
        self.notes.clear();
        self.answered.clear();
        let (due, later, now) = (&mut self.due, &mut self.later, self.now.instant);
        Key::all(&self.view, |key, wait| match wait.is_zero() {
            true => drop(due.insert(key)),
            false => earlier(later, key, now + wait),
        });
    }

    /// What was reported of objects of this name for this reason.
    pub fn told(&self, name: &str, reason: &str) -> Vec<String> {
        let about =
            |told: &&Occurrence| told.regarding.name.as_deref() == Some(name) && told.reason == reason;
        self.told.iter().filter(about).map(|told| told.message.clone()).collect()
    }

    /// Lets everybody work until nothing is left to do at this time.
    pub async fn settle(&mut self) {
        for _ in 0..RESTLESS {
            let mut busy = false;
            if let Some(key) = self.due().into_iter().next() {
                self.reconcile(key).await;
                busy = true;
            }
            busy |= self.place().await;
            busy |= self.run_pods(usize::MAX).await;
            if !busy {
                return;
            }
        }
        panic!("the cluster never comes to rest: still due are {:?}", self.due());
    }

    /// A Deployment of a web server, and a Service for it.
    pub async fn deploy(&self, name: &str, replicas: u32, strategy: Value) {
        self.create(json!({
            "kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "strategy": strategy,
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{
                        "name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}],
                    }]},
                },
            },
        }))
        .await;
        self.create(json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
        }))
        .await;
    }

    pub async fn set_image(&self, name: &str, image: &str) {
        let spec = json!({"containers": [{
            "name": "web", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
        }]});
        let patch = json!({"spec": {"template": {"spec": spec}}});
        self.patch("apps/v1", "Deployment", "default", name, "", patch).await.unwrap();
    }
}

pub fn wire(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn subject(api_version: &str, kind: &str, namespace: &str, name: &str) -> TypedRef {
    TypedRef {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}
