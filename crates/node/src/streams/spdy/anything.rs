//! Bytes that may be SPDY, for those who look for mistakes.

use super::frame::{Decoder, Frame};
use super::headers::{Reader, Writer};

/// Reads what a caller sends, in pieces of this length, as a connection does: frames, and their headers. The answer is how many
/// frames there were, up to the first that makes a connection end.
pub fn read_spdy(bytes: &[u8], piece: usize) -> usize {
    let (mut decoder, mut reader) = (Decoder::default(), Reader::default());
    let mut frames = 0;
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(Frame::Open { block, .. } | Frame::MoreHeaders { block })) => {
                    if reader.read(&block).is_err() {
                        return frames;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return frames,
            }
            frames += 1;
        }
    }
    frames
}

/// The frames of a caller that opens a stream with these headers and sends data on it.
pub fn spdy(headers: &[(&str, &str)], data: &[u8]) -> Vec<u8> {
    let block = Writer::new().and_then(|mut writer| writer.write(headers)).unwrap_or_default();
    let mut frames =
        [&[0x80, 3, 0, 1, 1][..], &length(10 + block.len()), &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], &block]
            .concat();
    frames.extend([&[0, 0, 0, 1, 1][..], &length(data.len()), data].concat());
    frames
}

/// A length in the 24 bits that a frame has for it.
fn length(bytes: usize) -> [u8; 3] {
    let [_, length @ ..] = (bytes as u32).to_be_bytes();
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_sends_is_read_however_it_is_cut() {
        let sent = spdy(&[("streamtype", "data"), ("port", "80")], b"hello");
        for piece in [1, 7, 1000] {
            assert!(read_spdy(&sent, piece) >= 2);
        }
        assert_eq!(read_spdy(&[0x80, 9, 0, 1, 0, 0, 0, 0], 8), 0, "another version");
    }
}
