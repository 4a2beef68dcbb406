//! What is asked: this store in process, and an etcd where there is one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use etcd::{Client, Members, ServedCluster};
use futures::future::BoxFuture;
use pki::{Authority, ClientAuth, HostNames};
use store::{Config, Embedded, Error, FirstMember, Member, MemberError, MemberId, Memory, State, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server at work; it ends with this.
pub struct Running {
    pub address: SocketAddr,
    pub store: Option<Arc<dyn Store>>,
    /// Whether it has no members that could be changed.
    pub is_alone: bool,
    _task: JoinSet<()>,
    _peer: Option<Peer>,
    _folder: Option<TempDir>,
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn client(&self) -> Client {
        Client::new(vec![format!("http://{}", self.address).parse().unwrap()], None)
    }
}

pub fn identity(address: SocketAddr) -> ServedCluster {
    ServedCluster { cluster: "test".into(), client_port: address.port() }
}

/// A member without others.
pub struct Alone;

impl Members for Alone {
    fn members(&self) -> Vec<Member> {
        vec![Member {
            id: MemberId(1),
            name: "n1".into(),
            address: "127.0.0.1:2380".parse().unwrap(),
            is_learner: false,
            has_joined: true,
            is_leader: true,
            is_me: true,
        }]
    }

    fn add(&self, _: SocketAddr, _: bool) -> BoxFuture<'_, Result<MemberId, Error>> {
        Box::pin(async { Err(MemberError::Busy.into()) })
    }

    fn promote(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { Err(MemberError::NotLearner(id).into()) })
    }

    fn remove(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { Err(MemberError::NotFound(id).into()) })
    }
}

/// A store behind etcd's API.
pub async fn serve(store: Arc<dyn Store>, members: Arc<dyn Members>) -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut task = JoinSet::new();
    task.spawn(etcd::serve(listener, None, store.clone(), members, identity(address)));
    Running { address, store: Some(store), is_alone: false, _task: task, _peer: None, _folder: None }
}

pub async fn memory() -> Running {
    Running { is_alone: true, ..serve(Arc::new(Memory::default()), Arc::new(Alone)).await }
}

/// The embedded engine, of one member.
pub async fn embedded() -> Running {
    embedded_with(None).await
}

/// The embedded engine, of one member, whose cluster begins with a state.
pub async fn embedded_with(state: Option<State>) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create("test", std::time::SystemTime::now()).unwrap();
    let local = Ipv4Addr::LOCALHOST.into();
    let host =
        HostNames { name: "n1".into(), address: local, virtual_address: local, first_service_address: local };
    let identity = authority.host_identity(&host, std::time::SystemTime::now()).unwrap();
    let trust = authority.trust().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let peers: BTreeMap<_, _> = [("n1".to_owned(), listener.local_addr().unwrap())].into();
    if let Some(state) = state {
        let first = FirstMember { name: "n1", cluster_id: "test", peers: &peers, data_dir: folder.path() };
        first.begin_with(state.clone()).unwrap();
        assert!(first.begin_with(state).is_err(), "a folder is begun once");
    }
    let config = Config::new(
        "n1",
        "test",
        peers,
        folder.path().to_owned(),
        identity.server_config(&trust, ClientAuth::Required, &[]).unwrap(),
        identity.client_config(&trust, &[]).unwrap(),
    );
    let store = Embedded::start_on(config.unwrap(), listener).await.unwrap();
    let mut leadership = store.leadership();
    leadership.wait_for(|leadership| leadership.is_me).await.unwrap();
    let mut running = serve(store.clone(), store).await;
    running._folder = Some(folder);
    running
}

/// A real etcd; none where it isn't installed.
pub async fn peer() -> Option<Running> {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let ports = [0, 0].map(|_| StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [client, peer] = ports.map(|port| port.local_addr().unwrap());
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let started = Command::new("etcd")
            .args(["--name", "n1", "--data-dir"])
            .arg(folder.path())
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("n1={peer_url}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            testing::skip("etcd", "the comparison with a real etcd: etcd is not installed");
            return None;
        };
        let mut peer = Peer(child);
        let running = |peer| Running {
            address: client,
            store: None,
            is_alone: false,
            _task: JoinSet::new(),
            _peer: Some(peer),
            _folder: Some(folder),
        };
        let asker = Client::new(vec![client_url.parse().unwrap()], None);
        let mut between = tokio::time::interval(Duration::from_millis(20));
        while peer.0.try_wait().unwrap().is_none() {
            let question = etcd::proto::RangeRequest { key: "/".into(), ..Default::default() };
            if asker.range(question).await.is_ok() {
                return Some(running(peer));
            }
            between.tick().await;
        }
        // Somebody else took the port.
    }
    panic!("etcd doesn't start");
}
