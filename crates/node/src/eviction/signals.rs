//! What of the host can run short, and from when on it counts as short: the kubelet's signals and thresholds
//! (`pkg/kubelet/eviction/api/types.go`).

use std::collections::BTreeMap;
use std::time::Duration;

/// Something of the host that can run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory that can still be had (`memory.available`).
    Memory,
    /// Room on the disk of the pods (`nodefs.available`).
    Nodefs,
    /// Inodes there (`nodefs.inodesFree`).
    NodefsInodes,
    /// Room on the disk of the images (`imagefs.available`).
    Imagefs,
    /// Inodes there (`imagefs.inodesFree`).
    ImagefsInodes,
    /// Processes that can still be made (`pid.available`).
    Pid,
}

impl Signal {
    /// All of them, in the order in which they are looked after: memory first, since it runs out the fastest.
    pub const ALL: [Signal; 6] = [
        Signal::Memory,
        Signal::Nodefs,
        Signal::NodefsInodes,
        Signal::Imagefs,
        Signal::ImagefsInodes,
        Signal::Pid,
    ];

    /// Its name in the kubelet's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::Nodefs => "nodefs.available",
            Signal::NodefsInodes => "nodefs.inodesFree",
            Signal::Imagefs => "imagefs.available",
            Signal::ImagefsInodes => "imagefs.inodesFree",
            Signal::Pid => "pid.available",
        }
    }

    /// What it is of, in the words of messages.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::Nodefs | Signal::Imagefs => "ephemeral-storage",
            Signal::NodefsInodes | Signal::ImagefsInodes => "inodes",
            Signal::Pid => "pids",
        }
    }

    /// Whether it is of a disk.
    pub(crate) fn is_disk(self) -> bool {
        !matches!(self, Signal::Memory | Signal::Pid)
    }
}

/// An amount, or a part of what there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Bytes, inodes or processes.
    Amount(u64),
    /// Percent of all that there is.
    Percent(f64),
}

impl Bound {
    /// How much it is of a whole.
    pub(crate) fn of(self, whole: u64) -> u64 {
        match self {
            Bound::Amount(amount) => amount,
            // Not negative, and no more than is exact.
            Bound::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }
}

/// When something counts as short: as soon as less than `below` is left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// Less than this.
    pub below: Bound,
    /// For how long it must be so before pods go, if that is not at once.
    pub grace: Option<Duration>,
    /// How much more than `below` must be there again until it counts as enough.
    pub reclaim: Option<Bound>,
}

impl Threshold {
    /// One that counts at once.
    pub const fn hard(signal: Signal, below: Bound) -> Self {
        Threshold { signal, below, grace: None, reclaim: None }
    }
}

/// When pods of a host are evicted.
#[derive(Debug, Clone, PartialEq)]
pub struct Eviction {
    /// What must not run short.
    pub thresholds: Vec<Threshold>,
    /// The longest time that a pod has to end where a threshold has a grace of its own (`evictionMaxPodGracePeriod`).
    pub longest_grace: Duration,
    /// For how long a pressure is reported after it was seen last (`evictionPressureTransitionPeriod`).
    pub transition: Duration,
    /// How often it is looked.
    pub every: Duration,
}

impl Default for Eviction {
    /// As a kubelet without configuration (`DefaultEvictionHard`, `DefaultEvictionPressureTransitionPeriod`,
    /// `evictionMonitoringPeriod`).
    fn default() -> Self {
        let thresholds = vec![
            Threshold::hard(Signal::Memory, Bound::Amount(100 << 20)),
            Threshold::hard(Signal::Nodefs, Bound::Percent(10.0)),
            Threshold::hard(Signal::NodefsInodes, Bound::Percent(5.0)),
            Threshold::hard(Signal::Imagefs, Bound::Percent(15.0)),
            Threshold::hard(Signal::ImagefsInodes, Bound::Percent(5.0)),
        ];
        Eviction {
            thresholds,
            longest_grace: Duration::ZERO,
            transition: Duration::from_secs(5 * 60),
            every: Duration::from_secs(10),
        }
    }
}

/// How much of something there is, and how much is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub whole: u64,
    pub available: u64,
}

/// What is left of everything, as far as it is known.
pub(crate) type Observed = BTreeMap<Signal, Left>;
