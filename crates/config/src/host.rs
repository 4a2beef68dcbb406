//! The configuration as a type.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    AddressRange, Audit, Datastore, Dns, Eviction, Fencing, Ports, Scheduling, Shutdown, Timeouts,
    TokenWebhook,
};

/// A host's configuration: the file that `holdfast host --config FILE` reads. Paths are absolute, networks in CIDR
/// notation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostConfig {
    /// The cluster that the host belongs to: members of another are turned away.
    pub cluster_id: String,
    /// The host's own name, which is also its Node's.
    pub name: String,
    /// The host's own address.
    pub address: IpAddr,
    /// The network that the hosts' addresses and the virtual address are in: routes to pods lead over it, and a virtual
    /// address can only move within it.
    pub host_cidr: IpNet,
    /// The addresses by name of the members that the cluster begins with, this one included. Once it has begun, the
    /// cluster itself knows who its members are.
    pub peers: BTreeMap<String, IpAddr>,
    /// The network of this host's pods.
    pub pod_cidr: IpNet,
    /// The network that the pods of all hosts are in, each host's in a part of its own. Those of the others are in
    /// their Nodes.
    pub cluster_cidr: IpNet,
    /// The network of the services' addresses.
    pub service_cidr: IpNet,
    /// The API's virtual address, which the leader holds.
    pub virtual_address: IpAddr,
    /// The addresses that Services of type LoadBalancer get, each of which one host holds. With none, such Services get none here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_cidrs: Vec<AddressRange>,
    /// The network that the host lives in.
    pub net: NetConfig,
    /// The ports on which the host listens. They are the same on all hosts of a cluster.
    #[serde(default)]
    pub ports: Ports,
    /// How long what may take, and how often what is done.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What makes sure that this host has stopped what must not run twice.
    #[serde(default, skip_serializing_if = "Fencing::is_default")]
    pub fencing: Fencing,
    /// How pods are placed.
    #[serde(default, skip_serializing_if = "Scheduling::is_default")]
    pub scheduling: Scheduling,
    /// How names are answered for.
    #[serde(default, skip_serializing_if = "Dns::is_default")]
    pub dns: Dns,
    /// When the host's pods are evicted.
    #[serde(default, skip_serializing_if = "Eviction::is_default")]
    pub eviction: Eviction,
    /// How the host's pods end as it shuts down.
    #[serde(default, skip_serializing_if = "Shutdown::is_default")]
    pub shutdown: Shutdown,
    /// Where the audit records what requests did. None without an audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Who is asked about tokens that the cluster didn't make. None where there are no such tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_webhook: Option<TokenWebhook>,
    /// What there is to know about the registries that images come from, as YAML or JSON: mirrors, authorities, who speaks no TLS.
    /// None where that needs no telling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries_file: Option<PathBuf>,
    /// The folder with the manifests of the pods that the host runs by itself. None where it runs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_pods: Option<PathBuf>,
    /// The runtime of others that runs the pods which name no class of ours, such as `unix:///run/containerd/containerd.sock`. None where
    /// the host runs them by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The virtual routers that the host takes part in.
    #[serde(default, skip_serializing_if = "vrrp::Settings::is_empty")]
    pub vrrp: vrrp::Settings,
    /// Where the host keeps its state. The host alone writes there.
    pub data_dir: PathBuf,
    /// This file is there once the host's store has taken part in the cluster: from then on an empty store
    /// joins the others, and never begins a cluster. So it should lie on another disk than the data.
    pub begun_file: PathBuf,
    /// The file to which the host appends its timeline as lines of JSON.
    pub timeline_file: PathBuf,
    /// An `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`: which objects are encrypted wherever they lie, and by which keys. None
    /// where none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_file: Option<PathBuf>,
    /// The etcd that the cluster's state lies in; none where the hosts keep it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Datastore>,
    /// Where the host's keys and certificates lie: `ca.crt`, `NAME.crt`, `NAME.key` and `heartbeat.key`, as
    /// `pki` saves them.
    pub pki_dir: PathBuf,
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
    /// Where the host listens on one of its ports.
    pub fn listen(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// Where the members that the cluster begins with listen on one of their ports.
    pub fn peers_at(&self, port: u16) -> BTreeMap<String, SocketAddr> {
        self.peers.iter().map(|(name, address)| (name.clone(), SocketAddr::new(*address, port))).collect()
    }

    /// Where the API answers, whichever host leads.
    pub fn virtual_api(&self) -> SocketAddr {
        SocketAddr::new(self.virtual_address, self.ports.api)
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
}
