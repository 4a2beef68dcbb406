//! A host on a store in memory, and what tests do with it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod authority;
pub mod cgroups;
pub mod containerd;
pub mod image;
pub mod network;
pub mod port;
mod store;
mod writer;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::network::PodLinks;
use ::store::{KeyRange, Memory, Store};
use futures::future::{BoxFuture, FutureExt};
use ipnet::IpNet;
use membership::{Lease, LeasePage};
use node::{Agent, Eviction, Foreign, HostLease, HostPort, Options, PodAddresses, ShutdownGroup};
use serde_json::{Value, json};
use tokio::sync::watch;

pub use authority::Authority;
pub use store::AgentStore;
pub use writer::{TestWriter, merge};

/// How long a condition may take: generous, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Counts the addresses that are up. None comes up while the last is true.
#[derive(Default)]
pub struct Addresses(pub Mutex<Vec<IpAddr>>, pub Network, pub watch::Sender<bool>);

/// What pods have for a network.
#[derive(Default)]
pub enum Network {
    /// The host's.
    #[default]
    Shared,
    /// One of their own.
    Own(PodLinks),
}

impl PodAddresses for Addresses {
    fn own_networks(&self) -> Result<(), String> {
        match self.1 {
            Network::Shared => Err("this test has none".into()),
            Network::Own(_) => Ok(()),
        }
    }

    fn check_host_ip(&self, _: IpAddr) -> Result<(), String> {
        Ok(())
    }

    fn connect(
        &self,
        address: IpAddr,
        namespace: OwnedFd,
        _: Vec<HostPort>,
    ) -> BoxFuture<'_, std::io::Result<()>> {
        async move {
            match &self.1 {
                Network::Shared => Err(std::io::Error::other("asked for what there isn't")),
                Network::Own(links) => links.connect(address, namespace).await.map_err(std::io::Error::other),
            }
        }
        .boxed()
    }

    fn add(&self, address: IpAddr) -> BoxFuture<'_, std::io::Result<()>> {
        async move {
            let _ = self.2.subscribe().wait_for(|is_held| !is_held).await;
            self.0.lock().unwrap().push(address);
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, address: IpAddr) -> BoxFuture<'_, std::io::Result<()>> {
        self.0.lock().unwrap().retain(|known| *known != address);
        async move {
            match &self.1 {
                Network::Shared => Ok(()),
                Network::Own(links) => links.remove(address).await.map_err(std::io::Error::other),
            }
        }
        .boxed()
    }
}

/// This number of members, of which n1 is one.
pub fn members(count: usize) -> Arc<BTreeSet<String>> {
    Arc::new((1..=count).map(|n| format!("n{n}")).collect())
}

/// A host with its agent.
pub struct TestHost {
    pub writer: Arc<TestWriter>,
    pub addresses: Arc<Addresses>,
    pub authority: Authority,
    pub folder: tempfile::TempDir,
    /// The second number of its pods' addresses: hosts of one test process don't share them.
    pub net: u8,
    /// Its pods' addresses, if they are others than that.
    pub pods: Option<IpNet>,
    /// Where its pods' cgroups are made, if anywhere.
    pub cgroups: Vec<PathBuf>,
    /// The runtime of others that it has, if any.
    pub foreign: Option<Foreign>,
    /// When its pods are evicted: by nothing that other programs of this machine use, unless a test says so.
    pub eviction: Eviction,
    /// In which order its pods end as it shuts down.
    pub shutdown: Vec<ShutdownGroup>,
    /// The folder with the manifests of its static pods, if it has one.
    pub manifests: Option<PathBuf>,
    /// Its lease, if it has one.
    pub lease: Option<(watch::Sender<Lease>, LeasePage)>,
    /// Whether the majority of its cluster is away.
    pub away: watch::Sender<bool>,
    /// The members of its cluster.
    pub members: watch::Sender<Arc<BTreeSet<String>>>,
    pub agent: Option<Agent>,
}

static NETS: AtomicU8 = AtomicU8::new(100);

