//! Watches: the changes of a list, each once and in order, as seen through a selection.

use std::collections::VecDeque;
use std::sync::Arc;

use machinery::{Resource, Status};
use store::{Error, Event, KeyRange, KeyValue, Revision, Store};
use tokio::sync::watch;

use super::commit::read_failed;
use super::hub::{Batch, Hub, Told, Topic, told_as, values};
use super::list::{Match, wrong_option};
use super::read::Freshness;
use super::{Registry, Selection};
use crate::conversion::{Converter, is_as_served};

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
    /// Everything up to that revision was sent; `initial_end`: everything that was there at first.
    Bookmark { revision: Revision, initial_end: bool },
}

/// Why a watch ends.
#[derive(Debug)]
pub(crate) enum WatchEnd {
    /// The store doesn't have what comes next.
    Store(Error),
    /// A change can't be had in the version that is watched.
    Unserved(Status),
}

impl From<Error> for WatchEnd {
    fn from(error: Error) -> Self {
        WatchEnd::Store(error)
    }
}

/// A running watch.
pub(crate) struct Watch {
    resource: Resource,
    selection: Selection,
    /// What was there at first and isn't sent yet.
    initial: VecDeque<WatchEvent>,
    range: KeyRange,
    /// What happened and isn't sent yet, for as long as it takes to bring it into the version that is watched.
    pending: Vec<Arc<Told>>,
    /// Everything up to that revision was sent, or is pending.
    told: Revision,
    topic: Arc<Topic>,
    newest: watch::Receiver<Revision>,
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    converter: Arc<Converter>,
}

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
                self.store.snapshot().check_history(revision.next()).map_err(read_failed)?;
                return Ok(self.start_watch(resource, selection, range, VecDeque::new(), revision));
            }
            (freshness, Some(false)) => {
                let told = self.state(freshness).await?.revision();
                return Ok(self.start_watch(resource, selection, range, VecDeque::new(), told));
            }
            (freshness, _) => freshness,
        };
        let state = self.state(from).await?;
        let stored: Vec<Arc<KeyValue>> = state.range(&range).cloned().collect();
        let served = self.converter.all_served(resource, stored).await?;
        let matching = served.into_iter().filter(|kv| selection.matches_stored(kv));
        let mut initial: VecDeque<WatchEvent> = matching.map(WatchEvent::Initial).collect();
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
        // What is stored in another version may name its node elsewhere.
        let node = selection.node().filter(|_| !resource.is_converted());
        let topic = self.hub.topic(&range, node);
        let newest = topic.follow();
        let (hub, store, converter) = (self.hub.clone(), self.store.clone(), self.converter.clone());
        let (resource, pending) = (resource.clone(), Vec::new());
        Watch { resource, selection, initial, range, pending, told, topic, newest, hub, store, converter }
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
    /// How much of what was there at first isn't sent yet.
    pub(crate) fn initial(&self) -> usize {
        self.initial.len()
    }

    /// Waits for the next events, never none.
    ///
    /// May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Vec<WatchEvent>, WatchEnd> {
        if !self.initial.is_empty() {
            let mut bytes = 0;
            let more = |event: &WatchEvent| {
                let before = bytes;
                if let WatchEvent::Initial(kv) = event {
                    bytes += kv.value.len();
                }
                before < Batch::ENOUGH_BYTES
            };
            let batch = self.initial.iter().take(Batch::ENOUGH).map(more).take_while(|more| *more).count();
            return Ok(self.initial.drain(..batch).collect());
        }
        loop {
            if self.pending.is_empty() {
                // Seen before it is looked: what comes in between wakes this again.
                self.newest.borrow_and_update();
                self.pending = self.changes()?;
            }
            if self.pending.is_empty() {
                self.newest.changed().await.map_err(|_| Error::Closed)?;
                continue;
            }
            let changes = match self.resource.is_converted() {
                true => self.as_served().await.map_err(WatchEnd::Unserved)?,
                false => std::mem::take(&mut self.pending),
            };
            self.pending.clear();
            let events: Vec<WatchEvent> =
                changes.iter().filter_map(|told| seen(told, &self.selection)).collect();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    /// What is pending in the version that is watched.
    async fn as_served(&self) -> Result<Vec<Arc<Told>>, Status> {
        let (resource, key) = (&self.resource, told_as(&self.resource));
        let mut changes = self.pending.clone();
        let (mut places, mut stored) = (Vec::new(), Vec::new());
        for (place, told) in changes.iter_mut().enumerate() {
            if values(&told.event).all(|kv| is_as_served(resource, kv)) {
                continue;
            }
            if let Some(known) = told.version(key) {
                *told = known;
                continue;
            }
            stored.extend(values(&told.event).cloned());
            places.push(place);
        }
        let mut served = self.converter.all_served(resource, stored).await?.into_iter();
        for place in places {
            let event = with_values(&changes[place].event, &mut served);
            changes[place] = changes[place].keep_version(key, event);
        }
        Ok(changes)
    }

    /// The changes since what was sent; now they count as sent.
    fn changes(&mut self) -> Result<Vec<Arc<Told>>, Error> {
        if let Some(changes) = self.topic.after(self.told) {
            if let Some(last) = changes.last() {
                self.told = last.event.revision();
            }
            return Ok(changes);
        }
        let state = self.store.snapshot();
        state.check_history(self.told.next())?;
        let mut batch = Batch::default();
        for event in state.events(self.told.next()).filter(|event| self.range.contains(event.key())) {
            if !batch.takes(event.revision()) {
                self.told = event.revision().previous();
                return Ok(batch.changes);
            }
            batch.push(Arc::new(Told::new(event.clone())));
        }
        self.told = state.revision();
        Ok(batch.changes)
    }

    /// A bookmark that everything up to its revision was sent, if nothing is left to send.
    pub(crate) fn bookmark(&mut self) -> Option<WatchEvent> {
        // Looked at first: what was passed on by then is in the topic.
        let through = self.hub.through();
        let is_behind = !self.initial.is_empty() || !self.pending.is_empty();
        if is_behind || !self.topic.is_quiet_after(self.told) {
            return None;
        }
        self.told = self.told.max(through);
        Some(WatchEvent::Bookmark { revision: self.told, initial_end: false })
    }
}

