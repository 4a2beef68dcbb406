//! Endpoints that were made by hand, as EndpointSlices: everybody who sends to a service reads those.
//!
//! Follows `pkg/controller/endpointslicemirroring`: one slice for each address family and list of ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use machinery::Object;
use objects::{Occurrence, Write};
use serde_json::{Value, json};

use super::pods::Port;
use super::slices::{family_of, same_ports, slice_port};
use super::{MANAGED_BY, SERVICE_NAME};
use crate::plan::{Action, Note, Plan, delete, merge_this};
use crate::view::View;

/// What stands in the label of the slices kept here.
const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER_ELECTION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations of Endpoints that say something about them alone.
const THEIR_OWN: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// The most addresses of a subset that are mirrored, ready ones first (`--mirroring-max-endpoints-per-subset`).
const MOST: usize = 1000;

type Group = (&'static str, Vec<Port>);

/// Brings the slices that mirror the Endpoints of a name up to date.
pub(super) fn update(view: &View, namespace: &str, name: &str, plan: &mut Plan) {
    let mut existing: Vec<&Arc<EndpointSlice>> = super::slices_of(view, namespace, name, MIRROR).collect();
    let source =
        view.table::<Endpoints>().get(namespace, name).filter(|endpoints| is_mirrored(view, endpoints));
    let (groups, left_out) = source.map_or_else(Default::default, |endpoints| groups(endpoints));
    let mut writes: Vec<Action> = Vec::new();
    for ((family, ports), endpoints) in groups {
        let Some(source) = source else { break };
        let own = existing.iter().position(|s| s.address_type == family && same_ports(s, &ports));
        match own.map(|at| existing.swap_remove(at)) {
            Some(slice) => writes.extend(change(source, slice, &endpoints).map(Action::from)),
            None => writes.extend(create(source, family, &ports, endpoints).map(Action::from)),
        }
    }
    if let (Some(source), Some(first)) = (source, writes.first_mut().filter(|_| left_out > 0)) {
        let message = format!(
            "A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {left_out} addresses \
             were skipped"
        );
        let told = Occurrence::of(source.as_ref(), true, "TooManyAddressesToMirror", message);
        first.done.push(Note::Event(told));
    }
    plan.actions.append(&mut writes);
    for slice in existing {
        plan.write(delete(slice.as_ref()));
    }
}

/// Whether Endpoints are mirrored: those of a service that selects no pods, and that don't say otherwise.
fn is_mirrored(view: &View, endpoints: &Endpoints) -> bool {
    let metadata = &endpoints.metadata;
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let skips = metadata.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|skip| skip == "true");
    let elects = metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER_ELECTION));
    let selects = |service: &Service| {
        service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty())
    };
    !skips
        && !elects
        && metadata.deletion_timestamp.is_none()
        && view.is_open(namespace)
        && view.table::<Service>().get(namespace, name).is_some_and(|service| !selects(service))
}

/// The endpoints by what those of a slice have in common, and how many addresses were left out.
fn groups(source: &Endpoints) -> (BTreeMap<Group, Vec<Endpoint>>, usize) {
    let mut groups: BTreeMap<Group, BTreeMap<IpAddr, Endpoint>> = BTreeMap::new();
    let mut left_out = 0;
    for subset in source.subsets.iter().flatten() {
        let mut ports: Vec<Port> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: port.port,
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        ports.sort();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)));
        left_out += all.clone().count().saturating_sub(MOST);
        for (address, ready) in all.take(MOST) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let group = groups.entry((family_of(&ip), ports.clone())).or_default();
            group.entry(ip).or_insert_with(|| endpoint(address, &ip, ready));
        }
    }
    // Subsets with the same ports are one slice, which has a limit of its own.
    let cut = |endpoints: BTreeMap<IpAddr, Endpoint>| endpoints.into_values().take(MOST).collect();
    (groups.into_iter().map(|(group, endpoints)| (group, cut(endpoints))).collect(), left_out)
}

fn endpoint(address: &EndpointAddress, ip: &IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn labels(source: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = source.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), source.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MIRROR.into());
    labels
}

fn annotations(source: &Endpoints) -> BTreeMap<String, String> {
    let mut annotations = source.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !THEIR_OWN.contains(&name.as_str()));
    annotations
}

fn create(
    source: &Endpoints,
    family: &'static str,
    ports: &[Port],
    endpoints: Vec<Endpoint>,
) -> Option<Write> {
    let name = source.metadata.name.clone().unwrap_or_default();
    let slice = EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: source.metadata.namespace.clone(),
            labels: Some(labels(source)),
            annotations: Some(annotations(source)).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Endpoints".into(),
                name,
                uid: source.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        ports: Some(ports.iter().map(slice_port).collect()),
        endpoints: Some(endpoints),
    };
    serde_json::to_value(&slice).ok().and_then(Object::from_value).map(Write::Create)
}

fn change(source: &Endpoints, slice: &EndpointSlice, endpoints: &[Endpoint]) -> Option<Write> {
    let mut patch = json!({});
    if slice.endpoints.as_deref().unwrap_or_default() != endpoints {
        patch["endpoints"] = json!(endpoints);
    }
    for (field, is, wanted) in [
        ("labels", &slice.metadata.labels, labels(source)),
        ("annotations", &slice.metadata.annotations, annotations(source)),
    ] {
        let is = is.clone().unwrap_or_default();
        if is != wanted {
            let gone = is.keys().filter(|name| !wanted.contains_key(*name));
            let gone: Vec<String> = gone.cloned().collect();
            patch["metadata"][field] = json!(wanted);
            for name in gone {
                patch["metadata"][field][name] = Value::Null;
            }
        }
    }
    patch.as_object().is_some_and(|patch| !patch.is_empty()).then(|| merge_this(slice, "", patch))
}
