//! What carries SPDY's bytes: a connection of its own, or the messages of a WebSocket (KEP-4006).

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::streams::session::PIECE;
use crate::streams::websocket::WebSocket;

/// What carries the bytes.
pub(in crate::streams) enum Transport {
    Connection(Box<dyn Connection>),
    Tunnel(Box<WebSocket>),
}

/// A connection of bytes.
pub(in crate::streams) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

impl Transport {
    pub(super) fn split(self) -> (Incoming, Outgoing) {
        match self {
            Transport::Connection(connection) => {
                let (reader, writer) = tokio::io::split(connection);
                let incoming = Incoming::Connection(Box::new(reader), BytesMut::new());
                (incoming, Outgoing::Connection(Box::new(writer)))
            }
            Transport::Tunnel(socket) => {
                let (sink, stream) = (*socket).split();
                (Incoming::Tunnel(stream), Outgoing::Tunnel(sink))
            }
        }
    }
}

/// What arrives.
pub(super) enum Incoming {
    Connection(Box<dyn AsyncRead + Send + Unpin>, BytesMut),
    Tunnel(SplitStream<WebSocket>),
}

impl Incoming {
    /// The next bytes; none when the caller is gone.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Incoming::Connection(reader, held) => {
                held.reserve(PIECE);
                match reader.read_buf(held).await {
                    Ok(1..) => Some(held.split().freeze()),
                    _ => None,
                }
            }
            Incoming::Tunnel(stream) => loop {
                match stream.next().await?.ok()? {
                    Message::Binary(bytes) => return Some(bytes),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
        }
    }
}

/// What is sent.
pub(super) enum Outgoing {
    Connection(Box<dyn AsyncWrite + Send + Unpin>),
    Tunnel(SplitSink<WebSocket, Message>),
}

impl Outgoing {
    /// Sends; false if nothing can be sent any more.
    pub(super) async fn send(&mut self, bytes: Bytes) -> bool {
        match self {
            Outgoing::Connection(writer) => {
                writer.write_all(&bytes).await.is_ok() && writer.flush().await.is_ok()
            }
            Outgoing::Tunnel(sink) => sink.send(Message::Binary(bytes)).await.is_ok(),
        }
    }

    /// Ends this side.
    pub(super) async fn close(&mut self) {
        // A caller that is gone needs no goodbye.
        match self {
            Outgoing::Connection(writer) => drop(writer.shutdown().await),
            Outgoing::Tunnel(sink) => drop(sink.close().await),
        }
    }
}
