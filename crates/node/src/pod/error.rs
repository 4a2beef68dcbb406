//! Why a pod's containers are not started.

use std::net::IpAddr;

/// Why a container's process was not started.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StartError {
    /// Something it needs is missing or wrong: tried again without counting.
    Config(String),
    /// Its image isn't there: tried again ever later.
    Image(NoImage),
    /// Its host may not run it now: tried again without counting.
    Lease(String),
    /// It can't be made as things are now: tried again without counting.
    Create(String),
    /// The process could not be made: counts as a life.
    Run(String),
    /// Its pod ends: what was brought for it wasn't waited for.
    Ended,
}

/// Why a container has no image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NoImage {
    /// Its name.
    pub name: String,
    /// Why it waits, in the API's word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
    /// The reason and the message of the Event that tells it.
    pub event: (&'static str, String),
}

/// Why what a pod's containers need is not there. All of it is tried again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum PrepareError {
    /// Its folder, or what lies in it: a volume's source may be missing.
    #[error("{0}")]
    Files(String),
    /// Its claims of devices, which nobody here hands out.
    #[error("Failed to prepare dynamic resources: hosts run no driver of devices in this version yet")]
    Devices,
    /// The host has no address left for it.
    #[error("every address of the host's pod range is taken")]
    NoAddress,
    /// Its address can't be made to work.
    #[error("can't add the address {address}: {why}")]
    Address {
        /// The address.
        address: IpAddr,
        /// What the network said.
        why: String,
    },
    /// Its host may not run it now.
    #[error("{0}")]
    Lease(String),
    /// Its sandbox.
    #[error("Failed to create pod sandbox: {0}")]
    Sandbox(String),
}

impl PrepareError {
    /// Why its containers wait, in the API's word.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Files(_) | Self::Devices => "ContainerCreating",
            Self::Lease(_) => LEASE_AWAITED,
            Self::NoAddress | Self::Address { .. } | Self::Sandbox(_) => SANDBOX_FAILED,
        }
    }

    /// The reason of the Event that tells of it.
    pub(crate) fn event_reason(&self) -> &'static str {
        match self {
            Self::Files(_) => "FailedMount",
            Self::Devices => "FailedPrepareDynamicResources",
            Self::Lease(_) => LEASE_AWAITED,
            Self::NoAddress | Self::Address { .. } | Self::Sandbox(_) => SANDBOX_FAILED,
        }
    }
}

/// Why a pod waits that must not run twice, where its host may not run it.
pub(crate) const LEASE_AWAITED: &str = "HostLeaseAwaited";
/// The kubelet's reason where a pod's sandbox can't be made; its address is a part of the sandbox.
const SANDBOX_FAILED: &str = "FailedCreatePodSandBox";
