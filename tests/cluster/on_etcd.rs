//! Whole clusters whose state lies in an etcd, where etcd is installed.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use pki::{Authority, HostNames};

use crate::drill::check_drill;
use crate::harness::{Cluster, HOLDFAST, lock_loopback, text};

/// An etcd of one member with TLS; it ends with this.
struct Etcd {
    process: Child,
    folder: tempfile::TempDir,
    address: IpAddr,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

static ETCDS: AtomicU8 = AtomicU8::new(1);

impl Etcd {
    /// None where etcd isn't installed.
    fn start() -> Option<Etcd> {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let n = ETCDS.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(127, high | 0xc0, low, n).into();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let authority = Authority::create("etcd", SystemTime::now()).unwrap();
        std::fs::write(file("ca.crt"), authority.certificate_pem()).unwrap();
        let names = HostNames {
            name: "etcd".into(),
            address,
            virtual_address: address,
            first_service_address: address,
        };
        let server = authority.host_identity(&names, SystemTime::now()).unwrap();
        server.save(folder.path(), "server").unwrap();
        authority.admin_identity(SystemTime::now()).unwrap().save(folder.path(), "client").unwrap();
        let stranger = Authority::create("stranger", SystemTime::now()).unwrap();
        std::fs::write(file("stranger-ca.crt"), stranger.certificate_pem()).unwrap();
        stranger.admin_identity(SystemTime::now()).unwrap().save(folder.path(), "stranger").unwrap();
        let started = Command::new("etcd")
            .args([PathBuf::from("--data-dir"), file("data")])
            .args([format!("--listen-client-urls=https://{address}:2379")])
            .args([format!("--advertise-client-urls=https://{address}:2379")])
            .args([format!("--listen-peer-urls=http://{address}:2380")])
            .args([format!("--initial-advertise-peer-urls=http://{address}:2380")])
            .args([format!("--initial-cluster=default=http://{address}:2380")])
            .arg("--client-cert-auth")
            .args([PathBuf::from("--trusted-ca-file"), file("ca.crt")])
            .args([PathBuf::from("--cert-file"), file("server.crt")])
            .args([PathBuf::from("--key-file"), file("server.key")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(process) => {
                let etcd = Etcd { process, folder, address };
                // It listens once it has a leader.
                let end = std::time::Instant::now() + crate::harness::PATIENCE;
                while std::net::TcpStream::connect((address, 2379)).is_err() {
                    assert!(std::time::Instant::now() < end, "etcd doesn't start");
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Some(etcd)
            }
            Err(_) => {
                testing::skip("etcd", "etcd is not installed");
                None
            }
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn url(&self) -> String {
        format!("https://{}:2379", self.address)
    }

    /// The arguments that lead here, with the authority and the identity of these names.
    fn arguments(&self, ca: &str, who: &str) -> Vec<String> {
        let (cert, key) = (self.file(&format!("{who}.crt")), self.file(&format!("{who}.key")));
        let url = self.url();
        let all = ["--datastore", &url, "--datastore-ca", &self.file(ca), "--datastore-cert", &cert];
        all.into_iter().map(str::to_owned).chain(["--datastore-key".into(), key]).collect()
    }

    fn good(&self) -> Vec<String> {
        self.arguments("ca.crt", "client")
    }

    /// How many keys there are.
    fn keys(&self) -> Option<usize> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let trust = pki::Trust::from_pem(std::fs::read_to_string(self.file("ca.crt")).unwrap()).unwrap();
        let client = pki::Identity::load(self.folder.path(), "client").unwrap();
        let tls = client.client_config(&trust, &[]).unwrap();
        let client = etcd::Client::new(vec![self.url().parse().unwrap()], Some(tls));
        let all =
            etcd::proto::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        runtime.block_on(client.range(all)).ok().map(|answer| answer.kvs.len())
    }
}

#[test]
fn a_drill_on_an_etcd_in_namespaces_measures_every_clock_and_leaves_nothing() {
    if !testing::has_namespaces() {
        return;
    }
    drill("netns");
}

#[test]
fn a_drill_on_an_etcd_on_loopback_measures_every_clock_and_leaves_nothing() {
    let _lock = lock_loopback();
    drill("loopback");
}

fn drill(net: &str) {
    let Some(etcd) = Etcd::start() else { return };
    let arguments = etcd.good();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    check_drill(net, &arguments);
    assert_eq!(etcd.keys(), Some(0), "keys are left in etcd");
}

fn config_map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

#[tokio::test]
async fn a_cluster_finds_its_state_in_its_etcd_again() {
    let Some(etcd) = Etcd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let arguments = etcd.good();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = Cluster::start_with(dir.path(), 3, "auto", &arguments);
    cluster.wait_until_ready(3).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");
    maps.create(&PostParams::default(), &config_map("kept")).await.unwrap();
    assert!(!cluster.folder().join("n1/data/store").exists(), "the hosts keep nothing themselves");
    cluster.kill_hosts();
    drop(cluster);

    // The folder knows its etcd by itself.
    let cluster = Cluster::start(dir.path(), 3, "auto");
    cluster.wait_until_ready(3).await;
    let maps = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");
    assert!(maps.get_opt("kept").await.unwrap().is_some());
    maps.create(&PostParams::default(), &config_map("new")).await.unwrap();
    drop(cluster);

    // Another cluster must leave it alone.
    let other = tempfile::tempdir().unwrap();
    refused(other.path(), &arguments, &["another cluster of Holdfast", "--datastore-prefix"]);
    assert!(!other.path().join("cluster").exists(), "nothing is made for a cluster that can't be");
}

#[test]
fn an_etcd_that_cannot_be_used_is_said_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    refused(dir.path(), &["--datastore", &url], &["can't reach etcd", &nobody.to_string()]);
    refused(dir.path(), &["--datastore", "etcd.example"], &["--datastore", "https://"]);
    refused(dir.path(), &["--datastore", "https://127.0.0.1:2379"], &["--datastore-ca"]);
    let missing = ["--datastore", "https://127.0.0.1:2379", "--datastore-ca", "/nowhere.crt"];
    refused(dir.path(), &missing, &["/nowhere.crt"]);
    refused(dir.path(), &["--datastore-ca", "/nowhere.crt"], &["--datastore"]);
    refused(dir.path(), &["--datastore", &url, "--datastore-prefix", "here"], &["--datastore-prefix"]);

    let Some(etcd) = Etcd::start() else { return };
    for (ca, who, words) in [
        ("stranger-ca.crt", "client", "isn't accepted here"),
        ("ca.crt", "stranger", "doesn't accept this client's certificate"),
    ] {
        let arguments = etcd.arguments(ca, who);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(dir.path(), &arguments, &["don't trust each other", words]);
    }
    let mut arguments = etcd.good();
    arguments.truncate(4);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(dir.path(), &arguments, &["don't trust each other"]);
    assert!(!dir.path().join("cluster").exists(), "nothing is made for a cluster that can't be");
}

fn refused(dir: &std::path::Path, arguments: &[&str], words: &[&str]) {
    let output = Command::new(HOLDFAST)
        .args(["up", "--port", "0", "--etcd-port", "0", "--nodes", "1", "--dir"])
        .arg(dir.join("cluster"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output);
    assert!(!output.status.success(), "{arguments:?} was accepted: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} doesn't say {word:?}: {said}");
    }
}
