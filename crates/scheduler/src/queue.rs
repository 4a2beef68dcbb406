//! The pods that wait: those to be decided on, and those for which there was no place, until something happens that may
//! help them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use objects::Pod;

use crate::metrics::Pending;
use crate::unschedulable::Hope;
use crate::wish::priority;

/// The pause after the first attempt that found no place; it doubles with every further one. An event that helps a pod
/// counts meanwhile, it is only tried later: with thousands of such pods each event would cost thousands of attempts.
/// Upstream begins with a second (`podInitialBackoffSeconds`), for attempts that cost it a thousand times as much.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest such pause; upstream's is ten seconds (`podMaxBackoffSeconds`).
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// By priority, then by age, then by name.
type Turn = (Reverse<i32>, Option<Timestamp>, Bytes);

/// Pods that wait, under their keys.
///
/// Every pod of `waiting` is in one of `ready`, `resting` and `dormant`, as its stage says, and nobody else is.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: HashMap<Bytes, Wait>,
    /// Those to be decided on.
    ready: BTreeSet<Turn>,
    /// Those that found no place a moment ago.
    resting: BTreeSet<(Instant, Bytes)>,
    /// Those that wait for something to happen, by what may help them.
    dormant: HashMap<Hope, HashSet<Bytes>>,
    /// By the number of a kind of change: how many there were.
    happened: [u64; Hope::KINDS],
}

#[derive(Debug)]
struct Wait {
    turn: Turn,
    attempts: u32,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Ready,
    /// Until a time; what had happened at the attempt.
    Resting(Instant, Hope, u64),
    Dormant(Hope),
}

impl Queue {
    /// A pod waits, from now on or again: what is new about it may help it.
    pub fn add(&mut self, key: Bytes, pod: &Pod) {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        self.remove(&key);
        let turn = (Reverse(priority(pod)), created, key.clone());
        self.ready.insert(turn.clone());
        self.waiting.insert(key, Wait { turn, attempts: 0, stage: Stage::Ready });
    }

    /// A pod waits no more.
    pub fn remove(&mut self, key: &Bytes) {
        self.take_out(key);
        self.waiting.remove(key);
    }

    /// Takes a pod out of what its stage keeps it in.
    fn take_out(&mut self, key: &Bytes) {
        let Some(wait) = self.waiting.get(key) else { return };
        match wait.stage {
            Stage::Ready => drop(self.ready.remove(&wait.turn)),
            Stage::Resting(until, ..) => drop(self.resting.remove(&(until, key.clone()))),
            Stage::Dormant(hope) => {
                if let Some(keys) = self.dormant.get_mut(&hope) {
                    keys.remove(key);
                }
            }
        }
    }

    /// Something happened that may help.
    pub fn happened(&mut self, hope: Hope) {
        for (kind, count) in self.happened.iter_mut().enumerate() {
            *count += u64::from(hope.has(kind));
        }
        let helped: Vec<Hope> = self.dormant.keys().copied().filter(|kinds| kinds.meets(hope)).collect();
        for kinds in helped {
            let keys = self.dormant.remove(&kinds).unwrap_or_default();
            keys.iter().for_each(|key| self.wake(key));
        }
    }

    /// The pod whose turn it is.
    pub fn pop(&mut self, now: Instant) -> Option<Bytes> {
        while let Some((_, key)) = self.resting.first().filter(|(until, _)| *until <= now).cloned() {
            self.resting.pop_first();
            let Some(wait) = self.waiting.get_mut(&key) else { continue };
            let Stage::Resting(_, hope, seen) = wait.stage else { continue };
            if count(&self.happened, hope) == seen {
                wait.stage = Stage::Dormant(hope);
                self.dormant.entry(hope).or_default().insert(key);
            } else {
                self.wake(&key);
            }
        }
        self.ready.first().map(|(.., key)| key.clone())
    }

    /// The pod whose turn it was found no place; `hope` is what may help it.
    pub fn rest(&mut self, key: &Bytes, hope: Hope, now: Instant) {
        let Some(wait) = self.waiting.get_mut(key) else { return };
        self.ready.remove(&wait.turn);
        let pause = FIRST_PAUSE.saturating_mul(1 << wait.attempts.min(10)).min(LONGEST_PAUSE);
        wait.attempts += 1;
        wait.stage = Stage::Resting(now + pause, hope, count(&self.happened, hope));
        self.resting.insert((now + pause, key.clone()));
    }

