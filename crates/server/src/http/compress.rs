//! Large answers go out compressed where the client takes gzip.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tracing::debug_span;

use super::Body;
use super::response::full;

/// Answers from this size on, in bytes: below it the work isn't worth the bytes (upstream's
/// `defaultGzipThresholdBytes`).
const LARGE: u64 = 128 << 10;
/// Fast rather than small, as upstream.
const LEVEL: u32 = 1;

/// Whether a client takes gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0"))
    })
}

/// Bytes compressed.
pub(crate) fn compress(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 6), Compression::new(LEVEL));
    encoder.write_all(plain).and_then(|()| encoder.finish())
}

/// The answer, smaller if it is large.
pub(crate) async fn compressed(response: Response<Body>) -> Response<Body> {
    if response.body().size_hint().exact().is_none_or(|size| size < LARGE) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // A body whose size is known is all here.
    let Ok(plain) = body.collect().await.map(|body| body.to_bytes()) else {
        return Response::from_parts(head, full(""));
    };
    let work = plain.clone();
    match tasks::blocking(debug_span!("compress"), move || compress(&work)).await {
        Ok(Ok(smaller)) => {
            head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            head.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
            head.headers.remove(CONTENT_LENGTH);
            Response::from_parts(head, full(smaller))
        }
        _ => Response::from_parts(head, full(plain)),
    }
}
