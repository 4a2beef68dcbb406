//! What a configuration must fulfil: one function over its fields, without I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::{Datastore, HostConfig, NetConfig};

/// The most members that a store begins with: `store::MOST_PEERS`, which this room can't see.
pub const MOST_MEMBERS: usize = 7;
/// The most hosts that one file may name.
const MOST_HOSTS: usize = 1000;
/// The longest name that a host may have: that of a label, as names of hosts and of Nodes consist of them.
const LONGEST_NAME: usize = 63;
/// The most members of an etcd that may be named.
const MOST_ENDPOINTS: usize = 16;
/// The shortest and the longest prefix of a network that is shared out address by address.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=28;
/// The longest that a timeout may be.
const LONGEST_TIME: Duration = Duration::from_secs(3600);

/// A field that can't be as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its path, like `ports.api`.
    pub field: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { field, what, remedy } = self;
        write!(f, "{field}: {what}; {remedy}")
    }
}

/// What there is to say about a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What makes it unusable.
    pub problems: Vec<Problem>,
    /// What works, and is seldom meant.
    pub warnings: Vec<Problem>,
}

impl Findings {
    pub(crate) fn problem(
        &mut self,
        field: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem { field: field.into(), what: what.into(), remedy: remedy.into() });
    }

    pub(crate) fn require(&mut self, holds: bool, field: &str, what: impl Into<String>, remedy: &str) {
        if !holds {
            self.problem(field, what, remedy);
        }
    }
}

impl HostConfig {
    /// Finds what can't work, or is seldom meant.
    pub fn check(&self) -> Findings {
        let mut findings = Findings::default();
        if self.peers.len() > MOST_HOSTS {
            let what = format!("{} hosts are more than {MOST_HOSTS}", self.peers.len());
            findings.problem("peers", what, "name fewer");
            // What is wrong with each of them would be more than anybody reads.
            return findings;
        }
        self.check_members(&mut findings);
        self.check_networks(&mut findings);
        self.check_addresses(&mut findings);
        self.check_ports(&mut findings);
        self.check_timeouts(&mut findings);
        self.check_paths(&mut findings);
        self.scheduling.check(&mut findings);
        if let Some(datastore) = &self.datastore {
            check_datastore(datastore, &mut findings);
        }
        findings
    }

