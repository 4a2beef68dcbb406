//! Lets in clients that name no proper authority.
//!
//! etcdctl 3.4 asks for an endpoint's status with its whole URL as `:authority`, which RFC 9113 (section 8.3.1)
//! forbids and our HTTP/2 answers with `PROTOCOL_ERROR`. The authority is of no consequence here, so each
//! `:authority` is replaced by a word on its way in. All else passes as it came.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The client's greeting (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
/// The longest frame that a server takes unless it says otherwise; longer ones are refused behind this.
const LONGEST_FRAME: usize = 1 << 14;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in HPACK's static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;
/// Never longer than what it replaces: the client's dynamic table forgets entries no later than ours does.
const WORD: [u8; 2] = [1, b'e'];

/// A connection whose requests all name the same authority.
#[derive(Debug)]
pub struct OneAuthority<S> {
    inner: S,
    step: Step,
    /// What was made of the bytes that came, on its way to the reader.
    ready: BytesMut,
}

#[derive(Debug)]
enum Step {
    /// This many bytes pass as they are.
    Pass(usize),
    /// The head of a frame comes.
    Head([u8; FRAME_HEAD], usize),
    /// A frame of headers comes, until it has this many bytes.
    Headers(BytesMut, usize),
}

impl<S> OneAuthority<S> {
    /// Around a connection that speaks HTTP/2.
    pub fn new(inner: S) -> Self {
        OneAuthority { inner, step: Step::Pass(PREFACE), ready: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> OneAuthority<S> {
    /// Reads into `space`; 0 bytes at the end.
    fn read(inner: &mut S, context: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(space);
        ready!(Pin::new(inner).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for OneAuthority<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let OneAuthority { inner, step, ready } = self.get_mut();
        loop {
            if !ready.is_empty() {
                let length = ready.len().min(out.remaining());
                out.put_slice(&ready[..length]);
                ready.advance(length);
                return Poll::Ready(Ok(()));
            }
            match step {
                Step::Pass(0) => *step = Step::Head([0; FRAME_HEAD], 0),
                Step::Pass(left) => {
                    let space = out.initialize_unfilled_to(out.remaining().min(*left));
                    let length = ready!(Self::read(inner, context, space))?;
                    out.advance(length);
                    *left -= length;
                    return Poll::Ready(Ok(()));
                }
                Step::Head(head, filled) if *filled < FRAME_HEAD => {
                    let length = ready!(Self::read(inner, context, &mut head[*filled..]))?;
                    if length == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    *filled += length;
                }
                Step::Head(head, _) => {
                    let length =
                        usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                    // Headers that go on in further frames are longer than any of etcd's: they pass.
                    let ours = head[3] == HEADERS && head[4] & END_HEADERS != 0 && length <= LONGEST_FRAME;
                    if ours {
                        *step = Step::Headers(BytesMut::from(&head[..]), FRAME_HEAD + length);
                    } else {
                        ready.extend_from_slice(head);
                        *step = Step::Pass(length);
                    }
                }
                Step::Headers(frame, whole) if frame.len() < *whole => {
                    let filled = frame.len();
                    frame.resize(*whole, 0);
                    let read = Self::read(inner, context, &mut frame[filled..]);
                    frame.truncate(filled + if let Poll::Ready(Ok(length)) = &read { *length } else { 0 });
                    if ready!(read)? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Step::Headers(frame, _) => {
                    *ready = renamed(frame).unwrap_or_else(|| std::mem::take(frame));
                    *step = Step::Pass(0);
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OneAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// A whole frame of headers with another authority and without padding; none where it makes no sense, which is
/// for HTTP/2 to say.
fn renamed(frame: &[u8]) -> Option<BytesMut> {
    let (head, payload) = frame.split_at_checked(FRAME_HEAD)?;
    let flags = head[4];
    let (mut payload, padding) = match flags & PADDED {
        0 => (payload, 0),
        _ => payload.split_first().map(|(padding, rest)| (rest, usize::from(*padding)))?,
    };
    payload = payload.get(..payload.len().checked_sub(padding)?)?;
    let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
    let (priority, block) = payload.split_at_checked(priority)?;

    let mut new = BytesMut::with_capacity(frame.len());
    new.extend_from_slice(head);
    new.extend_from_slice(priority);
    let mut rest = block;
    while let Some(&first) = rest.first() {
        let field = rest;
        // The kinds of RFC 7541, section 6: an entry of a table, a literal that is remembered, the table's new
        // size, and literals that are not remembered.
        let (prefix, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = number(&mut rest, prefix)?;
        if is_literal && index == AUTHORITY {
            new.extend_from_slice(&field[..field.len() - rest.len()]);
            let value = rest;
            let is_empty = string(&mut rest)? == 0;
            let value = &value[..value.len() - rest.len()];
            new.extend_from_slice(if is_empty { value } else { &WORD });
            continue;
        }
        if is_literal {
            if index == 0 {
                string(&mut rest)?;
            }
            string(&mut rest)?;
        }
        new.extend_from_slice(&field[..field.len() - rest.len()]);
    }
    let length = u32::try_from(new.len() - FRAME_HEAD).ok()?.to_be_bytes();
    new[..3].copy_from_slice(&length[1..]);
    new[4] &= !PADDED;
    Some(new)
}

/// An integer of RFC 7541, section 5.1, whose first byte has `prefix` bits of it.
fn number(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, mut tail) = rest.split_first()?;
    let most = (1 << prefix) - 1;
    let mut number = usize::from(*first) & most;
    if number == most {
        // Whatever is longer than a frame is nothing to go on with.
        for shift in [0, 7, 14, 21] {
            let (byte, behind) = tail.split_first()?;
            tail = behind;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *rest = tail;
                return Some(number);
            }
        }
        return None;
    }
    *rest = tail;
    Some(number)
}

/// Passes over a string of RFC 7541, section 5.2, and tells its length in bytes as it stands there.
fn string(rest: &mut &[u8]) -> Option<usize> {
    let length = number(rest, 7)?;
    *rest = rest.get(length..)?;
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn the_authority_alone_is_replaced() {
        // An entry of the static table, :authority as a remembered literal, a name and a value of their own.
        let before = b"\x83\x41\x0bhttp://a:23\x00\x01n\x01v";
        let after = b"\x83\x41\x01e\x00\x01n\x01v";
        assert_eq!(renamed(&frame(1, 0x4, before)).unwrap(), frame(1, 0x4, after));
        let padded = [&[2, 0, 0, 0, 9, 7][..], before, &[0, 0]].concat();
        let plain = [&[0, 0, 0, 9, 7][..], after].concat();
        assert_eq!(renamed(&frame(1, 0x2c, &padded)).unwrap(), frame(1, 0x24, &plain));
        for broken in [&b"\x41\x0bhttp"[..], b"\x41", b"\x41\xff\xff\xff\xff\xff\xff", b"\x00"] {
            assert_eq!(renamed(&frame(1, 0x4, broken)), None);
        }
        assert_eq!(renamed(&frame(1, 0xc, &[9, 1])), None);
    }

    async fn through(stream: &[u8], cut: usize) -> Vec<u8> {
        let mut mock = in_pieces(stream, cut);
        let mut seen = Vec::new();
        OneAuthority::new(&mut mock).read_to_end(&mut seen).await.unwrap();
        seen
    }

    /// A reader that gives `cut` bytes at a time.
    fn in_pieces(stream: &[u8], cut: usize) -> impl AsyncRead + Unpin {
        struct Cut(Vec<u8>, usize);
        impl AsyncRead for Cut {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                out: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let length = self.1.min(out.remaining()).min(self.0.len());
                out.put_slice(&self.0.drain(..length).collect::<Vec<_>>());
                Poll::Ready(Ok(()))
            }
        }
        Cut(stream.to_vec(), cut)
    }

    proptest! {
        #[test]
        fn whatever_is_no_header_passes_as_it_came(noise in prop::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut stream = vec![b'P'; PREFACE];
            stream.extend(frame(0, 0, &noise));
            stream.extend(frame(4, 0, b"settings"));
            prop_assert_eq!(runtime.block_on(through(&stream, cut)), stream.clone());
            // Anything at all ends without a panic.
            let mut broken = stream.clone();
            broken.extend(frame(1, 0x2c, &noise));
            broken.extend(&noise);
            runtime.block_on(through(&broken, cut));
        }

        #[test]
        fn headers_come_through_however_they_are_cut(cut in 1usize..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut stream = vec![b'P'; PREFACE];
            let mut expected = stream.clone();
            for _ in 0..3 {
                stream.extend(frame(1, 0x4, b"\x83\x41\x0bhttp://a:23"));
                expected.extend(frame(1, 0x4, b"\x83\x41\x01e"));
                stream.extend(frame(0, 0, b"data"));
                expected.extend(frame(0, 0, b"data"));
            }
            prop_assert_eq!(runtime.block_on(through(&stream, cut)), expected);
        }
    }
}
