//! Why a drill could not be held.

use std::time::Duration;

/// A drill ended without a measurement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The workload is no workload.
    #[error("the workload cannot be used: {0}")]
    Workload(String),
    /// The cluster did not come to rest.
    #[error("the cluster is not steady after {} s: {}", .after.as_secs(), .unready.join("; "))]
    Unsteady {
        /// How long it was given.
        after: Duration,
        /// What is not as it should be.
        unready: Vec<String>,
    },
    /// The workload's pods can't run, however long they are given.
    #[error("the workload can't run: {}", .0.join("; "))]
    Hopeless(Vec<String>),
    /// The controllers did not take what was preloaded.
    #[error(
        "the controllers are not done with what was preloaded: for {} s nothing has changed, and {open} of {all} \
         Deployments have other pods than those that were made for them",
        .after.as_secs()
    )]
    Preload {
        /// How long nothing changed.
        after: Duration,
        /// How many Deployments wait.
        open: usize,
        /// Of how many.
        all: usize,
    },
    /// Nobody leads.
    #[error("no host leads the cluster after {} s: is a majority of the hosts running?", .after.as_secs())]
    NoLeader {
        /// How long it was given.
        after: Duration,
    },
    /// Every host leads, or none but the leader is there.
    #[error("no host can be switched off: every one of {hosts} leads or is needed for a majority")]
    NoBystander {
        /// How many there are.
        hosts: usize,
    },
    /// Every host is of the control plane.
    #[error("every host is a member of the control plane: take follower for one that doesn't lead")]
    NoWorker,
    /// There is no such host.
    #[error("there is no host {name}; the hosts are {hosts}")]
    NoHost {
        /// Who was asked for.
        name: String,
        /// Who is there.
        hosts: String,
    },
    /// The fault can't be had here.
    #[error("{fault} can't be had here: {why}")]
    NoFault {
        /// Which.
        fault: &'static str,
        /// Why not.
        why: String,
    },
    /// The API could not be asked.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Progress could not be shown.
    #[error("cannot write progress: {0}")]
    Progress(std::io::Error),
    /// The site could not do what it was asked to do.
    #[error("{what} {host} failed: {why:#}")]
    Site {
        /// What it was asked to do.
        what: String,
        /// To which host.
        host: String,
        /// Why not.
        why: anyhow::Error,
    },
}

impl From<std::io::Error> for Error {
    fn from(why: std::io::Error) -> Self {
        Error::Progress(why)
    }
}
