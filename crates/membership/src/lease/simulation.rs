//! Hosts that hold leases, and members that count them, under a seed: clocks that go wrong, pauses, restarts, cut and lossy links,
//! members that come and go. In every step: what ran under a lease has stopped before anybody calls its epoch ended.

mod laws;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Acknowledged, Ballot, Count, Epoch, OwnLease, Terms, View, Word};
use crate::Tally;

/// The step in which real time moves, in milliseconds.
const STEP: u64 = 10;
/// From beat to beat, by the host's own clock.
const INTERVAL: u64 = 50;
/// A host that isn't heard for so long is silent.
const SILENT: Duration = Duration::from_millis(250);
/// The longest that a beat is on its way.
const LONGEST_WAY: u64 = 400;
/// The longest that a host takes to stop what must not run twice.
const LONGEST_STOP: u64 = 300;
/// The longest that a disk takes to write.
const LONGEST_WRITE: u64 = 300;
/// How much faster or slower a host's clock may go, in thousandths.
const DRIFT: i64 = 50;

/// What a host sends.
#[derive(Debug, Clone)]
struct Beat {
    from: usize,
    what: Acknowledged,
    view: View,
    acknowledges: Option<Acknowledged>,
    is_deaf: bool,
    words: Vec<(String, Word)>,
}

/// What runs on a host that must not run twice, outside of the host's process.
#[derive(Debug, Clone, Copy)]
struct Running {
    epoch: Epoch,
    /// By the host's clock: what the process said last. Past it, all ends by itself.
    until: Duration,
    /// When, by real time, the last of it is dead, once it is being stopped.
    dead_at: Option<u64>,
}

/// A host. Its process may be off; what it runs goes on for as long as its lease.
#[derive(Debug)]
struct Host {
    name: String,
    /// Its clock: how far, and how fast in thousandths.
    clock: (u64, i64),
    process: Option<Process>,
    running: Option<Running>,
    /// What is on the disk.
    epoch: Epoch,
    promises: BTreeMap<String, Epoch>,
    /// What is on its way there, and when it will be there by real time.
    writing: Option<(u64, BTreeMap<String, Epoch>)>,
    /// By which terms its process counts: those of its configuration, which is changed host by host.
    terms: Terms,
    /// Which of the cluster's sets of members it has learned of.
    set: usize,
    /// Until when it is paused, by real time.
    paused_until: u64,
}

#[derive(Debug)]
struct Process {
    lease: OwnLease,
    ballot: Ballot,
    count: Count,
    tally: Tally,
    /// By which of the cluster's sets it counts.
    set: usize,
    view: View,
    incarnation: u64,
    sequence: u64,
    next_beat: u64,
}

/// What is wrong with the hosts themselves.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Members vote though nobody else misses a host: costly, and no less safe.
    eager: bool,
    /// Members forget their promises with their processes.
    forgetful: bool,
    /// Hosts begin the next epoch before the former one's things have stopped.
    hasty: bool,
}

struct World {
    random: StdRng,
    terms: Terms,
    faults: Faults,
    now: u64,
    begin: Instant,
    hosts: Vec<Host>,
    names: Arc<[String]>,
    /// The sets of members, in their order; the last is the present one.
    sets: Vec<BTreeSet<String>>,
    /// Which way is cut, from and to.
    cut: BTreeSet<(usize, usize)>,
    /// In thousandths.
    loss: u32,
    on_the_way: Vec<(u64, usize, Beat)>,
    lives: u64,
    /// What was seen in all, so that a test can tell that something happened.
    fenced: BTreeSet<(String, Epoch)>,
}

