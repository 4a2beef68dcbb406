//! Patches: RFC 6902 (JSON patch), RFC 7396 (merge patch), and upstream's strategic merge patch.

use json_patch::PatchOperation;
use serde_json::Value;

use crate::conform::TypeMismatch;
use crate::decode::conform;
use crate::object::Object;
use crate::resource::Resource;
use crate::schema::schemas;
use crate::status::{Cause, Details, Status};
use crate::strategic::{PatchError, merge_strategic};

/// How many operations a JSON patch may have, as upstream.
const MOST_OPERATIONS: usize = 10_000;
/// How much the `copy` operations of a patch may copy: they double an object otherwise without bound.
const LARGEST: usize = 3 * 1024 * 1024;
/// How deep a patch may nest values; what is read from JSON is half as deep at most.
const DEEPEST: usize = 256;

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

/// `object` with `patch` applied. Unknown fields are still in it: [`crate::check`] tells them.
///
/// # Errors
/// If the patch makes no sense, doesn't apply, or what comes out doesn't fit the kind.
pub fn patch(resource: &Resource, kind: PatchType, object: &Object, patch: &Value) -> Result<Object, Status> {
    let mut value = Value::Object(object.0.clone());
    match kind {
        PatchType::Json => apply_operations(&mut value, patch)?,
        PatchType::Merge => {
            if !patch.is_object() {
                return Err(Status::bad_request("a merge patch must be a JSON object"));
            }
            json_patch::merge(&mut value, patch);
        }
        PatchType::Strategic => {
            let schema = schemas().named(resource.schema);
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
    // Types only: what is unknown is told where the request's `fieldValidation` is known.
    match conform(resource, &mut patched.clone()) {
        Ok(_) => Ok(patched),
        Err(mismatch) => Err(unfit(&mismatch)),
    }
}

fn apply_operations(value: &mut Value, patch: &Value) -> Result<(), Status> {
    let operations: json_patch::Patch = serde::Deserialize::deserialize(patch).map_err(|e| {
        Status::bad_request(format!("the patch is no list of JSON patch operations (RFC 6902): {e}"))
    })?;
    if operations.0.len() > MOST_OPERATIONS {
        let message =
            format!("the patch has {} operations, and the limit is {MOST_OPERATIONS}", operations.0.len());
        return Err(Status::new(413, "RequestEntityTooLarge", message));
    }
    let (mut copied, mut deepest) = (0, depth(value));
    for operation in operations.0 {
        copied += added_by_copy(value, &operation);
        if copied > LARGEST {
            return Err(Status::new(413, "RequestEntityTooLarge", "the patch copies too much"));
        }
        deepest = deepest_after(&operation, deepest);
        json_patch::patch(value, &[operation])
            .map_err(|e| unprocessable(&format!("the patch doesn't apply: {e}")))?;
        if deepest > DEEPEST {
            deepest = depth(value);
        }
        if deepest > DEEPEST {
            return Err(unprocessable("the patch nests values too deeply"));
        }
    }
    Ok(())
}

/// Bytes that an operation copies.
fn added_by_copy(value: &Value, operation: &PatchOperation) -> usize {
    match operation {
        PatchOperation::Copy(copy) => value.pointer(copy.from.as_str()).map_or(0, size),
        _ => 0,
    }
}

/// A bound of the depth after an operation on a value that is no deeper than `before`.
fn deepest_after(operation: &PatchOperation, before: usize) -> usize {
    let steps = |path: &str| path.matches('/').count();
    match operation {
        PatchOperation::Add(add) => before.max(steps(add.path.as_str()) + depth(&add.value)),
        PatchOperation::Replace(replace) => before.max(steps(replace.path.as_str()) + depth(&replace.value)),
        PatchOperation::Move(change) => before + steps(change.path.as_str()),
        PatchOperation::Copy(copy) => before + steps(copy.path.as_str()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => before,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Roughly how many bytes `value` has as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|item| size(item) + 1).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 4 + size(value)).sum(),
        _ => 8,
    }
}

fn unprocessable(message: &str) -> Status {
    let mut status = Status::new(422, "Invalid", message);
    status.details = Some(Box::default());
    status
}

fn unfit(mismatch: &TypeMismatch) -> Status {
    let mut status = unprocessable(&format!("the patch makes the object invalid: {mismatch}"));
    // The patch itself is not told again: there may be secrets in it.
    let message = format!("Invalid value: {mismatch}");
    let cause = Cause { reason: "FieldValueInvalid".into(), message, field: "patch".into() };
    status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
    status
}
