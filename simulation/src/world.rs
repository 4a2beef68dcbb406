//! Members, clients, watchers and what is between them, under one seed: events in the order of their time.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use store::MemberId;
use store::parts::{Input, Membership, Outgoing};

use crate::chronicle::Chronicle;
use crate::clients::Client;
use crate::history::{self, Record};
use crate::member::{Host, LOOK, Sizes};
use crate::network::Network;
use crate::report::{Failure, Report};
use crate::watchers::Viewer;
use crate::weather::Weather;

/// A mistake that is made on purpose, to show that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A member says that entries are durable before they are.
    AckBeforeSync,
    /// A member answers reads from what it has.
    StaleRead,
    /// A watch goes on one revision too late after it was interrupted.
    SkippedEvent,
    /// A request that comes twice is carried out twice.
    NoDedupe,
    /// A member whose disk was lost comes back under its old number, with nothing.
    ReusedNumber,
}

impl Mistake {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Mistake); 5] = [
        ("ack-before-sync", Mistake::AckBeforeSync),
        ("stale-read", Mistake::StaleRead),
        ("skipped-event", Mistake::SkippedEvent),
        ("no-dedupe", Mistake::NoDedupe),
        ("reused-number", Mistake::ReusedNumber),
    ];
}

/// What happens at some time.
pub(crate) enum Moment {
    /// A message arrives.
    Arrival(Box<Outgoing>),
    /// A member (in one of its lives) takes a tick.
    Tick(usize, u64),
    /// Its disk has written what it was given.
    Written(usize, u64),
    /// Its disk has written a snapshot.
    Saved(usize, u64),
    /// It looks at the room on its disk.
    Look(usize, u64),
    /// Its power goes, if it has not yet.
    PowerGone(usize, u64),
    /// Its disk has room again.
    Room(usize),
    /// It goes on where it stood still.
    Wake(usize, u64),
    /// It starts.
    Start(usize),
    /// It asks to be let in, unless it was.
    Ask(usize, u64),
    /// It is let in, if it still asks with this request, under this number.
    Admitted(usize, u64, MemberId),
    /// It hears that it was removed.
    Removed(usize, u64),
    /// A client does its next thing.
    Client(usize),
    /// A watcher looks.
    Watch(usize),
    /// A fault.
    Fault,
}

/// Everything there is.
pub(crate) struct World {
    pub now: u64,
    pub rng: StdRng,
    pub weather: Weather,
    pub sizes: Sizes,
    pub mistake: Option<Mistake>,
    pub hosts: Vec<Host>,
    pub network: Network,
    pub clients: Vec<Client>,
    pub viewers: Vec<Viewer>,
    pub chronicle: Chronicle,
    pub records: Vec<Record>,
    pub report: Report,
    pub trace: crc32fast::Hasher,
    /// Whether faults and what they led to are written to standard error.
    pub aloud: bool,
    /// When the last message on a link arrives.
    pub last_arrival: BTreeMap<(MemberId, MemberId), u64>,
    /// Requests that were passed on, for the mistake of doing them twice.
    pub passed_on: BTreeSet<Vec<u8>>,
    /// The machine of each member that there ever was.
    pub numbers: BTreeMap<MemberId, usize>,
    /// The members whose disks are lost.
    pub lost: BTreeSet<MemberId>,
    /// Who the members are by the newest entry that any of them has applied.
    pub members: (u64, Membership),
    /// Until when a removal may be on its way.
    pub removal_until: u64,
    moments: BTreeMap<(u64, u64), Moment>,
    scheduled: u64,
}

/// The fastest that a clock runs.
pub(crate) const FASTEST_CLOCK: f64 = 2.0;
const CLIENTS: usize = 5;
const WATCHERS: usize = 3;
/// How long the clients go on when the storm is over, and how long everything else then has to settle.
const CALM: u64 = 1_500_000;
const SETTLE: u64 = 30_000_000;

impl World {
    pub fn new(seed: u64, sizes: Option<Sizes>, weather: Option<Weather>, mistake: Option<Mistake>) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let drawn = Sizes {
            members: [1, 2, 3, 3, 3, 3, 3, 5][rng.random_range(0..8)],
            spares: rng.random_range(0..3),
            snapshot_bytes: rng.random_range(3_000..16_000),
            trailing_bytes: rng.random_range(400..6_000),
            history_bytes: rng.random_range(20_000..200_000),
            segment: rng.random_range(1000..6000),
            piece: rng.random_range(50..5000),
        };
        let sizes = sizes.unwrap_or(drawn);
        let weather = weather.unwrap_or_else(|| Weather::draw(&mut rng));
        let mut world = World {
            now: 0,
            weather,
            sizes,
            mistake,
            hosts: (0..sizes.members + sizes.spares)
                .map(|n| Host { absent: n >= sizes.members, ..Host::default() })
                .collect(),
            network: Network::default(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            viewers: (0..WATCHERS).map(|n| Viewer::new(n, &mut rng)).collect(),
            chronicle: Chronicle::default(),
            records: Vec::new(),
            report: Report::default(),
            trace: crc32fast::Hasher::new(),
            aloud: false,
            last_arrival: BTreeMap::new(),
            passed_on: BTreeSet::new(),
            numbers: BTreeMap::new(),
            lost: BTreeSet::new(),
            members: (0, Membership::default()),
            removal_until: 0,
            moments: BTreeMap::new(),
            scheduled: 0,
            rng,
        };
        for n in 0..world.hosts.len() {
            world.schedule(n as u64 * 700, Moment::Start(n));
        }
        for n in 0..CLIENTS {
            world.schedule(300_000 + n as u64 * 1000, Moment::Client(n));
        }
        for n in 0..WATCHERS {
            world.schedule(200_000 + n as u64 * 1000, Moment::Watch(n));
        }
        world.schedule(400_000, Moment::Fault);
        world
    }

