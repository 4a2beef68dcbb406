use std::collections::BTreeMap;

use futures::FutureExt;
use hickory_proto::rr::{RData, Record, RecordType};
use membership::Liveness;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{Memory, Op, Revision, Store, Txn};

use super::*;

const NAMESPACE: (&str, &str) = ("", "namespaces");
const SERVICE: (&str, &str) = ("", "services");
const SLICE: (&str, &str) = ("discovery.k8s.io", "endpointslices");
const POD: (&str, &str) = ("", "pods");

fn write(store: &Memory, (group, resource): (&str, &str), name: &str, object: Option<&Value>) {
    let namespace = if resource == "namespaces" { "" } else { "shop" };
    let key = objects::key(group, resource, namespace, name);
    let txn = match object {
        Some(object) => Txn::put(key, object.to_string()),
        None => Txn { success: vec![Op::Delete(KeyRange::key(key))], ..Txn::default() },
    };
    store.txn(txn).now_or_never().expect("a store in memory waits for nothing").unwrap();
}

fn zones(pods: PodNames) -> Zones {
    let networks = ["10.96.0.0/16", "10.244.0.0/14", "fd00:96::/64"].map(|text| text.parse().unwrap()).into();
    Zones { domain: crate::domain(), networks, server: [10, 96, 0, 10].into(), pods }
}

fn slice(service: &str, ports: Value, endpoints: Value) -> Value {
    let labels = json!({"kubernetes.io/service-name": service});
    json!({"metadata": {"namespace": "shop", "labels": labels}, "ports": ports, "endpoints": endpoints})
}

/// The names of a shop.
pub(crate) fn shop(pods: PodNames) -> Records {
    let store = Memory::default();
    write(&store, NAMESPACE, "shop", Some(&json!({"metadata": {"name": "shop"}})));
    write(&store, NAMESPACE, "empty", Some(&json!({"metadata": {"name": "empty"}})));
    for (name, spec) in [
        (
            "web",
            json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"], "ports": [
                {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 99}]}),
        ),
        ("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
        ("out", json!({"type": "ExternalName", "externalName": "www.example.com."})),
        ("number", json!({"type": "ExternalName", "externalName": "192.0.2.1"})),
        ("idle", json!({"clusterIP": "None"})),
        ("near", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"})),
        ("circle", json!({"type": "ExternalName", "externalName": "circle.shop.svc.cluster.local"})),
    ] {
        let service = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        write(&store, SERVICE, name, Some(&service));
    }
    let sql = json!([{"name": "sql", "port": 5432}]);
    let places = json!([
        {"addresses": ["10.244.1.5"], "hostname": "db-0", "nodeName": "n1", "conditions": {"ready": true}},
        {"addresses": ["10.244.2.5"], "hostname": "db-1", "nodeName": "n2"},
        {"addresses": ["10.244.3.5"], "hostname": "db-2", "nodeName": "n3", "conditions": {"ready": false}},
        {"addresses": ["10.244.3.6"], "nodeName": "n3", "conditions": {"ready": true}},
    ]);
    write(&store, SLICE, "db-x", Some(&slice("db", sql, places)));
    let web = json!([{"addresses": ["10.244.1.9"], "nodeName": "n1"}]);
    write(&store, SLICE, "web-x", Some(&slice("web", json!([{"name": "http", "port": 8080}]), web)));
    let orphan = json!([{"addresses": ["10.244.1.10"], "hostname": "x"}]);
    write(&store, SLICE, "orphan", Some(&slice("gone", json!([]), orphan)));
    for (name, spec, status) in [
        (
            "a",
            json!({}),
            json!({"phase": "Running", "podIP": "10.244.1.9", "podIPs": [{"ip": "10.244.1.9"}]}),
        ),
        ("b", json!({}), json!({"phase": "Succeeded", "podIP": "10.244.1.11"})),
        ("c", json!({"hostNetwork": true}), json!({"phase": "Running", "podIP": "10.73.0.1"})),
        ("d", json!({}), json!({"phase": "Running", "podIPs": [{"ip": "fd00::1:2"}]})),
    ] {
        let pod = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": status});
        write(&store, POD, name, Some(&pod));
    }
    let mut records = Records::new(zones(pods));
    records.load(&store.snapshot());
    records
}

