//! Where pods go: a [`Cluster`] decides on one pod, [`Waiting`] on all that wait, with what is decided for one counting
//! for the next. [`run`] drives it while this member leads the store, binds what found its place and says why what
//! did not.
//!
//! Work follows what changed. The cluster keeps for each host what its pods add up to, and for each kind of pod that was
//! asked about a ledger of what speaks for and against each host. A change makes one host's row stale; a decision brings
//! stale rows up to date and compares numbers. A pod without a place is tried again when something happened that may help it.
//!
//! ```
//! use std::sync::Arc;
//! use scheduler::{Cluster, Node};
//! use serde_json::json;
//!
//! let mut cluster = Cluster::default();
//! let ready = json!([{"type": "Ready", "status": "True"}]);
//! for name in ["n1", "n2"] {
//!     let room = json!({"cpu": "1", "memory": "1Gi", "pods": "110"});
//!     let node = json!({"metadata": {"name": name}, "status": {"conditions": ready, "allocatable": room}});
//!     cluster.set_node(name, Some(Arc::new(serde_json::from_value::<Node>(node)?)));
//! }
//! let pod = |name: &str| {
//!     let metadata = json!({"name": name, "namespace": "default", "labels": {"app": "web"}});
//!     let web = json!({"name": "web", "resources": {"requests": {"cpu": "600m"}}});
//!     serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [web]}})).map(Arc::new)
//! };
//! for (name, node) in [("a", "n1"), ("b", "n2")] {
//!     let pod = pod(name)?;
//!     assert_eq!(cluster.schedule(&pod).as_deref(), Ok(node), "pods that are alike keep apart");
//!     cluster.place(&pod, node);
//! }
//! let why = cluster.schedule(&pod("c")?).unwrap_err();
//! assert!(why.to_string().starts_with("0/2 nodes are available: 2 Insufficient cpu."));
//! # Ok::<(), serde_json::Error>(())
//! ```

mod affinity;
#[cfg(test)]
mod agreement;
mod attachments;
mod capacity;
mod class;
mod cluster;
mod column;
mod device_claims;
mod driver;
mod filter;
mod host_row;
mod image;
mod ledger;
mod metrics;
mod node;
mod preemption;
mod profile;
mod promises;
mod queue;
mod rebalance;
mod request;
mod room;
mod rule;
mod score;
mod spread;
mod storage;
mod tell;
mod unschedulable;
mod volume_wait;
mod volume_zone;
mod waiting;
mod wish;

pub use cluster::Cluster;
pub use driver::{Options, run};
// A field of `Profile`.
pub use k8s_openapi::api::core::v1::TopologySpreadConstraint;
pub use metrics::{Metrics, Pending};
pub use node::{Condition, Node, NodeSpec, NodeStatus};
pub use profile::{Profile, Profiles, Sides};
pub use rule::{Asks, BEST, Host, Rule, Rules};
pub use unschedulable::{Hope, Preemption, Reason, Unschedulable, Victims};
pub use waiting::{Decision, Silence, Waiting};
