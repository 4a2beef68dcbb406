use proptest::prelude::*;

use super::*;

const SILENT_AFTER: Duration = Duration::from_millis(250);

#[allow(clippy::disallowed_methods)] // Some instant to count from; nothing depends on which.
fn start() -> Instant {
    Instant::now()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn tally(start: Instant) -> Tally {
    Tally::new(["a".to_owned(), "b".to_owned()], SILENT_AFTER, start)
}

fn silent(host: &str, unheard_for: u64) -> HostChange {
    HostChange::Silent { host: host.into(), unheard_for: ms(unheard_for), is_deaf: false }
}

fn heard(host: &str, unheard_for: u64) -> HostChange {
    HostChange::Heard { host: host.into(), unheard_for: ms(unheard_for) }
}

fn started(host: &str, incarnation: u64) -> HostChange {
    HostChange::Started { host: host.into(), incarnation }
}

/// Checks every 10 ms after `from` up to and including `to`; all changes.
fn checked(tally: &mut Tally, start: Instant, from: u64, to: u64) -> Vec<HostChange> {
    (from / 10 + 1..=to / 10).flat_map(|tick| tally.check(start + ms(tick * 10))).collect()
}

#[test]
fn who_stops_is_silent_after_a_quarter_of_a_second_and_heard_at_the_next_beat() {
    let start = start();
    let mut tally = tally(start);
    assert_eq!(tally.beat("a", 7, 1, start + ms(50)), Ok(vec![started("a", 7)]));
    assert_eq!(checked(&mut tally, start, 0, 249), []);
    assert_eq!(tally.deadline(), Some(start + ms(250)), "b, who was never heard, counts from the start");
    assert_eq!(tally.check(start + ms(250)), [silent("b", 250)]);
    assert_eq!(checked(&mut tally, start, 250, 290), []);
    assert_eq!(tally.check(start + ms(300)), [silent("a", 250)]);
    assert_eq!(tally.deadline(), None);
    assert_eq!(checked(&mut tally, start, 300, 900), [], "said once");

    let hosts = tally.hosts();
    assert!(hosts.is_silent("a") && hosts.is_silent("b") && !hosts.is_silent("me"));
    assert_eq!(hosts.silence()["a"], start + ms(50));
    assert_eq!(hosts.silence()["b"], start);

    assert_eq!(tally.beat("a", 7, 2, start + ms(900)), Ok(vec![heard("a", 850)]));
    assert!(!tally.hosts().is_silent("a"));
}

#[test]
fn a_restart_is_noticed_even_without_silence() {
    let start = start();
    let mut tally = tally(start);
    assert_eq!(tally.beat("a", 7, 1, start), Ok(vec![started("a", 7)]));
    assert_eq!(tally.beat("a", 8, 1, start), Ok(vec![started("a", 8)]));
    assert_eq!(tally.hosts().0["a"].incarnation, Some(8));
    assert_eq!(tally.beat("a", 7, 2, start), Err(Refused::Replayed), "a beat of its former life");

    checked(&mut tally, start, 0, 300);
    assert_eq!(tally.beat("a", 9, 1, start + ms(310)), Ok(vec![started("a", 9), heard("a", 310)]));
}

#[test]
fn beats_of_strangers_and_beats_played_again_do_not_count() {
    let start = start();
    let mut tally = tally(start);
    assert_eq!(tally.beat("c", 7, 1, start), Err(Refused::Unknown));
    assert_eq!(tally.beat("a", 7, 5, start), Ok(vec![started("a", 7)]));
    for sequence in [5, 4, 0] {
        assert_eq!(tally.beat("a", 7, sequence, start + ms(200)), Err(Refused::Replayed));
    }
    assert_eq!(checked(&mut tally, start, 0, 250), [silent("a", 250), silent("b", 250)]);
    assert_eq!(tally.hosts().0.len(), 2);
}

#[test]
fn lives_are_forgotten_at_some_point_but_never_the_present_one() {
    let start = start();
    let mut tally = tally(start);
    for incarnation in 0..10_000 {
        assert!(tally.beat("a", incarnation, 1, start).is_ok());
        assert!(tally.records["a"].former_lives.len() <= FORMER_LIVES);
        assert_eq!(tally.beat("a", incarnation, 1, start), Err(Refused::Replayed));
    }
}

#[test]
fn a_pause_of_this_host_is_not_held_against_the_others() {
    let start = start();
    for pause in [260, 1_000, 60_000] {
        let mut tally = tally(start);
        tally.beat("a", 7, 1, start + ms(40)).unwrap();
        tally.beat("b", 7, 1, start + ms(40)).unwrap();
        checked(&mut tally, start, 0, 50);
        let awake = 50 + pause;
        assert_eq!(tally.check(start + ms(awake)), [], "after {pause} ms");
        // A host that beats again is never silent; one that doesn't is, a little later.
        tally.beat("a", 7, 2, start + ms(awake + 40)).unwrap();
        let changes = checked(&mut tally, start, awake, awake + 250);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(matches!(&changes[0], HostChange::Silent { host, .. } if host == "b"));
    }
}

/// Beats of `b`, deaf or not, every 50 ms; all changes.
fn beats_of_b(
    tally: &mut Tally,
    start: Instant,
    times: std::ops::Range<u64>,
    is_deaf: bool,
) -> Vec<HostChange> {
    let mut changes = Vec::new();
    for number in times {
        let now = start + ms(number * 50);
        changes.extend(match tally.is_sign(is_deaf) {
            true => tally.beat("b", 7, number, now).unwrap(),
            false => tally.no_sign("b", 7, number, now).unwrap(),
        });
        changes.extend(tally.beat("a", 7, number, now).unwrap());
        changes.extend(tally.check(now));
    }
    changes
}

#[test]
fn a_host_that_says_that_it_hears_too_few_is_silent_though_it_is_heard() {
    let start = start();
    let mut tally = tally(start);
    tally.count_on(["a", "b", "me"].map(str::to_owned).into());
    assert_eq!(beats_of_b(&mut tally, start, 1..11, false), [started("b", 7), started("a", 7)]);
    let silent = HostChange::Silent { host: "b".into(), unheard_for: ms(250), is_deaf: true };
    assert_eq!(beats_of_b(&mut tally, start, 11..20, true), [silent]);
    let has_been = |tally: &Tally, host: &str, at: u64| tally.has_been_deaf(host, start + ms(at));
    assert!(has_been(&tally, "b", 800) && !has_been(&tally, "b", 799), "it said so at 550 ms first");
    assert!(!has_been(&tally, "a", 10_000));
    assert_eq!(tally.hosts().0["b"].last_heard, start + ms(500), "its last beat that was a sign of life");
    assert!(!tally.is_deaf(), "this host hears both");
    assert_eq!(beats_of_b(&mut tally, start, 20..21, false), [heard("b", 500)]);
    assert!(!has_been(&tally, "b", 10_000));
    // For less than a quarter of a second, again and again, it is nothing.
    for round in 0..10 {
        let begin = 21 + round * 5;
        assert_eq!(beats_of_b(&mut tally, start, begin..begin + 4, true), []);
        assert_eq!(beats_of_b(&mut tally, start, begin + 4..begin + 5, false), []);
    }
}

#[test]
fn who_hears_too_few_takes_the_others_as_they_are_heard() {
    let start = start();
    let mut tally = tally(start);
    assert!(!tally.is_deaf(), "there are no members yet");
    tally.count_on(["a", "c", "me"].map(str::to_owned).into());
    assert!(!tally.is_deaf());
    tally.follow(["a", "b", "c"].map(str::to_owned), start);
    tally.beat("b", 7, 1, start).unwrap();
    checked(&mut tally, start, 0, 250);
    assert!(tally.is_deaf(), "two of three members are silent");
    assert!(tally.is_sign(true) && tally.is_sign(false));
    for (members, is_deaf) in [("a me", false), ("a", true), ("a c me new", false)] {
        let mut other = tally.clone();
        other.count_on(members.split(' ').map(str::to_owned).collect());
        assert_eq!(other.is_deaf(), is_deaf, "{members}: half of them are enough");
    }
    let now = start + ms(260);
    assert_eq!(tally.beat("b", 7, 2, now), Ok(vec![heard("b", 260)]), "a worker that hears too few either");
    // A beat tells that a member is there, whatever it says.
    tally.no_sign("c", 7, 1, now).unwrap();
    assert!(!tally.is_deaf() && !tally.is_sign(true) && tally.hosts().is_silent("c"));
}

#[test]
fn hosts_that_beat_seldom_find_a_dead_one_in_time() {
    let start = start();
    let silent_after = ms(2_000);
    let mut tally = Tally::new(["a".to_owned()], silent_after, start);
    assert_eq!(tally.beat("a", 7, 1, start), Ok(vec![started("a", 7)]));
    // As the driver does where beats are a second apart: a look with each of its own.
    assert_eq!(tally.check(start + ms(1_000)), []);
    assert_eq!(tally.check(start + ms(2_000)), [silent("a", 2_000)]);
}

/// What happens at one step of 10 ms.
#[derive(Debug, Clone, Copy)]
enum Step {
    Beat,
    Again,
    Restart,
    Nothing,
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Beat),
        1 => Just(Step::Again),
        1 => Just(Step::Restart),
        20 => Just(Step::Nothing),
        1 => (1..5_000u64).prop_map(Step::Pause),
    ]
}

