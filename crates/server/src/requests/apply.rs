//! The body of a server-side apply.

use bytes::Bytes;
use machinery::{Object, Status};
use objects::Named;

use crate::http::body;
use crate::http::encoding::Encoding;
use crate::http::options::WriteOptions;

/// The media types of an apply; YAML is JSON too.
pub(crate) const YAML: &str = "application/apply-patch+yaml";
pub(crate) const CBOR: &str = "application/apply-patch+cbor";

/// What is applied.
pub(crate) fn patch(
    named: &Named<'_>,
    options: &WriteOptions,
    media_type: &str,
    bytes: &Bytes,
) -> Result<Object, Status> {
    let (value, duplicates) =
        if media_type == CBOR { (Encoding::Cbor.decode(bytes)?, Vec::new()) } else { body::yaml(bytes)? };
    let patch =
        Object::from_value(value).ok_or_else(|| Status::bad_request("an apply patch must be an object"))?;
    let why = duplicates.join(", ");
    let refused = |_| Status::bad_request(format!("error strict decoding YAML: {why}"));
    options.validation.judge(duplicates, refused)?;
    fit(named, &patch)?;
    Ok(patch)
}

/// The patch must be of the object that the path names; of one that is there it needn't say the name.
fn fit(named: &Named<'_>, patch: &Object) -> Result<(), Status> {
    let mismatch = |what: &str, given: &str, asked: &str| {
        Status::bad_request(format!(
            "the {what} of the object ({given}) does not match the {what} on the URL ({asked})"
        ))
    };
    if !patch.name().is_empty() && patch.name() != named.name {
        return Err(mismatch("name", patch.name(), named.name));
    }
    if !patch.namespace().is_empty() && patch.namespace() != named.namespace {
        return Err(mismatch("namespace", patch.namespace(), named.namespace));
    }
    Ok(())
}
