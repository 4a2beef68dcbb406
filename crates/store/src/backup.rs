//! The whole map at one revision as a file, and back.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};

use crate::embedded::codec::{
    Decoder, Malformed, key_value_size, put_key_value, put_number, put_revision, put_signed,
};
use crate::{KeyRange, KeyValue, LeaseId, Revision, State};

const MAGIC: &[u8; 15] = b"HOLDFAST-BACKUP";
const VERSION: u8 = 1;
/// Magic word, version, and the whole file's length.
const HEAD: usize = MAGIC.len() + 1 + size_of::<u64>();
/// The checksum follows a body of whole blocks, as in an etcd snapshot: `etcdctl snapshot save` looks for it.
const BLOCK: usize = 512;
/// How much of a file is made at a time.
const PIECE: usize = 64 * 1024;
/// How far a restored map's revision lies ahead of its backup's. What the old cluster wrote after the backup is
/// lost, and its revisions must not come again: a client that remembers one would take it for something it is not
/// (etcd's `--bump-revision`, whose documentation has this number).
const LEAP: u64 = 1_000_000_000;

/// All keys and leases at one revision.
///
/// A file of it is a magic word, the version and the file's length, then numbers and byte strings as in the
/// engine's own snapshots, zeroes up to a whole block, and the SHA-256 of all before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    revision: Revision,
    keys: Vec<KeyValue>,
    leases: Vec<(LeaseId, u64)>,
}

/// Why a file is no backup that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Another kind of file.
    #[error("it isn't a backup of Holdfast, or its first bytes are damaged")]
    Foreign,
    /// Made by a newer program.
    #[error("it is a backup of version {0}, and this program knows {VERSION}: use the newer program")]
    Version(u8),
    /// Something is missing.
    #[error("it is cut off: {found} of its {length} bytes are there; take another copy of it")]
    CutOff {
        /// The bytes that are there.
        found: u64,
        /// The bytes that it had.
        length: u64,
    },
    /// Something was changed.
    #[error("it is damaged: {0}; take another copy of it")]
    Damaged(&'static str),
}

impl From<Malformed> for BackupError {
    fn from(malformed: Malformed) -> Self {
        BackupError::Damaged(malformed.0)
    }
}

impl Backup {
    /// From a file.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn decode(mut file: Bytes) -> Result<Self, BackupError> {
        let found = file.len() as u64;
        if !file.starts_with(MAGIC) {
            return Err(BackupError::Foreign);
        }
        let (Some(version), Some(length)) = (
            file.get(MAGIC.len()),
            file.get(MAGIC.len() + 1..HEAD).and_then(|length| length.try_into().ok()),
        ) else {
            return Err(BackupError::CutOff { found, length: HEAD as u64 });
        };
        if *version != VERSION {
            return Err(BackupError::Version(*version));
        }
        let length = u64::from_be_bytes(length);
        if found < length {
            return Err(BackupError::CutOff { found, length });
        }
        let body = file.len().saturating_sub(SHA256_OUTPUT_LEN);
        if body < HEAD {
            return Err(BackupError::CutOff { found, length: (HEAD + SHA256_OUTPUT_LEN) as u64 });
        }
        let checksum = file.split_off(body);
        if digest(&SHA256, &file).as_ref() != &checksum[..] {
            return Err(BackupError::Damaged("its checksum does not match"));
        }
        let mut d = Decoder(file.slice(HEAD..));
        let revision = d.revision()?;
        let leases = d.list(|d| Ok((LeaseId(d.signed()?), d.number()?)))?;
        let keys = d.list(Decoder::key_value)?;
        // Nobody has to guess a checksum: whatever a file holds may have the right one.
        if revision.0 > i64::MAX as u64 - LEAP {
            return Err(BackupError::Damaged("its revision is too high to go on from"));
        }
        if !keys.is_sorted_by(|one, next| one.key < next.key) {
            return Err(BackupError::Damaged("its keys are not in order"));
        }
        if keys.iter().any(|kv| kv.mod_revision > revision || kv.create_revision > kv.mod_revision) {
            return Err(BackupError::Damaged("a key is from after its revision"));
        }
        Ok(Backup { revision, keys, leases })
    }

    /// The revision that it shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The keys, in order.
    pub fn keys(&self) -> &[KeyValue] {
        &self.keys
    }

    /// Fits the keys to the place where they are to be restored: `fit` may give a key another value, and drops
    /// it by answering `false`.
    pub fn fit(&mut self, fit: impl FnMut(&mut KeyValue) -> bool) {
        self.keys.retain_mut(fit);
    }

    /// The map that a new cluster begins with. Keys have the revisions that they had; the map's own lies far
    /// ahead and all history before it counts as compacted, so that a client of the old cluster is made to read
    /// anew instead of getting something wrong. Leases have all their time again.
    pub fn into_state(self) -> State {
        State::loaded(Revision(self.revision.0 + LEAP), self.keys, self.leases)
    }
}

