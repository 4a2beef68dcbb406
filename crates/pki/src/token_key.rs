//! The key that tokens of service accounts are signed with.

use std::fmt;
use std::path::Path;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};

use crate::{Error, SecretText, folder};

const FILE: &str = "sa.key";
const WHAT: &str = "the key of service accounts' tokens";

/// A key on P-256 that all hosts of a cluster share: what one has signed, each of them believes (ES256 of
/// RFC 7518).
pub struct TokenKey {
    pem: SecretText,
    pair: EcdsaKeyPair,
    random: SystemRandom,
    /// The point, uncompressed: 4, x, y.
    point: Vec<u8>,
    fingerprint: Vec<u8>,
}

impl TokenKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`Error::Unusable`] if there is no randomness to be had.
    pub fn create() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| Error::unusable(WHAT, e))?;
        TokenKey::from_pem(SecretText::new(key.serialize_pem()))
    }

    /// The key in a PEM text (PKCS #8).
    ///
    /// # Errors
    /// [`Error::Unusable`] if it is no key on P-256.
    pub fn from_pem(pem: SecretText) -> Result<Self, Error> {
        let key = KeyPair::from_pem(pem.expose()).map_err(|error| Error::unusable(WHAT, error))?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random)
            .map_err(|error| Error::unusable(WHAT, error))?;
        let fingerprint = digest(&SHA256, &key.subject_public_key_info()).as_ref().to_vec();
        Ok(TokenKey { pem, pair, random, point: key.public_key_raw().to_vec(), fingerprint })
    }

    /// The key itself, as PEM.
    pub fn pem(&self) -> &SecretText {
        &self.pem
    }

    /// Writes it to `sa.key` in a folder, for the owner's eyes alone.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        folder::write_secret(&folder.join(FILE), self.pem.expose())
    }

    /// Reads what [`save`](TokenKey::save) wrote.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Unusable`].
    pub fn load(folder: &Path) -> Result<Self, Error> {
        TokenKey::from_pem(SecretText::new(folder::read(&folder.join(FILE))?))
    }

    /// The key in a folder, made there if there is none.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Unusable`].
    pub fn load_or_create(folder: &Path) -> Result<Self, Error> {
        if folder.join(FILE).exists() {
            return TokenKey::load(folder);
        }
        let key = TokenKey::create()?;
        key.save(folder)?;
        Ok(key)
    }

    /// SHA-256 of the public key: the same at every host, another one for every other key.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// The public key's coordinates, x and y.
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        self.point[1..].split_at(self.point.len() / 2)
    }

    /// Signs a message: r and s, 32 bytes each.
    ///
    /// # Errors
    /// [`Error::Unusable`] if there is no randomness to be had.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.pair.sign(&self.random, message);
        signed.map(|signature| signature.as_ref().to_vec()).map_err(|error| Error::unusable(WHAT, error))
    }

    /// Whether a signature is this key's of that message.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_host_signed_another_believes() {
        let folder = tempfile::tempdir().unwrap();
        let one = TokenKey::load_or_create(folder.path()).unwrap();
        let other = TokenKey::load_or_create(folder.path()).unwrap();
        let signature = one.sign(b"a message").unwrap();
        assert!(other.has_signed(b"a message", &signature));
        assert!(!other.has_signed(b"another", &signature) && !other.has_signed(b"a message", b"short"));
        assert_eq!(one.fingerprint(), other.fingerprint());
        assert_eq!((one.coordinates().0.len(), one.coordinates().1.len()), (32, 32));
        let stranger = TokenKey::create().unwrap();
        assert!(!stranger.has_signed(b"a message", &signature));
        assert_ne!(stranger.fingerprint(), one.fingerprint());
    }
}
