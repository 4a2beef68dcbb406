//! Digests: what content is named by, and checked against.

use std::fmt;
use std::io::{self, Read};

use ring::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Serialize};

use crate::Error;

/// How a digest is computed: those that OCI's image specification registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256, which practically all images use.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// Its name in a digest.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// The digest of some content, such as `sha256:e3b0c442…`: lower case, of a known algorithm and its length, so that it may
/// stand in a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Box<str>);

impl Digest {
    /// Reads `ALGORITHM:HEX`.
    ///
    /// # Errors
    /// If it is of another form, or of an algorithm that isn't known.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::InvalidDigest { digest: shortened(text), why: why.to_owned() };
        let (name, hex) = text.split_once(':').ok_or_else(|| wrong("it has no algorithm"))?;
        let algorithm = Algorithm::ALL.into_iter().find(|known| known.name() == name);
        let algorithm = algorithm.ok_or_else(|| wrong("unsupported digest algorithm"))?;
        if hex.len() != algorithm.hex_length() {
            return Err(wrong("invalid checksum digest length"));
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong("invalid checksum digest format"));
        }
        Ok(Digest(text.into()))
    }

    /// The SHA-256 of some bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        Algorithm::Sha256.of(bytes)
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// What stands after the colon.
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().name().len() + 1..]
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of some bytes.
    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        self.algorithm().of(bytes) == *self
    }
}

/// What an error says of a text that somebody sent.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0.into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Algorithm {
    fn context(self) -> Context {
        Context::new(match self {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        })
    }

    pub(crate) fn of(self, bytes: &[u8]) -> Digest {
        let mut context = self.context();
        context.update(bytes);
        self.finish(context)
    }

    fn finish(self, context: Context) -> Digest {
        let mut text = String::with_capacity(self.name().len() + 1 + self.hex_length());
        text.push_str(self.name());
        text.push(':');
        for byte in context.finish().as_ref() {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(half)]));
            }
        }
        Digest(text.into())
    }
}

/// A reader that computes the digest of what passes, and counts it.
pub(crate) struct Hashing<R> {
    source: R,
    algorithm: Algorithm,
    context: Context,
    passed: u64,
    /// No more than this may pass.
    most: u64,
    what: &'static str,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(source: R, algorithm: Algorithm, most: u64, what: &'static str) -> Self {
        Hashing { source, algorithm, context: algorithm.context(), passed: 0, most, what }
    }

    /// Reads what is left, and gives the digest and the length of all.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.algorithm.finish(self.context), self.passed))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.passed += count as u64;
        if self.passed > self.most {
            let (what, most) = (self.what, self.most);
            return Err(io::Error::other(crate::unpack::TooLong { what, most }));
        }
        self.context.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_is_no_digest_is_refused_with_the_reason() {
        assert_eq!(Digest::parse(EMPTY).unwrap().as_str(), EMPTY);
        let long = format!("sha512:{}", "0".repeat(128));
        assert_eq!(Digest::parse(&long).unwrap().hex(), "0".repeat(128));
        for (text, why) in [
            ("", "no algorithm"),
            ("e3b0", "no algorithm"),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", "unsupported digest algorithm"),
            ("sha256:e3b0", "length"),
            (&EMPTY.replace('e', "E"), "format"),
            (&EMPTY.replace("e3b0", "/../"), "format"),
        ] {
            let error = Digest::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn content_is_hashed_as_it_passes_and_no_more_than_is_allowed() {
        assert_eq!(Digest::sha256(b"").as_str(), EMPTY);
        let mut reader = Hashing::new(&b"abc"[..], Algorithm::Sha256, 3, "it");
        reader.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(reader.finish().unwrap(), (Digest::sha256(b"abc"), 3));
        let reader = Hashing::new(&b"abc"[..], Algorithm::Sha256, 2, "it");
        assert!(reader.finish().unwrap_err().to_string().contains("more than 2 bytes"));
        assert!(Algorithm::Sha512.of(b"").is_of(b""));
    }
}
