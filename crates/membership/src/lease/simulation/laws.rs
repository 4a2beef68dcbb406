//! What must hold in every history, and the mistakes that must be found. `HOLDFAST_SEEDS` says how many histories are tried.

use rand::Rng;

use super::{Faults, INTERVAL, LONGEST_WAY, LONGEST_WRITE, SILENT, World};
use crate::lease::Terms;

/// One history; how often a host was found fenced.
fn history(seed: u64, terms: Terms, faults: Faults) -> usize {
    let hosts = 3 + (seed % 4) as usize;
    let members = if hosts >= 5 && seed.is_multiple_of(3) { 5 } else { 3 };
    let mut world = World::new(seed, hosts, members, terms);
    world.faults = faults;
    for _ in 0..40 {
        let quiet = world.random.random_range(50..1_500);
        world.run(quiet);
        world.disturb();
    }
    world.heal();
    world.run(10_000);
    for host in 0..hosts {
        assert!(
            world.holds(host),
            "seed {seed}: {} holds no lease though all is well",
            world.hosts[host].name
        );
    }
    world.fenced.len()
}

/// Every other history has eager members: that they aren't is no part of the proof.
fn faults(seed: u64) -> Faults {
    Faults { eager: seed.is_multiple_of(2), ..Faults::default() }
}

#[test]
fn what_must_not_run_twice_has_stopped_before_its_epoch_counts_as_ended() {
    let seeds = std::env::var("HOLDFAST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(400);
    let fenced: usize = (0..seeds).map(|seed| history(seed, Terms::default(), faults(seed))).sum();
    assert!(fenced > 300, "hardly anybody was ever fenced: {fenced} times");
}

/// Whether the law finds a mistake.
fn is_caught(mistaken: impl FnOnce() + std::panic::UnwindSafe) -> bool {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = std::panic::catch_unwind(mistaken).is_err();
    std::panic::set_hook(hook);
    caught
}

#[test]
fn a_count_that_is_too_short_a_lease_that_is_too_long_and_an_epoch_that_begins_too_early_are_caught() {
    let right = Terms::default();
    let mistaken = |terms, hasty| {
        move || {
            for seed in 0..50 {
                history(seed, terms, Faults { hasty, ..faults(seed) });
            }
        }
    };
    assert!(is_caught(mistaken(Terms { fence: right.lease, ..right }, false)));
    assert!(is_caught(mistaken(Terms { lease: right.fence, ..right }, false)));
    assert!(is_caught(mistaken(right, true)));
}

/// A worker isn't heard by the first member alone, which votes and is started again; then not by the second, which votes too.
fn two_votes_with_a_restart_between_them(forgetful: bool) {
    let mut world = World::new(1, 4, 3, Terms::default());
    world.faults = Faults { eager: true, forgetful, ..Faults::default() };
    world.run(1_000);
    world.cut.insert((3, 0));
    world.run(3_000);
    assert!(world.holds(3), "two members hear it");
    world.hosts[0].process = None;
    world.start(0);
    world.cut.clear();
    world.run(1_000);
    world.cut.insert((3, 1));
    world.run(4_000);
    assert!(world.fenced.contains(&("n3".into(), 1)));
}

#[test]
fn promises_outlast_processes_and_a_member_that_forgets_them_is_caught() {
    two_votes_with_a_restart_between_them(false);
    assert!(is_caught(|| two_votes_with_a_restart_between_them(true)));
}

#[test]
fn a_link_that_was_cut_for_a_while_costs_a_host_nothing_later() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4, 3, Terms::default());
        world.run(1_000);
        world.cut.insert((3, 0));
        world.run(10_000);
        world.cut.clear();
        world.run(1_000);
        world.hosts[1].process = None;
        world.hosts[1].running = None;
        world.run(10_000);
        assert!(
            (0..4).all(|host| host == 1 || world.holds(host) && world.hosts[host].epoch == 1),
            "seed {seed}"
        );
    }
}

