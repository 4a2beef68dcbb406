//! The other hosts as the cluster's state tells them: who they are, where heartbeats reach them, where their pods are.
//!
//! A host's configuration names the members that its cluster begins with, and its own addresses. From then on all of it
//! follows the state, while the host runs: the members of the hosts' own store, and the Nodes that agents register.
//! An agent writes its own Node, and may be in wrong hands: what it says counts only as far as the configuration lets it,
//! so that nobody draws the traffic of others, or opens what a host keeps to itself (ARCHITECTURE.md, "Where connections
//! may lead").

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::{HostConfig, overlap};
use ipnet::IpNet;
use membership::lease::Known;
use network::{HostNetwork, Targets};
use objects::Fencing;
use store::{Event, KeyValue, Revision, State, Store, Watcher};
use tokio::sync::watch;

use crate::nodes::{self, StoredNode, name_of};

/// The members of the hosts' own store by name. Where the state lies in an etcd they are those of the configuration.
pub type Members = BTreeMap<String, IpAddr>;

/// What is known of the hosts.
pub struct Peers {
    config: HostConfig,
    members: Members,
    nodes: BTreeMap<String, Node>,
}

/// What counts of a host's Node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    /// Which of two Nodes with the same range has it: the older one.
    since: Revision,
    address: Option<IpAddr>,
    pods: Option<IpNet>,
    /// The port on which it hears heartbeats; none where it isn't a host of this program.
    heartbeats: Option<u16>,
    /// What is known of its host's lease.
    lease: Known,
}

/// Those that follow the hosts.
pub struct Followers {
    /// Where heartbeats go, and from which hosts they count.
    pub heartbeats: watch::Sender<BTreeMap<String, SocketAddr>>,
    /// Where pods are.
    pub networks: watch::Sender<Arc<BTreeMap<String, HostNetwork>>>,
    /// Where connections may lead.
    pub targets: watch::Sender<Targets>,
    /// The members' names: the API believes them, and their word on leases counts.
    pub members: watch::Sender<Arc<BTreeSet<String>>>,
    /// What is known of the hosts' leases.
    pub leases: watch::Sender<Arc<BTreeMap<String, Known>>>,
}

impl Peers {
    /// The hosts as of a state.
    pub fn new(config: HostConfig, members: Members, state: &State) -> Self {
        let mut peers = Peers { config, members, nodes: BTreeMap::new() };
        peers.load(state);
        peers
    }

    fn load(&mut self, state: &State) {
        self.nodes =
            state.range(&nodes::all()).filter_map(|kv| Some((name_of(&kv.key)?, Node::read(kv)))).collect();
    }

    /// Takes one change in. Tells whether it is of any concern: most changes of a Node are not.
    fn apply(&mut self, event: &Event) -> bool {
        let Some(name) = name_of(event.key()) else { return false };
        match event {
            Event::Put { current, .. } => {
                let node = Node::read(current);
                self.nodes.get(&name) != Some(&node) && {
                    self.nodes.insert(name, node);
                    true
                }
            }
            Event::Delete { .. } => self.nodes.remove(&name).is_some(),
        }
    }

    /// What is known of the hosts' leases.
    fn leases(&self) -> BTreeMap<String, Known> {
        self.nodes.iter().map(|(name, node)| (name.clone(), node.lease)).collect()
    }

    /// The network of this host's own pods: what its Node says, once it is registered, since a Node keeps its range.
    pub fn own_pods(&self) -> IpNet {
        let HostConfig { name, pod_cidr, .. } = &self.config;
        match self.nodes.get(name).and_then(|node| node.pods) {
            Some(pods) if pods != *pod_cidr && self.may_be_pods(pods) => {
                tracing::warn!(
                    "podCidr is {pod_cidr}, but the Node {name} was registered with {pods}, and keeps it"
                );
                pods
            }
            _ => *pod_cidr,
        }
    }

