//! What a machine that joins and a host of the cluster say to each other: JSON, over TLS.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::HostConfig;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::first::{Whole, host_config};
use crate::{Layout, Place, Settings};

/// Where hosts of a cluster are asked, by POST.
pub const PATH: &str = "/holdfast/join";
/// The most bytes of a request: two requests for certificates take two thousand.
pub const LARGEST_REQUEST: usize = 16 << 10;

/// What a machine says that wants to join. It has no `Debug`: a token is in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// By which it may.
    pub token: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The request (PKCS #10, PEM) for the host's certificate, whose key stays there.
    pub host_request: String,
    /// That for the certificate by which its API vouches for who asks.
    pub front_proxy_request: String,
}

/// What a member gets. It has no `Debug`: keys are in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// What is the same on all hosts.
    pub cluster: Shared,
    /// The members, this one included.
    pub peers: BTreeMap<String, IpAddr>,
    /// The range of its pods.
    pub pod_cidr: IpNet,
    /// Its certificate, PEM.
    pub host_certificate: String,
    /// That of its front proxy, PEM.
    pub front_proxy_certificate: String,
    /// The keys that all members share.
    pub keys: Keys,
}

/// What is the same on all hosts of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shared {
    /// What tells the cluster from others.
    pub cluster_id: String,
    /// The network of the hosts.
    pub host_cidr: IpNet,
    /// The network of all pods.
    pub cluster_cidr: IpNet,
    /// The network of services.
    pub service_cidr: IpNet,
    /// The API's virtual address.
    pub virtual_address: IpAddr,
    /// Ports, timeouts and more.
    pub settings: Settings,
}

/// The keys that all members share, PEM. By the authority's key each of them can let others join: the cluster doesn't depend
/// on the host that it was made on.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// The authority's certificate.
    pub authority: String,
    /// Its key, from which that of heartbeats follows.
    pub authority_key: String,
    /// The key of service accounts' tokens.
    pub token_key: String,
    /// The certificate of the authority that signs what users ask for.
    pub requests: String,
    /// Its key.
    pub requests_key: String,
}

impl Shared {
    /// What a host's configuration says for all hosts. Where the audit records what requests did (by files of that host), the file with the keys
    /// of what is encrypted, the file about registries, the folder of static pods and the runtime of others are that host's
    /// alone.
    pub fn of(config: &HostConfig) -> Self {
        Shared {
            cluster_id: config.cluster_id.clone(),
            host_cidr: config.host_cidr,
            cluster_cidr: config.cluster_cidr,
            service_cidr: config.service_cidr,
            virtual_address: config.virtual_address,
            settings: Settings {
                load_balancer_cidrs: config.load_balancer_cidrs.clone(),
                ports: config.ports,
                timeouts: config.timeouts,
                scheduling: config.scheduling.clone(),
                dns: config.dns.clone(),
                eviction: config.eviction.clone(),
                shutdown: config.shutdown.clone(),
                audit: None,
                token_webhook: None,
                registries_file: None,
                static_pods: None,
                runtime: None,
                encryption_file: None,
            },
        }
    }
}

impl Grant {
    /// The configuration of the host that got it.
    pub fn config(&self, place: Place, layout: &Layout) -> HostConfig {
        let Shared { cluster_id, host_cidr, cluster_cidr, service_cidr, virtual_address, settings } =
            self.cluster.clone();
        let (peers, pod_cidr) = (self.peers.clone(), self.pod_cidr);
        host_config(Whole {
            cluster_id,
            peers,
            host_cidr,
            pod_cidr,
            cluster_cidr,
            service_cidr,
            virtual_address,
            settings,
            place,
            layout,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::first::tests::{first, layout};
    use crate::first_config;

    #[test]
    fn a_member_s_configuration_has_all_that_is_shared_and_its_own() {
        let mut one = first_config("c", first(), &layout());
        one.ports.api = 7443;
        let keys = Keys {
            authority: String::new(),
            authority_key: String::new(),
            token_key: String::new(),
            requests: String::new(),
            requests_key: String::new(),
        };
        let address: IpAddr = [10, 73, 0, 2].into();
        let peers = one.peers.clone().into_iter().chain([("n2".to_owned(), address)]).collect();
        let grant = Grant {
            cluster: Shared::of(&one),
            peers,
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            host_certificate: String::new(),
            front_proxy_certificate: String::new(),
            keys,
        };
        let grant: Grant = serde_json::from_value(serde_json::to_value(&grant).unwrap()).unwrap();
        let place = Place { name: "n2".into(), address, link: "ens3".into(), network: one.host_cidr };
        let two = grant.config(place, &layout());
        assert_eq!(two.check().problems, []);
        assert_eq!((two.name.as_str(), two.ports.api, two.peers.len()), ("n2", 7443, 2));
        assert_eq!(two.net, config::NetConfig::Netns { link: "ens3".into() });
    }
}
