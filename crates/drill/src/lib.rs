//! Faults, probes, timeline, report: what the fault of a host costs, measured from outside.
//!
//! [`run`] brings a workload into a cluster, does to a host what a [`Fault`] is, and measures until
//! everything answers again: three clocks, from asks that a user could make. [`rollout`] changes the workload in
//! every way while a host is off, and counts the asks that fail meanwhile. Both work against any Kubernetes;
//! where the hosts stand, and how to break and mend them, is the [`Site`]'s to say.

mod ask;
mod clock;
mod drill;
mod error;
mod fault;
mod holders;
mod html;
mod instance;
mod measure;
mod memory;
mod minority;
mod observe;
mod options;
mod owner;
mod percentile;
mod picture;
mod preload;
mod probe;
mod progress;
mod render;
mod replacement;
mod report;
mod rollout;
mod rollout_report;
mod run;
mod safety;
mod sight;
mod site;
mod stage;
mod stateful;
mod steady;
mod target;
mod timeline;
mod wording;
mod workload;

pub use ask::{Ask, Outage, measure};
pub use clock::Moment;
pub use error::Error;
pub use fault::{Fault, Way};
pub use instance::Share;
pub use options::Options;
pub use percentile::{Percentiles, nearest_rank};
pub use report::{Asks, Cluster, Dot, MemoryOfRun, Rejoin, Replacement, Report, Run, SeriesReport, Summary};
pub use rollout::rollout;
pub use rollout_report::{Asked, RolloutReport, RolloutRun, RolloutSummary, StepReport};
pub use run::run;
pub use safety::{Counts, Safety, SafetySummary};
pub use site::{BoxFuture, Happening, Held, Memory, Site};
pub use target::Target;
pub use timeline::Entry;
pub use workload::{DEFAULT_WORKLOAD, STATEFUL_WORKLOAD, in_containers};

#[cfg(test)]
mod fake_cluster;
#[cfg(test)]
mod fake_objects;
#[cfg(test)]
mod fake_processes;
#[cfg(test)]
mod tests;