    fn check_members(&self, findings: &mut Findings) {
        let id = &self.cluster_id;
        findings.require(
            (1..=253).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic()),
            "clusterId",
            format!("{id:?} is no name of 1 to 253 visible characters"),
            "give all hosts of the cluster the same, such as a UUID",
        );
        for name in self.peers.keys().chain([&self.name]) {
            findings.require(
                is_host_name(name),
                if *name == self.name { "name" } else { "peers" },
                format!("{name:?} is no host name"),
                "use 1 to 63 small letters, digits, '-' and '.', with a letter or digit at both ends",
            );
        }
        match self.peers.get(&self.name) {
            None => findings.problem(
                "peers",
                format!("this host, {}, is not among them", self.name),
                "list all members that the cluster begins with, this one included",
            ),
            Some(address) if *address != self.address => findings.problem(
                format!("peers.{}", self.name),
                format!("{address} is not this host's address, {}", self.address),
                "give both the same address",
            ),
            Some(_) => {}
        }
        let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, address) in &self.peers {
            if let Some(other) = owners.insert(*address, name) {
                findings.problem(
                    format!("peers.{name}"),
                    format!("{address} is {other}'s address too"),
                    "give each host an address of its own",
                );
            }
        }
        let members = self.peers.len();
        findings.require(
            members <= MOST_MEMBERS || self.datastore.is_some(),
            "peers",
            format!("{members} members are too many: {MOST_MEMBERS} are the most, and 3 or 5 do"),
            "let the others join later as workers",
        );
        if members.is_multiple_of(2) && members > 0 && self.datastore.is_none() {
            findings.warnings.push(Problem {
                field: "peers".into(),
                what: format!("{members} members bear the loss of no more hosts than {} do", members - 1),
                remedy: "take an odd number of members".into(),
            });
        }
    }

    fn check_networks(&self, findings: &mut Findings) {
        let networks = [
            ("hostCidr", self.host_cidr),
            ("serviceCidr", self.service_cidr),
            ("podCidr", self.pod_cidr),
            ("clusterCidr", self.cluster_cidr),
        ];
        for (field, network) in networks {
            findings.require(
                network == network.trunc(),
                field,
                format!("{network} has bits set after its prefix"),
                &format!("write {}", network.trunc()),
            );
            findings.require(
                field == "hostCidr"
                    || PREFIXES.contains(&network.prefix_len()) && matches!(network, IpNet::V4(_)),
                field,
                format!("{network} is no IPv4 network of /8 to /28"),
                "take one of these sizes, such as 10.96.0.0/16",
            );
        }
        findings.require(
            self.cluster_cidr.contains(&self.pod_cidr),
            "podCidr",
            format!("{} lies outside clusterCidr, {}", self.pod_cidr, self.cluster_cidr),
            "take a part of it that no other host has",
        );
        // The pods of all hosts together may surround other networks, as they do on loopback.
        for (place, (field, network)) in networks[..3].iter().enumerate() {
            for (other_field, other) in
                networks[..place].iter().filter(|(_, other)| overlap(*network, *other))
            {
                let what = format!("{network} overlaps {other}, which is {other_field}");
                findings.problem(*field, what, "give each a range of its own");
            }
        }
    }

    fn check_addresses(&self, findings: &mut Findings) {
        let peers = self.peers.iter().map(|(name, address)| (format!("peers.{name}"), *address));
        let own = [("address".to_owned(), self.address), ("virtualAddress".to_owned(), self.virtual_address)];
        for (field, address) in own.into_iter().chain(peers) {
            findings.require(
                self.host_cidr.contains(&address),
                &field,
                format!("{address} lies outside hostCidr, {}", self.host_cidr),
                "the hosts and the virtual address share one network: take an address of it, or write its whole range",
            );
        }
        let holder = self.peers.iter().find(|(_, address)| **address == self.virtual_address);
        if let Some((name, _)) = holder {
            findings.problem(
                "virtualAddress",
                format!("{} is {name}'s own address", self.virtual_address),
                "take one that belongs to no host: it moves between them",
            );
        }
        if let NetConfig::Netns { link } = &self.net {
            // As the kernel has it: IFNAMSIZ of 16 with its ending zero.
            let is_link =
                (1..16).contains(&link.len()) && link.chars().all(|c| c.is_ascii_graphic() && c != '/');
            findings.require(
                is_link,
                "net.link",
                format!("{link:?} is no name of a link"),
                "name that on which the host has its address, such as eth0 (`ip address` lists them)",
            );
        }
    }

    fn check_ports(&self, findings: &mut Findings) {
        let ports = self.ports.named();
        for (place, (name, port)) in ports.iter().enumerate() {
            let field = format!("ports.{name}");
            findings.require(
                *port != 0,
                &field,
                "0 is no port that others could know",
                "take one of 1 to 65535",
            );
            if let Some((other, _)) = ports[..place].iter().find(|(_, other)| other == port) {
                findings.problem(
                    field,
                    format!("{port} is ports.{other} too"),
                    "give each a port of its own",
                );
            }
        }
    }

    fn check_timeouts(&self, findings: &mut Findings) {
        for (field, time) in self.timeouts.named() {
            findings.require(
                !time.is_zero() && time <= LONGEST_TIME,
                field,
                format!("{time:?} is not above 0 and at most {LONGEST_TIME:?}"),
                "take a time between these, such as 250ms",
            );
        }
        let (beats, store) = (&self.timeouts.heartbeats, &self.timeouts.store);
        for (holds, field, what, remedy) in [
            (
                beats.silent_after >= beats.every * 2,
                "timeouts.heartbeats.silentAfter",
                "one lost heartbeat would make a host silent",
                "take at least twice timeouts.heartbeats.every",
            ),
            (
                self.timeouts.nodes.not_ready_after >= beats.silent_after,
                "timeouts.nodes.notReadyAfter",
                "a host would be NotReady before it is silent",
                "take at least timeouts.heartbeats.silentAfter",
            ),
            (
                store.heartbeat >= store.tick,
                "timeouts.store.heartbeat",
                "it is shorter than a tick, in which it is counted",
                "take at least timeouts.store.tick",
            ),
            (
                store.election_min >= store.heartbeat * 3,
                "timeouts.store.electionMin",
                "two lost messages would begin an election",
                "take at least three times timeouts.store.heartbeat",
            ),
            (
                store.election_max > store.election_min,
                "timeouts.store.electionMax",
                "all members would want to lead at the same time",
                "take more than timeouts.store.electionMin",
            ),
            (
                self.timeouts.watchdog.stuck_after >= self.timeouts.watchdog.every * 2,
                "timeouts.watchdog.stuckAfter",
                "one late answer would end the host",
                "take at least twice timeouts.watchdog.every",
            ),
        ] {
            findings.require(holds, field, what, remedy);
        }
    }

    fn check_paths(&self, findings: &mut Findings) {
        let paths: [(&str, &Path); 4] = [
            ("dataDir", &self.data_dir),
            ("begunFile", &self.begun_file),
            ("timelineFile", &self.timeline_file),
            ("pkiDir", &self.pki_dir),
        ];
        for (field, path) in paths {
            let what = format!("{} is no absolute path", path.display());
            findings.require(path.is_absolute(), field, what, "begin it with /");
        }
    }
}

