//! What a drill is to do.

use crate::{Fault, Target};
use std::path::PathBuf;
use std::time::Duration;

/// What a drill is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is done to a host in each run.
    pub fault: Fault,
    /// To which host.
    pub target: Target,
    /// How many runs, unless a time is given.
    pub runs: usize,
    /// How long runs are begun, one after the other.
    pub time: Option<Duration>,
    /// How long lies between two requests of each series, whether the earlier ones were answered or not.
    pub every: Duration,
    /// How long requests are sent before the fault, at the least: what each pod has of them then is what others are compared with.
    pub before: Duration,
    /// How many pods lie in the cluster beside the workload, with their owners, before anything is measured.
    pub preload: usize,
    /// Fixes what is chosen at random: the namespace's name, the moment of the cut.
    pub seed: u64,
    /// The user's own workload as YAML, instead of [`crate::DEFAULT_WORKLOAD`].
    pub workload: Option<String>,
    /// The kubeconfig as a file, for `kubectl proxy`, which asks the user's own workload as its owner does.
    /// Without it, or without a `kubectl` on the PATH, that series is left out.
    pub kubeconfig_file: Option<PathBuf>,
    /// Leave the workload in the cluster.
    pub keep: bool,
    /// How long the clocks run at most after a fault, for a cluster that does not recover.
    pub limit: Duration,
    /// How long the cluster may take to come to rest.
    pub patience: Duration,
    /// How long pods may be refused before they are given up: what they need may come a moment after them.
    pub hope: Duration,
    /// How long nothing may have failed before an outage counts as over.
    pub quiet: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fault: Fault::PowerOff,
            target: Target::Leader,
            runs: 1,
            time: None,
            every: crate::probe::EVERY,
            before: Duration::from_secs(1),
            preload: 0,
            seed: 0,
            workload: None,
            kubeconfig_file: None,
            keep: false,
            limit: Duration::from_secs(60),
            patience: Duration::from_secs(60),
            hope: Duration::from_secs(2),
            quiet: Duration::from_secs(5),
        }
    }
}
