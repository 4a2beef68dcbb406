//! Keys that values are encrypted with wherever they lie: AES-256-GCM.
//!
//! A key itself encrypts nothing. Each process draws a salt and derives a key of its own from it (HKDF, RFC 5869), under which it counts
//! its nonces: so none comes twice, however often values are encrypted and by however many hosts. Kubernetes' KMS v2 does likewise.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{Error, SecretText};

const PURPOSE: &[u8] = b"holdfast values at rest, version 1";
const SALT: usize = 32;
const COUNT: usize = 8;
/// The most derived keys that are kept: each is one process that encrypted something, since the last snapshot mostly.
const MOST_DERIVED: usize = 1024;

/// Keys by name, of which the first may encrypt and all decrypt.
pub struct SealKeys {
    keys: Vec<Key>,
    own: Option<Own>,
    derived: Mutex<HashMap<Origin, Arc<LessSafeKey>>>,
}

/// What a key is derived from: the place of the one that was given, and the salt.
type Origin = (usize, [u8; SALT]);

struct Key {
    name: String,
    secret: Zeroizing<Vec<u8>>,
    opened: AtomicU64,
}

/// What this process encrypts with.
struct Own {
    /// The length of the key's name, the name, and the salt.
    head: Vec<u8>,
    key: LessSafeKey,
    count: AtomicU64,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.name)).finish()
    }
}

impl SealKeys {
    /// Keys by their names, 32 bytes each in base64. With `seals`, the first one encrypts.
    ///
    /// # Errors
    /// [`Error::Unusable`] for a key that is none, a name that is taken, too long or empty, and if there is no randomness to be had.
    pub fn new(given: Vec<(String, SecretText)>, seals: bool) -> Result<Self, Error> {
        let mut keys: Vec<Key> = Vec::with_capacity(given.len());
        for (name, secret) in given {
            let wrong = |why: &str| Error::unusable(&format!("the key {name:?}"), why);
            if name.is_empty() || name.len() > usize::from(u8::MAX) {
                return Err(wrong("a name has 1 to 255 bytes"));
            }
            if keys.iter().any(|key| key.name == name) {
                return Err(wrong("its name is there twice"));
            }
            let secret = STANDARD.decode(secret.expose().trim()).map_err(|_| wrong("it is no base64"))?;
            let secret = Zeroizing::new(secret);
            if secret.len() != AES_256_GCM.key_len() {
                return Err(wrong("it must have 32 bytes: `head -c 32 /dev/urandom | base64` makes one"));
            }
            keys.push(Key { name, secret, opened: AtomicU64::new(0) });
        }
        let own = match keys.first().filter(|_| seals) {
            Some(key) => Some(Own::draw(key)?),
            None => None,
        };
        Ok(SealKeys { keys, own, derived: Mutex::default() })
    }

    /// Whether there is a key that encrypts.
    pub fn seals(&self) -> bool {
        self.own.is_some()
    }

