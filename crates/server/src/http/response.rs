//! Answers: JSON, YAML, text, and `Status` for everything that goes wrong.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use machinery::Status;
use serde_json::Value;

use super::encoding::Encoding;

/// The body of a request or an answer.
pub type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// The media type of plain text.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// The name of the object that was created, among an answer's extensions: its request's path doesn't have it.
#[derive(Debug, Clone)]
pub(crate) struct Created(pub(crate) String);

/// A body of known bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of known bytes.
pub(crate) fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON answer.
pub(crate) fn json(code: u16, value: &Value) -> Response<Body> {
    bytes(code, JSON, value.to_string())
}

/// A text answer.
pub(crate) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    bytes(code, TEXT, text.into())
}

/// The answer to a path that does not exist at all.
pub(crate) fn no_such_path() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// The `Status` object as bytes: a reason that isn't known is left out.
pub(crate) fn status_value(status: &Status) -> Value {
    let mut value = status.to_value();
    if let Value::Object(map) = &mut value
        && status.reason.is_empty()
    {
        map.remove("reason");
    }
    value
}

/// An error as JSON.
pub(crate) fn error(status: &Status) -> Response<Body> {
    error_as(status, Encoding::Json)
}

/// An error, which stands among the answer's extensions, too.
pub(crate) fn error_as(status: &Status, encoding: Encoding) -> Response<Body> {
    let value = status_value(status);
    let mut response = encoding.answer(status.code, &value).unwrap_or_else(|_| json(status.code, &value));
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.extensions_mut().insert(status.clone());
    response
}

/// When a client that found no room may come again, in seconds: what takes room here is over in much less, and the header
/// knows no fractions. Upstream's `retryAfter`.
const AGAIN_IN: u32 = 1;

/// 429: there is no room, come again.
pub(crate) fn too_many(message: impl Into<String>) -> Status {
    let mut status = Status::new(429, "TooManyRequests", message).about("", "", "");
    if let Some(details) = &mut status.details {
        details.retry_after_seconds = AGAIN_IN;
    }
    status
}

/// Adds the warnings that a request earned (RFC 7234, code 299).
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
