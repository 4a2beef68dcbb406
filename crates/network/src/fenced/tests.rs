//! A host that is fenced and one that goes on, each in a network namespace of the test's own.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use membership::lease::Epoch;
use tokio::task::JoinHandle;

use super::*;
use crate::netlink::tests::{in_namespace, ip};
use crate::pod_links::tests::{namespace, within as inside};

/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);
/// Nothing that is let through takes so long on one machine.
const LOST: Duration = Duration::from_millis(250);

fn host(n: u8) -> HostNetwork {
    HostNetwork { address: [10, 73, 0, n].into(), pods: format!("10.244.{n}.0/24").parse().unwrap() }
}

fn known(all: &[(&str, Epoch, Option<Epoch>)]) -> Arc<BTreeMap<String, Known>> {
    let known = |(name, epoch, fenced): &(&str, Epoch, Option<Epoch>)| {
        ((*name).to_owned(), Known { epoch: Some(*epoch), fenced: *fenced })
    };
    Arc::new(all.iter().map(known).collect())
}

#[test]
fn the_others_that_are_fenced_and_not_back_are_cut_off() {
    let hosts = BTreeMap::from([1, 2, 3, 4].map(|n| (format!("n{n}"), host(n))));
    let all = known(&[("n1", 5, Some(5)), ("n2", 5, Some(5)), ("n3", 6, Some(5)), ("gone", 5, Some(5))]);
    assert!(fenced("n1", &hosts, &all).keys().eq(["n2"]), "not itself, nor who is back, nor who isn't there");
    let promised_nothing = Arc::new(BTreeMap::from([("n2".to_owned(), Known::default())]));
    assert!(fenced("n1", &hosts, &promised_nothing).is_empty());
}

/// The namespace of the host n2, with the address of a pod on it, whose link leads to this one, n1.
fn two_hosts() -> OwnedFd {
    let other = namespace();
    let (number, here) = (other.as_raw_fd(), std::process::id());
    ip("link set lo up");
    ip("link add name eth0 type veth peer name far");
    ip(&format!("link set far netns /proc/{here}/fd/{number}"));
    for address in ["10.73.0.1/24", "10.73.0.100/32"] {
        ip(&format!("address add {address} dev eth0"));
    }
    for address in ["10.244.1.7/32", "10.96.0.5/32"] {
        ip(&format!("address add {address} dev lo"));
    }
    ip("link set eth0 up");
    ip("route add 10.244.2.0/24 via 10.73.0.2");
    inside(&other, || {
        ip("link set lo up");
        ip("link set far up");
        ip("address add 10.73.0.2/24 dev far");
        ip("address add 10.244.2.7/32 dev lo");
        for network in ["10.244.1.0/24", "10.96.0.0/16"] {
            ip(&format!("route add {network} via 10.73.0.1"));
        }
    });
    other
}

/// Whether a connection from one address of n2 to this one comes about.
fn connects(other: &OwnedFd, from: &str, to: &str, patience: Duration) -> bool {
    inside(other, || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
        socket.connect_timeout(&to.parse::<SocketAddr>().unwrap().into(), patience).is_ok()
    })
}

fn keep(known: watch::Receiver<Arc<BTreeMap<String, Known>>>, stop: &watch::Sender<bool>) -> JoinHandle<()> {
    let hosts = BTreeMap::from([1, 2].map(|n| (format!("n{n}"), host(n))));
    let fence = Fence {
        own: "n1".to_owned(),
        hosts: watch::Sender::new(Arc::new(hosts)).subscribe(),
        cut_off: CutOff { known, heartbeats: 2381, state: [6443, 2380].into() },
        networks: ["10.244.0.0/16", "10.96.0.0/16"].map(|network| network.parse().unwrap()),
    };
    tokio::spawn(fence.keep(stop.subscribe()))
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, wait).await.expect("in time");
}

fn has_rules() -> bool {
    nftables::rules_of(Family::Ipv4, TABLE, CHAIN).unwrap() > 0
}

