//! Where a cluster stands, and how to break it.

use crate::Fault;
use std::collections::BTreeMap;
use std::time::SystemTime;
use tokio::sync::mpsc::UnboundedReceiver;

/// A future of a trait object.
pub type BoxFuture<'a, T> = futures::future::BoxFuture<'a, T>;

/// The hosts of a cluster, and how to break them. The program implements it for its local cluster, and for any other by commands of the
/// user's own.
pub trait Site: Send + Sync {
    /// The hosts, by the names of their Nodes.
    fn hosts(&self) -> Vec<String>;

    /// Those of the hosts that are outside of the control plane.
    fn workers(&self) -> Vec<String> {
        Vec::new()
    }

    /// How the hosts are connected, for the report: `netns` or `loopback`.
    fn net(&self) -> &str;

    /// The URL of a host's own API server, where it can be reached from here. With it, the service is also
    /// asked through every surviving host.
    fn api_address(&self, host: &str) -> Option<String>;

    /// Whether pods' own addresses can be reached from here. With it, each process of a StatefulSet is asked by itself, so that two of one name are
    /// seen.
    fn reaches_pods(&self) -> bool {
        false
    }

    /// Who answers for the API's virtual address, from now on until the receiver is dropped; why not, where that can't be seen.
    fn holders(&self) -> Result<UnboundedReceiver<Held>, String> {
        Err("who holds the API's virtual address can't be asked here".into())
    }

    /// Whether a fault can be had here.
    ///
    /// # Errors
    /// Why not.
    fn can(&self, fault: Fault) -> Result<(), String>;

    /// Does to a host what a fault is. Returns when that took effect, and not later than it did.
    fn inject<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>>;

    /// Takes a fault from a host again, and whatever it left. Returns when it was over.
    fn heal<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>>;

    /// The host that leads and holds the API's virtual address now, none while nobody does.
    fn leader<'a>(&'a self) -> BoxFuture<'a, anyhow::Result<Option<String>>>;

    /// Whether the host that leads holds the API's virtual address too.
    fn leader_holds_address(&self) -> bool {
        true
    }

    /// What the host's own process holds in memory; none where the site can't tell.
    fn memory<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Option<Memory>> {
        Box::pin(async { None })
    }

    /// From now on [`Memory::peak`] of every host that is on counts anew.
    fn forget_peaks(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// What happens inside the hosts from now on, where they tell; a receiver that is closed where they don't.
    fn timeline(&self) -> UnboundedReceiver<Happening>;
}

/// What was answered to one question for a virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it was asked.
    pub at: SystemTime,
    /// How many hosts said that it is theirs.
    pub by: usize,
}

/// The resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most since it began, or since [`Site::forget_peaks`].
    pub peak: u64,
}

/// Something that happened inside a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// When.
    pub at: SystemTime,
    /// On which host.
    pub host: String,
    /// What, such as `election-won`.
    pub what: String,
    /// Everything else that is known of it, such as `subject`.
    pub fields: BTreeMap<String, String>,
}
