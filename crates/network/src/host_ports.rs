//! Ports of the host that lead to a port of one of its pods (`hostPort`): for the proxy each pod's are a service of one endpoint.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use objects::AddressPool;
use tokio::sync::mpsc;

use crate::{Endpoint, Error, Hints, PortId, Protocol, Served, ServiceChange, ServiceId, ServicePort};

/// A port of the host that leads to a port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// The address of the host's; None for its own one and its loopback.
    pub address: Option<IpAddr>,
    /// Its number.
    pub number: u16,
    /// The pod's port.
    pub to: u16,
}

/// Addresses at which the host can listen, though they aren't its own to give: networks that are local as a whole, and what leads
/// to the API. A pod that got a port there would answer for a Service, or for the API, on its host.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// The Services'.
    pub services: IpNet,
    /// Those of all hosts' pods.
    pub pods: IpNet,
    /// The API's.
    pub virtual_address: IpAddr,
    /// Those of Services of type LoadBalancer.
    pub balanced: AddressPool,
}

impl Taken {
    /// Whether an address is none of them, and so may be asked for (`hostIP`).
    pub fn check(&self, address: IpAddr) -> Result<(), Error> {
        // An address of IPv4 in IPv6's form is bound as what it is.
        let plain = address.to_canonical();
        let what = match plain {
            _ if self.services.contains(&plain) => "one of services (serviceCidr)",
            _ if self.pods.contains(&plain) => "one of pods (clusterCidr)",
            _ if self.virtual_address == plain => "the API's (virtualAddress)",
            IpAddr::V4(v4) if self.balanced.contains(v4) => "one of services (loadBalancerCidrs)",
            _ => return Ok(()),
        };
        Err(Error::NotForHostPorts { address, what })
    }
}

/// The ports of the host that lead to its pods, as the proxy hears of them.
#[derive(Debug)]
pub(crate) struct HostPorts {
    host: IpAddr,
    known: Mutex<BTreeMap<IpAddr, Vec<HostPort>>>,
    tell: mpsc::UnboundedSender<ServiceChange>,
}

impl HostPorts {
    /// None yet, on a host of this address; and where changes come out.
    pub fn new(host: IpAddr) -> (Self, mpsc::UnboundedReceiver<ServiceChange>) {
        let (tell, told) = mpsc::unbounded_channel();
        (HostPorts { host, known: Mutex::default(), tell }, told)
    }

    /// A pod has these from now on, and no others.
    pub fn set(&self, pod: IpAddr, ports: Vec<HostPort>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if ports.is_empty() { known.remove(&pod) } else { known.insert(pod, ports.clone()) };
        if before.unwrap_or_default() != ports {
            // Without a proxy nothing is passed on any more.
            let _ = self.tell.send(change(self.host, pod, &ports));
        }
    }
}

/// The namespace of what is no Service: no namespace has such a name, and it comes after all that have one. Where a Service
/// wants the same address, that is the Service's therefore ([`Frontends`](crate::frontends::Frontends)).
const LAST: &str = "~";

