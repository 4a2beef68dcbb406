//! The changes that led to a state, and how much memory is kept for their sake.

use std::sync::Arc;

use imbl::OrdMap;

use crate::{Event, KeyValue, Revision};

/// What an event takes beside the version that it replaced: itself, its place in the tree, that version's numbers and pointers.
const BESIDE: u64 = 256;
/// More revisions than this are not kept, however young and small they are.
const MOST_REVISIONS: usize = 50_000;
const KEPT_REVISIONS: u64 = 40_000;
/// The bytes of history that may be kept in any case, for five minutes at most; with a large map half of its size. A
/// client that follows a watch is seconds behind, not minutes: this is what a hundred writes a second of two kilobytes
/// make in over a minute. More would be most of a host's memory: a cluster of ten thousand pods has some 50 MB of
/// objects.
pub const HISTORY_BYTES: u64 = 16 << 20;

/// The changes of the revisions that are kept. Cloning it copies a pointer.
#[derive(Debug, Clone, Default)]
pub struct History {
    changes: OrdMap<Revision, Change>,
    /// What [`Change::until`] was for the last change forgotten. Never more than `newest`, as `until` only grows: the
    /// differences below can't fall short.
    forgotten: u64,
    /// What it is for the newest one.
    newest: u64,
}

#[derive(Debug, Clone)]
struct Change {
    events: Arc<[Event]>,
    /// What this change and all before it keep in memory, forgotten ones included: so what any stretch of them keeps is a
    /// difference, and nobody has to walk along them.
    until: u64,
}

/// The bytes of a key and its value.
pub(super) fn size(version: &KeyValue) -> u64 {
    (version.key.len() + version.value.len()) as u64
}

/// What is in memory for an event's sake alone. Each version that is no longer in the map was replaced or deleted by one
/// event, and stays for as long as that one does.
fn kept_by(event: &Event) -> u64 {
    let previous = match event {
        Event::Put { previous, .. } => previous.as_ref(),
        Event::Delete { previous, .. } => Some(previous),
    };
    previous.map_or(0, |version| size(version)) + BESIDE
}

impl History {
    /// How many revisions it has.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The revisions from `from` on with their events, oldest first.
    pub fn since(&self, from: Revision) -> impl DoubleEndedIterator<Item = (Revision, &Arc<[Event]>)> {
        self.changes.range(from..).map(|(revision, change)| (*revision, &change.events))
    }

    /// What is in memory for its sake, in bytes.
    pub fn bytes(&self) -> u64 {
        self.newest - self.forgotten
    }

    /// [`bytes`](Self::bytes) if nothing had ever been forgotten: what was replaced since an earlier state is the difference.
    pub fn replaced(&self) -> u64 {
        self.newest
    }

    /// Adds the newest revision.
    pub fn push(&mut self, revision: Revision, events: Arc<[Event]>) {
        self.newest += events.iter().map(kept_by).sum::<u64>();
        self.changes.insert(revision, Change { events, until: self.newest });
    }

    /// Forgets all up to and including `revision`.
    pub fn forget(&mut self, revision: Revision) {
        // One by one: imbl's `split` makes both parts anew.
        while let Some((oldest, change)) = self.changes.get_min()
            && *oldest <= revision
        {
            self.forgotten = change.until;
            let oldest = *oldest;
            self.changes.remove(&oldest);
        }
    }

    /// With nothing left in it.
    pub fn emptied(&self) -> History {
        History { changes: OrdMap::new(), forgotten: self.newest, newest: self.newest }
    }

    /// As it was at `revision`.
    pub fn until(&self, revision: Revision) -> History {
        let mut changes = self.changes.clone();
        while let Some((newest, _)) = changes.get_max()
            && *newest > revision
        {
            let newest = *newest;
            changes.remove(&newest);
        }
        let newest = changes.get_max().map_or(self.forgotten, |(_, change)| change.until);
        History { changes, newest, forgotten: self.forgotten }
    }

    /// The revision up to which it must be forgotten, if there is too much of it: more than 50,000 revisions, or more bytes than
    /// `most`. A quarter more goes than has to, so that this isn't due again at once.
    pub fn too_much(&self, most: u64) -> Option<Revision> {
        let (newest, _) = self.changes.get_max()?;
        let by_number =
            (self.len() > MOST_REVISIONS).then(|| Revision(newest.0.saturating_sub(KEPT_REVISIONS)));
        let by_size = (self.bytes() > most).then(|| self.leaving(most / 4 * 3));
        by_number.max(by_size)
    }

    /// The first revision after which no more than `bytes` bytes follow.
    fn leaving(&self, bytes: u64) -> Revision {
        let (Some((oldest, _)), Some((newest, _))) = (self.changes.get_min(), self.changes.get_max()) else {
            return Revision::ZERO;
        };
        let follow = |revision: u64| {
            let at = self.changes.range(..=Revision(revision)).next_back();
            self.newest - at.map_or(self.forgotten, |(_, change)| change.until)
        };
        let (mut low, mut high) = (oldest.0, newest.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if follow(middle) <= bytes { high = middle } else { low = middle + 1 }
        }
        Revision(high)
    }
}

impl FromIterator<(Revision, Arc<[Event]>)> for History {
    fn from_iter<T: IntoIterator<Item = (Revision, Arc<[Event]>)>>(changes: T) -> Self {
        let mut history = History::default();
        changes.into_iter().for_each(|(revision, events)| history.push(revision, events));
        history
    }
}
