//! Bodies of requests: limited in size, of any encoding, decoded with the strictness that the client asks for.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use machinery::{Cause, Object, Resource, Status};
use serde_json::Value;
use values::YamlError;

use super::Body;
use super::beside::{Beside, LARGE};
use super::encoding::Encoding;
use super::negotiate::{content_type, unsupported};
use super::query::Query;
use super::warnings::warn;

/// The largest body, as upstream has it for writes.
pub(crate) const LARGEST_BODY: usize = 3 << 20;

/// Reads a body to its end. One that is large and still to come is read when there is room for it.
pub(crate) async fn read(mut body: Body, beside: &Beside) -> Result<Bytes, Status> {
    let (mut parts, mut size, mut room): (Vec<Bytes>, usize, _) = (Vec::new(), 0, None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken_off)?.into_data() else { continue };
        size += data.len();
        if size > LARGEST_BODY {
            let message = format!("Request entity too large: limit is {LARGEST_BODY}");
            return Err(Status::new(413, "RequestEntityTooLarge", message));
        }
        parts.push(data);
        if size > LARGE && room.is_none() && !body.is_end_stream() {
            // At once for as much as it may become: bodies that each hold some room and wait for more could wait for
            // each other for ever.
            room = Some(beside.room_to_arrive(LARGEST_BODY).await);
        }
    }
    Ok(match parts.len() {
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    })
}

/// 400: the body didn't come to its end.
pub(crate) fn broken_off(error: impl std::fmt::Display) -> Status {
    Status::bad_request(format!("the body of the request broke off: {error}"))
}

/// The encoding of a body.
fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    let media_type = content_type(headers);
    Encoding::of(&media_type).ok_or_else(|| unsupported(&media_type, &Encoding::names(&Encoding::ALL)))
}

/// A body that is any value; nothing if it is empty.
pub(crate) fn value(headers: &HeaderMap, body: Bytes) -> Result<Option<Value>, Status> {
    if body.is_empty() {
        return Ok(None);
    }
    encoding(headers)?.decode(&body).map(Some)
}

/// What happens to fields that are unknown or there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub(crate) fn parse(query: &Query) -> Result<Self, Cause> {
        match query.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let supported = ["Ignore", "Strict", "Warn"];
                Err(Cause::not_supported("fieldValidation", &other.into(), &supported))
            }
        }
    }

    /// Warns of faults, or refuses them: `refused` makes the answer of what they are.
    pub(crate) fn judge(
        self,
        faults: Vec<String>,
        refused: impl FnOnce(String) -> Status,
    ) -> Result<(), Status> {
        match self {
            FieldValidation::Strict if !faults.is_empty() => {
                return Err(refused(format!("strict decoding error: {}", faults.join(", "))));
            }
            FieldValidation::Warn => faults.into_iter().for_each(warn),
            FieldValidation::Ignore | FieldValidation::Strict => {}
        }
        Ok(())
    }

    /// Likewise, of a patch: what came out of it is at fault (upstream: `patch.go`). The answer doesn't repeat that, as
    /// upstream's does: there may be secrets in it.
    pub(crate) fn judge_patch(self, faults: Vec<String>) -> Result<(), Status> {
        self.judge(faults, |why| {
            let cause = Cause::invalid_part("patch", &why);
            Status::invalid("", "", "", vec![cause])
        })
    }
}

/// The value in YAML, and what is to be said about keys that stand twice.
pub(crate) fn yaml(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    values::yaml_and_duplicates(body).map_err(|error| match error {
        YamlError::TooLarge(exceeded) => Status::too_large(exceeded),
        error => Status::bad_request(format!("error decoding YAML: {error}")),
    })
}

/// The object in a body. Its writer is warned of what is wrong with it and not forbidden.
pub(crate) fn object(
    resource: &Resource,
    headers: &HeaderMap,
    validation: FieldValidation,
    body: Bytes,
) -> Result<Object, Status> {
    let (object, faults) = match encoding(headers)? {
        Encoding::Json => {
            let decoded = machinery::decode(resource, &body)?;
            (decoded.object, decoded.faults)
        }
        other => {
            let (value, mut faults) = match other {
                Encoding::Yaml => yaml(&body)?,
                other => (other.decode(&body)?, Vec::new()),
            };
            let object = Object::from_value(value);
            let mut object =
                object.ok_or_else(|| Status::bad_request("the body of the request must be an object"))?;
            faults.extend(machinery::check(resource, &mut object)?);
            (object, faults)
        }
    };
    validation.judge(faults, |why| {
        let (kind, version) = (resource.kind, resource.version);
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    })?;
    Ok(object)
}
