//! Old Events: each is removed an hour after it was last written or last happened, as the API server's TTL does upstream. They
//! wait in the order of their ends, so that a look costs what has ended.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::Event;
use objects::{Delete, Kind, TypedRef, Write};
use serde_json::Value;
use store::{KeyRange, KeyValue, State};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::key::Key;
use crate::plan::Plan;
use crate::tables::{Account, Watches};
use crate::touched::Touched;
use crate::view::View;

/// How long an Event is kept: upstream's default of `--event-ttl`.
pub const KEPT: Duration = Duration::from_secs(3600);
/// The least time between two looks: Events that end within it are removed together.
const PAUSE: Duration = Duration::from_secs(60);
/// The most Events that one reconciliation deletes, so that its writes don't crowd out others'. The next one follows
/// at once: however many end at a time, none stays.
const SLICE: usize = 500;

/// Removes old Events.
pub(crate) struct Expiry;

impl Controller for Expiry {
    fn name(&self) -> &'static str {
        "event-expiry"
    }

    fn component(&self) -> &'static str {
        "garbage-collector"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn stays(&self) -> bool {
        true
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.account::<Ends>();
    }

    fn all(&self, _: &View, due: &mut Due<'_>) {
        due.now("", "");
    }

    fn touched(&self, _: &View, _: &Touched, _: &mut Due<'_>) {
        // Only time brings an Event nearer to its end.
    }

    fn reconcile(&self, view: &View, _: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, moment.now.wall)
    }
}

/// Removes old Events.
fn reconcile(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(ends) = view.account::<Ends>() else { return plan };
    for key in ends.until(now) {
        let Some(kv) = view.state().get(key) else { continue };
        let Ok(event) = serde_json::from_slice::<Value>(&kv.value.bytes()) else { continue };
        if times(&event).filter(|time| *time <= now).max().is_some_and(|last| end_of(last) > now) {
            // It happened again after it had come to its end.
            continue;
        }
        if plan.actions.len() == SLICE {
            plan.again(Duration::ZERO);
            return plan;
        }
        plan.write(delete(&event));
    }
    let next = ends.after(now).map_or(KEPT, |end| now.duration_until(end).unsigned_abs());
    plan.again(next.clamp(PAUSE, KEPT));
    plan
}

/// When each Event comes to its end.
struct Ends {
    prefix: String,
    queue: BTreeSet<(Timestamp, Bytes)>,
    by_key: HashMap<Bytes, Vec<Timestamp>>,
}

impl Account for Ends {
    fn open(state: &State) -> Self {
        let prefix = objects::kind_prefix(Event::GROUP, Event::PLURAL);
        let mut ends = Ends { prefix, queue: BTreeSet::new(), by_key: HashMap::new() };
        state.range(&KeyRange::prefix(ends.prefix.clone())).for_each(|kv| ends.put(kv));
        ends
    }

    fn take(&mut self, event: &store::Event) {
        if !event.key().starts_with(self.prefix.as_bytes()) {
            return;
        }
        for end in self.by_key.remove(event.key()).into_iter().flatten() {
            self.queue.remove(&(end, event.key().clone()));
        }
        if let store::Event::Put { current, .. } = event {
            self.put(current);
        }
    }
}

impl Ends {
    fn put(&mut self, kv: &KeyValue) {
        let event = serde_json::from_slice::<Value>(&kv.value.bytes()).unwrap_or_default();
        let ends = ends(times(&event).collect());
        self.queue.extend(ends.iter().map(|end| (*end, kv.key.clone())));
        self.by_key.insert(kv.key.clone(), ends);
    }

    /// The Events that have come to an end, the first one first; one that happened again since is among them.
    fn until(&self, now: Timestamp) -> impl Iterator<Item = &Bytes> {
        self.queue.iter().take_while(move |(end, _)| *end <= now).map(|(_, key)| key)
    }

    /// When the next one does.
    fn after(&self, now: Timestamp) -> Option<Timestamp> {
        self.queue.range((now, Bytes::new())..).find(|(end, _)| *end > now).map(|(end, _)| *end)
    }
}

