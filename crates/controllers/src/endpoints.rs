//! Endpoints and EndpointSlices: which pods stand behind a Service.
//!
//! Follows `pkg/controller/endpoint`, `pkg/controller/endpointslice` and the EndpointSlice API (KEP-752):
//! conditions, named target ports, one list of ports a slice.

mod hints;
mod mirror;
mod pods;
mod slices;
mod subsets;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use objects::{Change, Pod};

use crate::controller::{Controller, Due, Moment, Urgency, both, latest};
use crate::index::{By, Group, Labelled, OnNode};
use crate::kept::Node;
use crate::key::Key;
use crate::plan::{Plan, delete};
use crate::selectors::{Selector, Selectors, Selects};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;
use hints::{Capacity, InParts};

/// The label that names a slice's service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names the program that keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What stands there for the slices kept here.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Keeps the Endpoints and EndpointSlices of services.
pub(crate) struct Services;

impl Controller for Services {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Traffic
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Service>();
        watches.table::<Endpoints>();
        watches.table::<EndpointSlice>();
        watches.table::<Node>();
        watches.index::<Capacity>();
        watches.index::<By<InParts>>();
        watches.index::<By<OnNode>>();
        watches.index::<By<Labelled<Pod>>>();
        watches.index::<By<OfService>>();
        watches.index::<Selectors<Services>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Service>().iter());
        // Slices and Endpoints whose service went while nobody looked.
        view.table::<EndpointSlice>().iter().for_each(|slice| service_of(slice, due));
        due.objects(view.table::<Endpoints>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<Service>(change);
        due.changed::<Endpoints>(change);
        change.of::<EndpointSlice>().and_then(latest).into_iter().for_each(|slice| service_of(slice, due));
        change.of::<Pod>().into_iter().flat_map(both).for_each(|pod| services_of(view, pod, due));
        if let Some(Change { old, new, .. }) = change.of::<Node>() {
            if old.as_deref().map(hints::part) != new.as_deref().map(hints::part) {
                due.objects(view.by::<InParts>(InParts::ALL));
            }
            // Where an endpoint is may be another zone from now on.
            if let Some(node) = new.as_ref().filter(|new| old.as_deref().and_then(zone_of) != zone_of(new)) {
                let on_it = view.by::<OnNode>(node.metadata.name.as_deref().unwrap_or_default());
                on_it.for_each(|pod| services_of(view, pod, due));
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name())
    }
}

impl Selects for Services {
    type Of = Service;

    fn selector(service: &Service) -> Option<Selector<'_>> {
        let selector = service.spec.as_ref()?.selector.as_ref();
        selector.filter(|labels| !labels.is_empty()).map(Selector::Labels)
    }
}

/// EndpointSlices by the service that they are of.
pub(crate) struct OfService;

impl Group for OfService {
    type Of = EndpointSlice;

    fn values(slice: &EndpointSlice, each: &mut dyn FnMut(&str)) {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        if let (Some(namespace), Some(name)) = (&slice.metadata.namespace, service) {
            each(&format!("{namespace}/{name}"));
        }
    }
}

/// Deletes what a service that was deleted leaves behind.
pub(crate) struct GoneServices;

impl Controller for GoneServices {
    fn name(&self) -> &'static str {
        "gone-service"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Traffic
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Service>();
        watches.table::<Endpoints>();
    }

    fn all(&self, _: &View, _: &mut Due<'_>) {
        // What went while nobody looked has no Service of which that is known.
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        if let Some(Change { old: Some(service), new: None, .. }) = change.of::<Service>() {
            due.object(service.as_ref());
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        clean_up(view, key.namespace(), key.name())
    }
}

/// The services that a pod stands behind are due.
fn services_of(view: &View, pod: &Pod, due: &mut Due<'_>) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let services = view.index::<Selectors<Services>>().into_iter();
    due.objects(services.flat_map(|index| index.of(namespace, pod.metadata.labels.as_deref())));
}

fn zone_of(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get(hints::ZONE)
}

/// The service of a slice is due.
fn service_of(slice: &EndpointSlice, due: &mut Due<'_>) {
    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
    if let (Some(namespace), Some(name)) = (&slice.metadata.namespace, service) {
        due.now(namespace, name);
    }
}

/// How long a service's next change waits after a look at its endpoints, for each of them: a change costs a look at all
/// of them, and while thousands of pods become ready, one look finds many.
const PAUSE: Duration = Duration::from_micros(20);

/// Brings the Endpoints and EndpointSlices of one Service up to date.
fn reconcile(view: &View, namespace: &str, name: &str) -> Plan {
    let mut plan = Plan::default();
    mirror::update(view, namespace, name, &mut plan);
    let existing: Vec<_> = slices_of(view, namespace, name, CONTROLLER).collect();
    let Some(service) = view.table::<Service>().get(namespace, name) else {
        for slice in existing {
            plan.write(delete(slice.as_ref()));
        }
        if let Some(endpoints) =
            view.table::<Endpoints>().get(namespace, name).filter(|e| subsets::is_ours(e))
        {
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
    plan.pause = PAUSE * u32::try_from(behind.len()).unwrap_or(u32::MAX);
    slices::update(view, service, spec, &behind, &existing, &mut plan);
    subsets::update(view, service, spec, &behind, &mut plan);
    plan
}

/// The slices of a service that one manager keeps.
fn slices_of<'a>(
    view: &'a View,
    namespace: &str,
    name: &str,
    manager: &'a str,
) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
    view.by::<OfService>(&format!("{namespace}/{name}")).filter(move |slice| {
        let managed_by = slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        managed_by.is_some_and(|known| known == manager) && slice.metadata.deletion_timestamp.is_none()
    })
}

/// Deletes the Endpoints of a service that was deleted, no matter who made them, as upstream does.
fn clean_up(view: &View, namespace: &str, name: &str) -> Plan {
    let mut plan = Plan::default();
    if view.table::<Service>().get(namespace, name).is_none()
        && let Some(endpoints) = view.table::<Endpoints>().get(namespace, name)
    {
        plan.write(delete(endpoints.as_ref()));
    }
    plan
}
