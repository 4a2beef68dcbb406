//! Bodies that are recorded as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::Value;

use super::Trail;
use crate::http::Body;
use crate::http::encoding::Encoding;

/// The most bytes of an object that are recorded: what a request may have.
const MOST: usize = 3 << 20;

/// What of a request is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// A body that is copied to a request's trail as it passes, and holds that until it is over.
pub(super) struct Overheard {
    body: Body,
    trail: Arc<Trail>,
    /// None where it is only held.
    copied: Option<Side>,
}

impl Overheard {
    pub(super) fn new(body: Body, trail: Arc<Trail>, copied: Option<Side>) -> Self {
        Overheard { body, trail, copied }
    }
}

impl HttpBody for Overheard {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(side)) = (&polled, this.copied)
            && let Some(data) = frame.data_ref()
        {
            this.trail.hear(side, data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What was heard of a body.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) media_type: String,
    bytes: Vec<u8>,
    is_cut: bool,
}

/// Why a body isn't told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untold {
    TooLong,
    Unreadable,
}

impl Heard {
    /// Nothing yet of a body of that type.
    pub(super) fn of(media_type: String) -> Self {
        Heard { media_type, ..Heard::default() }
    }

    /// Keeps a copy: the bytes themselves count as waiting for the client for as long as anybody has them. Copies count with the
    /// [`Auditor`](audit::Auditor).
    pub(super) fn hear(&mut self, data: &[u8]) {
        if self.is_cut || self.bytes.len() + data.len() > MOST {
            self.cut();
        } else {
            self.bytes.extend_from_slice(data);
        }
    }

    /// Keeps nothing of it: it is too much.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.bytes = Vec::new();
    }

    /// How many bytes are kept.
    pub(super) fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// The value that it was; nothing if there was none.
    pub(super) fn value(&self) -> Result<Option<Value>, Untold> {
        if self.is_cut {
            return Err(Untold::TooLong);
        }
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let encoding = match self.media_type.as_str() {
            "application/apply-patch+yaml" => Some(Encoding::Yaml),
            "application/apply-patch+cbor" => Some(Encoding::Cbor),
            patch if patch.ends_with("+json") => Some(Encoding::Json),
            other => Encoding::of(other),
        };
        let value = encoding.and_then(|encoding| encoding.decode(&self.bytes).ok());
        value.map(Some).ok_or(Untold::Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heard(media_type: &str, parts: &[&[u8]]) -> Result<Option<Value>, Untold> {
        let mut heard = Heard::of(media_type.to_owned());
        parts.iter().for_each(|part| heard.hear(part));
        heard.value()
    }

    #[test]
    fn bodies_are_told_as_values_whatever_their_form() {
        let value = json!({"a": 1});
        let cbor = machinery::to_cbor(&value);
        let forms: [(&str, &[&[u8]]); 5] = [
            ("application/json", &[b"{\"a\"", b": 1}"]),
            ("application/strategic-merge-patch+json", &[b"{\"a\":1}"]),
            ("application/apply-patch+yaml", &[b"a: 1\n"]),
            ("application/yaml", &[b"a: 1\n"]),
            ("application/cbor", &[&cbor]),
        ];
        for (media_type, parts) in forms {
            assert_eq!(heard(media_type, parts), Ok(Some(value.clone())), "{media_type}");
        }
        assert_eq!(heard("application/json", &[]), Ok(None));
        assert_eq!(heard("application/json", &[b"{"]), Err(Untold::Unreadable));
        assert_eq!(heard("text/plain", &[b"a"]), Err(Untold::Unreadable));
        let half = vec![b' '; MOST / 2 + 1];
        assert_eq!(heard("application/json", &[&half, &half, b"1"]), Err(Untold::TooLong));
    }
}