/// What is found, in a line: the data of the records, or what else holds.
fn ask_at(records: &Records, kind: RecordType, name: &str, turn: usize) -> String {
    let name = Name::from_ascii(name).unwrap();
    let data = |records: &[Record]| {
        records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(", ")
    };
    let authority = |record: &Record| {
        let RData::SOA(soa) = &record.data else { panic!("{record}") };
        assert_eq!((soa.minimum, record.ttl), (5, 5));
        record.name.to_string()
    };
    match records.find(&name, kind, turn) {
        Found::Records(answers, more) => {
            assert!(answers.iter().all(|record| record.name == name && record.ttl == 5));
            let also = more.iter().map(|record| format!("{} {}", record.name, record.data));
            let also: Vec<_> = also.collect();
            if also.is_empty() { data(&answers) } else { format!("{} + {}", data(&answers), also.join(", ")) }
        }
        Found::Alias(record, target) => {
            assert_eq!(record.data.to_string(), target.to_string());
            format!("alias {target}")
        }
        Found::OtherTypes(record) => format!("other types in {}", authority(&record)),
        Found::NamesBelow(record) => format!("names below in {}", authority(&record)),
        Found::Nothing(record) => format!("nothing in {}", authority(&record)),
        Found::Outside => "outside".into(),
    }
}

fn ask(records: &Records, kind: RecordType, name: &str) -> String {
    ask_at(records, kind, name, 0)
}

const NONE: &str = "nothing in cluster.local.";
const OTHER: &str = "other types in cluster.local.";
const BELOW: &str = "names below in cluster.local.";

