//! The entries since (a little before) the last snapshot, in memory: Raft reads here and never from the disk.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::embedded::codec::Decoder;
use crate::embedded::wire::{entry, put_entry};
use crate::packing::{pack, unpack};

/// Raft's view of the log.
#[derive(Debug)]
pub struct MemoryLog {
    /// As recovered; Raft asks once.
    hard_state: HardState,
    members: ConfState,
    /// Index and term of the entry before the first one kept.
    compacted: (u64, u64),
    /// The older ones of the entries kept. They are all applied, so no leader replaces them.
    packs: VecDeque<Pack>,
    /// The entries behind those.
    entries: VecDeque<Entry>,
    /// How many bytes of the newest entries stay as they are: what followers are sent, and read while it is applied.
    fresh: u64,
    /// What all entries take as they are, and those that are not packed.
    bytes: u64,
    unpacked: u64,
    /// Index and term of the last entry applied: what a snapshot made now would reach to.
    applied: (u64, u64),
}

/// How many packs there are for as many bytes as stay as they are.
const PACKS: u64 = 8;
/// A pack takes at most one part in this many of its entries; otherwise they stay as they are.
const WORTH: usize = 2;

/// Entries that nobody needs unless a member was away or starts: what they ask for is mostly alike (versions of the same
/// objects), so that together they take a tenth.
#[derive(Debug)]
struct Pack {
    /// Index and term of the last one.
    last: (u64, u64),
    /// The index from which on each term holds.
    terms: Vec<(u64, u64)>,
    /// What they take as they are.
    bytes: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Packed { block: Box<[u8]>, length: usize },
    AsTheyAre(Vec<Entry>),
}

impl Pack {
    fn of(entries: Vec<Entry>) -> Option<Self> {
        let last = entries.last().map(|last| (last.index, last.term))?;
        let terms = entries.chunk_by(|one, next| one.term == next.term);
        let terms = terms.filter_map(|run| run.first()).map(|first| (first.index, first.term)).collect();
        let bytes = entries.iter().map(size).sum();
        let mut whole = Vec::with_capacity(bytes as usize);
        entries.iter().for_each(|entry| put_entry(&mut whole, entry));
        let content = match pack(&whole, b"", WORTH) {
            Some(block) => Content::Packed { block, length: whole.len() },
            None => Content::AsTheyAre(entries),
        };
        Some(Pack { last, terms, bytes, content })
    }

    fn entries(&self) -> Vec<Entry> {
        let (block, length) = match &self.content {
            Content::Packed { block, length } => (block, *length),
            Content::AsTheyAre(entries) => return entries.clone(),
        };
        let mut whole = Decoder(unpack(block, b"", length));
        // All of it was written by `put_entry`, and comes back as it was or not at all.
        std::iter::from_fn(|| entry(&mut whole).ok()).collect()
    }

    fn term(&self, index: u64) -> u64 {
        let at = self.terms.partition_point(|(first, _)| *first <= index);
        self.terms.get(at.saturating_sub(1)).map_or(self.last.1, |(_, term)| *term)
    }
}

/// What an entry takes in memory: itself, what it asks for and for whom.
pub fn size(entry: &Entry) -> u64 {
    (size_of::<Entry>() + entry.data.len() + entry.context.len()) as u64
}

impl MemoryLog {
    /// A log as recovered, of which the newest `fresh` bytes stay as they are in memory.
    pub fn new(
        fresh: u64,
        hard_state: HardState,
        members: ConfState,
        compacted: (u64, u64),
        entries: VecDeque<Entry>,
        applied: (u64, u64),
    ) -> Self {
        let bytes = entries.iter().map(size).sum();
        let packs = VecDeque::new();
        MemoryLog { hard_state, members, compacted, packs, entries, fresh, bytes, unpacked: bytes, applied }
    }

    /// The last entry's index.
    pub fn last(&self) -> u64 {
        self.packed().0 + self.entries.len() as u64
    }

    /// Index and term of the last entry that is packed, or of the one before the first.
    fn packed(&self) -> (u64, u64) {
        self.packs.back().map_or(self.compacted, |pack| pack.last)
    }