    /// Where heartbeats are heard.
    pub fn heartbeats(&self) -> BTreeMap<String, SocketAddr> {
        let port = self.config.ports.heartbeats;
        let members = self.members.iter().map(|(name, ip)| (name.clone(), SocketAddr::new(*ip, port)));
        let nodes = self.nodes.iter().filter_map(|(name, node)| {
            let address = node.address.filter(|address| self.config.host_cidr.contains(address))?;
            Some((name.clone(), SocketAddr::new(address, node.heartbeats?)))
        });
        // A member's address is what the members agreed on, whatever its Node says.
        let mut all: BTreeMap<_, _> = nodes.chain(members).collect();
        all.remove(&self.config.name);
        all
    }

    /// Where all hosts' pods are, this one's at `own`, and the names of those Nodes whose word for it doesn't count.
    pub fn networks(&self, own: IpNet) -> (BTreeMap<String, HostNetwork>, Vec<&str>) {
        let me = &self.config.name;
        let mut taken = vec![own];
        let mut addresses = BTreeSet::from([self.config.address, self.config.virtual_address]);
        let mut networks =
            BTreeMap::from([(me.clone(), HostNetwork { address: self.config.address, pods: own })]);
        let mut refused = Vec::new();
        let mut nodes: Vec<_> = self.nodes.iter().filter(|(name, _)| *name != me).collect();
        nodes.sort_by_key(|(_, node)| node.since);
        for (name, node) in nodes {
            let (Some(address), Some(pods)) = (node.address, node.pods) else { continue };
            let is_free = !taken.iter().any(|other| overlap(*other, pods));
            let counts = is_free && self.config.host_cidr.contains(&address) && self.may_be_pods(pods);
            // Those are services', and move between hosts.
            let is_balanced = self.config.load_balancer_cidrs.iter().any(|range| range.contains(address));
            if counts && !is_balanced && addresses.insert(address) {
                taken.push(pods);
                networks.insert(name.clone(), HostNetwork { address, pods });
            } else {
                refused.push(&**name);
            }
        }
        (networks, refused)
    }

    fn may_be_pods(&self, pods: IpNet) -> bool {
        let HostConfig { host_cidr, service_cidr, cluster_cidr, .. } = &self.config;
        cluster_cidr.contains(&pods) && !overlap(pods, *host_cidr) && !overlap(pods, *service_cidr)
    }
}

impl Followers {
    /// As the hosts are at the start.
    pub fn new(
        heartbeats: watch::Sender<BTreeMap<String, SocketAddr>>,
        members: watch::Sender<Arc<BTreeSet<String>>>,
        leases: watch::Sender<Arc<BTreeMap<String, Known>>>,
        peers: &Peers,
        own: IpNet,
    ) -> Self {
        let (networks, targets) = (watch::Sender::default(), watch::Sender::default());
        let followers = Followers { heartbeats, networks, targets, members, leases };
        followers.tell(peers, own);
        followers
    }

    /// Tells each of them what is new to it.
    fn tell(&self, peers: &Peers, own: IpNet) {
        let (networks, refused) = peers.networks(own);
        for name in refused {
            tracing::warn!(
                "nothing is sent to the pods of the Node {name}: its address is outside of hostCidr or another host's, or its \
                 podCIDR is outside of clusterCidr or overlaps another network"
            );
        }
        update(&self.heartbeats, peers.heartbeats());
        update(&self.targets, Targets::new(&networks));
        update(&self.networks, Arc::new(networks));
        update(&self.members, Arc::new(peers.members.keys().cloned().collect()));
        update(&self.leases, Arc::new(peers.leases()));
    }
}

fn update<T: PartialEq>(followers: &watch::Sender<T>, now: T) {
    followers.send_if_modified(|known| {
        let changed = *known != now;
        *known = now;
        changed
    });
}

