//! A host's network in a network namespace of the test's own: what netlink, proxy and leadership do together.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use network::{HostNetwork, Mode, Network, Options, listen_before_held};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use serde_json::json;
use store::{Memory, Store, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_host_serves_services_and_holds_the_virtual_address_while_it_leads() {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve_and_hold());
        nix::Result::Ok(())
    });
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => testing::skip("netns", format_args!("no network namespace ({error})")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// `eth0` with 10.73.0.1/24 and the virtual address, as if a former life had left it there.
async fn link() {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle.link().add(LinkVeth::new("eth0", "far").build()).execute().await.unwrap();
    let near = index(&handle, "eth0").await;
    for link in [near, index(&handle, "far").await] {
        handle.link().set(LinkUnspec::new_with_index(link).up().build()).execute().await.unwrap();
    }
    for (address, prefix) in [([10, 73, 0, 1], 24), ([10, 73, 0, 100], 32)] {
        handle.address().add(near, address.into(), prefix).execute().await.unwrap();
    }
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let mut links = std::pin::pin!(handle.link().get().match_name(name.to_owned()).execute());
    let link = futures::StreamExt::next(&mut links).await;
    link.unwrap().unwrap().header.index
}

async fn serve_and_hold() {
    link().await;
    let host = |n: u8| HostNetwork {
        address: [10, 73, 0, n].into(),
        pods: format!("10.244.{n}.0/24").parse().unwrap(),
    };
    let virtual_address: SocketAddr = "10.73.0.100:6443".parse().unwrap();
    let two = BTreeMap::from([("n1".to_owned(), host(1)), ("n2".to_owned(), host(2))]);
    let networks = watch::Sender::new(Arc::new(two));
    let options = Options {
        name: "n1".into(),
        mode: Mode::Namespaces { link: "eth0".into() },
        hosts: networks.subscribe(),
        services: "10.96.0.0/16".parse().unwrap(),
        cluster: "10.244.0.0/16".parse().unwrap(),
        virtual_address,
        answered: Vec::new(),
        page: membership::LeasePage::create().unwrap(),
        program: None,
        company: None,
        load_balancing: None,
        cut_off: None,
        most_connections: 64,
    };
    let api = TcpListener::from_std(listen_before_held(virtual_address).unwrap()).unwrap();
    let store = Arc::new(Memory::default());
    let hosts = watch::Sender::new(Arc::new(membership::Hosts::default()));
    let network =
        Network::start(options, store.clone(), hosts.subscribe(), || {}, &tokio::runtime::Handle::current())
            .await
            .unwrap();

    let (connected, accepted) =
        tokio::join!(timeout(SOON, TcpStream::connect(virtual_address)), api.accept());
    assert!(connected.unwrap().is_ok() && accepted.is_ok());

    for (address, is_fine) in
        [("10.73.0.1", true), ("10.73.0.100", false), ("10.96.0.1", false), ("10.244.2.7", false)]
    {
        assert_eq!(network.check_host_ip(address.parse().unwrap()).is_ok(), is_fine, "{address}");
    }
    if network.pod_networks().is_ok() {
        assert!(remove_rules().unwrap(), "there from the start");
        let back = async {
            while !remove_rules().unwrap() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, back).await.expect("the rules about pods don't come back");
    }

    // The pod on the other host doesn't answer: nobody is at 10.73.0.2.
    let pod = TcpListener::bind("10.244.1.7:8080").await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = pod.accept().await {
            stream.write_all(b"p1").await.unwrap();
        }
    });
    let metadata =
        json!({"name": "web", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}});
    let spec = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80, "nodePort": 30080}]});
    let endpoints = json!([
        {"addresses": ["10.244.2.7"], "nodeName": "n2"}, {"addresses": ["10.244.1.7"], "nodeName": "n1"}]);
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints});
    for (group, plural, object) in [
        ("discovery.k8s.io", "endpointslices", slice),
        ("", "services", json!({"metadata": metadata, "spec": spec})),
    ] {
        let key = objects::key(group, plural, "default", "web");
        store.txn(Txn::put(key, object.to_string())).await.unwrap();
    }
    for address in ["10.96.0.5:80", "10.73.0.1:30080", "10.96.0.5:80", "10.73.0.1:30080"] {
        let mut answer = String::new();
        let ask = async {
            let mut stream = loop {
                // Until the listener is there.
                match TcpStream::connect(address).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            stream.read_to_string(&mut answer).await
        };
        timeout(SOON, ask).await.expect(address).unwrap();
        assert_eq!(answer, "p1", "{address}");
    }

    if testing::has("ip") {
        what_is_gone_is_put_back().await;
        let two = networks.borrow().clone();
        networks.send_modify(|known| {
            Arc::make_mut(known).insert("n3".into(), host(3));
        });
        routed("10.244.3.0/24 via 10.73.0.3 dev eth0", true).await;
        // It moved.
        networks.send_modify(|known| {
            Arc::make_mut(known).insert("n3".into(), host(4));
        });
        routed("10.244.4.0/24 via 10.73.0.4 dev eth0", true).await;
        routed("10.244.3.0/24", false).await;
        networks.send_replace(two);
        routed("10.244.4.0/24", false).await;
        routed("10.244.2.0/24 via 10.73.0.2 dev eth0", true).await;
    }
    timeout(SOON, network.stop()).await.unwrap();
    assert!(StdListener::bind("10.73.0.100:1").is_err(), "given up at the end");
}

