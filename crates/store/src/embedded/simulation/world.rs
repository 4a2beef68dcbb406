//! Members, their disks and the network between them, all under one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::SimulatedDisk;
use crate::embedded::command::{Command, Response};
use crate::embedded::core::{Answer, Core, Input, Outgoing, Settings};
use crate::embedded::image::Image;
use crate::embedded::log::{self, Log, Persist};
use crate::embedded::wire::{Frame, HEADER};
use crate::{Leadership, Revision, Txn};

/// How bad the world is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Messages lost, of a hundred.
    pub lost: u32,
    /// Messages that come twice, of a hundred.
    pub doubled: u32,
    /// The longest a message is on its way, in milliseconds.
    pub delay: u64,
    /// The longest a sync takes, in milliseconds.
    pub sync: u64,
    /// Milliseconds between two crashes, on average; 0 for none.
    pub crashes: u32,
    /// Milliseconds between two changes of who hears whom, on average; 0 for none.
    pub splits: u32,
    /// Milliseconds between two pauses of a member, on average; 0 for none.
    pub pauses: u32,
}

/// Nothing goes wrong.
pub const FINE: Weather =
    Weather { lost: 0, doubled: 0, delay: 2, sync: 2, crashes: 0, splits: 0, pauses: 0 };

struct Host {
    disk: SimulatedDisk,
    boot: u64,
    running: Option<Running>,
    back_at: u64,
    paused_until: u64,
}

struct Running {
    core: Core,
    log: Log,
    /// On their way to the disk, and when they will be there.
    steps: Vec<Persist>,
    synced_at: u64,
    save: Option<(u64, Image)>,
    leadership: Leadership,
    tokens: BTreeMap<u64, Asked>,
}

enum Asked {
    Write(String),
    /// The newest revision acknowledged anywhere when the read was asked for.
    Read(Revision),
}

/// Everything there is.
pub struct World {
    pub now: u64,
    pub weather: Weather,
    pub acknowledged: BTreeSet<String>,
    pub newest_acknowledged: Revision,
    pub reads: u64,
    pub trace: crc32fast::Hasher,
    rng: StdRng,
    hosts: Vec<Host>,
    /// By when they arrive.
    flying: BTreeMap<(u64, u64), Outgoing>,
    sent: u64,
    /// Pairs that don't hear each other.
    split: BTreeSet<(u64, u64)>,
    next_key: u64,
}

impl World {
    pub fn new(seed: u64, members: u64, weather: Weather) -> World {
        let host =
            |_| Host { disk: SimulatedDisk::default(), boot: 0, running: None, back_at: 0, paused_until: 0 };
        World {
            now: 0,
            weather,
            acknowledged: BTreeSet::new(),
            newest_acknowledged: 0,
            reads: 0,
            trace: crc32fast::Hasher::new(),
            rng: StdRng::seed_from_u64(seed),
            hosts: (0..members).map(host).collect(),
            flying: BTreeMap::new(),
            sent: 0,
            split: BTreeSet::new(),
            next_key: 0,
        }
    }

