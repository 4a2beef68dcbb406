//! SPDY's frames: bytes to frames and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest control frame that is taken: headers are a few words.
const LONGEST_CONTROL: usize = 64 << 10;
/// The most of a data frame that is handed on at once.
const LONGEST_PIECE: usize = 16 << 10;
const VERSION: u16 = 3;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The caller opens a stream; `block` holds its headers, compressed.
    Open { stream: u32, fin: bool, block: Bytes },
    /// A part of a stream's data; `fin` with the last.
    Data { stream: u32, fin: bool, bytes: Bytes },
    /// The caller gives a stream up.
    Reset { stream: u32 },
    /// The caller asks for an answer, or answers.
    Ping(u32),
    /// The caller opens no more streams.
    GoAway,
    /// More headers of a stream: they go into the compression's state.
    MoreHeaders { block: Bytes },
    /// Something that asks for nothing.
    Other,
}

/// Bytes that are no SPDY.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// Another version of the protocol.
    #[error("a frame of SPDY version {0}, and only 3 is spoken here")]
    Version(u16),
    /// A control frame that is too long.
    #[error("a control frame of {0} bytes is too long")]
    TooLong(usize),
    /// A control frame that lacks its fields.
    #[error("a control frame of type {0} that is too short")]
    TooShort(u16),
}

/// Makes frames of what arrives, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    held: BytesMut,
    data: Option<Data>,
}

#[derive(Debug)]
struct Data {
    stream: u32,
    fin: bool,
    left: usize,
}

impl Decoder {
    /// Takes what arrived. Ask for [`next`](Decoder::next) until it has none, so that little is held.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next frame that is whole.
    ///
    /// # Errors
    /// If this is no SPDY: the connection has to end.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.data.is_some() {
            return Ok(self.next_piece());
        }
        let Some((head, rest)) = self.held.split_at_checked(8) else { return Ok(None) };
        let (first, flags) = (u32::from_be_bytes([head[0], head[1], head[2], head[3]]), head[4]);
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if first & 1 << 31 == 0 {
            self.data = Some(Data { stream: first, fin: flags & FIN != 0, left: length });
            self.held.advance(8);
            return Ok(self.next_piece());
        }
        let [version, kind] = [(first >> 16 & 0x7fff) as u16, (first & 0xffff) as u16];
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > LONGEST_CONTROL {
            return Err(FrameError::TooLong(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.held.advance(8);
        let mut body = self.held.split_to(length).freeze();
        let word = |body: &mut Bytes| body.try_get_u32().map_err(|_| FrameError::TooShort(kind));
        Ok(Some(match kind {
            SYN_STREAM => {
                let stream = word(&mut body)? & !(1 << 31);
                let _associated = word(&mut body)?;
                let _priority_and_slot = body.try_get_u16().map_err(|_| FrameError::TooShort(kind))?;
                Frame::Open { stream, fin: flags & FIN != 0, block: body }
            }
            RST_STREAM => Frame::Reset { stream: word(&mut body)? & !(1 << 31) },
            PING => Frame::Ping(word(&mut body)?),
            GOAWAY => Frame::GoAway,
            // SYN_REPLY and HEADERS look alike.
            SYN_REPLY | 8 => {
                let _stream = word(&mut body)?;
                Frame::MoreHeaders { block: body }
            }
            _ => Frame::Other,
        }))
    }

    fn next_piece(&mut self) -> Option<Frame> {
        let data = self.data.as_mut()?;
        if data.left > 0 && self.held.is_empty() {
            return None;
        }
        let bytes = self.held.split_to(data.left.min(self.held.len()).min(LONGEST_PIECE)).freeze();
        data.left -= bytes.len();
        let (stream, fin) = (data.stream, data.fin && data.left == 0);
        if data.left == 0 {
            self.data = None;
        }
        Some(Frame::Data { stream, fin, bytes })
    }
}

/// Data of a stream.
pub(super) fn data(stream: u32, fin: bool, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u32(stream & !(1 << 31));
    // Pieces are cut far shorter than 24 bits say.
    frame.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | bytes.len() as u32);
    frame.extend_from_slice(bytes);
    frame.freeze()
}

