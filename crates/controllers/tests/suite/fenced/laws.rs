//! What must hold in every history, and the mistakes that must be found.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures::FutureExt;

use super::{Faults, HOSTS, RIGHT, STEP, World, number};
use crate::dice;

/// What happened in histories.
#[derive(Default)]
struct Sum {
    /// How many these were, each by the next seed.
    seeds: u64,
    /// In how many steps, after each of which the law was looked at.
    steps: u64,
    /// How often a host was fenced.
    fenced: usize,
}

/// One history.
async fn history(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults).await;
    world.run(3_000).await;
    assert_eq!(world.running(), ["db-0", "db-1"], "seed {seed}: all was well");
    for _ in 0..12 {
        world.disturb();
        let quiet = 100 + world.chance(4_000);
        world.run(quiet).await;
    }
    world.heal();
    world.run(15_000).await;
    assert_eq!(world.running(), ["db-0", "db-1"], "seed {seed}: all is well again");
    world
}

#[tokio::test]
async fn no_pod_of_a_stateful_set_ever_runs_twice_and_each_runs_in_the_end() {
    if let Some(seed) = dice::number("HOLDFAST_SEED") {
        history(seed, RIGHT).await;
        return;
    }
    let least = dice::number("HOLDFAST_STEPS").unwrap_or(0);
    let mut sum = Sum::default();
    while sum.seeds < 40 || sum.steps < least {
        let seed = sum.seeds;
        let lived = AssertUnwindSafe(history(seed, RIGHT)).catch_unwind().await;
        let world = lived.unwrap_or_else(|failure| {
            eprintln!(
                "seed {seed} failed, after {} steps of others; HOLDFAST_SEED={seed} tries it alone",
                sum.steps
            );
            resume_unwind(failure)
        });
        sum.seeds += 1;
        sum.steps += world.now / STEP;
        sum.fenced += world.fenced;
    }
    let Sum { seeds, steps, fenced } = sum;
    println!("{steps} steps by {seeds} seeds, and a host was fenced {fenced} times");
    assert!(fenced > 20, "hardly anybody was ever fenced: {fenced} times");
}

/// Whether the law finds a mistake in one of these histories.
async fn is_caught(faults: Faults) -> bool {
    for seed in 0..40 {
        if AssertUnwindSafe(history(seed, faults)).catch_unwind().await.is_err() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_late_fence_and_an_early_replacement_are_caught() {
    assert!(is_caught(Faults { stop: 1_500, ..RIGHT }).await, "a host that takes too long to stop");
    let lease = Duration::from_millis(3_000);
    assert!(is_caught(Faults { lease, ..RIGHT }).await, "a lease that is longer than it is counted");
    assert!(is_caught(Faults { guesses: true, ..RIGHT }).await, "a leader that doesn't wait");
    assert!(is_caught(Faults { heedless: true, ..RIGHT }).await, "an agent that was paused and goes on");
}

#[tokio::test]
async fn a_stateful_pod_of_a_host_without_power_runs_elsewhere_within_four_seconds() {
    for seed in 0..10 {
        let mut world = World::new(seed, RIGHT).await;
        world.run(3_000).await;
        let host = number(&world.cluster.node_of("db-0").unwrap());
        world.hosts[host].agent = None;
        world.hosts[host].running.clear();
        runs_on_another(&mut world, host, seed).await;
    }
}

#[tokio::test]
async fn a_stateful_pod_of_a_host_that_hears_nobody_though_all_hear_it_does_so_too() {
    for seed in 0..10 {
        let mut world = World::new(seed, RIGHT).await;
        world.run(3_000).await;
        let host = number(&world.cluster.node_of("db-0").unwrap());
        world.cut.extend((0..HOSTS.len()).filter(|from| *from != host).map(|from| (from, host)));
        runs_on_another(&mut world, host, seed).await;
    }
}

async fn runs_on_another(world: &mut World, lost: usize, seed: u64) {
    let mut took = 0;
    let runs =
        |world: &World, host: usize| world.hosts[host].running.iter().any(|process| process.pod == "db-0");
    while !(0..HOSTS.len()).any(|host| host != lost && runs(world, host)) {
        world.run(STEP).await;
        took += STEP;
        assert!(took <= 4_000, "seed {seed}");
    }
}
