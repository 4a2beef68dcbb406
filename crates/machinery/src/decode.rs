//! Bodies of requests as objects: every field held against its schema.
//!
//! Follows what upstream's decoder does (`k8s.io/apimachinery/pkg/runtime/serializer/json`): a wrong type is
//! an error, an unknown or duplicate field is reported and left out, `null` is nothing.

use serde_json::Value;
use values::JsonError;

use crate::conform::{Conform, Empties};
use crate::faults::MOST_FAULTS;
use crate::junk;
use crate::meta::OBJECT_META;
use crate::mismatch::TypeMismatch;
use crate::object::Object;
use crate::resource::Resource;
use crate::status::{Cause, Status};

/// The largest body that is read, as upstream's: 3 MiB.
const LARGEST: usize = 3 * 1024 * 1024;

/// A body as an object, and what was wrong with it but not forbidden.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, without the fields that its kind doesn't have.
    pub object: Object,
    /// `unknown field "spec.foo"`, `duplicate field "spec.replicas"`: errors, warnings or nothing, as the
    /// request's `fieldValidation` says.
    pub faults: Vec<String>,
}

/// The object in the JSON `body`; `apiVersion` and `kind` are filled in where they are missing.
///
/// # Errors
/// If the body is too large, no JSON, of another kind, or a field's value is of the wrong type.
pub fn decode(resource: &Resource, body: &[u8]) -> Result<Decoded, Status> {
    if body.len() > LARGEST {
        let message = format!("the body has {} bytes, and the limit is {LARGEST}", body.len());
        return Err(Status::new(413, "RequestEntityTooLarge", message));
    }
    let (value, mut duplicates) = values::json_and_duplicates(body).map_err(|error| match error {
        JsonError::TooLarge(exceeded) => Status::too_large(exceeded),
        JsonError::Broken(error) => {
            unrecognized(resource, body, &junk::fault(body).unwrap_or_else(|| error.to_string()))
        }
    })?;
    let mut object = match value {
        Value::Object(object) => Object(object),
        other => {
            return Err(unrecognized(resource, body, &TypeMismatch::of_type(&other, NAMES).to_string()));
        }
    };
    let unknown = check_with(resource, &mut object, |mismatch| first_in(resource, body).unwrap_or(mismatch))?;
    // Upstream's order: a custom object's unknown fields are found after it was decoded, a built-in one's by the decoder.
    let mut faults = if resource.custom.is_some() {
        duplicates.extend(unknown);
        duplicates
    } else {
        let mut unknown = in_order_of(body, unknown);
        unknown.append(&mut duplicates);
        unknown
    };
    faults.truncate(MOST_FAULTS);
    Ok(Decoded { object, faults })
}

/// 400 for a body of which not even the kind can be read, in upstream's words.
fn unrecognized(resource: &Resource, body: &[u8], why: &str) -> Status {
    const SHOWN: usize = 30;
    let (shown, rest) = body.split_at(body.len().min(SHOWN));
    let shown: String = match shown.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let more = if rest.is_empty() { "" } else { " ..." };
    let kind = resource.kind;
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {why} \
         ({shown}{more})"
    ))
}

/// Faults about unknown fields in the order in which the fields stand in the body.
fn in_order_of(body: &[u8], faults: Vec<String>) -> Vec<String> {
    if faults.len() < 2 {
        return faults;
    }
    let path = |fault: &str| -> Option<String> { serde_json::from_str(fault.strip_prefix(UNKNOWN)?).ok() };
    let paths: Vec<String> = faults.iter().filter_map(|fault| path(fault)).collect();
    let found = values::in_order_of(body, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    if found.len() < faults.len() {
        // A path that can't be read back isn't known in the body.
        return faults;
    }
    found.iter().map(|path| format!("{UNKNOWN}{path:?}")).collect()
}

/// The type in Go from which upstream reads of which kind a body is.
const NAMES: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// What a fault about an unknown field begins with.
const UNKNOWN: &str = "unknown field ";

/// Holds `object` against its kind's schema, as [`decode`] does: takes unknown fields out and tells them.
///
/// # Errors
/// If the object is of another kind, or a field's value is of the wrong type.
pub fn check(resource: &Resource, object: &mut Object) -> Result<Vec<String>, Status> {
    check_with(resource, object, |mismatch| mismatch)
}

/// Likewise, where `told` says what to report about what doesn't fit.
fn check_with(
    resource: &Resource,
    object: &mut Object,
    told: impl FnOnce(TypeMismatch) -> TypeMismatch,
) -> Result<Vec<String>, Status> {
    kind_of(resource, object)?;
    let in_words = |mismatch: TypeMismatch| {
        let (kind, version, mismatch) = (resource.kind, resource.version, told(mismatch));
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {mismatch}"
        ))
    };
    let faults = conform(resource, object).map_err(in_words)?;
    if let Some(custom) = &resource.custom {
        custom.drop_nulls(object);
    }
    Ok(faults)
}

