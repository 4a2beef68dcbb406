//! Several hosts with virtual routers on one simulated link, under a seed: messages are late and lost, cables are pulled, hosts freeze,
//! scripts fail. Whenever the link has been whole for as long as the RFC's waits add up to, there is one master, and the right one.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vrrp::{Advert, Command, Event, Instance, LinkState, Routers, Script, Settings, Track, TrackedScript};

const MS: Duration = Duration::from_millis(1);
/// The longest that a message is under way.
const LATE: Duration = Duration::from_millis(20);
const SCRIPT_WEIGHT: i16 = -60;

struct Host {
    settings: Settings,
    routers: Routers,
    address: Ipv4Addr,
    /// It is connected with all others that are.
    plugged: bool,
    /// Until then it hears and does nothing; what comes waits.
    frozen_until: Duration,
    well: bool,
    holds: bool,
}

/// A packet under way.
struct Sent {
    at: Duration,
    to: usize,
    from: Ipv4Addr,
    packet: Vec<u8>,
}

struct Link {
    now: Duration,
    hosts: Vec<Host>,
    under_way: Vec<Sent>,
    random: StdRng,
    lossy: bool,
}

impl Link {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(2..=5);
        let interval = MS * 10 * random.random_range(2..=100);
        let preempt = random.random_bool(0.7);
        let hosts = (0..count)
            .map(|n| {
                // Some are equal: then addresses decide.
                let priority = *[50, 100, 100, 150, 254].get(random.random_range(0..5)).unwrap();
                let track = Track {
                    scripts: vec![TrackedScript { name: "well".into(), weight: SCRIPT_WEIGHT }],
                    ..Track::default()
                };
                let instance = Instance {
                    name: "one".into(),
                    interface: "eth0".into(),
                    router_id: 7,
                    priority,
                    preempt,
                    advert_interval: interval,
                    addresses: vec![[10, 0, 0, 100].into()],
                    track,
                    notify: vec![],
                };
                let script = Script {
                    name: "well".into(),
                    command: vec!["/bin/true".into()],
                    interval,
                    timeout: None,
                    rise: 1,
                    fall: 1,
                };
                let settings = Settings { instances: vec![instance], groups: vec![], scripts: vec![script] };
                let routers = Routers::new(&settings);
                let address = Ipv4Addr::new(10, 0, 0, n + 1);
                let (plugged, well, holds) = (true, true, false);
                Host { settings, routers, address, plugged, frozen_until: Duration::ZERO, well, holds }
            })
            .collect();
        let mut link = Link { now: Duration::ZERO, hosts, under_way: Vec::new(), random, lossy: false };
        for host in 0..link.hosts.len() {
            let address = Some(link.hosts[host].address);
            link.on(host, Event::Link { name: "eth0", state: LinkState::Up { address } });
            link.on(host, Event::Script { index: 0, passed: true });
        }
        link
    }

    fn on(&mut self, host: usize, event: Event<'_>) {
        for command in self.hosts[host].routers.on(event, self.now) {
            match command {
                Command::Advertise(_, priority) => self.send(host, priority),
                Command::Take(_) => {
                    assert!(!self.hosts[host].holds, "taken twice");
                    self.hosts[host].holds = true;
                }
                Command::Release(_) => {
                    assert!(self.hosts[host].holds, "given up without having it");
                    self.hosts[host].holds = false;
                }
                Command::Notify(_) => {}
            }
        }
        let Host { routers, holds, .. } = &self.hosts[host];
        assert_eq!(routers.is_master(0), *holds);
    }

    fn send(&mut self, host: usize, priority: u8) {
        let Host { settings, address: from, plugged: true, .. } = &self.hosts[host] else { return };
        let message = settings.instances[0].advert(priority).write(*from);
        let total = u16::try_from(20 + message.len()).unwrap().to_be_bytes();
        let header = [
            &[0x45, 0xc0, total[0], total[1], 0, 0, 0, 0, 255, vrrp::packet::PROTOCOL, 0, 0][..],
            &from.octets(),
            &vrrp::packet::GROUP.octets(),
        ];
        let packet = [&header.concat()[..], &message].concat();
        for to in (0..self.hosts.len()).filter(|to| *to != host) {
            if self.lossy && self.random.random_bool(0.2) {
                continue;
            }
            let at = self.now + LATE.mul_f64(self.random.random());
            self.under_way.push(Sent { at, to, from: *from, packet: packet.clone() });
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next_message =
                self.under_way.iter().map(|sent| sent.at.max(self.hosts[sent.to].frozen_until)).min();
            let wakes =
                self.hosts.iter().filter_map(|host| Some(host.routers.deadline()?.max(host.frozen_until)));
            // Messages that are there come before what time says, as the driver has it.
            let next = wakes.chain(next_message).min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            let (due, later) = std::mem::take(&mut self.under_way)
                .into_iter()
                .partition(|sent| sent.at.max(self.hosts[sent.to].frozen_until) <= self.now);
            self.under_way = later;
            let mut due: Vec<Sent> = due;
            due.sort_by_key(|sent| sent.at);
            for Sent { to, from, packet, .. } in due {
                if self.hosts[to].plugged {
                    let (sender, advert): (_, Advert) = Advert::read(&packet).unwrap();
                    assert_eq!(sender, from);
                    self.on(to, Event::Heard { instance: 0, from, advert: &advert });
                }
            }
            for host in 0..self.hosts.len() {
                if self.hosts[host].frozen_until <= self.now {
                    self.on(host, Event::Time);
                }
            }
        }
        self.now = end;
    }

    fn interval(&self) -> Duration {
        self.hosts[0].settings.instances[0].advert_interval
    }

    /// How long it takes at most, with nothing more going wrong: the longest wait for a silent master, once more for one that
    /// was silent in that very moment, and an advertisement's way there and back.
    fn converged_after(&self) -> Duration {
        self.interval() * 4 + self.interval() + LATE * 2
    }

    fn priority(&self, host: &Host) -> u8 {
        let weight = if host.well { 0 } else { SCRIPT_WEIGHT };
        u8::try_from((i16::from(host.settings.instances[0].priority) + weight).clamp(1, 254)).unwrap()
    }

    fn masters(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].holds).collect()
    }

    /// There is one master; with preemption it is the best.
    fn check(&self, seed: u64, before: Option<usize>) {
        let masters = self.masters();
        let alive: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].plugged).collect();
        let told = format!("seed {seed} at {:?}: masters {masters:?}, connected {alive:?}", self.now);
        if alive.is_empty() {
            assert_eq!(masters, [0; 0], "{told}");
            return;
        }
        let [master] = masters[..] else { panic!("{told}") };
        assert!(alive.contains(&master), "{told}");
        let rank = |host: usize| self.priority(&self.hosts[host]);
        if self.hosts[0].settings.instances[0].preempt {
            let best = alive.iter().map(|host| rank(*host)).max().unwrap();
            assert_eq!(rank(master), best, "{told}");
        } else if let Some(before) = before.filter(|before| alive.contains(before)) {
            assert_eq!(master, before, "{told}: it stays without preemption");
        }
    }

    fn unplug(&mut self, host: usize, plugged: bool) {
        if self.hosts[host].plugged == plugged {
            return;
        }
        // A host sees that its cable is gone.
        if plugged {
            self.hosts[host].plugged = true;
        }
        let address = Some(self.hosts[host].address);
        let state = if plugged { LinkState::Up { address } } else { LinkState::Down };
        self.on(host, Event::Link { name: "eth0", state });
        self.hosts[host].plugged = plugged;
    }

    /// Some harm, for a while.
    fn harm(&mut self) {
        for _ in 0..self.random.random_range(1..=4) {
            let host = self.random.random_range(0..self.hosts.len());
            match self.random.random_range(0..4) {
                0 => {
                    let plugged = self.random.random_bool(0.5);
                    self.unplug(host, plugged);
                }
                1 => {
                    self.hosts[host].frozen_until =
                        self.now + self.interval() * self.random.random_range(1..=9)
                }
                2 => {
                    let well = self.random.random_bool(0.5);
                    self.hosts[host].well = well;
                    self.on(host, Event::Script { index: 0, passed: well });
                }
                _ => self.lossy = true,
            }
            let time = self.interval().mul_f64(self.random.random::<f64>() * 3.0);
            self.run(time);
        }
        self.lossy = false;
        let thawed = self.hosts.iter().map(|host| host.frozen_until).max().unwrap();
        self.run(thawed.saturating_sub(self.now));
    }
}

