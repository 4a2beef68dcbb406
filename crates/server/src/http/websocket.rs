//! A WebSocket as another way to read an answer that goes on: the events of a watch, and a pod's log. For clients in browsers.
//!
//! Follows upstream's `pkg/endpoints/handlers/watch.go` and `wsstream` (RFC 6455): whatever the client says is ignored.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use machinery::Status;
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::info_span;

use super::response::full;
use super::{Body, Connection};

/// How often the client is asked whether it is there.
const PING: Duration = Duration::from_secs(5);
/// How long it may take to end its side once this one has.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest message of a client that is read, to be ignored.
const LONGEST_MESSAGE: usize = 64 << 10;

/// The forms in which a log is sent; the first is that of a client who names none.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// What becomes of an answer's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Each line is a text.
    Lines,
    /// Pieces as they come.
    Binary,
    /// Likewise, as texts in base64.
    Base64,
}

/// A client that wants a WebSocket.
pub(crate) struct WebSocket {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    /// What it offers.
    protocols: Vec<String>,
}

impl WebSocket {
    /// The client of a request, if that is what it asks for.
    ///
    /// # Errors
    /// 400 if it asks for it in a wrong way.
    pub(crate) fn of(request: &mut Request<Body>) -> Result<Option<Self>, Status> {
        let headers = request.headers();
        let is_one = *request.method() == Method::GET
            && has(headers, &CONNECTION, "upgrade")
            && has(headers, &UPGRADE, "websocket");
        if !is_one {
            return Ok(None);
        }
        let wrong = || Status::bad_request("the request has no proper Sec-WebSocket-Key");
        let accept =
            headers.get(SEC_WEBSOCKET_KEY).map(|key| accept_key(key.as_bytes())).ok_or_else(wrong)?;
        let accept = HeaderValue::from_str(&accept).map_err(|_| wrong())?;
        let protocols = words(headers, &SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
        Ok(Some(WebSocket { upgrade: hyper::upgrade::on(request), accept, protocols }))
    }

    /// Sends the lines of an answer as messages. `closing` ends it, as does the end of the connection.
    ///
    /// # Errors
    /// 406 for an answer that has no lines, and 400 for a client that offers protocols to choose from.
    pub(crate) fn lines(
        self,
        answer: Response<Body>,
        connection: Option<&Connection>,
        closing: watch::Receiver<bool>,
    ) -> Result<Response<Body>, Status> {
        let media_type = answer.headers().get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !media_type.is_some_and(|media_type| media_type.starts_with(b"application/json")) {
            let why = "only the following media types are accepted over a WebSocket: application/json";
            return Err(Status::new(406, "NotAcceptable", why));
        }
        let protocol = match self.protocols.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            _ => return Err(Status::bad_request("a WebSocket of a watch has one protocol at most")),
        };
        Ok(self.carry(answer, (Form::Lines, protocol), connection.cloned(), closing))
    }

    /// Sends an answer piece by piece, in the first form that the client offers and that there is.
    ///
    /// # Errors
    /// 403 if there is none.
    pub(crate) fn pieces(
        self,
        answer: Response<Body>,
        connection: Option<&Connection>,
        closing: watch::Receiver<bool>,
    ) -> Result<Response<Body>, Status> {
        let form = |protocol: &str| match protocol {
            BINARY => Some(Form::Binary),
            BASE64 => Some(Form::Base64),
            _ => None,
        };
        let chosen = self.protocols.iter().find_map(|name| Some((form(name)?, Some(name.clone()))));
        let chosen = match chosen {
            Some(chosen) => chosen,
            None if self.protocols.is_empty() => (Form::Binary, None),
            None => {
                let why = format!(
                    "requested protocol(s) are not supported: [{}]; supports [ {BASE64} {BINARY}]",
                    self.protocols.join(" ")
                );
                return Err(Status::new(403, "Forbidden", why));
            }
        };
        Ok(self.carry(answer, chosen, connection.cloned(), closing))
    }

