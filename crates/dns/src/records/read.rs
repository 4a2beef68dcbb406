//! What of Services, EndpointSlices and Pods matters to names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{self, EndpointPort};
use serde::Deserialize;
use store::KeyValue;

/// The label by which a slice names its Service (`k8s.io/api/discovery/v1`, `LabelServiceName`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Phases in which a pod's address is its own; in all others the address may be another pod's by now.
const PHASES: [&str; 2] = ["Pending", "Running"];

/// What a Service's own object says of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spec {
    /// It has addresses of its own.
    Own(Vec<IpAddr>, Vec<Port>),
    /// Its names are its endpoints'.
    Headless,
    /// It stands for a name elsewhere, if that is one.
    External(Option<Name>),
}

/// A port that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub name: Box<str>,
    /// In small letters, as names have it.
    pub protocol: &'static str,
    pub number: u16,
}

/// An EndpointSlice: whose, under which ports, and where. Only endpoints that are ready are in it: those of a Service with
/// `publishNotReadyAddresses` are marked as ready by the controller (`discovery/v1`, `EndpointConditions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    pub service: Box<str>,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

/// A ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub address: IpAddr,
    /// Its name below its Service's: its host name, else its address with dashes (as CoreDNS has it).
    pub name: Box<str>,
    pub node: Option<Arc<str>>,
}

/// Where a pod is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pod {
    pub addresses: Vec<IpAddr>,
    /// Whether its address is its host's, and others' as well.
    pub on_host: bool,
}

impl Spec {
    /// Nothing of a Service that can't have a name.
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return Some(Spec::External(spec.external_name.as_deref().and_then(alias)));
        }
        let listed = spec.cluster_ips.iter().flatten();
        let first = spec.cluster_ip.iter().filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty));
        let texts: Vec<&String> = listed.chain(first).collect();
        if texts.iter().any(|text| *text == "None") {
            return Some(Spec::Headless);
        }
        let addresses = texts.iter().filter_map(|text| text.parse().ok()).collect();
        Some(Spec::Own(addresses, spec.ports.iter().flatten().filter_map(Port::of_service).collect()))
    }
}

/// A name to stand for. An address is none: an alias can't lead there (`core/v1`, `ServiceSpec.externalName`).
fn alias(text: &str) -> Option<Name> {
    let text = text.trim_end_matches('.');
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

impl Port {
    fn of_service(port: &ServicePort) -> Option<Self> {
        Self::of(port.name.as_deref(), port.protocol.as_deref(), port.port)
    }

    fn of_slice(port: &EndpointPort) -> Option<Self> {
        Self::of(port.name.as_deref(), port.protocol.as_deref(), port.port?)
    }

    fn of(name: Option<&str>, protocol: Option<&str>, number: i32) -> Option<Self> {
        let name = name.filter(|name| !name.is_empty())?;
        let protocol = match protocol.unwrap_or("TCP") {
            "TCP" => "tcp",
            "UDP" => "udp",
            "SCTP" => "sctp",
            _ => return None,
        };
        Some(Port { name: name.into(), protocol, number: u16::try_from(number).ok()? })
    }
}

impl Slice {
    /// Nothing if it is no Service's.
    pub fn of(slice: &v1::EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.as_str().into();
        let ports = slice.ports.iter().flatten().filter_map(Port::of_slice).collect();
        let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            // Beyond the first address none has a meaning (`discovery/v1`, `Endpoint`).
            let address = endpoint.addresses.first()?.parse().ok()?;
            let named = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
            let name = named.map_or_else(|| dashed(address), str::to_owned).into();
            let node = endpoint.node_name.as_deref().map(objects::shared_text);
            Some(Endpoint { address, name, node }).filter(|_| is_ready.unwrap_or(true))
        });
        Some(Slice { service, ports, endpoints: endpoints.collect() })
    }
}

impl Pod {
    /// What of a stored pod counts; one that can't be read, or has ended, is nowhere.
    pub fn read(kv: &KeyValue) -> Self {
        let stored: Stored = serde_json::from_slice(&kv.value.bytes()).unwrap_or_default();
        let is_there = stored.status.phase.as_deref().is_none_or(|phase| PHASES.contains(&phase));
        let StoredStatus { pod_ip, pod_ips, .. } = stored.status;
        let mut addresses: Vec<IpAddr> = pod_ips
            .into_iter()
            .map(|entry| entry.ip)
            .chain(pod_ip)
            .filter_map(|ip| ip.parse().ok())
            .collect();
        addresses.sort();
        addresses.dedup();
        if !is_there {
            addresses.clear();
        }
        Pod { addresses, on_host: stored.spec.host_network }
    }
}

/// An address as a label of a name.
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a label stands for.
pub(super) fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}

/// All endpoints of a Service's slices, each address and name once, in the order of the addresses.
pub(super) fn merged(slices: &BTreeMap<bytes::Bytes, Slice>) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> =
        slices.values().flat_map(|slice| slice.endpoints.iter().cloned()).collect();
    endpoints.sort();
    endpoints.dedup_by(|a, b| (a.address, &a.name) == (b.address, &b.name));
    endpoints
}

/// What of a stored pod is looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Stored {
    spec: StoredSpec,
    status: StoredStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StoredSpec {
    host_network: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StoredStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Deserialize)]
struct PodIp {
    ip: String,
}
