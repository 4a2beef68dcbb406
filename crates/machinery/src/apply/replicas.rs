//! The owners of the number of replicas: of an object, and of its scale.

use serde_json::Value;

use super::entry::{Entry, OwnedFields, encode, own_entries};
use super::field_set::FieldSet;
use crate::resource::Resource;

const SCALE: &str = "autoscaling/v1";

/// The number of replicas as fields of a scale.
fn of_scale() -> FieldSet {
    FieldSet::of(&[&["f:spec", "f:replicas"]])
}

/// The number of replicas as fields of an object that has a scale, in one of its versions; nothing if there is no such
/// version.
fn of_object(resource: &Resource, api_version: &str) -> Option<FieldSet> {
    let Some(custom) = resource.custom() else { return Some(of_scale()) };
    let path = custom.replicas_path_in(api_version)?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    Some(FieldSet::of(&[&path]))
}

fn owns_replicas(resource: &Resource, entry: &Entry<'_>) -> bool {
    of_object(resource, &entry.api_version).is_some_and(|replicas| entry.fields.touches(&replicas))
}

/// The managed fields of the scale of an object that has those in `object`.
pub fn managed_of_scale(resource: &Resource, object: Option<&Value>) -> Option<Value> {
    let owners = own_entries(object.cloned()).into_iter().filter(|entry| owns_replicas(resource, entry));
    let entries = owners.map(|entry| Entry {
        api_version: SCALE.into(),
        fields: OwnedFields::Set(of_scale()),
        ..entry
    });
    encode(entries.collect())
}

/// The managed fields of an object whose scale has been written.
pub fn managed_of_object(
    resource: &Resource,
    object: Option<&Value>,
    scale: Option<&Value>,
) -> Option<Value> {
    let same = |ours: &Entry<'_>, theirs: &Entry<'_>| {
        (&ours.manager, ours.operation, &ours.subresource)
            == (&theirs.manager, theirs.operation, &theirs.subresource)
    };
    let mut owners = own_entries(scale.cloned());
    let mut entries = own_entries(object.cloned());
    // An entry of a version that no longer exists owns nothing that could be named.
    entries.retain(|entry| of_object(resource, &entry.api_version).is_some());
    for entry in entries.iter_mut().filter(|entry| owns_replicas(resource, entry)) {
        match owners.iter().position(|owner| same(owner, entry)) {
            // Still theirs, as it was.
            Some(at) => {
                owners.remove(at);
            }
            None => {
                let replicas = of_object(resource, &entry.api_version).unwrap_or_default();
                *entry.fields.set() = entry.fields.take().difference(&replicas);
            }
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    let version = resource.api_version();
    let replicas = of_object(resource, &version).unwrap_or_default();
    for owner in owners.into_iter().filter(|owner| owner.fields.touches(&of_scale())) {
        // As upstream has it: no time.
        let fields = OwnedFields::Set(replicas.clone());
        entries.push(Entry { api_version: version.clone().into(), time: None, fields, ..owner });
    }
    encode(entries)
}
