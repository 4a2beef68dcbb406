//! etcd's service `Watch`: many watches on one stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpc::Messages;
use prost::Message;
use store::{KeyRange, Revision, State};
use tokio::time::{MissedTickBehavior, interval};

use super::range::{key_value, keys};
use super::{Server, refusal};
use crate::Status;
use crate::numbers::{asked_for, to_etcd};
use crate::proto::{
    Event, EventType, FilterType, KeyValue, WatchCreateRequest, WatchRequest, WatchRequestRequestUnion,
    WatchResponse,
};
use crate::transport::Answers;

/// How often a watch that asks for it hears the revision though nothing happened (etcd's default).
const PROGRESS_EVERY: Duration = Duration::from_secs(600);
/// Watches of one stream at the same time.
const MOST_WATCHES: usize = 100_000;
/// A response is sent once it has this many bytes; the events of one revision are never split.
const RESPONSE_BYTES: usize = 1 << 20;
/// On answers that concern no watch, or all of them.
const NO_WATCH: i64 = -1;

struct Watch {
    range: KeyRange,
    /// All before this revision was sent.
    next: Revision,
    filters: Vec<FilterType>,
    with_previous: bool,
    wants_progress: bool,
    /// Whether something was sent since the last round of progress.
    heard: bool,
}

/// Serves one stream of watches. All are fed from this one place, so that whatever says "nothing is missing up to
/// this revision" comes after everything up to that revision.
pub async fn watch(server: Arc<Server>, mut question: Messages, answers: Answers) -> Result<(), Status> {
    let mut states = server.store.states();
    let mut stream = WatchStream { server, answers, watches: BTreeMap::new(), last_id: -1 };
    let mut progress = interval(PROGRESS_EVERY);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    progress.reset();
    loop {
        tokio::select! {
            request = question.next::<WatchRequest>() => {
                let Some(request) = request? else { return Ok(()) };
                let state = states.borrow_and_update().clone();
                stream.deliver(&state).await?;
                stream.take(request, &state).await?;
            }
            changed = states.changed() => {
                changed.map_err(|_| refusal::by_store(store::Error::Closed))?;
                let state = states.borrow_and_update().clone();
                stream.deliver(&state).await?;
            }
            _ = progress.tick() => {
                let state = states.borrow_and_update().clone();
                stream.deliver(&state).await?;
                stream.report(&state).await?;
            }
        }
    }
}

struct WatchStream {
    server: Arc<Server>,
    answers: Answers,
    watches: BTreeMap<i64, Watch>,
    last_id: i64,
}

