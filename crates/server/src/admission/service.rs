//! The addresses and ports of services: each is a key of its own in the store, taken in the same transaction
//! that writes the service, so that no two services ever have the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use machinery::{Cause, Object, Status};
use serde_json::{Map, Value, json};
use store::State;

use super::Claims;
use crate::clock::Edge;

/// The ports that `NodePort` services get.
///
/// Upstream's default of `--service-node-port-range`.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;

/// The addresses that services get: an IPv4 network, and which of its addresses are whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRange(Ipv4Net);

/// It is no network that services could have addresses of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IPv4 network of services; write one such as 10.96.0.0/16, with a prefix from /8 to /28")]
pub struct ServiceRangeError(String);

impl TryFrom<IpNet> for ServiceRange {
    type Error = ServiceRangeError;

    fn try_from(network: IpNet) -> Result<Self, Self::Error> {
        match network {
            IpNet::V4(v4) if (8..=28).contains(&v4.prefix_len()) => Ok(ServiceRange(v4.trunc())),
            IpNet::V4(_) | IpNet::V6(_) => Err(ServiceRangeError(network.to_string())),
        }
    }
}

impl FromStr for ServiceRange {
    type Err = ServiceRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpNet>().map_err(|_| ServiceRangeError(text.to_owned()))?.try_into()
    }
}

impl ServiceRange {
    /// The network that it is.
    pub fn network(&self) -> Ipv4Net {
        self.0
    }

    /// The first address: the API's own, as the service `kubernetes`.
    pub fn first(&self) -> Ipv4Addr {
        self.at(1)
    }

    /// The tenth address: that of the cluster's DNS, where kubeadm has it and tools look for it. It belongs to the part that
    /// others get none of unless they ask for it.
    pub fn dns(&self) -> Ipv4Addr {
        self.at(10)
    }

    /// How many addresses there are, with the network's own and that of a broadcast.
    fn size(&self) -> u32 {
        1 << (32 - self.0.prefix_len())
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()) + offset)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.contains(&address) && address != self.0.network() && address != self.0.broadcast()
    }

    /// An address that is free: from the upper part, so that the lower stays for those who ask for a
    /// certain one (KEP-3070), and only then from the lower.
    fn pick(&self, taken: impl Fn(&str) -> bool, edge: &dyn Edge) -> Option<String> {
        let reserved = (self.size() / 16).clamp(16, 256).min(self.size() - 2);
        let scan = |from: u32, to: u32| {
            let count = to.saturating_sub(from);
            let start = edge.below(count);
            (0..count)
                .map(|i| self.at(from + (start + i) % count).to_string())
                .find(|address| !taken(address))
        };
        scan(reserved, self.size() - 1).or_else(|| scan(2, reserved))
    }
}

fn address_key(address: &str) -> String {
    format!("/allocations/addresses/{address}")
}

/// Ports of different protocols don't exclude each other.
fn port_key(protocol: &str, port: i64) -> String {
    format!("/allocations/ports/{protocol}/{port}")
}

/// What a service has.
fn held(service: &Object) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let address = spec_text(service, "clusterIP");
    if !address.is_empty() && address != "None" {
        keys.insert(address_key(address));
    }
    for port in ports(service) {
        if let Some(number) = node_port(port) {
            keys.insert(port_key(protocol(port), number));
        }
    }
    if let Some(number) = health_check_port(service) {
        keys.insert(port_key("TCP", number));
    }
    keys
}

/// Gives back what a service had.
pub(super) fn release(service: &Object) -> Claims {
    let mut claims = Claims::default();
    for key in held(service) {
        claims.free(key);
    }
    claims
}

