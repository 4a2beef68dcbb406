//! A SPDY connection from the side that answers: the caller opens streams, what arrives goes to them, and what they
//! send goes out in turn.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::frame::{Decoder, Frame, FrameError, Reset, data, go_away, ping, reply, reset};
use super::headers::{HeaderError, Headers, Reader, Writer};
use super::transport::{Incoming, Outgoing, Transport};

/// How many streams may be open at a time.
const MOST_STREAMS: usize = 512;
/// How many pieces may lie ready for a stream until the connection waits for it.
const AHEAD: usize = 16;
/// How many frames may lie ready to be sent.
pub(super) const QUEUE: usize = 8;
/// How often the caller is asked whether it is there (see the WebSocket's).
const PING: Duration = Duration::from_secs(5);
/// How long a caller may take to read what was sent before a session was over.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// How long a caller that has read all may take to end its side.
const FAREWELL: Duration = Duration::from_secs(2);

/// A stream that the caller opened.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) headers: Headers,
    pub(super) input: mpsc::Receiver<Piece>,
    pub(super) output: Output,
}

/// What arrives on a stream. Without an end at last, it was reset, or the caller is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    End,
}

/// What goes out on a stream.
#[derive(Debug)]
pub(super) struct Output {
    stream: u32,
    frames: mpsc::Sender<Bytes>,
}

impl Output {
    /// Sends; false if the connection is gone.
    pub(super) async fn send(&self, bytes: &[u8]) -> bool {
        self.frames.send(data(self.stream, false, bytes)).await.is_ok()
    }

    /// Says that nothing more comes.
    pub(super) async fn end(&self) {
        // A caller that is gone needs no end.
        let _ = self.frames.send(data(self.stream, true, b"")).await;
    }

    /// Refuses the stream.
    pub(super) async fn reset(&self) {
        let _ = self.frames.send(reset(self.stream, Reset::Protocol)).await;
    }
}

/// What the caller sent and should not have.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the stream {0} is opened out of turn")]
    Turn(u32),
}

/// Serves a connection until `session` is over, which gets the streams as they are opened, or the caller is gone: then
/// the session is dropped.
pub(super) async fn serve<S: Future<Output = ()>>(
    transport: Transport,
    session: impl FnOnce(mpsc::Receiver<Stream>) -> S,
) {
    let (mut incoming, outgoing) = transport.split();
    let (frames, queue) = mpsc::channel(QUEUE);
    let (opened, streams) = mpsc::channel(1);
    // The side that answers counts its questions in even numbers.
    let mut speaking = pin!(speak(outgoing, queue, 0));
    let is_over = tokio::select! {
        listened = listen(&mut incoming, &frames, opened) => {
            if let Err(error) = listened {
                tracing::debug!(%error, "a caller speaks SPDY wrongly");
            }
            false
        }
        () = &mut speaking => false,
        () = session(streams) => true,
    };
    if is_over {
        // The queue may be full, so that the goodbye finds a place only while frames are sent.
        let goodbye = async move {
            let _ = frames.send(go_away(0)).await;
        };
        let said = async { tokio::join!(speaking, goodbye) };
        let mut heard = pin!(async { while incoming.next().await.is_some() {} });
        tokio::select! {
            () = &mut heard => return,
            _ = tokio::time::timeout(LAST_WORDS, said) => {}
        }
        let _ = tokio::time::timeout(FAREWELL, heard).await;
    }
}

/// Sends frames for as long as there are any to come, and asks now and then whether the other side is there, by every second
/// number after `id`.
pub(super) async fn speak(mut outgoing: Outgoing, mut queue: mpsc::Receiver<Bytes>, mut id: u32) {
    let mut tick = tokio::time::interval(PING);
    loop {
        let frame = tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => frame,
                None => return outgoing.close().await,
            },
            _ = tick.tick() => {
                id = id.wrapping_add(2);
                ping(id)
            }
        };
        if !outgoing.send(frame).await {
            return;
        }
    }
}