#[test]
fn there_is_one_master_whatever_has_happened() {
    let mut leaders = BTreeSet::new();
    for seed in 0..2000 {
        let mut link = Link::new(seed);
        link.run(link.converged_after());
        link.check(seed, None);
        for _ in 0..6 {
            link.harm();
            link.run(link.converged_after());
            link.check(seed, None);
            // And it stays so.
            let before = link.masters().first().copied();
            link.run(link.interval() * 5);
            link.check(seed, before);
            leaders.extend(before);
        }
    }
    assert!(leaders.len() > 3, "all the same: {leaders:?}");
}

#[test]
fn a_silent_master_is_replaced_within_its_wait_and_one_that_says_so_within_a_part_of_an_interval() {
    for seed in 0..200 {
        let mut link = Link::new(seed);
        link.run(link.converged_after());
        let master = link.masters()[0];
        let heir = |link: &Link| {
            let left = (0..link.hosts.len()).filter(|host| *host != master);
            left.map(|host| link.priority(&link.hosts[host])).max().unwrap()
        };
        let wait = |priority: u8| link.interval() * (256 - u32::from(priority)) / 256;
        let (silent, resigned) = (link.interval() * 3 + wait(heir(&link)), wait(heir(&link)));
        // As good as off.
        link.hosts[master].frozen_until = link.now + silent * 100;
        link.run(silent + LATE + MS);
        assert!(link.masters().iter().any(|other| *other != master), "seed {seed}");

        let mut link = Link::new(seed);
        link.run(link.converged_after());
        link.on(master, Event::Stop);
        link.hosts[master].plugged = false;
        link.run(resigned + LATE + MS);
        assert!(!link.masters().is_empty(), "seed {seed}");
    }
}

#[test]
fn who_comes_back_takes_over_only_with_preemption() {
    for seed in 0..200 {
        let mut link = Link::new(seed);
        link.run(link.converged_after());
        let first = link.masters()[0];
        link.unplug(first, false);
        link.run(link.converged_after());
        let heir = link.masters()[0];
        link.unplug(first, true);
        link.run(link.converged_after() * 2);
        let equal = link.priority(&link.hosts[first]) == link.priority(&link.hosts[heir]);
        let preempts = link.hosts[0].settings.instances[0].preempt && !equal;
        assert_eq!(link.masters(), [if preempts { first } else { heir }], "seed {seed}");
    }
}
