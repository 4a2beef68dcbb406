//! EndpointSlices: an endpoint stays in the slice it is in, new ones fill slices with room, and what is
//! left makes new slices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use machinery::Object;
use objects::{Occurrence, Write};
use serde_json::json;

use super::pods::{Behind, Port};
use super::{CONTROLLER, MANAGED_BY, SERVICE_NAME, hints};
use crate::plan::{Action, Note, Plan, delete, merge_this};
use crate::view::View;

/// The most endpoints of one slice, as upstream (`--max-endpoints-per-slice`): only slices that changed are written and
/// sent to every host, so a change costs no more than this, however many endpoints there are.
const MOST: usize = 100;
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What all endpoints of a slice have in common.
type Group = (&'static str, Vec<Port>);

pub(super) fn update(
    view: &View,
    service: &Service,
    spec: &ServiceSpec,
    behind: &[Behind],
    existing: &[&Arc<EndpointSlice>],
    plan: &mut Plan,
) {
    let families = families(spec);
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in &families {
        for pod in behind {
            if let Some(address) = pod.addresses.iter().find(|address| family_of(address) == *family) {
                let mut ports = pod.ports.clone();
                ports.sort();
                groups.entry((*family, ports)).or_default().push(endpoint(pod, address));
            }
        }
    }
    let distribution = hints::distribution(service, spec);
    let told: Vec<Occurrence> = families
        .iter()
        .filter_map(|family| {
            let own = groups.iter_mut().filter(|((of, _), _)| of == family);
            let mut endpoints: Vec<&mut Endpoint> = own.flat_map(|(_, endpoints)| endpoints).collect();
            hints::give(view, service, &distribution, family, &mut endpoints, existing)
        })
        .collect();
    let known: BTreeSet<String> = existing
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| is_ready(endpoint))
        .filter_map(target_name)
        .collect();
    let labels = labels(service, spec);
    let mut free: Vec<&Arc<EndpointSlice>> = existing.to_vec();
    if groups.is_empty() {
        // A service without endpoints keeps an empty slice, so that its readers can tell it from unknown.
        groups.insert((families.first().copied().unwrap_or("IPv4"), Vec::new()), Vec::new());
    }
    for ((family, ports), endpoints) in groups {
        let (own, other): (Vec<_>, Vec<_>) = free.into_iter().partition(|slice| {
            slice.address_type == family && (endpoints.is_empty() || same_ports(slice, &ports))
        });
        free = other;
        let group = Wanted { service, labels: &labels, family, ports: &ports, known: &known };
        let kept = group.fill(endpoints, own, plan);
        free.extend(kept);
    }
    for slice in free {
        plan.write(delete(slice.as_ref()));
    }
    // Told once for what is written, and not for every look.
    if let Some(first) = plan.actions.first_mut() {
        first.done.extend(told.into_iter().map(Note::Event));
    }
}

struct Wanted<'a> {
    service: &'a Service,
    labels: &'a BTreeMap<String, String>,
    family: &'static str,
    ports: &'a [Port],
    known: &'a BTreeSet<String>,
}

