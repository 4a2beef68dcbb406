//! WebSocket: the handshake, the numbered channels of `v5.channel.k8s.io` and of what was before, and the older form of
//! port-forward over them.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::HeaderMap;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tasks::SpawnIn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::info_span;

use super::forward::Ports;
use super::session::{CallerEnd, PIECE, size_of};
use crate::container::Source;

pub(super) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// The longest message that is taken: clients write files in one.
const LONGEST_MESSAGE: usize = 16 << 20;
/// How often the caller is asked whether it is there. A caller who is gone is noticed by what can't be sent to it,
/// also while nothing is read from it because the process takes no more.
const PING: Duration = Duration::from_secs(5);
/// How long a caller may take to end its side once this one has.
const FAREWELL: Duration = Duration::from_secs(2);

/// The answer to a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2).
pub(super) fn accept_key(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    STANDARD.encode(digest)
}

/// The first protocol of ours among those that the caller offers; the empty one, if we have it, where it offers none.
pub(super) fn offered<'a>(headers: &HeaderMap, name: &str, ours: &[&'a str]) -> Option<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let values: Vec<&str> = values.filter(|value| !value.trim().is_empty()).collect();
    if values.is_empty() {
        return ours.iter().copied().find(|ours| ours.is_empty());
    }
    let mut theirs = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    theirs.find_map(|theirs| ours.iter().copied().find(|ours| !ours.is_empty() && *ours == theirs))
}

/// The connection as a WebSocket.
pub(super) async fn accept(upgraded: Upgraded) -> WebSocket {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = PIECE;
    config.write_buffer_size = 0;
    config.max_message_size = Some(LONGEST_MESSAGE);
    config.max_frame_size = Some(LONGEST_MESSAGE);
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// With v5, before the number of a channel whose sender has ended.
const CLOSE: u8 = 255;

/// How messages say their channel and what is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The channel's number as a byte.
    Binary,
    /// The number as a digit, and the content as base64.
    Text,
}

impl Form {
    fn write(self, channel: u8, content: &[u8]) -> Message {
        match self {
            Form::Binary => {
                let mut message = BytesMut::with_capacity(content.len() + 1);
                message.put_u8(channel);
                message.extend_from_slice(content);
                Message::Binary(message.freeze())
            }
            Form::Text => {
                let mut message = char::from(b'0'.wrapping_add(channel)).to_string();
                STANDARD.encode_string(content, &mut message);
                Message::text(message)
            }
        }
    }

    /// The message as it is in the binary form; nothing for what is none, which upstream passes over too.
    fn read(self, message: Message) -> Option<Bytes> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return None,
        };
        let (channel, content) = bytes.split_first()?;
        match self {
            Form::Binary => Some(bytes),
            Form::Text => {
                let mut plain = vec![channel.wrapping_sub(b'0')];
                STANDARD.decode_vec(content, &mut plain).ok()?;
                Some(plain.into())
            }
        }
    }
}

/// What both sides of a session say by its channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spoken {
    pub(super) form: Form,
    /// Whether the caller says when its input ends (since v5).
    pub(super) closes: bool,
    /// Whether the caller gets the process's whole end as a status (since v4); before, only what went wrong, in words.
    pub(super) tells_status: bool,
}

/// What a message of the caller means.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Input(Bytes),
    Size(Bytes),
    InputEnds,
    Nothing,
}

fn told(mut message: Bytes, closes: bool) -> Told {
    if message.is_empty() {
        return Told::Nothing;
    }
    let content = message.split_off(1);
    match message[0] {
        STDIN if content.is_empty() => Told::Nothing,
        STDIN => Told::Input(content),
        RESIZE => Told::Size(content),
        CLOSE if closes && content.first() == Some(&STDIN) => Told::InputEnds,
        _ => Told::Nothing,
    }
}

/// Leads a session over channels. `first` is the lowest that the caller reads.
pub(super) async fn channels(
    socket: WebSocket,
    mut end: CallerEnd,
    first: Option<Source>,
    Spoken { form, closes, tells_status }: Spoken,
) {
    let (mut sink, mut stream) = socket.split();
    let (mut input, size) = (end.input.take(), end.size.clone());
    let listening = async {
        while let Some(Ok(message)) = stream.next().await {
            let Some(bytes) = form.read(message) else { continue };
            match told(bytes, closes) {
                Told::Input(piece) => {
                    if let Some(to) = &input
                        && to.send(piece).await.is_err()
                    {
                        input = None;
                    }
                }
                Told::Size(text) => {
                    if let Some(told) = size_of(&text) {
                        size.send_replace(Some(told));
                    }
                }
                Told::InputEnds => input = None,
                Told::Nothing => {}
            }
        }
    };
    let speaking = async {
        // As upstream: says that the connection stands.
        let first = first.map_or(ERROR, channel_of);
        sink.send(form.write(first, b"")).await?;
        let mut ping = tokio::time::interval(PING);
        loop {
            tokio::select! {
                piece = end.output.recv() => match piece {
                    Some((source, bytes)) => sink.send(form.write(channel_of(source), &bytes)).await?,
                    None => break,
                },
                _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await?,
            }
        }
        let status = end.ended().await.status();
        let said = if tells_status {
            Some(status.to_string())
        } else {
            status["message"].as_str().map(str::to_owned)
        };
        if let Some(said) = said {
            sink.send(form.write(ERROR, said.as_bytes())).await?;
        }
        Ok::<_, Error>(())
    };
    let ended = tokio::select! {
        () = listening => return,
        ended = speaking => ended,
    };
    if ended.is_ok() {
        say_goodbye(sink, stream).await;
    }
}