/// Takes what a service asks for, or something free where it leaves the choice. Upstream doesn't hold a port that is only
/// tried, in a dry run, against the range of ports.
pub(super) fn allocate(
    range: &ServiceRange,
    (service, old): (&mut Object, Option<&Object>),
    dry_run: bool,
    state: &State,
    edge: &dyn Edge,
) -> Result<Claims, Status> {
    let before = old.map(held).unwrap_or_default();
    let taken = |key: &str| !before.contains(key) && state.get(key.as_bytes()).is_some();
    let kind = spec_text(service, "type").to_owned();
    let mut causes = Vec::new();

    if kind == "ExternalName" {
        remove(service, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    } else {
        match spec_text(service, "clusterIP") {
            "" => {
                let address = range
                    .pick(|address| taken(&address_key(address)), edge)
                    .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
                set_address(service, &address);
            }
            "None" => set_address(service, "None"),
            address => {
                let address = address.to_owned();
                let wanted = json!([address]);
                let why = match address.parse() {
                    Ok(parsed) if range.contains(parsed) && taken(&address_key(&address)) => {
                        Some("provided IP is already allocated".to_owned())
                    }
                    Ok(parsed) if range.contains(parsed) => None,
                    _ => Some(format!(
                        "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                        range.network()
                    )),
                };
                match why {
                    Some(why) => {
                        let why = format!("failed to allocate IP {address}: {why}");
                        causes.push(Cause::invalid("spec.clusterIPs", &wanted, &why));
                    }
                    None => set_address(service, &address),
                }
            }
        }
    }
    let asked = Asked { kind: &kind, dry_run, is_new: old.is_none() };
    allocate_ports(service, &asked, &taken, &mut causes, edge)?;
    allocate_health_check(service, &taken, &mut causes, edge)?;
    if !causes.is_empty() {
        return Err(Status::invalid("", "Service", service.name(), causes));
    }

    let after = held(service);
    let mut claims = Claims::default();
    let owner = format!("{}/{}", service.namespace(), service.name());
    for key in after.difference(&before) {
        claims.take(key.clone(), &owner);
    }
    for key in before.difference(&after) {
        claims.free(key.clone());
    }
    Ok(claims)
}

/// How node ports are asked for.
struct Asked<'a> {
    /// The service's type.
    kind: &'a str,
    dry_run: bool,
    is_new: bool,
}

/// A port of a service before it gets a port of the hosts.
struct Bare {
    number: Option<i64>,
    protocol: String,
    on_hosts: Option<i64>,
}

impl Bare {
    fn of(port: &Map<String, Value>) -> Self {
        let number = port.get("port").and_then(Value::as_i64);
        Bare { number, protocol: protocol(port).to_owned(), on_hosts: node_port(port) }
    }
}

/// Node ports for those ports that need one; they lose theirs if the service is no longer of such a type.
fn allocate_ports(
    service: &mut Object,
    asked: &Asked<'_>,
    taken: &dyn Fn(&str) -> bool,
    causes: &mut Vec<Cause>,
    edge: &dyn Edge,
) -> Result<(), Status> {
    let balanced = service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool);
    let needs = asked.kind == "NodePort" || (asked.kind == "LoadBalancer" && balanced != Some(false));
    let may_have = matches!(asked.kind, "NodePort" | "LoadBalancer");
    let mut used: BTreeSet<String> = BTreeSet::new();
    let spec = service.0.get_mut("spec").and_then(|spec| spec.get_mut("ports"));
    let Some(Value::Array(list)) = spec else { return Ok(()) };
    let mut ports: Vec<Bare> = list.iter().filter_map(Value::as_object).map(Bare::of).collect();
    let mut together: BTreeMap<Option<i64>, Vec<usize>> = BTreeMap::new();
    for (at, port) in ports.iter().enumerate().filter(|_| asked.is_new) {
        together.entry(port.number).or_default().push(at);
    }
    let objects =
        list.iter_mut().enumerate().filter_map(|(index, port)| Some((index, port.as_object_mut()?)));
    for (at, (index, port)) in objects.enumerate() {
        if !may_have {
            port.remove("nodePort");
            continue;
        }
        let Bare { number, protocol, on_hosts } = &ports[at];
        match *on_hosts {
            Some(number) => {
                let field = format!("spec.ports[{index}].nodePort");
                if !asked.dry_run && !NODE_PORTS.contains(&number) {
                    let why =
                        "provided port is not in the valid range. The range of valid ports is 30000-32767";
                    causes.push(Cause::invalid(field, &json!(number), why));
                } else if taken(&port_key(protocol, number)) {
                    causes.push(Cause::invalid(field, &json!(number), "provided port is already allocated"));
                }
                used.insert(port_key(protocol, number));
            }
            None if needs => {
                let is_free = |protocol: &str, number: i64| {
                    let key = port_key(protocol, number);
                    !taken(&key) && !used.contains(&key)
                };
                // Ports of one number in a new service, such as a name server's of TCP and UDP, get the same one, as upstream
                // (`initNodePorts`), where it is free for both.
                let same: Vec<&Bare> =
                    together.get(number).into_iter().flatten().map(|at| &ports[*at]).collect();
                let given = same.iter().find_map(|port| port.on_hosts);
                let picked = given
                    .filter(|number| is_free(protocol, *number))
                    .or_else(|| {
                        let all = |n| same.iter().all(|port| is_free(&port.protocol, n));
                        pick_port(|n| is_free(protocol, n) && all(n), edge)
                    })
                    .or_else(|| pick_port(|n| is_free(protocol, n), edge))
                    .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
                used.insert(port_key(protocol, picked));
                port.insert("nodePort".into(), json!(picked));
                ports[at].on_hosts = Some(picked);
            }
            None => {}
        }
    }
    Ok(())
}

