//! Which backends serve what, according to the store: Services and their EndpointSlices, without I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::Targets;

/// The label by which a slice names its Service (`k8s.io/api/discovery/v1`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// How long a client sticks to a backend if the Service doesn't say (`core/v1`, `ClientIPConfig`).
const AFFINITY: Duration = Duration::from_secs(10_800);

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// One port of one Service: its namespace, its name, and the port's name (empty if it has none).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The port's name.
    pub port: String,
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortId { namespace, service, port } = self;
        write!(f, "{namespace}/{service}")?;
        if port.is_empty() { Ok(()) } else { write!(f, ":{port}") }
    }
}

/// One who serves a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Where.
    pub address: SocketAddr,
    /// On which node, if that is known.
    pub node: Option<Arc<str>>,
    /// Whether it is ready. If not, it is terminating but still serves, and is used only while nobody is
    /// ready (KEP-1669).
    pub ready: bool,
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
    /// The port under which every host offers it.
    pub node_port: Option<u16>,
    /// For how long a client sticks to its backend (`sessionAffinity: ClientIP`).
    pub affinity: Option<Duration>,
    /// Whether only backends on this host may serve callers of the Service's addresses.
    pub internal_local: bool,
    /// Whether only backends on this host may serve callers of its node port.
    pub external_local: bool,
    /// The backends that serve it, on hosts silent or not.
    pub backends: Vec<Backend>,
}

/// All ports of all Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    ports: BTreeMap<PortId, ServicePort>,
}

impl Services {
    /// What the objects amount to. Ports of protocols that can't be proxied (SCTP) are left out, and so are endpoints
    /// that are no targets.
    pub fn new<'a>(
        services: impl IntoIterator<Item = &'a Arc<Service>>,
        slices: impl IntoIterator<Item = &'a Arc<EndpointSlice>>,
        targets: &Targets,
    ) -> Self {
        let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                by_service.entry((namespace, service)).or_default().push(slice);
            }
        }
        let mut ports = BTreeMap::new();
        for service in services {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let slices = by_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
            let Some(spec) = &service.spec else { continue };
            for port in ports_of((namespace, name), spec, slices, targets) {
                ports.insert(port.id.clone(), port);
            }
        }
        Services { ports }
    }

    /// One port.
    pub fn get(&self, id: &PortId) -> Option<&ServicePort> {
        self.ports.get(id)
    }

    /// All ports.
    pub fn iter(&self) -> impl Iterator<Item = &ServicePort> {
        self.ports.values()
    }

    /// The port that a caller means by name or number; with neither, the only one.
    pub fn find(&self, namespace: &str, service: &str, port: &str) -> Option<&ServicePort> {
        let first = PortId { namespace: namespace.into(), service: service.into(), port: String::new() };
        let of_service = || {
            let ports = self.ports.range(&first..).map(|(_, port)| port);
            ports.take_while(|port| port.id.namespace == namespace && port.id.service == service)
        };
        if port.is_empty() {
            let mut ports = of_service();
            return ports.next().filter(|_| ports.next().is_none());
        }
        let number = port.parse::<u16>().ok();
        of_service().find(|known| known.id.port == port || Some(known.number) == number)
    }

    /// How many endpoints a host has: pairs of a Service and an address.
    pub fn endpoints_on(&self, node: &str) -> usize {
        let pairs = self.iter().flat_map(|port| {
            let service = (&port.id.namespace, &port.id.service);
            let backends = port.backends.iter().filter(|backend| backend.node.as_deref() == Some(node));
            backends.map(move |backend| (service, backend.address.ip()))
        });
        pairs.collect::<BTreeSet<_>>().len()
    }
}

fn ports_of(
    (namespace, name): (&str, &str),
    spec: &ServiceSpec,
    slices: &[&EndpointSlice],
    targets: &Targets,
) -> Vec<ServicePort> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let listed = spec.cluster_ips.iter().flatten();
    let first = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
    // A headless Service has the address "None", which is none.
    let addresses: Vec<IpAddr> = listed.chain(first).filter_map(|address| address.parse().ok()).collect();
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    let seconds = || spec.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds;
    let affinity =
        sticky.then(|| seconds().and_then(|s| s.try_into().ok()).map_or(AFFINITY, Duration::from_secs));
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");

    let mut ports = Vec::new();
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Some(number)) = (protocol(port.protocol.as_deref()), port_number(port.port))
        else {
            continue;
        };
        let port_name = port.name.clone().unwrap_or_default();
        let backends = backends(slices, &port_name, protocol, targets);
        ports.push(ServicePort {
            id: PortId { namespace: namespace.into(), service: name.into(), port: port_name },
            protocol,
            number,
            addresses: addresses.clone(),
            node_port: port.node_port.and_then(port_number),
            affinity,
            internal_local: local(&spec.internal_traffic_policy),
            external_local: local(&spec.external_traffic_policy),
            backends,
        });
    }
    ports
}

fn backends(slices: &[&EndpointSlice], port_name: &str, wanted: Protocol, targets: &Targets) -> Vec<Backend> {
    let mut backends: BTreeMap<SocketAddr, Backend> = BTreeMap::new();
    for slice in slices {
        let numbers = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && protocol(port.protocol.as_deref()) == Some(wanted)
        });
        for number in numbers.filter_map(|port| port_number(port.port?)) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(ready) = usable(endpoint) else { continue };
                // Beyond the first address none has a meaning (`discovery/v1`, `Endpoint`).
                let first = endpoint.addresses.first().and_then(|address| address.parse().ok());
                let Some(ip) = first.filter(|ip| targets.allows(*ip)) else { continue };
                let address = SocketAddr::new(ip, number);
                let node = endpoint.node_name.as_deref().map(Arc::from);
                let backend = Backend { address, node, ready };
                // An endpoint may stand in two slices for a moment; ready in one is ready.
                let known = backends.entry(address).or_insert_with(|| backend.clone());
                if ready && !known.ready {
                    *known = backend;
                }
            }
        }
    }
    backends.into_values().collect()
}

/// Whether an endpoint is ready, or only serves while it terminates; nothing if it is not to be used.
fn usable(endpoint: &Endpoint) -> Option<bool> {
    let Some(conditions) = &endpoint.conditions else { return Some(true) };
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    if ready {
        Some(true)
    } else if serving && conditions.terminating == Some(true) {
        Some(false)
    } else {
        None
    }
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests;
