//! Patches: RFC 6902 (JSON patch), RFC 7396 (merge patch), and upstream's strategic merge patch.

use serde_json::Value;

use crate::decode::conform;
use crate::json_patch;
use crate::object::Object;
use crate::resource::Resource;
use crate::status::{Cause, Status};
use crate::strategic::{PatchError, merge_strategic};

/// The kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902: a list of operations.
    Json,
    /// RFC 7396: an object merged in; lists are replaced.
    Merge,
    /// An object merged in, with lists merged by their keys.
    Strategic,
}

/// `object` with `patch` applied. Unknown fields are still in it: [`crate::check`] reports them.
///
/// # Errors
/// If the patch makes no sense, doesn't apply, or what comes out doesn't fit the kind.
pub fn patch(resource: &Resource, kind: PatchType, object: &Object, patch: &Value) -> Result<Object, Status> {
    let mut value = Value::Object(object.0.clone());
    match kind {
        PatchType::Json => json_patch::apply(&mut value, patch)?,
        PatchType::Merge => {
            if !patch.is_object() {
                return Err(Status::bad_request("a merge patch must be a JSON object"));
            }
            merge(&mut value, patch);
        }
        PatchType::Strategic => {
            let schema = resource.schema.get();
            let bad = |e: PatchError| {
                let message = format!("the strategic merge patch can't be applied: {e}");
                // As upstream: what the patch says is well formed, and can't be done.
                if matches!(e, PatchError::NoKey { .. }) {
                    unprocessable(&message)
                } else {
                    Status::bad_request(message)
                }
            };
            merge_strategic(schema, &mut value, patch).map_err(bad)?;
        }
    }
    let Some(patched) = Object::from_value(value) else {
        return Err(unprocessable("the patch leaves no object behind"));
    };
    // Types only: unknown fields are reported where the request's `fieldValidation` is known.
    match conform(resource, &mut patched.clone()) {
        Ok(_) => Ok(patched),
        // The message doesn't repeat the patch, as upstream's does: there may be secrets in it.
        Err(mismatch) => {
            let cause = Cause::invalid_part("patch", &mismatch.to_string());
            Err(Status::invalid("", "", "", vec![cause]))
        }
    }
}

/// A merge patch (RFC 7396): `null` removes, objects are merged, anything else replaces. As upstream's library does it, what
/// is new has no `null` in its objects, those in lists neither, but what replaces an object stays as it is.
fn merge(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(map), Value::Object(fields)) => {
            for (name, change) in fields {
                if change.is_null() {
                    map.remove(name);
                    continue;
                }
                match map.get_mut(name).filter(|value| !value.is_null()) {
                    Some(value) => merge(value, change),
                    None => _ = map.insert(name.clone(), without_nulls(change)),
                }
            }
        }
        (value @ Value::Object(_), other) => *value = other.clone(),
        (value, other) => *value = without_nulls(other),
    }
}

/// A value whose objects have no field that is `null`.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}

fn unprocessable(message: &str) -> Status {
    let mut status = Status::new(422, "Invalid", message);
    status.details = Some(Box::default());
    status
}
