//! The work of the controllers: what is due, what waits for its time, what is being done.
//!
//! Laws, which the tests check with orders made by chance: no key is lost; one worker a key; within a class of urgency
//! the first to become due is the first to be worked on; no class starves, however much is due in the others.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::controller::Urgency;

/// The first pause after a failure, as client-go's (`DefaultTypedControllerRateLimiter`); it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause after a failure that may pass by itself: a leader of the store is found in less.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a refusal that will stay one until somebody changes something: what changed is seen by a person
/// who waits for it, and two refusals a minute cost nothing.
const LONGEST_REFUSED: Duration = Duration::from_secs(30);
/// After this many writing reconciliations without a quiet one, a key is slowed down: what it writes may
/// never be what it wants to read. A rollout of thousands of pods writes some hundred times in a row.
const RESTLESS: u32 = 1024;

/// What a class of urgency gets, most urgent first.
///
/// Each class has half the turns of the one before: with work in all of them traffic gets more than all others together, and
/// the last one still comes twice in 30 decisions, a fraction of a millisecond. The keys at work fill the store's groups of
/// writes without making any of them wait long: six of upstream's controllers, with five workers each by default
/// (`--concurrent-deployment-syncs` and its like), have about 32. Upkeep's keys write hundreds of times each (a namespace
/// that is emptied), so half of that is enough.
const CLASSES: [Share; 4] = [
    Share { urgency: Urgency::Traffic, turns: 16, at_work: 32 },
    Share { urgency: Urgency::Workload, turns: 8, at_work: 32 },
    Share { urgency: Urgency::Upkeep, turns: 4, at_work: 16 },
    Share { urgency: Urgency::Background, turns: 2, at_work: 32 },
];

/// What a class of urgency gets.
struct Share {
    urgency: Urgency,
    /// Keys that are worked on in a round: while there is work in all classes, each has its turns.
    turns: u32,
    /// Keys that are written for at the same time: writes that hang in one class hold up no other.
    at_work: usize,
}

/// Something that is more or less urgent.
pub trait Urgent {
    /// How urgent it is.
    fn urgency(&self) -> Urgency;
}

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

/// How much there is to do in one class of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The class.
    pub urgency: Urgency,
    /// Keys that are due and wait for their turn.
    pub due: usize,
    /// Since when the first of them waits; nothing if none does.
    pub since: Option<Instant>,
    /// Keys that are being written for.
    pub at_work: usize,
    /// How often a key became due, since this member leads.
    pub added: u64,
    /// How often a key whose writes failed or were refused was put off, to be tried again.
    pub retried: u64,
}

/// Keys that are due, first in first out within a class of urgency, the classes by turns; keys for later; keys at work.
/// A key is worked on by one at a time, and what comes in meanwhile makes it due again.
///
/// A key is in the lanes once at most, and then in `due`; while it is at work it is in `working` and in no lane.
/// `times` has each key in `later` with its time, `resting` each in `rested`. A key that was taken by `pop` is nowhere
/// until `begin`, `quiet` or an `add`: the driver decides about it in between, without waiting for anything.
#[derive(Debug)]
pub struct Queue<K> {
    lanes: [Lane<K>; CLASSES.len()],
    /// Those in the lanes.
    due: HashSet<K>,
    later: BTreeSet<(Instant, K)>,
    times: HashMap<K, Instant>,
    working: HashMap<K, bool>,
    failures: HashMap<K, u32>,
    writes: HashMap<K, u32>,
    /// Keys that rest, and until when.
    resting: HashMap<K, Instant>,
    rested: BTreeSet<(Instant, K)>,
}

#[derive(Debug)]
struct Lane<K> {
    keys: VecDeque<(K, Instant)>,
    turns: u32,
    at_work: usize,
    added: u64,
    retried: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Queue {
            lanes: CLASSES.map(|share| Lane {
                keys: VecDeque::new(),
                turns: share.turns,
                at_work: 0,
                added: 0,
                retried: 0,
            }),
            due: HashSet::new(),
            later: BTreeSet::new(),
            times: HashMap::new(),
            working: HashMap::new(),
            failures: HashMap::new(),
            writes: HashMap::new(),
            resting: HashMap::new(),
            rested: BTreeSet::new(),
        }
    }
}