/// Hears until the caller is gone.
async fn listen(
    incoming: &mut Incoming,
    frames: &mpsc::Sender<Bytes>,
    opened: mpsc::Sender<Stream>,
) -> Result<(), Error> {
    let mut decoder = Decoder::default();
    let (mut reader, mut writer) = (Reader::default(), Writer::new()?);
    let mut open: HashMap<u32, mpsc::Sender<Piece>> = HashMap::new();
    let mut last = 0;
    while let Some(bytes) = incoming.next().await {
        decoder.push(&bytes);
        while let Some(frame) = decoder.next()? {
            match frame {
                Frame::Open { stream, fin, block } => {
                    let headers = reader.read(&block)?;
                    if stream % 2 == 0 || stream <= last {
                        return Err(Error::Turn(stream));
                    }
                    last = stream;
                    open.retain(|_, input| !input.is_closed());
                    if open.len() >= MOST_STREAMS {
                        let _ = frames.send(reset(stream, Reset::Refused)).await;
                        continue;
                    }
                    let (send, input) = mpsc::channel(AHEAD);
                    if fin {
                        let _ = send.send(Piece::End).await;
                    } else {
                        open.insert(stream, send);
                    }
                    let _ = frames.send(reply(stream, &writer.write(&[])?)).await;
                    let output = Output { stream, frames: frames.clone() };
                    if opened.send(Stream { headers, input, output }).await.is_err() {
                        return Ok(());
                    }
                }
                Frame::Data { stream, fin, bytes } => {
                    // Nobody may take it any more: then it is dropped.
                    let Some(input) = open.get(&stream) else { continue };
                    if !bytes.is_empty() {
                        let _ = input.send(Piece::Data(bytes)).await;
                    }
                    if fin {
                        let _ = input.send(Piece::End).await;
                        open.remove(&stream);
                    }
                }
                Frame::Reset { stream } => drop(open.remove(&stream)),
                Frame::Ping(id) if id % 2 == 1 => drop(frames.send(ping(id)).await),
                Frame::MoreHeaders { block } => drop(reader.read(&block)?),
                Frame::Ping(_) | Frame::GoAway | Frame::Other => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::streams::spdy::frame::tests::until;

    fn open(stream: u32, writer: &mut Writer, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = writer.write(headers).unwrap();
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend_from_slice(&(block.len() as u32 + 10).to_be_bytes());
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&block);
        frame
    }

    #[tokio::test]
    async fn streams_are_opened_used_and_ended() {
        let (mut caller, here) = tokio::io::duplex(1 << 16);
        let echo = |mut streams: mpsc::Receiver<Stream>| async move {
            let mut stream = streams.recv().await.unwrap();
            assert_eq!(stream.headers.get("StreamType"), Some("data"));
            while let Some(Piece::Data(bytes)) = stream.input.recv().await {
                stream.output.send(&bytes).await;
            }
            stream.output.end().await;
        };
        let served = tokio::spawn(serve(Transport::Connection(Box::new(here)), echo));
        let (mut writer, mut decoder) = (Writer::new().unwrap(), Decoder::default());
        caller.write_all(&open(1, &mut writer, &[("streamtype", "data")])).await.unwrap();
        caller.write_all(&ping(41)).await.unwrap();
        caller.write_all(&data(1, false, b"hello")).await.unwrap();
        caller.write_all(&data(1, true, b"")).await.unwrap();
        until(&mut caller, &mut decoder, |frame| *frame == Frame::Ping(41)).await;
        let is_data = |frame: &Frame| matches!(frame, Frame::Data { .. });
        let echoed = Frame::Data { stream: 1, fin: false, bytes: "hello".into() };
        assert_eq!(until(&mut caller, &mut decoder, is_data).await, echoed);
        let end = Frame::Data { stream: 1, fin: true, bytes: Bytes::new() };
        assert_eq!(until(&mut caller, &mut decoder, is_data).await, end);
        until(&mut caller, &mut decoder, |frame| *frame == Frame::GoAway).await;
        drop(caller);
        served.await.unwrap();
    }

    #[tokio::test]
    async fn all_that_a_session_sent_arrives_however_slowly_it_is_read() {
        // One of these numbers of frames fills the queue just as the session ends.
        for frames in 1..=QUEUE + 4 {
            let (mut caller, here) = tokio::io::duplex(64);
            let session = move |mut streams: mpsc::Receiver<Stream>| async move {
                let stream = streams.recv().await.unwrap();
                for _ in 0..frames {
                    stream.output.send(&[7; 1000]).await;
                }
                stream.output.end().await;
            };
            let served = tokio::spawn(serve(Transport::Connection(Box::new(here)), session));
            let (mut writer, mut decoder) = (Writer::new().unwrap(), Decoder::default());
            caller.write_all(&open(1, &mut writer, &[])).await.unwrap();
            // Everything else goes as far as it can before the first byte is read.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            let is_data = |frame: &Frame| matches!(frame, Frame::Data { .. });
            let (mut arrived, mut ended) = (0, false);
            while !ended {
                // A frame that comes in parts is shown in parts.
                if let Frame::Data { fin, bytes, .. } = until(&mut caller, &mut decoder, is_data).await {
                    (arrived, ended) = (arrived + bytes.len(), fin);
                }
            }
            assert_eq!(arrived, frames * 1000);
            until(&mut caller, &mut decoder, |frame| *frame == Frame::GoAway).await;
            drop(caller);
            served.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_session_is_dropped_when_its_caller_is_gone_or_speaks_wrongly() {
        let mut writer = Writer::new().unwrap();
        let even = open(2, &mut writer, &[]);
        for last_words in [&b""[..], b"GET / HTTP/1.1\r\n\r\n____________", &even] {
            let (mut caller, here) = tokio::io::duplex(1 << 16);
            let (alive, mut dropped) = mpsc::channel::<()>(1);
            let session = |_streams| async move {
                let _alive = alive;
                std::future::pending().await
            };
            let served = tokio::spawn(serve(Transport::Connection(Box::new(here)), session));
            caller.write_all(last_words).await.unwrap();
            let kept = (!last_words.starts_with(b"\x80")).then_some(caller.shutdown().await);
            served.await.unwrap();
            assert_eq!(dropped.recv().await, None, "{kept:?}");
        }
    }
}
