//! Layers come compressed, whatever their media type says: it is seen from how they begin, as containerd sees it.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

const GZIP: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878, 3.1.1.
const ZSTD: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// RFC 8878, 3.1.2: frames that say nothing, as `zstd:chunked` and `estargz` have them; the lowest four bits may be any.
const ZSTD_SKIPPED: u32 = 0x184D_2A50;
const BUFFER: usize = 64 << 10;

/// What `source` holds, decompressed if it is compressed.
pub(crate) fn decompress<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = [0; 4];
    let count = fill(&mut source, &mut head)?;
    let whole = Cursor::new(head).take(count as u64).chain(source);
    let whole = BufReader::with_capacity(BUFFER, whole);
    Ok(match compression(&head[..count]) {
        Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(whole)),
        Some(Compression::Zstd) => {
            Box::new(BufReader::with_capacity(BUFFER, Zstd { state: State::Between(whole) }))
        }
        None => Box::new(whole),
    })
}

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

/// How something is compressed that begins so.
pub(crate) fn compression(head: &[u8]) -> Option<Compression> {
    if head.starts_with(&GZIP) {
        return Some(Compression::Gzip);
    }
    let magic = u32::from_le_bytes(head.get(..4)?.try_into().ok()?);
    (magic.to_le_bytes() == ZSTD || magic & !0xf == ZSTD_SKIPPED).then_some(Compression::Zstd)
}

/// Reads until `buffer` is full or there is no more.
pub(crate) fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match source.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Zstandard of several frames, which the decoder reads one of.
struct Zstd<R: Read> {
    state: State<R>,
}

enum State<R: Read> {
    Between(R),
    Inside(StreamingDecoder<Chain<Cursor<[u8; 4]>, R>, Box<FrameDecoder>>),
    Ended,
}

impl<R: BufRead> Zstd<R> {
    /// Goes to the next frame; whether there is one.
    fn begin(&mut self, mut source: R) -> io::Result<bool> {
        loop {
            let mut magic = [0; 4];
            match fill(&mut source, &mut magic)? {
                0 => return Ok(false),
                4 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            if u32::from_le_bytes(magic) & !0xf != ZSTD_SKIPPED {
                let source = Cursor::new(magic).chain(source);
                let decoder = StreamingDecoder::new_with_decoder(source, Box::new(FrameDecoder::new()));
                self.state = State::Inside(decoder.map_err(io::Error::other)?);
                return Ok(true);
            }
            let mut length = [0; 4];
            source.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut source.by_ref().take(length), &mut io::sink())? < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let State::Inside(decoder) = &mut self.state {
                let count = decoder.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
            }
            let source = match std::mem::replace(&mut self.state, State::Ended) {
                State::Between(source) => source,
                State::Inside(decoder) => decoder.into_inner().into_inner().1,
                State::Ended => return Ok(0),
            };
            if !self.begin(source)? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        decompress(bytes)?.read_to_end(&mut whole)?;
        Ok(whole)
    }

    #[test]
    fn what_is_compressed_in_pieces_is_read_whole() {
        let long = (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(plain(&gzip(&long)).unwrap(), long);
        assert_eq!(plain(&zstd(&long)).unwrap(), long);
        assert_eq!(plain(&long).unwrap(), long);
        for short in [&b""[..], b"\x1f", b"abc"] {
            assert_eq!(plain(short).unwrap(), short);
        }
        assert_eq!(plain(&[gzip(b"ab"), gzip(b"c")].concat()).unwrap(), b"abc");
        let skipped = [&0x184D_2A5F_u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"xyz"].concat();
        let frames = [skipped.clone(), zstd(b"ab"), skipped.clone(), zstd(b"c"), skipped].concat();
        assert_eq!(plain(&frames).unwrap(), b"abc");
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for whole in [gzip(&[7; 5000]), zstd(&[7; 5000])] {
            for length in 5..whole.len() {
                assert!(plain(&whole[..length]).is_err(), "{length} of {}", whole.len());
            }
        }
        assert!(plain(&[gzip(b"a"), b"junk".to_vec()].concat()).is_err());
        assert!(plain(&[zstd(b"a"), b"junk".to_vec()].concat()).is_err());
        assert!(plain(&[&0x184D_2A50_u32.to_le_bytes()[..], &9u32.to_le_bytes()].concat()).is_err());
    }
}