    /// The first entry's index.
    pub fn first(&self) -> u64 {
        self.compacted.0 + 1
    }

    /// What all entries take as they are; packed they take less.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends entries, replacing those from the first one's index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while let Some(pack) = self.packs.pop_back_if(|pack| pack.last.0 >= first.index) {
            self.unpacked += pack.bytes;
            pack.entries().into_iter().rev().for_each(|entry| self.entries.push_front(entry));
        }
        let keep = first.index.saturating_sub(self.packed().0 + 1) as usize;
        let replaced = self.entries.iter().skip(keep).map(size).sum::<u64>();
        let added = entries.iter().map(size).sum::<u64>();
        self.entries.truncate(keep);
        self.entries.extend(entries.iter().cloned());
        self.bytes = self.bytes + added - replaced;
        self.unpacked = self.unpacked + added - replaced;
    }

    /// The entries kept from an index on.
    pub fn entries_from(&self, index: u64) -> impl Iterator<Item = Entry> {
        let packs = self.packs.iter().skip(self.packs.partition_point(|pack| pack.last.0 < index));
        let older = packs.flat_map(Pack::entries).filter(move |entry| entry.index >= index);
        let skip = index.saturating_sub(self.packed().0 + 1) as usize;
        older.chain(self.entries.iter().skip(skip).cloned())
    }

    /// Starts anew behind a snapshot.
    pub fn restart(&mut self, index: u64, term: u64) {
        self.packs.clear();
        self.entries.clear();
        (self.bytes, self.unpacked) = (0, 0);
        self.compacted = (index, term);
    }

    /// Says what was applied, and packs what is not needed as it is any more.
    pub fn set_applied(&mut self, index: u64, term: u64) {
        self.applied = (index, term);
        let most = self.fresh / PACKS;
        loop {
            let (mut count, mut bytes) = (0, 0);
            for entry in self.entries.iter().take_while(|entry| entry.index <= index) {
                if bytes >= most {
                    break;
                }
                count += 1;
                bytes += size(entry);
            }
            if count == 0 || bytes < most || self.unpacked < self.fresh + bytes {
                break;
            }
            self.unpacked -= bytes;
            self.packs.extend(Pack::of(self.entries.drain(..count).collect()));
        }
    }

    /// Says who the members are after the last entry applied.
    pub fn set_members(&mut self, members: ConfState) {
        self.members = members;
    }

    /// Forgets what a snapshot at `saved` holds, as long as more than `keep` bytes are left: they spare a member that was
    /// away for a moment a snapshot.
    pub fn compact(&mut self, saved: u64, keep: u64) {
        // A pack goes as a whole, and none of it before there is enough behind it.
        while let Some(pack) =
            self.packs.pop_front_if(|pack| pack.last.0 <= saved && self.bytes > keep + pack.bytes)
        {
            self.bytes -= pack.bytes;
            self.compacted = pack.last;
        }
        if !self.packs.is_empty() {
            return;
        }
        while let Some(entry) = self.entries.front() {
            if entry.index > saved || self.bytes <= keep {
                break;
            }
            self.bytes -= size(entry);
            self.unpacked -= size(entry);
            self.compacted = (entry.index, entry.term);
            self.entries.pop_front();
        }
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut total = 0;
        let wanted = self.entries_from(low).take(high.saturating_sub(low) as usize);
        let within = wanted.take_while(|entry| {
            let is_first = total == 0;
            total += size(entry);
            is_first || total <= limit
        });
        Ok(within.collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        if index < self.compacted.0 {
            return Err(StorageError::Compacted.into());
        }
        let Some(place) = index.checked_sub(self.packed().0 + 1) else {
            let pack = self.packs.partition_point(|pack| pack.last.0 < index);
            return self.packs.get(pack).map(|pack| pack.term(index)).ok_or(StorageError::Unavailable.into());
        };
        self.entries.get(place as usize).map(|entry| entry.term).ok_or(StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Only what Raft needs to know of a snapshot made now; the core puts the machine in when it sends it.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.0 < request_index || self.applied.0 == 0 {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = self.applied;
        metadata.set_conf_state(self.members.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(fresh: u64) -> MemoryLog {
        MemoryLog::new(fresh, HardState::default(), ConfState::default(), (0, 0), VecDeque::new(), (0, 0))
    }

    fn one(index: u64, term: u64) -> Entry {
        let data = [&b"what is asked for is alike, "[..], &index.to_le_bytes()].concat();
        Entry { index, term, data: data.into(), ..Entry::default() }
    }

    /// What it keeps and what Raft asks it for must be the same, packed or not.
    fn same(packed: &MemoryLog, plain: &MemoryLog) -> Result<(), TestCaseError> {
        prop_assert_eq!(packed.last(), plain.last());
        let read = |log: &MemoryLog, low, high, most| {
            log.entries(low, high, most, GetEntriesContext::empty(false)).map_err(|error| error.to_string())
        };
        for low in [packed.first(), (packed.first() + packed.last()) / 2, packed.last()] {
            for most in [None, Some(1), Some(1000)] {
                let high = packed.last() + 1;
                prop_assert_eq!(read(packed, low, high, most), read(plain, low, high, most));
                prop_assert_eq!(read(packed, low, low + 3, most), read(plain, low, low + 3, most));
            }
            prop_assert_eq!(packed.term(low).ok(), plain.term(low).ok());
        }
        prop_assert_eq!(packed.term(packed.compacted.0).ok(), Some(packed.compacted.1));
        prop_assert!(packed.term(packed.last() + 1).is_err());
        let bytes = packed.entries_from(0).map(|entry| size(&entry)).sum::<u64>();
        prop_assert_eq!(packed.bytes(), bytes);
        prop_assert_eq!(packed.unpacked, packed.entries.iter().map(size).sum::<u64>());
        Ok(())
    }

    proptest! {
        #[test]
        fn a_packed_log_is_the_same_log(steps in proptest::collection::vec((0..5u8, 1..60u64), 1..60)) {
            let (mut packed, mut plain) = (log(2000), log(u64::MAX));
            let (mut term, mut applied, mut saved) = (1, 0, 0);
            for (kind, n) in steps {
                match kind {
                    0 | 1 => {
                        // A new leader may replace what isn't applied.
                        term += u64::from(n % 9 == 0);
                        let from = (packed.last() + 1 - (packed.last() - applied).min(n % 5)).max(1);
                        let entries: Vec<Entry> = (from..from + n).map(|index| one(index, term)).collect();
                        packed.append(&entries);
                        plain.append(&entries);
                    }
                    2 | 3 => {
                        applied = (applied + n).min(packed.last());
                        let term = packed.term(applied).unwrap();
                        packed.set_applied(applied, term);
                        plain.set_applied(applied, term);
                        saved = applied.saturating_sub(n / 2).max(saved);
                    }
                    _ => {
                        packed.compact(saved, 1000);
                        // Packs go as a whole, so that a little more may be left.
                        plain.compact(packed.first() - 1, 0);
                        let straddles = packed.packs.front().is_some_and(|pack| pack.last.0 > saved);
                        let little = packed.bytes() <= 1000 + 2 * (2000 / PACKS);
                        prop_assert!(packed.first() > saved || straddles || little);
                    }
                }
                same(&packed, &plain)?;
            }
        }
    }

    #[test]
    fn what_is_applied_takes_little() {
        let mut log = log(8000);
        let entries: Vec<Entry> = (1..1000).map(|index| one(index, 1)).collect();
        log.append(&entries);
        let bytes = log.bytes();
        log.set_applied(500, 1);
        assert!(log.packed().0 > 450, "all but the last pack of what is applied: {:?}", log.packed());
        log.set_applied(999, 1);
        let blocks = log.packs.iter().map(|pack| match &pack.content {
            Content::Packed { block, .. } => block.len() as u64,
            Content::AsTheyAre(_) => pack.bytes,
        });
        let taken = blocks.sum::<u64>() + log.unpacked;
        assert!(log.unpacked < 8000 + 2 * 8000 / PACKS && taken < bytes / 4, "{taken} of {bytes}");
        assert_eq!(log.bytes(), bytes);
    }
}
