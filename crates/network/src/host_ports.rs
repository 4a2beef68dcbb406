//! Ports of the host that lead to a port of one of its pods (`hostPort`): for the proxy each pod's are a service of one endpoint.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::{Endpoint, Hints, PortId, Protocol, Served, ServiceChange, ServiceId, ServicePort};

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

fn change(host: IpAddr, pod: IpAddr, ports: &[HostPort]) -> ServiceChange {
    // No Service has an empty namespace.
    let id = ServiceId { namespace: String::new(), name: format!("hostPort {pod}") };
    let served = |port: &HostPort| ServicePort {
        id: PortId { service: id.clone(), port: format!("{:?}:{}", port.protocol, port.number) },
        protocol: port.protocol,
        number: port.number,
        addresses: port.address.map_or_else(|| vec![host, Ipv4Addr::LOCALHOST.into()], |one| vec![one]),
        node_port: None,
        affinity: None,
        internal_local: false,
        external_local: false,
        endpoints: vec![Endpoint {
            address: SocketAddr::new(pod, port.to),
            node: None,
            ready: true,
            hints: Hints::default(),
        }],
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
    use super::*;

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
        let at = |n: usize| served.ports[n].addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((at(0), at(1)), (vec!["10.73.0.1".into(), "127.0.0.1".into()], vec!["10.73.0.9".into()]));
        assert_eq!(served.ports[1].endpoints[0].address, (pod, 5353).into());
        assert!(told.try_recv().is_err(), "once");
        ports.set(pod, Vec::new());
        assert_eq!(told.try_recv().unwrap(), ServiceChange::Gone(served.id.clone()));
    }
}
