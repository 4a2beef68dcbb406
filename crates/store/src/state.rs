//! The map at one revision, with the history that led to it.

mod history;
mod mirror;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::{
    Compare, Condition, Error, Event, KeyRange, KeyValue, LeaseId, Op, OpResult, Revision, Sealing, Txn,
    TxnResponse, Value,
};

pub use history::HISTORY_BYTES;
pub(crate) use history::History;
pub use mirror::Told;

/// An immutable version of the whole map. Cloning it copies a few pointers; changing a clone shares all
/// that stayed the same.
#[derive(Debug, Clone)]
pub struct State {
    revision: Revision,
    compacted: Revision,
    entries: OrdMap<Bytes, Arc<KeyValue>>,
    /// What the entries' keys and values take.
    bytes: u64,
    history: History,
    leases: OrdMap<LeaseId, u64>,
    /// The keys that hang on leases: what ends with one is found without a look at all keys.
    leased: OrdSet<(LeaseId, Bytes)>,
    /// How values are sealed that leave the memory.
    sealing: Sealing,
}

impl Default for State {
    fn default() -> Self {
        // As in etcd, an empty map is at revision 1 and its first write makes revision 2.
        State {
            revision: Revision(1),
            compacted: Revision::ZERO,
            entries: OrdMap::new(),
            bytes: 0,
            history: History::default(),
            leases: OrdMap::new(),
            leased: OrdSet::new(),
            sealing: Sealing::default(),
        }
    }
}

