//! The Service `kubernetes`: behind it stand the control plane's hosts.

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

/// The namespace of the service.
pub const NAMESPACE: &str = "default";
/// The name of the service, its Endpoints and its EndpointSlice.
pub const NAME: &str = "kubernetes";
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Where the API listens unless configured otherwise.
pub const PORT: u16 = 6443;

/// Keeps the endpoints of the API's own service.
pub(crate) struct ApiService;

impl Controller for ApiService {
    fn name(&self) -> &'static str {
        "api-service"
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
        watches.index::<By<Members>>();
    }

    fn all(&self, _: &View, due: &mut Due<'_>) {
        due.now(NAMESPACE, NAME);
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let ours = |metadata: &ObjectMeta| {
            metadata.namespace.as_deref() == Some(NAMESPACE) && metadata.name.as_deref() == Some(NAME)
        };
        let is_ours = change.of::<Service>().and_then(latest).is_some_and(|service| ours(&service.metadata))
            || change.of::<Endpoints>().and_then(latest).is_some_and(|endpoints| ours(&endpoints.metadata))
            || change.of::<EndpointSlice>().and_then(latest).is_some_and(|slice| ours(&slice.metadata));
        if is_ours || change.of::<Node>().is_some_and(|change| moves(view, change)) {
            due.now(NAMESPACE, NAME);
        }
    }

    fn reconcile(&self, view: &View, _: &Key, _: &Moment<'_>) -> Plan {
        reconcile(view)
    }
}

/// Brings the endpoints of the API's own service up to date: the hosts of the control plane that are ready.
fn reconcile(view: &View) -> Plan {
    let mut plan = Plan::default();
    if view.table::<Service>().get(NAMESPACE, NAME).is_none() || !view.is_open(NAMESPACE) {
        return plan;
    }
    let addresses = addresses(view);
    if addresses.is_empty() {
        // While nobody is known to be ready, those of before are the better guess.
        return plan;
    }
    update_endpoints(view, &addresses, &mut plan);
    update_slice(view, &addresses, &mut plan);
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

fn addresses(view: &View) -> Vec<IpAddr> {
    // A cluster whose hosts don't say what they are is one where every host is of the control plane.
    let members = view.by::<Members>(if has_members(view) { MEMBER } else { OTHER });
    let mut list: Vec<IpAddr> = members.filter_map(|node| address(node)).collect();
    list.sort();
    list
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

fn update_endpoints(view: &View, addresses: &[IpAddr], plan: &mut Plan) {
    let subset = EndpointSubset {
        addresses: Some(
            addresses.iter().map(|ip| EndpointAddress { ip: ip.to_string(), ..Default::default() }).collect(),
        ),
        not_ready_addresses: None,
        ports: Some(vec![EndpointPort {
            name: Some("https".into()),
            port: view.api_port().into(),
            protocol: Some("TCP".into()),
            app_protocol: None,
        }]),
    };
    let subsets = vec![subset];
    let labels =
        || BTreeMap::from([("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned())]);
    match view.table::<Endpoints>().get(NAMESPACE, NAME) {
        None => {
            let endpoints = Endpoints { metadata: metadata(labels()), subsets: Some(subsets) };
            plan.actions.extend(create(&endpoints).map(Into::into));
        }
        Some(existing) if existing.subsets.as_deref() != Some(subsets.as_slice()) => {
            plan.write(merge_this(existing.as_ref(), "", json!({"subsets": subsets})));
        }
        Some(_) => {}
    }
}

fn update_slice(view: &View, addresses: &[IpAddr], plan: &mut Plan) {
    let endpoint = |ip: &IpAddr| discovery::Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..discovery::Endpoint::default()
    };
    let endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
    let ports = vec![discovery::EndpointPort {
        name: Some("https".into()),
        port: Some(view.api_port().into()),
        protocol: Some("TCP".into()),
        app_protocol: None,
    }];
    match view.table::<EndpointSlice>().get(NAMESPACE, NAME) {
        None => {
            let slice = EndpointSlice {
                metadata: metadata(BTreeMap::from([(SERVICE_NAME.to_owned(), NAME.to_owned())])),
                address_type: if addresses[0].is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
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

fn metadata(labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}