/// A port of the hosts that is free.
fn pick_port(is_free: impl Fn(i64) -> bool, edge: &dyn Edge) -> Option<i64> {
    let count = NODE_PORTS.end() - NODE_PORTS.start() + 1;
    let start = i64::from(edge.below(u32::try_from(count).unwrap_or(u32::MAX)));
    (0..count).map(|i| NODE_PORTS.start() + (start + i) % count).find(|port| is_free(*port))
}

/// The port at which a balancer asks each host whether it has an endpoint.
fn allocate_health_check(
    service: &mut Object,
    taken: &dyn Fn(&str) -> bool,
    causes: &mut Vec<Cause>,
    edge: &dyn Edge,
) -> Result<(), Status> {
    let asks = spec_text(service, "type") == "LoadBalancer"
        && spec_text(service, "externalTrafficPolicy") == "Local";
    if !asks {
        return Ok(());
    }
    if let Some(number) = health_check_port(service) {
        if taken(&port_key("TCP", number)) {
            let why = "provided port is already allocated";
            causes.push(Cause::invalid("spec.healthCheckNodePort", &json!(number), why));
        }
        return Ok(());
    }
    let used: BTreeSet<i64> = ports(service).filter_map(node_port).collect();
    let free = pick_port(|port| !taken(&port_key("TCP", port)) && !used.contains(&port), edge);
    let port =
        free.ok_or_else(|| Status::internal("failed to allocate a healthCheckNodePort: range is full"))?;
    if let Some(Value::Object(spec)) = service.0.get_mut("spec") {
        spec.insert("healthCheckNodePort".into(), json!(port));
    }
    Ok(())
}

fn health_check_port(service: &Object) -> Option<i64> {
    service.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).filter(|port| *port != 0)
}

fn set_address(service: &mut Object, address: &str) {
    let Some(Value::Object(spec)) = service.0.get_mut("spec") else { return };
    spec.insert("clusterIP".into(), json!(address));
    spec.insert("clusterIPs".into(), json!([address]));
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
}

fn remove(service: &mut Object, fields: &[&str]) {
    let Some(Value::Object(spec)) = service.0.get_mut("spec") else { return };
    for field in fields {
        spec.remove(*field);
    }
}

fn spec_text<'a>(service: &'a Object, field: &str) -> &'a str {
    service.0.get("spec").and_then(|spec| spec.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn ports(service: &Object) -> impl Iterator<Item = &Map<String, Value>> {
    let list = service.pointer("/spec/ports").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

fn protocol(port: &Map<String, Value>) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

fn node_port(port: &Map<String, Value>) -> Option<i64> {
    port.get("nodePort").and_then(Value::as_i64).filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEdge;

    #[test]
    fn addresses_are_picked_until_none_is_left() {
        let range: ServiceRange = "10.0.0.0/28".parse().unwrap();
        assert_eq!(range.first(), Ipv4Addr::new(10, 0, 0, 1));
        let mut taken = BTreeSet::new();
        while let Some(address) = range.pick(|address| taken.contains(address), &SystemEdge) {
            assert!(range.contains(address.parse().unwrap()), "{address}");
            assert!(taken.insert(address));
        }
        assert_eq!(taken.len(), 13, "16 without the network, the broadcast and the first address: {taken:?}");
    }

    #[test]
    fn a_range_is_an_ipv4_network() {
        for wrong in ["", "10.96.0.0", "10.96.0.0/33", "10.96.0.0/31", "8.0.0.0/7", "fd00::/108", "a/16"] {
            assert!(wrong.parse::<ServiceRange>().is_err(), "{wrong}");
        }
        let range: ServiceRange = "10.96.7.7/16".parse().unwrap();
        assert_eq!(range.first(), Ipv4Addr::new(10, 96, 0, 1));
    }
}
