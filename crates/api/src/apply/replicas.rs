//! Who owns the number of replicas: of an object, and of its scale.

use serde_json::Value;

use super::entry::{Entry, OwnedFields, encode, own_entries};
use super::field_set::FieldSet;
use crate::resource::Resource;

const SCALE: &str = "autoscaling/v1";

/// The number of replicas as fields of a scale.
fn of_scale() -> FieldSet {
    FieldSet::of(&[&["f:spec", "f:replicas"]])
}

/// The number of replicas as fields of an object that has a scale.
fn of_object(resource: &Resource) -> FieldSet {
    let Some(custom) = resource.custom() else { return of_scale() };
    let path = custom.replicas_path();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    FieldSet::of(&[&path])
}

/// The managed fields of the scale of an object that has those in `object`.
pub fn managed_of_scale(resource: &Resource, object: Option<&Value>) -> Option<Value> {
    let replicas = of_object(resource);
    let owners = own_entries(object.cloned()).into_iter().filter(|entry| entry.fields.touches(&replicas));
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
    let replicas = of_object(resource);
    let mut owners = own_entries(scale.cloned());
    let mut entries = own_entries(object.cloned());
    for entry in entries.iter_mut().filter(|entry| entry.fields.touches(&replicas)) {
        match owners.iter().position(|owner| same(owner, entry)) {
            // Still theirs, as it was.
            Some(at) => {
                owners.remove(at);
            }
            None => *entry.fields.set() = entry.fields.take().difference(&replicas),
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    for owner in owners.into_iter().filter(|owner| owner.fields.touches(&of_scale())) {
        // As upstream has it: no time.
        let fields = OwnedFields::Set(replicas.clone());
        entries.push(Entry { api_version: resource.api_version().into(), time: None, fields, ..owner });
    }
    encode(entries)
}