/// Follows the hosts until the store ends.
pub async fn follow(
    mut peers: Peers,
    own: IpNet,
    store: Arc<dyn Store>,
    mut members: watch::Receiver<Members>,
    followers: Followers,
) {
    loop {
        let state = store.snapshot();
        peers.load(&state);
        let watcher = store.watch(nodes::all(), state.revision().next());
        drop(state);
        match follow_history(&mut peers, own, watcher, &mut members, &followers).await {
            // The history was cut past what was seen: start from the newest state again.
            store::Error::Compacted { .. } => {}
            error => return tracing::debug!(%error, "hosts are no longer followed"),
        }
    }
}

async fn follow_history(
    peers: &mut Peers,
    own: IpNet,
    watcher: Result<Watcher, store::Error>,
    members: &mut watch::Receiver<Members>,
    followers: &Followers,
) -> store::Error {
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => return error,
    };
    let mut changed = true;
    loop {
        peers.members.clone_from(&members.borrow_and_update());
        if changed {
            followers.tell(peers, own);
        }
        changed = tokio::select! {
            changes = watcher.changes() => match changes {
                // All of them are applied, also after one that changed something.
                Ok((events, _)) => events.iter().filter(|event| peers.apply(event)).count() > 0,
                Err(error) => return error,
            },
            Ok(()) = members.changed() => true,
        };
    }
}