/// A change with other values, in the order of [`values`].
fn with_values(event: &Event, values: &mut impl Iterator<Item = Arc<KeyValue>>) -> Event {
    let mut next = |value: &Arc<KeyValue>| values.next().unwrap_or_else(|| value.clone());
    match event {
        Event::Put { current, previous } => {
            let current = next(current);
            Event::Put { current, previous: previous.as_ref().map(next) }
        }
        Event::Delete { revision, previous } => {
            Event::Delete { revision: *revision, previous: next(previous) }
        }
    }
}

/// What a change is to a client that sees only what the selection matches.
fn seen(told: &Arc<Told>, selection: &Selection) -> Option<WatchEvent> {
    let matches = |kv: &Arc<KeyValue>| {
        selection.is_everything() || told.part(kv, selection).is_some_and(|object| selection.matches(object))
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use access::{Authorizer, Tokens};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use serde_json::json;
    use store::{Memory, Op, Store, Txn};
    use tokio::net::TcpStream;

    use super::*;
    use crate::backend::Backends;
    use crate::clock::SystemEdge;

    struct Nowhere;

    impl Backends for Nowhere {
        fn connect<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, Result<TcpStream, io::Error>> {
            Box::pin(async {
                tokio::task::yield_now().await;
                Err(io::ErrorKind::NotConnected.into())
            })
        }

        fn is_silent(&self, _: &str) -> bool {
            false
        }

        fn allows(&self, _: std::net::IpAddr) -> bool {
            false
        }
    }

    async fn put(store: &Memory, key: String, value: serde_json::Value) {
        store.txn(Txn::put(key, value.to_string())).await.unwrap();
    }

    fn registry(store: &Arc<Memory>) -> Registry {
        let tokens = Tokens::new(pki::TokenKey::create().unwrap(), "a certificate");
        let (services, authorizer) = ("10.96.0.0/16".parse().unwrap(), Authorizer::new(Vec::new()));
        Registry::new(store.clone(), services, Arc::new(Nowhere), tokens, authorizer, Arc::new(SystemEdge))
    }

    fn options<'a>(resource: &'a Resource, fields: Option<&str>) -> WatchOptions<'a> {
        WatchOptions {
            resource,
            namespace: "",
            selection: Selection::parse(resource, None, fields).unwrap(),
            resource_version: None,
            matching: None,
            initial: None,
            bookmarks: true,
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct WakeUps(AtomicUsize);

    impl Wake for WakeUps {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to wait for a watch's next events.
    type Waiting<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Vec<WatchEvent>, WatchEnd>> + 'a>>;

    fn types(events: &[WatchEvent]) -> Vec<&str> {
        let kind = |event: &WatchEvent| match event {
            WatchEvent::Change(kind, ..) => *kind,
            _ => "something else",
        };
        events.iter().map(kind).collect()
    }

    #[tokio::test]
    async fn a_pods_change_wakes_those_alone_who_watch_its_node() {
        const NODES: usize = 5000;
        let store = Arc::new(Memory::default());
        let registry = registry(&store);
        let catalog = registry.catalog();
        let pods = catalog.resource("", "v1", "pods").unwrap();
        let fields = (0..NODES).map(|n| format!("spec.nodeName=n{n}")).chain(["spec.nodeName=".to_owned()]);
        let mut watches = Vec::new();
        for fields in fields {
            watches.push(registry.watch(options(pods, Some(&fields))).await.unwrap());
        }
        let pod = |node: &str, labels: serde_json::Value| json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "labels": labels}, "spec": {"nodeName": node}});
        let key = || objects::key("", "pods", "default", "p");
        for (written, expected) in [
            (Some(pod("", json!({}))), vec![(NODES, "ADDED")]),
            (Some(pod("n7", json!({}))), vec![(7, "ADDED"), (NODES, "DELETED")]),
            (Some(pod("n7", json!({"a": "b"}))), vec![(7, "MODIFIED")]),
            (Some(pod("n8", json!({"a": "b"}))), vec![(7, "DELETED"), (8, "ADDED")]),
            (None, vec![(8, "DELETED")]),
        ] {
            let wake_ups = Arc::new(WakeUps::default());
            let waker = Waker::from(wake_ups.clone());
            let mut context = Context::from_waker(&waker);
            let mut waiting: Vec<Waiting<'_>> = watches.iter_mut().map(|w| w.next().boxed_local()).collect();
            assert!(waiting.iter_mut().all(|next| next.as_mut().poll(&mut context).is_pending()));
            let txn = match written {
                Some(pod) => Txn::put(key(), pod.to_string()),
                None => Txn { success: vec![Op::Delete(KeyRange::key(key()))], ..Txn::default() },
            };
            let revision = store.txn(txn).await.unwrap().revision;
            while registry.hub.through() < revision {
                tokio::task::yield_now().await;
            }
            assert_eq!(wake_ups.0.load(Ordering::Relaxed), expected.len());
            for (at, kind) in expected {
                let Poll::Ready(events) = waiting[at].as_mut().poll(&mut context) else {
                    panic!("{at}: {kind}")
                };
                assert_eq!(types(&events.unwrap()), [kind], "{at}");
            }
        }
    }

    #[tokio::test]
    async fn a_change_waits_for_its_conversion_and_is_not_lost() {
        let store = Arc::new(Memory::default());
        let registry = registry(&store);
        let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage});
        let key = objects::key("apiextensions.k8s.io", "customresourcedefinitions", "", "doors.example.com");
        let definition = json!({
            "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": "doors.example.com", "generation": 1},
            "spec": {
                "group": "example.com", "scope": "Cluster", "names": {"plural": "doors", "kind": "Door"},
                "versions": [version("v1", true), version("v2", false)],
                "conversion": {"strategy": "Webhook", "webhook": {
                    "clientConfig": {"service": {"namespace": "n", "name": "s"}}, "conversionReviewVersions": ["v1"],
                }},
            },
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        });
        put(&store, key, definition).await;
        let catalog = registry.catalog();
        let resource = catalog.resource("example.com", "v2", "doors").unwrap();
        let mut watch = registry.watch(options(resource, None)).await.unwrap();
        let door = json!({"kind": "Door", "apiVersion": "example.com/v1", "metadata": {"name": "a"}});
        put(&store, objects::key("example.com", "doors", "", "a"), door).await;
        // The caller gives up waiting each time, as a driver does that has something else to do.
        while watch.pending.is_empty() {
            assert!(watch.next().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        assert!(watch.bookmark().is_none(), "an event is still to be sent");
        let end = watch.next().await.unwrap_err();
        let WatchEnd::Unserved(status) = end else { panic!("{end:?}") };
        assert!(
            status.message.starts_with("conversion webhook for example.com/v1, Kind=Door failed: "),
            "{status}"
        );
    }
}
