//! Who may join, and as what: decided from what the cluster knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::{HostConfig, MOST_MEMBERS, is_new_host_name, overlap};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::register::ranges;
use crate::{Entry, Register};

/// What is known when somebody asks.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The configuration of the host that is asked.
    pub config: &'a HostConfig,
    /// The members of the store.
    pub members: &'a BTreeMap<String, IpAddr>,
    /// The Nodes.
    pub nodes: &'a BTreeMap<String, KnownNode>,
    /// The hosts that are heard, the one that is asked among them.
    pub heard: &'a BTreeSet<String>,
    /// The hosts whose silence would be noticed: of others a Node's own word counts.
    pub listened_for: &'a BTreeSet<String>,
    /// Who was let in before.
    pub register: &'a Register,
}

/// What of a Node counts for a host that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    /// Its internal address.
    pub address: Option<IpAddr>,
    /// The range of its pods.
    pub pods: Option<IpNet>,
    /// Whether it says that it is ready.
    pub is_ready: bool,
}

/// A machine that wants to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applicant<'a> {
    /// The name of the host that it wants to be.
    pub name: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// The hash of its key.
    pub key: &'a str,
    /// The host whose place its token lets it take.
    pub replaces: Option<&'a str>,
}

/// As what somebody may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The register with it in it.
    pub register: Register,
    /// The range of its pods.
    pub pod_cidr: IpNet,
    /// The members, it included.
    pub peers: BTreeMap<String, IpAddr>,
}

/// Why somebody may not join, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name can't be a host's.
    #[error(
        "{0:?} can't be a host's name; take 1 to 63 small letters, digits, '-' and '.', and neither localhost nor kubernetes"
    )]
    Name(String),
    /// A host of that name is there.
    #[error(
        "a host {0} is there and heard; give this one another name with --name, or, to put it in that one's place, stop that one first"
    )]
    NameTaken(String),
    /// The name is that of another machine, which isn't heard.
    #[error(
        "{0} is the name of a host on another machine, which isn't heard now; give this one another name with --name, or, if that one \
         never comes back, join with a token that `holdfast token create --replace {0}` makes"
    )]
    NameKept(String),
    /// The token is for another name.
    #[error(
        "the token lets a machine take the place of {replaces}, not be {name}; give --name {replaces}, or another token"
    )]
    OtherPlace {
        /// Whose place the token is for.
        replaces: String,
        /// Who wants to join.
        name: String,
    },
    /// Another host has the address.
    #[error(
        "{address} is the address of the host {name}; give another with --address, or take that one out of the cluster first (its member and its Node)"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The host that has it.
        name: String,
    },
    /// The address can't be a host's.
    #[error(
        "{address} lies outside hostCidr, {hosts}; hosts share one network so far: give an address in it with --address"
    )]
    Outside {
        /// The address.
        address: IpAddr,
        /// The hosts' network.
        hosts: IpNet,
    },
    /// The address is the cluster's.
    #[error("{0} is the cluster's virtual address; give the host's own with --address")]
    Virtual(IpAddr),
    /// There are as many members as there may be.
    #[error("the cluster has {0} members, and more would only be slower; remove one first")]
    Full(usize),
    /// All pods' addresses are given out.
    #[error(
        "no range of /{prefix} is left in the pods' network {network}; remove the Nodes of hosts that are gone"
    )]
    NoRange {
        /// The network of all pods.
        network: IpNet,
        /// The size that is looked for.
        prefix: u8,
    },
    /// The state lies in an etcd.
    #[error(
        "this cluster's state lies in an etcd, where the members are those of each host's configuration; write one for the new host (docs/etcd.md)"
    )]
    OnEtcd,
}

