//! A host between its pods and a world that doesn't know them, each in a network namespace of the test's own.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::netlink::tests::{in_namespace, ip};
use crate::pod_links::PodLinks;
use crate::pod_links::tests::{namespace, within};

#[test]
fn the_world_hears_pods_in_their_hosts_name_and_the_cluster_in_their_own() {
    if !testing::has("ip") {
        return;
    }
    in_namespace("the_world_hears_pods_in_their_hosts_name", || async {
        let world = namespace();
        let number = world.as_raw_fd();
        let here = std::process::id();
        ip("link set lo up");
        ip("link add name eth0 type veth peer name far");
        ip(&format!("link set far netns /proc/{here}/fd/{number}"));
        ip("address add 10.73.0.1/24 dev eth0");
        ip("link set eth0 up");
        ip("route add default via 10.73.0.2");
        within(&world, || {
            ip("link set lo up");
            ip("link set far up");
            ip("address add 10.73.0.2/24 dev far");
            ip("address add 198.51.100.1/32 dev lo");
            ip("address add 10.244.2.1/32 dev lo");
            ip("route add 10.244.1.7/32 via 10.73.0.1");
        });
        let pods: IpNet = "10.244.1.0/24".parse().unwrap();
        let inside: Vec<IpNet> = ["10.244.0.0/16", "10.73.0.0/24"].map(|net| net.parse().unwrap()).into();
        // What a former life left is replaced.
        put(pods, &[]).unwrap();
        put(pods, &inside).unwrap();
        let links = PodLinks::open(pods).await.unwrap();
        let pod = namespace();
        let own: IpAddr = [10, 244, 1, 7].into();
        links.connect(own, pod.try_clone().unwrap()).await.unwrap();
        let listener = within(&world, || TcpListener::bind("0.0.0.0:80").unwrap());
        let host = IpAddr::from([10, 73, 0, 1]);
        for (to, from) in [("198.51.100.1:80", host), ("10.73.0.2:80", own), ("10.244.2.1:80", own)] {
            within(&pod, || TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(20)))
                .unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), from, "{to}");
        }
    });
}

#[test]
fn a_refusal_is_heard() {
    in_namespace("a_refusal_is_heard", || async {
        let unknown = message(number::NEW_RULE, 0, 1, number::IPV4, [0; 2], &text(1, "nowhere"));
        let of_nftables = number::SUBSYSTEM.to_be_bytes();
        let begin = message(number::BATCH_BEGIN, 0, 0, 0, of_nftables, &[]);
        let end = message(number::BATCH_END, 0, 0, 0, of_nftables, &[]);
        assert!(carry_out(&[begin, unknown, end]).is_err());
    });
}