#[test]
fn every_form_of_name_has_its_records() {
    use RecordType::{A, AAAA, ANY, CNAME, HTTPS, NS, PTR, SOA, SRV, TXT};
    let records = shop(PodNames::Verified);
    for (kind, name, expected) in [
        // Services with addresses of their own.
        (A, "web.shop.svc.cluster.local.", "10.96.0.7"),
        (A, "WEB.Shop.svc.CLUSTER.local.", "10.96.0.7"),
        (AAAA, "web.shop.svc.cluster.local.", "fd00:96::7"),
        (ANY, "web.shop.svc.cluster.local.", "10.96.0.7, fd00:96::7"),
        (HTTPS, "web.shop.svc.cluster.local.", OTHER),
        (SRV, "web.shop.svc.cluster.local.", OTHER),
        // Headless ones: their endpoints that are ready.
        (A, "db.shop.svc.cluster.local.", "10.244.1.5, 10.244.2.5, 10.244.3.6"),
        (AAAA, "db.shop.svc.cluster.local.", OTHER),
        (A, "idle.shop.svc.cluster.local.", OTHER),
        // Their endpoints by name.
        (A, "db-0.db.shop.svc.cluster.local.", "10.244.1.5"),
        (A, "10-244-3-6.db.shop.svc.cluster.local.", "10.244.3.6"),
        (A, "db-2.db.shop.svc.cluster.local.", NONE),
        (A, "10-244-1-9.web.shop.svc.cluster.local.", "10.244.1.9"),
        (SRV, "db-0.db.shop.svc.cluster.local.", OTHER),
        // Their ports.
        (
            SRV,
            "_http._tcp.web.shop.svc.cluster.local.",
            "0 100 80 web.shop.svc.cluster.local. + web.shop.svc.cluster.local. 10.96.0.7, \
             web.shop.svc.cluster.local. fd00:96::7",
        ),
        (SRV, "_http._udp.web.shop.svc.cluster.local.", NONE),
        (SRV, "_dns._tcp.web.shop.svc.cluster.local.", NONE),
        (SRV, "http.tcp.web.shop.svc.cluster.local.", NONE),
        (A, "_http._tcp.web.shop.svc.cluster.local.", OTHER),
        (A, "_udp.web.shop.svc.cluster.local.", BELOW),
        (A, "_sctp.web.shop.svc.cluster.local.", NONE),
        (A, "_tcp.db.shop.svc.cluster.local.", BELOW),
        (
            SRV,
            "_sql._tcp.db.shop.svc.cluster.local.",
            "0 100 5432 db-0.db.shop.svc.cluster.local., 0 100 5432 db-1.db.shop.svc.cluster.local., \
             0 100 5432 10-244-3-6.db.shop.svc.cluster.local. + db-0.db.shop.svc.cluster.local. 10.244.1.5, \
             db-1.db.shop.svc.cluster.local. 10.244.2.5, 10-244-3-6.db.shop.svc.cluster.local. 10.244.3.6",
        ),
        // Names for others.
        (A, "out.shop.svc.cluster.local.", "alias www.example.com."),
        (A, "number.shop.svc.cluster.local.", OTHER),
        (A, "_tcp.out.shop.svc.cluster.local.", NONE),
        // Pods.
        (A, "10-244-1-9.shop.pod.cluster.local.", "10.244.1.9"),
        (AAAA, "fd00--1-2.shop.pod.cluster.local.", "fd00::1:2"),
        (A, "10-73-0-1.shop.pod.cluster.local.", "10.73.0.1"),
        (A, "10-244-1-11.shop.pod.cluster.local.", NONE),
        (A, "10-244-1-9.empty.pod.cluster.local.", NONE),
        (A, "a.shop.pod.cluster.local.", NONE),
        // What is between.
        (A, "svc.cluster.local.", BELOW),
        (A, "pod.cluster.local.", BELOW),
        (A, "shop.svc.cluster.local.", BELOW),
        (A, "empty.svc.cluster.local.", BELOW),
        (A, "shop.pod.cluster.local.", BELOW),
        (A, "nowhere.svc.cluster.local.", NONE),
        (A, "web.nowhere.svc.cluster.local.", NONE),
        (A, "none.shop.svc.cluster.local.", NONE),
        (A, "*.shop.svc.cluster.local.", NONE),
        (A, "x.y.z.web.shop.svc.cluster.local.", NONE),
        (A, "x.gone.shop.svc.cluster.local.", NONE),
        (A, "gone.shop.svc.cluster.local.", NONE),
        (A, "other.cluster.local.", NONE),
        // The zone itself.
        (TXT, "dns-version.cluster.local.", "1.1.0"),
        (A, "dns-version.cluster.local.", OTHER),
        (NS, "cluster.local.", "ns.dns.cluster.local. + ns.dns.cluster.local. 10.96.0.10"),
        (A, "ns.dns.cluster.local.", "10.96.0.10"),
        (A, "dns.cluster.local.", BELOW),
        (A, "cluster.local.", OTHER),
        // Names of addresses.
        (PTR, "7.0.96.10.in-addr.arpa.", "web.shop.svc.cluster.local."),
        (PTR, "5.1.244.10.in-addr.arpa.", "db-0.db.shop.svc.cluster.local."),
        (PTR, "9.1.244.10.in-addr.arpa.", "10-244-1-9.web.shop.svc.cluster.local."),
        (PTR, "10.1.244.10.in-addr.arpa.", "nothing in 244.10.in-addr.arpa."),
        (A, "7.0.96.10.in-addr.arpa.", "other types in 96.10.in-addr.arpa."),
        (PTR, "8.0.96.10.in-addr.arpa.", "nothing in 96.10.in-addr.arpa."),
        (PTR, "0.96.10.in-addr.arpa.", "names below in 96.10.in-addr.arpa."),
        (NS, "96.10.in-addr.arpa.", "ns.dns.cluster.local. + ns.dns.cluster.local. 10.96.0.10"),
        (PTR, "1.7.0.96.10.in-addr.arpa.", "nothing in 96.10.in-addr.arpa."),
        (PTR, "07.0.96.10.in-addr.arpa.", "nothing in 96.10.in-addr.arpa."),
        (PTR, "1.0.247.10.in-addr.arpa.", "nothing in 247.10.in-addr.arpa."),
        (PTR, "1.0.248.10.in-addr.arpa.", "outside"),
        (PTR, "10.in-addr.arpa.", "outside"),
        (
            PTR,
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
            "web.shop.svc.cluster.local.",
        ),
        (
            PTR,
            "8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
            "nothing in 0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
        ),
        (PTR, "1.0.0.0.d.f.ip6.arpa.", "outside"),
        // Others' names.
        (A, "www.example.com.", "outside"),
        (A, "web.shop.svc.", "outside"),
        (A, "acluster.local.", "outside"),
        (A, ".", "outside"),
        (CNAME, "local.", "outside"),
    ] {
        assert_eq!(ask(&records, kind, name), expected, "{kind} {name}");
    }
    assert!(
        ask(&records, SOA, "cluster.local.").starts_with("ns.dns.cluster.local. hostmaster.cluster.local. ")
    );
}