impl Node {
    /// What counts of the stored Node.
    fn read(kv: &KeyValue) -> Self {
        let StoredNode { address, pods, annotations, .. } = StoredNode::read(&kv.value.bytes());
        let fencing = Fencing::of(Some(&annotations));
        let heartbeats = annotations.get(objects::HEARTBEATS).and_then(|port| port.parse().ok());
        Node {
            since: kv.create_revision,
            address,
            pods,
            heartbeats: heartbeats.filter(|port| *port != 0),
            // Nobody is fenced who has promised nothing.
            lease: fencing
                .grade
                .map_or_else(Known::default, |_| Known { epoch: fencing.epoch, fenced: fencing.fenced }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use store::{KeyRange, Memory, Op, Txn};
    use tokio::time::timeout;

    use super::*;

    /// Long enough for any machine; nothing waits for it unless something is wrong.
    const SOON: Duration = Duration::from_secs(20);

    fn config() -> HostConfig {
        let folder = tempfile::tempdir().unwrap();
        let folder = local::Folder::open_or_create(folder.path(), 1, local::NetKind::Netns).unwrap();
        HostConfig::load(&folder.config_file("n1")).unwrap()
    }

    async fn register(store: &Memory, name: &str, address: &str, pods: &str, heartbeats: Option<u16>) {
        let port = heartbeats.map(|port| port.to_string());
        let node = json!({
            "metadata": {"name": name, "annotations": {objects::HEARTBEATS: port}},
            "spec": {"podCIDR": pods},
            "status": {"addresses": [
                {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
        });
        store.txn(Txn::put(objects::key("", "nodes", "", name), node.to_string())).await.unwrap();
    }

    async fn remove(store: &Memory, name: &str) {
        let gone = Op::Delete(KeyRange::key(objects::key("", "nodes", "", name)));
        store.txn(Txn { success: vec![gone], ..Txn::default() }).await.unwrap();
    }

    /// Waits until a follower sees what is wanted.
    async fn told<T: Clone>(receiver: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) -> T {
        let told = timeout(SOON, receiver.wait_for(wanted)).await.expect("in time");
        told.unwrap().clone()
    }

    #[tokio::test]
    async fn what_comes_and_goes_while_a_host_runs_is_followed() {
        let store = Arc::new(Memory::default());
        let config = config();
        let own = config.pod_cidr;
        let member = |n: u8| (format!("n{n}"), IpAddr::from([10, 73, 0, n]));
        let members = watch::Sender::new(Members::from([member(1)]));
        let peers = Peers::new(config, members.borrow().clone(), &store.snapshot());
        let (beats, leases) = (watch::Sender::default(), watch::Sender::default());
        let followers = Followers::new(beats, watch::Sender::default(), leases, &peers, own);
        let mut heartbeats = followers.heartbeats.subscribe();
        let mut networks = followers.networks.subscribe();
        let mut hosts = followers.members.subscribe();
        assert!(heartbeats.borrow().is_empty());
        assert_eq!(networks.borrow().keys().collect::<Vec<_>>(), ["n1"]);
        let following = tokio::spawn(follow(peers, own, store.clone(), members.subscribe(), followers));

        // A worker: a host of this program, and no member.
        register(&store, "n2", "10.73.0.2", "10.244.2.0/24", Some(2391)).await;
        let beats = told(&mut heartbeats, |beats| !beats.is_empty()).await;
        assert_eq!(beats, BTreeMap::from([("n2".to_owned(), "10.73.0.2:2391".parse().unwrap())]));
        let known = told(&mut networks, |networks| networks.len() == 2).await;
        assert_eq!(known["n2"].pods.to_string(), "10.244.2.0/24");
        assert_eq!(hosts.borrow().len(), 1, "not a member");

        // A member, before its agent is there.
        members.send_replace(Members::from([member(1), member(3)]));
        told(&mut heartbeats, |beats| beats.len() == 2).await;
        told(&mut hosts, |hosts| hosts.contains("n3")).await;

        // A node of another program has pods, and doesn't beat.
        register(&store, "other", "10.73.0.9", "10.244.9.0/24", None).await;
        told(&mut networks, |networks| networks.len() == 3).await;
        assert_eq!(heartbeats.borrow().len(), 2);

        // It moves, and leaves.
        register(&store, "n2", "10.73.0.22", "10.244.2.0/24", Some(2391)).await;
        told(&mut networks, |networks| networks["n2"].address == IpAddr::from([10, 73, 0, 22])).await;
        told(&mut heartbeats, |beats| beats["n2"].ip() == IpAddr::from([10, 73, 0, 22])).await;
        remove(&store, "n2").await;
        told(&mut networks, |networks| networks.len() == 2).await;
        told(&mut heartbeats, |beats| beats.keys().eq(["n3"])).await;
        members.send_replace(Members::from([member(1)]));
        told(&mut heartbeats, BTreeMap::is_empty).await;
        following.abort();
    }

    #[tokio::test]
    async fn a_node_draws_nobody_elses_traffic() {
        let store = Memory::default();
        register(&store, "n2", "10.73.0.2", "10.244.2.0/24", Some(2381)).await;
        let bad = [
            ("a1", "10.73.0.11", "10.244.2.0/25"),
            ("a2", "10.73.0.12", "10.244.1.0/24"),
            ("a3", "10.73.0.13", "10.96.0.0/24"),
            ("a4", "10.73.0.14", "10.73.0.0/24"),
            ("a5", "10.73.0.15", "0.0.0.0/0"),
            ("a6", "10.73.0.2", "10.244.16.0/24"),
            ("a7", "10.73.0.1", "10.244.17.0/24"),
            ("a8", "10.73.0.100", "10.244.18.0/24"),
            ("a9", "127.0.0.1", "10.244.19.0/24"),
        ];
        for (name, address, pods) in bad {
            register(&store, name, address, pods, None).await;
        }
        let config = config();
        let own = config.pod_cidr;
        let peers = Peers::new(config, Members::new(), &store.snapshot());
        let (networks, refused) = peers.networks(own);
        assert_eq!(networks.keys().collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!(refused, bad.map(|(name, ..)| name));
    }

    #[tokio::test]
    async fn a_registered_node_keeps_its_range() {
        let store = Memory::default();
        let own =
            |store: &Memory| Peers::new(config(), Members::new(), &store.snapshot()).own_pods().to_string();
        assert_eq!(own(&store), "10.244.1.0/24");
        register(&store, "n1", "10.73.0.1", "10.244.7.0/24", Some(2381)).await;
        assert_eq!(own(&store), "10.244.7.0/24");
        register(&store, "n1", "10.73.0.1", "10.96.1.0/24", Some(2381)).await;
        assert_eq!(own(&store), "10.244.1.0/24", "services are no pods");
    }
}
