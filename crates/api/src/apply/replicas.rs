//! Who owns the number of replicas: of an object, and of its scale.

use serde_json::Value;

use super::entry::{Entry, OwnedFields, encode, own_entries};
use super::field_set::FieldSet;

const REPLICAS: &[&str] = &["f:spec", "f:replicas"];
const SCALE: &str = "autoscaling/v1";

/// The managed fields of an object's scale.
pub fn managed_of_scale(object: Option<&Value>) -> Option<Value> {
    let replicas = FieldSet::of(&[REPLICAS]);
    let owners = own_entries(object.cloned()).into_iter().filter(|entry| entry.fields.touches(&replicas));
    let entries = owners.map(|entry| Entry {
        api_version: SCALE.into(),
        fields: OwnedFields::Set(replicas.clone()),
        ..entry
    });
    encode(entries.collect())
}

/// The managed fields of an object of `api_version` whose scale has been written.
pub fn managed_of_object(api_version: &str, object: Option<&Value>, scale: Option<&Value>) -> Option<Value> {
    let same = |ours: &Entry<'_>, theirs: &Entry<'_>| {
        (&ours.manager, ours.operation, &ours.subresource)
            == (&theirs.manager, theirs.operation, &theirs.subresource)
    };
    let replicas = FieldSet::of(&[REPLICAS]);
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
    for owner in owners.into_iter().filter(|owner| owner.fields.touches(&replicas)) {
        // As upstream has it: no time.
        let fields = OwnedFields::Set(replicas.clone());
        entries.push(Entry { api_version: api_version.into(), time: None, fields, ..owner });
    }
    encode(entries)
}
