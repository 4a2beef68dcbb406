//! Watches: the changes of a list, each once and in order, as seen through a selection.

use std::collections::VecDeque;
use std::sync::Arc;

use api::{Resource, Status};
use store::{Error, Event, KeyRange, KeyValue, Revision, Watcher};

use super::commit::read_failed;
use super::list::{Match, wrong_option};
use super::read::Freshness;
use super::{Registry, Selection};

/// What to watch.
#[derive(Debug)]
pub(crate) struct WatchOptions<'a> {
    pub(crate) resource: &'static Resource,
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
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WatchEvent {
    /// `ADDED`, `MODIFIED` or `DELETED` with the object, as of a revision.
    Object(&'static str, Arc<KeyValue>, Revision),
    /// Everything up to that revision was told; `initial_end`: everything that was there at first.
    Bookmark { revision: Revision, initial_end: bool },
}

/// A running watch.
#[derive(Debug)]
pub(crate) struct Watch {
    selection: Selection,
    /// What was there at first and isn't told yet.
    initial: VecDeque<WatchEvent>,
    watcher: Watcher,
}

/// So many of the first events are told at once.
const INITIAL_BATCH: usize = 256;

impl Registry {
    /// Starts a watch.
    pub(crate) async fn watch(&self, options: WatchOptions<'_>) -> Result<Watch, Status> {
        check(&options)?;
        let resource = options.resource;
        let prefix = objects::namespace_prefix(resource.group, resource.plural, options.namespace);
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
                let watcher = self.store.watch(range, revision.saturating_add(1)).map_err(read_failed)?;
                return Ok(Watch { selection, initial: VecDeque::new(), watcher });
            }
            (freshness, Some(false)) => {
                let from = self.state(freshness).await?.revision();
                let watcher = self.store.watch(range, from + 1).map_err(read_failed)?;
                return Ok(Watch { selection, initial: VecDeque::new(), watcher });
            }
            (freshness, _) => freshness,
        };
        let state = self.state(from).await?;
        let mut initial: VecDeque<WatchEvent> = state
            .range(&range)
            .filter(|kv| selection.matches_stored(kv))
            .map(|kv| WatchEvent::Object("ADDED", kv.clone(), kv.mod_revision))
            .collect();
        if options.initial == Some(true) && options.bookmarks {
            initial.push_back(WatchEvent::Bookmark { revision: state.revision(), initial_end: true });
        }
        let watcher = self.store.watch(range, state.revision() + 1).map_err(read_failed)?;
        Ok(Watch { selection, initial, watcher })
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
    /// Waits for the next events, never none.
    ///
    /// May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Vec<WatchEvent>, Error> {
        if !self.initial.is_empty() {
            let batch = self.initial.len().min(INITIAL_BATCH);
            return Ok(self.initial.drain(..batch).collect());
        }
        loop {
            let (changes, _) = self.watcher.changes().await?;
            let events: Vec<WatchEvent> =
                changes.iter().filter_map(|change| seen(change, &self.selection)).collect();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// Everything up to this revision was told, if nothing of the first state is left.
    pub(crate) fn bookmark(&self) -> Option<WatchEvent> {
        let revision = self.watcher.next_revision().saturating_sub(1);
        self.initial.is_empty().then_some(WatchEvent::Bookmark { revision, initial_end: false })
    }
}

/// What a change is to somebody who sees only what the selection matches.
fn seen(change: &Event, selection: &Selection) -> Option<WatchEvent> {
    let matches = |kv: &Arc<KeyValue>| selection.matches_stored(kv);
    match change {
        Event::Put { current, previous } => {
            let before = previous.as_ref().filter(|previous| matches(previous));
            match (before, matches(current)) {
                (None, true) => Some(WatchEvent::Object("ADDED", current.clone(), current.mod_revision)),
                (Some(_), true) => {
                    Some(WatchEvent::Object("MODIFIED", current.clone(), current.mod_revision))
                }
                (Some(before), false) => {
                    Some(WatchEvent::Object("DELETED", before.clone(), current.mod_revision))
                }
                (None, false) => None,
            }
        }
        Event::Delete { revision, previous } => {
            matches(previous).then(|| WatchEvent::Object("DELETED", previous.clone(), *revision))
        }
    }
}
