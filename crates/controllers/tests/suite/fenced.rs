//! Hosts that hold leases, members that count them, controllers that fence and agents that start what must not run twice, under a seed:
//! clocks that go wrong, hosts that are paused, started anew or lose their power, links that are cut one way or both. In every step no pod of
//! a StatefulSet has two processes, and once all is well again each has one.
//!
//! `HOLDFAST_STEPS` says how many steps are to be made, by as many seeds as it takes; `HOLDFAST_SEED` tries one.
//!
//! The store itself isn't here (`simulation`): who reaches a majority of the members reads and writes what is newest, and nobody else does; the
//! controllers run on one who does.

mod agents;
mod beats;
mod faults;
mod laws;
mod leading;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::stateful_sets::stateful;
use controllers::{Action, Key};
use membership::lease::{Ballot, Count, Epoch, OwnLease, Terms, View};
use serde_json::json;

/// Real time moves in steps of so many milliseconds: a beat's interval, and the longest that a beat is on its way.
const STEP: u64 = 50;
/// A host that isn't heard for so long is silent.
const SILENT: Duration = Duration::from_millis(250);
/// How much faster or slower a host's clock may go, in thousandths.
const DRIFT: usize = 40;
const HOSTS: [&str; 3] = ["n1", "n2", "n3"];

/// What is wrong with the hosts themselves, for those who want to see it found.
#[derive(Debug, Clone, Copy)]
struct Faults {
    terms: Terms,
    /// How long hosts take their own leases to hold. (Members go by `terms`: they miss nobody sooner than a lease holds.)
    lease: Duration,
    /// The longest that a host takes to stop, in milliseconds.
    stop: u64,
    /// The leader takes silence for a fact.
    guesses: bool,
    /// Agents start what they once decided to start, without another look at the lease.
    heedless: bool,
}

const RIGHT: Faults = Faults {
    terms: Terms { lease: Duration::from_millis(1500), fence: Duration::from_millis(2000) },
    lease: Duration::from_millis(1500),
    stop: 250,
    guesses: false,
    heedless: false,
};

/// A process that must not run twice.
#[derive(Debug, Clone)]
struct Process {
    pod: String,
    uid: String,
    /// When the last of it is dead, by real time, once it is being stopped.
    dead_at: Option<u64>,
}

/// What lies in the memory that an agent shares with its pods' supervisors.
#[derive(Debug, Clone, Copy, Default)]
struct Page {
    epoch: Epoch,
    until: Duration,
}

#[derive(Debug)]
struct Host {
    /// Its clock in microseconds, and how fast it goes in thousandths.
    clock: (u64, u64),
    agent: Option<Agent>,
    page: Page,
    running: Vec<Process>,
    /// On its disk.
    promises: BTreeMap<String, Epoch>,
    epoch: Epoch,
    paused_until: u64,
}

/// An agent's process, with its heartbeats.
#[derive(Debug)]
struct Agent {
    lease: OwnLease,
    ballot: Ballot,
    count: Count,
    incarnation: u64,
    sequence: u64,
    /// When the last beat of each came that was a sign of life, and when the last came of all.
    heard: BTreeMap<usize, Instant>,
    beats: BTreeMap<usize, Instant>,
    /// Pods of which it has asked everything, with the epoch in which, and when it will start them.
    starting: BTreeMap<String, (Epoch, u64)>,
}

struct World {
    cluster: Cluster,
    dice: Dice,
    faults: Faults,
    now: u64,
    begin: Instant,
    hosts: Vec<Host>,
    /// Which way is cut, from and to.
    cut: BTreeSet<(usize, usize)>,
    leader: Option<usize>,
    /// What controllers have decided and the API hasn't heard of yet, with the time at which it does.
    flying: Vec<(u64, Key, Action)>,
    lives: u64,
    /// How often somebody was fenced, so that a test can tell that something happened.
    fenced: usize,
}

fn number(host: &str) -> usize {
    HOSTS.iter().position(|name| *name == host).unwrap()
}

fn others(host: usize) -> impl Iterator<Item = &'static str> + Clone {
    HOSTS.into_iter().filter(move |name| *name != HOSTS[host])
}

fn members() -> BTreeSet<String> {
    HOSTS.map(str::to_owned).into()
}

