//! A host's configuration: the file that `holdfast host --config FILE` reads.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a host's configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("can't read the host's configuration {path}: {why}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file isn't a host's configuration.
    #[error("{path} isn't a host's configuration: {why}; let `holdfast up` write it anew")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        why: serde_json::Error,
    },
}

/// A host's configuration. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostConfig {
    /// The cluster that the host belongs to: members of another are turned away.
    pub cluster_id: String,
    /// The host's own name, which is also its Node's.
    pub name: String,
    /// The host's own address.
    pub address: IpAddr,
    /// The addresses of all hosts by name, this one included.
    pub peers: BTreeMap<String, IpAddr>,
    /// The pods' networks of all hosts by name, this one included, in CIDR notation.
    pub pod_cidrs: BTreeMap<String, String>,
    /// The network of the services' addresses, in CIDR notation.
    pub service_cidr: String,
    /// The API's virtual address, which the leader holds.
    pub virtual_address: IpAddr,
    /// The network that the host lives in.
    pub net: NetConfig,
    /// Where the host keeps its state. The host alone writes there.
    pub data_dir: PathBuf,
    /// This file is there once the host's store has taken part in the cluster: from then on an empty store
    /// joins the others, and never begins a cluster.
    pub begun_file: PathBuf,
    /// The file to which the host appends its timeline as lines of JSON.
    pub timeline_file: PathBuf,
    /// The etcd that the cluster's state lies in; none where the hosts keep it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Datastore>,
    /// Where the host's keys and certificates lie: `ca.crt`, `NAME.crt`, `NAME.key` and `heartbeat.key`, as
    /// `pki` saves them.
    pub pki_dir: PathBuf,
}

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

/// The network that a host lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum NetConfig {
    /// A network namespace of its own.
    Netns {
        /// The name of the link on which the host has its address, and the virtual address when it leads.
        link: String,
    },
    /// The machine's own loopback.
    Loopback {
        /// Where the switch listens for announcements.
        switch: SocketAddr,
    },
}

impl HostConfig {
    /// Reads a host's configuration from its file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|why| Error::Read { path: path.into(), why })?;
        serde_json::from_slice(&text).map_err(|why| Error::Parse { path: path.into(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_says_its_kind() {
        let net = NetConfig::Loopback { switch: "127.0.0.254:2382".parse().unwrap() };
        let text = serde_json::to_string(&net).unwrap();
        assert_eq!(text, r#"{"kind":"loopback","switch":"127.0.0.254:2382"}"#);
        assert_eq!(serde_json::from_str::<NetConfig>(&text).unwrap(), net);
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(HostConfig::load(&path).unwrap_err().to_string().contains("config.json"));
        std::fs::write(&path, "{}").unwrap();
        assert!(HostConfig::load(&path).unwrap_err().to_string().contains("isn't a host's configuration"));
    }
}
