//! Which watch sees what: one task follows the store and passes each change on to the watches that it concerns, so that
//! a write wakes only those, and what a change looks like on the wire is worked out once for all of them.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use machinery::{Object, Resource};
use store::{Event, KeyRange, KeyValue, Revision, State, Store};
use tokio::sync::watch;
use tracing::info_span;

use super::Selection;

/// How many changes a topic keeps for its watches, and how many bytes of their objects: four batches of changes of usual size
/// (4 KB). A watch that is further behind is slow, and reads the store's history, which costs it a look at all that
/// changed.
const KEPT: usize = 1024;
const KEPT_BYTES: usize = 4 << 20;
/// How many bytes of objects all topics keep together. What was worked out about them is kept with them: frames, and
/// what selectors look at.
const ALL_KEPT_BYTES: usize = 32 << 20;

/// A change, and what was worked out about it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) event: Event,
    /// What selections look at of the objects after and before it, read when one first asks. All watches of a key in one
    /// version look at the same.
    current: OnceLock<Option<Object>>,
    previous: OnceLock<Option<Object>>,
    frames: Mutex<Vec<(FrameKey, Bytes)>>,
    /// The change in other versions, as they were first asked for.
    versions: Mutex<Vec<(ToldAs, Arc<Told>)>>,
}