impl<K: Urgent + Ord + Hash + Clone> Queue<K> {
    /// Makes a key due: something about it changed.
    pub fn add(&mut self, key: K, now: Instant) {
        if let Some(again) = self.working.get_mut(&key) {
            *again = true;
            return;
        }
        if let Some(until) = self.resting.get(&key).copied().filter(|until| *until > now) {
            self.add_at(key, until);
            return;
        }
        let restless = self.writes.get(&key).copied().unwrap_or(0).saturating_sub(RESTLESS);
        if restless > 0 {
            let pause = (FIRST_PAUSE * restless).min(LONGEST_PAUSE);
            self.add_at(key, now + pause);
        } else {
            self.enter(key, now);
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

    /// The next key that is due, of a class that may have one more at work.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        self.ripen(now);
        let at = self.turn()?;
        let lane = &mut self.lanes[at];
        lane.turns -= 1;
        let (key, _) = lane.keys.pop_front()?;
        self.due.remove(&key);
        Some(key)
    }

    /// What was for later and has come to its time is due, since then.
    fn ripen(&mut self, now: Instant) {
        while let Some((_, key)) = self.rested.first().filter(|(until, _)| *until <= now).cloned() {
            self.rested.pop_first();
            self.resting.remove(&key);
        }
        while let Some((at, key)) = self.later.first().filter(|(at, _)| *at <= now).cloned() {
            self.later.pop_first();
            self.times.remove(&key);
            match self.working.get_mut(&key) {
                Some(again) => *again = true,
                None => self.enter(key, at),
            }
        }
    }

    /// The class whose turn it is: the most urgent one with work that has turns left. Once none has, a new round begins.
    fn turn(&mut self) -> Option<usize> {
        let may = |lane: &Lane<K>, share: &Share| !lane.keys.is_empty() && lane.at_work < share.at_work;
        let first = |lanes: &[Lane<K>]| {
            let mut classes = lanes.iter().zip(&CLASSES);
            classes.position(|(lane, share)| may(lane, share) && lane.turns > 0)
        };
        first(&self.lanes).or_else(|| {
            self.lanes.iter_mut().zip(&CLASSES).for_each(|(lane, share)| lane.turns = share.turns);
            first(&self.lanes)
        })
    }

    fn enter(&mut self, key: K, since: Instant) {
        if self.due.insert(key.clone()) {
            let lane = self.lane(&key);
            lane.keys.push_back((key, since));
            lane.added += 1;
        }
    }

    fn lane(&mut self, key: &K) -> &mut Lane<K> {
        let urgency = key.urgency();
        let at = CLASSES.iter().position(|share| share.urgency == urgency);
        &mut self.lanes[at.unwrap_or(CLASSES.len() - 1)]
    }

    /// The key's writes begin.
    pub fn begin(&mut self, key: K) {
        *self.writes.entry(key.clone()).or_default() += 1;
        self.lane(&key).at_work += 1;
        self.working.insert(key, false);
    }

    /// There is nothing to write for the key.
    pub fn quiet(&mut self, key: &K) {
        self.writes.remove(key);
        self.failures.remove(key);
    }

    /// The key is not due again before `until`, so that what changes until then is looked at together.
    pub fn rest(&mut self, key: K, until: Instant) {
        if let Some(before) = self.resting.insert(key.clone(), until) {
            self.rested.remove(&(before, key.clone()));
        }
        self.rested.insert((until, key));
    }

    /// The key's writes ended.
    pub fn end(&mut self, key: K, outcome: Outcome, now: Instant) {
        let Some(again) = self.working.remove(&key) else { return };
        self.lane(&key).at_work -= 1;
        // Where it failed, what came in meanwhile waits for the pause too: the report of a refusal is itself such a
        // change, and would have the key refused again at once.
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
        self.lane(&key).retried += 1;
        self.add_at(key, now + pause);
    }

    /// How much there is to do in each class, most urgent first.
    pub fn load(&self) -> Vec<Load> {
        let load = |(lane, share): (&Lane<K>, &Share)| Load {
            urgency: share.urgency,
            due: lane.keys.len(),
            since: lane.keys.front().map(|(_, since)| *since),
            at_work: lane.at_work,
            added: lane.added,
            retried: lane.retried,
        };
        self.lanes.iter().zip(&CLASSES).map(load).collect()
    }
}

#[cfg(test)]
mod tests;
