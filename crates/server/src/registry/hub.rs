//! Who watches what: one task follows the store and passes each change on to the watches that it concerns, so that
//! a write wakes only those, and what a change looks like on the wire is worked out once for all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use api::{Object, Resource};
use bytes::Bytes;
use store::{Event, KeyRange, KeyValue, Revision, State, Store};
use tokio::sync::watch;

use super::load;

/// So many changes of a topic are kept for its watches; who is further behind reads the store's history.
const KEPT: usize = 1024;

/// A change, and what was worked out about it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) event: Event,
    /// The objects after and before it, parsed when a selection first asks.
    current: OnceLock<Option<Object>>,
    previous: OnceLock<Option<Object>>,
    frames: Mutex<Vec<(FrameKey, Bytes)>>,
    /// The change in other versions, as they were first asked for.
    versions: Mutex<Vec<(ToldAs, Arc<Told>)>>,
}

/// What makes frames of one change differ: the resource that it is told as, the type of the event, the form.
type FrameKey = (ToldAs, &'static str, u32);

/// Group, version and plural of a resource, and the revision of its definition if it has one.
pub(crate) type ToldAs = (&'static str, &'static str, &'static str, Revision);

/// As what changes of a resource's objects are told.
pub(crate) fn told_as(resource: &Resource) -> ToldAs {
    let definition = resource.custom().map_or(0, |custom| custom.definition().revision());
    (resource.group, resource.version, resource.plural, definition)
}

impl Told {
    pub(super) fn new(event: Event) -> Self {
        let (current, previous) = (OnceLock::new(), OnceLock::new());
        Told { event, current, previous, frames: Mutex::default(), versions: Mutex::default() }
    }

    /// The change in another version, if it was told so before.
    pub(super) fn version(&self, key: ToldAs) -> Option<Arc<Told>> {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.iter().find(|(known, _)| *known == key).map(|(_, told)| told.clone())
    }

    /// Keeps the change as it is in another version; the answer is the first that was kept.
    pub(super) fn keep_version(&self, key: ToldAs, event: Event) -> Arc<Told> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, told)) = versions.iter().find(|(known, _)| *known == key) {
            return told.clone();
        }
        let told = Arc::new(Told::new(event));
        versions.push((key, told.clone()));
        told
    }

    /// The object in one of the change's values.
    pub(super) fn object(&self, kv: &Arc<KeyValue>) -> Option<&Object> {
        let is_current = matches!(&self.event, Event::Put { current, .. } if Arc::ptr_eq(current, kv));
        let place = if is_current { &self.current } else { &self.previous };
        place.get_or_init(|| load(kv).ok()).as_ref()
    }

    /// The frame of that key, made by the first who asks.
    pub(crate) fn frame<E>(
        &self,
        key: FrameKey,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(known, _)| *known == key) {
            return Ok(frame.clone());
        }
        let frame = make()?;
        frames.push((key, frame.clone()));
        Ok(frame)
    }
}

/// The changes of one range that is watched.
#[derive(Debug)]
pub(super) struct Topic {
    recent: Mutex<Recent>,
    /// The newest revision that changed something here.
    newest: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Recent {
    events: VecDeque<Arc<Told>>,
    /// Everything after that revision is in `events`.
    after: Revision,
}

impl Topic {
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn follow(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }

    /// What is known after a revision, at most `most` changes but whole revisions; nothing if that is too far
    /// back to be known here.
    pub(super) fn after(&self, revision: Revision, most: usize) -> Option<Vec<Arc<Told>>> {
        let recent = self.recent();
        if revision < recent.after {
            return None;
        }
        let start = recent.events.partition_point(|told| told.event.revision() <= revision);
        let mut found: Vec<Arc<Told>> = Vec::new();
        for told in recent.events.range(start..) {
            let same = found.last().is_some_and(|last| last.event.revision() == told.event.revision());
            if found.len() >= most && !same {
                break;
            }
            found.push(told.clone());
        }
        Some(found)
    }

