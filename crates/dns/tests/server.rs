//! The servers as callers see them: over sockets, on loopback.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns::{Metrics, Options, PodNames, Server, Zones};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use membership::{Hosts, Liveness};
use serde_json::{Value, json};
use store::{Memory, Store, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info_span;

/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);
/// The address of the pod that asks.
const POD: Ipv4Addr = Ipv4Addr::new(127, 5, 0, 9);

struct Site {
    at: SocketAddr,
    store: Arc<Memory>,
    hosts: watch::Sender<Arc<Hosts>>,
    metrics: Arc<Metrics>,
}

async fn put(store: &Memory, (group, resource): (&str, &str), name: &str, object: Value) {
    let namespace = if resource == "namespaces" { "" } else { "shop" };
    store.txn(Txn::put(objects::key(group, resource, namespace, name), object.to_string())).await.unwrap();
}

/// A DNS of a cluster with a service, a headless one of 300 endpoints on two hosts, and a pod.
async fn site(upstream: &[SocketAddr]) -> Site {
    let store = Arc::new(Memory::default());
    put(&store, ("", "namespaces"), "shop", json!({})).await;
    put(&store, ("", "services"), "web", json!({"spec": {"clusterIP": "10.96.0.7"}})).await;
    put(&store, ("", "services"), "many", json!({"spec": {"clusterIP": "None"}})).await;
    let endpoint = |n: usize| {
        let address = format!("10.244.{}.{}", n / 200, n % 200);
        json!({"addresses": [address], "nodeName": format!("n{}", 1 + n % 2)})
    };
    let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "many"}},
        "endpoints": (0..300).map(endpoint).collect::<Vec<_>>()});
    put(&store, ("discovery.k8s.io", "endpointslices"), "many-x", slice).await;
    put(&store, ("", "pods"), "p", json!({"status": {"phase": "Running", "podIP": POD.to_string()}})).await;
    let hosts = watch::Sender::new(Arc::new(Hosts::default()));
    let metrics = Arc::new(Metrics::default());
    let zones = Zones {
        domain: dns::domain(),
        networks: vec!["10.96.0.0/16".parse().unwrap(), "10.244.0.0/16".parse().unwrap()],
        server: [10, 96, 0, 10].into(),
        pods: PodNames::Verified,
    };
    let options = Options {
        zones,
        callers: vec!["127.5.0.0/16".parse().unwrap()],
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        upstream: upstream.to_vec(),
        resolv_conf: "/nowhere/resolv.conf".into(),
    };
    let server = Server::listen(options, metrics.clone()).unwrap();
    let at = server.addresses()[0];
    tasks::spawn(info_span!("test"), server.run(store.clone(), hosts.subscribe()));
    Site { at, store, hosts, metrics }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// The answer to some bytes by a datagram from an address.
async fn said(site: &Site, from: Ipv4Addr, bytes: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(site.at).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = timeout(SOON, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    buffer.truncate(length);
    buffer
}

async fn ask(site: &Site, message: &Message) -> Message {
    let answer = said(site, POD, &message.to_vec().unwrap()).await;
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.metadata.id, &answer.queries), (message.metadata.id, &message.queries));
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    answer
}

async fn frame(stream: &mut TcpStream) -> Message {
    let length = timeout(SOON, stream.read_u16()).await.expect("an answer").unwrap();
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

async fn connect(site: &Site) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((POD, 0).into()).unwrap();
    socket.connect(site.at).await.unwrap()
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [&(bytes.len() as u16).to_be_bytes(), bytes.as_slice()].concat()
}

const MANY: &str = "many.shop.svc.cluster.local.";
const WEB: &str = "web.shop.svc.cluster.local.";

