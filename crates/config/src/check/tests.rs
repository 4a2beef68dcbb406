//! Which configurations are refused, and how.

use std::path::PathBuf;

use super::*;
use crate::{Dns, Eviction, Ports, Scheduling, Shutdown, Timeouts};

/// A configuration that can work.
pub(crate) fn config() -> HostConfig {
    let address = |n: usize| format!("10.73.0.{n}").parse().unwrap();
    let named = |n: usize| format!("n{n}");
    HostConfig {
        cluster_id: "0b5c1e9e-6c2f-4f86-9df0-1f1e4b2b8a10".into(),
        name: "n1".into(),
        address: address(1),
        host_cidr: "10.73.0.0/24".parse().unwrap(),
        peers: (1..=3).map(|n| (named(n), address(n))).collect(),
        pod_cidr: "10.244.1.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        virtual_address: address(100),
        load_balancer_cidrs: Vec::new(),
        net: NetConfig::Netns { link: "eth0".into() },
        ports: Ports::default(),
        timeouts: Timeouts::default(),
        fencing: Default::default(),
        scheduling: Scheduling::default(),
        dns: Dns::default(),
        eviction: Eviction::default(),
        shutdown: Shutdown::default(),
        audit: None,
        token_webhook: None,
        registries_file: None,
        static_pods: None,
        runtime: None,
        vrrp: Default::default(),
        data_dir: "/var/lib/holdfast".into(),
        begun_file: "/var/lib/holdfast.begun".into(),
        timeline_file: "/var/log/holdfast.jsonl".into(),
        encryption_file: None,
        datastore: None,
        pki_dir: "/etc/holdfast/pki".into(),
    }
}

#[test]
fn what_can_work_is_let_be() {
    assert_eq!(config().check(), Findings::default());
}