impl World {
    #[allow(clippy::disallowed_methods)] // Some instant to count from; nothing depends on which.
    fn new(seed: u64, hosts: usize, members: usize, terms: Terms) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let name = |n: usize| format!("n{n}");
        let set: BTreeSet<String> = (0..members).map(name).collect();
        let all = (0..hosts).map(|n| {
            let rate = 1000 + random.random_range(-DRIFT..=DRIFT);
            Host {
                name: name(n),
                clock: (random.random_range(0..1_000_000), rate),
                process: None,
                running: None,
                epoch: 0,
                promises: BTreeMap::new(),
                writing: None,
                terms,
                set: 0,
                paused_until: 0,
            }
        });
        let hosts: Vec<Host> = all.collect();
        let mut world = World {
            random,
            terms,
            faults: Faults::default(),
            now: 0,
            begin: Instant::now(),
            names: hosts.iter().map(|host| host.name.clone()).collect(),
            hosts,
            sets: vec![set],
            cut: BTreeSet::new(),
            loss: 0,
            on_the_way: Vec::new(),
            lives: 0,
            fenced: BTreeSet::new(),
        };
        for host in 0..world.hosts.len() {
            world.start(host);
        }
        world
    }

    fn clock(&self, host: usize) -> Duration {
        Duration::from_millis(self.hosts[host].clock.0)
    }

    fn instant(&self, host: usize) -> Instant {
        self.begin + self.clock(host)
    }

    /// Starts a host's process, which takes over what still runs by its lease.
    fn start(&mut self, host: usize) {
        self.lives += 1;
        let (incarnation, now, clock) = (self.lives, self.instant(host), self.clock(host));
        let (names, set) = (self.names.clone(), self.hosts[host].set);
        let members = self.sets[set].clone();
        // A crash comes before what was being written is on the disk, or after that.
        let was_written = self.random.random_bool(0.5);
        let at = &mut self.hosts[host];
        if let Some((_, promises)) = at.writing.take().filter(|_| was_written) {
            at.promises = promises;
        }
        let promises = if self.faults.forgetful { BTreeMap::new() } else { at.promises.clone() };
        let held = at.running.filter(|running| running.dead_at.is_none() && clock < running.until);
        if held.is_none() && at.running.is_none() {
            at.epoch += 1;
        }
        let terms = at.terms;
        let lease = OwnLease::new(terms, at.name.clone(), incarnation, at.epoch);
        let mut lease = match (held, at.running) {
            (Some(running), _) => lease.handed_on(running.until),
            // What is left of a lease that is over is still being stopped.
            (None, Some(running)) => lease.handed_on(running.until.min(clock)),
            (None, None) => lease,
        };
        lease.follow(members.clone());
        let (mut ballot, mut count) = (Ballot::new(terms, promises), Count::default());
        let others = names.iter().map(String::as_str).filter(|name| **name != at.name);
        let view = View::of(&members, terms);
        ballot.follow(others.clone(), view, now);
        count.follow(others.clone(), members.clone(), view);
        let mut tally = Tally::new(others.map(str::to_owned), SILENT, now);
        tally.count_on(members);
        at.process = Some(Process {
            lease,
            ballot,
            count,
            tally,
            set,
            view,
            incarnation,
            sequence: 0,
            next_beat: at.clock.0,
        });
    }

    fn step(&mut self) {
        self.now += STEP;
        for host in &mut self.hosts {
            host.clock.0 = host.clock.0.saturating_add_signed(STEP as i64 * host.clock.1 / 1000);
        }
        for host in 0..self.hosts.len() {
            self.keep_promises(host);
            if self.hosts[host].process.is_some() && self.hosts[host].paused_until <= self.now {
                self.act(host);
            }
        }
        self.look();
    }

    /// What stops by itself when the lease ends, whatever the host's process does: its shims see the same clock.
    fn keep_promises(&mut self, host: usize) {
        let (clock, now) = (self.clock(host), self.now);
        let stop = self.random.random_range(0..=LONGEST_STOP);
        let Some(running) = &mut self.hosts[host].running else { return };
        if running.dead_at.is_none() && clock >= running.until {
            running.dead_at = Some(now + stop);
        }
        if running.dead_at.is_some_and(|at| now >= at) {
            self.hosts[host].running = None;
        }
    }

    fn act(&mut self, host: usize) {
        let (clock, instant, now) = (self.clock(host), self.instant(host), self.now);
        let arrived = self.on_the_way.extract_if(.., |(at, to, _)| *to == host && *at <= now);
        let arrived: Vec<Beat> = arrived.map(|(.., beat)| beat).collect();
        let (names, faults, fence) = (self.names.clone(), self.faults, self.hosts[host].terms.fence);
        let write = self.random.random_range(0..=LONGEST_WRITE);
        let Host { process, running, epoch, set, terms, clock: (ticks, _), promises, writing, .. } =
            &mut self.hosts[host];
        let Some(process) = process else { return };
        let (own, members) = (&names[host], &self.sets[*set]);
        if process.set != *set {
            process.set = *set;
            process.view = View::of(members, *terms);
            process.lease.follow(members.clone());
            process.tally.count_on(members.clone());
            let others = names.iter().map(String::as_str).filter(|other| other != own);
            process.count.follow(others.clone(), members.clone(), process.view);
            process.ballot.follow(others, process.view, instant);
        }
        let view = process.view;
        for beat in arrived {
            let from = &names[beat.from];
            let Acknowledged { incarnation, sequence, epoch } = beat.what;
            // The tally refuses beats that others have overtaken. What is below bears them, and is to.
            if process.tally.is_sign(beat.is_deaf) {
                _ = process.tally.beat(from, incarnation, sequence, instant);
                process.ballot.beat(from, beat.what, instant);
                process.count.heard(from, epoch);
            } else {
                _ = process.tally.no_sign(from, incarnation, sequence, instant);
                if !process.tally.has_been_deaf(from, instant) {
                    continue;
                }
                process.count.heard_deaf(from, epoch);
            }
            if let Some(what) = beat.acknowledges {
                process.lease.acknowledged(from, beat.view, what, clock);
            }
            for (about, word) in beat.words {
                if let Word::Never(epoch) = word
                    && about == *own
                {
                    process.lease.refused(epoch);
                }
                process.count.word(from, beat.view, &about, word, instant);
            }
        }
        process.tally.check(instant);
        if let Some((_, written)) = writing.take_if(|(at, _)| *at <= now) {
            promises.clone_from(&written);
            process.ballot.kept(written);
        }
        if members.contains(own) {
            for (about, word) in process.ballot.words(instant) {
                process.count.word(own, view, about, word, instant);
            }
            let count = &process.count;
            process.ballot.check(instant, |host| faults.eager || count.is_missed(host, fence, instant));
        }
        if writing.is_none() && process.ballot.promises() != promises {
            *writing = Some((now + write, process.ballot.promises().clone()));
        }
        if process.lease.is_held(clock) {
            let until = process.lease.until().unwrap_or_default();
            match running {
                Some(running) if running.dead_at.is_none() => running.until = running.until.max(until),
                Some(_) => {}
                None => *running = Some(Running { epoch: process.lease.epoch(), until, dead_at: None }),
            }
        } else if process.lease.is_over() && (running.is_none() || faults.hasty) {
            process.lease.begin();
        }
        *epoch = process.lease.epoch();
        if *ticks < process.next_beat {
            return;
        }
        process.next_beat = *ticks + INTERVAL;
        process.sequence += 1;
        process.lease.sent(process.sequence, clock);
        let what = Acknowledged {
            incarnation: process.incarnation,
            epoch: process.lease.epoch(),
            sequence: process.sequence,
        };
        let (is_member, is_deaf) = (members.contains(own), process.tally.is_deaf());
        let words: Vec<(String, Word)> = match is_member {
            true => process.ballot.words(instant).map(|(host, word)| (host.to_owned(), word)).collect(),
            false => Vec::new(),
        };
        let acknowledged: Vec<_> = names.iter().map(|to| process.ballot.acknowledges(to)).collect();
        for (to, acknowledges) in acknowledged.into_iter().enumerate().filter(|(to, _)| *to != host) {
            if self.cut.contains(&(host, to)) || self.random.random_range(0..1000) < self.loss {
                continue;
            }
            let way =
                if self.random.random_bool(0.9) { STEP } else { self.random.random_range(0..LONGEST_WAY) };
            let beat = Beat { from: host, what, view, acknowledges, is_deaf, words: words.clone() };
            self.on_the_way.push((now + way, to, beat));
        }
    }

    /// The law.
    fn look(&mut self) {
        for counting in &self.hosts {
            let Some(process) = &counting.process else { continue };
            for (host, ended) in process.count.all() {
                let about = self.hosts.iter().find(|other| other.name == host).unwrap();
                if let Some(running) = about.running {
                    assert!(
                        running.epoch > ended.epoch,
                        "at {} ms {} says of {host} {ended:?}, where {running:?}",
                        self.now,
                        counting.name,
                    );
                }
                if !ended.is_back {
                    self.fenced.insert((host, ended.epoch));
                }
            }
        }
    }

    /// Something goes wrong, or right again.
    fn disturb(&mut self) {
        let host = self.random.random_range(0..self.hosts.len());
        let other = self.random.random_range(0..self.hosts.len());
        match self.random.random_range(0..10) {
            0 => drop(self.cut.insert((host, other))),
            1 => self.cut.extend([(host, other), (other, host)]),
            // An island.
            2 => self.cut.extend((0..self.hosts.len()).flat_map(|to| [(host, to), (to, host)])),
            3 | 4 => self.cut.clear(),
            5 => self.loss = self.random.random_range(0..300),
            6 => self.hosts[host].paused_until = self.now + self.random.random_range(0..5_000),
            // The process ends and is started again; what it runs goes on.
            7 => self.hosts[host].process = None,
            8 if self.hosts[host].process.is_none() && self.random.random_bool(0.2) => {
                // With another configuration.
                let Terms { lease, fence } = self.terms;
                let longer = Terms { lease: lease * 3, fence: fence * 3 };
                self.hosts[host].terms = if self.hosts[host].terms == longer { self.terms } else { longer };
                self.start(host);
            }
            8 if self.hosts[host].process.is_none() => self.start(host),
            // A power cut.
            8 => {
                self.hosts[host].process = None;
                self.hosts[host].running = None;
            }
            _ => self.change_members(),
        }
        let learned = self.random.random_range(0..self.hosts.len());
        self.learn(learned);
    }

    /// A host learns of the present set of members, unless it is cut off from all that know it.
    fn learn(&mut self, host: usize) {
        let newest = self.sets.len() - 1;
        let reach = |from: usize| !self.cut.contains(&(from, host));
        let from = (0..self.hosts.len()).filter(|from| reach(*from)).map(|from| self.hosts[from].set).max();
        if self.hosts[host].process.is_some() {
            let known = self.hosts[host].set;
            self.hosts[host].set = from.unwrap_or(known).max(known).min(newest);
        }
    }

    /// One host becomes a member or is none any more, if a majority has learned of the change before.
    fn change_members(&mut self) {
        let newest = self.sets.len() - 1;
        let present = self.sets[newest].clone();
        let knows =
            |host: &&Host| present.contains(&host.name) && host.set == newest && host.process.is_some();
        if self.hosts.iter().filter(knows).count() <= present.len() / 2 {
            return;
        }
        let host = self.random.random_range(0..self.hosts.len());
        let mut next = present.clone();
        if !next.remove(&self.hosts[host].name) {
            next.insert(self.hosts[host].name.clone());
        }
        if next.is_empty() {
            return;
        }
        // Who makes the change knows it; so does a majority of the new set, or it is no change.
        let knowing: Vec<usize> = (0..self.hosts.len())
            .filter(|n| next.contains(&self.hosts[*n].name) && self.hosts[*n].process.is_some())
            .collect();
        if knowing.len() <= next.len() / 2 {
            return;
        }
        self.sets.push(next);
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
        for host in 0..self.hosts.len() {
            self.hosts[host].paused_until = 0;
            self.hosts[host].set = self.sets.len() - 1;
            if self.hosts[host].process.is_none() || self.hosts[host].terms != self.terms {
                self.hosts[host].terms = self.terms;
                self.start(host);
            }
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.step();
        }
    }

    fn holds(&self, host: usize) -> bool {
        let at = &self.hosts[host];
        let present = at.process.as_ref().map(|process| process.lease.epoch());
        at.running.is_some_and(|running| Some(running.epoch) == present && running.dead_at.is_none())
    }
}
