//! In network namespaces of the tests' own: one is the host, others are its pods.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use super::*;
use crate::netlink::tests::{in_namespace, pair};

/// A namespace as a pod's shim holds it.
pub(crate) fn namespace() -> OwnedFd {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap().into()
    });
    made.join().unwrap()
}

/// Does something in a namespace.
pub(crate) fn within<T: Send>(namespace: &OwnedFd, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            what()
        });
        there.join().unwrap()
    })
}

fn connect(to: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(20))
}

/// Who came to a listener.
fn caller(listener: &TcpListener) -> IpAddr {
    listener.accept().unwrap().1.ip()
}

/// A host with pods' and services' addresses of its own, as [`Network`](crate::Network) makes one.
pub(crate) async fn host() -> (Netlink, PodLinks) {
    let netlink = Netlink::open().unwrap();
    pair(&netlink).await;
    let loopback = netlink.loopback().await.unwrap();
    netlink.make_local("10.244.1.0/24".parse().unwrap(), loopback).await.unwrap();
    netlink.make_local("10.96.0.0/16".parse().unwrap(), loopback).await.unwrap();
    (netlink, links().await)
}

/// The links of a host's pods, for a program that just started.
pub(crate) async fn links() -> PodLinks {
    let [pods, cluster] = ["10.244.1.0/24", "10.244.0.0/16"].map(|network| network.parse().unwrap());
    PodLinks::open(pods, cluster, "eth0").await.unwrap()
}

/// The names that the host hears when the pod 10.244.1.2 sends in many, its own the last of them.
pub(crate) async fn heard(pod: &OwnedFd) -> Vec<IpAddr> {
    let ear = UdpSocket::bind("10.73.0.1:9").unwrap();
    ear.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let inside = Netlink::open_in(pod).await.unwrap();
    let link = inside.link(POD_LINK).await.unwrap();
    // Another pod, one of another host's, a service, somebody outside; and then itself.
    let names: [[u8; 4]; 5] =
        [[10, 244, 1, 3], [10, 244, 2, 2], [10, 96, 0, 5], [192, 0, 2, 1], [10, 244, 1, 2]];
    for name in names {
        inside.add_address(link, name.into()).await.unwrap();
        within(pod, || {
            let mouth = UdpSocket::bind(SocketAddr::from((name, 0))).unwrap();
            mouth.send_to(b"hi", "10.73.0.1:9").unwrap();
        });
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&address(2)) {
        heard.push(ear.recv_from(&mut [0; 8]).unwrap().1.ip());
    }
    heard
}

pub(crate) fn address(last: u8) -> IpAddr {
    [10, 244, 1, last].into()
}