/// Opens a stream with these headers, compressed.
pub(super) fn open(stream: u32, block: &[u8]) -> Bytes {
    // No stream that it belongs to, and no priority.
    control(SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], block])
}

/// The answer to a stream that was opened.
pub(super) fn reply(stream: u32, block: &[u8]) -> Bytes {
    control(SYN_REPLY, &[&stream.to_be_bytes(), block])
}

/// Refuses a stream, or ends it before its time.
pub(super) fn reset(stream: u32, why: Reset) -> Bytes {
    control(RST_STREAM, &[&stream.to_be_bytes(), &(why as u32).to_be_bytes()])
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    Protocol = 1,
    Refused = 3,
}

/// A question whether the other side is there, or its answer.
pub(super) fn ping(id: u32) -> Bytes {
    control(PING, &[&id.to_be_bytes()])
}

/// Says that the connection ends, in good order.
pub(super) fn go_away(last: u32) -> Bytes {
    control(GOAWAY, &[&last.to_be_bytes(), &[0; 4]])
}

fn control(kind: u16, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(8 + length);
    frame.put_u16(1 << 15 | VERSION);
    frame.put_u16(kind);
    frame.put_u32(length as u32);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame.freeze()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;

    /// Reads frames until one fits, and answers it.
    pub(in crate::streams::spdy) async fn until(
        from: &mut DuplexStream,
        decoder: &mut Decoder,
        fits: impl Fn(&Frame) -> bool,
    ) -> Frame {
        loop {
            while let Some(frame) = decoder.next().unwrap() {
                if fits(&frame) {
                    return frame;
                }
            }
            let mut held = BytesMut::new();
            assert!(from.read_buf(&mut held).await.unwrap() > 0, "the connection ended");
            decoder.push(&held);
        }
    }

    fn all(decoder: &mut Decoder) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_is_no_spdy_is_refused_by_name() {
        let of = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            all(&mut decoder)
        };
        assert_eq!(of(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(of(&[0x80, 3, 0, 1, 0, 0xff, 0, 0]), Err(FrameError::TooLong(0xff_0000)));
        assert_eq!(of(&[0x80, 3, 0, 1, 0, 0, 0, 1, 9]), Err(FrameError::TooShort(1)));
        assert_eq!(of(&ping(7)), Ok(vec![Frame::Ping(7)]));
        assert_eq!(of(&reset(5, Reset::Refused)), Ok(vec![Frame::Reset { stream: 5 }]));
        assert_eq!(of(&go_away(3)), Ok(vec![Frame::GoAway]));
        assert_eq!(of(&reply(3, b"x")), Ok(vec![Frame::MoreHeaders { block: Bytes::from_static(b"x") }]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_grow(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut decoder = Decoder::default();
            for chunk in chunks {
                decoder.push(&chunk);
                if all(&mut decoder).is_err() {
                    break;
                }
                prop_assert!(decoder.held.len() <= LONGEST_CONTROL + 8);
            }
        }

        #[test]
        fn data_arrives_however_it_is_cut(
            sent in proptest::collection::vec((1_u32..5, proptest::collection::vec(any::<u8>(), 0..40_000)), 0..4),
            cuts in 1_usize..9000,
        ) {
            let mut wire = Vec::new();
            for (stream, bytes) in &sent {
                wire.extend_from_slice(&data(*stream, true, bytes));
            }
            let (mut decoder, mut got) = (Decoder::default(), Vec::new());
            let mut current = Vec::new();
            for chunk in wire.chunks(cuts) {
                decoder.push(chunk);
                for frame in all(&mut decoder).unwrap() {
                    let Frame::Data { stream, fin, bytes } = frame else { panic!("{frame:?}") };
                    current.extend_from_slice(&bytes);
                    if fin {
                        got.push((stream, std::mem::take(&mut current)));
                    }
                }
            }
            prop_assert_eq!(got, sent);
        }
    }
}