#[test]
fn a_host_that_hears_nobody_is_known_to_have_stopped_by_its_own_beats() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 3, Terms::default());
        world.run(1_000);
        world.cut.extend([(1, 0), (2, 0)]);
        world.run(3_000);
        assert!(world.hosts[0].running.is_none(), "seed {seed}");
        for other in [1, 2] {
            let count = &world.hosts[other].process.as_ref().unwrap().count;
            assert_eq!(count.ended("n0").map(|ended| (ended.epoch, ended.is_back)), Some((1, false)));
        }
        // And it is back as soon as it hears them.
        world.cut.clear();
        world.run(1_000);
        assert!(world.holds(0) && world.hosts[0].epoch > 1, "seed {seed}");
        for other in [1, 2] {
            let process = world.hosts[other].process.as_ref().unwrap();
            assert!(process.count.ended("n0").is_some_and(|ended| ended.is_back), "seed {seed}");
            assert!(!process.tally.hosts().is_silent("n0"), "seed {seed}");
        }
    }
}

/// By the slowest clock.
fn slowly(ms: u64) -> u64 {
    ms * 1_060 / 1_000
}

/// The law that nobody waits without need: a host that can't serve, whichever way it is cut off and whatever becomes of its process, is
/// silent to all others within twice the time of silence, and fenced for them within the terms.
#[test]
fn a_host_that_is_not_able_to_serve_is_known_to_be_in_bounded_time() {
    let (silent, fence) = (u64::try_from(SILENT.as_millis()).unwrap(), 2_000);
    // Beats that were on their way when the link was cut count, too.
    let is_silent = slowly(2 * silent) + 2 * (LONGEST_WAY + INTERVAL);
    let is_fenced = slowly(silent + fence) + LONGEST_WRITE + 3 * (LONGEST_WAY + INTERVAL);
    for seed in 0..120 {
        let hosts = 3 + usize::try_from(seed % 3).unwrap();
        let mut world = World::new(seed, hosts, 3, Terms::default());
        world.run(1_000);
        let lost = world.random.random_range(0..hosts);
        let others: Vec<usize> = (0..hosts).filter(|other| *other != lost).collect();
        let (is_from, is_to) = [(true, false), (false, true), (true, true)][world.random.random_range(0..3)];
        for other in &others {
            if is_from {
                world.cut.insert((lost, *other));
            }
            if is_to {
                world.cut.insert((*other, lost));
            }
        }
        let (name, epoch) = (world.hosts[lost].name.clone(), world.hosts[lost].epoch);
        let seen = |world: &World, what: &dyn Fn(&super::Process) -> bool| {
            others.iter().all(|other| world.hosts[*other].process.as_ref().is_some_and(what))
        };
        world.run(is_silent);
        let silence = |process: &super::Process| process.tally.hosts().is_silent(&name);
        assert!(seen(&world, &silence), "seed {seed}: heard");
        if seed % 4 == 0 {
            // It has said that it hears nobody, and begins no other epoch: it takes the members' votes.
            world.hosts[lost].paused_until = world.now + 60_000;
        }
        world.run(is_fenced - is_silent);
        let fenced = |process: &super::Process| {
            process.count.ended(&name).is_some_and(|ended| ended.epoch >= epoch && !ended.is_back)
        };
        assert!(seen(&world, &fenced), "seed {seed}: not fenced");
        world.run(10_000);
        assert!(seen(&world, &fenced), "seed {seed}: back");
        assert!(others.iter().all(|other| world.holds(*other)), "seed {seed}: the others go on");
        assert!(others.iter().all(|other| world.hosts[*other].epoch == 1), "seed {seed}: without a break");
    }
}

#[test]
fn a_host_that_begins_anew_while_it_is_cut_off_is_not_fenced_once_it_hears_the_others_in_time() {
    let mut began = 0;
    for seed in 0..60 {
        let mut world = World::new(seed, 3, 3, Terms::default());
        world.run(1_000);
        world.cut.extend([(0, 1), (0, 2), (1, 0), (2, 0)]);
        // Longer than a lease, and shorter than a member waits before it votes.
        world.run(1_620);
        began += usize::from(world.hosts[0].epoch > 1);
        world.cut.clear();
        world.run(2_000);
        assert!(world.fenced.is_empty() && world.holds(0), "seed {seed}: {:?}", world.fenced);
    }
    assert!(began > 5, "it hardly ever began anew: {began} times");
}

