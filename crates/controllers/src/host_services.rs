//! The Services that the hosts themselves serve: `kubernetes`, behind which stand the control plane's hosts, and
//! `kube-dns`, which every host of this program answers for by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::Change;
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency, both, latest};
use crate::endpoints::SERVICE_NAME;
use crate::index::{By, Group};
use crate::kept::Node;
use crate::key::Key;
use crate::plan::{Plan, create, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Where the API listens unless configured otherwise.
pub const PORT: u16 = 6443;
/// Where DNS is listened for: resolvers know no other port.
const DNS_PORT: u16 = 53;

/// A Service of the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The API.
    Api,
    /// The cluster's DNS.
    Dns,
}

impl Known {
    const ALL: [Known; 2] = [Known::Api, Known::Dns];

    /// Its namespace and name.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Known::Api => ("default", "kubernetes"),
            Known::Dns => ("kube-system", "kube-dns"),
        }
    }

    fn at(namespace: &str, name: &str) -> Option<Self> {
        Known::ALL.into_iter().find(|known| known.place() == (namespace, name))
    }

    /// Its ports: name, protocol and number.
    fn ports(self, view: &View) -> Vec<(&'static str, &'static str, u16)> {
        match self {
            Known::Api => vec![("https", "TCP", view.api_port())],
            Known::Dns => vec![("dns", "UDP", DNS_PORT), ("dns-tcp", "TCP", DNS_PORT)],
        }
    }

    /// Where it is served, with the node where a proxy has to know it, in order.
    fn addresses(self, view: &View) -> Vec<(IpAddr, Option<String>)> {
        let mut list: Vec<_> = match self {
            Known::Api => members(view).filter_map(|node| Some((address(node)?, None))).collect(),
            Known::Dns => {
                let nodes = view.table::<Node>().iter().filter(|node| is_of_ours(node));
                nodes.filter_map(|node| Some((address(node)?, node.metadata.name.clone()))).collect()
            }
        };
        list.sort();
        list
    }
}

/// Keeps the endpoints of the hosts' own services.
pub(crate) struct HostServices;

impl Controller for HostServices {
    fn name(&self) -> &'static str {
        "host-services"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Traffic
    }

    fn stays(&self) -> bool {
        true
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Service>();
        watches.table::<Endpoints>();
        watches.table::<EndpointSlice>();
        watches.table::<Node>();
        watches.index::<By<Members>>();
    }

    fn all(&self, _: &View, due: &mut Due<'_>) {
        for (namespace, name) in Known::ALL.map(Known::place) {
            due.now(namespace, name);
        }
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let of = |metadata: &ObjectMeta| {
            let ObjectMeta { namespace, name, .. } = metadata;
            Known::at(namespace.as_deref()?, name.as_deref()?)
        };
        let touched = [
            change.of::<Service>().and_then(latest).and_then(|service| of(&service.metadata)),
            change.of::<Endpoints>().and_then(latest).and_then(|endpoints| of(&endpoints.metadata)),
            change.of::<EndpointSlice>().and_then(latest).and_then(|slice| of(&slice.metadata)),
            change.of::<Node>().filter(|change| moves(view, change)).map(|_| Known::Api),
            change.of::<Node>().filter(|change| moves_dns(change)).map(|_| Known::Dns),
        ];
        for (namespace, name) in touched.into_iter().flatten().map(Known::place) {
            due.now(namespace, name);
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let known = Known::at(key.namespace(), key.name());
        known.map(|known| reconcile(view, known)).unwrap_or_default()
    }
}

/// Brings the endpoints of a service up to date: the hosts that serve it and are ready.
fn reconcile(view: &View, known: Known) -> Plan {
    let mut plan = Plan::default();
    let (namespace, name) = known.place();
    if view.table::<Service>().get(namespace, name).is_none() || !view.is_open(namespace) {
        return plan;
    }
    let addresses = known.addresses(view);
    if addresses.is_empty() {
        // While nobody is known to be ready, those of before are the better guess.
        return plan;
    }
    update_endpoints(view, known, &addresses, &mut plan);
    update_slice(view, known, &addresses, &mut plan);
    plan
}

/// Whether a change of a node may change the endpoints. A sign of life doesn't, nor does a worker where others are known to be
/// the control plane.
fn moves(view: &View, change: &Change<Node>) -> bool {
    let standing = |node: &Option<Arc<Node>>| node.as_deref().map(|node| (is_member(node), address(node)));
    let (old, new) = (standing(&change.old), standing(&change.new));
    let counts = both(change).any(|node| is_member(node)) || !has_members(view);
    counts && old != new
}