/// Removes the rules about pods, as a firewall does that is loaded anew: a batch of nftables of one message that deletes the table.
/// Answers whether they were there.
fn remove_rules() -> std::io::Result<bool> {
    let message = |kind: u16, sequence: u32, family: [u8; 4], attributes: &[u8]| {
        let flags = libc::NLM_F_REQUEST | if sequence == 0 { 0 } else { libc::NLM_F_ACK };
        let length = u32::try_from(20 + attributes.len()).unwrap();
        let head = [length.to_ne_bytes(), [0; 4], sequence.to_ne_bytes(), [0; 4], family];
        let mut bytes = [&head.concat()[..], attributes].concat();
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&u16::try_from(flags).unwrap().to_ne_bytes());
        bytes
    };
    // Its name, in an attribute of 13 bytes.
    let table = [&13u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), b"holdfast\0\0\0\0"].concat();
    let (begin, end) = (message(16, 0, [0, 0, 0, 10], &[]), message(17, 0, [0, 0, 0, 10], &[]));
    let batch = [begin, message((10 << 8) | 2, 1, [2, 0, 0, 0], &table), end].concat();
    let kind = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, kind)?;
    sendto(socket.as_raw_fd(), &batch, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
        0 => Ok(true),
        code if code == -libc::ENOENT => Ok(false),
        code => Err(std::io::Error::from_raw_os_error(-code)),
    }
}

fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until there is such a route, or until there is none.
async fn routed(route: &str, there: bool) {
    let wait = async {
        while ip("route show").contains(route) != there {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SOON, wait).await.is_ok(), "{route}: {}", ip("route show"));
}

/// The host has all of its routes and addresses again, whatever happened to them.
async fn what_is_gone_is_put_back() {
    let is_whole = || {
        let (routes, local) = (ip("route show"), ip("route show table local"));
        routes.contains("10.244.2.0/24 via 10.73.0.2 dev eth0")
            && local.contains("local 10.244.1.0/24 dev lo")
            && local.contains("local 10.96.0.0/16 dev lo")
            && local.contains("local 10.73.0.100 dev eth0")
            && ip("link show lo").contains("LOOPBACK,UP")
    };
    assert!(is_whole());
    for harm in [
        &["link set eth0 down", "link set eth0 up"][..],
        &["route del 10.244.2.0/24"],
        &["route replace 10.244.2.0/24 via 10.73.0.9"],
        &["route del local 10.244.1.0/24 dev lo table local"],
        &["route del local 10.96.0.0/16 dev lo table local"],
        &["link set lo down"],
        &["address del 10.73.0.100/32 dev eth0"],
        &["address flush dev eth0", "address add 10.73.0.1/24 dev eth0"],
    ] {
        for command in harm {
            ip(command);
        }
        let wait = async {
            while !is_whole() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let back = timeout(SOON, wait).await;
        assert!(back.is_ok(), "{harm:?}: {}{}", ip("route show"), ip("route show table local"));
    }
}
