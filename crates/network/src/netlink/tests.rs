//! In a network namespace of the test's own.

use std::mem::MaybeUninit;
use std::net::TcpListener as StdListener;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVeth;
use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::arp;
use crate::listen_before_held;

/// Runs a test on a thread with a network namespace of its own; where that isn't permitted, says so.
pub(crate) fn in_namespace<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) {
    let permitted = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
        nix::Result::Ok(())
    });
    match permitted.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => testing::skip("netns", format_args!("{name}: no network namespace ({error})")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `ip` in the namespace of the thread that calls.
pub(crate) fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A pair of links, `eth0` with the address 10.73.0.1/24 and `far`, both on.
pub(crate) async fn pair(netlink: &Netlink) -> (Link, Link) {
    netlink.handle.link().add(LinkVeth::new("eth0", "far").build()).execute().await.unwrap();
    let links = (netlink.link("eth0").await.unwrap(), netlink.link("far").await.unwrap());
    for link in [links.0, links.1] {
        let up = LinkUnspec::new_with_index(link.index).up().build();
        netlink.handle.link().set(up).execute().await.unwrap();
    }
    let address = [10, 73, 0, 1].into();
    netlink.handle.address().add(links.0.index, address, 24).execute().await.unwrap();
    links
}

#[test]
fn a_local_network_can_be_bound_and_a_routed_one_not() {
    in_namespace("a_local_network_can_be_bound", || async {
        let netlink = Netlink::open().unwrap();
        pair(&netlink).await;
        let loopback = netlink.loopback().await.unwrap();
        assert!(StdListener::bind("10.96.3.4:80").is_err(), "not before");
        for _ in 0..2 {
            netlink.make_local("10.96.0.0/16".parse().unwrap(), loopback).await.unwrap();
            netlink.route("10.244.2.0/24".parse().unwrap(), [10, 73, 0, 2].into()).await.unwrap();
        }
        let listener = tokio::net::TcpListener::bind("10.96.3.4:80").await.unwrap();
        let (connected, accepted) =
            tokio::join!(tokio::net::TcpStream::connect("10.96.3.4:80"), listener.accept());
        assert!(connected.is_ok() && accepted.is_ok());
        let refused = tokio::net::TcpStream::connect("10.96.3.5:80").await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "at once, since it is local");
        assert!(StdListener::bind("10.244.2.7:80").is_err(), "another host's");
    });
}

#[test]
fn an_address_is_held_until_it_is_given_up() {
    in_namespace("an_address_is_held", || async {
        let netlink = Netlink::open().unwrap();
        let (near, _) = pair(&netlink).await;
        netlink.loopback().await.unwrap();
        let vip = [10, 73, 0, 100].into();
        let listener = listen_before_held("10.73.0.100:6443".parse().unwrap()).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        for _ in 0..2 {
            netlink.add_address(near, vip).await.unwrap();
            netlink.add_address(near, vip).await.unwrap();
            let connect = tokio::net::TcpStream::connect("10.73.0.100:6443");
            let (connected, accepted) = tokio::join!(connect, listener.accept());
            assert!(connected.is_ok() && accepted.is_ok());
            netlink.remove_address(near, vip).await.unwrap();
            netlink.remove_address(near, vip).await.unwrap();
            assert!(StdListener::bind("10.73.0.100:1").is_err());
        }
        assert!(matches!(netlink.link("eth7").await, Err(Error::NoLink(name)) if name == "eth7"));
    });
}

#[test]
fn neighbours_are_told_in_both_forms() {
    in_namespace("neighbours_are_told", || async {
        let netlink = Netlink::open().unwrap();
        let (near, _) = pair(&netlink).await;
        let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
        let ear = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol))).unwrap();
        ear.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let vip = Ipv4Addr::new(10, 73, 0, 100);
        let mut missing: Vec<_> = [arp::Form::Request, arp::Form::Reply]
            .map(|form| arp::announcement(form, near.hardware, vip))
            .into();
        // A link that was just switched on loses what is sent at first.
        for _ in 0..100 {
            arp::announce(near.index, near.hardware, vip).unwrap();
            let mut buffer = [MaybeUninit::new(0); 128];
            while let Ok(length) = ear.recv(&mut buffer) {
                // SAFETY: every byte was initialised before `recv` wrote some of them.
                let frame = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() });
                let frame: Vec<u8> = frame.collect();
                missing.retain(|wanted| !frame.starts_with(wanted));
                if missing.is_empty() {
                    return;
                }
            }
        }
        panic!("not heard: {missing:02x?}");
    });
}

#[test]
fn routes_that_others_have_in_the_ranges_stay() {
    if !testing::has("ip") {
        return;
    }
    in_namespace("routes_that_others_have_in_the_ranges_stay", || async {
        let netlink = Netlink::open().unwrap();
        pair(&netlink).await;
        let loopback = netlink.loopback().await.unwrap();
        let (pods, services) = ("10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap());
        netlink.make_local(services, loopback).await.unwrap();
        netlink.route("10.244.2.0/24".parse().unwrap(), [10, 73, 0, 2].into()).await.unwrap();
        ip("address add 10.244.9.1/24 dev far");
        ip("route add 10.244.8.0/24 dev far proto 12");
        let routes = || ip("-4 route show table all");
        let before = routes();
        assert!(before.contains("10.96.0.0/16") && before.contains("10.244.2.0/24"), "{before}");
        netlink.remove_routes(&[pods, services]).await.unwrap();
        let after = routes();
        assert!(!after.contains("10.96.0.0/16") && !after.contains("10.244.2.0/24"), "{after}");
        for others in ["10.244.8.0/24", "10.244.9.0/24", "local 10.244.9.1"] {
            assert!(after.contains(others), "{others}: {after}");
        }
    });
}
