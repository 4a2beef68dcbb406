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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A class by its place, and a name.
    type Named = (usize, u8);

    impl Urgent for Named {
        fn urgency(&self) -> Urgency {
            CLASSES[self.0].urgency
        }
    }

    const A: Named = (1, 0);
    const B: Named = (1, 1);

    // The base of all times in these tests; only differences matter.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_key_is_worked_on_by_one_at_a_time() {
        let (mut queue, now) = (Queue::default(), start());
        queue.add(A, now);
        queue.add(B, now);
        queue.add(A, now);
        assert_eq!(queue.pop(now), Some(A), "the first first, and once");
        queue.begin(A);
        queue.add(A, now);
        assert_eq!(queue.pop(now), Some(B));
        assert_eq!(queue.pop(now), None, "a is still being worked on");
        queue.end(A, Outcome::Done, now);
        assert_eq!(queue.pop(now), Some(A), "it changed meanwhile");
        queue.begin(A);
        queue.end(A, Outcome::Done, now);
        assert_eq!(queue.pop(now), None);
    }

    #[test]
    fn what_came_and_what_came_again_is_counted_by_class() {
        let (mut queue, now) = (Queue::default(), start());
        for key in [A, A, B, (0, 0)] {
            queue.add(key, now);
        }
        for outcome in [Outcome::Done, Outcome::Failed, Outcome::Refused] {
            let key = queue.pop(now).unwrap();
            queue.begin(key);
            queue.end(key, outcome, now);
        }
        let counted: Vec<_> = queue.load().iter().map(|load| (load.added, load.retried)).collect();
        assert_eq!(counted, [(1, 0), (2, 2), (0, 0), (0, 0)]);
    }

    #[test]
    fn failures_are_tried_again_ever_later() {
        let (mut queue, mut now) = (Queue::default(), start());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            queue.begin(A);
            queue.end(A, Outcome::Failed, now);
            let at = queue.next_time().unwrap();
            assert_eq!(queue.pop(at - Duration::from_nanos(1)), None);
            pauses.push((at - now).as_millis());
            now = at;
            assert_eq!(queue.pop(now), Some(A));
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[11], 1000);
    }

    #[test]
    fn the_earliest_time_wins() {
        let (mut queue, now) = (Queue::default(), start());
        queue.add_at(A, now + Duration::from_secs(5));
        queue.add_at(A, now + Duration::from_secs(2));
        queue.add_at(A, now + Duration::from_secs(9));
        assert_eq!(queue.next_time(), Some(now + Duration::from_secs(2)));
        assert_eq!(queue.pop(now + Duration::from_secs(2)), Some(A));
        assert_eq!(queue.next_time(), None);
    }

    #[test]
    fn a_key_that_never_rests_is_slowed_down() {
        let (mut queue, now) = (Queue::default(), start());
        for _ in 0..RESTLESS {
            queue.add(A, now);
            assert_eq!(queue.pop(now), Some(A));
            queue.begin(A);
            queue.end(A, Outcome::Done, now);
        }
        queue.begin(A);
        queue.end(A, Outcome::Done, now);
        queue.add(A, now);
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.pop(now + FIRST_PAUSE), Some(A));
        queue.quiet(&A);
        queue.add(A, now);
        assert_eq!(queue.pop(now), Some(A));
    }

    #[test]
    fn what_changes_while_a_key_rests_is_looked_at_together() {
        let (mut queue, now) = (Queue::default(), start());
        let until = now + Duration::from_millis(100);
        queue.rest(A, until);
        for ms in 0..100 {
            queue.add(A, now + Duration::from_millis(ms));
            assert_eq!(queue.pop(now + Duration::from_millis(ms)), None, "{ms} ms");
        }
        assert_eq!(queue.next_time(), Some(until));
        assert_eq!(queue.pop(until), Some(A));
        assert_eq!(queue.pop(until), None, "once");
        queue.add(A, until);
        assert_eq!(queue.pop(until), Some(A), "it has rested");
        assert!(queue.resting.is_empty() && queue.rested.is_empty(), "and nothing is left of that");
    }

    #[test]
    fn writes_that_hang_in_one_class_hold_up_no_other() {
        let (mut queue, now) = (Queue::default(), start());
        for name in 0..100 {
            queue.add((3, name), now);
        }
        let mut hanging = 0;
        while let Some(key) = queue.pop(now) {
            queue.begin(key);
            hanging += 1;
        }
        assert_eq!(hanging, CLASSES[3].at_work);
        queue.add((0, 0), now);
        assert_eq!(queue.pop(now), Some((0, 0)));
        let load = queue.load();
        let background = Load {
            urgency: Urgency::Background,
            due: 100 - hanging,
            since: Some(now),
            at_work: hanging,
            added: 100,
            retried: 0,
        };
        assert_eq!((load[3], load[0].due, load[0].since), (background, 0, None));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(Named),
        AddLater(Named, u64),
        Rest(Named, u64),
        Pop(bool),
        End(usize, bool),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || (0..CLASSES.len(), 0..4u8);
        prop_oneof![
            4 => key().prop_map(Step::Add),
            1 => (key(), 0..50u64).prop_map(|(key, ms)| Step::AddLater(key, ms)),
            1 => (key(), 0..50u64).prop_map(|(key, ms)| Step::Rest(key, ms)),
            4 => any::<bool>().prop_map(Step::Pop),
            2 => (any::<usize>(), any::<bool>()).prop_map(|(at, done)| Step::End(at, done)),
            1 => (0..20u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever becomes due is worked on after it became due, by one worker, if only the work goes on.
        #[test]
        fn no_key_is_lost_and_none_has_two_workers(steps in prop::collection::vec(step(), 0..200)) {
            let (mut queue, mut now) = (Queue::default(), start());
            let mut working: Vec<Named> = Vec::new();
            let mut owed: BTreeSet<Named> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Add(key) => {
                        queue.add(key, now);
                        owed.insert(key);
                    }
                    Step::AddLater(key, ms) => {
                        queue.add_at(key, now + Duration::from_millis(ms));
                        owed.insert(key);
                    }
                    Step::Rest(key, ms) => queue.rest(key, now + Duration::from_millis(ms)),
                    Step::Pop(writes) => if let Some(key) = queue.pop(now) {
                        prop_assert!(!working.contains(&key), "two workers for {:?}", key);
                        owed.remove(&key);
                        if writes {
                            queue.begin(key);
                            working.push(key);
                        } else {
                            queue.quiet(&key);
                        }
                    },
                    Step::End(at, done) if !working.is_empty() => {
                        let key = working.swap_remove(at % working.len());
                        queue.end(key, if done { Outcome::Done } else { Outcome::Failed }, now);
                        if !done {
                            owed.insert(key);
                        }
                    }
                    Step::End(..) => {}
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                }
            }
            for key in working.drain(..) {
                queue.end(key, Outcome::Done, now);
            }
            // More time than any pause is long.
            now += LONGEST_REFUSED;
            while let Some(key) = queue.pop(now) {
                owed.remove(&key);
                queue.quiet(&key);
            }
            prop_assert!(owed.is_empty(), "lost: {:?}", owed);
            prop_assert_eq!(queue.next_time(), None);
            prop_assert!(queue.load().iter().all(|load| load.due == 0 && load.at_work == 0));
        }

        /// A class with work gets its turns within two rounds of the others', and its keys in the order in which they
        /// became due.
        #[test]
        fn no_class_starves_and_within_one_the_first_comes_first(
            adds in prop::collection::vec((0..CLASSES.len(), any::<u8>()), 1..400),
            more in prop::collection::vec((0..CLASSES.len(), any::<u8>()), 0..400),
        ) {
            let (mut queue, now) = (Queue::default(), start());
            let bound: u32 = CLASSES.iter().map(|share| 2 * share.turns).sum();
            let mut expected: [VecDeque<u8>; CLASSES.len()] = Default::default();
            let mut waits = [0; CLASSES.len()];
            let mut more = more.into_iter();
            let add = |queue: &mut Queue<Named>, expected: &mut [VecDeque<u8>; 4], key: Named| {
                if !expected[key.0].contains(&key.1) {
                    expected[key.0].push_back(key.1);
                }
                queue.add(key, now);
            };
            adds.into_iter().for_each(|key| add(&mut queue, &mut expected, key));
            while let Some((class, name)) = queue.pop(now) {
                prop_assert_eq!(expected[class].pop_front(), Some(name));
                for (other, wait) in waits.iter_mut().enumerate() {
                    *wait = if other == class || expected[other].is_empty() { 0 } else { *wait + 1 };
                    prop_assert!(*wait <= bound, "class {} waits for {} turns", other, wait);
                }
                more.next().into_iter().for_each(|key| add(&mut queue, &mut expected, key));
            }
            prop_assert!(expected.iter().all(VecDeque::is_empty));
        }
    }
}