impl TestHost {
    /// A host whose agent is not started yet.
    pub fn off() -> Self {
        let store = Arc::new(Memory::default());
        TestHost {
            writer: Arc::new(TestWriter {
                store,
                broken: Mutex::new(false),
                merges: Mutex::default(),
                made: AtomicU8::new(0),
                tokens: AtomicU8::new(0),
            }),
            addresses: Arc::default(),
            authority: Authority::default(),
            folder: tempfile::tempdir().unwrap(),
            net: NETS.fetch_add(1, Ordering::Relaxed),
            pods: None,
            cgroups: Vec::new(),
            foreign: None,
            eviction: Eviction {
                thresholds: Vec::new(),
                every: Duration::from_millis(100),
                ..Eviction::default()
            },
            shutdown: Vec::new(),
            manifests: None,
            lease: None,
            away: watch::Sender::new(false),
            members: watch::Sender::new(members(3)),
            agent: None,
        }
    }

    pub fn start() -> Self {
        let mut host = TestHost::off();
        host.switch_on();
        host
    }

    pub fn switch_on(&mut self) {
        let options = Options {
            name: "n1".into(),
            address: Ipv4Addr::LOCALHOST.into(),
            pod_cidr: self.pods.unwrap_or_else(|| format!("127.{}.0.0/16", self.net).parse().unwrap()),
            heartbeats: 2381,
            data_dir: self.folder.path().join("agent"),
            program: env!("CARGO_BIN_EXE_pod-shim").into(),
            programs: self.folder.path().join("programs"),
            images: Ok(Arc::new(image::TestImages(self.folder.path().join("images")))),
            foreign: self.foreign.clone(),
            cgroups: self.cgroups.clone(),
            eviction: self.eviction.clone(),
            shutdown: self.shutdown.clone(),
            static_pods: self.manifests.clone(),
            store: Arc::new(AgentStore { store: self.writer.store.clone(), away: self.away.clone() }),
            writer: self.writer.clone(),
            addresses: self.addresses.clone(),
            cluster_dns: vec![Ipv4Addr::new(127, 96, 0, 10).into()],
            service_host: Ipv4Addr::new(127, 96, 0, 1).into(),
            service_port: 443,
            tls: self.authority.server(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            lease: self.lease.as_ref().map(|(state, page)| HostLease {
                state: state.subscribe(),
                page: page.clone(),
                members: self.members.subscribe(),
                grades: watch::channel(vec![objects::Grade::Lease]).1,
            }),
        };
        self.agent = Some(Agent::start(options).unwrap());
    }

    pub async fn shut_down(&mut self) {
        self.agent.take().unwrap().shutdown().await;
    }

    /// The shims of this host's pods, by their process ids.
    pub fn shims(&self) -> Vec<i32> {
        let folder = self.folder.path().canonicalize().unwrap();
        let is_shim = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0).skip(1);
            words.next() == Some(node::SHIM.as_bytes())
                && words.next().is_some_and(|of| of.starts_with(folder.as_os_str().as_encoded_bytes()))
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_shim).collect()
    }

    /// Kills all shims at once.
    pub fn kill_shims(&self) {
        for shim in self.shims() {
            // SAFETY: a system call on numbers; the process is a shim of this test's own host.
            unsafe { libc::kill(shim, libc::SIGKILL) };
        }
    }

    /// The log of a pod's container, without times: by name and attempt.
    pub fn log(&self, pod: &str, attempt: u32) -> String {
        let folder = format!("agent/logs/default_{pod}_uid-of-{pod}/main");
        let path = self.folder.path().join(folder).join(format!("{attempt}.log"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("{line}\n")).collect()
    }

    /// The folder that pods start in, by uid.
    pub fn work(&self, uid: &str) -> std::path::PathBuf {
        self.pod_folder(uid).join("work")
    }

    /// Makes a pod of runtime class `host` with one container and answers its uid.
    pub fn pod(&self, name: &str, container: Value, spec: Value) -> String {
        self.pod_of_class("BestEffort", name, container, spec)
    }

    /// As [`TestHost::pod`], of a class of service.
    pub fn pod_of_class(&self, class: &str, name: &str, container: Value, spec: Value) -> String {
        let uid = format!("uid-of-{name}");
        let mut one = json!({"name": "main"});
        merge(&mut one, &container);
        let mut pod = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "uid": uid, "generation": 1,
                "labels": {"app": "x"}},
            "spec": {"nodeName": "n1", "runtimeClassName": "host", "containers": [one]},
            "status": {"phase": "Pending", "qosClass": class},
        });
        merge(&mut pod["spec"], &spec);
        self.writer.put(&pod);
        uid
    }

    /// The Events that were written: reason and message.
    pub fn events(&self) -> Vec<(String, String)> {
        let state = self.writer.store.snapshot();
        let all = state.range(&KeyRange::prefix(objects::kind_prefix("", "events")));
        all.map(|kv| {
            let event: Value = serde_json::from_slice(&kv.value.bytes()).unwrap();
            let of = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            (of("reason"), of("message"))
        })
        .collect()
    }

    /// Waits until an Event of that reason was written with a message of which `holds` says so.
    pub async fn until_event(&self, reason: &str, holds: impl Fn(&str) -> bool) {
        for _ in 0..2000 {
            if self.events().iter().any(|(known, message)| known == reason && holds(message)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no such {reason}: {:#?}", self.events());
    }

    /// Changes a stored pod.
    pub fn change(&self, name: &str, change: impl Fn(&mut Value)) {
        let mut pod = self.writer.get("pods", "default", name).unwrap();
        change(&mut pod);
        self.writer.put(&pod);
    }

    /// Asks for a pod's end, as `kubectl delete` does.
    pub fn delete(&self, name: &str, grace: u32) {
        let mut pod = self.writer.get("pods", "default", name).unwrap();
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        self.writer.put(&pod);
    }

    /// Waits until the Node says that it is short of something.
    pub async fn until_pressure(&self, kind: &str) {
        let mut states = self.writer.store.states();
        let wait = async {
            loop {
                states.borrow_and_update();
                let node = self.writer.get("nodes", "", "n1").unwrap_or_default();
                if condition(&node, kind).is_some_and(|c| c["status"] == "True") {
                    return;
                }
                states.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {kind}"));
    }

    /// Waits until `holds` says so of the stored pod.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut states = self.writer.store.states();
        let wait = async {
            loop {
                states.borrow_and_update();
                if let Some(pod) = self.writer.get("pods", "default", name)
                    && holds(&pod)
                {
                    return pod;
                }
                states.changed().await.unwrap();
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("{what}: {:#?}", self.writer.get("pods", "default", name)))
    }

    pub async fn until_gone(&self, name: &str) {
        let mut states = self.writer.store.states();
        let wait = async {
            while self.writer.get("pods", "default", name).is_some() {
                states.changed().await.unwrap();
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("not gone: {:#?}", self.writer.get("pods", "default", name)));
    }

    /// The pod's own folder, by uid.
    pub fn pod_folder(&self, uid: &str) -> PathBuf {
        self.folder.path().join("agent/pods").join(uid)
    }

    /// Waits until nothing is left of a pod's folder.
    pub async fn until_put_away(&self, uid: &str) {
        let wait = async {
            while self.pod_folder(uid).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{uid} keeps its folder"));
    }

    /// Waits until a file holds a text, and answers it.
    pub async fn until_file(&self, path: &Path, holds: impl Fn(&str) -> bool) -> String {
        let wait = async {
            loop {
                if let Ok(text) = std::fs::read_to_string(path)
                    && holds(&text)
                {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| panic!("{}: {:?}", path.display(), std::fs::read_to_string(path)))
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        for shim in self.shims() {
            // SAFETY: a system call on numbers; the process is a shim of this test's own host.
            unsafe { libc::kill(shim, libc::SIGTERM) };
            while is_alive(&shim.to_string()) {
                std::thread::yield_now();
            }
        }
    }
}

pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

pub fn main_status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// Whether a process lives (and is no zombie).
pub fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// Whether this machine gives mount namespaces to processes, as the agent would find out; says so if it doesn't.
pub fn can_mount() -> bool {
    let unshare = |args: &[&str]| {
        let status = std::process::Command::new("unshare").args(args).arg("true").status();
        status.is_ok_and(|status| status.success())
    };
    let can = unshare(&["-m", "-u"]) || unshare(&["-r", "-m", "-u"]);
    if !can {
        testing::skip("mounts", "this machine gives no mount namespaces");
    }
    can
}

/// Whether the agent of this test runs as root, and gives any user and right.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t"))
}
