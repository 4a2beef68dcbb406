//! Decides what is recorded, and passes it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use figures::{family, sample, single};

use crate::{Asked, Decision, Event, Level, Policy};

/// The most bytes of objects that are kept of requests that aren't over yet: clients that are slow, or many, fill no memory.
const MOST_KEPT: usize = 64 << 20;

/// Where events go. It never keeps a request waiting: it counts what it has no room for.
pub trait Sink: Send + Sync + 'static {
    /// Takes an event, which is one line of JSON without its end.
    fn take(&self, event: &Bytes);
}

/// A policy, and where the events go that it wants.
pub struct Auditor {
    policy: Policy,
    sinks: Vec<Arc<dyn Sink>>,
    events: AtomicU64,
    levels: [AtomicU64; Level::ALL.len()],
    kept: AtomicUsize,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auditor").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Auditor {
    /// One that passes on to all of these.
    pub fn new(policy: Policy, sinks: Vec<Arc<dyn Sink>>) -> Self {
        let (events, kept) = (AtomicU64::new(0), AtomicUsize::new(0));
        Auditor { policy, sinks, events, levels: Default::default(), kept }
    }

    /// Whether there is room for this many more bytes of objects that wait to be recorded. If so they count until they are
    /// [forgotten](Self::forget).
    pub fn keep(&self, bytes: usize) -> bool {
        let fits = |kept: usize| kept.checked_add(bytes).filter(|kept| *kept <= MOST_KEPT);
        self.kept.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// This many bytes that counted aren't kept any more.
    pub fn forget(&self, bytes: usize) {
        self.kept.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// What is wanted of a request, which is counted.
    pub fn decide(&self, asked: &Asked<'_>) -> Decision {
        let decision = self.policy.decide(asked);
        self.levels[decision.level as usize].fetch_add(1, Ordering::Relaxed);
        decision
    }

    /// Passes an event on.
    pub fn tell(&self, event: &Event) {
        // Maps with texts for keys: there is nothing that JSON can't say.
        let Ok(line) = serde_json::to_vec(event) else { return };
        self.events.fetch_add(1, Ordering::Relaxed);
        let line = Bytes::from(line);
        for sink in &self.sinks {
            sink.take(&line);
        }
    }

    /// What it has counted, under upstream's names.
    pub fn write_metrics(&self, out: &mut String) {
        let events = self.events.load(Ordering::Relaxed);
        single(out, "apiserver_audit_event_total", "counter", "Audit events that were passed on", events);
        let name = "apiserver_audit_level_total";
        family(out, name, "counter", "Requests by the level that the audit policy gave them");
        for level in Level::ALL {
            let count = self.levels[level as usize].load(Ordering::Relaxed);
            sample(out, name, &format!(r#"level="{}""#, level.as_str()), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_are_still_to_be_told_take_no_more_than_there_is_room_for() {
        let text = b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Request}]}";
        let auditor = Auditor::new(Policy::parse(text).unwrap(), Vec::new());
        let kept = [MOST_KEPT - 1, 1, 1, usize::MAX].map(|bytes| auditor.keep(bytes));
        assert_eq!(kept, [true, true, false, false]);
        auditor.forget(1);
        assert_eq!([1, 1].map(|bytes| auditor.keep(bytes)), [true, false]);
    }
}