/// Decides whether a machine may join. One that asks again gets the same range. The name of a host that was let in is its
/// machine's for as long as it is a member or has a Node: another machine takes its place only where an administrator's token
/// says so, and that host isn't heard.
///
/// # Errors
/// [`Refusal`].
pub fn admit(applicant: Applicant<'_>, known: &Known<'_>, now: Timestamp) -> Result<Admitted, Refusal> {
    let Known { config, members, nodes, .. } = *known;
    let Applicant { name, address, key, replaces } = applicant;
    if config.datastore.is_some() {
        return Err(Refusal::OnEtcd);
    }
    if !is_new_host_name(name) {
        return Err(Refusal::Name(name.to_owned()));
    }
    if let Some(replaces) = replaces.filter(|replaces| *replaces != name) {
        return Err(Refusal::OtherPlace { replaces: replaces.to_owned(), name: name.to_owned() });
    }
    if is_alive(name, known) {
        return Err(Refusal::NameTaken(name.to_owned()));
    }
    check_address(name, address, known)?;
    if members.len() >= MOST_MEMBERS && !members.contains_key(name) {
        return Err(Refusal::Full(members.len()));
    }
    let is_there = |name: &str| nodes.contains_key(name) || members.contains_key(name);
    let mut register = known.register.clone();
    // Who was let in with this address under another name, and never came: nobody else has it.
    register.0.retain(|other, entry| other == name || is_there(other) || entry.address != address);
    register.forget(is_there, now);
    let before = register.0.get(name);
    let is_another = match before {
        Some(before) => before.key != key,
        None => is_there(name),
    };
    if is_another && replaces.is_none() {
        return Err(Refusal::NameKept(name.to_owned()));
    }
    let pod_cidr = range_for(name, known, &register)?;
    register.0.insert(name.to_owned(), Entry { address, pod_cidr, since: now, key: key.to_owned() });
    let mut peers = members.clone();
    peers.insert(name.to_owned(), address);
    Ok(Admitted { register, pod_cidr, peers })
}

/// Whether a host of that name is at work.
fn is_alive(name: &str, known: &Known<'_>) -> bool {
    // A Node of another program sends no heartbeats: there it counts what the Node says.
    let says_so = || known.nodes.get(name).is_some_and(|node| node.is_ready);
    name == known.config.name
        || known.heard.contains(name)
        || (!known.listened_for.contains(name) && says_so())
}

fn check_address(name: &str, address: IpAddr, known: &Known<'_>) -> Result<(), Refusal> {
    let HostConfig { host_cidr, virtual_address, .. } = known.config;
    let is_edge = |edge: IpAddr| address == edge && host_cidr.prefix_len() < host_cidr.max_prefix_len() - 1;
    if !host_cidr.contains(&address) || is_edge(host_cidr.network()) || is_edge(host_cidr.broadcast()) {
        return Err(Refusal::Outside { address, hosts: *host_cidr });
    }
    if address == *virtual_address {
        return Err(Refusal::Virtual(address));
    }
    let members = known.members.iter().map(|(name, address)| (name, Some(*address)));
    let nodes = known.nodes.iter().map(|(name, node)| (name, node.address));
    let mut hosts = members.chain(nodes).chain([(&known.config.name, Some(known.config.address))]);
    match hosts.find(|(other, has)| *other != name && *has == Some(address)) {
        Some((other, _)) => Err(Refusal::AddressTaken { address, name: other.clone() }),
        None => Ok(()),
    }
}

