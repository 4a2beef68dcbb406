//! This host's DNS: where it listens, who may ask it, and whom it asks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use config::{HostConfig, NetConfig, PodNames};
use membership::Hosts;
use network::{Answered, Protocol};
use store::Store;
use tokio::sync::watch;

use crate::threads;

/// The DNS of this host, before it answers.
pub struct Names {
    server: Option<dns::Server>,
    /// What it counts.
    pub metrics: Arc<dns::Metrics>,
    /// The addresses that pods ask; none if it can't listen.
    pub for_pods: Vec<IpAddr>,
    /// The addresses of services that it answers for.
    pub answered: Vec<Answered>,
}

impl Names {
    /// Listens, at the service's address and at the host's own. A host that can't works on without DNS.
    pub fn listen(config: &HostConfig, service: Ipv4Addr) -> Self {
        let service = SocketAddr::new(service.into(), dns::PORT);
        let own = SocketAddr::new(config.address, dns::PORT);
        // Whatever dies, a pod asks its own host: on loopback, where the switch has the service's address and would ask any
        // of the hosts, by that host's own address.
        let (listen, at) = match config.net {
            NetConfig::Netns { .. } => (vec![service, own], service),
            NetConfig::Loopback { .. } => (vec![own], own),
        };
        let metrics = Arc::new(dns::Metrics::default());
        match dns::Server::listen(options(config, service.ip(), listen), metrics.clone()) {
            Ok(server) => {
                let answered = |protocol| Answered { protocol, address: service, at };
                let answered = [Protocol::Udp, Protocol::Tcp].map(answered).into();
                Names { server: Some(server), metrics, for_pods: vec![at.ip()], answered }
            }
            Err(error) => {
                tracing::warn!(%error, "pods of this host find no service by name");
                Names { server: None, metrics, for_pods: Vec::new(), answered: Vec::new() }
            }
        }
    }

    /// Answers from now on, on a thread of its own.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn answer(self, store: Arc<dyn Store>, hosts: watch::Receiver<Arc<Hosts>>) -> io::Result<()> {
        match self.server {
            Some(server) => threads::beside("dns", || server.run(store, hosts)),
            None => Ok(()),
        }
    }
}

fn options(config: &HostConfig, service: IpAddr, listen: Vec<SocketAddr>) -> dns::Options {
    let pods = match config.dns.pods {
        PodNames::Verified => dns::PodNames::Verified,
        PodNames::Insecure => dns::PodNames::Insecure,
        PodNames::Disabled => dns::PodNames::Disabled,
    };
    let zones = dns::Zones {
        domain: dns::domain(),
        networks: vec![config.service_cidr, config.cluster_cidr],
        server: service,
        pods,
    };
    // What comes from this machine itself may have any of its addresses.
    let here = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(Into::into);
    let callers = [config.host_cidr, config.cluster_cidr, config.service_cidr].into_iter().chain(here);
    dns::Options {
        zones,
        callers: callers.collect(),
        listen,
        upstream: config.dns.upstream.iter().map(|server| server.0).collect(),
        resolv_conf: dns::machine_resolv_conf(),
    }
}