#[tokio::test]
async fn names_are_answered_as_they_were_written() {
    let site = site(&[]).await;
    let answer = ask(&site, &question("wEb.Shop.svc.Cluster.local.", RecordType::A)).await;
    assert!(answer.metadata.authoritative && answer.edns.is_none());
    let [record] = answer.answers.as_slice() else { panic!("{answer}") };
    assert_eq!(record.name.to_ascii(), "wEb.Shop.svc.Cluster.local.");
    assert_eq!(record.data, RData::A(A([10, 96, 0, 7].into())));

    let nothing = ask(&site, &question("none.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(nothing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(nothing.authorities[0].record_type(), RecordType::SOA);
    let no_data = ask(&site, &question(WEB, RecordType::AAAA)).await;
    assert_eq!((no_data.metadata.response_code, no_data.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(no_data.authorities[0].record_type(), RecordType::SOA);

    let elsewhere = ask(&site, &question("www.example.com.", RecordType::A)).await;
    assert_eq!(elsewhere.metadata.response_code, ResponseCode::ServFail, "there is nobody to ask");
    let mut text = String::new();
    site.metrics.write(&mut text);
    for line in [
        r#"coredns_dns_requests_total{proto="udp",type="A"} 3"#,
        r#"coredns_dns_responses_total{rcode="NXDOMAIN"} 1"#,
        r#"coredns_dns_responses_total{rcode="SERVFAIL"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_cut_off_and_comes_by_a_connection() {
    let site = site(&[]).await;
    let mut plain = question(MANY, RecordType::A);
    let cut = ask(&site, &plain).await;
    assert!(cut.metadata.truncation && (20..30).contains(&cut.answers.len()), "{}", cut.answers.len());
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    plain.set_edns(edns);
    let cut = ask(&site, &plain).await;
    assert!(cut.metadata.truncation && (60..75).contains(&cut.answers.len()), "{}", cut.answers.len());
    assert_eq!(cut.edns.unwrap().max_payload(), 1232);

    let mut stream = connect(&site).await;
    // Two questions at once, in pieces.
    let bytes = [framed(&plain), framed(&question(WEB, RecordType::A))].concat();
    for piece in bytes.chunks(7) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
    }
    let all = frame(&mut stream).await;
    assert_eq!((all.answers.len(), all.metadata.truncation), (300, false));
    assert_eq!(frame(&mut stream).await.answers.len(), 1);
}

#[tokio::test]
async fn a_connection_that_says_too_much_is_closed() {
    let site = site(&[]).await;
    let mut stream = connect(&site).await;
    stream.write_all(&[255, 255]).await.unwrap();
    let end = timeout(SOON, stream.read_u8()).await.expect("an end");
    assert!(end.is_err());
}

#[tokio::test]
async fn what_changes_is_answered_and_silent_hosts_are_left_out() {
    let site = site(&[]).await;
    let count = async |site: &Site| {
        let mut stream = connect(site).await;
        stream.write_all(&framed(&question(MANY, RecordType::A))).await.unwrap();
        frame(&mut stream).await.answers.len()
    };
    assert_eq!(count(&site).await, 300);
    #[allow(clippy::disallowed_methods)] // Some instant; nothing depends on which.
    let silent = Liveness { last_heard: std::time::Instant::now(), silent: true, incarnation: None };
    site.hosts.send_replace(Arc::new(Hosts(BTreeMap::from([("n2".to_owned(), silent)]))));
    let fewer = async { while count(&site).await != 150 {} };
    timeout(SOON, fewer).await.expect("the endpoints of a silent host leave");

    put(&site.store, ("", "services"), "new", json!({"spec": {"clusterIP": "10.96.0.8"}})).await;
    let new = question("new.shop.svc.cluster.local.", RecordType::A);
    let found = async { while ask(&site, &new).await.answers.is_empty() {} };
    timeout(SOON, found).await.expect("a new service has a name");
}

#[tokio::test]
async fn strangers_are_refused_and_nonsense_gets_no_more_than_it_is() {
    let site = site(&[]).await;
    let asked = question(WEB, RecordType::A).to_vec().unwrap();
    let refused = Message::from_vec(&said(&site, Ipv4Addr::LOCALHOST, &asked).await).unwrap();
    assert_eq!((refused.metadata.response_code, refused.answers.len()), (ResponseCode::Refused, 0));

    let changed = |change: &dyn Fn(&mut Message)| {
        let mut message = question(WEB, RecordType::A);
        change(&mut message);
        message.to_vec().unwrap()
    };
    let mut long_counts = asked.clone();
    long_counts[4..6].copy_from_slice(&[255, 255]);
    let mut old = Edns::new();
    old.set_version(1);
    for (bytes, code) in [
        (changed(&|message| message.metadata.op_code = OpCode::Status), ResponseCode::NotImp),
        (changed(&|message| message.queries.clear()), ResponseCode::FormErr),
        (changed(&|message| message.queries.push(message.queries[0].clone())), ResponseCode::FormErr),
        (changed(&|message| _ = message.queries[0].set_query_class(DNSClass::CH)), ResponseCode::Refused),
        (changed(&|message| _ = message.queries[0].set_query_type(RecordType::AXFR)), ResponseCode::Refused),
        // Its number, 16, stands for both.
        (changed(&|message| _ = message.set_edns(old.clone())), ResponseCode::BADSIG),
        (asked[..20].to_vec(), ResponseCode::FormErr),
        (long_counts, ResponseCode::FormErr),
    ] {
        let answer = Message::from_vec(&said(&site, POD, &bytes).await).unwrap();
        assert_eq!((answer.metadata.response_code, answer.metadata.id), (code, 4711));
    }
    // Answers are never answered: two servers could go on for ever.
    let socket = UdpSocket::bind((POD, 0)).await.unwrap();
    socket.connect(site.at).await.unwrap();
    let mut answer = question(WEB, RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    for bytes in [answer.to_vec().unwrap(), vec![1, 2, 3], vec![], asked.clone()] {
        socket.send(&bytes).await.unwrap();
    }
    let mut buffer = [0; 1024];
    let length = timeout(SOON, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().answers.len(), 1, "of the last one alone");
}

/// A server of others, that has the name `www.example.com.` and nothing else.
async fn others() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tasks::spawn(info_span!("others"), async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(asked.metadata.id, OpCode::Query);
            answer.add_query(asked.queries[0].clone());
            let name = asked.queries[0].name().clone();
            if name == Name::from_ascii("www.example.com.").unwrap() {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, 7].into()))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    at
}

#[tokio::test]
async fn other_names_are_asked_of_others_also_at_the_end_of_a_search_path() {
    let site = site(&[others().await]).await;
    let external = json!({"spec": {"type": "ExternalName", "externalName": "www.example.com"}});
    put(&site.store, ("", "services"), "out", external).await;
    let asked = question("out.shop.svc.cluster.local.", RecordType::A);
    let found = async { while ask(&site, &asked).await.answers.is_empty() {} };
    timeout(SOON, found).await.expect("a new service has a name");
    for (name, names) in [
        ("www.example.com.", ["www.example.com."].as_slice()),
        ("out.shop.svc.cluster.local.", &["out.shop.svc.cluster.local.", "www.example.com."]),
        (
            "www.example.com.shop.svc.cluster.local.",
            &["www.example.com.shop.svc.cluster.local.", "www.example.com."],
        ),
    ] {
        let answer = ask(&site, &question(name, RecordType::A)).await;
        let owners: Vec<_> = answer.answers.iter().map(|record| record.name.to_string()).collect();
        assert_eq!(owners, names);
        let RData::A(address) = answer.answers.last().unwrap().data else { panic!("{answer}") };
        assert_eq!(IpAddr::from(address.0), IpAddr::from([192, 0, 2, 7]));
    }
    let nowhere = ask(&site, &question("none.example.com.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(nowhere.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(nowhere.authorities[0].name.to_string(), "cluster.local.");

    let mut not_wanted = question("www.example.com.", RecordType::A);
    not_wanted.metadata.recursion_desired = false;
    let answer = said(&site, POD, &not_wanted.to_vec().unwrap()).await;
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::Refused);
}
