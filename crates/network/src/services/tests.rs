use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{KeyRange, Memory, Op, Revision, Store, Txn};

use super::*;
use crate::Targets;

const SERVICE: (&str, &str) = ("", "services");
const SLICE: (&str, &str) = ("discovery.k8s.io", "endpointslices");
const NODE: (&str, &str) = ("", "nodes");

/// Writes an object, or deletes it.
fn write(store: &Memory, (group, resource): (&str, &str), name: &str, object: Option<&Value>) {
    let namespace = if (group, resource) == NODE { "" } else { "default" };
    let key = objects::key(group, resource, namespace, name);
    let txn = match object {
        Some(object) => Txn::put(key, object.to_string()),
        None => Txn { success: vec![Op::Delete(KeyRange::key(key))], ..Txn::default() },
    };
    store.txn(txn).now_or_never().expect("a store in memory waits for nothing").unwrap();
}

/// What a directory that has just begun says of a store.
fn from_scratch(store: &Memory) -> (Services, Directory) {
    let mut directory = Directory::new("n1", Targets::default());
    directory.load(&store.snapshot());
    let mut services = Services::default();
    directory.changes().iter().for_each(|change| drop(services.apply(change)));
    (services, directory)
}

fn store_of(services: &Value, slices: &Value) -> Memory {
    let store = Memory::default();
    for (kind, objects) in [(SERVICE, services), (SLICE, slices)] {
        for object in objects.as_array().unwrap() {
            write(&store, kind, object["metadata"]["name"].as_str().unwrap(), Some(object));
        }
    }
    store
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}

fn endpoint(address: &str, node: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}

fn web() -> (Services, Directory) {
    from_scratch(&store_of(
        &json!([
            {"metadata": {"name": "web", "namespace": "default"}, "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
                "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "sctp", "port": 54, "protocol": "SCTP"},
                ]}},
            {"metadata": {"name": "headless", "namespace": "default"},
             "spec": {"clusterIP": "None", "ports": [{"port": 80}]}},
            {"metadata": {"name": "elsewhere", "namespace": "default"},
             "spec": {"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}},
        ]),
        &json!([
            slice(
                "web-1",
                "web",
                json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]),
                json!([
                    endpoint("10.244.1.7", "n1", json!({"ready": true})),
                    endpoint("10.244.2.7", "n2", json!({})),
                    endpoint("10.244.2.8", "n2", json!({"ready": false})),
                    endpoint(
                        "10.244.3.7",
                        "n3",
                        json!({"ready": false, "serving": true, "terminating": true})
                    ),
                    endpoint(
                        "10.244.3.8",
                        "n3",
                        json!({"ready": false, "serving": false, "terminating": true})
                    ),
                    endpoint("not an address", "n3", json!({})),
                ])
            ),
            slice(
                "web-2",
                "web",
                json!([{"name": "http", "port": 8080}]),
                json!([endpoint("10.244.1.7", "n1", json!({"ready": true}))])
            ),
            slice(
                "other",
                "other",
                json!([{"name": "http", "port": 8080}]),
                json!([endpoint("10.244.1.9", "n1", json!({}))])
            ),
        ]),
    ))
}

#[test]
fn a_port_has_the_endpoints_of_its_name_that_may_be_used() {
    let (services, _) = web();
    let http = services.find("default", "web", "http").unwrap();
    let endpoints: Vec<_> =
        http.endpoints.iter().map(|b| (b.address.to_string(), b.node.as_deref().unwrap(), b.ready)).collect();
    assert_eq!(
        endpoints,
        [
            ("10.244.1.7:8080".to_owned(), "n1", true),
            ("10.244.2.7:8080".to_owned(), "n2", true),
            ("10.244.3.7:8080".to_owned(), "n3", false),
        ]
    );
    assert_eq!(http.addresses, ["10.96.0.5".parse::<IpAddr>().unwrap()]);
    assert_eq!((http.node_port, http.affinity), (Some(30080), Some(Duration::from_secs(10_800))));
    assert!(http.external_local && !http.internal_local);
    let dns = services.find("default", "web", "dns").unwrap();
    assert_eq!(
        (dns.protocol, dns.endpoints.len(), dns.endpoints[0].address.port()),
        (Protocol::Udp, 3, 5353)
    );
}

