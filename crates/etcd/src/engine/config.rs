//! The engine's configuration, and the reasons why it may not start.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::{Code, Endpoint, Status};

/// What the engine needs to know when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// What tells this cluster from all others: the keys under a prefix belong to one.
    pub cluster_id: String,
    /// etcd's members.
    pub endpoints: Vec<Endpoint>,
    /// TLS towards those with `https`.
    pub tls: Option<Arc<ClientConfig>>,
    /// What all keys of the cluster begin with, like `/holdfast`.
    pub prefix: String,
    /// How long a caller waits at most.
    pub request_timeout: Duration,
}

impl Config {
    /// With the default clocks.
    pub fn new(
        name: impl Into<String>,
        cluster_id: impl Into<String>,
        endpoints: Vec<Endpoint>,
        tls: Option<Arc<ClientConfig>>,
        prefix: impl Into<String>,
    ) -> Self {
        Config {
            name: name.into(),
            cluster_id: cluster_id.into(),
            endpoints,
            tls,
            prefix: prefix.into(),
            request_timeout: Duration::from_secs(5),
        }
    }
}

/// Why the engine doesn't run on an etcd.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers.
    #[error("can't reach etcd: {0}; check --datastore and that a majority of etcd's members runs")]
    Unreachable(String),
    /// One side doesn't accept the other's certificate.
    #[error("etcd and this cluster don't trust each other: {0}; check --datastore-ca, -cert and -key")]
    Refused(String),
    /// etcd has users, and ours may not do what is needed.
    #[error(
        "etcd doesn't let this cluster's user work under {prefix}/: {why}; grant its role readwrite there"
    )]
    Forbidden {
        /// The prefix.
        prefix: String,
        /// What etcd said.
        why: String,
    },
    /// A member is too old.
    #[error("etcd is of version {0}: 3.4 or newer is needed")]
    TooOld(String),
    /// Another cluster lives there.
    #[error(
        "under {prefix}/ in this etcd lives another cluster of Holdfast ({found}, this one is {ours}): give \
         another --datastore-prefix, or the folder that belongs to it"
    )]
    OtherCluster {
        /// The prefix.
        prefix: String,
        /// The id found.
        found: String,
        /// The id of this cluster.
        ours: String,
    },
    /// etcd is not what it was: restored from a backup, or another one.
    #[error("etcd has lost what it held ({0}): this host starts anew from what is there")]
    WentBack(String),
    /// It was shut down.
    #[error("the store is shutting down")]
    Closed,
}

impl EngineError {
    /// What a failed call says about the etcd.
    pub(super) fn of(status: Status, prefix: &str) -> Self {
        match status.code {
            Code::Unauthenticated => EngineError::Refused(status.message),
            Code::PermissionDenied | Code::InvalidArgument => {
                EngineError::Forbidden { prefix: prefix.into(), why: status.message }
            }
            _ => EngineError::Unreachable(status.message),
        }
    }

    /// Whether waiting may mend it.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, EngineError::Unreachable(_))
    }
}