/// The times at which an Event was written or says that it happened.
fn times(event: &Value) -> impl Iterator<Item = Timestamp> {
    let named = ["/metadata/creationTimestamp", "/lastTimestamp", "/series/lastObservedTime", "/eventTime"];
    let managed = event.pointer("/metadata/managedFields").and_then(Value::as_array);
    let written = managed.into_iter().flatten().map(|entry| &entry["time"]);
    let times = named.into_iter().filter_map(|path| event.pointer(path)).chain(written);
    times.filter_map(|time| time.as_str()?.parse().ok())
}

/// When an Event with these times is to go: once an hour has passed since one of them without another. Mostly there is one such
/// end. What is still to come then is left out: otherwise an Event of the year 3000 would stay until then. Without any time, it
/// is kept.
fn ends(mut times: Vec<Timestamp>) -> Vec<Timestamp> {
    times.sort_unstable();
    let next = times.iter().skip(1).map(Some).chain([None]);
    let ends = times.iter().zip(next).map(|(time, next)| (end_of(*time), next));
    ends.filter(|(end, next)| next.is_none_or(|next| next > end)).map(|(end, _)| end).collect()
}

fn end_of(last: Timestamp) -> Timestamp {
    last.checked_add(KEPT).unwrap_or(Timestamp::MAX)
}

fn delete(event: &Value) -> Write {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subject = TypedRef {
        api_version: Event::API_VERSION.to_owned(),
        kind: Event::KIND.to_owned(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
    };
    let uid = Some(text("/metadata/uid")).filter(|uid| !uid.is_empty());
    Write::Delete { subject, options: Delete { uid, ..Delete::default() } }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::{Memory, Op, Store, Txn};

    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    fn key(name: &str) -> String {
        objects::key("", "events", "default", name)
    }

    async fn put(store: &Memory, name: &str, created: i64, last: Option<i64>) {
        let event = json!({"metadata": {"name": name, "creationTimestamp": at(created).to_string()},
            "lastTimestamp": last.map(|last| at(last).to_string())});
        store.txn(Txn::put(key(name), event.to_string())).await.unwrap();
    }

    #[test]
    fn an_end_is_an_hour_in_which_nothing_happens() {
        let table: [(&[i64], &[i64]); 6] = [
            (&[], &[]),
            (&[0], &[60]),
            (&[0, 30], &[90]),
            (&[60, 0], &[120]),
            (&[0, 61], &[60, 121]),
            (&[0, 500, 30, 520], &[90, 580]),
        ];
        for (times, expected) in table {
            let found = ends(times.iter().copied().map(at).collect());
            assert_eq!(found, expected.iter().copied().map(at).collect::<Vec<_>>(), "{times:?}");
        }
        assert_eq!(ends(vec![Timestamp::MAX]), [Timestamp::MAX]);
    }

    #[tokio::test]
    async fn a_look_costs_what_has_ended_and_not_what_there_is() {
        let store = Memory::default();
        for n in 0..1000 {
            put(&store, &format!("young-{n}"), 100, None).await;
        }
        put(&store, "old", 0, None).await;
        put(&store, "repeated", 0, None).await;
        let mut ends = Ends::open(&store.snapshot());
        let from = store.snapshot().revision().next();
        put(&store, "repeated", 0, Some(50)).await;
        put(&store, "late", 1, None).await;
        let gone = Op::Delete(KeyRange::key(key("young-0")));
        store.txn(Txn { success: vec![gone], ..Txn::default() }).await.unwrap();
        store.txn(Txn::put(objects::key("", "pods", "default", "p"), "{}")).await.unwrap();
        store.snapshot().events(from).for_each(|event| ends.take(event));

        let until = |ends: &Ends, now: i64| ends.until(at(now)).cloned().collect::<Vec<_>>();
        assert_eq!(until(&ends, 59), Vec::<Bytes>::new());
        assert_eq!(until(&ends, 109), [key("old"), key("late")], "of a thousand, those that have ended");
        assert_eq!(ends.after(at(109)), Some(at(110)), "the one that was repeated");
        assert_eq!(until(&ends, 159).len(), 3);
        assert_eq!(until(&ends, 160).len(), 3 + 999);
        assert_eq!(ends.after(at(160)), None);
    }
}