#[test]
fn what_can_t_work_is_found_at_its_field() {
    type Change = fn(&mut HostConfig);
    let ms = Duration::from_millis;
    let table: Vec<(Change, &str)> = vec![
        (|c| c.cluster_id.clear(), "clusterId: "),
        (|c| c.name = "N1".into(), "name: \"N1\" is no host name; "),
        (
            |c| {
                c.peers.remove("n1");
            },
            "peers: this host, n1, is not among them; ",
        ),
        (|c| c.address = "10.73.0.9".parse().unwrap(), "peers.n1: 10.73.0.1 is not this host's address, "),
        (
            |c| {
                c.peers.insert("n3".into(), c.peers["n2"]);
            },
            "peers.n3: 10.73.0.2 is n2's address too; ",
        ),
        (
            |c| {
                (4..=8).for_each(|n| {
                    c.peers.insert(format!("n{n}"), format!("10.73.0.{n}").parse().unwrap());
                })
            },
            "peers: 8 members are too many: ",
        ),
        (
            |c| c.pod_cidr = "10.245.1.0/24".parse().unwrap(),
            "podCidr: 10.245.1.0/24 lies outside clusterCidr, 10.244.0.0/16; ",
        ),
        (
            |c| c.service_cidr = "10.244.0.0/16".parse().unwrap(),
            "podCidr: 10.244.1.0/24 overlaps 10.244.0.0/16, which is serviceCidr; ",
        ),
        (
            |c| c.service_cidr = "10.73.0.0/16".parse().unwrap(),
            "serviceCidr: 10.73.0.0/16 overlaps 10.73.0.0/24, ",
        ),
        (
            |c| c.service_cidr = "10.96.0.1/16".parse().unwrap(),
            "serviceCidr: 10.96.0.1/16 has bits set after its prefix; write 10.96.0.0/16",
        ),
        (
            |c| c.service_cidr = "10.96.0.0/29".parse().unwrap(),
            "serviceCidr: 10.96.0.0/29 is no IPv4 network of ",
        ),
        (|c| c.service_cidr = "fd00::/16".parse().unwrap(), "serviceCidr: fd00::/16 is no IPv4 network of "),
        (
            |c| c.virtual_address = "10.74.0.100".parse().unwrap(),
            "virtualAddress: 10.74.0.100 lies outside hostCidr, 10.73.0.0/24; ",
        ),
        (
            |c| {
                c.peers.insert("n2".into(), "10.74.0.2".parse().unwrap());
            },
            "peers.n2: 10.74.0.2 lies outside hostCidr, ",
        ),
        (|c| c.virtual_address = c.peers["n2"], "virtualAddress: 10.73.0.2 is n2's own address; "),
        (|c| c.net = NetConfig::Netns { link: "a-link-too-long-for-linux".into() }, "net.link: "),
        (|c| c.ports.api = 0, "ports.api: 0 is no port"),
        (|c| c.ports.agent = 2380, "ports.agent: 2380 is ports.store too; "),
        (|c| c.timeouts.store.request = Duration::ZERO, "timeouts.store.request: 0ns is not above 0"),
        (|c| c.timeouts.watchdog.farewell = LONGEST_TIME * 2, "timeouts.watchdog.farewell: 7200s is not "),
        (|c| c.data_dir = "data".into(), "dataDir: data is no absolute path; "),
        (|c| c.runtime = Some("/run/x.sock".into()), "runtime: \"/run/x.sock\" is no runtime's address; "),
        (|c| c.encryption_file = Some("e.yaml".into()), "encryptionFile: e.yaml is no absolute path; "),
        (
            |c| {
                c.token_webhook =
                    Some(crate::TokenWebhook { kubeconfig: "w.conf".into(), cache_ttl: Duration::ZERO })
            },
            "tokenWebhook.kubeconfig: w.conf is no absolute path; ",
        ),
        (|c| c.registries_file = Some("r.yaml".into()), "registriesFile: r.yaml is no absolute path; "),
        (|c| c.static_pods = Some("manifests".into()), "staticPods: manifests is no absolute path; "),
    ];
    for (change, told) in table {
        let mut config = config();
        change(&mut config);
        let Findings { problems, .. } = config.check();
        assert!(problems.iter().any(|problem| problem.to_string().starts_with(told)), "{told}: {problems:?}");
    }
    type Set = fn(&mut Timeouts, Duration);
    let times: [(Set, Duration, &str); 8] = [
        (|t, time| t.heartbeats.silent_after = time, ms(60), "timeouts.heartbeats.silentAfter"),
        (|t, time| t.nodes.not_ready_after = time, ms(200), "timeouts.nodes.notReadyAfter"),
        (|t, time| t.lease.held_for = time, ms(450), "timeouts.lease.heldFor"),
        (|t, time| t.lease.fenced_after = time, ms(1900), "timeouts.lease.fencedAfter"),
        (|t, time| t.store.heartbeat = time, ms(5), "timeouts.store.heartbeat"),
        (|t, time| t.store.election_min = time, ms(80), "timeouts.store.electionMin"),
        (|t, time| t.store.election_max = time, ms(150), "timeouts.store.electionMax"),
        (|t, time| t.watchdog.stuck_after = time, ms(300), "timeouts.watchdog.stuckAfter"),
    ];
    for (change, time, field) in times {
        let mut config = config();
        change(&mut config.timeouts, time);
        let fields: Vec<String> = config.check().problems.into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, [field]);
    }
}

#[test]
fn an_etcd_is_named_by_its_members_and_a_prefix() {
    let etcd = |endpoints: usize| Datastore {
        endpoints: (0..endpoints).map(|n| format!("https://e{n}:2379")).collect(),
        via: Vec::new(),
        prefix: "/holdfast".into(),
        ca: None,
        cert: None,
        key: None,
    };
    let found = |datastore: Datastore| {
        let config = HostConfig { datastore: Some(datastore), ..config() };
        config.check().problems.into_iter().map(|problem| problem.field).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(found(etcd(3)), nothing);
    assert_eq!(found(etcd(0)), ["datastore.endpoints"]);
    assert_eq!(found(etcd(17)), ["datastore.endpoints"]);
    assert_eq!(found(Datastore { via: vec!["10.0.0.1:1".parse().unwrap()], ..etcd(3) }), ["datastore.via"]);
    for prefix in ["", "/", "holdfast", "/holdfast/"] {
        assert_eq!(found(Datastore { prefix: prefix.into(), ..etcd(1) }), ["datastore.prefix"], "{prefix}");
    }
    assert_eq!(found(Datastore { key: Some(PathBuf::from("/k")), ..etcd(1) }), ["datastore.cert"]);
}

#[test]
fn an_even_number_of_members_is_warned_of() {
    let mut config = config();
    config.peers.remove("n3");
    let Findings { problems, warnings } = config.check();
    assert_eq!(problems, []);
    assert_eq!(
        warnings[0].to_string(),
        "peers: 2 members bear the loss of no more hosts than 1 do; take an odd number of members"
    );
}
