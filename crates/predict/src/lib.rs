//! What a power cut of the leading host will do to a cluster, from its configuration: without I/O, files in, report out.
//!
//! [`predict`] reads the files of a cluster (Holdfast's own configurations, or those and the command lines of etcd, HAProxy,
//! keepalived, nginx, kubeadm, k3s and Kubernetes' own programs) and tells how long each phase takes until all is well again, which one
//! dominates, what to change, and what makes the design not highly available at all. [`of_cluster`] does the same with what
//! a running cluster's API says.
//!
//! ```
//! let files = [predict::File {
//!     path: "n1/kube-controller-manager.args".into(),
//!     text: "--node-monitor-grace-period=20s --node-monitor-period=2s".into(),
//! }];
//! let report = predict::predict(&files);
//! let node = report.phases.iter().find(|phase| phase.name == "the node is NotReady").expect("a phase");
//! assert_eq!(node.takes.max_ms, 22_000);
//! ```

mod advice;
mod check;
mod live;
mod own;
mod picture;
mod read;
mod render;
mod report;
mod span;
mod story;
mod timers;
mod upstream;

pub use advice::{Gain, Step};
pub use check::{Finding, Level};
pub use live::{Answers, of_cluster};
pub use read::NotUnderstood;
pub use report::{Kind, Report, Unknown, of_folders, predict};
pub use span::Span;
pub use story::{Clock, Phase};

/// The largest file that is read, in bytes: a thousand times what such files are.
pub const LARGEST: usize = 1 << 20;

/// A file that somebody else has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it lies: files are of one host where they lie in one folder.
    pub path: String,
    /// What it says.
    pub text: String,
}

#[cfg(test)]
mod tests;
