//! Endpoints and EndpointSlices: which pods stand behind a Service.
//!
//! Follows `pkg/controller/endpoint`, `pkg/controller/endpointslice` and the EndpointSlice API (KEP-752):
//! conditions, named target ports, one list of ports a slice.

mod mirror;
mod pods;
mod slices;
mod subsets;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::plan::{Plan, delete};
use crate::view::View;

/// The label that names a slice's service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What stands there for the slices kept here.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Brings the Endpoints and EndpointSlices of one Service up to date.
pub fn reconcile(view: &View, namespace: &str, name: &str) -> Plan {
    let mut plan = Plan::default();
    mirror::update(view, namespace, name, &mut plan);
    let existing: Vec<_> = slices_of(view, namespace, name, CONTROLLER).collect();
    let Some(service) = view.services.get(namespace, name) else {
        for slice in existing {
            plan.write(delete(slice.as_ref()));
        }
        if let Some(endpoints) = view.endpoints.get(namespace, name).filter(|e| subsets::is_ours(e)) {
            plan.write(delete(endpoints.as_ref()));
        }
        return plan;
    };
    let Some(spec) = service.spec.as_ref().filter(|spec| {
        spec.selector.as_ref().is_some_and(|s| !s.is_empty()) && spec.type_.as_deref() != Some("ExternalName")
    }) else {
        return plan;
    };
    if service.metadata.deletion_timestamp.is_some() || !view.is_open(namespace) {
        return plan;
    }
    let behind = pods::behind(view, service, spec);
    slices::update(service, spec, &behind, &existing, &mut plan);
    subsets::update(view, service, spec, &behind, &mut plan);
    plan
}

/// The slices of a service that one manager keeps.
fn slices_of<'a>(
    view: &'a View,
    namespace: &'a str,
    name: &'a str,
    manager: &'a str,
) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
    view.slices.in_namespace(namespace).filter(move |slice| {
        let label = |key: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        label(SERVICE_NAME).is_some_and(|service| service == name)
            && label(MANAGED_BY).is_some_and(|known| known == manager)
            && slice.metadata.deletion_timestamp.is_none()
    })
}

/// Deletes the Endpoints of a service that was deleted, whoever made them, as upstream does.
pub fn clean_up(view: &View, namespace: &str, name: &str) -> Plan {
    let mut plan = Plan::default();
    if view.services.get(namespace, name).is_none()
        && let Some(endpoints) = view.endpoints.get(namespace, name)
    {
        plan.write(delete(endpoints.as_ref()));
    }
    plan
}

/// Whether a service selects pods with these labels.
pub fn selects(service: &Service, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty()
            && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}
