use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Hint, Hints, Protocol, ServiceId};

#[allow(clippy::disallowed_methods)] // Some instant to count from; nothing depends on which.
fn start() -> Instant {
    Instant::now()
}

/// Endpoints on the given hosts: the number of each is its address' last byte and its position.
fn port(hosts: &[&str]) -> ServicePort {
    let endpoint = |(number, host): (usize, &&str)| Endpoint {
        address: ([10, 244, 0, number as u8], 80).into(),
        node: Some((*host).into()),
        ready: true,
        hints: Hints::default(),
    };
    ServicePort {
        id: PortId {
            service: ServiceId { namespace: "default".into(), name: "web".into() },
            port: String::new(),
        },
        protocol: Protocol::Tcp,
        number: 80,
        addresses: vec![[10, 96, 0, 5].into()],
        node_port: Some(30080),
        balanced: Vec::new(),
        sources: Default::default(),
        affinity: None,
        internal_local: false,
        external_local: false,
        endpoints: hosts.iter().enumerate().map(endpoint).collect(),
    }
}

fn numbers(order: &[Endpoint]) -> Vec<u8> {
    let last = |endpoint: &Endpoint| match endpoint.address.ip() {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(_) => unreachable!("only IPv4 here"),
    };
    order.iter().map(last).collect()
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

#[test]
fn callers_from_elsewhere_find_nobody_at_an_address_from_outside() {
    let (port, now) = (port(&["n1", "n2"]), start());
    let port = ServicePort { sources: ["10.0.0.0/24".parse().unwrap()].into(), external_local: true, ..port };
    let mut balancer = Balancer::new("n1");
    let mut order = |scope, client: Option<&str>| {
        let client = client.map(|client| client.parse().unwrap());
        numbers(&balancer.order(&port, scope, client, |_| false, now))
    };
    assert_eq!(
        order(Scope::Balanced, Some("10.0.0.9")),
        [0],
        "and its own endpoints alone where the Service says so"
    );
    assert_eq!(order(Scope::Balanced, Some("::ffff:10.0.0.9")), [0]);
    assert!(order(Scope::Balanced, Some("10.0.1.9")).is_empty() && order(Scope::Balanced, None).is_empty());
    assert_eq!(order(Scope::External, Some("10.0.1.9")), [0], "node ports are no matter of it");
}

#[test]
fn endpoints_are_taken_in_turn_and_those_of_silent_hosts_not_at_all() {
    let (port, now) = (port(&["n1", "n2", "n3"]), start());
    let mut balancer = Balancer::new("n1");
    let mut order = |silent: &str| {
        numbers(&balancer.order(&port, Scope::Internal, Some(CLIENT), |node| node == silent, now))
    };
    assert_eq!(order(""), [0, 1, 2]);
    assert_eq!(order(""), [1, 2, 0]);
    assert_eq!(order("n3"), [0, 1], "the turn goes on among the rest");
    assert_eq!(order("n3"), [1, 0]);
    assert_eq!(order(""), [2, 0, 1]);
}

#[test]
fn with_a_local_policy_only_this_hosts_endpoints_serve() {
    let now = start();
    let mut port = port(&["n1", "n2"]);
    (port.internal_local, port.external_local) = (true, false);
    let mut balancer = Balancer::new("n2");
    assert_eq!(numbers(&balancer.order(&port, Scope::Internal, None, |_| false, now)), [1]);
    assert_eq!(balancer.order(&port, Scope::External, None, |_| false, now).len(), 2);
    let mut balancer = Balancer::new("n3");
    assert_eq!(balancer.order(&port, Scope::Internal, None, |_| false, now), []);
}

#[test]
fn those_near_take_turns_and_the_rest_is_for_when_none_of_them_answers() {
    let (mut port, now) = (port(&["n1", "n2", "n3", "n4"]), start());
    port.endpoints[0].hints.zone = Hint::Elsewhere;
    port.endpoints[1].hints.zone = Hint::Here;
    port.endpoints[2].hints.zone = Hint::Elsewhere;
    port.endpoints[3].hints.zone = Hint::Here;
    let mut balancer = Balancer::new("n2");
    let mut order = |port: &ServicePort, scope, silent: &[&str]| {
        numbers(&balancer.order(port, scope, None, |node| silent.contains(&node), now))
    };
    assert_eq!(order(&port, Scope::Internal, &[]), [1, 3, 0, 2]);
    assert_eq!(order(&port, Scope::External, &[]), [3, 1, 2, 0], "also for those from outside");
    assert_eq!(order(&port, Scope::Internal, &["n2"]), [3, 0, 2]);
    assert_eq!(order(&port, Scope::Internal, &["n2", "n4"]), [2, 0], "nobody near is alive");

    port.external_local = true;
    assert_eq!(order(&port, Scope::External, &[]), [1], "what has to be local is no matter of zones");
    port.endpoints[2].hints.zone = Hint::Missing;
    assert_eq!(order(&port, Scope::Internal, &[]).len(), 4);
    let firsts: Vec<_> = (0..4).map(|_| order(&port, Scope::Internal, &[])[0]).collect();
    assert_eq!(
        firsts.iter().collect::<std::collections::BTreeSet<_>>().len(),
        4,
        "not all have a hint: {firsts:?}"
    );
    // A hint that is missing where nobody is ready doesn't count.
    port.endpoints[2].ready = false;
    assert_eq!(order(&port, Scope::Internal, &[]).len(), 3);
    let firsts: Vec<_> = (0..4).map(|_| order(&port, Scope::Internal, &[])[0]).collect();
    assert!(firsts.iter().all(|first| [1, 3].contains(first)), "{firsts:?}");
}

#[test]
fn a_client_sticks_to_one_near_it() {
    let (mut port, now) = (port(&["n1", "n2", "n3"]), start());
    port.affinity = Some(Duration::from_secs(10));
    let mut balancer = Balancer::new("n2");
    balancer.served(&port, CLIENT, port.endpoints[2].address, now);
    for (at, hint) in [Hint::Elsewhere, Hint::Here, Hint::Elsewhere].into_iter().enumerate() {
        port.endpoints[at].hints.node = hint;
    }
    let order = numbers(&balancer.order(&port, Scope::Internal, Some(CLIENT), |_| false, now));
    assert_eq!(order[0], 1, "its own is far now");
    balancer.served(&port, CLIENT, port.endpoints[1].address, now);
    port.endpoints[0].hints.node = Hint::Here;
    for _ in 0..3 {
        let order = numbers(&balancer.order(&port, Scope::Internal, Some(CLIENT), |_| false, now));
        assert_eq!(order[0], 1);
    }
}

#[test]
fn terminating_endpoints_serve_only_while_nobody_is_ready() {
    let now = start();
    let mut port = port(&["n1", "n2", "n3"]);
    port.endpoints[0].ready = false;
    port.endpoints[1].ready = false;
    let mut balancer = Balancer::new("n1");
    assert_eq!(numbers(&balancer.order(&port, Scope::Internal, None, |_| false, now)), [2]);
    let rest = balancer.order(&port, Scope::Internal, None, |node| node == "n3", now);
    assert_eq!(rest.len(), 2, "the only ready one is on a silent host");
}

#[test]
fn a_client_sticks_to_its_endpoint_until_that_is_gone_or_time_is_up() {
    let start = start();
    let mut port = port(&["n1", "n2", "n3"]);
    port.affinity = Some(Duration::from_secs(10));
    let mut balancer = Balancer::new("n1");
    balancer.served(&port, CLIENT, port.endpoints[1].address, start);
    for seconds in [0, 5, 9] {
        let now = start + Duration::from_secs(seconds);
        let order = balancer.order(&port, Scope::Internal, Some(CLIENT), |_| false, now);
        assert_eq!(numbers(&order)[0], 1);
    }
    let gone = balancer.order(&port, Scope::Internal, Some(CLIENT), |node| node == "n2", start);
    assert_eq!(numbers(&gone), [0, 2]);
    let late = start + Duration::from_secs(10);
    assert_eq!(numbers(&balancer.order(&port, Scope::Internal, Some(CLIENT), |_| false, late))[0], 1);
    assert_eq!(numbers(&balancer.order(&port, Scope::Internal, Some(CLIENT), |_| false, late))[0], 2);
}

#[test]
fn clients_without_end_take_no_memory_without_end() {
    let start = start();
    let mut port = port(&["n1"]);
    port.affinity = Some(Duration::from_secs(3600));
    let mut balancer = Balancer::new("n1");
    for number in 0..2 * CLIENTS as u32 {
        let now = start + Duration::from_millis(number.into());
        balancer.served(&port, IpAddr::V4(number.into()), port.endpoints[0].address, now);
    }
    let clients = &balancer.turns[&port.id].clients;
    assert_eq!(clients.len(), CLIENTS);
    assert!(clients.contains_key(&IpAddr::V4((2 * CLIENTS as u32 - 1).into())), "the newest is kept");
    balancer.forget(&port.id);
    assert!(balancer.turns.is_empty());
}

proptest! {
    /// Every order is a permutation of the live endpoints, and the firsts are even to ±1 as long as the same
    /// ones are live.
    #[test]
    fn turns_are_even(
        hosts in prop::collection::vec(prop::sample::select(vec!["n1", "n2", "n3"]), 0..20),
        silent in prop::sample::subsequence(vec!["n1", "n2", "n3"], 0..=3),
        before in 0..50usize,
        asks in 0..200usize,
    ) {
        let (port, now) = (port(&hosts), start());
        let mut balancer = Balancer::new("n1");
        for _ in 0..before {
            balancer.order(&port, Scope::Internal, None, |_| false, now);
        }
        let live: Vec<u8> = (0..hosts.len()).filter(|at| !silent.contains(&hosts[*at])).map(|at| at as u8).collect();
        let mut firsts: BTreeMap<u8, usize> = live.iter().map(|number| (*number, 0)).collect();
        for _ in 0..asks {
            let order = numbers(&balancer.order(&port, Scope::Internal, None, |node| silent.contains(&node), now));
            if let Some(first) = order.first() {
                *firsts.get_mut(first).expect("a live one") += 1;
            }
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &live);
        }
        let (least, most) = (firsts.values().min(), firsts.values().max());
        prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{:?}", firsts);
    }

    /// The first to try is always one whom kube-proxy would take, all of those have their turn, and nobody who lives is left out.
    #[test]
    fn the_first_is_whom_upstream_takes(
        endpoints in prop::collection::vec((any_hint(), any_hint(), any::<bool>()), 1..8),
        before in 0..9usize,
    ) {
        let (mut port, now) = (port(&vec!["n1"; endpoints.len()]), start());
        for (endpoint, (node, zone, ready)) in port.endpoints.iter_mut().zip(&endpoints) {
            (endpoint.hints, endpoint.ready) = (Hints { node: *node, zone: *zone }, *ready);
        }
        let ready: Vec<usize> = (0..endpoints.len()).filter(|at| endpoints[*at].2).collect();
        let near = |hint: fn(&(Hint, Hint, bool)) -> Hint| {
            let all_have = ready.iter().all(|at| hint(&endpoints[*at]) != Hint::Missing);
            let here: Vec<_> = ready.iter().copied().filter(|at| hint(&endpoints[*at]) == Hint::Here).collect();
            Some(here).filter(|here| all_have && !here.is_empty())
        };
        let all = if ready.is_empty() { (0..endpoints.len()).collect() } else { ready.clone() };
        let wanted = near(|hints| hints.0).or_else(|| near(|hints| hints.1)).unwrap_or_else(|| all.clone());
        let mut balancer = Balancer::new("n1");
        for _ in 0..before {
            balancer.order(&port, Scope::Internal, None, |_| false, now);
        }
        let mut firsts = BTreeMap::<usize, usize>::new();
        for _ in 0..wanted.len() {
            let mut order = numbers(&balancer.order(&port, Scope::Internal, None, |_| false, now));
            *firsts.entry(order[0].into()).or_default() += 1;
            order.sort_unstable();
            prop_assert_eq!(order, all.iter().map(|at| *at as u8).collect::<Vec<_>>());
        }
        prop_assert_eq!(firsts.into_iter().collect::<Vec<_>>(), wanted.iter().map(|at| (*at, 1)).collect::<Vec<_>>());
    }
}

fn any_hint() -> impl Strategy<Value = Hint> {
    prop_oneof![1 => Just(Hint::Missing), 4 => Just(Hint::Elsewhere), 2 => Just(Hint::Here)]
}
