//! What a host listens on for the services.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::{PortId, Protocol, Scope, Services};

/// An address under which callers know a port of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frontend {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub scope: Scope,
}

/// Every address that the services ask for, with the port behind it: the Services' own addresses, and their
/// node ports on this host's. Where two want the same, the first by name has it.
pub(crate) fn wanted(services: &Services, host: IpAddr) -> BTreeMap<Frontend, PortId> {
    let mut wanted = BTreeMap::new();
    for port in services.iter() {
        let own = port.addresses.iter().map(|ip| (SocketAddr::new(*ip, port.number), Scope::Internal));
        let node = port.node_port.map(|number| (SocketAddr::new(host, number), Scope::External));
        for (address, scope) in own.chain(node) {
            let frontend = Frontend { protocol: port.protocol, address, scope };
            wanted.entry(frontend).or_insert_with(|| port.id.clone());
        }
    }
    wanted
}
