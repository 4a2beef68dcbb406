//! Where pods go: a [`Cluster`] decides on one pod, [`Waiting`] on all that wait, with what is decided for one counting
//! for the next. [`run`] drives it while this member leads the store, binds what found its place and says why what
//! did not.
//!
//! Work follows what changed. The cluster keeps for each host what its pods add up to, and for each kind of pod that was
//! asked about a ledger of what speaks for and against each host. A change makes one host's row stale; a decision brings
//! stale rows up to date and compares numbers. A pod without a place is tried again when something happened that may help it.

mod affinity;
#[cfg(test)]
mod agreement;
mod class;
mod cluster;
mod column;
mod driver;
mod filter;
mod host;
mod ledger;
mod node;
mod queue;
mod request;
mod spread;
mod unschedulable;
mod waiting;
mod wish;

pub use class::Labels;
pub use cluster::Cluster;
pub use driver::{Options, run};
pub use node::{Condition, Node, NodeSpec, NodeStatus};
pub use unschedulable::{Hope, Unschedulable};
pub use waiting::{Decision, Silence, Waiting};
