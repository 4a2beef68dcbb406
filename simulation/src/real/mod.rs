//! The store under real faults: three processes on this machine, killed, stopped, cut off, their disks filled and
//! their folders made unwritable, while clients write and watchers follow. In rounds: a storm, then a calm in
//! which everything that was acknowledged must be on every member, once and in order, also after all of them
//! were killed.

mod checker;
mod clients;
mod faults;
mod ground;
mod lie;
mod member;
mod members;
mod protocol;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use store::Revision;
use tokio::task::{JoinSet, LocalSet};

use self::checker::{Outcome, Seen, check};
use self::clients::{CLIENTS, Desk};
use self::faults::{Fault, Storm, Tally, possible};
use self::ground::{Kind, Links, MEMBERS, Namespaces};
use self::lie::Lie;
use self::members::Members;
use self::protocol::{Answer, Ask, Dump};
use crate::report::Failure;

/// Arguments of `simulation real`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long it goes on: it ends with the round in which this is over, once a write was acknowledged
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// What the faults are drawn from: the same ones come in the same order, but real processes take their own time
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the members' folders are made: on the disk that is to be relied on
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Let only this befall the members (may be given more than once)
    #[arg(long = "fault")]
    faults: Vec<Fault>,
    /// Lets the members lie now and then, to see that it is found
    #[arg(long = "break")]
    lie: Option<Lie>,
}

/// How long a storm takes.
const STORM: Duration = Duration::from_secs(15);
/// How long the members may take to agree afterwards, on a machine that is busy.
const SETTLE: Duration = Duration::from_secs(60);

/// What came of it, in numbers.
#[derive(Debug, Default)]
struct Numbers {
    rounds: u64,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    watched: u64,
}

/// Runs the members through real faults. Must be called before the process has a second thread.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let namespaces = ground::enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(all(args, namespaces)))
}

#[allow(clippy::disallowed_methods)] // Everything here happens in real time.
async fn all(args: &Args, namespaces: Namespaces) -> anyhow::Result<ExitCode> {
    let length = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes must be a time")?;
    let seed = args.seed.unwrap_or_else(rand::random);
    let dir = tempfile::Builder::new().prefix("real-faults-").tempdir_in(&args.dir)?;
    let members = Members::prepare(Links::build(namespaces).await?, dir.path(), args.lie)?;
    println!("seed {seed}; three members with {}", ground(&members));
    let mut faults = possible(&members, dir.path());
    faults.retain(|fault| args.faults.is_empty() || args.faults.contains(fault));
    anyhow::ensure!(!faults.is_empty(), "this machine allows none of these faults");
    let desk = Desk::new((0..MEMBERS).map(|n| members.socket(n).to_owned()).collect());
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut numbers = Numbers::default();
    let mut world = World { members: &members, desk: desk.clone(), seen: Vec::new(), older: BTreeSet::new() };
    let mut watchers = JoinSet::new();
    for n in 0..MEMBERS {
        let seen = Rc::new(RefCell::new(Seen::new()));
        world.seen.push(seen.clone());
        watchers.spawn_local(clients::watch(desk.clone(), n, seen));
        members.start(n)?;
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut verdict = Ok(());
    // A run in which nothing was acknowledged has shown nothing, however busy the machine was.
    while verdict.is_ok() && (numbers.acknowledged == 0 || begun.elapsed() < length) {
        numbers.rounds += 1;
        let storm = STORM.min(length);
        verdict = world.round(&faults, storm, &mut numbers, &mut tally, &mut rng).await?;
    }
    tell(&numbers, &tally, &desk, begun.elapsed());
    if let Some(path) = &args.json {
        let json = json(seed, &numbers, &tally, &desk, verdict.as_ref().err(), begun.elapsed());
        std::fs::write(path, format!("{json:#}\n"))
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    let Err(failure) = verdict else { return Ok(ExitCode::SUCCESS) };
    let kept = dir.keep();
    println!("failed: {failure}\nthe members' logs are kept in {}", kept.display());
    println!("the same faults come with: cargo run --release -p simulation -- real --seed {seed}");
    Ok(ExitCode::FAILURE)
}

fn ground(members: &Members) -> &'static str {
    match members.disk(0).kind {
        Kind::Ext4 => "a link and an ext4 of their own each",
        Kind::Memory => "a link and a disk in memory of their own each",
        Kind::Shared => "this machine's loopback and disk",
    }
}

struct World<'a> {
    members: &'a Members,
    desk: Rc<Desk>,
    seen: Vec<Rc<RefCell<Seen>>>,
    /// Keys of earlier rounds that nobody was told about: they may turn up late.
    older: BTreeSet<String>,
}

