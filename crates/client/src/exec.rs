//! Commands that run in a pod, with their input and outputs: a WebSocket whose messages begin with the number of their channel
//! (`v5.channel.k8s.io`, KEP-4006).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::Error;

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ENDED: u8 = 3;
const SIZE: u8 = 4;
/// What follows is the number of a channel that has come to its end.
const CLOSE: u8 = 255;
/// The longest message that a server may send: agents read pieces of some tens of kilobytes.
const LONGEST: usize = 16 << 20;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The way to a command's input.
pub struct Input {
    sink: SplitSink<Socket, Message>,
    server: String,
}

/// What comes from a command.
pub struct Output {
    stream: SplitStream<Socket>,
    server: String,
}

/// A piece of what comes from a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Of its standard output.
    Out(Bytes),
    /// Of its standard error.
    Error(Bytes),
    /// It has ended: a `Status`, which says how.
    Ended(Value),
}

impl Input {
    /// Writes to the command's standard input.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.send(STDIN, bytes).await
    }

    /// Ends the command's standard input.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub async fn close(&mut self) -> Result<(), Error> {
        self.send(CLOSE, &[STDIN]).await
    }

    /// Says how large the terminal is now, in characters.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub async fn resize(&mut self, width: u16, height: u16) -> Result<(), Error> {
        let size = serde_json::json!({"Width": width, "Height": height});
        self.send(SIZE, size.to_string().as_bytes()).await
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Error> {
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.put_slice(bytes);
        let sent = self.sink.send(Message::Binary(message.freeze())).await;
        sent.map_err(|error| broken(&self.server, &error))
    }
}

impl Output {
    /// The next piece; none once the server has ended the connection.
    ///
    /// # Errors
    /// [`Error::Broken`], and [`Error::Answer`] for an end that makes no sense.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        while let Some(message) = self.stream.next().await {
            let bytes = match message {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Close(_)) => return Ok(None),
                Ok(_) => continue,
                Err(error) => return Err(broken(&self.server, &error)),
            };
            if let Some(piece) = piece(&bytes)? {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// What a message says; nothing for what is of no channel that concerns a caller, or is empty.
fn piece(message: &Bytes) -> Result<Option<Piece>, Error> {
    let Some((channel, rest)) = message.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Ok(None);
    };
    Ok(match *channel {
        STDOUT => Some(Piece::Out(message.slice(1..))),
        STDERR => Some(Piece::Error(message.slice(1..))),
        ENDED => {
            let status = serde_json::from_slice(rest);
            Some(Piece::Ended(status.map_err(|error| Error::Answer {
                path: "the command's end".to_owned(),
                why: error.to_string(),
            })?))
        }
        _ => None,
    })
}

/// What a request says that asks for such a connection. `key` is drawn for it (RFC 6455, section 4.1).
pub(crate) fn ask_for(headers: &mut HeaderMap, key: [u8; 16]) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    if let Ok(key) = HeaderValue::try_from(STANDARD.encode(key)) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
}

/// Whether the server speaks what was asked for.
pub(crate) fn is_agreed(headers: &HeaderMap) -> bool {
    headers.get(SEC_WEBSOCKET_PROTOCOL).is_some_and(|protocol| protocol == PROTOCOL)
}

/// Both ways of a connection that was agreed on.
pub(crate) async fn open(upgraded: Upgraded, server: &str) -> (Input, Output) {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(LONGEST);
    config.max_frame_size = Some(LONGEST);
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config)).await;
    let (sink, stream) = socket.split();
    (Input { sink, server: server.to_owned() }, Output { stream, server: server.to_owned() })
}

fn broken(server: &str, error: &tungstenite::Error) -> Error {
    Error::Broken { server: server.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_byte_of_a_message_says_what_it_is() {
        let read = |bytes: &[u8]| piece(&Bytes::copy_from_slice(bytes));
        assert_eq!(read(b"\x01out").unwrap(), Some(Piece::Out("out".into())));
        assert_eq!(read(b"\x02err").unwrap(), Some(Piece::Error("err".into())));
        let ended = json!({"status": "Success"});
        assert_eq!(read(b"\x03{\"status\":\"Success\"}").unwrap(), Some(Piece::Ended(ended)));
        for nothing in [&b""[..], b"\x01", b"\x09new", b"\xff\x01"] {
            assert_eq!(read(nothing).unwrap(), None, "{nothing:?}");
        }
        assert!(read(b"\x03{").is_err());
    }
}