impl Wanted<'_> {
    /// Spreads endpoints over the group's slices; returns the slices that are not needed any more.
    fn fill<'a>(
        &self,
        endpoints: Vec<Endpoint>,
        own: Vec<&'a Arc<EndpointSlice>>,
        plan: &mut Plan,
    ) -> Vec<&'a Arc<EndpointSlice>> {
        let mut left: BTreeMap<String, Endpoint> = endpoints
            .into_iter()
            .map(|endpoint| (target_name(&endpoint).unwrap_or_default(), endpoint))
            .collect();
        let mut filled: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = own
            .into_iter()
            .map(|slice| {
                let current = slice.endpoints.iter().flatten();
                let stay = current.filter_map(|endpoint| left.remove(&target_name(endpoint)?));
                (slice, stay.take(MOST).collect())
            })
            .collect();
        for (_, list) in &mut filled {
            while list.len() < MOST {
                let Some((_, endpoint)) = left.pop_first() else { break };
                list.push(endpoint);
            }
        }
        while !left.is_empty() {
            let mut list = Vec::new();
            while list.len() < MOST {
                let Some((_, endpoint)) = left.pop_first() else { break };
                list.push(endpoint);
            }
            self.create(list, plan);
        }
        if filled.is_empty() && plan.actions.is_empty() && self.ports.is_empty() {
            self.create(Vec::new(), plan);
        }
        let mut unused = Vec::new();
        let total = filled.len();
        for (at, (slice, list)) in filled.into_iter().enumerate() {
            if list.is_empty() && (at > 0 || total > 1 || !self.ports.is_empty()) {
                unused.push(slice);
            } else {
                self.update(slice, list, plan);
            }
        }
        unused
    }

    fn update(&self, slice: &EndpointSlice, endpoints: Vec<Endpoint>, plan: &mut Plan) {
        let same_labels = slice.metadata.labels.as_ref() == Some(self.labels);
        if same_labels && slice.endpoints.as_deref().unwrap_or_default() == endpoints.as_slice() {
            return;
        }
        let mut patch = json!({"endpoints": endpoints});
        if !same_labels {
            let mut labels = json!(self.labels);
            for gone in slice.metadata.labels.iter().flatten().filter(|(k, _)| !self.labels.contains_key(*k))
            {
                labels[gone.0] = serde_json::Value::Null;
            }
            patch["metadata"]["labels"] = labels;
        }
        plan.actions.push(self.telling(merge_this(slice, "", patch).into(), &endpoints));
    }

    fn create(&self, endpoints: Vec<Endpoint>, plan: &mut Plan) {
        let metadata = &self.service.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        let slice = EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                namespace: metadata.namespace.clone(),
                labels: Some(self.labels.clone()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Service".into(),
                    name,
                    uid: metadata.uid.clone().unwrap_or_default(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            },
            address_type: self.family.to_owned(),
            ports: Some(self.ports.iter().map(slice_port).collect()),
            endpoints: Some(endpoints.clone()),
        };
        if let Some(object) = serde_json::to_value(&slice).ok().and_then(Object::from_value) {
            plan.actions.push(self.telling(Write::Create(object).into(), &endpoints));
        }
    }

    /// Tells the timeline of every endpoint that serves now and didn't before.
    fn telling(&self, mut action: Action, endpoints: &[Endpoint]) -> Action {
        let metadata = &self.service.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        for pod in endpoints.iter().filter(|endpoint| is_ready(endpoint)).filter_map(target_name) {
            if !self.known.contains(&pod) {
                action = action.telling(Note::Timeline {
                    what: "endpoint-added",
                    subject: format!("{namespace}/{}", metadata.name.as_deref().unwrap_or_default()),
                    pod: Some(format!("{namespace}/{pod}")),
                });
            }
        }
        action
    }
}

pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
}

pub(super) fn target_name(endpoint: &Endpoint) -> Option<String> {
    endpoint.target_ref.as_ref()?.name.clone()
}

fn endpoint(pod: &Behind, address: &IpAddr) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(pod.ready),
            serving: Some(pod.serving),
            terminating: Some(pod.terminating),
        }),
        hostname: pod.hostname.clone(),
        node_name: pod.node.clone(),
        zone: pod.zone.clone(),
        target_ref: Some(pod.target.clone()),
        ..Endpoint::default()
    }
}

pub(super) fn slice_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    }
}

pub(super) fn same_ports(slice: &EndpointSlice, ports: &[Port]) -> bool {
    let mut own: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: port.port.unwrap_or(0),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    own.sort();
    own == ports
}

fn labels(service: &Service, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels.remove(HEADLESS);
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

fn families(spec: &ServiceSpec) -> Vec<&'static str> {
    let named = spec.ip_families.iter().flatten().filter_map(|family| match family.as_str() {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    });
    let named: Vec<_> = named.collect();
    if !named.is_empty() {
        return named;
    }
    let address = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok());
    vec![address.as_ref().map_or("IPv4", family_of)]
}

pub(super) fn family_of(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
