//! What is decided about a change beyond the object itself: what it needs must exist, what it claims must be
//! free, and hosts write only what is theirs.

mod certificate;
mod chain;
mod claims;
mod default_class;
mod devices;
mod idle;
mod limit_ranger;
mod node;
mod outside;
mod pod_security;
mod priority;
mod priority_class;
pub(crate) mod quota;
mod refused;
mod request;
mod runtime_class;
mod service;
pub(crate) mod service_account;
mod storage;
mod toleration;

use access::UserInfo;
use machinery::{Object, Resource, Status};
use objects::Named;
use store::State;

pub(crate) use chain::Admission;
pub(crate) use claims::Claims;
pub(crate) use devices::admin_fault;
pub(crate) use outside::{Outside, part};
pub(crate) use refused::Refused;
pub(crate) use request::{AdmissionRequest, Operation, Outcome};
pub use service::{ServiceRange, ServiceRangeError};

use crate::clock::Edge;

/// Checks who changes or deletes `object`, as it is before that.
pub(crate) fn on_change(request: &AdmissionRequest<'_>, object: &Object) -> Result<(), Status> {
    node::check_change(request, object)
}

/// Checks who evicts a pod.
pub(crate) fn on_eviction(who: &UserInfo, named: &Named<'_>, pod: &Object) -> Result<(), Status> {
    node::check_eviction(who, named, pod)
}

/// Claims what a valid object needs that nobody else may have, and frees what it has no more.
pub(crate) fn allocate(
    range: &ServiceRange,
    resource: &Resource,
    (new, old): (&mut Object, Option<&Object>),
    dry_run: bool,
    state: &State,
    edge: &dyn Edge,
) -> Result<Claims, Status> {
    match (resource.group, resource.plural) {
        ("", "services") => service::allocate(range, (new, old), dry_run, state, edge),
        _ => Ok(Claims::default()),
    }
}

/// Frees what an object that goes had claimed.
pub(crate) fn release(resource: &Resource, old: &Object) -> Claims {
    match (resource.group, resource.plural) {
        ("", "services") => service::release(old),
        ("", "namespaces") => quota::release(old.name()),
        _ => Claims::default(),
    }
}
