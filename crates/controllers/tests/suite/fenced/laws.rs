//! What must hold in every history, and the mistakes that must be found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures::FutureExt;

use super::{Faults, HOSTS, RIGHT, STEP, World, number};
use crate::dice;

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

/// The same, on a thread that waits for it.
fn lived(seed: u64, faults: Faults) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(history(seed, faults))
}

#[test]
fn no_pod_of_a_stateful_set_ever_runs_twice_and_each_runs_in_the_end() {
    if let Some(seed) = dice::number("HOLDFAST_SEED") {
        lived(seed, RIGHT);
        return;
    }
    let least = dice::number("HOLDFAST_STEPS").unwrap_or(0);
    // How many histories were begun, each by the next seed; in how many steps, after each of which the law was looked at; how often a host was
    // fenced.
    let (seeds, steps, fenced) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let live = || {
        while seeds.load(Ordering::Relaxed) < 40 || steps.load(Ordering::Relaxed) < least {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            let Ok(world) = catch_unwind(|| lived(seed, RIGHT)) else {
                let others = steps.fetch_max(u64::MAX / 2, Ordering::Relaxed);
                panic!(
                    "seed {seed} failed, after {others} steps of others; HOLDFAST_SEED={seed} tries it alone"
                );
            };
            steps.fetch_add(world.now / STEP, Ordering::Relaxed);
            fenced.fetch_add(world.fenced, Ordering::Relaxed);
        }
    };
    // A night's worth is too much for one processor.
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(live))));
    let (seeds, steps, fenced) = (seeds.into_inner(), steps.into_inner(), fenced.into_inner());
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