    /// When the next pod has rested; before that, only a change makes a pod ready.
    pub fn next_time(&self) -> Option<Instant> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many wait for what.
    pub fn pending(&self) -> Pending {
        let (active, backoff) = (self.ready.len(), self.resting.len());
        Pending { active, backoff, unschedulable: self.waiting.len() - active - backoff }
    }

    /// Whether a pod is to be decided on.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A pod that found no place is to be tried again at once.
    pub fn wake_now(&mut self, key: &Bytes) {
        self.take_out(key);
        self.wake(key);
    }

    fn wake(&mut self, key: &Bytes) {
        if let Some(wait) = self.waiting.get_mut(key) {
            wait.stage = Stage::Ready;
            self.ready.insert(wait.turn.clone());
        }
    }
}

fn count(happened: &[u64], hope: Hope) -> u64 {
    happened.iter().enumerate().filter(|(kind, _)| hope.has(*kind)).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(priority: i32) -> Pod {
        serde_json::from_value(serde_json::json!({"spec": {"priority": priority, "containers": []}})).unwrap()
    }

    fn key(name: &str) -> Bytes {
        Bytes::copy_from_slice(name.as_bytes())
    }

    // Tests stand for the driver, which reads the clock.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn turns_go_by_priority_and_then_by_name() {
        let (mut queue, now) = (Queue::default(), start());
        for (name, priority) in [("b", 0), ("a", 0), ("c", 5)] {
            queue.add(key(name), &pod(priority));
        }
        let mut order = Vec::new();
        while let Some(next) = queue.pop(now) {
            queue.remove(&next);
            order.push(next);
        }
        assert_eq!(order, [key("c"), key("a"), key("b")]);
    }

    #[test]
    fn a_pod_without_a_place_waits_for_what_may_help_it_and_rests_between_attempts() {
        let (mut queue, now) = (Queue::default(), start());
        queue.add(key("a"), &pod(0));
        queue.rest(&key("a"), Hope::NODES | Hope::ROOM, now);
        queue.happened(Hope::ROOM);
        assert_eq!(queue.pop(now), None, "it rests, whatever happens");
        assert_eq!(queue.pop(now + FIRST_PAUSE), Some(key("a")), "what happened meanwhile counts");

        queue.rest(&key("a"), Hope::NODES | Hope::ROOM, now);
        assert_eq!(queue.next_time(), Some(now + 2 * FIRST_PAUSE), "the pause grows");
        assert_eq!(queue.pop(now + LONGEST_PAUSE), None, "nothing happened");
        assert_eq!(queue.next_time(), None, "it costs nothing");
        queue.happened(Hope::COMPANY);
        assert_eq!(queue.pop(now + LONGEST_PAUSE), None, "that doesn't help it");
        queue.happened(Hope::NODES);
        assert_eq!(queue.pop(now + LONGEST_PAUSE), Some(key("a")));
    }

    proptest! {
        #[test]
        fn no_pod_is_lost_and_none_that_may_be_helped_sleeps(
            steps in prop::collection::vec((0u8..5, 0u8..6, prop::sample::select(vec![Hope::NODES, Hope::NODES | Hope::ROOM, Hope::COMPANY]), 0u64..50), 0..80),
        ) {
            let (mut queue, mut now) = (Queue::default(), start());
            let mut waiting = HashSet::new();
            for (step, name, hope, millis) in steps {
                let key = key(&name.to_string());
                match step {
                    0 | 1 => { queue.add(key.clone(), &pod(0)); waiting.insert(key); }
                    2 => { queue.remove(&key); waiting.remove(&key); }
                    3 => queue.happened(hope),
                    _ => {
                        now += Duration::from_millis(millis);
                        if let Some(key) = queue.pop(now) {
                            queue.rest(&key, hope, now);
                        }
                    }
                }
                prop_assert_eq!(queue.len(), waiting.len());
                let pending = queue.pending();
                let dormant: usize = queue.dormant.values().map(HashSet::len).sum();
                prop_assert_eq!(pending.unschedulable, dormant);
                prop_assert_eq!(pending.active + pending.backoff + dormant, waiting.len());
            }
            now += 2 * LONGEST_PAUSE;
            queue.happened(Hope::ALL);
            while let Some(key) = queue.pop(now) {
                prop_assert!(waiting.remove(&key));
                queue.remove(&key);
            }
            prop_assert!(waiting.is_empty(), "{waiting:?}");
        }
    }
}
