//! What a configuration must fulfil: one function over its fields, without I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::{Datastore, HostConfig, NetConfig, Timeouts};

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
pub(crate) const LONGEST_TIME: Duration = Duration::from_secs(3600);
/// What a kernel may take to kill what a host runs.
const STOPPING: Duration = Duration::from_millis(300);

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
        self.check_load_balancers(&mut findings);
        self.check_ports(&mut findings);
        self.check_timeouts(&mut findings);
        self.fencing.check(self.timeouts.lease.fenced_after, &mut findings);
        self.check_paths(&mut findings);
        self.check_runtime(&mut findings);
        self.scheduling.check(&mut findings);
        self.check_dns(&mut findings);
        self.eviction.check(&mut findings);
        self.shutdown.check(&mut findings);
        self.check_virtual_routers(&mut findings);
        if let Some(audit) = &self.audit {
            audit.check(&mut findings);
        }
        if let Some(webhook) = &self.token_webhook {
            webhook.check(&mut findings);
        }
        findings.require(
            self.encryption_file.is_none() || self.datastore.is_none(),
            "encryptionFile",
            "what lies in an etcd isn't encrypted by Holdfast",
            "leave it out, and encrypt the disks of the etcd",
        );
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

    fn check_dns(&self, findings: &mut Findings) {
        for server in &self.dns.upstream {
            let address = server.0.ip();
            findings.require(
                address != self.address && !self.service_cidr.contains(&address),
                "dns.upstream",
                format!("{server} is where the cluster's own DNS answers: questions would go round"),
                "name servers that know names outside of the cluster",
            );
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
        let Timeouts { heartbeats: beats, store, lease, .. } = &self.timeouts;
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
                lease.held_for >= beats.every * 10,
                "timeouts.lease.heldFor",
                "a few lost heartbeats would cost a host its lease",
                "take at least ten times timeouts.heartbeats.every",
            ),
            (
                lease.fenced_after >= lease.held_for * 11 / 10 + STOPPING,
                "timeouts.lease.fencedAfter",
                "a host might not have stopped yet when it counts as fenced",
                "take at least 1.1 times timeouts.lease.heldFor and 300ms",
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

    fn check_runtime(&self, findings: &mut Findings) {
        let Some(runtime) = &self.runtime else { return };
        let path = runtime.strip_prefix("unix://").map(Path::new);
        let is_socket = path.is_some_and(|path| path.is_absolute() && path.file_name().is_some());
        let what = format!("{runtime:?} is no runtime's address");
        findings.require(is_socket, "runtime", what, "write it like unix:///run/containerd/containerd.sock");
    }

    fn check_paths(&self, findings: &mut Findings) {
        let paths: [(&str, &Path); 4] = [
            ("dataDir", &self.data_dir),
            ("begunFile", &self.begun_file),
            ("timelineFile", &self.timeline_file),
            ("pkiDir", &self.pki_dir),
        ];
        let registries = self.registries_file.iter().map(|path| ("registriesFile", path.as_path()));
        let static_pods = self.static_pods.iter().map(|path| ("staticPods", path.as_path()));
        let encryption = self.encryption_file.iter().map(|path| ("encryptionFile", path.as_path()));
        for (field, path) in paths.into_iter().chain(registries).chain(static_pods).chain(encryption) {
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

/// Whether a host may be called so: RFC 1123, as names of Nodes and of certificates need it.
pub fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let ends = label.bytes().next().zip(label.bytes().last());
        ends.is_some_and(|(first, last)| is_edge(first) && is_edge(last))
            && label.bytes().all(|c| is_edge(c) || c == b'-')
    };
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

/// Whether a new host may be called so: by a host's name that isn't the API's or each machine's own. Every host's certificate is for
/// these, so that any host could pass for one of such a name.
pub fn is_new_host_name(name: &str) -> bool {
    let is_of =
        |whole: &str| name.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    is_host_name(name) && name != "kubernetes" && !is_of("kubernetes.default") && !is_of("localhost")
}

/// Whether two networks have addresses in common: they lie within each other, or apart.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
pub(crate) mod tests;
