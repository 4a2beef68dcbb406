//! The key that heartbeats are signed with.

use std::fmt;
use std::fmt::Write;
use std::path::Path;

use ring::hkdf;
use zeroize::Zeroizing;

use crate::{Error, folder};

const FILE: &str = "heartbeat.key";
const SALT: &[u8] = b"holdfast";
const PURPOSE: &[u8] = b"heartbeats, version 1";

/// 32 bytes that all hosts of a cluster share. Derived from the authority's key, from which they don't lead
/// back, so a host needs only these.
#[derive(Clone, PartialEq, Eq)]
pub struct HeartbeatKey(Zeroizing<[u8; 32]>);

impl HeartbeatKey {
    /// The key in `bytes`.
    pub fn new(bytes: [u8; 32]) -> Self {
        HeartbeatKey(Zeroizing::new(bytes))
    }

    /// HKDF (RFC 5869) with SHA-256 of a secret.
    pub(crate) fn derive(secret: &[u8]) -> Result<Self, Error> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT);
        let mut bytes = [0; 32];
        salt.extract(secret)
            .expand(&[PURPOSE], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut bytes))
            .map_err(|_| Error::unusable("the authority's key", "no heartbeat key can be derived from it"))?;
        Ok(HeartbeatKey::new(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Writes it to `heartbeat.key` in a folder, as hexadecimal digits that only the owner may read.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in self.0.iter() {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
        folder::write_secret(&folder.join(FILE), &text)
    }

    /// Reads what [`save`](HeartbeatKey::save) wrote.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Unusable`].
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let text = Zeroizing::new(folder::read(&path)?);
        let digits = text.trim().as_bytes();
        let wrong = || Error::unusable(&path.display().to_string(), "it must be 64 hexadecimal digits");
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or_else(wrong);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Ok(HeartbeatKey::new(bytes))
    }
}

impl fmt::Debug for HeartbeatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeartbeatKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_key_is_loaded_as_it_was_and_a_broken_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = HeartbeatKey::derive(b"a secret").unwrap();
        key.save(folder.path()).unwrap();
        assert_eq!(HeartbeatKey::load(folder.path()).unwrap(), key);
        assert_ne!(HeartbeatKey::derive(b"another").unwrap(), key);

        for text in ["", "00", &"é".repeat(32), &"x".repeat(64)] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert!(matches!(HeartbeatKey::load(folder.path()), Err(Error::Unusable { .. })), "{text:?}");
        }
    }
}
