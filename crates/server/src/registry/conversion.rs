//! Objects between versions of a definition that a webhook would have to convert: nobody calls it yet, and nothing is
//! served or stored that only looks converted.

use api::{Conversion, Custom, Object, Resource, Status};
use store::{Event, KeyValue};

/// The definition of a resource that a webhook converts.
fn by_webhook(resource: &Resource) -> Option<&Custom> {
    resource.custom().filter(|custom| matches!(custom.definition().conversion(), Conversion::Webhook { .. }))
}

/// Refuses to serve stored values that lie there in another version.
pub(super) fn check_served<'a>(
    resource: &Resource,
    stored: impl IntoIterator<Item = &'a KeyValue>,
) -> Result<(), Status> {
    let Some(custom) = by_webhook(resource) else { return Ok(()) };
    match stored.into_iter().find(|kv| custom.is_other_version(&kv.value)) {
        Some(_) => Err(failed(resource)),
        None => Ok(()),
    }
}

/// Refuses to serve a change of which either side lies there in another version.
pub(super) fn check_event(resource: &Resource, event: &Event) -> Result<(), Status> {
    let (current, previous) = match event {
        Event::Put { current, previous } => (Some(current), previous.as_ref()),
        Event::Delete { previous, .. } => (None, Some(previous)),
    };
    check_served(resource, current.into_iter().chain(previous).map(AsRef::as_ref))
}

/// Refuses to store an object in another version than the one that it is in.
pub(super) fn check_stored(resource: &Resource, object: &Object) -> Result<(), Status> {
    match by_webhook(resource) {
        Some(custom) if custom.storage_api_version() != object.api_version() => Err(failed(resource)),
        _ => Ok(()),
    }
}

fn failed(resource: &Resource) -> Status {
    Status::internal(format!(
        "conversion webhook for {}, Kind={} failed: this server calls no conversion webhooks; use the version that \
         objects are stored in",
        resource.api_version(),
        resource.kind
    ))
}