    /// Makes something happen so much later.
    pub fn schedule(&mut self, later: u64, moment: Moment) {
        self.scheduled += 1;
        self.moments.insert((self.now + later, self.scheduled), moment);
    }

    /// Lets time pass until `end`.
    pub fn run_until(&mut self, end: u64) -> Result<(), Failure> {
        while let Some(entry) = self.moments.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let moment = entry.remove();
            self.report.steps += 1;
            self.happen(moment)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, moment: Moment) -> Result<(), Failure> {
        match moment {
            Moment::Arrival(outgoing) => self.arrive(*outgoing),
            Moment::Tick(n, life) if self.lives(n, life) => self.tick(n),
            Moment::Written(n, life) if self.lives(n, life) => self.written(n),
            Moment::Saved(n, life) if self.lives(n, life) => self.saved(n),
            Moment::Look(n, life) if self.lives(n, life) => self.look(n),
            Moment::PowerGone(n, life) if self.lives(n, life) => {
                self.crash(n, true);
                Ok(())
            }
            Moment::Wake(n, life) if self.lives(n, life) => self.wake(n),
            Moment::Room(n) => {
                self.hosts[n].disk.set_room(None);
                Ok(())
            }
            Moment::Start(n) => self.start(n),
            Moment::Ask(n, life) => self.ask_again(n, life),
            Moment::Admitted(n, token, id) => self.admitted(n, token, id),
            Moment::Removed(n, life) if self.lives(n, life) => self.give(n, Input::Removed),
            Moment::Client(n) => self.client(n),
            Moment::Watch(n) => self.view(n),
            Moment::Fault => self.strike(),
            Moment::Tick(..)
            | Moment::Written(..)
            | Moment::Saved(..)
            | Moment::Look(..)
            | Moment::PowerGone(..)
            | Moment::Removed(..)
            | Moment::Wake(..) => Ok(()),
        }
    }

    fn lives(&self, n: usize, life: u64) -> bool {
        self.hosts[n].life == life && self.hosts[n].running.is_some()
    }

    /// Tells what happened, to those who replay a seed.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            eprintln!("{:>10.3} ms  {}", self.now as f64 / 1e3, what());
        }
    }

    /// The hosts that say they lead.
    pub fn leaders(&self) -> Vec<usize> {
        let leads = |host: &Host| host.running.as_ref().is_some_and(|r| r.leadership.is_me);
        (0..self.hosts.len()).filter(|n| leads(&self.hosts[*n])).collect()
    }

    /// Storm, then calm, then the questions.
    pub fn weathered(&mut self) -> Result<(), Failure> {
        self.run_until(self.weather.storm)?;
        self.heal()?;
        let acknowledged = self.acknowledged();
        self.run_until(self.now + CALM + 2 * LOOK)?;
        for client in &mut self.clients {
            client.stop = true;
        }
        let limit = self.now + SETTLE;
        let mut rounds = 0;
        while !self.settled() {
            if self.now >= limit {
                return Err(Failure::new("settling", self.describe()));
            }
            self.run_until(self.now + 100_000)?;
            rounds += 1;
            if rounds % 10 == 0 {
                self.promote()?;
            }
        }
        if self.acknowledged() <= acknowledged {
            return Err(Failure::new("settling", "nothing was written after the storm"));
        }
        for n in 0..self.viewers.len() {
            self.view_to_the_end(n)?;
        }
        let end = self.end()?;
        self.report.simulated_ms = self.now / 1000;
        let mut report = std::mem::take(&mut self.report);
        let keys = crate::clients::KEYS;
        let judged = history::judge(&self.records, keys, &end, &self.chronicle, FASTEST_CLOCK, &mut report);
        self.report = report;
        self.report.digest = self.trace.clone().finalize();
        judged
    }

    /// How many requests were answered, and not refused.
    pub fn acknowledged(&self) -> usize {
        let done = |record: &&Record| matches!(record.outcome, history::Outcome::Done(..));
        self.records.iter().filter(done).count()
    }

    /// Whether all that is left is the same everywhere and nobody waits for anything.
    fn settled(&self) -> bool {
        let living = || self.hosts.iter().filter(|host| !host.absent);
        let all_run = living().all(|host| host.running.is_some());
        let mut images =
            living().filter_map(|host| host.running.as_ref()).map(|r| (r.core.image().index, r.shown));
        let first = images.next();
        all_run
            && self.is_whole()
            && self.leaders().len() == 1
            && images.all(|image| Some(image) == first)
            && self.clients.iter().all(Client::is_idle)
            && living()
                .filter_map(|host| host.running.as_ref())
                .all(|r| r.core.state().leases().next().is_none())
    }

    /// What the keys hold at the end, on all members alike.
    fn end(&mut self) -> Result<BTreeMap<usize, history::Content>, Failure> {
        let mut end = BTreeMap::new();
        for host in &self.hosts {
            let Some(running) = &host.running else { continue };
            self.chronicle.compare(running.id, &running.core.image(), true)?;
            end = (0..crate::clients::KEYS)
                .map(|key| (key, crate::clients::held(running.core.state(), key)))
                .collect();
        }
        Ok(end)
    }

    /// What the members think, for those who look for a mistake.
    pub fn describe(&self) -> String {
        let lines = self.hosts.iter().enumerate().map(|(n, host)| {
            format!(
                "n{} life {} member {:?} absent {} {:?}",
                n + 1,
                host.life,
                host.id,
                host.absent,
                host.running
            )
        });
        let clients = self.clients.iter().map(|client| format!("{client:?}"));
        lines.chain([format!("members {}", self.members.1)]).chain(clients).collect::<Vec<_>>().join("\n")
    }
}
