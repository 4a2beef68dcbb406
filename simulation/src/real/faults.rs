//! What befalls the members, and what each of it asks of them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::checker::{Outcome, Record};
use super::clients::Desk;
use super::ground::{Kind, Links, MEMBERS};
use super::members::{Members, RESERVE};
use super::protocol::{Answer, Ask};
use crate::report::Failure;

/// Something that befalls members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// A process is killed, and started again after a while.
    Kill,
    /// All processes are killed at once.
    KillAll,
    /// A process stands still.
    Stop,
    /// A member's link is cut.
    Cut,
    /// A member's disk is full.
    Full,
    /// A member's folder can't be written.
    Seal,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "processes killed",
            Fault::KillAll => "all processes killed",
            Fault::Stop => "processes stopped",
            Fault::Cut => "links cut",
            Fault::Full => "disks full",
            Fault::Seal => "folders unwritable",
        }
    }
}

/// What was seen of the faults.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How many of them befell the member that led.
    pub leaders: u64,
    /// The slowest refusal of a write at a full disk.
    pub slowest_refusal: Duration,
    /// The longest time from when a disk had room, or a folder could be written, to the first write there.
    pub slowest_return: Duration,
}

/// The faults that this machine allows, with a line for each that it doesn't.
pub fn possible(members: &Members, dir: &std::path::Path) -> Vec<Fault> {
    let mut faults = vec![Fault::Kill, Fault::Kill, Fault::KillAll, Fault::Stop, Fault::Stop];
    match &members.links {
        Links::Bridge(..) => faults.extend([Fault::Cut, Fault::Cut]),
        Links::Loopback(why) => println!("skipped: links can't be cut here: {why}"),
    }
    if members.disk(0).kind == Kind::Shared {
        println!("skipped: disks can't be filled here, as they can't be mounted");
    } else {
        faults.extend([Fault::Full, Fault::Full]);
    }
    if members.disk(0).kind != Kind::Shared || super::ground::permissions_matter(dir) {
        faults.push(Fault::Seal);
    } else {
        println!("skipped: folders can't be made unwritable here");
    }
    faults
}

/// One round's storm.
pub struct Storm<'a> {
    pub members: &'a Members,
    pub desk: Rc<Desk>,
    pub prefix: &'a str,
    pub tally: &'a mut Tally,
    pub rng: &'a mut StdRng,
    pub probes: u64,
}

type Outcomes = anyhow::Result<Result<(), Failure>>;

/// How long a member may take for what it has to do in time, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[allow(clippy::disallowed_methods)] // Everything here happens in real time.
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)] // As above.
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