#[test]
fn pods_have_names_as_they_are_set() {
    let names =
        ["10-244-1-9.shop.pod.cluster.local.", "10-1-1-1.shop.pod.cluster.local.", "pod.cluster.local."];
    for (mode, expected) in [
        (PodNames::Verified, ["10.244.1.9", NONE, BELOW]),
        (PodNames::Insecure, ["10.244.1.9", "10.1.1.1", BELOW]),
        (PodNames::Disabled, [NONE, NONE, NONE]),
    ] {
        let records = shop(mode);
        assert_eq!(names.map(|name| ask(&records, RecordType::A, name)), expected, "{mode:?}");
    }
    let insecure = shop(PodNames::Insecure);
    assert_eq!(ask(&insecure, RecordType::A, "10-1-1-1.nowhere.pod.cluster.local."), NONE);
}

#[test]
fn the_first_address_is_another_one_each_turn() {
    let records = shop(PodNames::Verified);
    let first = |turn| {
        let all = ask_at(&records, RecordType::A, "db.shop.svc.cluster.local.", turn);
        all.split(", ").next().unwrap().to_owned()
    };
    assert_eq!([0, 1, 2, 3].map(first), ["10.244.1.5", "10.244.2.5", "10.244.3.6", "10.244.1.5"]);
}

#[test]
fn the_namespace_of_an_address_is_that_of_its_one_pod() {
    let records = shop(PodNames::Verified);
    let at = |text: &str| records.namespace_at(text.parse().unwrap());
    assert_eq!(at("10.244.1.9"), Some("shop"));
    assert_eq!(at("10.73.0.1"), None, "a host's");
    assert_eq!(at("10.244.1.11"), None, "its pod has ended");
    assert_eq!(at("10.244.1.12"), None);
}

fn hosts(silent: &[&str]) -> Hosts {
    #[allow(clippy::disallowed_methods)] // Some instant; nothing depends on which.
    let now = std::time::Instant::now();
    let host = |name| Liveness { last_heard: now, silent: silent.contains(&name), incarnation: None };
    let all: BTreeMap<_, _> = ["n1", "n2", "n3"].map(|name| (name.to_owned(), host(name))).into();
    Hosts(all)
}

#[test]
fn endpoints_of_a_silent_host_are_gone_until_it_is_heard() {
    let mut records = shop(PodNames::Verified);
    let asked = [
        (RecordType::A, "db.shop.svc.cluster.local."),
        (RecordType::A, "db-0.db.shop.svc.cluster.local."),
        (RecordType::PTR, "5.1.244.10.in-addr.arpa."),
        (RecordType::A, "web.shop.svc.cluster.local."),
    ];
    let all = |records: &Records| asked.map(|(kind, name)| ask(records, kind, name));
    let before = all(&records);
    assert!(records.hosts(&hosts(&["n1"])));
    assert!(!records.hosts(&hosts(&["n1"])));
    assert_eq!(
        all(&records),
        ["10.244.2.5, 10.244.3.6", NONE, "nothing in 244.10.in-addr.arpa.", "10.96.0.7"]
    );
    let ports = ask(&records, RecordType::SRV, "_sql._tcp.db.shop.svc.cluster.local.");
    assert!(!ports.contains("db-0") && ports.contains("db-1"), "{ports}");
    records.hosts(&hosts(&[]));
    assert_eq!(all(&records), before);
}

