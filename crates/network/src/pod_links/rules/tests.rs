//! A host between its pods and a world that doesn't know them, each in a network namespace of the test's own.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nftables::text;

use super::*;
use crate::netlink::tests::{in_namespace, ip};
use crate::pod_links::tests::{address, heard, host, links, namespace, within};
use crate::pod_links::{PodLinks, SETTINGS, write};

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
        ip("link set eth0 mtu 1400");
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
        let pods = "10.244.1.0/24".parse().unwrap();
        // What a former life left is replaced.
        PodLinks::open(pods, "0.0.0.0/0".parse().unwrap(), "eth0").await.unwrap();
        let links = PodLinks::open(pods, "10.244.0.0/16".parse().unwrap(), "eth0").await.unwrap();
        let pod = namespace();
        let own: IpAddr = [10, 244, 1, 7].into();
        links.connect(own, pod.try_clone().unwrap()).await.unwrap();
        let listener = within(&world, || TcpListener::bind("0.0.0.0:80").unwrap());
        let host = IpAddr::from([10, 73, 0, 1]);
        // A neighbour may be a host or a machine that knows nothing of pods.
        for (to, from) in [("198.51.100.1:80", host), ("10.73.0.2:80", host), ("10.244.2.1:80", own)] {
            within(&pod, || TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(20)))
                .unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), from, "{to}");
        }
        for (link, said) in
            [("far end", within(&pod, || ip("link show eth0"))), ("near end", ip("link show pod0af40107"))]
        {
            assert!(said.contains("mtu 1400"), "{link}: {said}");
        }
    });
}

/// Switches the kernel's own check of the pod 10.244.1.2 off; of the setting for all links and its own the stricter counts.
fn check_no_more() {
    for link in ["all", "pod0af40102"] {
        write(&format!("{SETTINGS}/{link}/rp_filter"), "0").unwrap();
    }
}

#[test]
fn a_pods_name_is_checked_though_others_switch_the_kernels_check_off() {
    in_namespace("a_pods_name_is_checked", || async {
        let (_, first) = host().await;
        let (a, b) = (namespace(), namespace());
        first.connect(address(2), a.try_clone().unwrap()).await.unwrap();
        first.connect(address(3), b.try_clone().unwrap()).await.unwrap();
        check_no_more();
        assert_eq!(heard(&a).await, [address(2)]);
        drop(first);
        let links = links().await;
        assert_eq!(
            heard(&a).await,
            [address(2)],
            "before anybody connects the pod in the program's next life"
        );

        links.remove(address(3)).await.unwrap();
        links.remove(address(3)).await.unwrap();
        assert_eq!(heard(&a).await, [address(2)]);
        // What would be heard without the rule.
        transact(&[remove_table(TABLE)]).unwrap();
        assert!(heard(&a).await.len() > 1);
        // Gone, but nobody noticed yet.
        links.connect(address(4), namespace()).await.unwrap();
        assert_eq!(heard(&a).await, [address(2)]);
    });
}

#[test]
fn rules_that_others_take_away_come_back() {
    in_namespace("rules_that_others_take_away", || async {
        let (_, links) = host().await;
        let (a, b) = (namespace(), namespace());
        links.connect(address(2), a.try_clone().unwrap()).await.unwrap();
        links.connect(address(3), b.try_clone().unwrap()).await.unwrap();
        check_no_more();
        let no_rules =
            |chain: &str| ((number::SUBSYSTEM << 8) | 8, 0, [text(1, TABLE), text(2, chain)].concat());
        let harms = async {
            for harm in [remove_table(TABLE), no_rules(OUT), no_rules(SENDERS)] {
                transact(&[harm]).unwrap();
                assert!(!is_whole().unwrap());
                while !is_whole().unwrap() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        };
        tokio::select! {
            () = links.keep() => {}
            done = timeout(Duration::from_secs(20), harms) => done.unwrap(),
        }
        assert_eq!(heard(&a).await, [address(2)], "with all pods in them");
    });
}

#[test]
fn changes_and_refusals_are_heard() {
    in_namespace("changes_and_refusals_are_heard", || async {
        assert!(transact(&[(number::NEW_RULE, 0, text(1, "nowhere"))]).is_err());
        assert_eq!(rules_of("none").unwrap(), 0);
        let news = News::listen().unwrap();
        let [pods, cluster] = ["10.244.1.0/24", "10.244.0.0/16"].map(|network| network.parse().unwrap());
        Rules::put(pods, cluster, BTreeSet::new()).unwrap();
        timeout(Duration::from_secs(20), news.next()).await.unwrap();
        news.forget();
        let quiet = timeout(Duration::from_millis(50), news.next()).await;
        assert!(quiet.is_err(), "nothing happened since");
        // More than one message has room for.
        let many = (0..2000).map(|n| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + n)).collect();
        let rules = Rules::put("10.244.0.0/16".parse().unwrap(), cluster, many).unwrap();
        rules.remove([10, 244, 0, 7].into()).unwrap();
        assert!(is_whole().unwrap());
    });
}
