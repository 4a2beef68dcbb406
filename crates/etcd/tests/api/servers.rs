//! What is asked: this store in process, and an etcd where there is one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use etcd::{Client, Identity, Member};
use pki::{Authority, ClientAuth, HostNames};
use store::{Config, Embedded, Memory, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A server at work; it ends with this.
pub struct Running {
    pub address: SocketAddr,
    pub store: Option<Arc<dyn Store>>,
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

pub fn identity(address: SocketAddr) -> Identity {
    let me = Member {
        name: "n1".into(),
        peer_url: "https://127.0.0.1:2380".into(),
        client_url: format!("http://{address}"),
    };
    Identity { cluster: "test".into(), me: "n1".into(), members: vec![me] }
}

/// A store behind etcd's API.
pub async fn serve(store: Arc<dyn Store>) -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut task = JoinSet::new();
    task.spawn(etcd::serve(listener, None, store.clone(), identity(address)));
    Running { address, store: Some(store), _task: task, _peer: None, _folder: None }
}

pub async fn memory() -> Running {
    serve(Arc::new(Memory::default())).await
}

/// The embedded engine, of one member.
pub async fn embedded() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create("test", std::time::SystemTime::now()).unwrap();
    let local = Ipv4Addr::LOCALHOST.into();
    let host =
        HostNames { name: "n1".into(), address: local, virtual_address: local, first_service_address: local };
    let identity = authority.host_identity(&host, std::time::SystemTime::now()).unwrap();
    let trust = authority.trust().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = Config::new(
        "n1",
        "test",
        [("n1".to_owned(), listener.local_addr().unwrap())].into(),
        folder.path().to_owned(),
        identity.server_config(&trust, ClientAuth::Required, &[]).unwrap(),
        identity.client_config(&trust, &[]).unwrap(),
    );
    let store = Embedded::start_on(config.unwrap(), listener).await.unwrap();
    let mut leadership = store.leadership();
    leadership.wait_for(|leadership| leadership.is_me).await.unwrap();
    let mut running = serve(store).await;
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
            eprintln!("skipped the comparison with a real etcd: etcd is not installed");
            return None;
        };
        let mut peer = Peer(child);
        let running = |peer| Running {
            address: client,
            store: None,
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
