//! Values that lie sealed wherever somebody could find them: in the log, in snapshots on the disk and on their way to other
//! members, and in backups. In the state, in memory, they are open.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Condition, Error, KeyValue, Op, Txn};

/// What each sealed value begins with. No object does.
pub const SEALED: &[u8] = b"\0holdfast sealed 1\0";

/// Seals values and opens them. How that is done is its own; the store promises only where values are sealed.
pub trait Sealer: Send + Sync + 'static {
    /// Whether the values of a key are to be sealed.
    fn covers(&self, key: &[u8]) -> bool;

    /// A value sealed for its key alone, beginning with [`SEALED`]. However often a value is sealed, it has the same length.
    fn seal(&self, key: &[u8], value: &[u8]) -> Vec<u8>;

    /// What was sealed; none if it can't be opened: the key to it isn't there, or it is another key's value.
    fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

/// How values are sealed, if they are. What can't be opened stays as it is, sealed: it isn't lost, and opens once its key is there. A program
/// that can't do with it hears of it by its [`Sealer`].
#[derive(Clone, Default)]
pub struct Sealing(Option<Arc<dyn Sealer>>);

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Sealing" } else { "no Sealing" })
    }
}

impl Sealing {
    /// Values are sealed and opened so.
    pub fn by(sealer: Arc<dyn Sealer>) -> Self {
        Sealing(Some(sealer))
    }

    fn covering(&self, key: &[u8]) -> Option<&dyn Sealer> {
        self.0.as_deref().filter(|sealer| sealer.covers(key))
    }

    /// The value as it may lie around, where that isn't as it is. What is sealed already stays so.
    fn sealed(&self, key: &[u8], value: &[u8]) -> Option<Bytes> {
        let sealer = self.covering(key).filter(|_| !value.starts_with(SEALED))?;
        Some(sealer.seal(key, value).into())
    }

    /// The value that was sealed, if it was and can be opened.
    fn open(&self, key: &[u8], value: &[u8]) -> Option<Bytes> {
        let sealer = self.0.as_deref().filter(|_| value.starts_with(SEALED))?;
        sealer.open(key, value).map(Bytes::from)
    }

    /// A transaction as it may lie around.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that compares a value which is to be sealed, since what it is compared with would lie open; and for
    /// one with a value that passes for sealed.
    pub(crate) fn seal_txn(&self, mut txn: Txn) -> Result<Txn, Error> {
        if self.0.is_none() {
            return Ok(txn);
        }
        let compares = |condition: &Condition| matches!(condition, Condition::Value(key, ..) if self.covering(key).is_some());
        if txn.conditions.iter().any(compares) {
            let why = "values that are encrypted at rest can't be compared; compare the mod revision";
            return Err(Error::Invalid(why.into()));
        }
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            let Op::Put { key, value, .. } = op else { continue };
            if value.starts_with(SEALED) {
                return Err(Error::Invalid("the value begins as those do that are encrypted at rest".into()));
            }
            if let Some(sealed) = self.sealed(key, value) {
                *value = sealed;
            }
        }
        Ok(txn)
    }

    /// A transaction as it was before it was sealed.
    pub(crate) fn open_txn(&self, mut txn: Txn) -> Txn {
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            if let Op::Put { key, value, .. } = op
                && let Some(open) = self.open(key, value)
            {
                *value = open;
            }
        }
        txn
    }

    /// A key with its value as that may lie around.
    pub(crate) fn at_rest<'a>(&self, kv: &'a KeyValue) -> Cow<'a, KeyValue> {
        if self.covering(&kv.key).is_none() {
            return Cow::Borrowed(kv);
        }
        match self.sealed(&kv.key, &kv.value.bytes()) {
            Some(sealed) => Cow::Owned(KeyValue { value: sealed.into(), ..kv.clone() }),
            None => Cow::Borrowed(kv),
        }
    }

    /// A key with its value opened, where that was sealed.
    pub fn opened(&self, mut kv: KeyValue) -> KeyValue {
        if self.0.is_some()
            && let Some(open) = self.open(&kv.key, &kv.value.bytes())
        {
            kv.value = open.into();
        }
        kv
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Compare, LeaseId, Revision};

    /// Turns the bits of values below `/secret/` around; each begins with its key.
    pub(crate) struct Turned;

    impl Sealer for Turned {
        fn covers(&self, key: &[u8]) -> bool {
            key.starts_with(b"/secret/")
        }

        fn seal(&self, key: &[u8], value: &[u8]) -> Vec<u8> {
            [SEALED, key, &value.iter().map(|byte| !byte).collect::<Vec<u8>>()].concat()
        }

        fn open(&self, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
            let turned = sealed.strip_prefix(SEALED)?.strip_prefix(key)?;
            Some(turned.iter().map(|byte| !byte).collect())
        }
    }

    fn sealing() -> Sealing {
        Sealing::by(Arc::new(Turned))
    }

    #[test]
    fn a_transaction_lies_sealed_and_opens_as_it_was() {
        let put = Op::put("/secret/a", "word");
        let txn = Txn { failure: vec![put], ..Txn::put("/open/a", "word") };
        let sealed = sealing().seal_txn(txn.clone()).unwrap();
        assert_eq!(sealed.success, txn.success, "what isn't covered is as it was");
        let Op::Put { value, .. } = &sealed.failure[0] else { unreachable!() };
        assert!(value.starts_with(SEALED) && !value.windows(4).any(|part| part == b"word"));
        assert!(sealing().seal_txn(sealed.clone()).is_err(), "nobody's value passes for a sealed one");
        assert_eq!(sealing().open_txn(sealed.clone()), txn);
        assert_eq!(Sealing::default().open_txn(sealed.clone()), sealed, "without a key it stays");
        let compared = Condition::Value("/secret/a".into(), Compare::Equal, "word".into());
        assert!(sealing().seal_txn(Txn { conditions: vec![compared], ..Txn::default() }).is_err());
    }

    #[test]
    fn the_value_of_another_key_doesn_t_open() {
        let kv = |key: &str, value: Bytes| KeyValue {
            key: key.to_owned().into(),
            value: value.into(),
            create_revision: Revision(2),
            mod_revision: Revision(2),
            version: 1,
            lease: LeaseId::NONE,
        };
        let open = kv("/secret/a", "word".into());
        let resting = sealing().at_rest(&open).into_owned();
        assert_eq!(sealing().opened(resting.clone()), open);
        let moved = KeyValue { key: "/secret/b".into(), ..resting };
        assert_eq!(sealing().opened(moved.clone()), moved);
    }
}