/// What makes frames of one change differ: the resource that it is encoded as, the type of the event, the form.
type FrameKey = (ToldAs, &'static str, u32);

/// Group, version and plural of a resource, and the revision of its definition if it has one.
pub(crate) type ToldAs = (&'static str, &'static str, &'static str, Revision);

/// Identifies the form in which a resource's changes are encoded.
pub(crate) fn told_as(resource: &Resource) -> ToldAs {
    let definition = resource.custom().map_or(0, |custom| custom.definition().revision());
    let definition = Revision(definition);
    (resource.group, resource.version, resource.plural, definition)
}

impl Told {
    /// The bytes of the objects that it holds.
    pub(super) fn bytes(&self) -> usize {
        match &self.event {
            Event::Put { current, previous } => {
                current.value.len() + previous.as_ref().map_or(0, |previous| previous.value.len())
            }
            Event::Delete { previous, .. } => previous.value.len(),
        }
    }

    pub(super) fn new(event: Event) -> Self {
        let (current, previous) = (OnceLock::new(), OnceLock::new());
        Told { event, current, previous, frames: Mutex::default(), versions: Mutex::default() }
    }

    /// The change in another version, if a watch wanted it before.
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

    /// What a selection looks at of one of the change's values.
    pub(super) fn part(&self, kv: &Arc<KeyValue>, selection: &Selection) -> Option<&Object> {
        let is_current = matches!(&self.event, Event::Put { current, .. } if Arc::ptr_eq(current, kv));
        let place = if is_current { &self.current } else { &self.previous };
        place.get_or_init(|| selection.part(kv)).as_ref()
    }

    /// The frame of that key, made when it is first wanted.
    pub(crate) fn frame<E>(
        &self,
        key: FrameKey,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(known, _)| *known == key) {
            return Ok(frame.clone());
        }
        // Under the lock: the watches that wait for it would otherwise each encode the same object.
        let frame = make()?;
        frames.push((key, frame.clone()));
        Ok(frame)
    }
}

/// The changes of one range that is watched, or those of them that concern one node.
#[derive(Debug)]
pub(super) struct Topic {
    recent: Mutex<Recent>,
    /// The newest revision that changed something here.
    newest: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Recent {
    events: VecDeque<Arc<Told>>,
    /// The bytes of the objects in them.
    bytes: usize,
    /// Everything after that revision is in `events`.
    after: Revision,
}

impl Recent {
    fn forget_first(&mut self) {
        if let Some(gone) = self.events.pop_front() {
            self.after = gone.event.revision();
            self.bytes -= gone.bytes();
        }
    }
}

impl Topic {
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn follow(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }

    /// What is known after a revision, as much as a batch takes; nothing if that is too far back to be known here.
    pub(super) fn after(&self, revision: Revision) -> Option<Vec<Arc<Told>>> {
        let recent = self.recent();
        if revision < recent.after {
            return None;
        }
        let start = recent.events.partition_point(|told| told.event.revision() <= revision);
        let mut batch = Batch::default();
        for told in recent.events.range(start..) {
            if !batch.takes(told.event.revision()) {
                break;
            }
            batch.push(told.clone());
        }
        Some(batch.changes)
    }

    /// Whether nothing happened after a revision, as far as is known.
    pub(super) fn is_quiet_after(&self, revision: Revision) -> bool {
        *self.newest.borrow() <= revision
    }

    /// Takes whole revisions in, so that nobody sees half of one.
    fn push(&self, events: Vec<Arc<Told>>) {
        let newest = events.last().map(|told| told.event.revision());
        let mut recent = self.recent();
        recent.bytes += events.iter().map(|told| told.bytes()).sum::<usize>();
        recent.events.extend(events);
        while recent.events.len() > KEPT || recent.bytes > KEPT_BYTES {
            recent.forget_first();
        }
        drop(recent);
        if let Some(newest) = newest {
            self.newest.send_replace(newest);
        }
    }

    /// Forgets what happened up to a revision.
    fn forget_through(&self, revision: Revision) {
        let mut recent = self.recent();
        while recent.events.front().is_some_and(|told| told.event.revision() <= revision) {
            recent.forget_first();
        }
    }

    fn forget(&self, through: Revision) {
        let mut recent = self.recent();
        recent.events.clear();
        (recent.bytes, recent.after) = (0, through);
        drop(recent);
        self.newest.send_replace(through);
    }
}

/// Changes that are sent at once: whole revisions, and no more than a client can be expected to wait for. What a watch
/// holds while its client doesn't read is no more than that.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Arc<Told>>,
    bytes: usize,
}

impl Batch {
    /// How many changes, or bytes of objects in them, are enough: eight pieces of an answer, of which hyper takes 16 at a time
    /// for a connection.
    pub(super) const ENOUGH: usize = 256;
    pub(super) const ENOUGH_BYTES: usize = 256 << 10;

    /// Whether a change of that revision still belongs to it.
    pub(super) fn takes(&self, revision: Revision) -> bool {
        let same = self.changes.last().is_some_and(|last| last.event.revision() == revision);
        same || self.changes.len() < Self::ENOUGH && self.bytes < Self::ENOUGH_BYTES
    }

    pub(super) fn push(&mut self, told: Arc<Told>) {
        self.bytes += told.bytes();
        self.changes.push(told);
    }
}

/// All topics of a server.
pub(super) struct Hub {
    store: Arc<dyn Store>,
    topics: Mutex<Topics>,
    started: AtomicBool,
    /// Everything up to that revision was passed on.
    through: Arc<AtomicU64>,
}

#[derive(Default)]
struct Topics {
    /// By what the keys of a range begin with.
    of: HashMap<Bytes, RangeTopics>,
    /// What they may keep: the revisions and bytes of changes, the oldest first.
    kept: VecDeque<(Revision, usize)>,
    bytes: usize,
}

/// The topics of one range.
#[derive(Default)]
struct RangeTopics {
    /// All that changes in it.
    whole: Weak<Topic>,
    /// What is bound to one node before or after the change, by the node's name (empty: to none). Each node's agent watches
    /// its own pods: with thousands of them, a pod's change must not wake them all.
    by_node: HashMap<Box<str>, Weak<Topic>>,
}

impl RangeTopics {
    /// Keeps those that somebody still follows, and does something with each; whether there are any.
    fn retain(&mut self, mut each: impl FnMut(&Topic)) -> bool {
        let mut alive = |topic: &Weak<Topic>| topic.upgrade().inspect(|topic| each(topic)).is_some();
        self.by_node.retain(|_, topic| alive(topic));
        alive(&self.whole) || !self.by_node.is_empty()
    }

    fn get(&self, node: Option<&str>) -> Option<Arc<Topic>> {
        match node {
            Some(node) => self.by_node.get(node)?.upgrade(),
            None => self.whole.upgrade(),
        }
    }

    fn put(&mut self, node: Option<&str>, topic: &Arc<Topic>) {
        let Some(node) = node else {
            self.whole = Arc::downgrade(topic);
            return;
        };
        if self.by_node.len() == self.by_node.capacity() {
            // Before it grows: nodes come and go.
            self.by_node.retain(|_, topic| topic.strong_count() > 0);
        }
        self.by_node.insert(node.into(), Arc::downgrade(topic));
    }

    /// The topics of a change between these nodes.
    fn of<'a>(&self, nodes: impl FnOnce() -> &'a [String]) -> impl Iterator<Item = Arc<Topic>> {
        let nodes = if self.by_node.is_empty() { &[] } else { nodes() };
        self.get(None).into_iter().chain(nodes.iter().filter_map(|node| self.get(Some(node))))
    }
}

