//! What happened how often, and what of it is due to be written: no I/O.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Occurrence;

/// Series remembered at once.
const KNOWN: usize = 1024;
/// A series that goes on is written no more often than this.
const REPEAT: Duration = Duration::from_secs(10);

/// What makes two occurrences the same one happening again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Series {
    object: [Option<String>; 4],
    reason: &'static str,
    message: String,
}

/// One thing that happened, once or more often.
#[derive(Debug, Clone)]
pub(super) struct Count {
    /// What.
    pub occurrence: Occurrence,
    /// The name of its Event.
    pub event: String,
    /// How often.
    pub count: i32,
    /// When for the first time.
    pub first: Timestamp,
    /// When for the last.
    pub last: Timestamp,
    /// How often by what was written last, and when that was.
    pub written: Option<(i32, Duration)>,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    counts: HashMap<Series, Count>,
    named: u32,
}

impl Ledger {
    /// Counts something. With too much to remember, it is dropped.
    pub fn happened(&mut self, occurrence: Occurrence, at: Timestamp) {
        let series = series(&occurrence);
        if self.counts.len() >= KNOWN && !self.counts.contains_key(&series) {
            self.counts.retain(|_, count| count.written.is_none_or(|(told, _)| told < count.count));
            if self.counts.len() >= KNOWN {
                return;
            }
        }
        let count = self.counts.entry(series).or_insert_with(|| {
            self.named = self.named.wrapping_add(1);
            let name = occurrence.regarding.name.as_deref().unwrap_or_default();
            let event = format!("{name}.{:x}", at.as_nanosecond() + i128::from(self.named));
            Count { occurrence, event, count: 0, first: at, last: at, written: None }
        });
        count.count = count.count.saturating_add(1);
        count.last = at;
    }

    /// What is due to be written, in the order in which it happened; from now on it counts as written.
    pub fn due(&mut self, now: Duration) -> Vec<Count> {
        let mut due = Vec::new();
        for count in self.counts.values_mut() {
            if due_at(count).is_some_and(|at| at <= now) {
                due.push(count.clone());
                count.written = Some((count.count, now));
            }
        }
        due.sort_by(|a, b| (a.last, &a.event).cmp(&(b.last, &b.event)));
        due
    }

    /// When the next one will be due, if any.
    pub fn next(&self) -> Option<Duration> {
        self.counts.values().filter_map(due_at).min()
    }

    /// Forgets what could not be written. Where only its Event is gone, it begins as a new one.
    pub fn not_written(&mut self, count: Count) {
        self.counts.remove(&series(&count.occurrence));
        if count.written.is_some() {
            self.happened(count.occurrence, count.last);
        }
    }
}

fn series(occurrence: &Occurrence) -> Series {
    let of = &occurrence.regarding;
    Series {
        object: [of.namespace.clone(), of.name.clone(), of.uid.clone(), of.field_path.clone()],
        reason: occurrence.reason,
        message: occurrence.message.clone(),
    }
}

fn due_at(count: &Count) -> Option<Duration> {
    match count.written {
        None => Some(Duration::ZERO),
        Some((told, at)) => (told < count.count).then_some(at + REPEAT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str) -> Occurrence {
        let regarding = k8s_openapi::api::core::v1::ObjectReference {
            name: Some("p".into()),
            uid: Some("u".into()),
            ..Default::default()
        };
        Occurrence { regarding, warning: true, reason: "BackOff", message: message.into() }
    }

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_repeats_is_counted_and_written_seldom() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.next(), None);
        ledger.happened(occurrence("m"), AT);
        assert_eq!(ledger.next(), Some(s(0)));
        let first = ledger.due(s(0)).remove(0);
        assert_eq!((first.count, first.written, ledger.next()), (1, None, None));
        ledger.happened(occurrence("m"), AT + s(1));
        ledger.happened(occurrence("m"), AT + s(2));
        assert!(ledger.due(s(3)).is_empty(), "not yet again");
        assert_eq!(ledger.next(), Some(s(10)));
        let again = ledger.due(s(10)).remove(0);
        assert_eq!((again.count, again.first, again.last), (3, AT, AT + s(2)));
        assert_eq!((again.event, again.written.is_some()), (first.event, true));
    }

    #[test]
    fn what_could_not_be_written_is_forgotten_unless_only_its_event_is_gone() {
        let mut ledger = Ledger::default();
        ledger.happened(occurrence("m"), AT);
        let created = ledger.due(s(0)).remove(0);
        ledger.not_written(created.clone());
        assert!(ledger.due(s(0)).is_empty());
        ledger.happened(occurrence("m"), AT);
        ledger.due(s(0));
        ledger.happened(occurrence("m"), AT + s(1));
        let merged = ledger.due(s(10)).remove(0);
        ledger.not_written(merged.clone());
        let anew = ledger.due(s(10)).remove(0);
        assert_eq!((anew.count, anew.written), (1, None));
        assert_ne!(anew.event, merged.event);
    }

    #[test]
    fn what_is_remembered_is_limited() {
        let mut ledger = Ledger::default();
        for n in 0..2 * KNOWN {
            ledger.happened(occurrence(&n.to_string()), AT);
        }
        assert_eq!(ledger.due(s(0)).len(), KNOWN);
        ledger.happened(occurrence("one more"), AT);
        assert_eq!(ledger.due(s(0)).len(), 1, "what was told makes room");
    }
}
