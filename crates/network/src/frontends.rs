//! What a host listens on for the services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use objects::AddressPool;

use crate::{PortId, Protocol, Scope, ServiceId, ServicePort};

/// An address under which callers know a port of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frontend {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub scope: Scope,
}

/// Every address that the services ask for, with the ports that want it: the Services' own addresses, and their
/// node ports on this host's. Where two want the same, the first by name has it.
#[derive(Debug)]
pub(crate) struct Frontends {
    host: IpAddr,
    /// What this host answers for by itself.
    answered: BTreeSet<(Protocol, SocketAddr)>,
    /// The addresses of Services that hosts of this cluster hold. What else a status says is others'.
    pool: AddressPool,
    of_service: BTreeMap<ServiceId, Vec<(Frontend, PortId)>>,
    wanted: BTreeMap<Frontend, BTreeSet<PortId>>,
}

impl Frontends {
    /// None yet, on a host of this address, which answers for some others by itself.
    pub fn new(host: IpAddr, answered: BTreeSet<(Protocol, SocketAddr)>, pool: AddressPool) -> Self {
        Frontends { host, answered, pool, of_service: BTreeMap::new(), wanted: BTreeMap::new() }
    }

    /// A Service has these ports now; none if it is gone. Answers which addresses may stand for another port than before.
    pub fn set(&mut self, service: &ServiceId, ports: &[ServicePort]) -> BTreeSet<Frontend> {
        let now: Vec<_> = ports.iter().flat_map(|port| self.of(port)).collect();
        let before = self.of_service.get(service).map(Vec::as_slice).unwrap_or_default();
        // Most changes are of endpoints.
        if before == now.as_slice() {
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::new();
        for (frontend, port) in before {
            touched.insert(*frontend);
            if let Some(ports) = self.wanted.get_mut(frontend) {
                ports.remove(port);
                if ports.is_empty() {
                    self.wanted.remove(frontend);
                }
            }
        }
        for (frontend, port) in &now {
            touched.insert(*frontend);
            self.wanted.entry(*frontend).or_default().insert(port.clone());
        }
        if now.is_empty() {
            self.of_service.remove(service);
        } else {
            self.of_service.insert(service.clone(), now);
        }
        touched
    }

    /// The port that an address stands for.
    pub fn port(&self, frontend: &Frontend) -> Option<&PortId> {
        self.wanted.get(frontend)?.first()
    }

    fn of(&self, port: &ServicePort) -> Vec<(Frontend, PortId)> {
        let own = port.addresses.iter().map(|ip| (SocketAddr::new(*ip, port.number), Scope::Internal));
        let node = port.node_port.map(|number| (SocketAddr::new(self.host, number), Scope::External));
        let is_held = |ip: &&IpAddr| matches!(ip, IpAddr::V4(v4) if self.pool.contains(*v4));
        let balanced = port.balanced.iter().filter(is_held);
        let balanced = balanced.map(|ip| (SocketAddr::new(*ip, port.number), Scope::Balanced));
        let frontend = |(address, scope)| Frontend { protocol: port.protocol, address, scope };
        let is_left =
            |(address, _): &(SocketAddr, Scope)| !self.answered.contains(&(port.protocol, *address));
        own.chain(node).chain(balanced).filter(is_left).map(|at| (frontend(at), port.id.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(service: &str, address: [u8; 4], number: u16) -> ServicePort {
        ServicePort {
            id: PortId { service: id(service), port: String::new() },
            protocol: Protocol::Tcp,
            number,
            addresses: vec![address.into()],
            node_port: None,
            balanced: Vec::new(),
            sources: Default::default(),
            affinity: None,
            internal_local: false,
            external_local: false,
            endpoints: Vec::new(),
        }
    }

    #[test]
    fn of_the_addresses_from_outside_those_of_the_pool_are_listened_on() {
        let pool = AddressPool::new([([10, 73, 0, 200].into(), [10, 73, 0, 209].into())]);
        let mut frontends = Frontends::new([10, 73, 0, 1].into(), BTreeSet::new(), pool);
        let balanced = vec![[10, 73, 0, 201].into(), [10, 73, 0, 100].into(), [192, 0, 2, 1].into()];
        let port = ServicePort { addresses: Vec::new(), balanced, ..port("web", [10, 96, 0, 5], 80) };
        let touched = frontends.set(&id("web"), std::slice::from_ref(&port));
        let address = ([10, 73, 0, 201], 80).into();
        assert_eq!(touched, [Frontend { protocol: Protocol::Tcp, address, scope: Scope::Balanced }].into());
    }

    #[test]
    fn what_the_host_answers_for_by_itself_is_left_to_it() {
        let dns = port("dns", [10, 96, 0, 10], 53);
        let answered = BTreeSet::from([(Protocol::Udp, SocketAddr::from(([10, 96, 0, 10], 53)))]);
        let mut frontends = Frontends::new([10, 73, 0, 1].into(), answered, AddressPool::default());
        let datagrams = ServicePort { protocol: Protocol::Udp, node_port: Some(30053), ..dns.clone() };
        let touched = frontends.set(&id("dns"), &[datagrams, dns]);
        let touched: Vec<_> = touched.iter().map(|f| (f.protocol, f.address.to_string())).collect();
        let own = (Protocol::Tcp, "10.96.0.10:53".to_owned());
        assert_eq!(touched, [own, (Protocol::Udp, "10.73.0.1:30053".to_owned())]);
    }

    fn id(name: &str) -> ServiceId {
        ServiceId { namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn an_address_that_two_want_is_the_first_ones_and_the_others_once_it_is_free() {
        let mut frontends = Frontends::new([10, 73, 0, 1].into(), BTreeSet::new(), AddressPool::default());
        let shared = Frontend {
            protocol: Protocol::Tcp,
            address: ([10, 96, 0, 5], 80).into(),
            scope: Scope::Internal,
        };
        let has = |frontends: &Frontends| frontends.port(&shared).map(|port| port.service.name.clone());
        let first = port("a", [10, 96, 0, 5], 80);
        assert_eq!(frontends.set(&id("b"), &[port("b", [10, 96, 0, 5], 80)]).len(), 1);
        assert_eq!(has(&frontends).as_deref(), Some("b"));
        assert!(frontends.set(&id("a"), std::slice::from_ref(&first)).contains(&shared));
        assert_eq!(has(&frontends).as_deref(), Some("a"));
        let endpoint = crate::Endpoint {
            address: ([10, 244, 1, 7], 80).into(),
            node: None,
            ready: true,
            hints: crate::Hints::default(),
        };
        let more = ServicePort { endpoints: vec![endpoint], ..first };
        assert!(frontends.set(&id("a"), &[more]).is_empty(), "another endpoint is no other address");
        let moved = frontends.set(&id("a"), &[port("a", [10, 96, 0, 6], 80)]);
        assert_eq!((moved.len(), has(&frontends).as_deref()), (2, Some("b")));
        assert!(frontends.set(&id("b"), &[]).contains(&shared));
        assert_eq!(has(&frontends), None);
    }
}
