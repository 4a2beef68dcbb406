//! Real etcds with TLS on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use etcd::{Client, Config, Endpoint, Engine};
use pki::{Authority, HostNames, Trust};
use rustls::ClientConfig;
use store::Store;
use tempfile::TempDir;

use crate::link::Link;

pub const PATIENCE: Duration = Duration::from_secs(60);
static CLUSTERS: AtomicU8 = AtomicU8::new(1);

/// The members of an etcd; they end with this.
pub struct Etcds {
    members: Vec<(IpAddr, Option<Member>)>,
    pub authority: Authority,
    folder: TempDir,
}

struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Etcds {
    /// None where etcd isn't installed.
    pub async fn start(members: u8) -> Option<Etcds> {
        if !testing::has("etcd") {
            return None;
        }
        // Addresses of its own, so that nobody takes a port while its member is down.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let address = |n: u8| Ipv4Addr::new(127, high | 0x80, low, (cluster << 2) + n).into();
        let authority = Authority::create("test", SystemTime::now()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.certificate_pem()).unwrap();
        let mut etcds =
            Etcds { members: (0..members).map(|n| (address(n), None)).collect(), authority, folder };
        for n in 0..members.into() {
            let (ip, _) = etcds.members[n];
            let names = HostNames {
                name: format!("etcd{n}"),
                address: ip,
                virtual_address: ip,
                first_service_address: ip,
            };
            let identity = etcds.authority.host_identity(&names, SystemTime::now()).unwrap();
            identity.save(etcds.folder.path(), &names.name).unwrap();
            etcds.power_on(n);
        }
        etcds.answers().await;
        Some(etcds)
    }

    /// Waits until writes are answered.
    pub async fn answers(&self) {
        let client = self.client();
        let ask = async || {
            let question = etcd::proto::PutRequest { key: "/ready".into(), ..Default::default() };
            client.put(question).await.is_ok()
        };
        let mut between = tokio::time::interval(Duration::from_millis(20));
        tokio::time::timeout(PATIENCE, async {
            while !ask().await {
                client.move_on().await;
                between.tick().await;
            }
        })
        .await
        .expect("etcd doesn't start");
    }

    pub fn power_on(&mut self, n: usize) {
        let url = |(n, (ip, _)): (usize, &(IpAddr, _))| format!("etcd{n}=http://{ip}:2380");
        let all: Vec<String> = self.members.iter().enumerate().map(url).collect();
        let (ip, member) = &mut self.members[n];
        let file = |name: &str| self.folder.path().join(name);
        let log = std::fs::File::create(file(&format!("etcd{n}.log"))).unwrap();
        let child = Command::new("etcd")
            .args(["--name", &format!("etcd{n}"), "--data-dir"])
            .arg(file(&format!("data{n}")))
            .args([format!("--listen-client-urls=https://{ip}:2379")])
            .args([format!("--advertise-client-urls=https://{ip}:2379")])
            .args([format!("--listen-peer-urls=http://{ip}:2380")])
            .args([format!("--initial-advertise-peer-urls=http://{ip}:2380")])
            .args([format!("--initial-cluster={}", all.join(","))])
            .arg("--client-cert-auth")
            .args([PathBuf::from("--trusted-ca-file"), file("ca.crt")])
            .args([PathBuf::from("--cert-file"), file(&format!("etcd{n}.crt"))])
            .args([PathBuf::from("--key-file"), file(&format!("etcd{n}.key"))])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *member = Some(Member(child));
    }

    /// Kills a member.
    pub fn power_off(&mut self, n: usize) {
        self.members[n].1 = None;
    }

    pub fn address(&self, n: usize) -> SocketAddr {
        SocketAddr::new(self.members[n].0, 2379)
    }

    pub fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |n: usize| Endpoint {
            uri: format!("https://{}", self.address(n)).parse().unwrap(),
            address: None,
        };
        (0..self.members.len()).map(endpoint).collect()
    }

    pub fn tls(&self) -> Arc<ClientConfig> {
        let admin = self.authority.admin_identity(SystemTime::now()).unwrap();
        admin.client_config(&Trust::from_pem(self.authority.certificate_pem()).unwrap(), &[]).unwrap()
    }

    /// Past the engine.
    pub fn client(&self) -> Client {
        Client::of(self.endpoints(), Some(self.tls()))
    }

    pub fn config(&self, name: &str) -> Config {
        Config::new(name, "test", self.endpoints(), Some(self.tls()), "/holdfast")
    }

    pub async fn engine(&self, name: &str) -> Arc<Engine> {
        start(self.config(name)).await
    }

    /// An engine that reaches the first member by a link.
    pub async fn linked(&self, name: &str) -> (Arc<Engine>, Link) {
        let link = Link::to(self.address(0)).await;
        let mut config = self.config(name);
        config.endpoints.truncate(1);
        config.endpoints[0].address = Some(link.address);
        (start(config).await, link)
    }
}

pub async fn start(config: Config) -> Arc<Engine> {
    tokio::time::timeout(PATIENCE, Engine::start(config)).await.expect("the engine starts").unwrap()
}

/// Waits until one of the engines leads.
pub async fn leader(engines: &[&Engine]) -> usize {
    until(|| engines.iter().position(|engine| engine.leadership().borrow().is_me)).await
}

pub async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition comes true")
}
