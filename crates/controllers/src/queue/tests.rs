//! In which order, and when, keys are due.

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
