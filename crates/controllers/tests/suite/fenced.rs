//! Hosts that hold leases, members that count them, controllers that fence and agents that start what must not run twice, under a seed:
//! clocks that go wrong, hosts that are paused, started anew or lose their power, links that are cut one way or both. In every step no pod of
//! a StatefulSet has two processes, and once all is well again each has one.
//!
//! The store itself isn't here (`simulation`): who reaches a majority of the members reads and writes what is newest, and nobody else does; the
//! controllers run on one who does.

mod laws;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::stateful_sets::stateful;
use controllers::{Action, Ended, Key, LeaseEnd};
use k8s_openapi::api::core::v1::Pod;
use membership::lease::{Acknowledged, Ballot, Count, Epoch, Known, OwnLease, Terms, View, Word};
use objects::{Delete, STOPS_WITH_LEASE};
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

/// Whether a host hears no majority, itself counted.
fn is_deaf(host: usize, agent: &Agent, now: Instant) -> bool {
    let is_heard = |(other, at): &(&usize, &Instant)| **other != host && now.duration_since(**at) < SILENT;
    agent.beats.iter().filter(is_heard).count() < HOSTS.len() / 2
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

    /// What supervisors do by themselves: they see the page and the clock, and nobody else.
    fn keep_promises(&mut self, host: usize) {
        let (clock, now) = (self.clock(host), self.now);
        let stop = self.chance(self.faults.stop);
        let at = &mut self.hosts[host];
        for process in at.running.iter_mut().filter(|process| process.dead_at.is_none()) {
            if clock >= at.page.until {
                process.dead_at = Some(now + stop);
            }
        }
        at.running.retain(|process| process.dead_at.is_none_or(|dead| now < dead));
    }

    /// All beats of a step, each heard in the same one, or never.
    fn beat(&mut self) {
        let view = View::of(&members(), self.faults.terms);
        // A host that takes its lease to hold longer doesn't notice: in the program, others' words wouldn't count for it.
        let own_view = View::of(&members(), Terms { lease: self.faults.lease, ..self.faults.terms });
        let known: Vec<Known> = HOSTS
            .iter()
            .map(|host| {
                let said = self.cluster.fencing(host);
                Known { epoch: said.epoch.filter(|epoch| *epoch > 0), fenced: said.fenced }
            })
            .collect();
        let mut beats = Vec::new();
        let wall = self.cluster.now.instant;
        for host in (0..HOSTS.len()).filter(|host| self.acts(*host)).collect::<Vec<_>>() {
            let clock = self.clock(host);
            let agent = self.hosts[host].agent.as_mut().unwrap();
            agent.sequence += 1;
            agent.lease.sent(agent.sequence, clock);
            let what = Acknowledged {
                incarnation: agent.incarnation,
                epoch: agent.lease.epoch(),
                sequence: agent.sequence,
            };
            let words = agent.ballot.words(self.begin + clock);
            let words: Vec<(String, Word)> = words.map(|(host, word)| (host.to_owned(), word)).collect();
            let acknowledged: Vec<_> = HOSTS.iter().map(|to| agent.ballot.acknowledges(to)).collect();
            beats.push((host, what, words, acknowledged, is_deaf(host, agent, wall)));
        }
        for host in (0..HOSTS.len()).filter(|host| self.acts(*host)).collect::<Vec<_>>() {
            let (clock, instant, fence) =
                (self.clock(host), self.begin + self.clock(host), self.faults.terms.fence);
            let reaches = self.reaches(host);
            let Host { agent, page, running, promises, epoch, .. } = &mut self.hosts[host];
            let agent = agent.as_mut().unwrap();
            let is_deaf = is_deaf(host, agent, wall);
            for (from, what, words, acknowledged, says_deaf) in &beats {
                if *from == host || self.cut.contains(&(*from, host)) {
                    continue;
                }
                let name = HOSTS[*from];
                agent.beats.insert(*from, wall);
                if !says_deaf || is_deaf {
                    agent.heard.insert(*from, wall);
                    agent.ballot.beat(name, *what, instant);
                    agent.count.heard(name, what.epoch);
                } else {
                    agent.count.heard_deaf(name, what.epoch);
                }
                if let Some(what) = acknowledged[host] {
                    agent.lease.acknowledged(name, own_view, what, clock);
                }
                for (about, word) in words {
                    if let Word::Never(epoch) = word
                        && about == HOSTS[host]
                    {
                        agent.lease.refused(*epoch);
                    }
                    agent.count.word(name, view, about, *word, instant);
                }
            }
            if reaches {
                others(host).for_each(|other| agent.ballot.told(other, known[number(other)]));
            }
            for (about, word) in agent.ballot.words(instant) {
                agent.count.word(HOSTS[host], view, about, word, instant);
            }
            let count = &agent.count;
            agent.ballot.check(instant, |host| count.is_missed(host, fence, instant));
            promises.clone_from(agent.ballot.promises());
            agent.ballot.kept(promises.clone());
            if agent.lease.is_held(clock) {
                *page = Page { epoch: agent.lease.epoch(), until: agent.lease.until().unwrap() };
            } else if agent.lease.is_over() && running.is_empty() {
                agent.lease.begin();
            }
            *epoch = agent.lease.epoch();
        }
    }

    /// What an agent that reaches the state does: one thing a step for each pod.
    async fn run_agent(&mut self, host: usize) {
        let (name, clock) = (HOSTS[host], self.clock(host));
        let agent = self.hosts[host].agent.as_mut().unwrap();
        let (is_held, epoch) = (agent.lease.is_held(clock), agent.lease.epoch());
        let said = self.cluster.fencing(name);
        if is_held && said.epoch != Some(epoch) {
            self.cluster.register(name, epoch).await;
            return;
        }
        let mut there = BTreeSet::new();
        for pod in self.cluster.list::<Pod>() {
            if pod.spec.as_ref().unwrap().node_name.as_deref() != Some(name) {
                continue;
            }
            let (called, uid) = (pod.metadata.name.clone().unwrap(), pod.metadata.uid.clone().unwrap());
            let runs = self.hosts[host].running.iter().any(|process| process.uid == uid);
            if pod.metadata.deletion_timestamp.is_some() {
                if !runs {
                    let now = Delete { uid: Some(uid), grace_seconds: Some(0), ..Delete::default() };
                    self.cluster.delete("v1", "Pod", "default", &called, now).await;
                }
                continue;
            }
            there.insert(uid.clone());
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if runs
                || phase == Some("Failed")
                || self.hosts[host].agent.as_ref().unwrap().starting.contains_key(&uid)
            {
                continue;
            }
            // Another one of its name must be gone first.
            if self.hosts[host].running.iter().any(|process| process.pod == called) {
                continue;
            }
            let said = self.cluster.fencing(name);
            if !is_held || said.epoch != Some(epoch) || said.is_fenced() {
                continue;
            }
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let mut promises = conditions.filter(|condition| condition.type_ == STOPS_WITH_LEASE);
            if !promises.any(|promise| promise.message.as_deref() == Some(&*epoch.to_string())) {
                self.cluster.run_by_lease(&called, epoch).await;
            } else {
                // One that doesn't look again may have been held up for longer than a lease.
                let later = self.now + self.chance(if self.faults.heedless { 6_000 } else { 400 });
                self.hosts[host].agent.as_mut().unwrap().starting.insert(uid, (epoch, later));
            }
        }
        let now = self.now;
        let stop = self.chance(self.faults.stop);
        for process in &mut self.hosts[host].running {
            if !there.contains(&process.uid) && process.dead_at.is_none() {
                process.dead_at = Some(now + stop);
            }
        }
        self.hosts[host].agent.as_mut().unwrap().starting.retain(|uid, _| there.contains(uid));
    }

    /// What was decided is done a while later, whatever has become of the host's links meanwhile.
    fn start_pods(&mut self, host: usize) {
        let (now, clock, heedless) = (self.now, self.clock(host), self.faults.heedless);
        let pods = self.cluster.list::<Pod>();
        let Host { agent, page, running, .. } = &mut self.hosts[host];
        let agent = agent.as_mut().unwrap();
        let is_held = agent.lease.is_held(clock);
        agent.starting.retain(|uid, (epoch, at)| {
            if now < *at {
                return true;
            }
            // The supervisor looks at the page before it starts anything.
            let by_page = page.epoch == *epoch && clock < page.until && is_held;
            let pod = pods.iter().find(|pod| pod.metadata.uid.as_ref() == Some(uid));
            if by_page || heedless {
                // An agent that is cut off goes on with what it has read.
                let called = pod.map_or("db-0", |pod| pod.metadata.name.as_deref().unwrap());
                running.push(Process { pod: called.to_owned(), uid: uid.clone(), dead_at: None });
            }
            false
        });
    }

    /// The controllers, on a host of the majority.
    async fn lead(&mut self) {
        if self.leader.is_none_or(|leader| !self.reaches(leader)) {
            self.leader = (0..HOSTS.len()).find(|host| self.reaches(*host));
            if self.leader.is_some() {
                self.cluster.take_over();
            }
        }
        let Some(leader) = self.leader else { return };
        let now = self.cluster.now.instant;
        let agent = self.hosts[leader].agent.as_ref().unwrap();
        let begin = self.begin;
        let last = |host: usize| agent.heard.get(&host).copied().unwrap_or(begin);
        let silent: BTreeMap<String, Instant> = (0..HOSTS.len())
            .filter(|host| *host != leader && now.duration_since(last(*host)) >= SILENT)
            .map(|host| (HOSTS[host].to_owned(), last(host)))
            .collect();
        let mut ended: Ended = BTreeMap::new();
        for (host, end) in agent.count.all() {
            let (epoch, is_back) = (end.epoch, end.is_back);
            let same = self
                .cluster
                .ended
                .get(&host)
                .filter(|known| (known.epoch, known.is_back) == (epoch, is_back));
            let since = same.map_or(now, |known| known.since);
            ended.insert(host, LeaseEnd { epoch, is_back, since });
        }
        if self.faults.guesses {
            for host in silent.keys() {
                let epoch = self.cluster.fencing(host).epoch.unwrap_or_default();
                ended.insert(host.clone(), LeaseEnd { epoch, is_back: false, since: now });
            }
        }
        for host in HOSTS {
            let was = (self.cluster.silence.get(host), self.cluster.ended.get(host));
            if was != (silent.get(host), ended.get(host)) {
                self.cluster.look_at(host);
            }
        }
        let heard: Vec<&str> = HOSTS.into_iter().filter(|host| !silent.contains_key(*host)).collect();
        (self.cluster.silence, self.cluster.ended) = (silent, ended);
        for host in heard {
            // Its agent says that it is Ready again.
            let node = self.cluster.get::<k8s_openapi::api::core::v1::Node>("", host).unwrap();
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            if !is_ready && self.reaches(number(host)) {
                let status = json!({"status": {"conditions": [self.cluster.condition("Ready", "True")]}});
                self.cluster.patch("v1", "Node", "", host, "status", status).await.unwrap();
            }
        }
        // Some of what is due, in an order of chance.
        for _ in 0..1 + self.dice.below(12) {
            let due = self.cluster.due();
            if due.is_empty() {
                break;
            }
            let key = due[self.dice.below(due.len())].clone();
            if key.component() != "fencing-controller" || self.dice.below(2) == 0 {
                self.cluster.reconcile(key).await;
                continue;
            }
            // What it has decided is done a while later, also if another one leads by then.
            let at = self.now + self.chance(500);
            let actions = self.cluster.decide(&key).actions;
            self.flying.extend(actions.into_iter().map(|action| (at, key.clone(), action)));
        }
        let now = self.now;
        for (_, key, action) in self.flying.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            self.cluster.carry_out(&key, action).await;
        }
        if self.dice.below(3) == 0 {
            self.cluster.place().await;
        }
        self.fenced += self.cluster.told.extract_if(.., |told| told.reason == "NodeFenced").count();
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

    /// Something goes wrong, or right again.
    fn disturb(&mut self) {
        let (host, other) = (self.dice.below(HOSTS.len()), self.dice.below(HOSTS.len()));
        match self.dice.below(10) {
            0 => drop(self.cut.insert((host, other))),
            1 => self.cut.extend([(host, other), (other, host)]),
            // An island, or one that hears nobody, or that nobody hears.
            2 => self.cut.extend((0..HOSTS.len()).flat_map(|to| [(host, to), (to, host)])),
            3 => self.cut.extend((0..HOSTS.len()).map(|from| (from, host))),
            4 => self.cut.extend((0..HOSTS.len()).map(|to| (host, to))),
            5 | 6 => self.cut.clear(),
            7 => self.hosts[host].paused_until = self.now + self.chance(5_000),
            // The agent ends, and is started again; what it runs goes on.
            8 if self.hosts[host].agent.is_some() => self.hosts[host].agent = None,
            8 => self.start(host),
            // A power cut.
            _ => {
                self.hosts[host].agent = None;
                self.hosts[host].running.clear();
            }
        }
        self.cut.retain(|(from, to)| from != to);
    }

    async fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.step().await;
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        for host in 0..HOSTS.len() {
            self.hosts[host].paused_until = 0;
            if self.hosts[host].agent.is_none() {
                self.start(host);
            }
        }
    }

    fn running(&self) -> Vec<&str> {
        let all = self.hosts.iter().flat_map(|host| &host.running);
        let mut all: Vec<&str> = all.map(|process| process.pod.as_str()).collect();
        all.sort_unstable();
        all
    }
}
