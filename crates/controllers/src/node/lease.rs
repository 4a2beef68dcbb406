//! Nodes whose agent is another program's, an upstream kubelet say: they send no heartbeats, but renew a Lease in
//! `kube-node-lease` (KEP-589). One that has no Lease has promised nothing, and stays as it says it is.
//!
//! As upstream, what counts is when the leader saw a renewal, and not the time that stands in it: that is another machine's clock.

use std::time::Duration;

use objects::HEARTBEATS;

use crate::graph::Vertex;
use crate::kept::Node;
use crate::touched::Touched;
use crate::view::View;

/// After so long without a renewal such a node is not ready (`--node-monitor-grace-period`).
pub(crate) const GRACE: Duration = Duration::from_secs(50);
/// After so long if its agent has never said anything of it (`--node-startup-grace-period`).
pub(crate) const STARTUP: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "kube-node-lease";

/// Whether a node's host sends heartbeats.
pub(crate) fn beats(node: &Node) -> bool {
    node.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(HEARTBEATS))
}

/// The nodes whose leases say whether they live.
pub(crate) fn all(view: &View) -> impl Iterator<Item = &str> {
    let leases = view.graph.in_namespace(NAMESPACE).filter(|vertex| is_lease(vertex));
    leases.map(|lease| lease.name()).filter(move |name| is_watched(view, name))
}

/// What a change says of a node's lease.
pub(crate) enum Renewal<'a> {
    /// It was made or renewed.
    Renewed(&'a str),
    /// It is gone.
    Gone(&'a str),
}

/// What a change says of a node's lease, if it is of one.
pub(crate) fn renewal<'a>(view: &View, change: &'a Touched) -> Option<Renewal<'a>> {
    let owned = change.owned();
    let lease = owned.latest().filter(|vertex| is_lease(vertex))?;
    match owned.new {
        None => Some(Renewal::Gone(lease.name())),
        Some(_) => is_watched(view, lease.name()).then_some(Renewal::Renewed(lease.name())),
    }
}

fn is_lease(vertex: &Vertex) -> bool {
    &*vertex.kind == "Lease" && &*vertex.namespace == NAMESPACE
}

fn is_watched(view: &View, name: &str) -> bool {
    view.table::<Node>().get("", name).is_some_and(|node| !beats(node))
}
