//! Stored objects in the form in which a resource serves them, where that takes no webhook.

use std::sync::Arc;

use machinery::{Object, Resource, Status};
use objects::{encode, load};
use store::KeyValue;

use super::converter;

/// The object in a stored value as `resource` serves it, with its resourceVersion, where no webhook is needed for that.
pub(crate) fn load_as(resource: &Resource, kv: &KeyValue) -> Result<Object, Status> {
    if converter::needs_webhook(resource, kv) {
        return Err(Status::internal(
            "this object can't be had in that version without its conversion webhook",
        ));
    }
    let mut object = load(kv)?;
    if !is_as_served(resource, kv) {
        machinery::from_stored(resource, &mut object);
    }
    Ok(object)
}

/// Whether a stored value has the form in which `resource` serves it.
pub(crate) fn is_as_served(resource: &Resource, kv: &KeyValue) -> bool {
    match resource.custom() {
        Some(custom) => custom.is_as_served(&kv.value.bytes(), kv.mod_revision.0),
        None => !resource.is_converted(),
    }
}

/// Whether a stored value lies there in the version in which it would be stored now: others are written anew by a
/// change that changes nothing, which is how clients migrate them.
pub(crate) fn is_in_place(resource: &Resource, kv: &KeyValue) -> bool {
    resource.custom().is_none_or(|custom| custom.is_in_storage_version(&kv.value.bytes()))
}

/// A stored value as `resource` serves it, where no webhook is needed for that: itself, but where the resource is
/// another version of what lies there.
pub(crate) fn served(resource: &Resource, kv: &Arc<KeyValue>) -> Result<Arc<KeyValue>, Status> {
    if is_as_served(resource, kv) {
        return Ok(kv.clone());
    }
    let value = encode(&load_as(resource, kv)?)?;
    Ok(Arc::new(KeyValue { value: value.into(), ..(**kv).clone() }))
}
