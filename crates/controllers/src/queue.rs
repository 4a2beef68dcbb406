//! The work of the controllers: what is due, what waits for its time, what is being done.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The first pause after a failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause after a failure that may pass by itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a refusal that will stay one until somebody changes something.
const LONGEST_REFUSED: Duration = Duration::from_secs(30);
/// After so many writing reconciliations without a quiet one, a key is slowed down: what it writes may
/// never be what it wants to read.
const RESTLESS: u32 = 64;

/// How the writes of a reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All were carried out.
    Done,
    /// One failed, and may succeed if it is tried again.
    Failed,
    /// One was refused for what it is.
    Refused,
}

/// Keys that are due, in the order of their urgency; keys for later; keys at work. A key is worked on by
/// one at a time, and what comes in meanwhile makes it due again.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeSet<K>,
    later: BTreeSet<(Instant, K)>,
    times: HashMap<K, Instant>,
    working: HashMap<K, bool>,
    failures: HashMap<K, u32>,
    writes: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Queue {
            due: BTreeSet::new(),
            later: BTreeSet::new(),
            times: HashMap::new(),
            working: HashMap::new(),
            failures: HashMap::new(),
            writes: HashMap::new(),
        }
    }
}

impl<K: Ord + Hash + Clone> Queue<K> {
    /// Makes a key due: something about it changed.
    pub fn add(&mut self, key: K, now: Instant) {
        if let Some(again) = self.working.get_mut(&key) {
            *again = true;
            return;
        }
        let restless = self.writes.get(&key).copied().unwrap_or(0).saturating_sub(RESTLESS);
        if restless > 0 {
            let pause = (FIRST_PAUSE * restless).min(LONGEST_PAUSE);
            self.add_at(key, now + pause);
        } else {
            self.due.insert(key);
        }
    }

    /// Makes a key due at a time, or earlier if it was to be due earlier.
    pub fn add_at(&mut self, key: K, at: Instant) {
        match self.times.get(&key).copied() {
            Some(earlier) if earlier <= at => return,
            Some(before) => {
                self.later.remove(&(before, key.clone()));
            }
            None => {}
        }
        self.times.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// When the next key for later is due.
    pub fn next_time(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The most urgent key that is due.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        while let Some((_, key)) = self.later.first().filter(|(at, _)| *at <= now).cloned() {
            self.later.pop_first();
            self.times.remove(&key);
            match self.working.get_mut(&key) {
                Some(again) => *again = true,
                None => {
                    self.due.insert(key);
                }
            }
        }
        self.due.pop_first()
    }

    /// The key's writes begin.
    pub fn begin(&mut self, key: K) {
        *self.writes.entry(key.clone()).or_default() += 1;
        self.working.insert(key, false);
    }

    /// There is nothing to write for the key.
    pub fn rest(&mut self, key: &K) {
        self.writes.remove(key);
        self.failures.remove(key);
    }

    /// The key's writes ended.
    pub fn end(&mut self, key: K, outcome: Outcome, now: Instant) {
        let again = self.working.remove(&key).unwrap_or(false);
        let longest = match outcome {
            Outcome::Done => {
                self.failures.remove(&key);
                if again {
                    self.add(key, now);
                }
                return;
            }
            Outcome::Failed => LONGEST_PAUSE,
            Outcome::Refused => LONGEST_REFUSED,
        };
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(longest);
        *failures += 1;
        self.add_at(key, now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The base of all times in these tests; only differences matter.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_key_is_worked_on_by_one_at_a_time() {
        let (mut queue, now) = (Queue::default(), start());
        queue.add("b", now);
        queue.add("a", now);
        queue.add("a", now);
        assert_eq!(queue.pop(now), Some("a"), "the most urgent first, and once");
        queue.begin("a");
        queue.add("a", now);
        assert_eq!(queue.pop(now), Some("b"));
        assert_eq!(queue.pop(now), None, "a is still being worked on");
        queue.end("a", Outcome::Done, now);
        assert_eq!(queue.pop(now), Some("a"), "it changed meanwhile");
        queue.begin("a");
        queue.end("a", Outcome::Done, now);
        assert_eq!(queue.pop(now), None);
    }

    #[test]
    fn failures_are_tried_again_ever_later() {
        let (mut queue, mut now) = (Queue::default(), start());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            queue.begin("a");
            queue.end("a", Outcome::Failed, now);
            let at = queue.next_time().unwrap();
            assert_eq!(queue.pop(at - Duration::from_nanos(1)), None);
            pauses.push((at - now).as_millis());
            now = at;
            assert_eq!(queue.pop(now), Some("a"));
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[11], 1000);
    }

    #[test]
    fn the_earliest_time_wins() {
        let (mut queue, now) = (Queue::default(), start());
        queue.add_at("a", now + Duration::from_secs(5));
        queue.add_at("a", now + Duration::from_secs(2));
        queue.add_at("a", now + Duration::from_secs(9));
        assert_eq!(queue.next_time(), Some(now + Duration::from_secs(2)));
        assert_eq!(queue.pop(now + Duration::from_secs(2)), Some("a"));
        assert_eq!(queue.next_time(), None);
    }

    #[test]
    fn a_key_that_never_rests_is_slowed_down() {
        let (mut queue, now) = (Queue::default(), start());
        for _ in 0..RESTLESS {
            queue.add("a", now);
            assert_eq!(queue.pop(now), Some("a"));
            queue.begin("a");
            queue.end("a", Outcome::Done, now);
        }
        queue.begin("a");
        queue.end("a", Outcome::Done, now);
        queue.add("a", now);
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.pop(now + FIRST_PAUSE), Some("a"));
        queue.rest(&"a");
        queue.add("a", now);
        assert_eq!(queue.pop(now), Some("a"));
    }
}