impl World {
    async fn new(seed: u64, faults: Faults) -> Self {
        let mut cluster = Cluster::new(&HOSTS).await;
        cluster.serving = false;
        for host in HOSTS {
            // The first epoch is registered once it is held.
            cluster.register(host, 0).await;
        }
        stateful(&cluster, json!({"replicas": 2, "podManagementPolicy": "Parallel"})).await;
        let mut dice = Dice(seed);
        let mut host = || {
            let clock = (u64::try_from(dice.below(1_000_000)).unwrap() * 1000, 0);
            let rate = u64::try_from(1000 - DRIFT + dice.below(2 * DRIFT + 1)).unwrap();
            Host {
                clock: (clock.0, rate),
                agent: None,
                page: Page::default(),
                running: Vec::new(),
                promises: BTreeMap::new(),
                epoch: 0,
                paused_until: 0,
            }
        };
        let hosts = vec![host(), host(), host()];
        let begin = cluster.now.instant;
        let (cut, leader, flying) = (BTreeSet::new(), None, Vec::new());
        let mut world =
            World { cluster, dice, faults, now: 0, begin, hosts, cut, leader, flying, lives: 0, fenced: 0 };
        (0..HOSTS.len()).for_each(|host| world.start(host));
        world
    }

    fn clock(&self, host: usize) -> Duration {
        Duration::from_micros(self.hosts[host].clock.0)
    }

    fn chance(&mut self, most: u64) -> u64 {
        u64::try_from(self.dice.below(usize::try_from(most).unwrap() + 1)).unwrap()
    }

    /// Starts a host's agent, which takes over what runs by the lease that its former process held.
    fn start(&mut self, host: usize) {
        self.lives += 1;
        let (terms, incarnation, clock) = (self.faults.terms, self.lives, self.clock(host));
        let at = &mut self.hosts[host];
        if at.running.is_empty() {
            at.epoch += 1;
        }
        let own = Terms { lease: self.faults.lease, ..terms };
        let mut lease = OwnLease::new(own, HOSTS[host].to_owned(), incarnation, at.epoch);
        if !at.running.is_empty() {
            // What is over is still being stopped.
            lease = lease.handed_on(at.page.until.min(clock + own.lease));
        }
        lease.follow(members());
        let (mut ballot, mut count) = (Ballot::new(terms, at.promises.clone()), Count::default());
        let view = View::of(&members(), terms);
        ballot.follow(others(host), view, self.begin + clock);
        count.follow(others(host), members(), view);
        // Nobody is silent yet.
        let heard: BTreeMap<usize, Instant> =
            (0..HOSTS.len()).map(|other| (other, self.cluster.now.instant)).collect();
        let (beats, starting) = (heard.clone(), BTreeMap::new());
        at.agent = Some(Agent { lease, ballot, count, incarnation, sequence: 0, heard, beats, starting });
    }

    fn acts(&self, host: usize) -> bool {
        self.hosts[host].agent.is_some() && self.hosts[host].paused_until <= self.now
    }

    /// Whether two hosts hear each other.
    fn linked(&self, a: usize, b: usize) -> bool {
        a == b || !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// Whether a host is one of a majority that hear each other: it reads and writes the state.
    fn reaches(&self, host: usize) -> bool {
        let heard = (0..HOSTS.len()).filter(|other| self.acts(*other) && self.linked(host, *other));
        self.acts(host) && heard.count() > HOSTS.len() / 2
    }

    async fn step(&mut self) {
        self.now += STEP;
        self.cluster.pass(Duration::from_millis(STEP));
        for host in &mut self.hosts {
            host.clock.0 += STEP * host.clock.1;
        }
        for host in 0..HOSTS.len() {
            self.keep_promises(host);
        }
        self.beat();
        for host in 0..HOSTS.len() {
            if self.reaches(host) {
                self.run_agent(host).await;
            }
            if self.acts(host) {
                self.start_pods(host);
            }
        }
        self.lead().await;
        self.look();
    }

    /// The law.
    fn look(&self) {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (host, at) in self.hosts.iter().enumerate() {
            for process in &at.running {
                if let Some(other) = seen.insert(&process.pod, host) {
                    panic!("at {} ms {} runs on {} and {}", self.now, process.pod, HOSTS[other], HOSTS[host]);
                }
            }
        }
    }

    async fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.step().await;
        }
    }

    fn running(&self) -> Vec<&str> {
        let all = self.hosts.iter().flat_map(|host| &host.running);
        let mut all: Vec<&str> = all.map(|process| process.pod.as_str()).collect();
        all.sort_unstable();
        all
    }
}
