//! What is decided about a change beyond the object itself: what it needs must exist, what it claims must be
//! free, and hosts write only what is theirs.

mod certificate;
mod node;
mod pod;
mod priority_class;
mod service;

use api::{Object, Resource, Status};
use store::State;

use crate::http::Identity;
use crate::registry::{Claims, Create, Named};

pub use service::{ServiceRange, ServiceRangeError};

/// Completes and checks an object that is to be created.
pub(crate) fn on_create(create: &Create<'_>, object: &mut Object, state: &State) -> Result<(), Status> {
    let name = object.name().to_owned();
    let named = Named { resource: create.resource, namespace: create.namespace, name: &name };
    if let Some(node) = create.who.node() {
        node::check(node, &named, object)?;
    }
    match (create.resource.group, create.resource.plural) {
        ("", "pods") => pod::on_create(&named, object, state),
        ("certificates.k8s.io", "certificatesigningrequests") => {
            certificate::on_create(create.who, object);
            Ok(())
        }
        ("scheduling.k8s.io", "priorityclasses") => priority_class::check(&named, object, state),
        _ => Ok(()),
    }
}

/// Completes and checks an object that is to replace `old`.
pub(crate) fn on_update(
    named: &Named<'_>,
    object: &mut Object,
    old: &Object,
    state: &State,
) -> Result<(), Status> {
    match (named.resource.group, named.resource.plural) {
        ("certificates.k8s.io", "certificatesigningrequests") => {
            certificate::on_update(object, old);
            Ok(())
        }
        ("scheduling.k8s.io", "priorityclasses") => priority_class::check(named, object, state),
        _ => Ok(()),
    }
}

/// Checks that an object may be deleted.
pub(crate) fn on_delete(named: &Named<'_>) -> Result<(), Status> {
    match (named.resource.group, named.resource.plural) {
        ("scheduling.k8s.io", "priorityclasses") => priority_class::on_delete(named),
        _ => Ok(()),
    }
}

/// Checks who changes or deletes `object`, as it is before that.
pub(crate) fn on_change(who: &Identity, named: &Named<'_>, object: &Object) -> Result<(), Status> {
    who.node().map_or(Ok(()), |node| node::check(node, named, object))
}

/// Claims what a valid object needs that nobody else may have, and frees what it has no more.
pub(crate) fn allocate(
    range: &ServiceRange,
    resource: &Resource,
    new: &mut Object,
    old: Option<&Object>,
    state: &State,
) -> Result<Claims, Status> {
    match (resource.group, resource.plural) {
        ("", "services") => service::allocate(range, new, old, state),
        _ => Ok(Claims::default()),
    }
}

/// Frees what an object that goes had claimed.
pub(crate) fn release(resource: &Resource, old: &Object) -> Claims {
    match (resource.group, resource.plural) {
        ("", "services") => service::release(old),
        _ => Claims::default(),
    }
}