/// A backup's file, made piece by piece: the state is never there twice.
pub struct BackupFile {
    state: Arc<State>,
    left: u64,
    checksum: Context,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Head,
    /// The keys from this one on.
    Keys(Bytes),
    Padding,
    Done,
}

impl BackupFile {
    /// Of a state.
    pub fn new(state: Arc<State>) -> Self {
        let all = KeyRange::prefix("");
        let size = |kv: &KeyValue| key_value_size(&state.sealing().at_rest(kv));
        let keys: usize = state.range(&all).map(|kv| size(kv)).sum();
        let body = (Self::head(&state, 0).len() + keys).next_multiple_of(BLOCK);
        let left = (body + SHA256_OUTPUT_LEN) as u64;
        BackupFile { state, left, checksum: Context::new(&SHA256), step: Step::Head }
    }

    /// How many bytes are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn head(state: &State, length: u64) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.push(VERSION);
        head.put_u64(length);
        put_revision(&mut head, state.revision());
        let leases: Vec<_> = state.leases().collect();
        put_number(&mut head, leases.len() as u64);
        for (lease, seconds) in leases {
            put_signed(&mut head, lease.0);
            put_number(&mut head, seconds);
        }
        put_number(&mut head, state.len() as u64);
        head
    }
}

impl Iterator for BackupFile {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        match &self.step {
            Step::Head => {
                piece = Self::head(&self.state, self.left);
                self.step = Step::Keys(Bytes::new());
            }
            Step::Keys(from) => {
                let rest = KeyRange { start: from.clone(), end: None };
                let mut keys = self.state.range(&rest);
                let next = loop {
                    match keys.next() {
                        Some(kv) if piece.len() >= PIECE => break Some(kv.key.clone()),
                        Some(kv) => put_key_value(&mut piece, &self.state.sealing().at_rest(kv)),
                        None => break None,
                    }
                };
                self.step = next.map_or(Step::Padding, Step::Keys);
            }
            Step::Padding => {
                let checksum = SHA256_OUTPUT_LEN as u64;
                piece.resize(usize::try_from(self.left.saturating_sub(checksum)).unwrap_or(0), 0);
                self.checksum.update(&piece);
                self.left = 0;
                self.step = Step::Done;
                let mut piece = BytesMut::from(&piece[..]);
                piece.extend_from_slice(self.checksum.clone().finish().as_ref());
                return Some(piece.freeze());
            }
            Step::Done => return None,
        }
        self.checksum.update(&piece);
        self.left = self.left.saturating_sub(piece.len() as u64);
        Some(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Txn};

