//! The pods behind a service, each with the ports that it serves there.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use objects::Pod;

use super::Services;
use crate::index::{Labelled, with_labels};
use crate::kept::Node;
use crate::pods::{is_finished, is_ready};
use crate::selectors::Selects;
use crate::view::View;

/// A port behind a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Port {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub app_protocol: Option<String>,
}

/// A pod behind a service.
#[derive(Debug, Clone)]
pub(super) struct Behind {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
    pub serving: bool,
    pub terminating: bool,
    pub ready: bool,
    pub node: Option<String>,
    pub zone: Option<String>,
    pub hostname: Option<String>,
    pub target: ObjectReference,
}

/// The pods that a service selects and that have an address and have not ended, in the order of their names.
pub(super) fn behind(view: &View, service: &Service, spec: &ServiceSpec) -> Vec<Behind> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let Some(selector) = Services::required(service) else { return Vec::new() };
    let selected = with_labels::<Labelled<Pod>>(view, namespace, selector)
        .filter(|pod| Services::selects(service, pod.metadata.labels.as_deref()) && !is_finished(pod));
    selected.filter_map(|pod| one(view, service, spec, pod)).collect()
}

fn one(view: &View, service: &Service, spec: &ServiceSpec, pod: &Pod) -> Option<Behind> {
    let addresses = pod.status.as_ref().map(|status| status.addresses.to_vec()).unwrap_or_default();
    if addresses.is_empty() {
        return None;
    }
    let ports: Vec<Port> =
        spec.ports.iter().flatten().filter_map(|service_port| resolve(service_port, pod)).collect();
    if ports.is_empty() && spec.ports.iter().flatten().next().is_some() {
        return None;
    }
    let (serving, terminating) = (is_ready(pod), pod.metadata.deletion_timestamp.is_some());
    let publish = spec.publish_not_ready_addresses == Some(true);
    let node = pod.node().map(str::to_owned);
    let labels = node
        .as_deref()
        .and_then(|node| view.table::<Node>().get("", node))
        .map(|n| n.metadata.labels.clone());
    let zone = labels.flatten().and_then(|labels| labels.get(super::hints::ZONE).cloned());
    let pod_spec = pod.spec.as_ref();
    let own_domain = pod_spec.and_then(|spec| spec.subdomain.as_ref()) == service.metadata.name.as_ref();
    Some(Behind {
        addresses,
        ports,
        serving: serving || publish,
        terminating,
        ready: publish || (serving && !terminating),
        node,
        zone,
        hostname: pod_spec.and_then(|s| s.hostname.clone()).filter(|name| own_domain && !name.is_empty()),
        target: ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.as_deref().map(str::to_owned),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        },
    })
}

/// The pod's port that a service's port means: a number, or the name of a container's port.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) if name.is_empty() => port.port,
        Some(IntOrString::String(name)) => named(pod, name, &protocol)?,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: number,
        app_protocol: port.app_protocol.clone(),
    })
}

fn named(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let is_meant = |port: &&ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol
    };
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports.find(is_meant).map(|port| port.container_port)
}