proptest! {
    /// The law in full: a host is silent exactly if this host was awake for `SILENT_AFTER` since its last
    /// beat, where of each gap between two checks at most half of that time counts as awake.
    #[test]
    fn silence_is_time_awake_since_the_last_beat(steps in prop::collection::vec(step(), 0..200)) {
        let start = start();
        let mut tally = Tally::new(["a".to_owned()], SILENT_AFTER, start);
        let (mut now, mut awake, mut incarnation, mut sequence) = (0, 0, 1, 0);
        let mut known_silent = false;
        for step in steps {
            let gap = if let Step::Pause(ms) = step { ms } else { 10 };
            now += gap;
            awake += gap.min(125);
            let at = start + ms(now);
            let mut changes = match step {
                Step::Beat | Step::Restart => {
                    if matches!(step, Step::Restart) {
                        incarnation += 1;
                    }
                    sequence += 1;
                    awake = 0;
                    tally.beat("a", incarnation, sequence, at).unwrap()
                }
                Step::Again if sequence > 0 => {
                    prop_assert_eq!(tally.beat("a", incarnation, sequence, at), Err(Refused::Replayed));
                    vec![]
                }
                _ => vec![],
            };
            changes.extend(tally.check(at));
            for change in changes {
                match change {
                    HostChange::Silent { .. } => {
                        prop_assert!(!known_silent, "silent twice");
                        known_silent = true;
                    }
                    HostChange::Heard { .. } => {
                        prop_assert!(known_silent, "heard twice");
                        known_silent = false;
                    }
                    HostChange::Started { .. } => {}
                }
            }
            prop_assert_eq!(known_silent, awake >= 250, "at {} ms", now);
            prop_assert_eq!(tally.hosts().is_silent("a"), known_silent);
        }
    }
}
