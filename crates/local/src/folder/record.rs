//! What a folder says about its cluster, and what it is expected to say.

use std::path::{Path, PathBuf};

use config::Datastore;
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::addresses::NetKind;

/// The shape of the folder that this program reads and writes.
pub(super) const VERSION: u32 = 1;

/// What a folder says about its cluster: the file `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The shape of the folder.
    pub version: u32,
    /// What tells this cluster from all others.
    pub id: String,
    /// The cluster's name.
    pub name: String,
    /// How many hosts it has.
    pub nodes: usize,
    /// The kind of network that it was made for.
    pub net: NetKind,
    /// The etcd that its state lies in; none where its hosts keep it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Datastore>,
    /// The file that tells its hosts about registries of images, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<PathBuf>,
    /// The folder with the manifests of the pods that each of its hosts runs by itself, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_pods: Option<PathBuf>,
    /// The runtime of others that runs its hosts' containers, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
}

/// What a cluster is made as, or is expected to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// What tells a new cluster from all others.
    pub id: String,
    /// How many hosts.
    pub nodes: usize,
    /// The kind of network.
    pub net: NetKind,
    /// The etcd that its state lies in; none for what the cluster was made with, or its own hosts.
    pub datastore: Option<Datastore>,
    /// The file about registries; none for what the cluster was made with.
    pub registries: Option<PathBuf>,
    /// The folder of manifests; none for what the cluster was made with.
    pub static_pods: Option<PathBuf>,
    /// The runtime of others; none for what the cluster was made with.
    pub runtime: Option<String>,
}

impl ClusterPlan {
    /// A cluster that keeps its state itself.
    pub fn new(nodes: usize, net: NetKind) -> Self {
        ClusterPlan {
            id: uuid::Uuid::new_v4().to_string(),
            nodes,
            net,
            datastore: None,
            registries: None,
            static_pods: None,
            runtime: None,
        }
    }
}

impl ClusterRecord {
    /// Whether the cluster in `path` is as it is expected to be.
    pub(super) fn check(&self, path: &Path, plan: &ClusterPlan) -> Result<(), Error> {
        let path = || path.to_owned();
        if self.nodes != plan.nodes {
            return Err(Error::OtherSize { path: path(), found: self.nodes, asked: plan.nodes });
        }
        if self.net != plan.net {
            return Err(Error::OtherNet { path: path(), found: self.net, asked: plan.net });
        }
        match (&self.datastore, &plan.datastore) {
            (None, Some(_)) => Err(Error::OwnStore(path())),
            (Some(known), Some(asked)) if known.prefix != asked.prefix => {
                Err(Error::OtherPrefix { path: path(), found: known.prefix.clone() })
            }
            _ => Ok(()),
        }
    }
}
