//! Why a pod has no place, and what may give it one.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::BitOr;
use std::sync::Arc;

use objects::Pod;

/// Kinds of change that may help pods without a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Hope(u8);

impl Hope {
    /// Nothing changed that matters.
    pub(crate) const NONE: Hope = Hope(0);
    /// A node came, or changed.
    pub(crate) const NODES: Hope = Hope(1);
    /// A pod went from a node, or is on its way out.
    pub(crate) const ROOM: Hope = Hope(2);
    /// A pod came to a node.
    pub(crate) const COMPANY: Hope = Hope(4);
    /// A claim, a volume or a class of volumes came, or changed.
    pub(crate) const VOLUMES: Hope = Hope(8);
    /// All that nodes and their pods change.
    pub(crate) const ALL: Hope = Hope(7);
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 4;

    /// Whether the two have a kind in common.
    pub(crate) fn meets(self, other: Hope) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the kind of this number is among them.
    pub(crate) fn has(self, kind: usize) -> bool {
        self.0 >> kind & 1 == 1
    }
}

impl BitOr for Hope {
    type Output = Hope;

    fn bitor(self, other: Hope) -> Hope {
        Hope(self.0 | other.0)
    }
}

/// One reason against one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What it is, in a form that follows a number: `node(s) were unschedulable`.
    pub text: String,
    pub(crate) hope: Hope,
}

impl Reason {
    pub(crate) fn new(text: &str, hope: Hope) -> Self {
        Reason { text: text.to_owned(), hope }
    }

    /// Of the node itself: only another node helps, or a change of this one.
    pub fn of_node(text: &str) -> Self {
        Reason::new(text, Hope::NODES)
    }

    /// Of the pods that are there: it helps, too, that some of them go. Those of lower priority may be made to.
    pub fn of_room(text: &str) -> Self {
        Reason::new(text, Hope::NODES | Hope::ROOM)
    }
}

/// Why a pod can be on no node, in kube-scheduler's words.
#[derive(Debug, Clone, Default, PartialEq, thiserror::Error)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// What keeps the pod from every node, if that is something of its own.
    pub own: Option<String>,
    /// Against how many of them each reason stands.
    pub reasons: BTreeMap<String, usize>,
    /// Whether others can go for it.
    pub preemption: Preemption,
    /// What may help.
    pub(crate) hope: Hope,
}

/// Whether a pod without a place gets one by others that go.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Preemption {
    /// There is nobody to go: without nodes the question doesn't come up.
    #[default]
    Pointless,
    /// Nobody goes, and why; the pod is nominated for no node (any more).
    Refused(String),
    /// Nobody goes now, since others are on their way out for it already.
    UnderWay(String),
    /// These may go for it.
    Possible(Victims),
}

/// Pods of lower priority that go for another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Victims {
    /// Their node, which it is nominated for.
    pub node: String,
    /// The pods, those that are on their way out already among them; the most important first.
    pub pods: Vec<Arc<Pod>>,
    /// Pods of lower priority that were nominated for the node before, and no longer are.
    pub displaced: Vec<Arc<Pod>>,
}

impl Unschedulable {
    /// Counts what stands against one more node.
    pub(crate) fn count(&mut self, reasons: Vec<Reason>) {
        self.nodes += 1;
        for reason in reasons {
            *self.reasons.entry(reason.text).or_default() += 1;
            self.hope = self.hope | reason.hope;
        }
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: ", self.nodes)?;
        let mut reasons: Vec<String> = self.own.iter().cloned().collect();
        let counted = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}"));
        reasons.extend(counted);
        reasons.sort();
        write!(f, "{}.", reasons.join(", "))?;
        match &self.preemption {
            Preemption::Refused(why) | Preemption::UnderWay(why) => write!(f, " preemption: {why}"),
            Preemption::Pointless | Preemption::Possible(_) => Ok(()),
        }
    }
}
