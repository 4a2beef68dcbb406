//! A good machine is reported as one, and each thing that is wrong with it is found.

mod hosts;
mod machine;
mod network;

use std::time::{Duration, SystemTime};

use config::{HostConfig, NetConfig, Ports, Timeouts};
use dns::ResolvConf;

use super::*;
use crate::facts::*;
use crate::plan::Plan;

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn set(facts: &mut Facts, name: &str, value: &str) {
    facts.settings.0.insert(name.into(), value.into());
}

pub(super) fn links(facts: &mut Facts) -> &mut Vec<Link> {
    facts.network.links.as_mut().unwrap()
}

pub(super) fn link(name: &str, address: &str) -> Link {
    Link { name: name.into(), mtu: 1500, up: true, addresses: vec![address.parse().unwrap()] }
}

pub(super) fn config() -> HostConfig {
    let address = |n: usize| format!("10.73.0.{n}").parse().unwrap();
    HostConfig {
        cluster_id: "c".into(),
        name: "n1".into(),
        address: address(1),
        host_cidr: "10.73.0.0/24".parse().unwrap(),
        peers: (1..=3).map(|n| (format!("n{n}"), address(n))).collect(),
        pod_cidr: "10.244.1.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        virtual_address: address(100),
        load_balancer_cidrs: Vec::new(),
        net: NetConfig::Netns { link: "eth0".into() },
        ports: Ports::default(),
        timeouts: Timeouts::default(),
        fencing: Default::default(),
        scheduling: config::Scheduling::default(),
        dns: config::Dns::default(),
        eviction: config::Eviction::default(),
        shutdown: config::Shutdown::default(),
        audit: None,
        token_webhook: None,
        registries_file: None,
        static_pods: None,
        runtime: None,
        vrrp: Default::default(),
        data_dir: "/var/lib/holdfast/data".into(),
        begun_file: "/var/lib/holdfast/begun".into(),
        timeline_file: "/var/log/holdfast.jsonl".into(),
        encryption_file: None,
        datastore: None,
        pki_dir: "/etc/holdfast/pki".into(),
    }
}

