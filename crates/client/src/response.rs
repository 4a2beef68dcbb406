//! What comes back: answers of the server, and the ways in which none comes.

use crate::{Error, ServerStatus};
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use std::time::Duration;

/// A whole answer with a good code.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP code, 200 to 299.
    pub code: StatusCode,
    /// The body.
    pub body: Bytes,
    /// The server's `Warning` headers, for people.
    pub warnings: Vec<String>,
    pub(crate) path: String,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Error::Answer { path: self.path.clone(), why: format!("it is not JSON: {e}") })
    }
}

/// The answer to an ask over a fresh connection, whatever its code.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP code.
    pub code: u16,
    /// When the server says that it answered: its `Date` header (RFC 9110, section 6.6.1).
    pub date: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The code says that all is well.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// Why an ask over a fresh connection got no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AskFailure {
    /// No connection.
    #[error("connect: {0}")]
    Connect(String),
    /// A connection, but no TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// Nothing within the time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection broke before the answer was whole.
    #[error("broken off: {0}")]
    Broken(String),
}

impl From<Error> for AskFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::Connect { why, .. } => AskFailure::Connect(why.to_string()),
            Error::Tls { why, .. } => AskFailure::Tls(why.to_string()),
            Error::Timeout { after, .. } => AskFailure::Timeout(after),
            other => AskFailure::Broken(other.to_string()),
        }
    }
}

/// A `Status` body becomes an error.
pub(crate) fn refused(code: StatusCode, body: &[u8]) -> Error {
    Error::Server(Box::new(ServerStatus::read(code.as_u16(), body)))
}

/// The text of a `Warning` header (RFC 7234, section 5.5): `299 - "text"`.
pub(crate) fn warning_text(header: &str) -> Option<String> {
    let quoted = header.splitn(3, ' ').nth(2)?;
    let inner = quoted.strip_prefix('"')?;
    let end = inner.rfind('"')?;
    Some(inner[..end].replace("\\\"", "\"").replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_in_the_words_of_kubectl() {
        for (code, body, says) in [
            (
                404,
                r#"{"kind":"Status","reason":"NotFound","message":"pods \"x\" not found","code":404}"#,
                "Error from server (NotFound): pods \"x\" not found",
            ),
            (503, "no backend", "Error from server: no backend"),
            (500, "", "Error from server: the server answered with code 500"),
            (500, "{\"kind\":\"Pod\"}", "Error from server: {\"kind\":\"Pod\"}"),
        ] {
            let error = refused(StatusCode::from_u16(code).unwrap(), body.as_bytes());
            assert_eq!(error.to_string(), says);
            assert_eq!(error.code(), Some(code));
        }
    }

    #[test]
    fn warnings_are_unquoted() {
        for (header, text) in [
            (r#"299 - "unknown field \"spec.x\"""#, Some(r#"unknown field "spec.x""#)),
            ("299 -", None),
            ("", None),
            (r#"299 - ""#, None),
        ] {
            assert_eq!(warning_text(header).as_deref(), text);
        }
    }
}
