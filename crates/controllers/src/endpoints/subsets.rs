//! The Endpoints object: the older form, kept for those who still read it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::pods::{Behind, Port};
use crate::plan::{Plan, create, merge_this};
use crate::view::View;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most addresses of one Endpoints object; upstream cuts there too.
const MOST: usize = 1000;

/// Whether the controller made this object.
pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == CONTROLLER)
}

pub(super) fn update(view: &View, service: &Service, spec: &ServiceSpec, behind: &[Behind], plan: &mut Plan) {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels.remove(HEADLESS);
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    let (namespace, name) = (service.metadata.namespace.clone(), service.metadata.name.clone());
    let subsets = subsets(spec, behind);
    let existing = view
        .table::<Endpoints>()
        .get(namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
    let Some(existing) = existing else {
        let metadata = ObjectMeta { name, namespace, labels: Some(labels), ..ObjectMeta::default() };
        let subsets = (!subsets.is_empty()).then_some(subsets);
        plan.actions.extend(create(&Endpoints { metadata, subsets }).map(Into::into));
        return;
    };
    let same_labels = existing.metadata.labels.as_ref() == Some(&labels);
    if same_labels && existing.subsets.as_deref().unwrap_or_default() == subsets.as_slice() {
        return;
    }
    let mut patch = json!({"subsets": if subsets.is_empty() { Value::Null } else { json!(subsets) }});
    if !same_labels {
        let mut wanted = json!(labels);
        for gone in existing.metadata.labels.iter().flatten().filter(|(key, _)| !labels.contains_key(*key)) {
            wanted[gone.0] = Value::Null;
        }
        patch["metadata"]["labels"] = wanted;
    }
    plan.write(merge_this(existing.as_ref(), "", patch));
}

/// One subset for each list of ports, as upstream packs them; the pods that serve first.
fn subsets(spec: &ServiceSpec, behind: &[Behind]) -> Vec<EndpointSubset> {
    let publish = spec.publish_not_ready_addresses == Some(true);
    let mut groups: BTreeMap<Vec<Port>, BTreeMap<IpAddr, &Behind>> = BTreeMap::new();
    for pod in behind.iter().filter(|pod| publish || !pod.terminating).take(MOST) {
        let mut ports = pod.ports.clone();
        ports.sort();
        if let Some(address) = pod.addresses.first() {
            groups.entry(ports).or_default().insert(*address, pod);
        }
    }
    let subset = |(ports, pods): (Vec<Port>, BTreeMap<IpAddr, &Behind>)| {
        let (ready, not_ready): (Vec<_>, Vec<_>) = pods.into_iter().partition(|(_, pod)| pod.ready);
        let list = |pods: Vec<(IpAddr, &Behind)>| {
            let list: Vec<EndpointAddress> = pods.into_iter().map(|(ip, pod)| address(&ip, pod)).collect();
            (!list.is_empty()).then_some(list)
        };
        EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(not_ready),
            ports: Some(ports.into_iter().map(subset_port).collect()).filter(|p: &Vec<_>| !p.is_empty()),
        }
    };
    groups.into_iter().map(subset).collect()
}

fn address(ip: &IpAddr, pod: &Behind) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_string(),
        hostname: pod.hostname.clone(),
        node_name: pod.node.clone(),
        target_ref: Some(pod.target.clone()),
    }
}

fn subset_port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}