#[test]
fn a_port_is_found_by_name_by_number_and_alone() {
    let (services, _) = web();
    let find = |service, port| services.find("default", service, port).map(|port| port.number);
    assert_eq!(find("web", "http"), Some(80));
    assert_eq!(find("web", "53"), Some(53));
    assert_eq!(find("web", "99"), None);
    assert_eq!(find("web", ""), None, "there are two");
    assert_eq!(find("headless", ""), Some(80));
    assert_eq!(find("headless", "80"), Some(80));
    assert_eq!(find("elsewhere", "80"), None);
    assert_eq!(services.find("other", "web", "http"), None);
    assert!(services.find("default", "headless", "").unwrap().addresses.is_empty());
}

#[test]
fn hints_are_read_as_seen_from_this_host() {
    let hinted = |address: &str, hints: Value| {
        let mut endpoint = endpoint(address, "n2", json!({}));
        endpoint["hints"] = hints;
        endpoint
    };
    let store = store_of(
        &json!([{"metadata": {"name": "web", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}]),
        &json!([slice(
            "web-1",
            "web",
            json!([{"port": 8080}]),
            json!([
                hinted("10.244.1.1", json!({"forZones": [{"name": "b"}, {"name": "a"}]})),
                hinted("10.244.1.2", json!({"forZones": [{"name": "b"}], "forNodes": [{"name": "n2"}]})),
                hinted("10.244.1.3", json!({"forZones": [{"name": ""}], "forNodes": [{"name": "n1"}]})),
                endpoint("10.244.1.4", "n2", json!({})),
            ])
        )]),
    );
    let (mut services, mut directory) = from_scratch(&store);
    let hints = |services: &Services| {
        let port = services.find("default", "web", "").unwrap();
        port.endpoints.iter().map(|endpoint| (endpoint.hints.node, endpoint.hints.zone)).collect::<Vec<_>>()
    };
    let (missing, elsewhere, here) = (Hint::Missing, Hint::Elsewhere, Hint::Here);
    let nodes = [missing, elsewhere, here, missing];
    let expected = |zones: [Hint; 4]| nodes.into_iter().zip(zones).collect::<Vec<_>>();
    assert_eq!(hints(&services), expected([elsewhere, elsewhere, elsewhere, missing]), "it is in no zone");

    let from = store.snapshot().revision().next();
    write_node(&store, "n2", Some("b"));
    write_node(&store, "n1", Some("a"));
    store.snapshot().events(from).for_each(|event| directory.apply(event));
    let changes = directory.changes();
    assert_eq!(changes.len(), 1);
    services.apply(&changes[0]);
    assert_eq!(hints(&services), expected([here, elsewhere, elsewhere, missing]));
    // A host that starts finds its zone there.
    assert_eq!(from_scratch(&store).0, services);
}

#[test]
fn a_hosts_endpoints_are_counted_once_a_service() {
    let (_, directory) = web();
    let count = |node| directory.endpoints_on(node);
    assert_eq!((count("n1"), count("n2"), count("n3"), count("n4")), (1, 1, 1, 0));
}

/// What a history may do to one of a few objects.
#[derive(Debug, Clone)]
enum Step {
    Service(usize, Option<Value>),
    Slice(usize, Option<Value>),
    /// One of two nodes, the first of which is the host's own, is in this zone now, or in none.
    Node(usize, Option<&'static str>),
    /// What came meanwhile is passed on.
    PassOn,
    /// The history was cut: everything is read again.
    Reload,
}

fn any_service() -> impl Strategy<Value = Value> {
    let ports = prop::sample::subsequence(vec!["http", "dns"], 0..=2);
    (ports, 0..3u8, any::<bool>()).prop_map(|(ports, address, external)| {
        let ports: Vec<_> = ports.iter().map(|name| json!({"name": name, "port": 80 + name.len()})).collect();
        let kind = if external { "ExternalName" } else { "ClusterIP" };
        json!({"metadata": {"namespace": "default"},
            "spec": {"type": kind, "clusterIP": format!("10.96.0.{address}"), "ports": ports}})
    })
}

fn any_slice() -> impl Strategy<Value = Value> {
    let named = || prop::option::of(prop::sample::select(vec!["n1", "n2", "a", "b"]));
    let endpoints = prop::collection::vec((0..4u8, 1..4u8, any::<bool>(), named(), named()), 0..4);
    (0..3usize, prop::sample::subsequence(vec!["http", "dns"], 0..=2), endpoints).prop_map(
        |(service, ports, endpoints)| {
            let ports: Vec<_> = ports.iter().map(|name| json!({"name": name, "port": 8080})).collect();
            let endpoints: Vec<_> = endpoints
                .iter()
                .map(|(last, node, ready, for_node, for_zone)| {
                    let conditions = json!({"ready": ready});
                    let mut endpoint = endpoint(&format!("10.244.0.{last}"), &format!("n{node}"), conditions);
                    let names = |name: &Option<&str>| name.map(|name| json!([{"name": name}]));
                    endpoint["hints"] = json!({"forNodes": names(for_node), "forZones": names(for_zone)});
                    endpoint
                })
                .collect();
            slice("", &format!("s{service}"), json!(ports), json!(endpoints))
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, prop::option::of(any_service())).prop_map(|(at, object)| Step::Service(at, object)),
        6 => (0..4usize, prop::option::of(any_slice())).prop_map(|(at, object)| Step::Slice(at, object)),
        2 => (0..2usize, prop::option::of(prop::sample::select(vec!["a", "b", ""])))
            .prop_map(|(at, zone)| Step::Node(at, zone)),
        4 => Just(Step::PassOn),
        1 => Just(Step::Reload),
    ]
}

proptest! {
    /// Whatever happened, in whatever pieces it was passed on: the changes lead to what a rebuild from scratch finds, and
    /// none of them says what was known.
    #[test]
    fn changes_lead_to_what_a_rebuild_finds(steps in prop::collection::vec(any_step(), 0..40)) {
        let store = Memory::default();
        let mut directory = Directory::new("n1", Targets::default());
        let mut services = Services::default();
        let mut next = Revision::ZERO;
        let pass_on = |directory: &mut Directory, services: &mut Services, next: &mut Revision| {
            let state = store.snapshot();
            state.events(*next).for_each(|event| directory.apply(event));
            *next = state.revision().next();
            let mut names = BTreeSet::new();
            for change in directory.changes() {
                let before = services.clone();
                services.apply(&change);
                assert_ne!(&before, services, "no news: {change:?}");
                let id = match change {
                    ServiceChange::Served(served) => served.id.clone(),
                    ServiceChange::Gone(id) => id,
                    ServiceChange::Silent(_) | ServiceChange::Heard(_) => panic!("no host changed"),
                };
                assert!(names.insert(id), "each Service at most once");
            }
        };
        for step in steps.into_iter().chain([Step::PassOn]) {
            match step {
                Step::Service(at, object) => write_named(&store, SERVICE, &format!("s{at}"), object),
                Step::Slice(at, object) => write_named(&store, SLICE, &format!("e{at}"), object),
                Step::Node(at, zone) => write_node(&store, ["n1", "n2"][at], zone),
                Step::PassOn => pass_on(&mut directory, &mut services, &mut next),
                Step::Reload => {
                    let state = store.snapshot();
                    directory.load(&state);
                    next = state.revision().next();
                }
            }
        }
        let (wanted, other) = from_scratch(&store);
        prop_assert_eq!(&services, &wanted);
        for node in ["n1", "n2", "n3"] {
            prop_assert_eq!(directory.endpoints_on(node), other.endpoints_on(node));
        }
        prop_assert!(directory.keeps_nothing_idle());
    }
}

fn write_node(store: &Memory, name: &str, zone: Option<&str>) {
    let node =
        zone.map(|zone| json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}));
    write(store, NODE, name, node.as_ref());
}

fn write_named(store: &Memory, kind: (&str, &str), name: &str, object: Option<Value>) {
    let named = object.map(|mut object| {
        object["metadata"]["name"] = json!(name);
        object
    });
    write(store, kind, name, named.as_ref());
}

#[test]
fn hosts_that_fall_silent_and_are_heard_again_are_changes_too() {
    #[allow(clippy::disallowed_methods)] // Some instant; nothing depends on which.
    let now = std::time::Instant::now();
    let hosts = |silent: &[&str]| {
        let host = |name| membership::Liveness {
            last_heard: now,
            silent: silent.contains(&name),
            incarnation: None,
        };
        let all: BTreeMap<_, _> = ["n2", "n3"].map(|name| (name.to_owned(), host(name))).into();
        membership::Hosts(all)
    };
    let mut directory = Directory::new("n1", Targets::default());
    directory.hosts(&hosts(&["n2"]));
    directory.hosts(&hosts(&["n2"]));
    assert_eq!(directory.changes(), [ServiceChange::Silent("n2".into())]);
    directory.hosts(&hosts(&["n3"]));
    assert_eq!(directory.changes(), [ServiceChange::Silent("n3".into()), ServiceChange::Heard("n2".into())]);
    assert_eq!(directory.changes(), []);
}
