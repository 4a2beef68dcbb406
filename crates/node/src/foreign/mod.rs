//! The runtime of others, by the CRI: containerd, CRI-O. It has the sandboxes and the containers, their images and their logs' files;
//! the agent has all that the kubelet has: volumes, names, probes, ends, and the pod's network, which it lays into the sandbox.

mod begin;
mod cni;
mod features;
mod former;
mod label;
mod limits;
mod lives;
mod look;
mod mounts;
mod offer;
mod resources;
mod runtime;
mod sandboxes;
mod session;
#[cfg(test)]
mod tests;

use cri::messages::{ContainerConfig, IdMapping, PodSandboxConfig};

pub use cni::{CNI_PLUGIN, run_cni_plugin};
pub(crate) use features::ELSEWHERE;
pub(crate) use former::{end_former, keep, noted};
pub(crate) use offer::Offer;
pub(crate) use resources::resources;
pub(crate) use runtime::ForeignRuntime;

use crate::container::ConfinedPath;
use crate::container::cgroup::Amounts;
use crate::oci::InMemory;
use crate::runtime::Streams;

/// A pod's sandbox, as its runtime is asked for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sandbox {
    pub config: PodSandboxConfig,
    /// Which of the runtime's handlers; its own choice if empty.
    pub handler: String,
    /// Whether it has a network of its own.
    pub network: bool,
    /// Its volumes in memory.
    pub memory: Vec<InMemory>,
    /// What it has as a whole.
    pub amounts: Amounts,
    /// Whether it asks for limits of that, and so doesn't run without.
    pub is_limited: bool,
}

impl Sandbox {
    /// Whether it has users of its own.
    fn has_users(&self) -> bool {
        !users(&self.config).is_empty()
    }
}

/// The users that a sandbox has of its own.
pub(crate) fn users(config: &PodSandboxConfig) -> &[IdMapping] {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    let users = options.and_then(|options| options.userns_options.as_ref());
    users.map(|users| &*users.uids).unwrap_or_default()
}

/// A container in a sandbox, likewise.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    pub config: ContainerConfig,
    /// Its sandbox's.
    pub sandbox: PodSandboxConfig,
    pub streams: Streams,
    /// The container whose processes it sees too.
    pub target: Option<String>,
    /// The parts of volumes that it mounts.
    pub parts: Vec<Part>,
}

/// A part of a volume (`subPath`). The runtime looks paths up by itself, and would follow whatever link the pod puts there: so it is given another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// What people call it.
    pub what: String,
    /// Which of the container's mounts shows it.
    pub mount: usize,
    /// Where it lies.
    pub source: ConfinedPath,
}

/// The pod's uid among a sandbox's and a container's labels, and its siblings: the kubelet's, which tools know.
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Whose it is: hosts may share a runtime.
const NODE: &str = "dev.holdfast.node";
/// How a container's streams are laid, among its annotations.
const STREAMS: &str = "dev.holdfast.streams";
