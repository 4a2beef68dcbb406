//! Clusters of members in this process, and waiting for conditions.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use pki::{Authority, ClientAuth, HostNames, Identity};
use store::{Config, Embedded, KeyRange, Store, Txn};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
static CLUSTERS: AtomicU8 = AtomicU8::new(1);
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub configs: Vec<Config>,
    pub members: Vec<Option<Arc<Embedded>>>,
    #[allow(dead_code)] // Held: it is removed with the cluster.
    pub folder: tempfile::TempDir,
}

pub fn host_identity(authority: &Authority, name: &str) -> Identity {
    let host = HostNames {
        name: name.to_owned(),
        address: LOCALHOST,
        virtual_address: LOCALHOST,
        first_service_address: LOCALHOST,
    };
    authority.host_identity(&host, SystemTime::now()).unwrap()
}

pub fn configs(folder: &Path, members: usize) -> Vec<Config> {
    configs_by(&Authority::create("test", SystemTime::now()).unwrap(), folder, members)
}

pub fn configs_by(authority: &Authority, folder: &Path, members: usize) -> Vec<Config> {
    // An address of its own, so that nobody takes a port while its member is down.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, high | 0x40, low, CLUSTERS.fetch_add(1, Ordering::Relaxed));
    let port = |n: u16| SocketAddr::new(ip.into(), 2380 + n);
    let peers: BTreeMap<String, SocketAddr> =
        (1..=members as u16).map(|n| (format!("n{n}"), port(n))).collect();
    let trust = authority.trust().unwrap();
    let config = |name: &String| {
        let identity = host_identity(authority, name);
        let server = identity.server_config(&trust, ClientAuth::Required, &[]).unwrap();
        let client = identity.client_config(&trust, &[]).unwrap();
        let folder = folder.join(name);
        Config::new(name.clone(), "test", peers.clone(), folder, server, client).unwrap()
    };
    peers.keys().map(config).collect()
}

impl Cluster {
    pub async fn start(members: usize) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let configs = configs(folder.path(), members);
        let mut cluster = Cluster { members: vec![None; members], configs, folder };
        for n in 0..members {
            cluster.restart(n).await;
        }
        cluster
    }

    pub async fn restart(&mut self, n: usize) {
        self.members[n] = Some(Embedded::start(self.configs[n].clone()).await.unwrap());
    }

    pub fn crash(&mut self, n: usize) {
        let member = self.members[n].take().unwrap();
        drop(Arc::into_inner(member).expect("nobody else holds the member"));
    }

    pub fn up(&self) -> impl Iterator<Item = &Arc<Embedded>> {
        self.members.iter().flatten()
    }

    pub async fn leader(&self) -> usize {
        let leads = |n: usize| self.members[n].as_ref().is_some_and(|m| m.leadership().borrow().is_me);
        until(|| (0..self.members.len()).find(|n| leads(*n))).await
    }
}

pub async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "the condition does not come true");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn put(store: &Embedded, key: &str) {
    store.txn(Txn::put(key.to_owned(), "value")).await.unwrap();
}

pub fn keys(store: &Embedded) -> Vec<String> {
    let all = KeyRange::prefix("");
    store.snapshot().range(&all).map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}
