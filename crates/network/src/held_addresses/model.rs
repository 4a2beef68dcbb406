//! Hosts that hold addresses, and a leader that says which, under a seed: states that are read late, writes that arrive late or never, pauses,
//! cut links, restarts. In every step: no two hosts have one address. Leases are as `membership::lease` promises them; that it keeps its promise
//! is what its own simulation shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use membership::lease::Epoch;
use objects::{AddressLease, AddressPool};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::holding::{Holding, Step};

/// The step in which time moves, in milliseconds.
const STEP: u64 = 10;
/// For how long a lease holds after what was heard, and after how long its end is a fact.
const LEASE: u64 = 1500;
const FENCE: u64 = 2000;
/// The longest that the end of a lease takes to give up what was held by it.
const LONGEST_END: u64 = 300;
/// The longest that a write is under way.
const LONGEST_WRITE: u64 = 800;
const HOSTS: usize = 3;
const ADDRESSES: u8 = 4;

/// What is wrong with the hosts or with the leader.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// What a lease that is over leaves is given up late.
    late: bool,
    /// The leader frees what a silent host holds before its lease is over.
    early: bool,
    /// A host begins the next epoch before all of the former one is given up.
    hasty: bool,
}

struct Host {
    name: String,
    holding: Holding,
    process: u64,
    /// Up to which state it has read.
    seen: usize,
    epoch: Epoch,
    /// When a majority heard last what it sent.
    heard: u64,
    is_over: bool,
    is_cut: bool,
    paused_until: u64,
    /// What its link has, and by which epoch.
    link: BTreeMap<Ipv4Addr, Epoch>,
    /// When what is left of a lease that is over is gone from the link.
    gone_at: Option<u64>,
    writing: BTreeSet<Ipv4Addr>,
}

struct World {
    random: StdRng,
    faults: Faults,
    now: u64,
    hosts: Vec<Host>,
    /// All states that there were: the Leases by their addresses.
    states: Vec<BTreeMap<Ipv4Addr, AddressLease>>,
    /// Up to which epoch each host's leases are over, for sure.
    ended: BTreeMap<String, Epoch>,
    under_way: Vec<(u64, usize, AddressLease, AddressLease)>,
    takings: u64,
    freed: u64,
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 73, 0, last)
}

