//! The entries since (a little before) the last snapshot, in memory: Raft reads here and never from the disk.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Raft's view of the log.
#[derive(Debug)]
pub struct MemoryLog {
    /// As recovered; Raft asks once.
    hard_state: HardState,
    members: ConfState,
    /// Index and term of the entry before the first one kept.
    compacted: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: u64,
    /// Index and term of the last entry applied: what a snapshot made now would reach to.
    applied: (u64, u64),
}

/// What an entry takes in memory: itself, what it asks for and for whom.
pub fn size(entry: &Entry) -> u64 {
    (size_of::<Entry>() + entry.data.len() + entry.context.len()) as u64
}

impl MemoryLog {
    /// A log as recovered.
    pub fn new(
        hard_state: HardState,
        members: ConfState,
        compacted: (u64, u64),
        entries: VecDeque<Entry>,
        applied: (u64, u64),
    ) -> Self {
        let bytes = entries.iter().map(size).sum();
        MemoryLog { hard_state, members, compacted, entries, bytes, applied }
    }

    /// The last entry's index.
    pub fn last(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    /// The first entry's index.
    pub fn first(&self) -> u64 {
        self.compacted.0 + 1
    }

    /// What all entries take in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends entries, replacing those from the first one's index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.first()) as usize;
        self.bytes -= self.entries.iter().skip(keep).map(size).sum::<u64>();
        self.entries.truncate(keep);
        self.bytes += entries.iter().map(size).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    /// The entries kept behind an index.
    pub fn entries_behind(&self, index: u64) -> impl Iterator<Item = &Entry> {
        let skip = (index + 1).saturating_sub(self.first()) as usize;
        self.entries.iter().skip(skip)
    }

    /// Starts anew behind a snapshot.
    pub fn restart(&mut self, index: u64, term: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.compacted = (index, term);
    }

    /// Says what was applied.
    pub fn set_applied(&mut self, index: u64, term: u64) {
        self.applied = (index, term);
    }

    /// Says who the members are after the last entry applied.
    pub fn set_members(&mut self, members: ConfState) {
        self.members = members;
    }

    /// Forgets what a snapshot at `saved` holds, as long as more than `keep` bytes are left: they spare a member that was
    /// away for a moment a snapshot.
    pub fn compact(&mut self, saved: u64, keep: u64) {
        while let Some(entry) = self.entries.front() {
            if entry.index > saved || self.bytes <= keep {
                break;
            }
            self.bytes -= size(entry);
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
        let from = (low - self.first()) as usize;
        let wanted = self.entries.iter().skip(from).take(high.saturating_sub(low) as usize);
        let within = wanted.take_while(|entry| {
            let is_first = total == 0;
            total += size(entry);
            is_first || total <= limit
        });
        Ok(within.cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        let Some(place) = index.checked_sub(self.first()) else {
            return Err(StorageError::Compacted.into());
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