#[test]
fn where_no_majority_is_left_the_others_hear_each_other() {
    for seed in 0..20 {
        let mut world = World::new(seed, 5, 3, Terms::default());
        world.run(1_000);
        // Two of three members are gone: all others say that they hear fewer than half.
        for member in [0, 1] {
            world.hosts[member].process = None;
            world.hosts[member].running = None;
        }
        world.run(5_000);
        for host in 2..5 {
            let tally = &world.hosts[host].process.as_ref().unwrap().tally;
            assert!(tally.is_deaf(), "seed {seed}");
            let silent: Vec<String> = tally.hosts().silence().into_keys().collect();
            assert_eq!(silent, ["n0", "n1"], "seed {seed}");
        }
    }
}

#[test]
fn two_of_three_go_on_without_the_third_over_restarts_and_a_lone_member_is_its_own_majority() {
    let mut world = World::new(1, 3, 3, Terms::default());
    world.run(1_000);
    world.hosts[0].process = None;
    world.hosts[0].running = None;
    world.run(4_000);
    for restarted in [1, 2] {
        world.hosts[restarted].process = None;
        world.start(restarted);
        world.run(4_000);
        assert!(world.holds(1) && world.holds(2));
        let count = &world.hosts[restarted].process.as_ref().unwrap().count;
        assert_eq!(count.ended("n0").map(|ended| (ended.epoch, ended.is_back)), Some((1, false)));
    }

    let mut alone = World::new(1, 1, 1, Terms::default());
    alone.run(1_000);
    assert!(alone.holds(0));
    // Longer than its lease: what ran has ended, and it begins anew.
    alone.hosts[0].paused_until = alone.now + 3_000;
    alone.run(5_000);
    assert!(alone.holds(0) && alone.hosts[0].epoch == 2);
}

#[test]
fn a_dead_host_is_fenced_in_time_and_the_others_go_on() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 3, Terms::default());
        world.run(1_000);
        assert!((0..3).all(|host| world.holds(host)), "seed {seed}");
        world.hosts[0].process = None;
        world.hosts[0].running = None;
        // The time of the terms by the slowest clock, the disk's, a beat's interval, and its way.
        world.run(2_000 * 1_060 / 1_000 + LONGEST_WRITE + 3 * INTERVAL + LONGEST_WAY);
        assert!(world.fenced.contains(&("n0".into(), 1)), "seed {seed}: {:?}", world.fenced);
        assert!(world.holds(1) && world.holds(2), "seed {seed}");
        assert_eq!(world.fenced.len(), 1);
        // It comes back in another epoch.
        world.start(0);
        world.run(1_000);
        assert!(world.holds(0), "seed {seed}");
        assert_eq!(world.hosts[0].epoch, 2);
    }
}

#[test]
fn a_host_that_is_cut_off_stops_by_itself_and_a_pause_of_a_second_costs_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, 3, Terms::default());
        world.run(1_000);
        world.hosts[0].paused_until = world.now + 1_000;
        world.run(3_000);
        assert!(world.holds(0) && world.fenced.is_empty(), "seed {seed}");
        // It hears the others, and they don't hear it.
        world.cut.extend([(0, 1), (0, 2)]);
        world.run(2_100);
        assert!(world.hosts[0].running.is_none(), "seed {seed}");
        world.run(1_000);
        assert!(world.fenced.contains(&("n0".into(), 1)), "seed {seed}");
        // One member is enough to be heard by: itself and that one are a majority.
        world.cut.clear();
        world.cut.insert((0, 1));
        world.run(2_000);
        assert!(world.holds(0) && world.hosts[0].epoch > 1, "seed {seed}");
    }
}