fn settings() -> Settings {
    let settings = [
        ("fs.inotify.max_user_instances", "8192"),
        ("fs.inotify.max_user_watches", "524288"),
        ("kernel.panic", "10"),
        ("kernel.pid_max", "4194304"),
        ("kernel.threads-max", "126000"),
        ("net.bridge.bridge-nf-call-iptables", "1"),
        ("net.ipv4.conf.all.rp_filter", "2"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_local_port_range", "32768\t60999"),
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.netfilter.nf_conntrack_count", "500"),
        ("net.netfilter.nf_conntrack_max", "262144"),
        ("vm.max_map_count", "262144"),
        ("vm.overcommit_memory", "1"),
        ("vm.panic_on_oom", "0"),
    ];
    Settings(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

/// A machine with nothing wrong, before it is a host.
pub(super) fn good() -> Facts {
    Facts {
        plan: Plan { pre: true, config: Some(config()), refused: None },
        is_root: false,
        kernel: Kernel {
            release: "6.1.0-13-amd64".into(),
            overlayfs: Presence::Here,
            seccomp: true,
            nftables: Presence::Here,
            pidfd: true,
            user_namespaces: Some(15_000),
            cgroups: Cgroups {
                unified: true,
                controllers: ["cpu", "memory", "cpuset", "io", "pids"].map(str::to_owned).into(),
                legacy: [].into(),
            },
        },
        settings: settings(),
        resources: Resources {
            processors: 4,
            memory: Some(Memory { total: 8 << 30, available: 6 << 30, swap: 0 }),
            threads: Some(400),
            limits: Some(Limits { of: None, files: Some(1 << 20), processes: None, locked: None }),
            stolen: Some([0.001, 0.0]),
        },
        disk: Ok(Disk {
            at: "/var/lib".into(),
            kind: "ext4".into(),
            read_only: false,
            size: 100 << 30,
            free: 50 << 30,
            inodes: 1000,
            inodes_free: 900,
            syncs: Some(Ok(Syncs { count: 200, p50: ms(1), p99: ms(3), longest: ms(9) })),
        }),
        clock: Clock {
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_040_000),
            synchronised: Some(Synchronised { yes: true, most_wrong: ms(20) }),
            boottime: true,
        },
        listening: Some(Vec::new()),
        network: Network {
            links: Ok(vec![
                Link {
                    name: "lo".into(),
                    mtu: 65_536,
                    up: true,
                    addresses: vec!["127.0.0.1/8".parse().unwrap()],
                },
                Link {
                    name: "eth0".into(),
                    mtu: 1500,
                    up: true,
                    addresses: vec!["10.73.0.1/24".parse().unwrap()],
                },
            ]),
            routes: Ok(vec![
                Route {
                    to: "0.0.0.0/0".parse().unwrap(),
                    link: "eth0".into(),
                    by: "10.73.0.254".parse().ok(),
                },
                Route { to: "10.73.0.0/24".parse().unwrap(), link: "eth0".into(), by: None },
            ]),
            filter: Ok(Filter::default()),
            old_tables: Vec::new(),
            virtual_address: Some(Neighbour::Nobody),
        },
        names: Names {
            hostname: "n1".into(),
            hostname_is_known: true,
            resolver: Some(("/etc/resolv.conf".into(), ResolvConf::parse("nameserver 9.9.9.9"))),
        },
        system: System {
            selinux_enforces: None,
            apparmor: false,
            watchdog: true,
            journald: Some(Journald::default()),
        },
        leftovers: Leftovers::default(),
        identity: None,
        cluster: None,
    }
}

/// The same machine as a host among three.
pub(super) fn running() -> Facts {
    let mut facts = good();
    facts.plan.pre = false;
    let holder = Some(Holder { pid: 7, name: "holdfast".into(), is_ours: true });
    let at =
        |protocol, port| Listening { protocol, at: (config().address, port).into(), holder: holder.clone() };
    let tcp = [6443, 2379, 2380, 10250, 53].map(|port| at(Protocol::Tcp, port));
    let udp = [2381, 53].map(|port| at(Protocol::Udp, port));
    facts.listening = Some(tcp.into_iter().chain(udp).collect());
    facts.network.virtual_address = None;
    let until = facts.clock.now + Duration::from_secs(365 * 24 * 60 * 60);
    let certificate =
        |file: &str, signed| Certificate { file: file.into(), until, is_signed: signed, is_valid: signed };
    facts.identity = Some(Identity {
        certificates: vec![certificate("ca.crt", None), certificate("n1.crt", Some(true))],
        ..Identity::default()
    });
    let peer = |address| Peer {
        address: (address, 6443).into(),
        way: Ok(Way { time: ms(1), segment: Some(1448) }),
        health: Ok(Health { code: 200, says: String::new(), skew: Some(Skew { least: -400, most: 600 }) }),
        lease: Ok(Lease { seconds: 1.4, fenced: Vec::new() }),
    };
    let node = |name: &String| Node {
        name: name.clone(),
        is_ready: true,
        machine_id: format!("machine of {name}"),
        ..Node::default()
    };
    facts.cluster = Some(Ok(Cluster {
        peers: config().peers.into_iter().map(|(name, address)| (name, peer(address))).collect(),
        virtual_api: Ok(200),
        nodes: Ok(config().peers.keys().map(node).collect()),
        sees_all_nodes: true,
    }));
    facts
}

/// What there is to say besides that all is well.
pub(super) fn said(facts: &Facts) -> Vec<String> {
    let told = judge(facts).into_iter().filter(|finding| finding.grade > Grade::Note);
    told.map(|finding| {
        let remedy = finding.remedy.unwrap_or_default();
        format!("{} {}: {}; {remedy}", finding.grade.word(), finding.check, finding.what)
    })
    .collect()
}

type Change = fn(&mut Facts);

/// Each change alone must lead to one thing that is said, and that begins and goes on so.
pub(super) fn each_is_said(begin: fn() -> Facts, table: &[(Change, &str, &str)]) {
    for (change, start, part) in table {
        let mut facts = begin();
        change(&mut facts);
        let said = said(&facts);
        assert!(
            said.iter().any(|said| said.starts_with(start) && said.contains(part)),
            "{start} {part}: {said:#?}"
        );
        assert_eq!(said.len(), 1, "nothing else: {start} {part}: {said:#?}");
    }
}

#[test]
fn a_good_machine_is_good() {
    assert_eq!(said(&good()), [""; 0]);
    assert_eq!(said(&running()), [""; 0]);
    let mut bare = good();
    bare.plan.config = None;
    bare.network.virtual_address = None;
    assert_eq!(said(&bare), [""; 0]);
    // One line at least for each group, with a cause on each and no remedy where none is needed.
    let findings = judge(&running());
    let groups: std::collections::BTreeSet<Group> = findings.iter().map(|finding| finding.group).collect();
    assert_eq!(groups.len(), 13);
    assert!(findings.iter().all(|finding| finding.remedy.is_none() && !finding.what.is_empty()));
}

#[test]
fn numbers_are_written_as_people_read_them() {
    assert_eq!(
        [0, 1023, 1536, 3 << 30, 40 << 20].map(bytes),
        ["0 bytes", "1023 bytes", "1.5 KiB", "3.0 GiB", "40 MiB"]
    );
    let times = [Duration::from_micros(40), Duration::from_micros(3400), ms(150)];
    assert_eq!(times.map(milliseconds), ["0.04 ms", "3.4 ms", "150 ms"]);
    assert_eq!([listed(&["a"]), listed(&["a", "b", "c"])], ["a", "a, b and c"]);
}