    /// A file as it would be with these revisions and keys, with the right length and checksum.
    fn file_of(revision: u64, keys: &[(&'static str, u64)]) -> Bytes {
        let mut file = MAGIC.to_vec();
        file.push(VERSION);
        file.put_u64(0);
        put_number(&mut file, revision);
        put_number(&mut file, 0);
        put_number(&mut file, keys.len() as u64);
        for (key, revision) in keys {
            let (key, value) = ((*key).into(), Bytes::new().into());
            let (create_revision, mod_revision) = (Revision(*revision), Revision(*revision));
            put_key_value(
                &mut file,
                &KeyValue { key, value, create_revision, mod_revision, version: 1, lease: LeaseId::NONE },
            );
        }
        let length = (file.len() + SHA256_OUTPUT_LEN) as u64;
        file[MAGIC.len() + 1..HEAD].copy_from_slice(&length.to_be_bytes());
        let checksum = digest(&SHA256, &file);
        file.extend_from_slice(checksum.as_ref());
        file.into()
    }

    #[test]
    fn what_no_cluster_can_begin_with_is_refused_whatever_its_checksum() {
        let begun = Backup::decode(file_of(9, &[("a", 8), ("b", 9)])).unwrap().into_state();
        assert_eq!((begun.len(), begun.revision()), (2, Revision(9 + LEAP)));
        for wrong in [
            file_of(u64::MAX, &[]),
            file_of(i64::MAX as u64, &[]),
            file_of(9, &[("b", 8), ("a", 9)]),
            file_of(9, &[("a", 8), ("a", 9)]),
            file_of(9, &[("a", 10)]),
        ] {
            assert!(matches!(Backup::decode(wrong), Err(BackupError::Damaged(_))));
        }
        // Its checksum lies where its head should.
        let mut short = [&MAGIC[..], &[VERSION], &[0; 7]].concat();
        let checksum = digest(&SHA256, &short);
        short.extend_from_slice(checksum.as_ref());
        assert!(matches!(Backup::decode(short.into()), Err(BackupError::CutOff { .. })));
    }

    fn sample(keys: usize) -> Arc<State> {
        let mut state = State::default();
        state.grant(LeaseId(7), 60);
        for n in 0..keys {
            let put = Op::Put {
                key: format!("/k/{n:05}").into(),
                value: vec![n as u8; n % 300].into(),
                lease: LeaseId(if n % 10 == 0 { 7 } else { 0 }),
            };
            state.apply(&Txn { success: vec![put], ..Txn::default() }).unwrap();
        }
        Arc::new(state)
    }

    fn file(state: &Arc<State>) -> Bytes {
        let mut made = BackupFile::new(state.clone());
        let length = made.left();
        let mut file = BytesMut::new();
        while let Some(piece) = made.next() {
            file.extend_from_slice(&piece);
            assert_eq!(made.left(), length - file.len() as u64);
        }
        assert_eq!(made.left(), 0);
        file.freeze()
    }

    #[test]
    fn what_was_saved_is_there_again() {
        for keys in [0, 1, 3000] {
            let state = sample(keys);
            let file = file(&state);
            assert_eq!(file.len() % BLOCK, SHA256_OUTPUT_LEN);
            let backup = Backup::decode(file).unwrap();
            assert_eq!((backup.revision(), backup.keys().len()), (state.revision(), keys));
            let restored = backup.into_state();
            let all = KeyRange::prefix("");
            assert!(restored.range(&all).eq(state.range(&all)));
            assert!(restored.leases().eq(state.leases()));
            assert!(restored.revision().0 > state.revision().0 + 1_000_000);
            assert!(restored.check_history(state.revision()).is_err(), "the old history is none of the new");
        }
    }

    #[test]
    fn keys_can_be_left_out_and_rewritten() {
        let mut backup = Backup::decode(file(&sample(20))).unwrap();
        backup.fit(|kv| {
            kv.value = "new".into();
            kv.key != "/k/00003"
        });
        let state = backup.into_state();
        assert_eq!((state.len(), state.get(b"/k/00004").unwrap().value.bytes()), (19, "new".into()));
    }

    #[test]
    fn every_changed_bit_and_every_missing_byte_is_found() {
        let file = file(&sample(12));
        for place in 0..file.len() {
            for bit in 0..8 {
                let mut broken = file.to_vec();
                broken[place] ^= 1 << bit;
                assert!(Backup::decode(broken.into()).is_err(), "bit {bit} of byte {place}");
            }
        }
        for length in 0..file.len() {
            let refused = Backup::decode(file.slice(..length)).unwrap_err();
            assert_eq!(
                matches!(refused, BackupError::CutOff { .. }),
                length >= MAGIC.len(),
                "{length} bytes"
            );
        }
        let longer = [&file[..], b"x"].concat();
        assert!(Backup::decode(longer.into()).is_err());
    }
}
