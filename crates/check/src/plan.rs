//! What the host is meant to be: its configuration, or what stands in for one before there is any.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use config::{HostConfig, NetConfig, Ports, Timeouts};
use ipnet::{IpNet, Ipv4Net};

/// Where the data lies, and which ranges pods and services have, in the example of docs/configuration.md: what a machine without a
/// configuration is looked at for.
const DATA: &str = "/var/lib/holdfast/data";
const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);

/// What the host is meant to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Whether nothing of it runs yet.
    pub pre: bool,
    /// Its configuration.
    pub config: Option<HostConfig>,
    /// Why the file that was named is none.
    pub refused: Option<String>,
}

impl Plan {
    /// The configuration of a host that is meant to run already.
    pub fn installed(&self) -> Option<&HostConfig> {
        self.config.as_ref().filter(|_| !self.pre)
    }

    pub fn ports(&self) -> Ports {
        self.config.as_ref().map_or_else(Ports::default, |config| config.ports)
    }

    pub fn timeouts(&self) -> Timeouts {
        self.config.as_ref().map_or_else(Timeouts::default, |config| config.timeouts)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.config.as_ref().map_or_else(|| Path::new(DATA).into(), |config| config.data_dir.clone())
    }

    /// Whether the state lies on this machine's own disk.
    pub fn has_store(&self) -> bool {
        self.config.as_ref().is_none_or(|config| config.datastore.is_none())
    }

    /// The ranges that the cluster takes, by the names of their fields.
    pub fn ranges(&self) -> [(&'static str, IpNet); 2] {
        let of = |config: &HostConfig| [config.cluster_cidr, config.service_cidr];
        let [pods, services] = self.config.as_ref().map_or([PODS.into(), SERVICES.into()], of);
        [("clusterCidr", pods), ("serviceCidr", services)]
    }

    /// The address of the cluster's DNS: the tenth of the services.
    pub fn dns(&self) -> Option<IpAddr> {
        let [_, (_, services)] = self.ranges();
        services.hosts().nth(9)
    }

    /// Whether all hosts of the cluster live on this machine's loopback, whose range theirs are parts of.
    pub fn is_on_loopback(&self) -> bool {
        self.config.as_ref().is_some_and(|config| matches!(config.net, NetConfig::Loopback { .. }))
    }

    /// The link on which the host has its address; none where that isn't known, or there is none (loopback).
    pub fn link(&self) -> Option<&str> {
        match &self.config.as_ref()?.net {
            NetConfig::Netns { link } => Some(link),
            NetConfig::Loopback { .. } => None,
        }
    }
}