type Verdict = Result<(), Failure>;

impl World<'_> {
    #[allow(clippy::disallowed_methods)] // Everything here happens in real time.
    async fn round(
        &mut self,
        faults: &[Fault],
        long: Duration,
        numbers: &mut Numbers,
        tally: &mut Tally,
        rng: &mut StdRng,
    ) -> anyhow::Result<Verdict> {
        let prefix = format!("/r{:04}/", numbers.rounds);
        if let Err(failure) = self.settle(None).await? {
            return Ok(Err(failure));
        }
        self.desk.closing.set(false);
        self.desk.well_since.set(Some(Instant::now()));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let desk = self.desk.clone();
            clients.spawn_local(clients::write(desk, prefix.clone(), number, rng.random()));
        }
        let begun = Instant::now();
        let mut storm = Storm {
            members: self.members,
            desk: self.desk.clone(),
            prefix: &prefix,
            tally: &mut *tally,
            rng: &mut *rng,
            probes: 0,
        };
        while begun.elapsed() < long && !self.desk.closing.get() {
            if let Err(failure) = storm.befall(faults).await? {
                self.desk.fail(failure);
            }
        }
        self.desk.closing.set(true);
        while let Some(ended) = clients.join_next().await {
            ended?;
        }
        self.desk.well_since.set(None);
        if let Some(failure) = self.desk.failure.take() {
            return Ok(Err(failure));
        }
        // Once as they are, and once as they are after a power cut of all.
        for killed in [false, true] {
            if killed {
                (0..MEMBERS).try_for_each(|n| self.members.kill(n))?;
                (0..MEMBERS).try_for_each(|n| self.members.start(n))?;
            }
            let verdict = self.settle(Some(&prefix)).await?;
            if verdict.is_err() {
                return Ok(verdict);
            }
        }
        self.count(numbers);
        // What the next rounds need not carry along.
        self.members.change(0, &Ask::Delete(prefix), SETTLE).await?;
        Ok(Ok(()))
    }

    /// Waits until all members take writes and agree, and then checks what was written under a prefix.
    #[allow(clippy::disallowed_methods)] // Everything here happens in real time.
    async fn settle(&mut self, prefix: Option<&str>) -> anyhow::Result<Verdict> {
        for n in 0..MEMBERS {
            let ask = Ask::Put { key: "/before/the/storm".into(), value: "calm".into() };
            if let Err(problem) = self.members.change(n, &ask, SETTLE).await {
                return Ok(Err(Failure::new("return", format!("{problem:#}"))));
            }
        }
        let begun = Instant::now();
        let last = loop {
            let dumps = self.dumps().await;
            let agreed = dumps.as_ref().ok().filter(|dumps| {
                let newest = dumps[0].revision;
                let watched =
                    |seen: &Rc<RefCell<Seen>>| seen.borrow().last().map_or(Revision::ZERO, |(at, _)| *at);
                dumps.iter().all(|dump| dump.revision == newest)
                    && self.seen.iter().all(|seen| watched(seen) >= newest)
            });
            if let (Some(_), Ok(dumps)) = (agreed, &dumps) {
                break dumps.clone();
            }
            if let Some(failure) = self.desk.failure.take() {
                return Ok(Err(failure));
            }
            if begun.elapsed() > SETTLE {
                let at = dumps.map(|dumps| dumps.iter().map(|dump| dump.revision).collect::<Vec<_>>());
                let seen: Vec<_> = self.seen.iter().map(|seen| seen.borrow().last().cloned()).collect();
                let what = format!("after {SETTLE:?} the members are at {at:?}, the watchers at {seen:?}");
                return Ok(Err(Failure::new("agreement", what)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let Some(prefix) = prefix else { return Ok(Ok(())) };
        let members: Vec<(Dump, Seen)> =
            last.into_iter().zip(&self.seen).map(|(dump, seen)| (dump, seen.borrow().clone())).collect();
        let mut older = self.older.clone();
        older.insert("/before/the/storm".into());
        Ok(check(&self.desk.records.borrow(), prefix, &older, &members))
    }

    async fn dumps(&self) -> anyhow::Result<Vec<Dump>> {
        let mut dumps = Vec::new();
        for n in 0..MEMBERS {
            match self.members.ask(n, &Ask::Dump, Duration::from_secs(10)).await? {
                Answer::Dump(dump) => dumps.push(dump),
                other => anyhow::bail!("n{} says {other:?}", n + 1),
            }
        }
        Ok(dumps)
    }

    /// Counts what a round brought, and makes room for the next one.
    fn count(&mut self, numbers: &mut Numbers) {
        for record in self.desk.records.take() {
            match record.outcome {
                Outcome::Acknowledged(_) => numbers.acknowledged += 1,
                Outcome::Refused => numbers.refused += 1,
                Outcome::Unknown => {
                    numbers.unknown += 1;
                    self.older.insert(record.key);
                }
            }
        }
        for seen in &self.seen {
            let mut seen = seen.borrow_mut();
            numbers.watched += seen.len() as u64;
            // The last one says how far the watcher is.
            let last = seen.pop();
            *seen = last.into_iter().collect();
        }
    }
}

fn tell(numbers: &Numbers, tally: &Tally, desk: &Desk, took: Duration) {
    println!("{} rounds in {:.0} s", numbers.rounds, took.as_secs_f64());
    println!("{} faults, {} of them at the leader", tally.faults.values().sum::<u64>(), tally.leaders);
    for (name, count) in &tally.faults {
        println!("  {count:>8}  {name}");
    }
    println!("writes");
    for (name, count) in [
        ("acknowledged: each is on all three members, once and in order", numbers.acknowledged),
        ("refused for lack of room: none is there", numbers.refused),
        ("that nobody was told about: there once, or not", numbers.unknown),
    ] {
        println!("  {count:>8}  {name}");
    }
    println!("{} reads of what the reader had written, {} events watched", desk.reads.get(), numbers.watched);
    println!(
        "writes stopped for at most {} ms while a majority was well: {}",
        desk.longest_stop.get().as_millis(),
        desk.longest_during.borrow()
    );
    println!(
        "a full disk's refusal took {} ms at most; its first write once there was room {} ms",
        tally.slowest_refusal.as_millis(),
        tally.slowest_return.as_millis()
    );
}

fn json(
    seed: u64,
    numbers: &Numbers,
    tally: &Tally,
    desk: &Desk,
    failure: Option<&Failure>,
    took: Duration,
) -> serde_json::Value {
    serde_json::json!({
        "seed": seed,
        "seconds": took.as_secs_f64(),
        "rounds": numbers.rounds,
        "faults": tally.faults,
        "faults_at_the_leader": tally.leaders,
        "acknowledged": numbers.acknowledged,
        "refused": numbers.refused,
        "unknown": numbers.unknown,
        "reads": desk.reads.get(),
        "watched": numbers.watched,
        "longest_stop_ms": desk.longest_stop.get().as_millis() as u64,
        "longest_stop_during": *desk.longest_during.borrow(),
        "slowest_refusal_ms": tally.slowest_refusal.as_millis() as u64,
        "slowest_return_ms": tally.slowest_return.as_millis() as u64,
        "failed": failure.map(|failure| serde_json::json!({"check": failure.check, "what": failure.what})),
    })
}

/// Runs one of the members' processes.
pub fn member(setup: &Path) -> anyhow::Result<ExitCode> {
    member::run(setup).map(|()| ExitCode::SUCCESS)
}
