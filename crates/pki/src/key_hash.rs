//! What a public key is known by.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

use crate::{CertificateRequest, Error, Identity};

const PREFIX: &str = "sha256:";

/// SHA-256 of a public key (SubjectPublicKeyInfo, RFC 5280), written `sha256:` and 64 hexadecimal digits. An authority is known
/// by that of its key, which kubeadm calls `--discovery-token-ca-cert-hash`; a machine by that of the key that it made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash([u8; 32]);

/// A text that is no such hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not `sha256:` and 64 hexadecimal digits")]
pub struct NoHash;

impl KeyHash {
    /// Of a key in DER.
    fn of_key(key: &[u8]) -> Option<Self> {
        Some(KeyHash(digest(&SHA256, key).as_ref().try_into().ok()?))
    }

    /// Of the key that a certificate is for, if it is one.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        KeyHash::of_key(certificate.public_key().raw)
    }
}

impl CertificateRequest {
    /// The hash of the key that it is for.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn key_hash(&self) -> Result<KeyHash, Error> {
        KeyHash::of_key(&self.public_key).ok_or_else(|| Error::unusable("the request", "its key has no hash"))
    }
}

impl Identity {
    /// The hash of its key.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn key_hash(&self) -> Result<KeyHash, Error> {
        let own = self.chain()?.first().and_then(KeyHash::of);
        own.ok_or_else(|| Error::unusable("the certificate", "it has no key that can be read"))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyHash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let digits = text.strip_prefix(PREFIX).ok_or(NoHash)?.as_bytes();
        if digits.len() != 64 {
            return Err(NoHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(NoHash);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Ok(KeyHash(hash))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Authority;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let hash = Authority::create("a", now).unwrap().trust().unwrap().hash().unwrap();
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for wrong in ["", "sha256:", "sha256:00", &"0".repeat(64), &format!("sha256:{}", "x".repeat(64))] {
            assert_eq!(wrong.parse::<KeyHash>(), Err(NoHash), "{wrong}");
        }
    }
}
