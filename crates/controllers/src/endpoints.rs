//! Endpoints and EndpointSlices: which pods stand behind a Service.
//!
//! Follows `pkg/controller/endpoint`, `pkg/controller/endpointslice` and the EndpointSlice API (KEP-752):
//! conditions, named target ports, one list of ports a slice.

mod pods;
mod slices;
mod subsets;

use k8s_openapi::api::core::v1::Service;

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
    let existing = view.slices.in_namespace(namespace).filter(|slice| {
        let label = |key: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        label(SERVICE_NAME).is_some_and(|service| service == name)
            && label(MANAGED_BY).is_some_and(|manager| manager == CONTROLLER)
    });
    let existing: Vec<_> = existing.filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect();
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

/// Whether a service selects pods with these labels.
pub fn selects(service: &Service, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty()
            && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}
