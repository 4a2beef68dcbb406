//! What of a Service and of an EndpointSlice matters here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1;

use super::hints::Named;
use super::{Endpoint, PortId, Protocol, ServiceId, ServicePort};
use crate::Targets;

/// The label by which a slice names its Service (`k8s.io/api/discovery/v1`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// How long a client sticks to an endpoint if the Service doesn't say (`core/v1`, `ClientIPConfig`).
const AFFINITY: Duration = Duration::from_secs(10_800);

/// An EndpointSlice: which Service's, under which ports, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub service: ServiceId,
    ports: Vec<(String, Protocol, u16)>,
    places: Vec<Place>,
}

/// An endpoint without its port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    address: IpAddr,
    node: Option<Arc<str>>,
    ready: bool,
    hints: Named,
}

impl Slice {
    /// Nothing if it is no Service's. Endpoints that are no targets, or not to be used, are left out.
    pub fn of(slice: &v1::EndpointSlice, targets: &Targets, host: &str) -> Option<Self> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let name = port.name.clone().unwrap_or_default();
            Some((name, protocol(port.protocol.as_deref())?, port_number(port.port?)?))
        });
        let places = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let ready = usable(endpoint)?;
            // Beyond the first address none has a meaning (`discovery/v1`, `Endpoint`).
            let address = endpoint.addresses.first()?.parse().ok().filter(|ip| targets.allows(*ip))?;
            let node = endpoint.node_name.as_deref().map(Arc::from);
            Some(Place { address, node, ready, hints: Named::of(endpoint, host) })
        });
        Some(Slice {
            service: ServiceId { namespace, name },
            ports: ports.collect(),
            places: places.collect(),
        })
    }

    /// Whether it matters in which zone this host is.
    pub fn names_zones(&self) -> bool {
        self.places.iter().any(|place| place.hints.name_zones())
    }
}

/// The ports of a Service, without those who serve them; none if it can't be reached through this host.
pub(super) fn ports_of(service: &Service) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let id = ServiceId { namespace, name: service.metadata.name.clone().unwrap_or_default() };
    let listed = spec.cluster_ips.iter().flatten();
    let first = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
    // A headless Service has the address "None", which is none.
    let addresses: Vec<IpAddr> = listed.chain(first).filter_map(|address| address.parse().ok()).collect();
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    let seconds = || spec.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds;
    let affinity =
        sticky.then(|| seconds().and_then(|s| s.try_into().ok()).map_or(AFFINITY, Duration::from_secs));
    let (balanced, sources) = balanced(service);
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(ServicePort {
            id: PortId { service: id.clone(), port: port.name.clone().unwrap_or_default() },
            protocol: protocol(port.protocol.as_deref())?,
            number: port_number(port.port)?,
            addresses: addresses.clone(),
            balanced: balanced.clone(),
            sources: sources.clone(),
            node_port: port.node_port.and_then(port_number),
            affinity,
            internal_local: local(&spec.internal_traffic_policy),
            external_local: local(&spec.external_traffic_policy),
            endpoints: Vec::new(),
        })
    });
    ports.collect()
}

/// The addresses from outside that a Service shows, and from where callers may come to them. One whose mode isn't `VIP` is another proxy's,
/// which passes callers on to the node ports (KEP-1860).
fn balanced(service: &Service) -> (Vec<IpAddr>, Arc<[IpNet]>) {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    let Some(spec) = spec else { return Default::default() };
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let ingress = ingress.filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    let addresses = ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect();
    // The API lets spaces be around them.
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    (addresses, ranges.filter_map(|range| range.trim().parse().ok()).collect())
}

/// Those who serve a port, according to its Service's slices, as seen from a host in a zone.
pub(super) fn endpoints<'a>(
    slices: impl IntoIterator<Item = &'a Slice>,
    port_name: &str,
    wanted: Protocol,
    zone: Option<&str>,
) -> Vec<Endpoint> {
    let mut endpoints: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for slice in slices {
        let of_port =
            slice.ports.iter().filter(|(name, protocol, _)| name == port_name && *protocol == wanted);
        for (_, _, number) in of_port {
            for Place { address, node, ready, hints } in &slice.places {
                let address = SocketAddr::new(*address, *number);
                let hints = hints.seen_from(zone);
                let endpoint = Endpoint { address, node: node.clone(), ready: *ready, hints };
                // An endpoint may stand in two slices for a moment; ready in one is ready.
                let known = endpoints.entry(address).or_insert_with(|| endpoint.clone());
                if *ready && !known.ready {
                    *known = endpoint;
                }
            }
        }
    }
    endpoints.into_values().collect()
}

/// Whether an endpoint is ready, or only serves while it terminates; nothing if it is not to be used.
fn usable(endpoint: &v1::Endpoint) -> Option<bool> {
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
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_addresses_from_outside_are_those_that_a_load_balanced_service_shows() {
        let of = |kind: &str, mode: Value| {
            let ingress = json!([{"ip": "10.73.0.200", "ipMode": mode}, {"hostname": "lb.example"}]);
            let service = json!({
                "metadata": {"name": "web", "namespace": "d"},
                "spec": {"type": kind, "ports": [{"port": 80}], "loadBalancerSourceRanges": [" 10.0.0.0/8 "]},
                "status": {"loadBalancer": {"ingress": ingress}},
            });
            ports_of(&serde_json::from_value(service).unwrap()).remove(0)
        };
        for mode in [Value::Null, "VIP".into()] {
            let port = of("LoadBalancer", mode);
            assert_eq!(port.balanced, ["10.73.0.200".parse::<IpAddr>().unwrap()]);
            assert_eq!(*port.sources, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        }
        assert!(of("LoadBalancer", "Proxy".into()).balanced.is_empty(), "others stand before it");
        assert!(of("NodePort", Value::Null).balanced.is_empty());
    }
}