fn channel_of(source: Source) -> u8 {
    match source {
        Source::Stdout => STDOUT,
        Source::Stderr => STDERR,
    }
}

/// Ends a WebSocket in good order.
pub(super) async fn say_goodbye(mut sink: SplitSink<WebSocket, Message>, mut stream: SplitStream<WebSocket>) {
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let farewell = async {
        let _ = sink.send(Message::Close(Some(close))).await;
        while let Some(Ok(_)) = stream.next().await {}
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// Forwards ports over channels, two for each: data, and what went wrong. One connection a port, which is how the
/// clients for Python and Rust do it.
pub(super) async fn forward(socket: WebSocket, ports: Arc<Ports>, wanted: Vec<u16>, form: Form) {
    let (mut sink, mut stream) = socket.split();
    let (send, mut outgoing) = mpsc::channel::<Message>(4);
    let mut inputs = Vec::new();
    let mut connections = tokio::task::JoinSet::new();
    for (port, channel) in wanted.into_iter().zip((0..=u8::MAX).step_by(2)) {
        let (input, inputs_of_port) = mpsc::channel(4);
        inputs.push(Some(input));
        connections.spawn_in(
            info_span!("forward", port),
            one_port(ports.clone(), port, channel, inputs_of_port, Output { to: send.clone(), form }),
        );
    }
    drop(send);
    let listening = async {
        while let Some(Ok(message)) = stream.next().await {
            let Some(mut bytes) = form.read(message) else { continue };
            let content = bytes.split_off(1);
            let slot = inputs.get_mut(usize::from(bytes[0] / 2)).filter(|_| bytes[0] % 2 == 0);
            if let Some(slot) = slot
                && let Some(input) = slot
                && input.send(content).await.is_err()
            {
                *slot = None;
            }
        }
    };
    let speaking = async {
        let mut ping = tokio::time::interval(PING);
        loop {
            tokio::select! {
                message = outgoing.recv() => match message {
                    Some(message) => sink.send(message).await?,
                    None => return Ok::<_, Error>(()),
                },
                _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await?,
            }
        }
    };
    let ended = tokio::select! {
        () = listening => return,
        () = ports.gone() => Ok(()),
        ended = speaking => ended,
    };
    if ended.is_ok() {
        say_goodbye(sink, stream).await;
    }
}

/// The way to the caller.
struct Output {
    to: mpsc::Sender<Message>,
    form: Form,
}

impl Output {
    async fn send(&self, channel: u8, content: &[u8]) -> Result<(), mpsc::error::SendError<Message>> {
        self.to.send(self.form.write(channel, content)).await
    }
}

/// One port: its number on both channels, then what comes and goes.
async fn one_port(
    ports: Arc<Ports>,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    output: Output,
) {
    for channel in [channel, channel + 1] {
        if output.send(channel, &port.to_le_bytes()).await.is_err() {
            return;
        }
    }
    let stream = match ports.connect(port).await {
        Ok(stream) => stream,
        Err(why) => {
            let _ = output.send(channel + 1, why.as_bytes()).await;
            return;
        }
    };
    let (mut reader, mut writer) = stream.into_split();
    let inward = async {
        while let Some(piece) = input.recv().await {
            if writer.write_all(&piece).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    };
    let outward = async {
        let mut held = BytesMut::new();
        loop {
            held.reserve(PIECE);
            match reader.read_buf(&mut held).await {
                Ok(1..) if output.send(channel, &held.split()).await.is_ok() => {}
                _ => return,
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_answered_as_there() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_go_by_their_first_byte() {
        let of = |bytes: &[u8], closes| told(Bytes::copy_from_slice(bytes), closes);
        assert_eq!(of(b"\0abc", true), Told::Input(Bytes::from_static(b"abc")));
        assert_eq!(of(b"\0", true), Told::Nothing);
        assert_eq!(of(b"\x04{}", true), Told::Size(Bytes::from_static(b"{}")));
        assert_eq!(of(b"\xff\0", true), Told::InputEnds);
        assert_eq!(of(b"\xff\0", false), Told::Nothing);
        assert_eq!(of(b"", true), Told::Nothing);
    }

    #[test]
    fn texts_say_the_same_as_bytes() {
        for form in [Form::Binary, Form::Text] {
            let read = form.read(form.write(4, b"{}\0"));
            assert_eq!(read, Some(Bytes::from_static(b"\x04{}\0")));
            assert_eq!(form.read(Message::binary(Bytes::new())), None);
        }
        assert_eq!(Form::Text.write(1, b"\n"), Message::text("1Cg=="));
        assert_eq!(Form::Text.read(Message::text("0Zm9vCg==")), Some(Bytes::from_static(b"\0foo\n")));
        assert_eq!(Form::Text.read(Message::text("0Zm9")), None);
    }

    proptest! {
        #[test]
        fn no_message_and_no_size_panics(bytes: Vec<u8>, closes: bool) {
            let _ = size_of(&bytes);
            let _ = told(bytes.into(), closes);
        }
    }
}