    /// A value encrypted and bound to what it is `about`, behind a `head`; none if no key encrypts, or the value has 64 GiB.
    pub fn seal(&self, head: &[u8], about: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let own = self.own.as_ref()?;
        let count = own.count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let tag = AES_256_GCM.tag_len();
        let mut sealed = Vec::with_capacity(head.len() + own.head.len() + COUNT + value.len() + tag);
        for part in [head, &own.head[..], &count[..]] {
            sealed.extend_from_slice(part);
        }
        let start = sealed.len();
        sealed.extend_from_slice(value);
        let tag =
            own.key.seal_in_place_separate_tag(nonce(count), Aad::from(about), &mut sealed[start..]).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// What was encrypted, without its head; none if it was about something else, was changed, or is of none of these keys.
    pub fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (length, rest) = sealed.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (salt, rest) = rest.split_first_chunk::<SALT>()?;
        let (count, rest) = rest.split_first_chunk::<COUNT>()?;
        let place = self.keys.iter().position(|key| key.name.as_bytes() == name)?;
        let key = self.derived(place, salt)?;
        let mut value = rest.to_vec();
        let length = key.open_in_place(nonce(*count), Aad::from(about), &mut value).ok()?.len();
        value.truncate(length);
        self.keys[place].opened.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// How many values were decrypted with each key, by its name.
    pub fn opened(&self) -> impl Iterator<Item = (&str, u64)> {
        self.keys.iter().map(|key| (key.name.as_str(), key.opened.load(Ordering::Relaxed)))
    }

    fn derived(&self, place: usize, salt: &[u8; SALT]) -> Option<Arc<LessSafeKey>> {
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = derived.get(&(place, *salt)) {
            return Some(key.clone());
        }
        if derived.len() >= MOST_DERIVED {
            derived.clear();
        }
        let key = Arc::new(derive(&self.keys[place].secret, salt)?);
        derived.insert((place, *salt), key.clone());
        Some(key)
    }
}

impl Own {
    fn draw(key: &Key) -> Result<Self, Error> {
        let wrong = |why: &str| Error::unusable(&format!("the key {:?}", key.name), why);
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt).map_err(|_| wrong("there is no randomness to be had"))?;
        let derived =
            derive(&key.secret, &salt).ok_or_else(|| wrong("no other key can be derived from it"))?;
        // It was looked at before: a name has 255 bytes at most.
        let length = u8::try_from(key.name.len()).unwrap_or(u8::MAX);
        let head = [&[length][..], key.name.as_bytes(), &salt[..]].concat();
        Ok(Own { head, key: derived, count: AtomicU64::new(0) })
    }
}

fn derive(secret: &[u8], salt: &[u8]) -> Option<LessSafeKey> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let purpose = [PURPOSE];
    let expanded = extracted.expand(&purpose, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

fn nonce(count: [u8; COUNT]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[12 - COUNT..].copy_from_slice(&count);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, byte: u8) -> (String, SecretText) {
        (name.to_owned(), SecretText::new(STANDARD.encode([byte; 32])))
    }

    #[test]
    fn a_value_opens_with_its_key_for_what_it_is_about_and_unchanged() {
        let keys = SealKeys::new(vec![key("new", 1), key("old", 2)], true).unwrap();
        let sealed = keys.seal(b"head", b"/a", b"word").unwrap();
        assert_eq!(sealed.len(), keys.seal(b"head", b"/a", b"word").unwrap().len());
        assert_ne!(sealed, keys.seal(b"head", b"/a", b"word").unwrap(), "another nonce");
        let body = sealed.strip_prefix(b"head").unwrap();
        assert_eq!(keys.open(b"/a", body).as_deref(), Some(&b"word"[..]));
        assert_eq!(keys.open(b"/b", body), None);
        for place in 0..body.len() {
            let mut changed = body.to_vec();
            changed[place] ^= 1;
            assert_eq!(keys.open(b"/a", &changed), None, "byte {place}");
            assert_eq!(keys.open(b"/a", &body[..place]), None, "{place} bytes");
        }

        // The same keys in another process, after a rotation, and under another name.
        let later = SealKeys::new(vec![key("newest", 3), key("new", 1)], true).unwrap();
        assert_eq!(later.open(b"/a", body).as_deref(), Some(&b"word"[..]));
        assert_eq!(later.opened().collect::<Vec<_>>(), [("newest", 0), ("new", 1)]);
        let other = SealKeys::new(vec![key("new", 9)], false).unwrap();
        assert_eq!((other.open(b"/a", body), other.seal(b"", b"/a", b"word")), (None, None));
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        for (keys, told) in [
            (vec![("a".to_owned(), SecretText::new("c2hvcnQ="))], "32 bytes"),
            (vec![("a".to_owned(), SecretText::new("not base64"))], "no base64"),
            (vec![key("a", 1), key("a", 2)], "twice"),
            (vec![key("", 1)], "1 to 255"),
        ] {
            let error = SealKeys::new(keys, true).unwrap_err().to_string();
            assert!(
                error.contains(told) && !error.contains("not base64") && !error.contains("c2hv"),
                "{error}"
            );
        }
    }
}