/// The range that a host has, or the first that nobody has.
fn range_for(name: &str, known: &Known<'_>, register: &Register) -> Result<IpNet, Refusal> {
    let Known { config, nodes, .. } = known;
    let network = config.cluster_cidr;
    let of_others = |pods: IpNet| {
        let nodes = nodes.iter().filter(|(other, _)| *other != name).filter_map(|(_, node)| node.pods);
        let entries = register.0.iter().filter(|(other, _)| *other != name).map(|(_, entry)| entry.pod_cidr);
        nodes.chain(entries).chain([config.pod_cidr]).any(|taken| overlap(taken, pods))
    };
    // A Node keeps its range for as long as it is there, so what it says comes first.
    let of_node = nodes.get(name).and_then(|node| node.pods);
    let before = register.0.get(name).map(|entry| entry.pod_cidr);
    let kept = of_node.or(before).filter(|pods| network.contains(pods) && !of_others(*pods));
    let prefix = config.pod_cidr.prefix_len();
    let free = || ranges(network, prefix).find(|pods| !of_others(*pods));
    kept.or_else(free).ok_or(Refusal::NoRange { network, prefix })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::first::tests::{first, layout};
    use crate::first_config;

    /// What a cluster knows, to be changed by a test.
    struct World {
        config: HostConfig,
        members: BTreeMap<String, IpAddr>,
        nodes: BTreeMap<String, KnownNode>,
        heard: BTreeSet<String>,
        listened_for: BTreeSet<String>,
        register: Register,
    }

    impl World {
        /// A host alone.
        fn new() -> Self {
            let config = first_config("c", first(), &layout());
            let mut world = World {
                members: config.peers.clone(),
                nodes: BTreeMap::new(),
                heard: BTreeSet::new(),
                listened_for: BTreeSet::new(),
                register: Register::default(),
                config,
            };
            world.add("n1", 1, "10.244.0.0/24");
            world
        }

        /// A host that joined, started and is heard.
        fn add(&mut self, name: &str, number: u8, pods: &str) {
            let address = address(number);
            self.members.insert(name.into(), address);
            let node =
                KnownNode { address: Some(address), pods: Some(pods.parse().unwrap()), is_ready: true };
            self.nodes.insert(name.into(), node);
            let pod_cidr = pods.parse().unwrap();
            let entry = Entry { address, pod_cidr, since: now(), key: name.into() };
            self.register.note(name, entry, |_| true).unwrap();
            self.heard.insert(name.into());
            self.listened_for.insert(name.into());
        }

        /// A machine whose key is called as it is asks with an ordinary token.
        fn ask(&self, name: &str, number: u8) -> Result<Admitted, Refusal> {
            self.ask_at(name, address(number), now())
        }

        fn ask_at(&self, name: &str, address: IpAddr, now: Timestamp) -> Result<Admitted, Refusal> {
            self.ask_as(Applicant { name, address, key: name, replaces: None }, now)
        }

        fn ask_as(&self, applicant: Applicant<'_>, now: Timestamp) -> Result<Admitted, Refusal> {
            let World { config, members, nodes, heard, listened_for, register } = self;
            admit(applicant, &Known { config, members, nodes, heard, listened_for, register }, now)
        }
    }

    fn address(number: u8) -> IpAddr {
        [10, 73, 0, number].into()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn hosts_get_ranges_that_nobody_has_and_the_same_again() {
        let mut world = World::new();
        let two = world.ask("n2", 2).unwrap();
        assert_eq!(two.pod_cidr.to_string(), "10.244.1.0/24");
        assert_eq!(two.peers.keys().collect::<Vec<_>>(), ["n1", "n2"]);
        world.register = two.register;
        // Another one comes before the first has started: its Node isn't there yet.
        let three = world.ask("n3", 3).unwrap();
        assert_eq!(three.pod_cidr.to_string(), "10.244.2.0/24");
        world.register = three.register;
        assert_eq!(world.ask("n2", 2).unwrap().pod_cidr.to_string(), "10.244.1.0/24");
        // Another machine of that name comes, before either was started.
        let other = Applicant { name: "n2", address: address(7), key: "another", replaces: None };
        assert_eq!(world.ask_as(other, now()), Err(Refusal::NameKept("n2".into())));
        // It changed its mind about its name, and comes with the same address.
        let renamed = world.ask("n9", 2).unwrap();
        assert!(!renamed.register.0.contains_key("n2"));
        assert_eq!(renamed.pod_cidr.to_string(), "10.244.1.0/24");
    }

    #[test]
    fn the_place_of_a_silent_host_is_given_by_an_administrator_and_that_of_a_live_one_by_nobody() {
        let mut world = World::new();
        world.add("n2", 2, "10.244.7.0/24");
        let by_token = Applicant { name: "n2", address: address(2), key: "another", replaces: Some("n2") };
        let by_chance = Applicant { replaces: None, ..by_token };
        for live in [by_token, by_chance, Applicant { key: "n2", ..by_chance }] {
            assert_eq!(world.ask_as(live, now()), Err(Refusal::NameTaken("n2".into())));
        }
        assert_eq!(world.ask("n1", 5), Err(Refusal::NameTaken("n1".into())));
        let taken = Refusal::AddressTaken { address: address(2), name: "n2".into() };
        assert_eq!(world.ask("n3", 2), Err(taken.clone()));
        world.heard.remove("n2");
        assert_eq!(world.ask("n3", 2), Err(taken), "it may come back");
        let kept = Err(Refusal::NameKept("n2".into()));
        let later = now() + SignedDuration::from_hours(72);
        assert_eq!(world.ask_as(by_chance, later), kept);
        for name in ["n3", "n2"] {
            let other = Applicant { name, address: address(3), key: "another", replaces: Some("n4") };
            assert!(matches!(world.ask_as(other, now()), Err(Refusal::OtherPlace { .. })));
        }
        let again = world.ask("n2", 2).unwrap();
        assert_eq!(
            again.pod_cidr.to_string(),
            "10.244.7.0/24",
            "the same machine, and its Node keeps its range"
        );
        let another = world.ask_as(by_token, now()).unwrap();
        assert_eq!((another.pod_cidr, &*another.register.0["n2"].key), (again.pod_cidr, "another"));
        // Who isn't in the register is there all the same, and its machine isn't known.
        world.register = Register::default();
        assert_eq!(world.ask("n2", 2), kept);
        // The Node of another program, which sends no heartbeats.
        world.listened_for.remove("n2");
        assert_eq!(world.ask("n2", 2), Err(Refusal::NameTaken("n2".into())));
    }

    #[test]
    fn what_can_t_be_is_refused() {
        let mut world = World::new();
        let hosts = world.config.host_cidr;
        for outside in ["10.74.0.2", "10.73.0.0", "10.73.0.255", "fd00::1", "127.0.0.1"] {
            let address: IpAddr = outside.parse().unwrap();
            assert_eq!(world.ask_at("n2", address, now()), Err(Refusal::Outside { address, hosts }));
        }
        assert_eq!(world.ask("n2", 100), Err(Refusal::Virtual(address(100))));
        for name in ["N2", "kubernetes", "localhost"] {
            assert_eq!(world.ask(name, 2), Err(Refusal::Name(name.into())));
        }
        world.config.cluster_cidr = "10.244.0.0/24".parse().unwrap();
        assert!(matches!(world.ask("n2", 2), Err(Refusal::NoRange { prefix: 24, .. })));
        let mut world = World::new();
        (2..=7).for_each(|n| world.add(&format!("n{n}"), n, &format!("10.244.{n}.0/24")));
        assert_eq!(world.ask("n8", 8), Err(Refusal::Full(7)));
        world.heard.remove("n7");
        world.ask("n7", 7).unwrap();
        let kept = Refusal::NameKept("n7".into());
        for refusal in [Refusal::OnEtcd, Refusal::Full(7), Refusal::Virtual(address(1)), kept] {
            assert!(refusal.to_string().contains("; ") || refusal == Refusal::OnEtcd, "{refusal}");
        }
    }

    #[test]
    fn a_member_keeps_its_range_also_without_a_node() {
        let mut world = World::new();
        // Asked is another one than the first host, whose Node was deleted while it was off, long after.
        world.add("n2", 2, "10.244.1.0/24");
        world.nodes.remove("n1");
        world.heard.remove("n1");
        world.config.name = "n2".into();
        world.config.address = address(2);
        world.config.pod_cidr = "10.244.1.0/24".parse().unwrap();
        let later = now() + SignedDuration::from_hours(72);
        let three = world.ask_at("n3", address(3), later).unwrap();
        assert_eq!(three.pod_cidr.to_string(), "10.244.2.0/24");
        // Nor by an address that it had once.
        world.members.insert("n1".into(), address(9));
        let four = world.ask_at("n4", address(1), later).unwrap();
        assert!(four.register.0.contains_key("n1"));
    }

    #[test]
    fn ranges_of_hosts_that_never_came_are_given_out_again() {
        let mut world = World::new();
        world.register = world.ask("n2", 2).unwrap().register;
        let later = now() + SignedDuration::from_hours(72);
        let other = world.ask_at("n3", address(3), later).unwrap();
        assert_eq!(other.pod_cidr.to_string(), "10.244.1.0/24");
        assert!(!other.register.0.contains_key("n2"));
    }
}
