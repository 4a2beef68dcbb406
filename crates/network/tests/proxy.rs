//! Services on loopback, with real endpoints and this test as the switch.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.
#![allow(clippy::disallowed_methods)] // A test is a driver.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::{Hosts, Liveness};
use network::{HostNetwork, Mode, Network, Options};
use serde_json::{Value, json};
use store::{KeyRange, Memory, Op, Store, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

struct Bench {
    store: Arc<Memory>,
    networks: watch::Sender<Arc<BTreeMap<String, HostNetwork>>>,
    hosts: watch::Sender<Arc<Hosts>>,
    network: Network,
    switch: UdpSocket,
}

impl Bench {
    async fn start() -> Bench {
        let switch = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        let store = Arc::new(Memory::default());
        let hosts = watch::Sender::new(Arc::new(silent(&[])));
        let own = HostNetwork { address: LOCALHOST, pods: "127.1.0.0/16".parse().unwrap() };
        let networks = watch::Sender::new(Arc::new(BTreeMap::from([("n1".to_owned(), own)])));
        let options = Options {
            name: "n1".into(),
            mode: Mode::Loopback { switch: switch.local_addr().unwrap() },
            hosts: networks.subscribe(),
            services: "127.96.0.0/16".parse().unwrap(),
            cluster: "127.0.0.0/8".parse().unwrap(),
            virtual_address: "127.0.0.100:6443".parse().unwrap(),
            answered: Vec::new(),
            page: membership::LeasePage::create().unwrap(),
            program: None,
            company: None,
            load_balancing: None,
            cut_off: None,
            most_connections: 64,
        };
        let network = Network::start(options, store.clone(), hosts.subscribe(), || {}, &Handle::current())
            .await
            .unwrap();
        Bench { store, networks, hosts, network, switch }
    }

    async fn put(&self, resource: (&str, &str), name: &str, object: &Value) {
        let key = objects::key(resource.0, resource.1, "default", name);
        self.store.txn(Txn::put(key, object.to_string())).await.unwrap();
    }

    /// A Service `web` with one port and these endpoints, each on the host beside it.
    async fn serve(&self, spec: Value, protocol: &str, endpoints: &[(SocketAddr, &str)]) {
        self.publish(spec, protocol, endpoints).await;
        self.known(endpoints.len()).await;
    }

    async fn publish(&self, spec: Value, protocol: &str, endpoints: &[(SocketAddr, &str)]) {
        let metadata =
            json!({"name": "web", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}});
        self.put(("", "services"), "web", &json!({"metadata": metadata, "spec": spec})).await;
        // Each in a slice of its own: their ports differ.
        for (at, (address, node)) in endpoints.iter().enumerate() {
            let slice = json!({
                "metadata": metadata, "addressType": "IPv4",
                "ports": [{"port": address.port(), "protocol": protocol}],
                "endpoints": [{"addresses": [address.ip()], "nodeName": node, "conditions": {"ready": true}}],
            });
            self.put(("discovery.k8s.io", "endpointslices"), &format!("web-{at}"), &slice).await;
        }
    }

    /// Waits until the Service has this many endpoints.
    async fn known(&self, endpoints: usize) {
        let mut services = self.network.services();
        let known = services.wait_for(|services| {
            services.find("default", "web", "").is_some_and(|port| port.endpoints.len() == endpoints)
        });
        timeout(SOON, known).await.unwrap().unwrap();
    }

    /// These hosts fall silent, the others are heard again, and the network has noticed.
    async fn silence(&self, silent_hosts: &[&str]) {
        self.hosts.send_replace(Arc::new(silent(silent_hosts)));
        let is_noticed =
            || ["n2", "n3"].iter().all(|host| self.network.is_silent(host) == silent_hosts.contains(host));
        while !is_noticed() {
            tokio::task::yield_now().await;
        }
    }

    /// The entries of the first announcement that is as wanted.
    async fn announced(&self, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let mut buffer = vec![0; 65_535];
        let listen = async {
            loop {
                let length = self.switch.recv(&mut buffer).await.unwrap();
                let announcement: Value = serde_json::from_slice(&buffer[..length]).unwrap();
                assert_eq!(announcement["host"], "n1");
                let entries = announcement["entries"].as_array().unwrap();
                if wanted(entries) {
                    return entries.clone();
                }
            }
        };
        timeout(SOON, listen).await.expect("such an announcement")
    }

    /// Where the Service's connections are taken.
    async fn front(&self) -> SocketAddr {
        let is_service = |entry: &&Value| entry["kind"] == "service";
        let entries = self.announced(|entries| entries.iter().any(|e| is_service(&e))).await;
        let entry = entries.iter().find(is_service).unwrap();
        assert_eq!((&entry["address"], &entry["port"]), (&json!("127.96.0.5"), &json!(80)));
        entry["target"].as_str().unwrap().parse().unwrap()
    }
}