    /// Whether nothing happened after a revision, as far as is known.
    pub(super) fn is_quiet_after(&self, revision: Revision) -> bool {
        *self.newest.borrow() <= revision
    }

    /// Takes whole revisions in, so that nobody sees half of one.
    fn push(&self, events: Vec<Arc<Told>>) {
        let newest = events.last().map(|told| told.event.revision());
        let mut recent = self.recent();
        recent.events.extend(events);
        while recent.events.len() > KEPT {
            if let Some(gone) = recent.events.pop_front() {
                recent.after = gone.event.revision();
            }
        }
        drop(recent);
        if let Some(newest) = newest {
            self.newest.send_replace(newest);
        }
    }

    fn forget(&self, through: Revision) {
        let mut recent = self.recent();
        recent.events.clear();
        recent.after = through;
        drop(recent);
        self.newest.send_replace(through);
    }
}

/// All topics of a server.
pub(super) struct Hub {
    store: Arc<dyn Store>,
    topics: Mutex<HashMap<Bytes, Weak<Topic>>>,
    started: AtomicBool,
    /// Everything up to that revision was passed on.
    through: Arc<AtomicU64>,
}

type Topics = HashMap<Bytes, Weak<Topic>>;

impl Hub {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Hub {
            store,
            topics: Mutex::default(),
            started: AtomicBool::new(false),
            through: Arc::default(),
        })
    }

    /// Everything up to this revision was passed on.
    pub(super) fn through(&self) -> Revision {
        self.through.load(Ordering::Acquire)
    }

    /// The topic of a range: one key, or the keys under a prefix that ends with a slash.
    pub(super) fn topic(self: &Arc<Self>, range: &KeyRange) -> Arc<Topic> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.started.swap(true, Ordering::AcqRel) {
            let mut states = self.store.states();
            self.through.store(states.borrow_and_update().revision(), Ordering::Release);
            tokio::spawn(pass_on(Arc::downgrade(self), states));
        }
        if let Some(topic) = topics.get(&range.start).and_then(Weak::upgrade) {
            return topic;
        }
        let through = self.through();
        let recent = Recent { events: VecDeque::new(), after: through };
        let topic = Arc::new(Topic { recent: Mutex::new(recent), newest: watch::Sender::new(through) });
        topics.insert(range.start.clone(), Arc::downgrade(&topic));
        topic
    }

    fn take_in(&self, state: &State) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let through = self.through();
        let newest = state.revision();
        if state.check_history(through + 1).is_err() {
            // What happened in between is not known: the watches find out by themselves.
            for topic in topics.values().filter_map(Weak::upgrade) {
                topic.forget(newest);
            }
        } else if !topics.is_empty() {
            pass_on_events(&mut topics, state, through);
        }
        self.through.store(newest, Ordering::Release);
    }
}

fn pass_on_events(topics: &mut Topics, state: &State, through: Revision) {
    let mut touched: Vec<(Arc<Topic>, Vec<Arc<Told>>)> = Vec::new();
    for event in state.events(through + 1) {
        let mut told: Option<Arc<Told>> = None;
        for place in places(event.key()) {
            let Some(topic) = topics.get(place) else { continue };
            let Some(topic) = topic.upgrade() else {
                topics.remove(place);
                continue;
            };
            let told = told.get_or_insert_with(|| Arc::new(Told::new(event.clone()))).clone();
            match touched.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &topic)) {
                Some((_, events)) => events.push(told),
                None => touched.push((topic, vec![told])),
            }
        }
    }
    for (topic, events) in touched {
        topic.push(events);
    }
}

/// The ranges that a key lies in: itself, and what it starts with up to each slash.
fn places(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    slashes.map(|end| &key[..end]).chain([key])
}

async fn pass_on(hub: Weak<Hub>, mut states: watch::Receiver<Arc<State>>) {
    while states.changed().await.is_ok() {
        let state = states.borrow_and_update().clone();
        match hub.upgrade() {
            Some(hub) => hub.take_in(&state),
            None => return,
        }
    }
}
