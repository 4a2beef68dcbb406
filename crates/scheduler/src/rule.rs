//! What a host must be like for a pod, and how good it is, as far as that host alone goes: the way to add a rule of one's own, which
//! elsewhere an extender or a plugin of the scheduling framework is.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Toleration;
use objects::{Container, Labels, Pod};

use crate::filter::{
    DynamicResources, NodeAffinity, NodePorts, NodeResourcesFit, NodeUnschedulable, NodeVolumeLimits,
    TaintToleration, VolumeBinding, VolumeZone,
};
use crate::host_row::HostRow;
use crate::node::Node;
use crate::request::amount;
use crate::score::{ImageLocality, NodeResourcesBalancedAllocation};
use crate::unschedulable::Reason;
use crate::wish::{Wish, spec};

/// The best score: thousandths, finer than upstream's hundredths, so that hosts are seldom equal.
pub const BEST: i64 = 1000;

/// A rule of one host for one pod. The scheduler's own filters and scores that look at one host are such rules.
///
/// What it says is a function of its two arguments: no clock, no file, no network, no memory of its own. Hosts are asked about
/// again when something of theirs changed, and pods that ask for the same are asked about once; so a rule that looked at anything
/// else would be believed for too long. It is asked once for each host that changed and each kind of pod that waits: some
/// thousand times a second on a busy cluster.
///
/// ```
/// use std::sync::Arc;
///
/// use scheduler::{Asks, Cluster, Host, Node, Profiles, Reason, Rule};
/// use serde_json::json;
///
/// /// Pods of a team go to the team's hosts, rather to those with few pods.
/// #[derive(Debug)]
/// struct Teams;
///
/// impl Rule for Teams {
///     fn name(&self) -> &'static str {
///         "Teams"
///     }
///
///     fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
///         let team = asks.labels().and_then(|labels| labels.get("team")).map(String::as_str);
///         let is_ours = team.is_none() || host.node().label("team") == team;
///         if is_ours { Vec::new() } else { vec![Reason::of_node("node(s) of another team")] }
///     }
///
///     fn score(&self, _: &Asks<'_>, host: &Host<'_>) -> i64 {
///         scheduler::BEST - 10 * host.pods().count() as i64
///     }
/// }
///
/// let mut cluster = Cluster::new(Profiles::with(Teams));
/// for (name, team) in [("n1", "red"), ("n2", "blue")] {
///     let ready = json!([{"type": "Ready", "status": "True"}]);
///     let node = json!({"metadata": {"name": name, "labels": {"team": team}}, "status": {"conditions": ready}});
///     cluster.set_node(name, Some(Arc::new(serde_json::from_value::<Node>(node)?)));
/// }
/// let pod = |team: &str| {
///     let metadata = json!({"name": "p", "namespace": "default", "labels": {"team": team}});
///     serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}})).map(Arc::new)
/// };
/// assert_eq!(cluster.schedule(&pod("blue")?).as_deref(), Ok("n2"));
/// let why = cluster.schedule(&pod("green")?).unwrap_err().to_string();
/// assert!(why.starts_with("0/2 nodes are available: 2 node(s) of another team."));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub trait Rule: fmt::Debug + Send + Sync + 'static {
    /// Its name: for upstream's plugins, theirs.
    fn name(&self) -> &'static str;

    /// What stands against the host; nothing if the pod can be there.
    fn against(&self, asks: &Asks<'_>, host: &Host<'_>) -> Vec<Reason> {
        let _ = (asks, host);
        Vec::new()
    }

    /// How good the host is, from 0 to [`BEST`]. All rules' scores are added up, and count where hosts are equal in what is more
    /// important: what the pod prefers, and that its siblings are elsewhere.
    fn score(&self, asks: &Asks<'_>, host: &Host<'_>) -> i64 {
        let _ = (asks, host);
        0
    }
}

/// What pods ask for that are alike: neither their names nor their annotations.
#[derive(Debug, Clone, Copy)]
pub struct Asks<'a>(pub(crate) &'a Wish);

