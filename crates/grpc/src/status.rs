//! How a call ended.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// gRPC's status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // gRPC's own names.
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

/// Why a call did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Status {
    /// What kind of failure.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.message, self.code)
    }
}

/// What a `grpc-message` may not hold as it is.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

impl Status {
    /// A failure.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status { code, message: message.into() }
    }

    /// The other side can't be reached.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Status::new(Code::Unavailable, message.to_string())
    }

    /// As the headers that end an answer.
    pub fn trailers(outcome: Result<(), Status>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let code = outcome.as_ref().err().map_or(Code::Ok, |status| status.code);
        headers.insert("grpc-status", HeaderValue::from(code as u32));
        if let Err(status) = outcome {
            let message = utf8_percent_encode(&status.message, ESCAPED).to_string();
            if let Ok(message) = HeaderValue::from_str(&message) {
                headers.insert("grpc-message", message);
            }
        }
        headers
    }

    /// What the headers that end an answer say; none if they say nothing.
    pub fn from_trailers(headers: &HeaderMap) -> Option<Result<(), Status>> {
        let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse::<usize>().ok());
        let code = code.and_then(|code| CODES.get(code).copied()).unwrap_or(Code::Unknown);
        if code == Code::Ok {
            return Some(Ok(()));
        }
        let message = headers.get("grpc-message").map(HeaderValue::as_bytes).unwrap_or_default();
        Some(Err(Status::new(code, percent_decode(message).decode_utf8_lossy())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_its_trailers() {
        let odd = Status::new(Code::OutOfRange, "50% done,\nthen ü");
        for outcome in [Ok(()), Err(odd)] {
            assert_eq!(Status::from_trailers(&Status::trailers(outcome.clone())), Some(outcome));
        }
        assert_eq!(Status::from_trailers(&HeaderMap::new()), None);
        for (n, code) in CODES.into_iter().enumerate() {
            assert_eq!(code as usize, n);
        }
    }
}
