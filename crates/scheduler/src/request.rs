//! What a pod asks of a node: resources and ports (KEP-753 for sidecars, KEP-2837 for the pod's own).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use machinery::Quantity;
use objects::{Container, PodSpec};

/// Amounts of resources by name, in thousandths.
pub(crate) type Amounts = BTreeMap<String, i128>;

/// A port on the host: protocol, address, number.
pub(crate) type HostPort = (String, String, i32);

/// The amounts in a list of quantities; what is no quantity counts as nothing.
pub(crate) fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    let quantity = |text: &Text| Quantity::parse(&text.0).map_or(0, |quantity| quantity.milli());
    list.into_iter().flatten().map(|(name, text)| (name.clone(), quantity(text).max(0))).collect()
}

/// How much of a resource is among some amounts.
pub(crate) fn amount(amounts: &Amounts, name: &str) -> i128 {
    amounts.get(name).copied().unwrap_or(0)
}

pub(crate) fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

pub(crate) fn subtract(sum: &mut Amounts, less: &Amounts) {
    for (name, amount) in less {
        if let Some(entry) = sum.get_mut(name) {
            *entry = entry.saturating_sub(*amount);
            if *entry == 0 {
                sum.remove(name);
            }
        }
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = most.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// What a container that requests nothing is taken to use of processors and memory, in thousandths, when hosts are compared
/// (`DefaultMilliCPURequest` and `DefaultMemoryRequest` of `pkg/scheduler/util` upstream).
const USUAL: [(&str, i128); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024 * 1000)];

/// What a pod weighs when hosts are compared: processors and memory.
pub(crate) type Weight = [i128; 2];

fn requests(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

/// What a pod needs at its worst moment: its containers together, or one init container beside the
/// sidecars that started before it; the pod's own figures go before those of its containers.
pub(crate) fn of(spec: &PodSpec) -> Amounts {
    peak(spec, requests)
}

/// The same for the comparison of hosts, where a pod that says nothing weighs something too.
pub(crate) fn weight(spec: &PodSpec) -> Weight {
    let asks = |container: &Container| {
        let mut asks = requests(container);
        for (name, usual) in USUAL {
            asks.entry(name.to_owned()).or_insert(usual);
        }
        asks
    };
    let peak = peak(spec, asks);
    USUAL.map(|(name, _)| amount(&peak, name))
}

fn peak(spec: &PodSpec, asks: impl Fn(&Container) -> Amounts) -> Amounts {
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
pub(crate) fn host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
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

/// Whether ports can't be on a host that has others.
pub(crate) fn collide<'a>(
    ports: &BTreeSet<HostPort>,
    taken: impl Iterator<Item = &'a HostPort> + Clone,
) -> bool {
    ports.iter().any(|(protocol, address, port)| {
        taken.clone().any(|(other_protocol, other_address, other_port)| {
            protocol == other_protocol
                && port == other_port
                && (address.is_empty() || other_address.is_empty() || address == other_address)
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_needs_what_its_worst_moment_needs() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let container = |amount: &str| json!({"name": "c", "resources": cpu(amount)});
        let sidecar =
            |amount: &str| json!({"name": "s", "restartPolicy": "Always", "resources": cpu(amount)});
        for (value, expected) in [
            (json!({"containers": [container("100m"), container("1")]}), 1100),
            (json!({"containers": [container("1")], "initContainers": [container("3")]}), 3000),
            (json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("3")]}), 4000),
            (json!({"containers": [container("1")], "initContainers": [container("1"), sidecar("1")]}), 2000),
            (json!({"containers": [container("1")], "overhead": {"cpu": "0.5"}}), 1500),
            (json!({"containers": [container("1")], "resources": cpu("4")}), 4000),
            (json!({"containers": [container("nonsense")]}), 0),
        ] {
            assert_eq!(of(&spec(value.clone())).get("cpu"), Some(&expected), "{value}");
        }
    }

    #[test]
    fn a_container_that_says_nothing_weighs_something() {
        let mib = 1024 * 1024 * 1000;
        for (value, expected) in [
            (json!({"containers": [{"name": "c"}]}), [100, 200 * mib]),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
                [1000, 200 * mib],
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "0"}}}, {"name": "d"}]}),
                [100, 400 * mib],
            ),
        ] {
            assert_eq!(weight(&spec(value.clone())), expected, "{value}");
        }
    }

    #[test]
    fn ports_collide_on_the_same_address_or_on_all() {
        let ports = |address: &str, port: i32| {
            let port = json!({"containerPort": 80, "hostPort": port, "hostIP": address});
            host_ports(&spec(json!({"containers": [{"name": "c", "ports": [port]}]})))
        };
        let meet = |a: &BTreeSet<HostPort>, b: &BTreeSet<HostPort>| collide(a, b.iter());
        assert!(meet(&ports("", 80), &ports("10.0.0.1", 80)));
        assert!(meet(&ports("0.0.0.0", 80), &ports("10.0.0.1", 80)));
        assert!(!meet(&ports("10.0.0.2", 80), &ports("10.0.0.1", 80)));
        assert!(!meet(&ports("", 80), &ports("", 81)));
        assert!(ports("", 0).is_empty());
    }
}
