//! What a pod asks of a node: resources and ports (KEP-753 for sidecars, KEP-2837 for the pod's own).

use std::collections::{BTreeMap, BTreeSet};

use api::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use objects::{Container, PodSpec};

/// Amounts of resources by name, in thousandths.
pub type Amounts = BTreeMap<String, i128>;

/// A port on the host: protocol, address, number.
pub type HostPort = (String, String, i32);

/// The amounts in a list of quantities; what is no quantity counts as nothing.
pub fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    let quantity = |text: &Text| Quantity::parse(&text.0).map_or(0, |quantity| quantity.milli());
    list.into_iter().flatten().map(|(name, text)| (name.clone(), quantity(text).max(0))).collect()
}

pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = most.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// What a pod needs at its worst moment: its containers together, or one init container beside the
/// sidecars that started before it; the pod's own figures go before those of its containers.
pub fn of(spec: &PodSpec) -> Amounts {
    let asks =
        |container: &Container| amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut moment = sidecars.clone();
        add(&mut moment, &asks(container));
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = moment.clone();
        }
        raise(&mut peak, &moment);
    }
    let mut total = sidecars;
    for container in &spec.containers {
        add(&mut total, &asks(container));
    }
    raise(&mut total, &peak);
    total.extend(amounts(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// The ports of the host that a pod takes.
pub fn host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|port| *port > 0)?;
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "0.0.0.0" && ip != "::");
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((protocol, address.unwrap_or_default(), number))
    });
    taken.collect()
}

/// Whether two sets of ports can't be on one host.
pub fn collide(a: &BTreeSet<HostPort>, b: &BTreeSet<HostPort>) -> bool {
    a.iter().any(|(protocol, address, port)| {
        b.iter().any(|(other_protocol, other_address, other_port)| {
            protocol == other_protocol
                && port == other_port
                && (address.is_empty() || other_address.is_empty() || address == other_address)
        })
    })
}
