//! Watches: the changes of a list, each once and in order, as seen through a selection.

use std::collections::VecDeque;
use std::sync::Arc;

use api::{Resource, Status};
use store::{Error, Event, KeyRange, KeyValue, Revision, Store};
use tokio::sync::watch;

use super::commit::read_failed;
use super::hub::{Hub, Told, Topic};
use super::list::{Match, wrong_option};
use super::read::Freshness;
use super::stored::{is_as_served, served, served_event};
use super::{Registry, Selection, conversion};

/// What to watch.
#[derive(Debug)]
pub(crate) struct WatchOptions<'a> {
    pub(crate) resource: &'a Resource,
    /// Empty for all namespaces.
    pub(crate) namespace: &'a str,
    pub(crate) selection: Selection,
    pub(crate) resource_version: Option<&'a str>,
    pub(crate) matching: Option<Match>,
    /// `sendInitialEvents` (KEP-3157).
    pub(crate) initial: Option<bool>,
    pub(crate) bookmarks: bool,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub(crate) enum WatchEvent {
    /// An object that was there at first: `ADDED`.
    Initial(Arc<KeyValue>),
    /// `ADDED`, `MODIFIED` or `DELETED` with the object, as of the change's revision.
    Change(&'static str, Arc<KeyValue>, Arc<Told>),
    /// Everything up to that revision was told; `initial_end`: everything that was there at first.
    Bookmark { revision: Revision, initial_end: bool },
}

/// A running watch.
pub(crate) struct Watch {
    resource: Resource,
    selection: Selection,
    /// What was there at first and isn't told yet.
    initial: VecDeque<WatchEvent>,
    range: KeyRange,
    /// Everything up to that revision was told.
    told: Revision,
    topic: Arc<Topic>,
    newest: watch::Receiver<Revision>,
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
}

/// So many events are told at once.
const BATCH: usize = 256;

impl Registry {
    /// Starts a watch.
    pub(crate) async fn watch(&self, options: WatchOptions<'_>) -> Result<Watch, Status> {
        check(&options)?;
        let resource = options.resource;
        let (group, plural) = resource.stored_under();
        let prefix = objects::namespace_prefix(group, plural, options.namespace);
        let range = match options.selection.name() {
            Some(name) if !resource.namespaced || !options.namespace.is_empty() => {
                KeyRange::key(format!("{prefix}{name}"))
            }
            _ => KeyRange::prefix(prefix),
        };
        let freshness = Freshness::parse(options.resource_version)?;
        let selection = options.selection;
        let from = match (freshness, options.initial) {
            (Freshness::AtLeast(revision), None | Some(false)) => {
                self.store.snapshot().check_history(revision.saturating_add(1)).map_err(read_failed)?;
                return Ok(self.start_watch(resource, selection, range, VecDeque::new(), revision));
            }
            (freshness, Some(false)) => {
                let told = self.state(freshness).await?.revision();
                return Ok(self.start_watch(resource, selection, range, VecDeque::new(), told));
            }
            (freshness, _) => freshness,
        };
        let state = self.state(from).await?;
        conversion::check_served(resource, state.range(&range).map(AsRef::as_ref))?;
        let mut initial: VecDeque<WatchEvent> = state
            .range(&range)
            .filter_map(|kv| served(resource, kv).ok())
            .filter(|kv| selection.matches_stored(kv))
            .map(WatchEvent::Initial)
            .collect();
        if options.initial == Some(true) && options.bookmarks {
            initial.push_back(WatchEvent::Bookmark { revision: state.revision(), initial_end: true });
        }
        Ok(self.start_watch(resource, selection, range, initial, state.revision()))
    }

    fn start_watch(
        &self,
        resource: &Resource,
        selection: Selection,
        range: KeyRange,
        initial: VecDeque<WatchEvent>,
        told: Revision,
    ) -> Watch {
        let topic = self.hub.topic(&range);
        let newest = topic.follow();
        let (hub, store) = (self.hub.clone(), self.store.clone());
        let resource = resource.clone();
        Watch { resource, selection, initial, range, told, topic, newest, hub, store }
    }
}

/// The rules of `sendInitialEvents` (upstream's `ValidateListOptions`).
fn check(options: &WatchOptions<'_>) -> Result<(), Status> {
    let forbidden = |message: &str| Err(wrong_option("FieldValueForbidden", format!("Forbidden: {message}")));
    match (options.initial, options.matching) {
        (None, Some(_)) => {
            forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        }
        (Some(_), None | Some(Match::Exact)) => {
            forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        _ => Ok(()),
    }
}

impl Watch {
    /// Whether something that was there at first isn't told yet.
    pub(crate) fn has_initial(&self) -> bool {
        !self.initial.is_empty()
    }

    /// Waits for the next events, never none.
    ///
    /// May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Vec<WatchEvent>, Error> {
        if !self.initial.is_empty() {
            let batch = self.initial.len().min(BATCH);
            return Ok(self.initial.drain(..batch).collect());
        }
        loop {
            // Seen before it is looked: what comes in between wakes this again.
            self.newest.borrow_and_update();
            let changes = self.changes()?;
            if changes.is_empty() {
                self.newest.changed().await.map_err(|_| Error::Closed)?;
                continue;
            }
            // Who can't be told of a change in its version finds out why by a list.
            if changes.iter().any(|told| conversion::check_event(&self.resource, &told.event).is_err()) {
                return Err(Error::Closed);
            }
            let as_served = changes.into_iter().filter_map(|told| as_served(&self.resource, told));
            let events: Vec<WatchEvent> = as_served.filter_map(|told| seen(&told, &self.selection)).collect();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// The changes since what was told; now they count as told.
    fn changes(&mut self) -> Result<Vec<Arc<Told>>, Error> {
        if let Some(changes) = self.topic.after(self.told, BATCH) {
            if let Some(last) = changes.last() {
                self.told = last.event.revision();
            }
            return Ok(changes);
        }
        let state = self.store.snapshot();
        state.check_history(self.told + 1)?;
        let missed = state.events(self.told + 1).filter(|event| self.range.contains(event.key()));
        let changes = missed.map(|event| Arc::new(Told::new(event.clone()))).collect();
        self.told = state.revision();
        Ok(changes)
    }

    /// Everything up to this revision was told, if nothing is left to tell.
    pub(crate) fn bookmark(&mut self) -> Option<WatchEvent> {
        // Looked at first: what was passed on by then is in the topic.
        let through = self.hub.through();
        if !self.initial.is_empty() || !self.topic.is_quiet_after(self.told) {
            return None;
        }
        self.told = self.told.max(through);
        Some(WatchEvent::Bookmark { revision: self.told, initial_end: false })
    }
}

/// A change in the form that a resource serves; nothing if that can't be had.
fn as_served(resource: &Resource, told: Arc<Told>) -> Option<Arc<Told>> {
    let (current, previous) = match &told.event {
        Event::Put { current, previous } => (Some(current), previous.as_ref()),
        Event::Delete { previous, .. } => (None, Some(previous)),
    };
    if current.into_iter().chain(previous).all(|kv| is_as_served(resource, kv)) {
        return Some(told);
    }
    served_event(resource, &told.event).ok().map(|event| Arc::new(Told::new(event)))
}

/// What a change is to somebody who sees only what the selection matches.
fn seen(told: &Arc<Told>, selection: &Selection) -> Option<WatchEvent> {
    let matches = |kv: &Arc<KeyValue>| {
        selection.is_everything() || told.object(kv).is_some_and(|object| selection.matches(object))
    };
    let (kind, kv) = match &told.event {
        Event::Put { current, previous } => {
            let before = previous.as_ref().filter(|previous| matches(previous));
            match (before, matches(current)) {
                (None, true) => ("ADDED", current),
                (Some(_), true) => ("MODIFIED", current),
                (Some(before), false) => ("DELETED", before),
                (None, false) => return None,
            }
        }
        Event::Delete { previous, .. } if matches(previous) => ("DELETED", previous),
        Event::Delete { .. } => return None,
    };
    Some(WatchEvent::Change(kind, kv.clone(), told.clone()))
}
