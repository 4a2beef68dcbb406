//! What happened how often, and what of it is due to be written: no I/O.
//!
//! Follows `tools/record/events_cache.go` of client-go: what happens again is counted, similar messages share an Event
//! ([`Similar`](super::similar::Similar)), and one object gets no more Events than its budget allows
//! ([`Budget`](super::budget::Budget)).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Occurrence;
use super::budget::Budget;
use super::similar::Similar;

/// Series remembered at once.
pub(super) const KNOWN: usize = 1024;
/// A series that goes on is written no more often than this.
const REPEAT: Duration = Duration::from_secs(10);
/// The longest message, in bytes: the API takes no longer one.
pub(super) const LONGEST: usize = 1024;
/// Stands before the newest of the messages that share an Event.
const COMBINED: &str = "(combined from similar events): ";

/// What makes two occurrences the same one happening again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Series {
    object: [Option<String>; 4],
    reason: &'static str,
    /// None for messages that share an Event.
    message: Option<String>,
}

/// One thing that happened, once or more often.
#[derive(Debug, Clone)]
pub(super) struct Count {
    /// What; of several that share an Event, the last one.
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
    /// What it is counted under.
    series: Series,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    counts: HashMap<Series, Count>,
    similar: Similar,
    budget: Budget,
    named: u32,
}

impl Ledger {
    /// Counts something. With too much to remember, it is dropped.
    pub fn happened(&mut self, mut occurrence: Occurrence, at: Timestamp) {
        let of = &occurrence.regarding;
        let object = [of.namespace.clone(), of.name.clone(), of.uid.clone(), of.field_path.clone()];
        let mut series =
            Series { object, reason: occurrence.reason, message: Some(occurrence.message.clone()) };
        if self.similar.is_one_of_many(&occurrence, at) {
            series.message = None;
            occurrence.message.insert_str(0, COMBINED);
            occurrence.message.truncate(occurrence.message.floor_char_boundary(LONGEST));
        }
        self.count(series, occurrence, at);
    }

    fn count(&mut self, series: Series, occurrence: Occurrence, at: Timestamp) {
        if self.counts.len() >= KNOWN && !self.counts.contains_key(&series) {
            self.counts.retain(|_, count| count.written.is_none_or(|(told, _)| told < count.count));
            if self.counts.len() >= KNOWN {
                return;
            }
        }
        let count = self.counts.entry(series).or_insert_with_key(|series| {
            self.named = self.named.wrapping_add(1);
            let name = occurrence.regarding.name.as_deref().unwrap_or_default();
            let event = format!("{name}.{:x}", at.as_nanosecond() + i128::from(self.named));
            let (occurrence, series) = (occurrence.clone(), series.clone());
            Count { occurrence, event, count: 0, first: at, last: at, written: None, series }
        });
        count.count = count.count.saturating_add(1);
        count.last = at;
        count.occurrence.message = occurrence.message;
    }

    /// What is due to be written, in the order in which it happened; from now on it counts as written. What nobody heard of and
    /// there is no room for is forgotten.
    pub fn due(&mut self, now: Duration) -> Vec<Count> {
        let is_due = |count: &&Count| due_at(count).is_some_and(|at| at <= now);
        let mut due: Vec<Count> = self.counts.values().filter(is_due).cloned().collect();
        due.sort_by(|a, b| (a.last, &a.event).cmp(&(b.last, &b.event)));
        due.retain(|due| {
            let has_room = self.budget.spend(&due.occurrence.regarding, now);
            if has_room && let Some(count) = self.counts.get_mut(&due.series) {
                count.written = Some((count.count, now));
            } else if due.written.is_none() {
                self.counts.remove(&due.series);
            }
            has_room
        });
        due
    }

    /// When the next one will be due, if any.
    pub fn next(&self) -> Option<Duration> {
        let at = |count: &Count| Some(due_at(count)?.max(self.budget.room_at(&count.occurrence.regarding)));
        self.counts.values().filter_map(at).min()
    }