fn change(host: IpAddr, pod: IpAddr, ports: &[HostPort]) -> ServiceChange {
    let id = ServiceId { namespace: LAST.to_owned(), name: format!("hostPort {pod}") };
    let served = |port: &HostPort| {
        let address = port.address.map(|address| address.to_canonical());
        // At the host's own address as node ports are, so that the two are known to want the same.
        let is_hosts = address.is_none_or(|address| address == host);
        let other = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let asked = address.map(|address| address.to_string()).unwrap_or_default();
        ServicePort {
            id: PortId { service: id.clone(), port: format!("{:?}:{asked}:{}", port.protocol, port.number) },
            protocol: port.protocol,
            number: port.number,
            addresses: if other == host { Vec::new() } else { vec![other] },
            node_port: is_hosts.then_some(port.number),
            balanced: Vec::new(),
            sources: Default::default(),
            affinity: None,
            internal_local: false,
            external_local: false,
            endpoints: vec![Endpoint {
                address: SocketAddr::new(pod, port.to),
                node: None,
                ready: true,
                hints: Hints::default(),
            }],
        }
    };
    match ports {
        [] => ServiceChange::Gone(id),
        ports => {
            let ports = ports.iter().map(served).collect();
            ServiceChange::Served(Arc::new(Served { id, ports }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Scope;
    use crate::frontends::{Frontend, Frontends};

    #[test]
    fn the_proxy_hears_of_what_changed() {
        let (host, pod): (IpAddr, IpAddr) = ([10, 73, 0, 1].into(), [10, 244, 1, 7].into());
        let (ports, mut told) = HostPorts::new(host);
        ports.set(pod, Vec::new());
        assert!(told.try_recv().is_err(), "nothing is what it had");
        let any = HostPort { protocol: Protocol::Tcp, address: None, number: 8080, to: 80 };
        let one =
            HostPort { protocol: Protocol::Udp, address: Some([10, 73, 0, 9].into()), number: 53, to: 5353 };
        ports.set(pod, vec![any, one]);
        ports.set(pod, vec![any, one]);
        let Ok(ServiceChange::Served(served)) = told.try_recv() else { panic!("not told") };
        let at = |n: usize| (served.ports[n].addresses.clone(), served.ports[n].node_port);
        assert_eq!(at(0), (vec![Ipv4Addr::LOCALHOST.into()], Some(8080)), "and at the host's own");
        assert_eq!(at(1), (vec![[10, 73, 0, 9].into()], None));
        assert_eq!(served.ports[1].endpoints[0].address, (pod, 5353).into());
        assert!(told.try_recv().is_err(), "once");
        ports.set(pod, Vec::new());
        assert_eq!(told.try_recv().unwrap(), ServiceChange::Gone(served.id.clone()));
    }
    #[test]
    fn a_service_gives_way_to_no_port_of_the_host() {
        let (host, pod): (IpAddr, IpAddr) = ([10, 73, 0, 1].into(), [10, 244, 1, 7].into());
        let cluster_ip: IpAddr = [10, 96, 0, 1].into();
        let stolen = |address, number| HostPort { protocol: Protocol::Tcp, address, number, to: 80 };
        let asked = [stolen(Some(cluster_ip), 443), stolen(None, 30443), stolen(Some(host), 30444)];
        let ServiceChange::Served(pods) = change(host, pod, &asked) else { panic!("not served") };
        let service = ServiceId { namespace: "default".into(), name: "kubernetes".into() };
        let port = |node_port: u16| ServicePort {
            id: PortId { service: service.clone(), port: node_port.to_string() },
            addresses: vec![cluster_ip],
            node_port: Some(node_port),
            ..pods.ports[0].clone()
        };
        let ports = [port(30443), port(30444)];
        for service_first in [true, false] {
            let mut frontends = Frontends::new(host, BTreeSet::new(), AddressPool::default());
            let mut both = [(&service, &ports[..]), (&pods.id, &pods.ports[..])];
            if !service_first {
                both.reverse();
            }
            for (id, ports) in both {
                frontends.set(id, ports);
            }
            let whose = |address, number, scope| {
                let address = SocketAddr::new(address, number);
                let port = frontends.port(&Frontend { protocol: Protocol::Tcp, address, scope });
                port.map(|port| port.service.clone())
            };
            assert_eq!(whose(cluster_ip, 443, Scope::Internal), Some(service.clone()));
            // In one place alone: two listeners at one address would be a race.
            for number in [30443, 30444] {
                assert_eq!(whose(host, number, Scope::External), Some(service.clone()), "{number}");
                assert_eq!(whose(host, number, Scope::Internal), None, "{number}");
            }
            assert_eq!(whose(Ipv4Addr::LOCALHOST.into(), 30443, Scope::Internal), Some(pods.id.clone()));
        }
    }

    #[test]
    fn what_is_local_without_being_the_hosts_is_refused() {
        let net = |text: &str| text.parse().unwrap();
        let taken = Taken {
            services: net("10.96.0.0/16"),
            pods: net("10.244.0.0/16"),
            virtual_address: [10, 73, 0, 100].into(),
            balanced: AddressPool::new([([10, 73, 0, 200].into(), [10, 73, 0, 201].into())]),
        };
        let said = |address: &str| taken.check(address.parse().unwrap()).err().map(|error| error.to_string());
        for (address, what) in [
            ("10.96.0.1", "services"),
            ("::ffff:10.96.0.1", "services"),
            ("10.244.2.7", "pods"),
            ("10.73.0.100", "virtualAddress"),
            ("10.73.0.201", "loadBalancerCidrs"),
        ] {
            let said = said(address).unwrap();
            assert!(said.starts_with(&format!("hostIP {address} is not")) && said.contains(what), "{said}");
        }
        for own in ["10.73.0.1", "127.0.0.1", "192.0.2.1"] {
            assert_eq!(said(own), None, "{own}");
        }
    }
}
