//! The state as a file: what `etcdctl snapshot save` brings home.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use store::{Condition, KeyRange, Op, State, Store, Txn};

use super::range::{key_value, signed};
use crate::proto::KeyValue;

const MAGIC: &[u8; 16] = b"HOLDFASTSNAPSHOT";
/// As in an etcd snapshot, a checksum follows a body of whole blocks: `etcdctl` looks for it.
const BLOCK: usize = 512;
/// How much a transaction of a restore carries, in keys and in bytes.
const BATCH_KEYS: usize = 100;
const BATCH_BYTES: usize = 512 * 1024;

/// All keys of a state at one revision.
///
/// Its file is Holdfast's own, not etcd's database: after a magic word come messages of etcd's kind, each after
/// its length (the revision as a key without a name, then every key), then zeroes up to a whole block, then the
/// SHA-256 of all before. Leases are not in it: they are promises of processes that are gone when it is restored.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    revision: i64,
    keys: Vec<KeyValue>,
}

/// Why a snapshot can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file isn't one of these.
    #[error("this isn't a snapshot of Holdfast's store (etcd's own snapshots are restored by etcd)")]
    Foreign,
    /// The file was changed or cut off.
    #[error("the snapshot is damaged: {0}; take another copy of it")]
    Damaged(&'static str),
    /// The store holds something already.
    #[error("the store holds {0} keys already: restore into an empty one")]
    NotEmpty(usize),
    /// The store refused a key.
    #[error("the snapshot can't be restored: {0}")]
    Store(#[from] store::Error),
}

impl Snapshot {
    /// Of a state.
    pub fn of(state: &State) -> Self {
        let keys = state.range(&KeyRange::prefix("")).map(|kv| key_value(kv)).collect();
        Snapshot { revision: signed(state.revision()), keys }
    }

    /// The revision that it shows.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// As a file.
    pub fn encode(&self) -> Bytes {
        let first = KeyValue { mod_revision: self.revision, ..KeyValue::default() };
        let mut file = BytesMut::from(&MAGIC[..]);
        file.put_u64(self.keys.len() as u64);
        for message in std::iter::once(&first).chain(&self.keys) {
            file.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
            message.encode_raw(&mut file);
        }
        file.put_bytes(0, file.len().next_multiple_of(BLOCK) - file.len());
        let checksum = digest(&SHA256, &file);
        file.extend_from_slice(checksum.as_ref());
        file.freeze()
    }

    /// From a file.
    ///
    /// # Errors
    /// [`SnapshotError::Foreign`] and [`SnapshotError::Damaged`].
    pub fn decode(mut file: Bytes) -> Result<Self, SnapshotError> {
        if !file.starts_with(MAGIC) {
            return Err(SnapshotError::Foreign);
        }
        let body =
            file.len().checked_sub(SHA256_OUTPUT_LEN).ok_or(SnapshotError::Damaged("it is cut off"))?;
        let checksum = file.split_off(body);
        if digest(&SHA256, &file).as_ref() != &checksum[..] {
            return Err(SnapshotError::Damaged("its checksum does not match"));
        }
        file.advance(MAGIC.len());
        let cut_off = |_| SnapshotError::Damaged("it ends within a key");
        let count = file.try_get_u64().map_err(cut_off)?;
        let mut message = || -> Result<KeyValue, SnapshotError> {
            let length = file.try_get_u32().map_err(cut_off)? as usize;
            if length > file.len() {
                return Err(SnapshotError::Damaged("it ends within a key"));
            }
            let malformed = |_| SnapshotError::Damaged("a key in it makes no sense");
            KeyValue::decode(file.split_to(length)).map_err(malformed)
        };
        let revision = message()?.mod_revision;
        let keys = (0..count).map(|_| message()).collect::<Result<_, _>>()?;
        Ok(Snapshot { revision, keys })
    }

    /// Puts all its keys into an empty store, in which their revisions begin anew.
    ///
    /// # Errors
    /// [`SnapshotError::NotEmpty`], [`SnapshotError::Store`].
    pub async fn restore(&self, store: &dyn Store) -> Result<(), SnapshotError> {
        let keys = store.read().await?.len();
        if keys > 0 {
            return Err(SnapshotError::NotEmpty(keys));
        }
        let mut txn = Txn::default();
        let mut bytes = 0;
        for kv in &self.keys {
            bytes += kv.key.len() + kv.value.len();
            txn.conditions.push(Condition::Version(kv.key.clone(), store::Compare::Equal, 0));
            txn.success.push(Op::Put { key: kv.key.clone(), value: kv.value.clone(), lease: 0 });
            if txn.success.len() >= BATCH_KEYS || bytes >= BATCH_BYTES {
                put(store, std::mem::take(&mut txn)).await?;
                bytes = 0;
            }
        }
        put(store, txn).await
    }
}

async fn put(store: &dyn Store, txn: Txn) -> Result<(), SnapshotError> {
    if txn.success.is_empty() || store.txn(txn).await?.succeeded {
        return Ok(());
    }
    Err(SnapshotError::NotEmpty(store.snapshot().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> State {
        let mut state = State::default();
        for n in 0..30 {
            state.apply(&Txn::put(format!("/k/{n}"), format!("value {n}"))).unwrap();
        }
        state
    }

    #[tokio::test]
    async fn what_was_saved_can_be_restored_once() {
        let state = sample();
        let file = Snapshot::of(&state).encode();
        assert_eq!(file.len() % BLOCK, SHA256_OUTPUT_LEN);
        let snapshot = Snapshot::decode(file).unwrap();
        assert_eq!((snapshot.revision(), snapshot.len()), (31, 30));
        let store = store::Memory::default();
        snapshot.restore(&store).await.unwrap();
        let pairs = |state: &State| -> Vec<_> {
            state.range(&KeyRange::prefix("")).map(|kv| (kv.key.clone(), kv.value.clone())).collect()
        };
        assert_eq!(pairs(&store.snapshot()), pairs(&state));
        assert!(matches!(snapshot.restore(&store).await, Err(SnapshotError::NotEmpty(30))));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let file = Snapshot::of(&sample()).encode();
        for place in 0..file.len() {
            let mut broken = file.to_vec();
            broken[place] ^= 1;
            assert!(Snapshot::decode(broken.into()).is_err(), "byte {place}");
        }
        for length in 0..file.len() {
            assert!(Snapshot::decode(file.slice(..length)).is_err(), "{length} bytes");
        }
    }
}
