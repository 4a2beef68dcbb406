//! The store's promises under a fixed number of seeds, and that mistakes are found.

use simulation::{
    Failure, Mistake, Report, Seed, elections_after_crash, full_leader, outages, run, slow_disks, slow_leader,
};

/// Runs seeds until one fails.
fn seeds(seeds: std::ops::Range<u64>, mistake: Option<Mistake>) -> (Report, Option<(u64, Failure)>) {
    let mut sum = Report::default();
    for seed in seeds {
        // A mistake may also make the engine notice that its world is out of joint, which ends it.
        let found = std::panic::catch_unwind(|| run(Seed { seed, mistake, aloud: false }));
        let (report, failure) =
            found.unwrap_or_else(|_| (Report::default(), Some(Failure::new("panic", "the engine panicked"))));
        sum.add(&report);
        if let Some(failure) = failure {
            return (sum, Some((seed, failure)));
        }
    }
    (sum, None)
}

fn hold(range: std::ops::Range<u64>) {
    let (report, failed) = seeds(range, None);
    if let Some((seed, failure)) = failed {
        panic!("seed {seed}: {failure}\nreplay: cargo run --release -p simulation -- store --seed {seed}");
    }
    println!("{report}");
    assert!(report.elections > 200 && report.watched > 20_000 && report.histories.0 > 2_000, "{report}");
    // Each fault must have come, or nothing says that it does no harm.
    let kinds = report.faults.keys().filter(|kind| kind.starts_with("links cut")).count();
    assert_eq!(kinds, 5, "{report}");
    for kind in [
        "bits rotten",
        "clocks drift",
        "disks full",
        "disks stalled",
        "members paused",
        "messages doubled",
        "messages late",
        "messages lost",
        "messages out of order",
        "power cuts",
        "power went in the middle of writing",
        "processes killed",
        "changes of members refused",
        "disks lost",
        "machines added",
        "members changed by hand",
        "members let in",
        "removed members told so",
        "rot found, member rebuilt",
        "snapshots sent",
    ] {
        assert!(report.faults.get(kind).is_some_and(|count| *count >= 10), "{kind}: {report}");
    }
}

// Two tests, as two threads are faster than one.
#[test]
fn the_store_keeps_its_promises() {
    hold(0..250);
}

#[test]
fn the_store_keeps_its_promises_with_other_seeds() {
    hold(100_000..100_250);
}

/// The check that finds a mistake, within this many seeds.
fn found(mistake: Mistake, within: u64) -> &'static str {
    let (_, failed) = seeds(0..within, Some(mistake));
    failed.map_or("nothing", |(_, failure)| failure.check)
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    // It shows in many ways: an entry that two members tell differently, a write that is not there, a member
    // that sees that its disk has lost what it had confirmed.
    let check = found(Mistake::AckBeforeSync, 30);
    assert_ne!(check, "nothing");
}

#[test]
fn a_stale_read_is_found() {
    assert_eq!(found(Mistake::StaleRead, 10), "linearizability");
}

#[test]
fn a_skipped_event_is_found() {
    assert_eq!(found(Mistake::SkippedEvent, 10), "watch");
}

#[test]
fn a_request_that_is_done_twice_is_found() {
    let check = found(Mistake::NoDedupe, 10);
    assert!(["linearizability", "done twice"].contains(&check), "{check}");
}

#[test]
fn a_number_that_is_used_twice_is_found() {
    // The member itself sees that it lacks what it confirmed, or two members tell the same entry differently.
    assert_ne!(found(Mistake::ReusedNumber, 100), "nothing");
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in 7..12 {
        let story = || run(Seed { seed, ..Seed::default() });
        let first = story();
        assert_eq!(first, story());
        assert_ne!(first.0.digest, 0);
    }
}

#[test]
fn a_leader_comes_soon_stays_and_is_replaced_soon() {
    let mut replaced = Vec::new();
    for seed in 0..50 {
        let outages = outages(seed).unwrap();
        assert!(outages.stayed, "seed {seed}: in fine weather the leader stays");
        assert!(outages.first <= 450, "seed {seed}: three fresh members had no leader for {outages:?}");
        replaced.push(outages.after_crash);
    }
    replaced.sort_unstable();
    println!("without a leader, in ms: {replaced:?}");
    assert!(replaced[25] <= 300 && replaced[49] <= 700, "{replaced:?}");
}

#[test]
fn a_leader_with_a_full_disk_makes_way() {
    for seed in 0..50 {
        let (took, again) = full_leader(seed).unwrap();
        assert!(took <= 2_000, "seed {seed}: it led for another {took} ms");
        assert_eq!(again, 0, "seed {seed}: it led again");
    }
}

#[test]
fn a_leader_with_a_slower_disk_than_others_makes_way() {
    for seed in 0..50 {
        let (took, again) = slow_leader(seed, 400_000).unwrap();
        assert!(took <= 3_000, "seed {seed}: it led for another {took} ms");
        assert_eq!(again, 0, "seed {seed}: it led again");
    }
}

#[test]
fn a_leader_stays_where_all_disks_are_as_slow() {
    // Two syncs in a row, or one, are longer than a leader's disk may stall; the last is so long that it would step down.
    for sync in [200_000, 350_000, 1_000_000] {
        for seed in 0..20 {
            let (elections, acknowledged) = slow_disks(seed, sync).unwrap();
            assert_eq!(elections, 0, "seed {seed}, {sync} µs: the next one would do no better");
            assert!(acknowledged > 10, "seed {seed}, {sync} µs: {acknowledged} requests answered");
        }
    }
}

#[test]
fn a_winner_with_much_to_do_stays_the_winner() {
    for seed in 0..50 {
        let elections = elections_after_crash(seed, 900_000).unwrap();
        assert_eq!(
            elections, 1,
            "seed {seed}: its store is late by its own fault, and its heartbeats are heard"
        );
    }
}
