//! Old Events: each is removed an hour after it was last written or last happened, as the API server's TTL does upstream.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::Event;
use objects::{Delete, Kind, Subject, Write};
use serde_json::Value;
use store::KeyRange;

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::key::Key;
use crate::plan::Plan;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// How long an Event is kept.
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

    fn watches(&self, _: &mut Watches<'_>) {}

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
    let mut next = KEPT;
    let all = KeyRange::prefix(objects::kind_prefix(Event::GROUP, Event::PLURAL));
    for kv in view.state().range(&all) {
        let Ok(event) = serde_json::from_slice::<Value>(&kv.value) else { continue };
        let age = last_time(&event, now).map_or(Duration::ZERO, |at| now.duration_since(at).unsigned_abs());
        match KEPT.checked_sub(age).filter(|left| !left.is_zero()) {
            Some(left) => next = next.min(left),
            None if plan.actions.len() < SLICE => plan.write(delete(&event)),
            None => {
                plan.again(Duration::ZERO);
                return plan;
            }
        }
    }
    plan.again(next.max(PAUSE));
    plan
}

/// When an Event was last written or last happened. What is still to come is left out: otherwise an Event of the year
/// 3000 would stay until then.
fn last_time(event: &Value, now: Timestamp) -> Option<Timestamp> {
    let named = ["/metadata/creationTimestamp", "/lastTimestamp", "/series/lastObservedTime", "/eventTime"];
    let managed = event.pointer("/metadata/managedFields").and_then(Value::as_array);
    let written = managed.into_iter().flatten().map(|entry| &entry["time"]);
    let times = named.iter().filter_map(|path| event.pointer(path)).chain(written);
    times.filter_map(|time| time.as_str()?.parse().ok()).filter(|time| *time <= now).max()
}

fn delete(event: &Value) -> Write {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let subject = Subject {
        api_version: Event::API_VERSION.to_owned(),
        kind: Event::KIND.to_owned(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
    };
    let uid = Some(text("/metadata/uid")).filter(|uid| !uid.is_empty());
    Write::Delete { subject, options: Delete { uid, ..Delete::default() } }
}
