//! Old Events: each is removed an hour after it last happened, as the API server's TTL does upstream.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use objects::Reader;

use crate::plan::{Plan, delete};
use crate::view::View;

/// How long an Event is kept.
pub const KEPT: Duration = Duration::from_secs(3600);
/// The least time between two looks: Events that end within it are removed together.
const PAUSE: Duration = Duration::from_secs(60);
/// The most Events that one reconciliation deletes.
const BURST: usize = 100;

/// Removes old Events.
pub fn reconcile(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut next = KEPT;
    for event in Reader::<Event>::default().list(view.state()) {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|t| t.0);
        let created = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let first = event.event_time.as_ref().map(|time| time.0);
        let Some(at) = last.max(series).or(first).or(created) else { continue };
        let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        match KEPT.checked_sub(age).filter(|left| !left.is_zero()) {
            Some(left) => next = next.min(left),
            None if plan.actions.len() < BURST => plan.write(delete(event.as_ref())),
            None => next = Duration::ZERO,
        }
    }
    plan.again(next.max(PAUSE));
    plan
}