#[test]
fn pods_have_ports_of_their_own_and_reach_each_other_and_the_host() {
    in_namespace("pods_have_ports_of_their_own", || async {
        let (netlink, links) = host().await;
        let (a, b) = (namespace(), namespace());
        for _ in 0..2 {
            links.connect(address(2), a.try_clone().unwrap()).await.unwrap();
            links.connect(address(3), b.try_clone().unwrap()).await.unwrap();
        }
        let everywhere = || TcpListener::bind("0.0.0.0:80").unwrap();
        let (at_a, at_b, at_host) = (within(&a, everywhere), within(&b, everywhere), everywhere());
        connect("10.244.1.2:80").unwrap();
        assert_eq!(caller(&at_a), IpAddr::from([10, 73, 0, 1]));
        within(&a, || connect("10.244.1.3:80")).unwrap();
        assert_eq!(caller(&at_b), address(2));
        within(&a, || connect("127.0.0.1:80")).unwrap();
        assert_eq!(caller(&at_a), IpAddr::from(Ipv4Addr::LOCALHOST), "its own");
        // A service, and the host itself.
        for of_host in ["10.96.0.5:80", "10.73.0.1:80"] {
            within(&b, || connect(of_host)).unwrap();
            assert_eq!(caller(&at_host), address(3), "{of_host}");
        }
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let refused = |of: &str| {
            let error = within(&a, || connect(of)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{of}");
        };
        refused(&own);
        // Nobody's: the host itself answers, where it listens on all addresses.
        refused("10.244.1.9:81");

        links.remove(address(2)).await.unwrap();
        links.remove(address(2)).await.unwrap();
        assert!(matches!(netlink.link("pod0af40102").await, Err(Error::NoLink(_))));
        drop(at_host);
        assert_eq!(connect("10.244.1.2:80").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(within(&a, || connect("10.244.1.3:80")).is_err(), "cut off");
        // With the namespace its links go, too.
        drop((at_b, b));
        while netlink.link("pod0af40103").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_pod_sends_in_no_name_but_its_own() {
    in_namespace("a_pod_sends_in_no_name_but_its_own", || async {
        // As Ubuntu sets it: the looser of this and of what a link says counts.
        write(&format!("{SETTINGS}/all/rp_filter"), "2").unwrap();
        let (_, links) = host().await;
        assert_eq!(read(&format!("{SETTINGS}/all/rp_filter")).unwrap(), "0");
        assert_eq!(read(&format!("{SETTINGS}/eth0/rp_filter")).unwrap(), "2", "as loose as it was");
        assert_eq!(read(FORWARDING).unwrap(), "1");
        let (a, b) = (namespace(), namespace());
        links.connect(address(2), a.try_clone().unwrap()).await.unwrap();
        links.connect(address(3), b.try_clone().unwrap()).await.unwrap();
        assert_eq!(heard(&a).await, [address(2)], "the others were sent before");
    });
}

#[test]
fn what_is_whole_stays_and_what_is_not_is_made_anew() {
    in_namespace("what_is_whole_stays", || async {
        let (netlink, links) = host().await;
        let a = namespace();
        let of = || a.try_clone().unwrap();
        // One that died in the middle of it.
        let (near, far) = (
            End { name: "pod0af40102", hardware: GATEWAY_HARDWARE },
            End { name: POD_LINK, hardware: [2, 0, 0, 0, 0, 1] },
        );
        netlink.add_pair(near, far, &a, None).await.unwrap();
        links.connect(address(2), of()).await.unwrap();
        let first = netlink.link("pod0af40102").await.unwrap();
        let everywhere = || TcpListener::bind("0.0.0.0:80").unwrap();
        let at_a = within(&a, everywhere);
        // What the pod did to its side is its own affair; the host's is put right.
        let inside = Netlink::open_in(&a).await.unwrap();
        let link = inside.link(POD_LINK).await.unwrap();
        inside.add_address(link, [192, 0, 2, 7].into()).await.unwrap();
        write(&format!("{SETTINGS}/pod0af40102/rp_filter"), "0").unwrap();
        links.connect(address(2), of()).await.unwrap();
        assert_eq!(netlink.link("pod0af40102").await.unwrap(), first);
        assert!(inside.has_address(link, [192, 0, 2, 7].into()).await.unwrap());
        assert_eq!(read(&format!("{SETTINGS}/pod0af40102/rp_filter")).unwrap(), "1");
        connect("10.244.1.2:80").unwrap();
        caller(&at_a);

        // Its shim died, and what is left of the former namespace isn't gone yet.
        let later = namespace();
        links.connect(address(2), later.try_clone().unwrap()).await.unwrap();
        let at_later = within(&later, everywhere);
        connect("10.244.1.2:80").unwrap();
        caller(&at_later);

        let foreign = links.connect([10, 244, 2, 2].into(), of()).await;
        assert!(matches!(foreign, Err(Error::ForeignAddress { .. })), "{foreign:?}");
    });
}

#[test]
fn those_who_connect_one_pod_side_by_side_wait_for_each_other() {
    in_namespace("those_who_connect_one_pod_side_by_side", || async {
        let (_, links) = host().await;
        // One of a namespace that is gone, as it is left for a moment when a shim dies.
        links.connect(address(2), namespace()).await.unwrap();
        let a = namespace();
        let at_a = within(&a, || TcpListener::bind("0.0.0.0:80").unwrap());
        let connected = || links.connect(address(2), a.try_clone().unwrap());
        let (one, two, three) = tokio::join!(connected(), connected(), connected());
        one.and(two).and(three).unwrap();
        connect("10.244.1.2:80").unwrap();
        caller(&at_a);
        // Nor does one that connects find half of what another removes.
        let (removed, made) = tokio::join!(links.remove(address(2)), connected());
        removed.and(made).unwrap();
        connect("10.244.1.2:80").unwrap();
        caller(&at_a);
    });
}