    /// Lets time pass, a millisecond at a time.
    pub fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now += 1;
            self.faults();
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let outgoing = entry.remove();
                self.deliver(outgoing);
            }
            for n in 0..self.hosts.len() {
                self.host(n);
            }
        }
    }

    /// Asks a random member for a write or a read.
    pub fn ask(&mut self) {
        let n = self.rng.random_range(0..self.hosts.len());
        let (write, newest) = (self.rng.random_ratio(3, 4), self.newest_acknowledged);
        self.next_key += 1;
        let token = self.next_key;
        let Some(running) = &mut self.hosts[n].running else { return };
        if write {
            let key = format!("{token:06}");
            let command = Command::Txn(Txn::put(key.clone(), vec![b'v'; 20])).encode();
            running.tokens.insert(token, Asked::Write(key));
            running.core.handle(Input::Propose(token, command));
        } else {
            running.tokens.insert(token, Asked::Read(newest));
            running.core.handle(Input::Read(token));
        }
    }

    /// Who says that it leads.
    pub fn leaders(&self) -> Vec<usize> {
        let leads = |host: &Host| host.running.as_ref().is_some_and(|r| r.leadership.is_me);
        (0..self.hosts.len()).filter(|n| leads(&self.hosts[*n])).collect()
    }

    /// Ends a member as a power cut would.
    pub fn crash(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        let Some(mut running) = host.running.take() else { return };
        host.disk.cut_after(self.rng.random_range(0..8));
        // Errors are what a power cut looks like from here.
        let _ = running.log.append(&running.steps);
        if let Some((_, image)) = running.save {
            let _ = log::save(&host.disk, &image);
        }
        host.disk.power_on(&mut self.rng);
        host.back_at = self.now + self.rng.random_range(1..2000);
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        self.weather = FINE;
        self.split.clear();
        for host in &mut self.hosts {
            host.back_at = host.back_at.min(self.now);
            host.paused_until = 0;
        }
    }

    /// All members' states, as bytes.
    pub fn states(&self) -> Vec<Vec<(Bytes, u64)>> {
        let all = crate::KeyRange::prefix("");
        let state = |host: &Host| {
            let core = &host.running.as_ref().unwrap().core;
            core.state().range(&all).map(|kv| (kv.key.clone(), kv.version)).collect()
        };
        self.hosts.iter().map(state).collect()
    }

    /// What the members think, for those who look for a mistake.
    pub fn describe(&self) -> Vec<String> {
        self.hosts.iter().map(|host| format!("{:?}", host.running.as_ref().map(|r| &r.core))).collect()
    }

    fn chance(&mut self, every: u32) -> bool {
        every > 0 && self.rng.random_ratio(1, every)
    }

    fn faults(&mut self) {
        let members = self.hosts.len() as u64;
        if self.chance(self.weather.crashes) {
            let n = self.rng.random_range(0..self.hosts.len());
            self.crash(n);
        }
        if self.chance(self.weather.splits) {
            self.split.clear();
            let alone = self.rng.random_range(1..=members * 2);
            self.split.extend((1..=members).flat_map(|other| [(alone, other), (other, alone)]));
        }
        if self.chance(self.weather.pauses) {
            let n = self.rng.random_range(0..self.hosts.len());
            self.hosts[n].paused_until = self.now + self.rng.random_range(1..1500);
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        let message = &outgoing.message;
        if self.split.contains(&(message.from, message.to)) {
            return;
        }
        let copies = match self.rng.random_range(0..100) {
            n if n < self.weather.lost => 0,
            n if n < self.weather.lost + self.weather.doubled => 2,
            _ => 1,
        };
        for _ in 0..copies {
            self.sent += 1;
            let arrival = self.now + self.rng.random_range(1..=self.weather.delay);
            self.flying.insert((arrival, self.sent), outgoing.clone());
        }
    }

    fn deliver(&mut self, outgoing: Outgoing) {
        let frame = Frame::Message(outgoing.message).encode();
        self.trace.update(&frame);
        let Ok(Frame::Message(message)) = Frame::decode(Bytes::from(frame).slice(HEADER..)) else {
            panic!("a message does not survive the wire");
        };
        let image = outgoing.image.map(|image| Image::decode(image.encode().into()).unwrap());
        let host = &mut self.hosts[message.to as usize - 1];
        if let Some(running) = &mut host.running {
            running.core.handle(Input::Message(message, image));
        }
    }

    fn host(&mut self, n: usize) {
        let now = self.now;
        let members = self.hosts.len() as u64;
        let seed = self.rng.random();
        let host = &mut self.hosts[n];
        if host.running.is_none() && now >= host.back_at {
            host.boot += 1;
            host.running = Some(start(host, n as u64 + 1, members, seed));
        }
        let Some(running) = &mut host.running else { return };
        if now < host.paused_until {
            return;
        }
        if now == host.paused_until {
            running.core.handle(Input::WokeLate);
        }
        if now % 10 == n as u64 {
            running.core.handle(Input::Tick(Duration::from_millis(now)));
        }
        if !running.steps.is_empty() && now >= running.synced_at {
            let number = running.steps.last().unwrap().number;
            running.log.append(&running.steps).unwrap();
            running.steps.clear();
            running.core.handle(Input::Persisted(number));
        }
        if let Some((_, image)) = running.save.take_if(|(at, _)| *at <= now) {
            log::save(&host.disk, &image).unwrap();
            running.core.handle(Input::SnapshotSaved(Some(image.index)));
        }
        let effects = running.core.effects();
        assert_eq!(effects.fatal, None);
        let woke = now == host.paused_until;
        if !effects.persist.is_empty() {
            if running.steps.is_empty() {
                running.synced_at = now + self.rng.random_range(0..=self.weather.sync);
            }
            running.steps.extend(effects.persist);
        }
        if let Some(image) = effects.save {
            running.save = Some((now + self.rng.random_range(0..50), image));
        }
        if let Some(index) = effects.forget {
            running.log.forget(index).unwrap();
        }
        if let Some(leadership) = effects.leadership {
            running.leadership = leadership;
        }
        let alone = members == 1;
        assert!(alone || !woke || !running.leadership.is_me, "who was away asks before it leads again");
        for answer in effects.answers {
            match (answer, &running.core) {
                (Answer::Change(token, result), _) => {
                    let Some(Asked::Write(key)) = running.tokens.remove(&token) else { panic!("{token}") };
                    if let Ok(Response::Txn(response)) = result {
                        self.acknowledged.insert(key);
                        self.newest_acknowledged = self.newest_acknowledged.max(response.revision);
                    }
                }
                (Answer::Read(token, result), core) => {
                    let Some(Asked::Read(newest)) = running.tokens.remove(&token) else { panic!("{token}") };
                    if result.is_ok() {
                        self.reads += 1;
                        let seen = core.state().revision();
                        assert!(seen >= newest, "a read saw {seen}, {newest} was acknowledged before it");
                    }
                }
            }
        }
        for outgoing in &effects.messages {
            if outgoing.image.is_some() {
                // Handed to the connection in full; whether it arrives nobody can say.
                running.core.handle(Input::SnapshotSent(outgoing.message.to, true));
            }
        }
        for outgoing in effects.messages {
            self.send(outgoing);
        }
    }
}

fn start(host: &Host, id: u64, members: u64, seed: u64) -> Running {
    let (log, recovered) = Log::open(Arc::new(host.disk.clone())).unwrap();
    let settings = Settings {
        id,
        members: (1..=members).map(|id| (id, format!("n{id}"))).collect(),
        boot: host.boot,
        seed,
        tick: Duration::from_millis(10),
        heartbeat_ticks: 3,
        election_ticks: (15, 30),
        request_timeout: Duration::from_secs(5),
        disk_stall: Duration::from_millis(300),
        snapshot_entries: 40,
        snapshot_bytes: 1 << 20,
        trailing_entries: 10,
        trailing_bytes: 1 << 20,
    };
    Running {
        core: Core::new(settings, recovered).unwrap(),
        log,
        steps: Vec::new(),
        synced_at: 0,
        save: None,
        leadership: Leadership::default(),
        tokens: BTreeMap::new(),
    }
}
