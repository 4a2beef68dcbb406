//! Headers as SPDY writes them: names and values behind their lengths, in one zlib stream a direction that begins
//! with a dictionary.

use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;

/// How long a block of headers may become: it is made of few bytes quickly.
const LONGEST: usize = 64 << 10;

/// A block that can't be read: after it, the compression's state is lost, so that the connection has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    /// It is no zlib stream, or one with another dictionary.
    #[error("headers that can't be decompressed: {0}")]
    Compression(String),
    /// It becomes too long.
    #[error("headers of more than {LONGEST} bytes")]
    TooLong,
    /// Lengths that don't fit.
    #[error("headers whose lengths don't fit")]
    Malformed,
}

/// The headers of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header, whatever the case of its name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What the caller's headers are read with.
#[derive(Debug)]
pub(super) struct Reader {
    zlib: Decompress,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { zlib: Decompress::new(true) }
    }
}

impl Reader {
    /// Reads the next block of the connection.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let wrong = |why: &dyn std::fmt::Display| HeaderError::Compression(why.to_string());
        let mut text = Vec::with_capacity(1024);
        let mut rest = block;
        // An empty rest with a full buffer: there may be more to come out.
        while !rest.is_empty() || text.len() == text.capacity() {
            if text.len() == text.capacity() {
                if text.len() >= LONGEST {
                    return Err(HeaderError::TooLong);
                }
                text.reserve(text.len());
            }
            let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
            let result = self.zlib.decompress_vec(rest, &mut text, FlushDecompress::Sync);
            let consumed = usize::try_from(self.zlib.total_in() - read).unwrap_or(rest.len());
            rest = rest.get(consumed..).unwrap_or_default();
            match result {
                Ok(Status::StreamEnd) => return Err(wrong(&"the stream has an end")),
                Ok(_) if consumed == 0 && self.zlib.total_out() == written => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|error| wrong(&error))?;
                }
                Err(error) => return Err(wrong(&error)),
            }
        }
        parse(text.into()).ok_or(HeaderError::Malformed)
    }
}

fn parse(mut text: Bytes) -> Option<Headers> {
    let count = text.try_get_u32().ok()?;
    let mut headers = Vec::new();
    let mut part = || {
        let length = usize::try_from(text.try_get_u32().ok()?).ok()?;
        let part = (length <= text.len()).then(|| text.split_to(length))?;
        Some(String::from_utf8_lossy(&part).into_owned())
    };
    for _ in 0..count {
        headers.push((part()?, part()?));
    }
    Some(Headers(headers))
}

/// What headers are written with.
#[derive(Debug)]
pub(super) struct Writer {
    zlib: Compress,
}

impl Writer {
    /// A writer at the begin of a connection.
    ///
    /// # Errors
    /// If zlib refuses the dictionary.
    pub(super) fn new() -> Result<Self, HeaderError> {
        let mut zlib = Compress::new(Compression::fast(), true);
        let set = zlib.set_dictionary(&dictionary());
        set.map_err(|error| HeaderError::Compression(error.to_string()))?;
        Ok(Writer { zlib })
    }

    /// The next block of the connection.
    ///
    /// # Errors
    /// If zlib refuses to go on.
    pub(super) fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, HeaderError> {
        let mut text = Vec::new();
        // Lengths of a handful of short words.
        text.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            text.extend_from_slice(&(part.len() as u32).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        let mut block = Vec::with_capacity(text.len() + 128);
        let mut rest = text.as_slice();
        loop {
            let read = self.zlib.total_in();
            let result = self.zlib.compress_vec(rest, &mut block, FlushCompress::Sync);
            result.map_err(|error| HeaderError::Compression(error.to_string()))?;
            let consumed = usize::try_from(self.zlib.total_in() - read).unwrap_or(rest.len());
            rest = rest.get(consumed..).unwrap_or_default();
            if block.len() < block.capacity() && rest.is_empty() {
                return Ok(block);
            }
            block.reserve(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn long_enough(names: &[(String, String)]) -> Vec<(&str, &str)> {
        names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn what_grows_without_bound_is_cut_off() {
        let huge = "a".repeat(LONGEST * 4);
        let block = Writer::new().unwrap().write(&[("x", &huge)]).unwrap();
        assert!(block.len() < 8 << 10);
        assert_eq!(Reader::default().read(&block), Err(HeaderError::TooLong));
    }

    proptest! {
        #[test]
        fn blocks_of_one_connection_are_read_as_written(
            blocks in proptest::collection::vec(
                proptest::collection::vec(("[a-z-]{1,20}", "\\PC{0,200}"), 0..6), 0..6)
        ) {
            let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::default());
            for headers in blocks {
                let block = writer.write(&long_enough(&headers)).unwrap();
                prop_assert_eq!(reader.read(&block).unwrap().0, headers);
            }
        }

        #[test]
        fn no_block_panics_or_hangs(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..4)) {
            let mut reader = Reader::default();
            for block in &blocks {
                let _ = reader.read(block);
            }
        }

        #[test]
        fn a_bent_block_does_not_panic_or_hang(at in 0_usize..200, to: u8) {
            let mut block = Writer::new().unwrap().write(&[("streamtype", "data"), ("port", "80")]).unwrap();
            let place = at % block.len();
            block[place] = to;
            let _ = Reader::default().read(&block);
        }

        #[test]
        fn no_text_panics(text: Vec<u8>) {
            let _ = parse(text.into());
        }
    }
}