    fn carry(
        self,
        answer: Response<Body>,
        (form, protocol): (Form, Option<String>),
        connection: Option<Connection>,
        mut closing: watch::Receiver<bool>,
    ) -> Response<Body> {
        let WebSocket { upgrade, accept, .. } = self;
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = protocol.and_then(|protocol| HeaderValue::from_str(&protocol).ok()) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        tasks::spawn(info_span!("websocket"), async move {
            let upgraded = match upgrade.await {
                Ok(upgraded) => upgraded,
                Err(error) => return tracing::debug!(%error, "a client went before the protocol changed"),
            };
            tokio::select! {
                () = speak(upgraded, answer.into_body(), form) => {}
                _ = closing.wait_for(|closing| *closing) => {}
                () = Connection::over(connection) => {}
            }
        });
        response
    }
}

/// Sends a body as messages, until it or its client ends.
async fn speak(upgraded: Upgraded, mut body: Body, form: Form) {
    let mut config = WebSocketConfig::default();
    config.write_buffer_size = 0;
    config.max_message_size = Some(LONGEST_MESSAGE);
    config.max_frame_size = Some(LONGEST_MESSAGE);
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (mut to_client, mut from_client) = socket.split();
    let (mut begun, mut ping) = (BytesMut::new(), interval(PING));
    // What isn't sent yet: it counts as unread for as long as it is here, and what nobody reads ends the connection.
    let mut unread = Vec::new();
    // As upstream: a client that reads a log learns at once that it is there.
    if form != Form::Lines && to_client.send(message(form, Bytes::new())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            part = body.frame() => {
                let Some(Ok(part)) = part else { break };
                let Ok(part) = part.into_data() else { continue };
                unread.push(part.clone());
                for piece in pieces(&mut begun, form, part) {
                    if to_client.send(message(form, piece)).await.is_err() {
                        return;
                    }
                }
                if begun.is_empty() {
                    unread.clear();
                }
            }
            said = from_client.next() => match said {
                Some(Ok(Message::Close(_))) => break,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            _ = ping.tick() => {
                if to_client.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = timeout(FAREWELL, async {
        let _ = to_client.close().await;
        while let Some(Ok(_)) = from_client.next().await {}
    })
    .await;
}

/// What of an answer is a message by now; `begun` is a line whose end is still to come.
fn pieces(begun: &mut BytesMut, form: Form, part: Bytes) -> Vec<Bytes> {
    if form != Form::Lines {
        return if part.is_empty() { Vec::new() } else { vec![part] };
    }
    // What was there has no end of a line: a long line that comes in many parts is searched once.
    let mut searched = begun.len();
    begun.extend_from_slice(&part);
    let mut lines = Vec::new();
    while let Some(end) = begun[searched..].iter().position(|byte| *byte == b'\n') {
        lines.push(begun.split_to(searched + end + 1).freeze());
        searched = 0;
    }
    lines
}

fn message(form: Form, piece: Bytes) -> Message {
    match form {
        Form::Lines => Message::text(String::from_utf8_lossy(&piece).into_owned()),
        Form::Binary => Message::Binary(piece),
        Form::Base64 => Message::text(STANDARD.encode(&piece)),
    }
}

/// The answer to a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2).
fn accept_key(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    STANDARD.encode(digest)
}

/// The words of a header that is a list of them.
fn words<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// Whether a header that is a list of words has one, in whatever case.
pub(crate) fn has(headers: &HeaderMap, name: &http::HeaderName, wanted: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_lines_or_pieces_as_they_come() {
        let mut begun = BytesMut::new();
        let mut lines =
            |part: &'static str| pieces(&mut begun, Form::Lines, Bytes::from_static(part.as_bytes()));
        assert_eq!(lines("{\"a\":1}\n{\"b\""), ["{\"a\":1}\n"]);
        assert_eq!(lines(":2}"), [""; 0]);
        assert_eq!(lines("\n{}\n"), ["{\"b\":2}\n", "{}\n"]);
        let piece = Bytes::from_static(b"hi\nho");
        assert_eq!(pieces(&mut BytesMut::new(), Form::Binary, piece.clone()), ["hi\nho"]);
        assert_eq!(message(Form::Binary, piece.clone()), Message::Binary(piece.clone()));
        assert_eq!(message(Form::Base64, piece), Message::text("aGkKaG8="));
    }
}
