//! Why a pod has no place, and what may give it one.

use std::collections::BTreeMap;
use std::fmt;

/// Kinds of change that may help a pod that has no place, as a set of bits.
pub(crate) type Hope = u8;
/// A node came, or changed.
pub(crate) const NODES: Hope = 1;
/// A pod went from a node, or is on its way out.
pub(crate) const ROOM: Hope = 2;
/// A pod came to a node.
pub(crate) const COMPANY: Hope = 4;

/// One reason against one node.
#[derive(Debug)]
pub(crate) struct Reason {
    pub text: String,
    pub hope: Hope,
}

impl Reason {
    pub fn new(text: &str, hope: Hope) -> Self {
        Reason { text: text.to_owned(), hope }
    }
}

/// Why a pod can be on no node, in kube-scheduler's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// Against how many of them each reason stands.
    pub reasons: BTreeMap<String, usize>,
    /// What may help.
    pub(crate) hope: Hope,
}

impl Unschedulable {
    /// Counts what stands against one more node.
    pub(crate) fn count(&mut self, reasons: Vec<Reason>) {
        self.nodes += 1;
        for reason in reasons {
            *self.reasons.entry(reason.text).or_default() += 1;
            self.hope |= reason.hope;
        }
    }
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: ", self.nodes)?;
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        write!(f, "{}.", reasons.join(", "))
    }
}