fn check_datastore(datastore: &Datastore, findings: &mut Findings) {
    let Datastore { endpoints, via, prefix, ca: _, cert, key } = datastore;
    findings.require(
        (1..=MOST_ENDPOINTS).contains(&endpoints.len()),
        "datastore.endpoints",
        format!("there are {} of them, and not 1 to {MOST_ENDPOINTS}", endpoints.len()),
        "list the etcd's members, like https://host:2379",
    );
    findings.require(
        via.is_empty() || via.len() == endpoints.len(),
        "datastore.via",
        format!("{} addresses are not one for each of {} endpoints", via.len(), endpoints.len()),
        "list as many as endpoints, in their order, or none",
    );
    findings.require(
        prefix.len() > 1 && prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains('\0'),
        "datastore.prefix",
        format!("{prefix:?} is not like /holdfast"),
        "begin it with / and end it without",
    );
    findings.require(
        cert.is_some() == key.is_some(),
        "datastore.cert",
        "a certificate and its key go together",
        "give both or neither",
    );
}

/// RFC 1123, as names of Nodes and of certificates need it.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let ends = label.bytes().next().zip(label.bytes().last());
        ends.is_some_and(|(first, last)| is_edge(first) && is_edge(last))
            && label.bytes().all(|c| is_edge(c) || c == b'-')
    };
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

/// Networks either lie within each other or apart.
fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{Ports, Scheduling, Timeouts};

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
            net: NetConfig::Netns { link: "eth0".into() },
            ports: Ports::default(),
            timeouts: Timeouts::default(),
            scheduling: Scheduling::default(),
            data_dir: "/var/lib/holdfast".into(),
            begun_file: "/var/lib/holdfast.begun".into(),
            timeline_file: "/var/log/holdfast.jsonl".into(),
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
            (
                |c| c.address = "10.73.0.9".parse().unwrap(),
                "peers.n1: 10.73.0.1 is not this host's address, ",
            ),
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
            (
                |c| c.service_cidr = "fd00::/16".parse().unwrap(),
                "serviceCidr: fd00::/16 is no IPv4 network of ",
            ),
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
            (
                |c| c.timeouts.watchdog.farewell = LONGEST_TIME * 2,
                "timeouts.watchdog.farewell: 7200s is not ",
            ),
            (|c| c.data_dir = "data".into(), "dataDir: data is no absolute path; "),
        ];
        for (change, told) in table {
            let mut config = config();
            change(&mut config);
            let Findings { problems, .. } = config.check();
            assert!(
                problems.iter().any(|problem| problem.to_string().starts_with(told)),
                "{told}: {problems:?}"
            );
        }
        type Set = fn(&mut Timeouts, Duration);
        let times: [(Set, Duration, &str); 6] = [
            (|t, time| t.heartbeats.silent_after = time, ms(60), "timeouts.heartbeats.silentAfter"),
            (|t, time| t.nodes.not_ready_after = time, ms(200), "timeouts.nodes.notReadyAfter"),
            (|t, time| t.store.heartbeat = time, ms(5), "timeouts.store.heartbeat"),
            (|t, time| t.store.election_min = time, ms(80), "timeouts.store.electionMin"),
            (|t, time| t.store.election_max = time, ms(150), "timeouts.store.electionMax"),
            (|t, time| t.watchdog.stuck_after = time, ms(300), "timeouts.watchdog.stuckAfter"),
        ];
        for (change, time, field) in times {
            let mut config = config();
            change(&mut config.timeouts, time);
            let fields: Vec<String> =
                config.check().problems.into_iter().map(|problem| problem.field).collect();
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
        assert_eq!(
            found(Datastore { via: vec!["10.0.0.1:1".parse().unwrap()], ..etcd(3) }),
            ["datastore.via"]
        );
        for prefix in ["", "/", "holdfast", "/holdfast/"] {
            assert_eq!(
                found(Datastore { prefix: prefix.into(), ..etcd(1) }),
                ["datastore.prefix"],
                "{prefix}"
            );
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
}