/// The nodes that an object was bound to before a change and is after it; empty for none. What can't be read is on no node:
/// no selection matches it.
fn nodes_of(event: &Event) -> Vec<String> {
    let of = |kv: &Arc<KeyValue>| objects::node_of(&kv.value.bytes()).ok().map(Option::unwrap_or_default);
    let mut nodes: Vec<String> = values(event).filter_map(of).collect();
    nodes.dedup();
    nodes
}

/// The values of a change: after it and before it.
pub(super) fn values(event: &Event) -> impl Iterator<Item = &Arc<KeyValue>> {
    let (current, previous) = match event {
        Event::Put { current, previous } => (Some(current), previous.as_ref()),
        Event::Delete { previous, .. } => (None, Some(previous)),
    };
    current.into_iter().chain(previous)
}

impl Topics {
    /// Makes all forget what is too much for them together; somewhat more, since each of them has to be asked.
    fn bound(&mut self) {
        if self.bytes <= ALL_KEPT_BYTES {
            return;
        }
        let mut through = Revision::ZERO;
        while self.bytes > ALL_KEPT_BYTES / 4 * 3 {
            let Some((revision, bytes)) = self.kept.pop_front() else { break };
            (through, self.bytes) = (revision, self.bytes - bytes);
        }
        self.of.retain(|_, topics| topics.retain(|topic| topic.forget_through(through)));
    }
}

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
        Revision(self.through.load(Ordering::Acquire))
    }

    /// The topic of a range: one key, or the keys under a prefix that ends with a slash; with a node's name, of what is bound
    /// to that node there, with an empty one of what is bound to none.
    pub(super) fn topic(self: &Arc<Self>, range: &KeyRange, node: Option<&str>) -> Arc<Topic> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.started.swap(true, Ordering::AcqRel) {
            let mut states = self.store.states();
            self.through.store(states.borrow_and_update().revision().0, Ordering::Release);
            tasks::spawn(info_span!("watches"), pass_on(Arc::downgrade(self), states));
        }
        let of_range = topics.of.entry(range.start.clone()).or_default();
        if let Some(topic) = of_range.get(node) {
            return topic;
        }
        let through = self.through();
        // `take_in` has the same lock: nothing is passed on between the look at how far it came and the entry below.
        let recent = Recent { events: VecDeque::new(), bytes: 0, after: through };
        let topic = Arc::new(Topic { recent: Mutex::new(recent), newest: watch::Sender::new(through) });
        of_range.put(node, &topic);
        topic
    }

    fn take_in(&self, state: &State) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let through = self.through();
        let newest = state.revision();
        if state.check_history(through.next()).is_err() {
            // What happened in between is not known: the watches find out by themselves.
            topics.of.retain(|_, topics| topics.retain(|topic| topic.forget(newest)));
            (topics.bytes, topics.kept) = (0, VecDeque::new());
        } else if !topics.of.is_empty() {
            pass_on_events(&mut topics, state, through);
        }
        // Last of all: readers of this number rely on finding everything up to it in the topics.
        self.through.store(newest.0, Ordering::Release);
    }
}

fn pass_on_events(topics: &mut Topics, state: &State, through: Revision) {
    let mut touched: HashMap<*const Topic, (Arc<Topic>, Vec<Arc<Told>>)> = HashMap::new();
    for event in state.events(through.next()) {
        let mut told: Option<Arc<Told>> = None;
        // Read once, and only where somebody asks.
        let nodes = OnceCell::new();
        for place in places(event.key()) {
            let Some(of_range) = topics.of.get(place) else { continue };
            if of_range.by_node.is_empty() && of_range.whole.strong_count() == 0 {
                topics.of.remove(place);
                continue;
            }
            for topic in of_range.of(|| nodes.get_or_init(|| nodes_of(event))) {
                let told = told.get_or_insert_with(|| Arc::new(Told::new(event.clone()))).clone();
                touched.entry(Arc::as_ptr(&topic)).or_insert_with(|| (topic, Vec::new())).1.push(told);
            }
        }
        if let Some(told) = told {
            topics.kept.push_back((event.revision(), told.bytes()));
            topics.bytes += told.bytes();
        }
    }
    for (topic, events) in touched.into_values() {
        topic.push(events);
    }
    topics.bound();
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
