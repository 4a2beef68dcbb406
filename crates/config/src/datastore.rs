//! An etcd of the user's own.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An etcd that a cluster's state lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Datastore {
    /// Its members, like `https://host:2379`.
    pub endpoints: Vec<String>,
    /// Where the members are reached, in the same order; none: by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<SocketAddr>,
    /// What all keys of the cluster begin with.
    pub prefix: String,
    /// The authority of the members' certificates, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate to show to them, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}
