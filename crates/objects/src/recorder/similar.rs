//! Which occurrences are alike, and too many for an Event each.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;

use super::Occurrence;
use super::ledger::KNOWN;

/// From this number of different messages on, those that are alike share an Event (`defaultAggregateMaxEvents`).
const MANY: usize = 10;
/// Until none of them happened for so long (`defaultAggregateIntervalInSeconds`).
const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// What alike occurrences have in common (`EventAggregatorByReasonFunc`).
#[derive(Debug, PartialEq, Eq, Hash)]
struct Alike {
    regarding: [Option<String>; 4],
    warning: bool,
    reason: &'static str,
}

/// The messages of one kind that have an Event each, by their hashes, and when any of that kind came last.
#[derive(Debug)]
struct Recent {
    messages: HashSet<u64>,
    last: Timestamp,
}

/// What happened lately.
#[derive(Debug, Default)]
pub(super) struct Similar(HashMap<Alike, Recent>);

impl Similar {
    /// Takes an occurrence in. True if it is one too many of its kind, and shares an Event with others.
    pub fn is_one_of_many(&mut self, occurrence: &Occurrence, at: Timestamp) -> bool {
        let ObjectReference { namespace, name, uid, kind, .. } = occurrence.regarding.clone();
        let alike = Alike {
            regarding: [namespace, name, uid, kind],
            warning: occurrence.warning,
            reason: occurrence.reason,
        };
        if self.0.len() >= KNOWN && !self.0.contains_key(&alike) {
            self.0.retain(|_, recent| at.duration_since(recent.last) <= WINDOW);
            // Too many kinds: a few more messages get Events of their own.
            if self.0.len() >= KNOWN {
                self.0.clear();
            }
        }
        let recent = self.0.entry(alike).or_insert_with(|| Recent { messages: HashSet::new(), last: at });
        if at.duration_since(recent.last) > WINDOW {
            recent.messages.clear();
        }
        recent.last = at;
        let mut hasher = DefaultHasher::new();
        occurrence.message.hash(&mut hasher);
        let message = hasher.finish();
        if recent.messages.contains(&message) {
            return false;
        }
        let is_one_of_many = recent.messages.len() + 1 >= MANY;
        if !is_one_of_many {
            recent.messages.insert(message);
        }
        is_one_of_many
    }
}
