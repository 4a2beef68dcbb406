//! What an applier no longer applies goes, in whichever version it applied it before.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entry::Entry;
use super::field_manager::FieldManager;
use super::field_set::FieldSet;
use super::remove::{Merged, prune};
use super::versions::Unconverted;
use crate::object::Object;

impl FieldManager<'_> {
    /// `merged` without what the manager applied before, which were the fields `last` of a version, and no manager owns now.
    pub(super) fn pruned(
        &self,
        merged: Value,
        last: &FieldSet,
        version: &str,
        entries: &mut [Entry<'_>],
    ) -> Result<Value, Unconverted> {
        if last.is_empty() {
            return Ok(merged);
        }
        let mut owned: BTreeMap<&str, FieldSet> = BTreeMap::new();
        for entry in entries {
            let version = if self.has_versions() { &*entry.api_version } else { self.api_version };
            let all = owned.entry(version).or_default();
            *all = std::mem::take(all).union(entry.fields.set().clone());
        }
        if !self.has_versions() || (version == self.api_version && owned.keys().all(|v| *v == version)) {
            let owned = owned.remove(self.api_version).unwrap_or_default();
            return Ok(prune(self.typing.root(), merged, last, &owned));
        }
        let (Some(typing), Some(object)) = (self.typing.in_version(version), object(&merged)) else {
            return Ok(merged);
        };
        let before = Merged::new(typing.root(), self.in_version(&object, version)?.into_value());
        // What is owned in that version comes back first: a webhook may need it to convert at all.
        let left = before.with_owned(&before.without(last), &owned.remove(version).unwrap_or_default());
        if left == before.value {
            return Ok(merged);
        }
        let Some(mut left) = Object::from_value(left) else { return Ok(merged) };
        for (other, owned) in owned {
            let Some(typing) = self.typing.in_version(other) else { continue };
            let (all, some) = (self.in_version(&object, other), self.in_version(&left, other));
            let all = Merged::new(typing.root(), all?.into_value());
            let some = all.with_owned(&some?.into_value(), &owned);
            let Some(some) = Object::from_value(some) else { continue };
            left = some;
        }
        let left = self.in_version(&left, version)?;
        let left = before.without_last(&left.into_value(), last);
        match Object::from_value(left) {
            Some(left) if Value::Object(left.0.clone()) != before.value => {
                Ok(self.in_version(&left, self.api_version)?.into_value())
            }
            _ => Ok(merged),
        }
    }
}

fn object(value: &Value) -> Option<Object> {
    Object::from_value(value.clone())
}
