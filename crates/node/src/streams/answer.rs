//! Takes a request over to another protocol: which one, and what leads the connection then.

use std::sync::Arc;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tracing::info_span;

use super::asked::{Asked, Refusal, asked};
use super::spdy::{self, Transport};
use super::websocket::{self, Form, Spoken};
use crate::pods::PodHost;

/// What the versions of a process' protocol are called, on a WebSocket and on SPDY.
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// The same on a WebSocket as texts, and what was before: the empty one is that of a caller who names none.
const V4_TEXT: &str = "v4.base64.channel.k8s.io";
const V1: &str = "channel.k8s.io";
const V1_TEXT: &str = "base64.channel.k8s.io";
const UNNAMED: &str = "";
/// Port-forward on SPDY, and that in the messages of a WebSocket.
const FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// A protocol that both sides speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    WebSocket(&'static str),
    Spdy(&'static str),
}

impl Protocol {
    /// The first that the caller wants and that is spoken here.
    fn of(headers: &HeaderMap, forwards: bool) -> Result<Self, Refusal> {
        let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (name, ours): (_, &[&'static str]) = match (upgrade.to_ascii_lowercase().as_str(), forwards) {
            ("websocket", false) => (SEC_WEBSOCKET_PROTOCOL, &[V5, V4, V4_TEXT, V1, V1_TEXT, UNNAMED]),
            ("websocket", true) => (SEC_WEBSOCKET_PROTOCOL, &[TUNNEL, V4, V4_TEXT, UNNAMED]),
            ("spdy/3.1", false) => (STREAM_PROTOCOL, &[V5, V4]),
            ("spdy/3.1", true) => (STREAM_PROTOCOL, &[FORWARD]),
            _ => return Err((StatusCode::BAD_REQUEST, "Upgrade request required".into())),
        };
        let Some(protocol) = websocket::offered(headers, name.as_str(), ours) else {
            let theirs: Vec<&str> = headers.get_all(&name).iter().filter_map(|v| v.to_str().ok()).collect();
            let why = format!(
                "unable to negotiate protocol: client supports [{}], server accepts [{}]",
                theirs.join(" "),
                ours.join(" ")
            );
            return Err((StatusCode::FORBIDDEN, why));
        };
        if name == STREAM_PROTOCOL {
            return Ok(Protocol::Spdy(protocol));
        }
        Ok(Protocol::WebSocket(protocol))
    }

    fn headers(self, request: &HeaderMap) -> Result<HeaderMap, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Protocol::Spdy(protocol) => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
            }
            Protocol::WebSocket(protocol) => {
                let bad = || (StatusCode::BAD_REQUEST, "the request has no Sec-WebSocket-Key".to_owned());
                let key = request.get(SEC_WEBSOCKET_KEY).ok_or_else(bad)?;
                let accept = websocket::accept_key(key.as_bytes());
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(|_| bad())?);
                if protocol != UNNAMED {
                    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
                }
            }
        }
        Ok(headers)
    }
}

/// Answers a request for something that goes both ways: the headers of the answer that changes the protocol, or why
/// not. None if the path asks for something else. `held` is kept until the connection ends.
pub(crate) fn answer<H: Send + 'static>(
    host: &Arc<PodHost>,
    path: &[&str],
    query: &str,
    headers: &HeaderMap,
    upgrade: OnUpgrade,
    held: H,
) -> Option<Result<HeaderMap, Refusal>> {
    let asked = match asked(host, path, query)? {
        Ok(asked) => asked,
        Err(refusal) => return Some(Err(refusal)),
    };
    let agreed = Protocol::of(headers, matches!(asked, Asked::Ports(..)))
        .and_then(|protocol| Ok((protocol, protocol.headers(headers)?)));
    let (protocol, headers) = match agreed {
        Ok(agreed) => agreed,
        Err(refusal) => return Some(Err(refusal)),
    };
    tasks::spawn(info_span!("stream"), async move {
        match upgrade.await {
            Ok(upgraded) => lead(asked, protocol, upgraded).await,
            Err(error) => tracing::debug!(%error, "a caller went before the protocol changed"),
        }
        drop(held);
    });
    Some(Ok(headers))
}