/// What a history may do to one of a few objects.
#[derive(Debug, Clone)]
enum Step {
    Write((&'static str, &'static str), usize, Option<Value>),
    /// What came meanwhile is passed on.
    PassOn,
}

fn any_service() -> impl Strategy<Value = Value> {
    (0..3u8, 0..4u8).prop_map(|(kind, address)| {
        let spec = match kind {
            0 => json!({"clusterIP": format!("10.96.0.{address}"), "ports": [{"name": "http", "port": 80}]}),
            1 => json!({"clusterIP": "None"}),
            _ => json!({"type": "ExternalName", "externalName": "a.test"}),
        };
        json!({"metadata": {"namespace": "shop"}, "spec": spec})
    })
}

fn any_slice() -> impl Strategy<Value = Value> {
    let endpoint = (0..4u8, 1..3u8, any::<bool>(), prop::option::of(0..3u8));
    (0..3usize, prop::collection::vec(endpoint, 0..4)).prop_map(|(service, endpoints)| {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(last, node, ready, name)| {
                json!({"addresses": [format!("10.244.0.{last}")], "nodeName": format!("n{node}"),
                    "hostname": name.map(|name| format!("h{name}")), "conditions": {"ready": ready}})
            })
            .collect();
        slice(&format!("s{service}"), json!([{"name": "http", "port": 8080}]), json!(endpoints))
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    (0..3u8, any::<bool>(), any::<bool>()).prop_map(|(last, ended, on_host)| {
        let phase = if ended { "Failed" } else { "Running" };
        json!({"metadata": {"namespace": "shop"}, "spec": {"hostNetwork": on_host},
            "status": {"phase": phase, "podIP": format!("10.244.0.{last}")}})
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let option = prop::option::of::<BoxedStrategy<Value>>;
    prop_oneof![
        1 => (0..2usize, option(Just(json!({})).boxed())).prop_map(|(at, object)| Step::Write(NAMESPACE, at, object)),
        4 => (0..3usize, option(any_service().boxed())).prop_map(|(at, object)| Step::Write(SERVICE, at, object)),
        6 => (0..4usize, option(any_slice().boxed())).prop_map(|(at, object)| Step::Write(SLICE, at, object)),
        3 => (0..4usize, option(any_pod().boxed())).prop_map(|(at, object)| Step::Write(POD, at, object)),
        4 => Just(Step::PassOn),
    ]
}

proptest! {
    /// Whatever happened, in whatever pieces it was passed on: the names are those that are found from scratch, to the
    /// last pointer, and nothing is kept of what is gone.
    #[test]
    fn changes_lead_to_what_a_rebuild_finds(steps in prop::collection::vec(any_step(), 0..40)) {
        let store = Memory::default();
        let mut records = Records::new(zones(PodNames::Verified));
        let mut next = Revision::ZERO;
        for step in steps.into_iter().chain([Step::PassOn]) {
            match step {
                Step::Write(kind, at, object) => write(&store, kind, &format!("s{at}"), object.as_ref()),
                Step::PassOn => {
                    let state = store.snapshot();
                    let events: Vec<_> = state.events(next).collect();
                    records.apply(events.iter().copied());
                    next = state.revision().next();
                }
            }
        }
        let mut anew = Records::new(zones(PodNames::Verified));
        anew.load(&store.snapshot());
        // Changes of what has no name count for the state alone.
        anew.revision = records.revision;
        prop_assert_eq!(&records, &anew);
        for kind in kinds() {
            let keys: Vec<_> = store.snapshot().range(&KeyRange::prefix(kind)).map(|kv| kv.key.clone()).collect();
            for key in keys {
                store.txn(Txn { success: vec![Op::Delete(KeyRange::key(key))], ..Txn::default() }).now_or_never().unwrap().unwrap();
            }
        }
        let state = store.snapshot();
        let events: Vec<_> = state.events(next).collect();
        records.apply(events.iter().copied());
        prop_assert_eq!(Records { revision: Revision::ZERO, ..records }, Records::new(zones(PodNames::Verified)));
    }
}