fn pool() -> AddressPool {
    AddressPool::new([(address(1), address(ADDRESSES))])
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let host = |n: usize| Host {
            name: format!("n{n}"),
            holding: Holding::new(format!("n{n}"), 1, pool()),
            process: 1,
            seen: 0,
            epoch: 1,
            heard: 0,
            is_over: false,
            is_cut: false,
            paused_until: 0,
            link: BTreeMap::new(),
            gone_at: None,
            writing: BTreeSet::new(),
        };
        World {
            random: StdRng::seed_from_u64(seed),
            faults,
            now: 0,
            hosts: (0..HOSTS).map(host).collect(),
            states: vec![BTreeMap::new()],
            ended: BTreeMap::new(),
            under_way: Vec::new(),
            takings: 0,
            freed: 0,
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        for n in 0..HOSTS {
            self.keep_lease(n);
            if self.hosts[n].paused_until <= self.now {
                self.act(n);
            }
        }
        self.arrive();
        self.lead();
        self.look();
    }

    /// What goes on without the host's process: beats, and the end of a lease.
    fn keep_lease(&mut self, n: usize) {
        let (now, faults) = (self.now, self.faults);
        let longest = if faults.late { LONGEST_END * 12 } else { LONGEST_END };
        let end = self.random.random_range(0..=longest);
        let host = &mut self.hosts[n];
        let is_fact = self.ended.get(&host.name).is_some_and(|ended| *ended >= host.epoch);
        let is_heard = !host.is_cut && host.paused_until <= now && !host.is_over && !is_fact;
        if now >= host.heard + LEASE {
            host.is_over = true;
            host.gone_at.get_or_insert(now + end);
        } else if is_heard {
            host.heard = now;
        }
        if now >= host.heard + FENCE {
            let ended = self.ended.entry(host.name.clone()).or_default();
            *ended = host.epoch.max(*ended);
        }
        if host.gone_at.is_some_and(|at| now >= at) {
            let epoch = host.epoch;
            host.link.retain(|_, of| *of > epoch);
            host.gone_at = None;
        }
        let is_left =
            host.holding.here().any(|(_, taking)| taking.epoch <= host.epoch) || !host.link.is_empty();
        // Beats have a thread of their own: one that doesn't wait for the rest begins the next epoch in a pause, too.
        let may_begin = faults.hasty || host.paused_until <= now && !is_left;
        if host.is_over && !host.is_cut && may_begin {
            self.begin(n);
        }
    }

    /// The next epoch begins; who hears the host knows that the former ones are over.
    fn begin(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        host.epoch += 1;
        (host.heard, host.is_over, host.gone_at) = (self.now, false, None);
        let ended = self.ended.entry(host.name.clone()).or_default();
        *ended = (host.epoch - 1).max(*ended);
    }

    /// The host's process.
    fn act(&mut self, n: usize) {
        let newest = self.states.len() - 1;
        let host = &mut self.hosts[n];
        if !host.is_cut && host.seen < newest && self.random.random_bool(0.3) {
            host.seen = self.random.random_range(host.seen + 1..=newest);
            host.holding.learn_all(self.states[host.seen].values().cloned());
        }
        let held = (self.now < host.heard + LEASE && !host.is_over).then_some(host.epoch);
        for (address, step) in host.holding.steps(held) {
            match step {
                Step::Remove => {
                    host.link.remove(&address);
                    host.holding.removed(address);
                }
                Step::Put(taking) => {
                    host.holding.puts(address, taking);
                    host.link.insert(address, taking.epoch);
                    self.takings += 1;
                }
                Step::Write(change) => {
                    if !host.is_cut && host.writing.insert(address) {
                        let at = self.now + self.random.random_range(0..LONGEST_WRITE);
                        self.under_way.push((at, n, change.0, change.1));
                    }
                }
            }
        }
    }

    /// Writes arrive, and count if they are about what is there.
    fn arrive(&mut self) {
        let now = self.now;
        let arrived: Vec<_> = self.under_way.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, n, lease, next) in arrived {
            self.hosts[n].writing.remove(&lease.address);
            self.change(&lease, Some(next));
        }
    }

    fn change(&mut self, lease: &AddressLease, next: Option<AddressLease>) {
        let mut state = self.states[self.states.len() - 1].clone();
        let known = state.get(&lease.address).map(|known| known.version.as_str());
        if known.unwrap_or_default() != lease.version {
            return;
        }
        match next {
            Some(next) => {
                let version = self.states.len().to_string();
                state.insert(lease.address, AddressLease { version, ..next });
            }
            None => drop(state.remove(&lease.address)),
        }
        self.states.push(state);
    }

    /// The leader: it says who is to hold what, and frees what nobody holds any more.
    fn lead(&mut self) {
        if !self.random.random_bool(0.1) {
            return;
        }
        let address = address(self.random.random_range(1..=ADDRESSES));
        let wanted = Some(format!("n{}", self.random.random_range(0..HOSTS)));
        // It may be behind, too: then it is refused.
        let at = self.states.len() - 1 - self.random.random_range(0..3).min(self.states.len() - 1);
        let Some(lease) = self.states[at].get(&address).cloned() else {
            let new = AddressLease::new(address, "d/web".into(), wanted);
            return self.change(&new.clone(), Some(new));
        };
        let is_over = lease.holder.as_ref().is_some_and(|holder| {
            let is_fact = self.ended.get(&holder.host).is_some_and(|ended| *ended >= holder.epoch);
            let host = self.hosts.iter().find(|host| host.name == holder.host);
            is_fact || self.faults.early && host.is_some_and(|host| self.now > host.heard + LEASE / 2)
        });
        let next = match self.random.random_range(0..4) {
            _ if is_over => {
                self.freed += 1;
                Some(AddressLease { wanted, ..lease.released() })
            }
            0 if lease.holder.is_none() && lease.service.is_none() => None,
            1 => Some(AddressLease { service: None, wanted: None, ..lease.clone() }),
            2 => Some(AddressLease { service: Some("d/web".into()), wanted, ..lease.clone() }),
            _ => return,
        };
        self.change(&lease, next);
    }

    /// The law.
    fn look(&self) {
        for last in 1..=ADDRESSES {
            let holders: Vec<_> =
                self.hosts.iter().filter(|host| host.link.contains_key(&address(last))).collect();
            let names: Vec<_> = holders.iter().map(|host| (&host.name, host.epoch)).collect();
            assert!(holders.len() <= 1, "at {} ms {names:?} hold {}", self.now, address(last));
        }
    }

    /// Something goes wrong, or right again.
    fn disturb(&mut self) {
        let n = self.random.random_range(0..HOSTS);
        match self.random.random_range(0..6) {
            0 | 1 => self.hosts[n].is_cut = true,
            2 => self.hosts[n].is_cut = false,
            3 => self.hosts[n].paused_until = self.now + self.random.random_range(0..5_000),
            4 => self.restart(n),
            _ => self.hosts.iter_mut().for_each(|host| host.is_cut = false),
        }
    }

    /// The process ends and is started again: it gives up what the former one left before anybody hears it.
    fn restart(&mut self, n: usize) {
        let keeps_epoch = self.random.random_bool(0.5);
        let host = &mut self.hosts[n];
        host.process += 1;
        host.holding = Holding::new(host.name.clone(), host.process, pool());
        // It reads a state that is no newer than what the former one had.
        host.seen = self.random.random_range(0..=host.seen);
        host.holding.learn_all(self.states[host.seen].values().cloned());
        host.link.clear();
        host.paused_until = 0;
        if host.is_cut {
            // Nobody hears it: it holds nothing.
            host.is_over = true;
        } else if !keeps_epoch || host.is_over {
            self.begin(n);
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / STEP {
            self.step();
        }
    }
}

fn live(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults);
    for _ in 0..40 {
        world.disturb();
        let ms = world.random.random_range(10..2_000);
        world.run(ms);
    }
    world
}

#[test]
fn no_address_is_held_by_two_whatever_happens() {
    let (mut takings, mut freed) = (0, 0);
    for seed in 0..60 {
        let mut world = live(seed, Faults::default());
        // All is well again: whatever is to be held is held.
        world.hosts.iter_mut().for_each(|host| (host.is_cut, host.paused_until) = (false, 0));
        let before = world.takings;
        world.run(10_000);
        assert!(world.takings > before, "seed {seed}: nothing is taken any more");
        takings += world.takings;
        freed += world.freed;
    }
    assert!(takings > 300 && freed > 50, "{takings} takings, {freed} times freed: too little happened");
}

fn is_caught(faults: Faults) -> bool {
    let live = move |seed| std::panic::catch_unwind(move || drop(live(seed, faults))).is_err();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let is_caught = (0..60).any(live);
    std::panic::set_hook(hook);
    is_caught
}

#[test]
fn who_is_late_early_or_hasty_is_caught() {
    for faults in [
        Faults { late: true, ..Faults::default() },
        Faults { early: true, ..Faults::default() },
        Faults { hasty: true, ..Faults::default() },
    ] {
        assert!(is_caught(faults), "{faults:?}");
    }
}