/// What upstream's decoder, which goes through a body from its begin, tells of the values in there that don't fit: that at which it
/// ends, else the first one. Nothing of a definition's kind, whose metadata it reads by name.
fn first_in(resource: &Resource, body: &[u8]) -> Option<TypeMismatch> {
    let schema = resource.schema.get().filter(|_| resource.custom.is_none())?;
    let Ok(Value::Object(mut object)) = values::from_json(body) else { return None };
    let misfits = Conform::misfits(schema, &mut object.clone());
    let first = |ends: bool| {
        let paths = misfits.iter().filter(|misfit| misfit.ends == ends).map(|misfit| misfit.path.as_str());
        values::in_order_of(body, &paths.collect::<Vec<_>>()).into_iter().next()
    };
    Conform::misfit_at(schema, &mut object, first(true).or_else(|| first(false))?)
}

/// Takes out of what an apply made of an object what its kind doesn't have. What is `null` there stays, and is judged.
///
/// # Errors
/// As [`check`].
pub fn check_applied(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    kind_of(resource, object)?;
    let wrong = |mismatch: TypeMismatch| Status::bad_request(mismatch.to_string());
    conform(resource, object).map(drop).map_err(wrong)
}

/// The schema's part of [`check`].
pub(crate) fn conform(resource: &Resource, object: &mut Object) -> Result<Vec<String>, TypeMismatch> {
    if let Some(custom) = &resource.custom {
        return custom.conform(object, MOST_FAULTS);
    }
    let mut faults = Vec::new();
    if let Some(schema) = resource.schema.get() {
        let conform = Conform::new(&mut faults, MOST_FAULTS);
        conform.keeping_empties(resource.rules.sees_empties()).object(schema, &mut object.0)?;
        // The metadata of an object is the same for all kinds.
        if let (Some(schema), Some(Value::Object(metadata))) =
            (OBJECT_META.get(), object.0.get_mut("metadata"))
        {
            Empties::All.drop_from(schema, metadata);
        }
    }
    object.remove_meta("selfLink");
    object.ensure_metadata();
    Ok(faults)
}

fn kind_of(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    let expected = [("apiVersion", resource.api_version()), ("kind", resource.kind.to_owned())];
    for (field, expected) in expected {
        match object.0.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(found)) if found.is_empty() || *found == expected => {}
            // Upstream reads an object of a definition whatever it says it is, and validates that.
            Some(Value::String(found)) if field == "kind" && resource.custom.is_some() => {
                let cause = Cause::invalid("kind", &found.as_str().into(), &format!("must be {expected}"));
                return Err(Status::invalid(resource.group, found, object.name(), vec![cause]));
            }
            Some(found) if field == "apiVersion" && found.is_string() => {
                let found = found.as_str().unwrap_or_default();
                return Err(Status::bad_request(format!(
                    "the API version in the data ({found}) does not match the expected API version ({expected})"
                )));
            }
            Some(found) => {
                return Err(Status::bad_request(format!(
                    "the {field} in the data is {found}, but this path takes {expected:?}"
                )));
            }
        }
        object.0.insert(field.to_owned(), expected.into());
    }
    Ok(())
}