impl WatchStream {
    async fn take(&mut self, request: WatchRequest, state: &State) -> Result<(), Status> {
        match request.request_union {
            Some(WatchRequestRequestUnion::Create(request)) => self.create(request, state).await,
            Some(WatchRequestRequestUnion::Cancel(request)) => {
                if self.watches.remove(&request.watch_id).is_some() {
                    let canceled = WatchResponse { canceled: true, ..self.response(request.watch_id, state) };
                    self.answers.send(&canceled).await?;
                }
                Ok(())
            }
            Some(WatchRequestRequestUnion::Progress(_)) => {
                self.answers.send(&self.response(NO_WATCH, state)).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest, state: &State) -> Result<(), Status> {
        let reason = if self.watches.contains_key(&request.watch_id) && request.watch_id != 0 {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.watches.len() >= MOST_WATCHES {
            Some("there are too many watches on this stream")
        } else {
            None
        };
        if let Some(reason) = reason {
            let refused = self.response(NO_WATCH, state);
            let cancel_reason = reason.into();
            let refused = WatchResponse { created: true, canceled: true, cancel_reason, ..refused };
            return self.answers.send(&refused).await;
        }
        let id = if request.watch_id != 0 { request.watch_id } else { self.free_id() };
        let filters = request.filters().collect();
        // A watch from no key is one from the first.
        let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key };
        let watch = Watch {
            range: keys(key, request.range_end),
            next: asked_for(request.start_revision).unwrap_or(state.revision().next()),
            filters,
            with_previous: request.prev_kv,
            wants_progress: request.progress_notify,
            heard: false,
        };
        self.watches.insert(id, watch);
        self.answers.send(&WatchResponse { created: true, ..self.response(id, state) }).await?;
        self.deliver(state).await
    }

    fn free_id(&mut self) -> i64 {
        loop {
            self.last_id = self.last_id.wrapping_add(1).max(0);
            if !self.watches.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Sends what happened up to `state`.
    async fn deliver(&mut self, state: &State) -> Result<(), Status> {
        let mut cut_off = Vec::new();
        for (id, watch) in &mut self.watches {
            if watch.next > state.revision() {
                continue;
            }
            if watch.next < state.compacted() {
                cut_off.push(*id);
                continue;
            }
            let events = watch.events(state)?;
            watch.next = state.revision().next();
            let response = WatchResponse {
                header: self.server.header(state.revision()),
                watch_id: *id,
                ..WatchResponse::default()
            };
            for events in parts(events) {
                watch.heard = true;
                self.answers.send(&WatchResponse { events, ..response.clone() }).await?;
            }
        }
        for id in cut_off {
            self.watches.remove(&id);
            let compact_revision = to_etcd(state.compacted());
            let canceled = WatchResponse { canceled: true, compact_revision, ..self.response(id, state) };
            self.answers.send(&canceled).await?;
        }
        Ok(())
    }

    /// Tells the quiet ones among the watches that want to know how far they are.
    async fn report(&mut self, state: &State) -> Result<(), Status> {
        let quiet = |watch: &mut Watch| watch.wants_progress && !std::mem::take(&mut watch.heard);
        let quiet: Vec<i64> =
            self.watches.iter_mut().filter_map(|(id, watch)| quiet(watch).then_some(*id)).collect();
        for id in quiet {
            self.answers.send(&self.response(id, state)).await?;
        }
        Ok(())
    }

    fn response(&self, watch_id: i64, state: &State) -> WatchResponse {
        WatchResponse { header: self.server.header(state.revision()), watch_id, ..WatchResponse::default() }
    }
}

impl Watch {
    /// What it has to hear up to `state`.
    fn events(&self, state: &State) -> Result<Vec<Event>, Status> {
        let mut events = Vec::new();
        let mut from = self.next;
        if from == state.compacted() {
            // As in etcd, a watch may start where the history was cut: of that revision, the keys it wrote are left.
            let cut = state.at(from).map_err(refusal::by_store)?;
            let written = cut.range(&self.range).filter(|kv| kv.mod_revision == from);
            let put = |kv: &Arc<store::KeyValue>| event(EventType::Put, key_value(kv), None);
            events.extend(written.filter(|_| self.wants(FilterType::NoPut)).map(put));
            from = from.next();
        }
        let changes = state.events(from).filter(|event| self.range.contains(event.key()));
        events.extend(changes.filter_map(|change| {
            match change {
                store::Event::Put { current, previous } => self
                    .wants(FilterType::NoPut)
                    .then(|| event(EventType::Put, key_value(current), self.previous(previous.as_deref()))),
                store::Event::Delete { revision, previous } => self.wants(FilterType::NoDelete).then(|| {
                    let gone = KeyValue {
                        key: previous.key.clone(),
                        mod_revision: to_etcd(*revision),
                        ..KeyValue::default()
                    };
                    event(EventType::Delete, gone, self.previous(Some(previous)))
                }),
            }
        }));
        Ok(events)
    }

    fn wants(&self, filter: FilterType) -> bool {
        !self.filters.contains(&filter)
    }

    fn previous(&self, kv: Option<&store::KeyValue>) -> Option<KeyValue> {
        kv.filter(|_| self.with_previous).map(key_value)
    }
}

fn event(kind: EventType, kv: KeyValue, prev_kv: Option<KeyValue>) -> Event {
    Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}

/// Parts of a bearable size, cut only between revisions.
fn parts(events: Vec<Event>) -> Vec<Vec<Event>> {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let mut parts: Vec<Vec<Event>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        match parts.last_mut() {
            Some(part) if bytes < RESPONSE_BYTES || part.last().map(revision) == Some(revision(&event)) => {
                bytes += size;
                part.push(event);
            }
            _ => {
                bytes = size;
                parts.push(vec![event]);
            }
        }
    }
    parts
}