fn silent(silent: &[&str]) -> Hosts {
    let host = |name: &str| Liveness {
        last_heard: Instant::now(),
        silent: silent.contains(&name),
        incarnation: Some(1),
    };
    Hosts(["n2", "n3"].into_iter().map(|name| (name.to_owned(), host(name))).collect())
}

fn spec() -> Value {
    json!({"clusterIP": "127.96.0.5", "ports": [{"port": 80}]})
}

/// A server that says its name and then echoes until its caller stops speaking.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await?;
                to.write_all(b"!").await?;
                io::Result::Ok(())
            });
        }
    });
    address
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

async fn name(stream: &mut TcpStream) -> io::Result<String> {
    let mut name = [0; 2];
    timeout(SOON, stream.read_exact(&mut name)).await.expect("an answer in time")?;
    Ok(String::from_utf8(name.to_vec()).unwrap())
}

async fn ask(front: SocketAddr) -> io::Result<String> {
    name(&mut TcpStream::connect(front).await?).await
}

#[tokio::test]
async fn callers_are_spread_and_never_see_a_dead_backend() {
    let bench = Bench::start().await;
    let (a, b) = (server("p1").await, server("p2").await);
    bench.serve(spec(), "TCP", &[(a, "n1"), (nobody(), "n1"), (b, "n2")]).await;
    let front = bench.front().await;
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        *counts.entry(ask(front).await.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(counts.values().sum::<i32>(), 30);
    assert_eq!(counts.len(), 2, "{counts:?}");

    bench.silence(&["n2"]).await;
    for _ in 0..10 {
        assert_eq!(ask(front).await.unwrap(), "p1");
    }
    assert!(bench.network.is_silent("n2") && !bench.network.is_silent("n1"));
    bench.silence(&[]).await;
    let mut heard = BTreeSet::new();
    for _ in 0..3 {
        heard.insert(ask(front).await.unwrap());
    }
    assert_eq!(heard.len(), 2, "it takes part again");
}

#[tokio::test]
async fn a_connection_carries_both_ways_and_each_way_ends_by_itself() {
    let bench = Bench::start().await;
    bench.serve(spec(), "TCP", &[(server("p1").await, "n2")]).await;
    let mut stream = TcpStream::connect(bench.front().await).await.unwrap();
    assert_eq!(name(&mut stream).await.unwrap(), "p1");
    let sent: Vec<u8> = (0..200_000).map(|n| n as u8).collect();
    let (mut from, mut to) = stream.split();
    let send = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let ((), read) = tokio::join!(send, timeout(SOON, from.read_to_end(&mut received)));
    read.unwrap().unwrap();
    assert_eq!(received.pop(), Some(b'!'), "said after the caller had stopped");
    assert!(received == sent);
}

#[tokio::test]
async fn connections_to_a_host_that_falls_silent_are_cut_and_others_not() {
    let bench = Bench::start().await;
    bench.serve(spec(), "TCP", &[(server("p2").await, "n2"), (server("p3").await, "n3")]).await;
    let front = bench.front().await;
    let mut streams = BTreeMap::new();
    while streams.len() < 2 {
        let mut stream = TcpStream::connect(front).await.unwrap();
        streams.insert(name(&mut stream).await.unwrap(), stream);
    }
    bench.silence(&["n2"]).await;
    let mut byte = [0];
    let cut = timeout(SOON, streams.get_mut("p2").unwrap().read(&mut byte)).await.expect("cut at once");
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let other = streams.get_mut("p3").unwrap();
    other.write_all(b"x").await.unwrap();
    assert_eq!(timeout(SOON, other.read(&mut byte)).await.unwrap().unwrap(), 1);
}

/// A server that takes connections and says nothing, as a frozen one does; what it received comes out.
async fn mute() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let (told, heard) = tokio::sync::mpsc::unbounded_channel();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 100];
            let length = stream.read(&mut buffer).await.unwrap();
            told.send(buffer[..length].to_vec()).unwrap();
            streams.push(stream);
        }
    });
    (address, heard)
}