    /// Forgets what could not be written. Where only its Event is gone, it begins as a new one.
    pub fn not_written(&mut self, count: Count) {
        self.counts.remove(&count.series);
        if count.written.is_some() {
            self.count(count.series, count.occurrence, count.last);
        }
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
        of("p", message)
    }

    fn of(name: &str, message: &str) -> Occurrence {
        let regarding = k8s_openapi::api::core::v1::ObjectReference {
            name: Some(name.into()),
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
    fn many_messages_that_differ_in_their_words_alone_are_one_event() {
        let mut ledger = Ledger::default();
        for n in 0..12 {
            ledger.happened(occurrence(&format!("pod {n}")), AT + s(n));
        }
        ledger.happened(Occurrence { reason: "Other", ..occurrence("pod 12") }, AT + s(12));
        let told = ledger.due(s(12));
        let messages: Vec<_> = told.iter().map(|told| (&*told.occurrence.message, told.count)).collect();
        assert_eq!((messages.len(), messages[0], messages[8]), (11, ("pod 0", 1), ("pod 8", 1)));
        assert_eq!(messages[9..], [("(combined from similar events): pod 11", 3), ("pod 12", 1)]);

        // The newest one is what is said, and one that is known goes on by itself.
        let together = told[9].event.clone();
        ledger.happened(occurrence("pod 13"), AT + s(20));
        ledger.happened(occurrence("pod 3"), AT + s(21));
        let told = ledger.due(s(30));
        assert_eq!(told[0].occurrence.message, "(combined from similar events): pod 13");
        assert_eq!((told[0].count, &told[0].event), (4, &together));
        assert_eq!((&*told[1].occurrence.message, told[1].count), ("pod 3", 2));

        // Its Event is gone: it begins as a new one, with the same words.
        ledger.happened(occurrence("pod 14"), AT + s(40));
        let gone = ledger.due(s(50)).remove(0);
        ledger.not_written(gone.clone());
        let anew = ledger.due(s(50)).remove(0);
        assert_eq!((anew.occurrence.message, anew.count), (gone.occurrence.message, 1));

        // Ten minutes without any of them: each gets its own Event again.
        ledger.happened(occurrence("pod 15"), AT + s(700));
        assert_eq!(ledger.due(s(700))[0].occurrence.message, "pod 15");
    }

    #[test]
    fn of_one_object_no_more_is_told_than_there_is_room_for() {
        let mut ledger = Ledger::default();
        const REASONS: [&str; 30] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
            "t", "u", "v", "w", "x", "y", "z", "A", "B", "C", "D",
        ];
        for reason in REASONS {
            ledger.happened(Occurrence { reason, ..occurrence("m") }, AT);
        }
        ledger.happened(of("other", "m"), AT);
        let told = ledger.due(s(0));
        assert_eq!(told.len(), 25 + 1, "the other object has room of its own");
        assert_eq!(ledger.next(), None, "the others are forgotten");

        // What goes on gets its Event when there is room again, with all that happened meanwhile.
        let is_first = |told: &&Count| told.occurrence.regarding.name.as_deref() == Some("p");
        let first = told.iter().find(is_first).unwrap().occurrence.clone();
        (1..=3).for_each(|n| ledger.happened(first.clone(), AT + s(n)));
        assert_eq!(ledger.next(), Some(s(300)));
        assert!(ledger.due(s(299)).is_empty());
        assert_eq!(ledger.due(s(300)).remove(0).count, 4);
    }

    #[test]
    fn what_is_remembered_is_limited() {
        let mut ledger = Ledger::default();
        for n in 0..2 * KNOWN {
            ledger.happened(of(&n.to_string(), "m"), AT);
        }
        assert_eq!(ledger.due(s(0)).len(), KNOWN);
        ledger.happened(occurrence("one more"), AT);
        assert_eq!(ledger.due(s(0)).len(), 1, "an Event that was written makes room");
    }
}