/// Whether a change of a node may change who answers for names.
fn moves_dns(change: &Change<Node>) -> bool {
    let standing =
        |node: &Option<Arc<Node>>| node.as_deref().filter(|node| is_of_ours(node)).and_then(address);
    standing(&change.old) != standing(&change.new)
}

/// Whether a node's host is one of this program: others don't answer for names.
fn is_of_ours(node: &Node) -> bool {
    node.metadata.annotations.as_deref().is_some_and(|all| all.contains_key(objects::HEARTBEATS))
}

/// The nodes of the control plane.
fn members(view: &View) -> impl Iterator<Item = &Arc<Node>> {
    // A cluster whose hosts don't say what they are is one where every host is of the control plane.
    view.by::<Members>(if has_members(view) { MEMBER } else { OTHER })
}

/// Nodes by whether they say that they are of the control plane.
struct Members;

const MEMBER: &str = "member";
const OTHER: &str = "other";

impl Group for Members {
    type Of = Node;

    fn values(node: &Node, each: &mut dyn FnMut(&str)) {
        each(if is_member(node) { MEMBER } else { OTHER });
    }
}

fn has_members(view: &View) -> bool {
    view.index::<By<Members>>().is_some_and(|index| index.count(MEMBER) > 0)
}

fn is_member(node: &Node) -> bool {
    node.metadata.labels.as_deref().is_some_and(|labels| labels.contains_key(CONTROL_PLANE))
}

/// Where a node serves the API, if it is ready.
fn address(node: &Node) -> Option<IpAddr> {
    is_ready(node).then(|| internal_ip(node)).flatten()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn internal_ip(node: &Node) -> Option<IpAddr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().filter(|a| a.type_ == "InternalIP").find_map(|address| address.address.parse().ok())
}

fn update_endpoints(view: &View, known: Known, addresses: &[(IpAddr, Option<String>)], plan: &mut Plan) {
    let (namespace, name) = known.place();
    let port = |(name, protocol, number): (&str, &str, u16)| EndpointPort {
        name: Some(name.into()),
        port: number.into(),
        protocol: Some(protocol.into()),
        app_protocol: None,
    };
    let address = |(ip, node): &(IpAddr, Option<String>)| EndpointAddress {
        ip: ip.to_string(),
        node_name: node.clone(),
        ..EndpointAddress::default()
    };
    let subsets = vec![EndpointSubset {
        addresses: Some(addresses.iter().map(address).collect()),
        not_ready_addresses: None,
        ports: Some(known.ports(view).into_iter().map(port).collect()),
    }];
    let labels = [("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned())];
    match view.table::<Endpoints>().get(namespace, name) {
        None => {
            let metadata = metadata(known, labels.into());
            let endpoints = Endpoints { metadata, subsets: Some(subsets) };
            plan.actions.extend(create(&endpoints).map(Into::into));
        }
        Some(existing) if existing.subsets.as_deref() != Some(subsets.as_slice()) => {
            plan.write(merge_this(existing.as_ref(), "", json!({"subsets": subsets})));
        }
        Some(_) => {}
    }
}

fn update_slice(view: &View, known: Known, addresses: &[(IpAddr, Option<String>)], plan: &mut Plan) {
    let (namespace, name) = known.place();
    let endpoint = |(ip, node): &(IpAddr, Option<String>)| discovery::Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        node_name: node.clone(),
        ..discovery::Endpoint::default()
    };
    let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
    let port = |(name, protocol, number): (&str, &str, u16)| discovery::EndpointPort {
        name: Some(name.into()),
        port: Some(number.into()),
        protocol: Some(protocol.into()),
        app_protocol: None,
    };
    let ports: Vec<_> = known.ports(view).into_iter().map(port).collect();
    match view.table::<EndpointSlice>().get(namespace, name) {
        None => {
            let slice = EndpointSlice {
                metadata: metadata(known, [(SERVICE_NAME.to_owned(), name.to_owned())].into()),
                address_type: if addresses[0].0.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
                endpoints: Some(endpoints),
                ports: Some(ports),
            };
            plan.actions.extend(create(&slice).map(Into::into));
        }
        Some(existing)
            if existing.endpoints.as_deref() != Some(endpoints.as_slice())
                || existing.ports.as_deref() != Some(ports.as_slice()) =>
        {
            plan.write(merge_this(existing.as_ref(), "", json!({"endpoints": endpoints, "ports": ports})));
        }
        Some(_) => {}
    }
}

fn metadata(known: Known, labels: BTreeMap<String, String>) -> ObjectMeta {
    let (namespace, name) = known.place();
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}