async fn lead(asked: Asked, protocol: Protocol, upgraded: Upgraded) {
    match (asked, protocol) {
        (Asked::Process(process), Protocol::WebSocket(version)) => {
            let first = process.flags.first();
            let socket = websocket::accept(upgraded).await;
            websocket::channels(socket, process.begin(), first, spoken(version)).await;
        }
        (Asked::Process(process), Protocol::Spdy(_)) => {
            spdy::process(Transport::Connection(Box::new(TokioIo::new(upgraded))), process).await;
        }
        (Asked::Ports(ports, _), Protocol::WebSocket(TUNNEL)) => {
            let socket = websocket::accept(upgraded).await;
            spdy::forward(Transport::Tunnel(Box::new(socket)), ports).await;
        }
        (Asked::Ports(ports, wanted), Protocol::WebSocket(version)) => {
            let socket = websocket::accept(upgraded).await;
            websocket::forward(socket, ports, wanted, spoken(version).form).await;
        }
        (Asked::Ports(ports, _), Protocol::Spdy(_)) => {
            spdy::forward(Transport::Connection(Box::new(TokioIo::new(upgraded))), ports).await;
        }
    }
}

/// What a version says by channels, and how.
fn spoken(version: &str) -> Spoken {
    let form = if matches!(version, V4_TEXT | V1_TEXT) { Form::Text } else { Form::Binary };
    Spoken { form, closes: version == V5, tells_status: matches!(version, V5 | V4 | V4_TEXT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_protocol_that_both_speak_is_taken() {
        let of = |upgrade: &'static str, name: &'static str, values: &[&'static str], forwards| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
            for value in values {
                headers.append(name, HeaderValue::from_static(value));
            }
            Protocol::of(&headers, forwards).map_err(|(code, _)| code.as_u16())
        };
        let (socket, stream) = ("sec-websocket-protocol", "x-stream-protocol-version");
        assert_eq!(of("websocket", socket, &["v5.channel.k8s.io"], false), Ok(Protocol::WebSocket(V5)));
        assert_eq!(of("WebSocket", socket, &["x, v4.channel.k8s.io"], false), Ok(Protocol::WebSocket(V4)));
        assert_eq!(of("websocket", socket, &["v3.channel.k8s.io"], false), Err(403));
        for named in [V4_TEXT, V1, V1_TEXT] {
            assert_eq!(of("websocket", socket, &[named], false), Ok(Protocol::WebSocket(named)));
        }
        for forwards in [false, true] {
            assert_eq!(of("websocket", socket, &[], forwards), Ok(Protocol::WebSocket(UNNAMED)));
            assert_eq!(of("websocket", socket, &[" "], forwards), Ok(Protocol::WebSocket(UNNAMED)));
            assert_eq!(of("websocket", socket, &["a,"], forwards), Err(403));
            assert_eq!(of("websocket", socket, &[V4_TEXT, V4], forwards), Ok(Protocol::WebSocket(V4_TEXT)));
        }
        assert_eq!(of("websocket", socket, &[V1], true), Err(403));
        assert_eq!(of("SPDY/3.1", stream, &[], false), Err(403));
        assert_eq!(of("websocket", socket, &[TUNNEL], true), Ok(Protocol::WebSocket(TUNNEL)));
        assert_eq!(of("websocket", socket, &[V4], true), Ok(Protocol::WebSocket(V4)));
        assert_eq!(of("SPDY/3.1", stream, &["v9", V4, "v3.channel.k8s.io"], false), Ok(Protocol::Spdy(V4)));
        assert_eq!(of("SPDY/3.1", stream, &[FORWARD], true), Ok(Protocol::Spdy(FORWARD)));
        assert_eq!(of("h2c", stream, &[V4], false), Err(400));
    }
}