#[test]
fn a_fenced_host_reaches_nobody_until_it_is_back_but_gets_at_the_state() {
    if !testing::has("ip") {
        return;
    }
    in_namespace("a_fenced_host_reaches_nobody", || async {
        let other = two_hosts();
        let _listeners = [80, 6443, 2380].map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap());
        let from_host =
            ["10.73.0.1:80", "10.73.0.100:80", "10.244.1.7:80", "10.244.1.7:6443", "10.96.0.5:6443"];
        let from_host = from_host.map(|to| ("10.73.0.2", to));
        let from_pod = ["10.73.0.1:6443", "10.244.1.7:80", "10.96.0.5:80", "10.73.0.100:6443"];
        let all: Vec<_> = from_host.into_iter().chain(from_pod.map(|to| ("10.244.2.7", to))).collect();
        for (from, to) in &all {
            assert!(connects(&other, from, to, SOON), "{from} to {to} before");
        }

        let leases = watch::Sender::new(known(&[("n2", 5, Some(5))]));
        let stop = watch::Sender::new(false);
        let keeping = keep(leases.subscribe(), &stop);
        until(has_rules).await;
        for (from, to) in &all {
            assert!(!connects(&other, from, to, LOST), "{from} reaches {to}");
        }
        for to in ["10.73.0.1:6443", "10.73.0.1:2380", "10.73.0.100:6443"] {
            assert!(connects(&other, "10.73.0.2", to, SOON), "{to}");
        }
        // It is asked for its state, too, and heard.
        let store = inside(&other, || TcpListener::bind("10.73.0.2:2380").unwrap());
        TcpStream::connect_timeout(&store.local_addr().unwrap(), SOON).unwrap();
        let ears = [2381, 2382].map(|port| UdpSocket::bind(("10.73.0.1", port)).unwrap());
        let mouth = inside(&other, || UdpSocket::bind("10.73.0.2:2381").unwrap());
        for ear in &ears {
            mouth.send_to(b"beat", ear.local_addr().unwrap()).unwrap();
        }
        for (ear, patience, is_heard) in [(&ears[0], SOON, true), (&ears[1], LOST, false)] {
            ear.set_read_timeout(Some(patience)).unwrap();
            assert_eq!(ear.recv(&mut [0; 8]).is_ok(), is_heard);
        }

        // Somebody empties nftables.
        nftables::transact(Family::Ipv4, &[remove_table(TABLE)]).unwrap();
        until(has_rules).await;

        leases.send_replace(known(&[("n2", 6, Some(5))]));
        until(|| !has_rules()).await;
        for (from, to) in &all {
            assert!(connects(&other, from, to, SOON), "{from} to {to} once it is back");
        }

        // None is left in the end; what a crash leaves is gone with the next life, if nobody is fenced then.
        leases.send_replace(known(&[("n2", 6, Some(6))]));
        until(has_rules).await;
        keeping.abort();
        assert!(keeping.await.unwrap_err().is_cancelled() && has_rules(), "a crash");
        leases.send_replace(known(&[("n2", 7, Some(6))]));
        let keeping = keep(leases.subscribe(), &stop);
        until(|| !has_rules()).await;
        leases.send_replace(known(&[("n2", 7, Some(7))]));
        until(has_rules).await;
        stop.send_replace(true);
        timeout(SOON, keeping).await.expect("in time").unwrap();
        assert!(!has_rules());
    });
}

#[test]
fn many_hosts_may_be_fenced_at_once() {
    in_namespace("many_hosts_may_be_fenced", || async {
        let hosts = (0..3_000u32).map(|n| {
            let pods = Ipv4Net::new((0x0a80_0000 + n * 256).into(), 24).unwrap();
            let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
            (format!("h{n}"), HostNetwork { address, pods: pods.into() })
        });
        let hosts: BTreeMap<_, _> = hosts.collect();
        let all = hosts.keys().map(|name| (name.clone(), Known { epoch: Some(1), fenced: Some(1) }));
        let known = watch::Sender::new(Arc::new(all.collect::<BTreeMap<_, _>>()));
        let fence = Fence {
            own: "n1".to_owned(),
            hosts: watch::Sender::new(Arc::new(hosts.clone())).subscribe(),
            cut_off: CutOff { known: known.subscribe(), heartbeats: 2381, state: [6443].into() },
            networks: ["10.244.0.0/16", "10.96.0.0/16"].map(|network| network.parse().unwrap()),
        };
        nftables::transact(Family::Ipv4, &fence.rules(&hosts)).unwrap();
        assert!(has_rules());
    });
}