/// A server that answers `ok` once it has received something.
async fn answering() -> SocketAddr {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 100];
            let length = stream.read(&mut buffer).await.unwrap();
            stream.write_all(&[b"ok ", &buffer[..length]].concat()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_request_that_may_be_repeated_survives_the_loss_of_its_backend() {
    let bench = Bench::start().await;
    let (lost, mut heard) = mute().await;
    bench.serve(spec(), "TCP", &[(lost, "n2"), (answering().await, "n1")]).await;
    let front = bench.front().await;
    for (request, survives) in [("GET / HTTP/1.1\r\n\r\n", true), ("POST / HTTP/1.1\r\n\r\n", false)] {
        bench.silence(&[]).await;
        let asked = loop {
            let mut stream = TcpStream::connect(front).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut first = [0];
            // A connection that was led to the endpoint that answers is not the one this is about.
            tokio::select! {
                told = heard.recv() => { assert_eq!(told.unwrap(), request.as_bytes()); break stream }
                read = stream.read(&mut first) => { read.unwrap(); }
            }
        };
        bench.silence(&["n2"]).await;
        let mut stream = asked;
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await.expect("an end in time");
        if survives {
            read.unwrap();
            assert_eq!(answer, format!("ok {request}"));
        } else {
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn without_backends_callers_are_refused_and_find_the_first_that_comes() {
    let bench = Bench::start().await;
    bench.serve(spec(), "TCP", &[]).await;
    let front = bench.front().await;
    assert!(ask(front).await.is_err());
    let error = bench.network.connect("default", "web", "80").await.unwrap_err();
    assert_eq!(error.to_string(), "nobody serves default/web at present");
    let error = bench.network.connect("default", "web", "81").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);

    bench.serve(spec(), "TCP", &[(nobody(), "n1"), (server("p1").await, "n2")]).await;
    assert_eq!(ask(front).await.unwrap(), "p1");
    for port in ["", "80"] {
        let mut stream = bench.network.connect("default", "web", port).await.unwrap();
        assert_eq!(name(&mut stream).await.unwrap(), "p1");
    }
}

#[tokio::test]
async fn a_node_port_is_listened_on_and_given_up_with_its_service() {
    let bench = Bench::start().await;
    let node_port = nobody();
    let spec = json!({"clusterIP": "127.96.0.5", "ports": [{"port": 80, "nodePort": node_port.port()}]});
    bench.serve(spec, "TCP", &[(server("p1").await, "n1")]).await;
    bench.front().await;
    assert_eq!(ask(node_port).await.unwrap(), "p1");

    let gone = KeyRange::key(objects::key("", "services", "default", "web"));
    bench.store.txn(Txn { success: vec![Op::Delete(gone)], ..Txn::default() }).await.unwrap();
    bench.announced(|entries| entries.iter().all(|entry| entry["kind"] != "service")).await;
    assert!(TcpStream::connect(node_port).await.is_err());
}

#[tokio::test]
async fn datagrams_find_a_backend_and_their_way_back() {
    let bench = Bench::start().await;
    let mut endpoints = Vec::new();
    for (name, host) in [("p1", "n1"), ("p2", "n2")] {
        let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        endpoints.push((socket.local_addr().unwrap(), host));
        tokio::spawn(async move {
            let mut buffer = [0; 100];
            while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                socket.send_to(name.as_bytes(), from).await.unwrap();
            }
        });
    }
    let spec = json!({"clusterIP": "127.96.0.5", "ports": [{"port": 80, "protocol": "UDP"}]});
    bench.serve(spec, "UDP", &endpoints).await;
    let front = bench.front().await;
    let caller = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    caller.connect(front).await.unwrap();
    let ask = async || {
        let mut buffer = [0; 100];
        // A datagram may be lost, here while a session changes its endpoint.
        loop {
            caller.send(b"?").await.unwrap();
            if let Ok(length) = timeout(Duration::from_millis(500), caller.recv(&mut buffer)).await {
                return String::from_utf8(buffer[..length.unwrap()].to_vec()).unwrap();
            }
        }
    };
    // On loopback none is lost, also not the one that opens the session.
    caller.send(b"?").await.unwrap();
    let mut buffer = [0; 100];
    let length = timeout(SOON, caller.recv(&mut buffer)).await.expect("the first is answered").unwrap();
    let first = String::from_utf8(buffer[..length].to_vec()).unwrap();
    assert_eq!(ask().await, first, "one session, one endpoint");
    bench.silence(&["n2"]).await;
    let moved = async { while ask().await != "p1" {} };
    timeout(SOON, moved).await.expect("it moves away from the silent host");
}

#[tokio::test]
async fn the_leader_announces_the_virtual_address_until_the_end() {
    let bench = Bench::start().await;
    let entries = bench.announced(|entries| !entries.is_empty()).await;
    let target = format!("{LOCALHOST}:6443");
    let vip =
        json!({"kind": "vip", "address": "127.0.0.100", "port": 6443, "protocol": "TCP", "target": target});
    assert_eq!(entries, [vip], "the store of one member leads at once");
    timeout(SOON, bench.network.stop()).await.unwrap();
    bench.announced(|entries| entries.is_empty()).await;
}

#[tokio::test]
async fn pods_have_addresses_of_their_host() {
    let bench = Bench::start().await;
    bench.network.add_pod_address("127.1.1.1".parse().unwrap()).await.unwrap();
    let error = bench.network.add_pod_address("127.2.1.1".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "127.2.1.1 is not in 127.1.0.0/16, the network of this host's pods");
}

#[tokio::test]
async fn an_endpoint_at_what_a_host_keeps_to_itself_is_nobodys_backend() {
    let bench = Bench::start().await;
    let secret = TcpListener::bind("127.0.0.9:0").await.unwrap();
    let port = secret.local_addr().unwrap().port();
    let metadata =
        json!({"name": "web", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}});
    for (at, address) in ["127.0.0.9", "::ffff:127.0.0.9", "169.254.169.254", "0.0.0.0"].iter().enumerate() {
        let slice = json!({"metadata": metadata, "ports": [{"port": port}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]});
        bench.put(("discovery.k8s.io", "endpointslices"), &format!("bad-{at}"), &slice).await;
    }
    bench.serve(spec(), "TCP", &[(server("p1").await, "n1")]).await;
    let front = bench.front().await;
    for _ in 0..8 {
        assert_eq!(ask(front).await.unwrap(), "p1");
        name(&mut bench.network.connect("default", "web", "").await.unwrap()).await.unwrap();
    }
    assert!(timeout(Duration::ZERO, secret.accept()).await.is_err(), "nobody came");
}

#[tokio::test]
async fn the_pods_of_a_host_that_joins_are_backends_until_it_leaves() {
    let bench = Bench::start().await;
    let pod = "127.9.1.1:80".parse().unwrap();
    bench.publish(spec(), "TCP", &[(pod, "n9")]).await;
    bench.known(0).await;
    let alone = bench.networks.borrow().clone();
    let n9 = HostNetwork { address: "127.0.9.1".parse().unwrap(), pods: "127.9.0.0/16".parse().unwrap() };
    bench.networks.send_modify(|known| {
        Arc::make_mut(known).insert("n9".into(), n9);
    });
    bench.known(1).await;
    bench.networks.send_replace(alone);
    bench.known(0).await;
}
