//! The first host's configuration.

use std::net::IpAddr;

use config::{HostConfig, NetConfig};
use ipnet::IpNet;

use crate::register::ranges;
use crate::{Layout, Place, Settings};

/// What a cluster begins as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstHost {
    /// Who the host is.
    pub place: Place,
    /// The API's virtual address.
    pub virtual_address: IpAddr,
    /// The network of all hosts' pods.
    pub pods: IpNet,
    /// The network of the services' addresses.
    pub services: IpNet,
    /// What else is said.
    pub settings: Settings,
}

/// The configuration of a cluster's first host. It is the only member that the cluster begins with; others join it. What
/// can't work is [`HostConfig::check`]'s to find.
pub fn first_config(cluster_id: &str, first: FirstHost, layout: &Layout) -> HostConfig {
    let FirstHost { place, virtual_address, pods, services, settings } = first;
    // Where the network is too small for that, the check says so about both.
    let own = ranges(pods, host_prefix(pods)).next().unwrap_or(pods);
    host_config(Whole {
        cluster_id: cluster_id.to_owned(),
        peers: [(place.name.clone(), place.address)].into(),
        host_cidr: place.network,
        pod_cidr: own,
        cluster_cidr: pods,
        service_cidr: services,
        virtual_address,
        settings,
        place,
        layout,
    })
}

/// All that a configuration is made of.
pub(crate) struct Whole<'a> {
    pub cluster_id: String,
    pub peers: std::collections::BTreeMap<String, IpAddr>,
    pub host_cidr: IpNet,
    pub pod_cidr: IpNet,
    pub cluster_cidr: IpNet,
    pub service_cidr: IpNet,
    pub virtual_address: IpAddr,
    pub settings: Settings,
    pub place: Place,
    pub layout: &'a Layout,
}

pub(crate) fn host_config(whole: Whole<'_>) -> HostConfig {
    let Whole { cluster_id, peers, host_cidr, pod_cidr, cluster_cidr, service_cidr, .. } = whole;
    let Whole { virtual_address, settings, place, layout, .. } = whole;
    HostConfig {
        cluster_id,
        name: place.name,
        address: place.address,
        host_cidr,
        peers,
        pod_cidr,
        cluster_cidr,
        service_cidr,
        virtual_address,
        load_balancer_cidrs: settings.load_balancer_cidrs,
        net: NetConfig::Netns { link: place.link },
        ports: settings.ports,
        timeouts: settings.timeouts,
        scheduling: settings.scheduling,
        dns: settings.dns,
        eviction: settings.eviction,
        shutdown: settings.shutdown,
        audit: settings.audit,
        token_webhook: settings.token_webhook,
        registries_file: settings.registries_file,
        static_pods: settings.static_pods,
        runtime: settings.runtime,
        // Only somebody who knows the machine can name what resets it.
        fencing: Default::default(),
        // Each host has a priority of its own among the virtual routers, to be written into its file.
        vrrp: Default::default(),
        data_dir: layout.data_dir(),
        begun_file: layout.begun_file(),
        timeline_file: layout.timeline_file(),
        encryption_file: settings.encryption_file,
        datastore: None,
        pki_dir: layout.pki_dir(),
    }
}

/// How much of the pods' network a host gets: 254 addresses, upstream's default (`--node-cidr-mask-size`), or a quarter
/// where the whole network is hardly larger.
fn host_prefix(pods: IpNet) -> u8 {
    const USUAL: u8 = 24;
    const SMALLEST: u8 = 28;
    USUAL.max(pods.prefix_len() + 2).min(SMALLEST).max(pods.prefix_len())
}

/// The first address of the services, which is the API's own Service.
pub fn first_service(services: IpNet) -> Option<IpAddr> {
    services.hosts().next()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn layout() -> Layout {
        Layout::new("/etc/holdfast".into(), "/var/lib/holdfast".into())
    }

    pub(crate) fn first() -> FirstHost {
        FirstHost {
            place: Place {
                name: "n1".into(),
                address: "10.73.0.1".parse().unwrap(),
                link: "eth0".into(),
                network: "10.73.0.0/24".parse().unwrap(),
            },
            virtual_address: "10.73.0.100".parse().unwrap(),
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/16".parse().unwrap(),
            settings: Settings::default(),
        }
    }

    #[test]
    fn the_first_host_is_the_only_member_and_leaves_room_for_others() {
        let config = first_config("c", first(), &layout());
        assert_eq!(config.check(), config::Findings::default());
        assert_eq!(config.peers.len(), 1);
        assert_eq!(config.pod_cidr.to_string(), "10.244.0.0/24");
        assert_eq!(config.pki_dir.to_str(), Some("/etc/holdfast/pki"));
        for (pods, own) in [("10.0.0.0/8", 24), ("10.0.0.0/23", 25), ("10.0.0.0/26", 28), ("10.0.0.0/28", 28)]
        {
            let first = FirstHost { pods: pods.parse().unwrap(), ..first() };
            assert_eq!(first_config("c", first, &layout()).pod_cidr.prefix_len(), own, "{pods}");
        }
    }

    #[test]
    fn a_virtual_address_elsewhere_or_of_the_host_is_refused_by_the_check() {
        for (address, told) in [("10.74.0.1", "lies outside hostCidr"), ("10.73.0.1", "is n1's own address")]
        {
            let first = FirstHost { virtual_address: address.parse().unwrap(), ..first() };
            let problems = first_config("c", first, &layout()).check().problems;
            assert!(problems.iter().any(|problem| problem.to_string().contains(told)), "{problems:?}");
        }
    }
}
