//! The core, the log and the wire under a seed: power cuts, torn writes, lost and doubled and late messages,
//! splits, pauses, slow disks. A seed that fails is a test to keep.

mod disk;
mod world;

use world::{FINE, Weather, World};

const STORM: Weather =
    Weather { lost: 5, doubled: 3, delay: 15, sync: 30, crashes: 1500, splits: 1500, pauses: 2500 };

/// Storm for a while, then calm: nothing acknowledged is lost or done twice, and all members agree.
fn weathered(seed: u64, members: u64, weather: Weather) -> World {
    let mut world = World::new(seed, members, weather);
    for _ in 0..1500 {
        world.ask();
        world.run(10);
    }
    world.heal();
    world.run(8_000);
    let before = world.acknowledged.len();
    for _ in 0..20 {
        world.ask();
    }
    world.run(1_000);
    assert!(world.acknowledged.len() > before, "seed {seed}: writes go on when the storm is over");
    let states = world.states();
    let agree = states.windows(2).all(|pair| pair[0] == pair[1]);
    assert!(agree, "seed {seed}: the members agree: {:#?}", world.describe());
    let held: std::collections::BTreeMap<_, _> = states[0].iter().cloned().collect();
    for key in &world.acknowledged {
        assert_eq!(held.get(key.as_bytes()), Some(&1), "seed {seed}: {key} was acknowledged");
    }
    assert!(held.values().all(|version| *version == 1), "seed {seed}: a write was done twice");
    assert!(world.acknowledged.len() > 100 && world.reads > 30, "seed {seed}: little happened");
    world
}

#[test]
fn no_acknowledged_write_is_lost() {
    let more: u64 = std::env::var("STORE_SEEDS").map_or(0, |seeds| seeds.parse().unwrap());
    for seed in 0..12 + more {
        weathered(seed, 3, STORM);
    }
}

#[test]
fn five_members_weather_it_too() {
    for seed in 100..103 {
        weathered(seed, 5, STORM);
    }
}

#[test]
fn a_single_member_only_has_its_disk() {
    for seed in 200..204 {
        weathered(seed, 1, STORM);
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    let story = |seed| weathered(seed, 3, STORM).trace.finalize();
    assert_eq!(story(7), story(7));
}

#[test]
fn a_leader_comes_soon_stays_and_is_replaced_soon() {
    let mut outages = Vec::new();
    for seed in 0..50 {
        let mut world = World::new(seed, 3, FINE);
        world.run(450);
        let leaders = world.leaders();
        assert_eq!(leaders.len(), 1, "seed {seed}: three fresh members have a leader within 450 ms");
        world.run(2_000);
        assert_eq!(world.leaders(), leaders, "seed {seed}: in fine weather it stays");
        world.crash(leaders[0]);
        let crashed = world.now;
        while world.leaders().is_empty() {
            world.run(1);
        }
        outages.push(world.now - crashed);
    }
    outages.sort_unstable();
    println!("without a leader, in ms: {outages:?}");
    assert!(outages[25] <= 300 && outages[49] <= 700, "{outages:?}");
}
