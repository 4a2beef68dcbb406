//! Objects between the version in which they are served and the one in which they lie.

use crate::defaults::fill;
use crate::object::Object;
use crate::resource::Resource;

/// Brings an object of `resource` into the form in which it lies.
pub fn to_stored(resource: &Resource, object: &mut Object) {
    if let Some(custom) = &resource.custom {
        custom.store(object);
    } else if let Some(stored) = resource.rules.stored_as() {
        resource.rules.to_stored(object);
        fill(stored, object);
    }
}

/// Brings what lies under `resource` into the form in which it is served.
pub fn from_stored(resource: &Resource, object: &mut Object) {
    if let Some(custom) = &resource.custom {
        custom.serve(resource, object);
    } else if resource.is_converted() {
        resource.rules.to_served(object);
        fill(resource, object);
    }
}