impl Storm<'_> {
    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    /// One of the faults befalls one of the members, every other time the one that leads. Then there is a calm.
    pub async fn befall(&mut self, faults: &[Fault]) -> Outcomes {
        let fault = faults.choose(self.rng).copied().unwrap_or(Fault::Kill);
        let leader = self.members.leader().await;
        let any = self.rng.random_range(0..MEMBERS);
        let victim = leader.filter(|_| self.rng.random()).unwrap_or(any);
        self.tally.leaders += u64::from(leader == Some(victim) && fault != Fault::KillAll);
        *self.tally.faults.entry(fault.name()).or_default() += 1;
        // A second one is killed at the same time, now and then: no majority is left.
        let second = self.rng.random_ratio(1, 6).then_some((victim + 1) % MEMBERS);
        let whose = if leader == Some(victim) { ", which leads" } else { "" };
        let also = second.map_or(String::new(), |second| format!(", and n{} is killed", second + 1));
        let what = format!("{} (n{}{whose}{also})", fault.name(), victim + 1);
        self.desk.during.replace(what);
        if second.is_some() || fault == Fault::KillAll {
            self.desk.well_since.set(None);
        }
        if let Some(second) = second {
            *self.tally.faults.entry("a second member killed at the same time").or_default() += 1;
            self.members.kill(second)?;
        }
        let result = self.one(fault, victim, second).await;
        self.desk.well_since.set(Some(self.desk.well_since.get().unwrap_or_else(now)));
        for n in 0..MEMBERS {
            if let Some(what) = self.members.ended(n)? {
                return Ok(Err(Failure::new("end", what)));
            }
        }
        let calm = self.millis(100..1500);
        pause(calm).await;
        result
    }

    async fn one(&mut self, fault: Fault, victim: usize, second: Option<usize>) -> Outcomes {
        let members = self.members;
        let long = self.millis(50..4000);
        match fault {
            Fault::Kill => {
                members.kill(victim)?;
                pause(long).await;
                members.start(victim)?;
            }
            Fault::KillAll => {
                (0..MEMBERS).try_for_each(|n| members.kill(n))?;
                pause(long / 4).await;
                // The second one is started with the others, below.
                (0..MEMBERS).filter(|n| Some(*n) != second).try_for_each(|n| members.start(n))?;
            }
            Fault::Stop => {
                members.signal(victim, Signal::SIGSTOP)?;
                pause(long).await;
                members.signal(victim, Signal::SIGCONT)?;
            }
            Fault::Cut => {
                members.links.set(victim, false).await?;
                pause(long).await;
                members.links.set(victim, true).await?;
            }
            Fault::Full | Fault::Seal => {
                // With the majority back, so that it is the disk that writes fail at.
                if let Some(second) = second {
                    members.start(second)?;
                }
                let result = self.disk(fault, victim, long).await;
                members.disk(victim).empty()?;
                return result;
            }
        }
        if let Some(second) = second {
            let more = self.millis(0..2000);
            pause(more).await;
            members.start(second)?;
        }
        Ok(Ok(()))
    }

    async fn disk(&mut self, fault: Fault, victim: usize, long: Duration) -> Outcomes {
        let disk = self.members.disk(victim);
        // One that is about to start has nothing to wait with, and says so.
        let begun = now();
        while self.members.ask(victim, &Ask::Leads, PATIENCE).await.is_err() && begun.elapsed() < PATIENCE {
            pause(Duration::from_millis(20)).await;
        }
        if fault == Fault::Seal {
            disk.seal()?;
            pause(long).await;
            disk.unseal()?;
        } else {
            let spare = [0, 0, RESERVE / 8, RESERVE / 2].choose(self.rng).copied().unwrap_or(0);
            disk.fill(spare)?;
            if let Err(failure) = self.refused(victim).await? {
                return Ok(Err(failure));
            }
            pause(long).await;
            disk.empty()?;
        }
        let (begun, mut last) = (now(), String::new());
        while begun.elapsed() < PATIENCE {
            let (answer, _) = self.probe(victim).await;
            if matches!(answer, Ok(Answer::Done(_))) {
                self.tally.slowest_return = self.tally.slowest_return.max(begun.elapsed());
                return Ok(Ok(()));
            }
            last = format!("{answer:?}");
            pause(Duration::from_millis(20)).await;
        }
        let what = format!("n{} takes no writes since it is over ({}): {last}", victim + 1, fault.name());
        Ok(Err(Failure::new("return", what)))
    }

    /// A member whose disk is full says so, and goes on telling what it knows.
    async fn refused(&mut self, victim: usize) -> Outcomes {
        let begun = now();
        loop {
            let (answer, took) = self.probe(victim).await;
            if matches!(answer, Ok(Answer::NoRoom(_))) {
                self.tally.slowest_refusal = self.tally.slowest_refusal.max(took);
                break;
            }
            if begun.elapsed() > PATIENCE {
                let what = format!("n{}'s disk is full, and a write there ends so: {answer:?}", victim + 1);
                return Ok(Err(Failure::new("full", what)));
            }
            pause(Duration::from_millis(20)).await;
        }
        match self.members.ask(victim, &Ask::Peek("/before/the/storm".into()), PATIENCE).await {
            Ok(Answer::Value(Some(_))) => Ok(Ok(())),
            other => {
                let what = format!("n{}'s disk is full, and a read ends so: {other:?}", victim + 1);
                Ok(Err(Failure::new("full", what)))
            }
        }
    }

    /// Writes one more key at a member, on the record.
    async fn probe(&mut self, member: usize) -> (anyhow::Result<Answer>, Duration) {
        self.probes += 1;
        let key = format!("{}probe/{:06}", self.prefix, self.probes);
        let checksum = crc32fast::hash(b"probe");
        let begun = now();
        let ask = Ask::Put { key: key.clone(), value: "probe".into() };
        let answer = self.members.ask(member, &ask, Duration::from_secs(8)).await;
        let ended = now();
        let outcome = match &answer {
            Ok(Answer::Done(revision)) => Outcome::Acknowledged(*revision),
            Ok(Answer::NoRoom(_)) => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        let since = |at: Instant| (at - self.desk.start).as_micros() as u64;
        let record = Record { key, checksum, begun: since(begun), ended: since(ended), outcome };
        self.desk.records.borrow_mut().push(record);
        (answer, ended - begun)
    }
}