impl State {
    /// The newest revision in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision up to which history was forgotten, [`Revision::ZERO`] if none was.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One key.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.entries.get(key)
    }

    /// The keys of a range, in order.
    pub fn range<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<KeyValue>> + use<'a> {
        let end = match &range.end {
            Some(end) if *end <= range.start => Bound::Excluded(range.start.clone()),
            Some(end) => Bound::Excluded(end.clone()),
            None => Bound::Unbounded,
        };
        self.entries.range((Bound::Included(range.start.clone()), end)).map(|(_, kv)| kv)
    }

    /// The leases that exist, with their time to live in seconds.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, u64)> {
        self.leases.iter().map(|(id, ttl)| (*id, *ttl))
    }

    /// The keys that hang on a lease, in order.
    pub fn keys_of(&self, lease: LeaseId) -> impl Iterator<Item = &Bytes> {
        self.leased.range((lease, Bytes::new())..).take_while(move |(of, _)| *of == lease).map(|(_, key)| key)
    }

    /// A lease's time to live in seconds.
    pub(crate) fn lease(&self, lease: LeaseId) -> Option<u64> {
        self.leases.get(&lease).copied()
    }

    /// The history kept, revision by revision.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// What its keys and values take in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is in memory for the history's sake alone, in bytes. Like [`bytes`](Self::bytes) it is counted with each change, and
    /// the same on every member at the same revision.
    pub fn history_bytes(&self) -> u64 {
        self.history.bytes()
    }

    /// What the changes since an `earlier` state replaced or deleted, in bytes: more than that isn't in memory only because
    /// somebody still has the earlier state. None where it isn't known, as this state was read anew since.
    pub fn replaced_since(&self, earlier: &State) -> Option<u64> {
        self.history.replaced().checked_sub(earlier.history.replaced())
    }

    /// The revision up to which history must be forgotten, if there is too much of it: more than 50,000 revisions, or more bytes
    /// than `most` and than half of what the map itself takes.
    pub fn too_much_history(&self, most: u64) -> Option<Revision> {
        self.history.too_much(self.bearable(most))
    }

    /// How many bytes may be in memory for the sake of what was: `most`, or half of what the map itself takes.
    pub fn bearable(&self, most: u64) -> u64 {
        most.max(self.bytes / 2)
    }

    /// The same map without its history, for those who keep it for long.
    pub fn without_history(&self) -> State {
        State { compacted: self.revision, history: self.history.emptied(), ..self.clone() }
    }

    /// A state put together again from what the accessors tell.
    pub(crate) fn restored(
        revision: Revision,
        compacted: Revision,
        entries: OrdMap<Bytes, Arc<KeyValue>>,
        history: History,
        leases: OrdMap<LeaseId, u64>,
    ) -> State {
        let bytes = entries.values().map(|kv| history::size(kv)).sum();
        let leased =
            entries.values().filter(|kv| kv.lease.is_some()).map(|kv| (kv.lease, kv.key.clone())).collect();
        let sealing = Sealing::default();
        State { revision, compacted, entries, bytes, history, leases, leased, sealing }
    }

    /// The same, with its values sealed so where they leave the memory.
    pub fn with_sealing(self, sealing: Sealing) -> State {
        State { sealing, ..self }
    }

    /// How values are sealed that leave the memory.
    pub(crate) fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    /// The changes from revision `from` on, oldest first.
    pub fn events(&self, from: Revision) -> impl Iterator<Item = &Event> {
        self.history.since(from).flat_map(|(_, events)| events.iter())
    }

    /// Whether the history reaches back to `from`.
    ///
    /// # Errors
    /// [`Error::Compacted`] if it doesn't.
    pub fn check_history(&self, from: Revision) -> Result<(), Error> {
        if from <= self.compacted {
            return Err(Error::Compacted { asked: from, oldest: self.compacted.next() });
        }
        Ok(())
    }

    /// The map as it was at `revision`: the newest one with its younger changes undone.
    ///
    /// # Errors
    /// [`Error::Compacted`] or [`Error::Future`] if this state can't say.
    pub fn at(&self, revision: Revision) -> Result<State, Error> {
        if revision > self.revision {
            return Err(Error::Future { asked: revision, newest: self.revision });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { asked: revision, oldest: self.compacted });
        }
        // The leases stay the newest: nothing tells what they were, and a state of the past is only read.
        let mut old = self.clone();
        for (_, events) in self.history.since(revision.next()).rev() {
            for event in events.iter().rev() {
                match event {
                    Event::Put { current, previous: None } => old.remove(&current.key),
                    Event::Put { previous: Some(previous), .. } | Event::Delete { previous, .. } => {
                        old.insert(previous.clone())
                    }
                };
            }
        }
        old.history = self.history.until(revision);
        old.revision = revision;
        Ok(old)
    }

    /// Carries a transaction out on this state.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::LeaseNotFound`], with nothing changed.
    pub fn apply(&mut self, txn: &Txn) -> Result<TxnResponse, Error> {
        txn.check()?;
        let succeeded = txn.conditions.iter().all(|c| self.holds(c));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        // All that can fail fails here, before the first step: a transaction that is refused half-way would have changed the
        // map on every member without a revision that tells of it.
        for op in ops {
            if let Op::Put { lease, .. } = op
                && lease.is_some()
                && !self.leases.contains_key(lease)
            {
                return Err(Error::LeaseNotFound(*lease));
            }
        }
        let revision = self.revision.next();
        let mut events = Vec::new();
        let results = ops.iter().map(|op| self.step(op, revision, &mut events)).collect();
        self.record(revision, events);
        Ok(TxnResponse { revision: self.revision, succeeded, results })
    }

    /// Forgets the history up to and including `revision`.
    pub fn compact(&mut self, revision: Revision) {
        let revision = revision.min(self.revision);
        if revision > self.compacted {
            self.compacted = revision;
            self.history.forget(revision);
        }
    }

    /// Makes a lease.
    pub fn grant(&mut self, lease: LeaseId, ttl_seconds: u64) {
        self.leases.insert(lease, ttl_seconds);
    }

    /// Makes a lease whose number the caller chose.
    ///
    /// # Errors
    /// [`Error::LeaseExists`] where there is one of that number.
    pub fn grant_as(&mut self, lease: LeaseId, ttl_seconds: u64) -> Result<(), Error> {
        if self.leases.contains_key(&lease) {
            return Err(Error::LeaseExists(lease));
        }
        self.grant(lease, ttl_seconds);
        Ok(())
    }

    /// The first number from `first` on that no lease has.
    pub(crate) fn free_lease(&self, first: LeaseId) -> LeaseId {
        let taken = |lease: &LeaseId| self.leases.contains_key(lease);
        (first.0..).map(LeaseId).find(|lease| !taken(lease)).unwrap_or(first)
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if there is no such lease.
    pub fn revoke(&mut self, lease: LeaseId) -> Result<(), Error> {
        self.leases.remove(&lease).ok_or(Error::LeaseNotFound(lease))?;
        let revision = self.revision.next();
        let keys: Vec<Bytes> = self.keys_of(lease).cloned().collect();
        let mut events = Vec::new();
        for key in keys {
            self.step(&Op::Delete(KeyRange::key(key)), revision, &mut events);
        }
        self.record(revision, events);
        Ok(())
    }

    /// Ends a change. One that changed nothing takes no revision: followers of the revisions would wait for events that
    /// never come.
    fn record(&mut self, revision: Revision, events: Vec<Event>) {
        if !events.is_empty() {
            self.history.push(revision, events.into());
            self.revision = revision;
        }
    }

    /// A key's new value as it is kept beside the others.
    fn packed(&self, key: &Bytes, value: Value) -> Value {
        let previous = self.entries.get(key);
        // A new object is likely to be like its neighbour: another one of its kind, or of the same owner.
        let beside = if previous.is_none() { self.entries.get_prev(key) } else { None };
        value.packed(previous.map(|kv| &kv.value), beside.map(|(_, kv)| &kv.value))
    }

    fn insert(&mut self, version: Arc<KeyValue>) -> Option<Arc<KeyValue>> {
        self.bytes += history::size(&version);
        let (key, lease) = (version.key.clone(), version.lease);
        let previous = self.entries.insert(key.clone(), version);
        self.forgotten(previous.as_deref());
        if lease.is_some() {
            self.leased.insert((lease, key));
        }
        previous
    }

    fn remove(&mut self, key: &Bytes) -> Option<Arc<KeyValue>> {
        let previous = self.entries.remove(key);
        self.forgotten(previous.as_deref());
        previous
    }

    /// Takes a version out of what is counted beside the entries.
    fn forgotten(&mut self, version: Option<&KeyValue>) {
        let Some(version) = version else { return };
        self.bytes -= history::size(version);
        if version.lease.is_some() {
            self.leased.remove(&(version.lease, version.key.clone()));
        }
    }

    fn holds(&self, condition: &Condition) -> bool {
        let kv = |key: &Bytes| self.entries.get(key);
        match condition {
            Condition::ModRevision(key, how, with) => {
                how.holds(&kv(key).map_or(Revision::ZERO, |kv| kv.mod_revision), with)
            }
            Condition::CreateRevision(key, how, with) => {
                how.holds(&kv(key).map_or(Revision::ZERO, |kv| kv.create_revision), with)
            }
            Condition::Version(key, how, with) => how.holds(&kv(key).map_or(0, |kv| kv.version), with),
            Condition::Value(key, how, with) => kv(key).is_some_and(|kv| how.holds(&kv.value.bytes(), with)),
            Condition::Lease(key, how, with) => {
                how.holds(&kv(key).map_or(LeaseId::NONE, |kv| kv.lease), with)
            }
        }
    }

    fn step(&mut self, op: &Op, revision: Revision, events: &mut Vec<Event>) -> OpResult {
        match op {
            Op::Put { key, value, lease } => {
                let previous = self.entries.get(key).cloned();
                let current = Arc::new(KeyValue {
                    key: key.clone(),
                    value: self.packed(key, value.clone().into()),
                    create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
                    mod_revision: revision,
                    version: previous.as_ref().map_or(1, |kv| kv.version + 1),
                    lease: *lease,
                });
                self.insert(current.clone());
                events.push(Event::Put { current, previous: previous.clone() });
                OpResult::Put(previous)
            }
            Op::Delete(range) => {
                let deleted: Vec<Arc<KeyValue>> = self.range(range).cloned().collect();
                for previous in &deleted {
                    self.remove(&previous.key);
                    events.push(Event::Delete { revision, previous: previous.clone() });
                }
                OpResult::Deleted(deleted)
            }
            Op::Range(range) => OpResult::Range(self.range(range).cloned().collect()),
        }
    }
}

impl Compare {
    fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Compare::Equal => left == right,
            Compare::NotEqual => left != right,
            Compare::Greater => left > right,
            Compare::Less => left < right,
        }
    }
}
