//! Services as they can be reached: their ports, and who serves each.

mod directory;
mod hints;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use directory::Directory;
pub(crate) use hints::near_first;
pub use hints::{Hint, Hints};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A Service's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One port of one Service, by the port's name (empty if it has none).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    /// The Service.
    pub service: ServiceId,
    /// The port's name.
    pub port: String,
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortId { service, port } = self;
        if port.is_empty() { write!(f, "{service}") } else { write!(f, "{service}:{port}") }
    }
}

/// One who serves a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub address: SocketAddr,
    /// On which node, if that is known.
    pub node: Option<Arc<str>>,
    /// Whether it is ready. If not, it is terminating but still serves, and is used only while nobody is
    /// ready (KEP-1669).
    pub ready: bool,
    /// Whose callers it is for.
    pub hints: Hints,
}

/// A port of a Service, with those who serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Which port of which Service.
    pub id: PortId,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
    /// The Service's own addresses; none if it is headless.
    pub addresses: Vec<IpAddr>,
    /// The addresses from outside that lead to it, each of which one host holds (type LoadBalancer).
    pub balanced: Vec<IpAddr>,
    /// From where callers of those may come (`loadBalancerSourceRanges`); from anywhere if there are none.
    pub sources: Arc<[IpNet]>,
    /// The port under which every host offers it.
    pub node_port: Option<u16>,
    /// For how long a client sticks to its endpoint (`sessionAffinity: ClientIP`).
    pub affinity: Option<Duration>,
    /// Whether only endpoints on this host may serve callers of the Service's addresses.
    pub internal_local: bool,
    /// Whether only endpoints on this host may serve callers of its node port.
    pub external_local: bool,
    /// The endpoints that serve it, in the order of their addresses, on hosts silent or not.
    pub endpoints: Vec<Endpoint>,
}

impl ServicePort {
    /// Whether a caller may come by the Service's addresses from outside.
    pub(crate) fn admits(&self, client: Option<IpAddr>) -> bool {
        let is_in = |client: IpAddr| self.sources.iter().any(|range| range.contains(&client.to_canonical()));
        self.sources.is_empty() || client.is_some_and(is_in)
    }
}

/// A Service that can be reached: one with a port of a protocol that is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Which.
    pub id: ServiceId,
    /// Its ports, at least one.
    pub ports: Vec<ServicePort>,
}

impl Served {
    /// One of its ports by name.
    pub fn port(&self, name: &str) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.id.port == name)
    }
}

/// One step from one state of the services and hosts to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceChange {
    /// A Service is new or differs. This is all of it, in place of what was known.
    Served(Arc<Served>),
    /// A Service can't be reached any more.
    Gone(ServiceId),
    /// A host fell silent: its endpoints must get no callers, and those that they have are to be cut off.
    Silent(String),
    /// A silent host was heard again: its endpoints take part again.
    Heard(String),
}

/// The services that can be reached, as changes have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    served: BTreeMap<ServiceId, Arc<Served>>,
}

impl Services {
    /// Takes a change in; answers what was known of its Service before.
    pub fn apply(&mut self, change: &ServiceChange) -> Option<Arc<Served>> {
        match change {
            ServiceChange::Served(served) => self.served.insert(served.id.clone(), served.clone()),
            ServiceChange::Gone(id) => self.served.remove(id),
            ServiceChange::Silent(_) | ServiceChange::Heard(_) => None,
        }
    }

    /// One Service.
    pub fn get(&self, id: &ServiceId) -> Option<&Arc<Served>> {
        self.served.get(id)
    }

    /// The port that a caller means by name or number; with neither, the only one.
    pub fn find(&self, namespace: &str, service: &str, port: &str) -> Option<&ServicePort> {
        let id = ServiceId { namespace: namespace.into(), name: service.into() };
        let ports = &self.served.get(&id)?.ports;
        if port.is_empty() {
            return ports.first().filter(|_| ports.len() == 1);
        }
        let number = port.parse::<u16>().ok();
        ports.iter().find(|known| known.id.port == port || Some(known.number) == number)
    }
}

#[cfg(test)]
mod tests;