impl<'a> Asks<'a> {
    /// Their namespace.
    pub fn namespace(&self) -> &'a str {
        &self.0.class.namespace
    }

    /// Their labels.
    pub fn labels(&self) -> Option<&'a Labels> {
        self.0.class.labels.as_deref()
    }

    /// Their priority.
    pub fn priority(&self) -> i32 {
        self.0.priority
    }

    /// Their node selector.
    pub fn node_selector(&self) -> Option<&'a Labels> {
        spec(&self.0.pod).node_selector.as_ref()
    }

    /// The taints that they bear.
    pub fn tolerations(&self) -> &'a [Toleration] {
        spec(&self.0.pod).tolerations.as_deref().unwrap_or_default()
    }

    /// Their containers, without those that run before them.
    pub fn containers(&self) -> &'a [Container] {
        &spec(&self.0.pod).containers
    }

    /// How much of a resource each of them needs at its worst moment, in thousandths.
    pub fn requests(&self, resource: &str) -> i128 {
        amount(&self.0.amounts, resource)
    }
}

/// A host with its node and its pods.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    pub(crate) row: &'a HostRow,
    node: &'a Node,
}

impl<'a> Host<'a> {
    pub(crate) fn new(row: &'a HostRow, node: &'a Node) -> Self {
        Host { row, node }
    }

    /// Its node.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Its pods, those on their way out among them. Their labels, owners and specs are those of now; their status may be older.
    pub fn pods(&self) -> impl Iterator<Item = &'a Pod> + use<'a> {
        self.row.pods.iter().map(|pod| &**pod)
    }

    /// How much of a resource its pods have together, in thousandths.
    pub fn requested(&self, resource: &str) -> i128 {
        amount(&self.row.requested, resource)
    }

    /// How much of a resource pods may have there, in thousandths.
    pub fn allocatable(&self, resource: &str) -> i128 {
        amount(&self.row.allocatable, resource)
    }
}

/// All rules that hold, in the order in which they are asked.
#[derive(Debug, Clone)]
pub struct Rules(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    rule: Arc<dyn Rule>,
    filters: bool,
    weight: i64,
}

impl Entry {
    fn new(rule: Arc<dyn Rule>) -> Self {
        Entry { rule, filters: true, weight: 1 }
    }
}

impl Default for Rules {
    /// The scheduler's own: those of upstream's default plugins that look at one host, in the order in which they are asked there.
    fn default() -> Self {
        let own: [Arc<dyn Rule>; 11] = [
            Arc::new(NodeUnschedulable),
            Arc::new(TaintToleration),
            Arc::new(NodeAffinity),
            Arc::new(NodePorts),
            Arc::new(NodeResourcesFit),
            Arc::new(NodeVolumeLimits),
            Arc::new(VolumeBinding),
            Arc::new(VolumeZone),
            Arc::new(DynamicResources),
            Arc::new(NodeResourcesBalancedAllocation),
            Arc::new(ImageLocality),
        ];
        Rules(own.into_iter().map(Entry::new).collect())
    }
}

impl Rules {
    /// The same, and one more.
    pub fn and(mut self, rule: impl Rule) -> Self {
        self.0.push(Entry::new(Arc::new(rule)));
        self
    }

    /// What the rule of a name has against a host doesn't count. False if there is none.
    pub fn skip_filter(&mut self, name: &str) -> bool {
        self.named(name).map(|entry| entry.filters = false).is_some()
    }

    /// How many times what the rule of a name finds good counts; 1 by default. False if there is none.
    pub fn weigh(&mut self, name: &str, weight: u32) -> bool {
        self.named(name).map(|entry| entry.weight = weight.into()).is_some()
    }

    fn named(&mut self, name: &str) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.rule.name() == name)
    }

    /// The reasons against a host, none if the pod can be there as far as this host goes. As upstream, only those of the first
    /// rule that has any.
    pub(crate) fn against(&self, wish: &Wish, row: &HostRow, node: &Node) -> Vec<Reason> {
        let (asks, host) = (Asks(wish), Host::new(row, node));
        let mut reasons =
            self.0.iter().filter(|entry| entry.filters).map(|entry| entry.rule.against(&asks, &host));
        reasons.find(|reasons| !reasons.is_empty()).unwrap_or_default()
    }

    /// The sum of a host's scores.
    pub(crate) fn score(&self, wish: &Wish, row: &HostRow, node: &Node) -> i64 {
        let (asks, host) = (Asks(wish), Host::new(row, node));
        let score = |entry: &Entry| entry.weight * entry.rule.score(&asks, &host).clamp(0, BEST);
        self.0.iter().filter(|entry| entry.weight > 0).map(score).sum()
    }
}
