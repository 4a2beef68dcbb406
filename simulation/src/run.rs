//! One seed, from its storm to the verdict.

use std::cell::Cell;

use crate::member::{Host, Sizes};
use crate::report::{Failure, Report};
use crate::weather::Weather;
use crate::world::{Mistake, World};

/// What to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seed {
    /// Everything that happens follows from this.
    pub seed: u64,
    /// A mistake to make.
    pub mistake: Option<Mistake>,
    /// Whether faults and elections are written to standard error.
    pub aloud: bool,
}

/// Three members.
const THREE: Sizes = Sizes {
    members: 3,
    spares: 0,
    snapshot_bytes: 10_000,
    trailing_bytes: 4_000,
    history_bytes: 1 << 20,
    segment: 4000,
    piece: 1000,
};

thread_local! {
    static RUNNING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs a seed: what its world saw, and what went wrong, if anything did.
pub fn run(seed: Seed) -> (Report, Option<Failure>) {
    RUNNING.set(Some(seed.seed));
    let mut world = World::new(seed.seed, None, None, seed.mistake);
    world.aloud = seed.aloud;
    let failure = world.weathered().err();
    RUNNING.set(None);
    (world.report, failure)
}

/// The seed that runs on this thread: for those who want to tell it when the program panics.
pub fn running() -> Option<u64> {
    RUNNING.get()
}

/// How long three members need for a leader, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Outages {
    /// After they start.
    pub first: u64,
    /// After their leader crashed.
    pub after_crash: u64,
    /// Whether the first leader stayed while nothing went wrong.
    pub stayed: bool,
}

/// Starts three members in fine weather and fills the leader's disk: how long until another one leads, in
/// milliseconds, and how often the full one led again within the next five seconds.
///
/// # Errors
/// What the checks found.
pub fn full_leader(seed: u64) -> Result<(u64, u64), Failure> {
    spoilt_leader(seed, |host| host.disk.set_room(Some(0)))
}

/// The same with a disk of the leader's whose syncs take this long at least, in microseconds.
///
/// # Errors
/// What the checks found.
pub fn slow_leader(seed: u64, sync: u64) -> Result<(u64, u64), Failure> {
    spoilt_leader(seed, |host| host.slowness = sync)
}

fn spoilt_leader(seed: u64, spoil: impl Fn(&mut Host)) -> Result<(u64, u64), Failure> {
    const STEP: u64 = 1_000;
    const PATIENCE: u64 = 10_000_000;
    let mut world = World::new(seed, Some(THREE), Some(Weather::fine()), None);
    while world.leaders().is_empty() && world.now < PATIENCE {
        world.run_until(world.now + STEP)?;
    }
    let spoilt = world.leaders().first().copied().unwrap_or(0);
    spoil(&mut world.hosts[spoilt]);
    let begin = world.now;
    while !world.leaders().iter().any(|n| *n != spoilt) && world.now < begin + PATIENCE {
        world.run_until(world.now + STEP)?;
    }
    let took = (world.now - begin) / 1000;
    let (mut again, end) = (0, world.now + 5_000_000);
    while world.now < end {
        world.run_until(world.now + STEP)?;
        again += u64::from(world.leaders() == [spoilt]);
    }
    Ok((took, again))
}

/// Starts three members in fine weather, makes all their disks as slow as that once somebody leads, in microseconds a
/// sync, and counts the elections won and the requests answered within the 20 seconds after.
///
/// # Errors
/// What the checks found.
pub fn slow_disks(seed: u64, sync: u64) -> Result<(u64, usize), Failure> {
    let mut world = World::new(seed, Some(THREE), Some(Weather::fine()), None);
    world.run_until(3_000_000)?;
    for host in &mut world.hosts {
        host.slowness = sync;
    }
    let (elections, acknowledged) = (world.report.elections, world.acknowledged());
    world.run_until(world.now + 20_000_000)?;
    Ok((world.report.elections - elections, world.acknowledged() - acknowledged))
}

/// Starts three members in fine weather, lets them be, and crashes their leader.
///
/// # Errors
/// What the checks found.
pub fn outages(seed: u64) -> Result<Outages, Failure> {
    const STEP: u64 = 1_000;
    let mut world = World::new(seed, Some(THREE), Some(Weather::fine()), None);
    let wait = |world: &mut World| {
        let begin = world.now;
        while world.leaders().is_empty() && world.now < begin + 10_000_000 {
            world.run_until(world.now + STEP)?;
        }
        Ok((world.now - begin) / 1000)
    };
    let first = wait(&mut world)?;
    let leaders = world.leaders();
    world.run_until(world.now + 2_000_000)?;
    let stayed = world.leaders() == leaders;
    if let Some(leader) = world.leaders().first() {
        world.crash(*leader, true);
    }
    Ok(Outages { first, after_crash: wait(&mut world)?, stayed })
}

/// Starts three members whose work after a victory takes up to `victory` microseconds, crashes their leader, and counts
/// the elections won within the five seconds after.
///
/// # Errors
/// What the checks found.
pub fn elections_after_crash(seed: u64, victory: u64) -> Result<u64, Failure> {
    let sizes = Sizes { history_bytes: 1, ..THREE };
    let weather = Weather { victory, ..Weather::fine() };
    let mut world = World::new(seed, Some(sizes), Some(weather), None);
    world.run_until(5_000_000)?;
    let before = world.report.elections;
    if let Some(leader) = world.leaders().first() {
        world.crash(*leader, true);
    }
    world.run_until(world.now + 5_000_000)?;
    Ok(world.report.elections - before)
}
