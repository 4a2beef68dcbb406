//! The lease of this host, and its votes about the others, put together for the driver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::beat::Beat;
use crate::lease::{Acknowledged, Ballot, Boottime, Count, Ended, Epoch, Known, OwnLease, Terms, View, Word};
use crate::memory::Memory;
use crate::page::LeasePage;

/// A host is missed now of which a majority has said so within this time, at most. They say it with every beat.
const LATELY: Duration = Duration::from_secs(2);

/// What this host's lease is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// No majority has been heard of in this epoch yet.
    Awaited(Epoch),
    /// A majority has heard this host.
    Held(Epoch),
    /// It has ended. The next epoch begins once somebody says that nothing of this one is left
    /// ([`HeartbeatDriver::left`](crate::HeartbeatDriver::left)).
    Over(Epoch),
}

/// What the driver keeps of leases.
pub(crate) struct Leasing {
    terms: Terms,
    name: String,
    incarnation: u64,
    members: BTreeSet<String>,
    view: View,
    own: OwnLease,
    ballot: Ballot,
    count: Count,
    /// With which of this host's words the next beat begins.
    first_word: usize,
    /// What was last given to the disk: the own epoch, and how often the promises had changed.
    remembered: (Epoch, u64),
    memory: watch::Sender<Arc<Memory>>,
    page: LeasePage,
    lease: watch::Sender<Lease>,
    ended: watch::Sender<Arc<BTreeMap<String, Ended>>>,
    missed: watch::Sender<BTreeSet<String>>,
}

/// What others see of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub page: LeasePage,
    pub lease: watch::Receiver<Lease>,
    pub ended: watch::Receiver<Arc<BTreeMap<String, Ended>>>,
    /// The hosts that a majority misses.
    pub missed: watch::Receiver<BTreeSet<String>>,
    /// What is to be on the disk.
    pub memory: watch::Receiver<Arc<Memory>>,
}

impl Leasing {
    /// Of a host that remembers this of its former processes. Its first epoch is a later one than it ever had, and `least` at least: unless
    /// the page is that of a former process, whose lease something still runs by. Then that epoch goes on, for as long as was said.
    pub(crate) fn new(
        terms: Terms,
        name: String,
        incarnation: u64,
        least: Epoch,
        memory: Memory,
        page: LeasePage,
    ) -> (Self, Seen) {
        let handed_on = page.until().filter(|_| page.epoch() >= memory.epoch);
        let epoch = match handed_on {
            Some(_) => page.epoch(),
            None => memory.epoch.max(page.epoch()).saturating_add(1).max(least),
        };
        // What goes on looking at the page may be of a former process, with other times.
        page.set_held_for(terms.lease);
        let mut own = OwnLease::new(terms, name.clone(), incarnation, epoch);
        if let Some(until) = handed_on {
            own = own.handed_on(until);
        }
        let (lease, lease_seen) = watch::channel(Lease::Awaited(epoch));
        let (ended, ended_seen) = watch::channel(Arc::default());
        let (missed, missed_seen) = watch::channel(BTreeSet::new());
        let ballot = Ballot::new(terms, memory.promises.clone());
        let (memory, memory_seen) = watch::channel(Arc::new(memory));
        let leasing = Leasing {
            terms,
            own,
            name,
            incarnation,
            members: BTreeSet::new(),
            view: View::default(),
            ballot,
            count: Count::default(),
            first_word: 0,
            remembered: (0, 0),
            memory,
            page: page.clone(),
            lease,
            ended,
            missed,
        };
        let (lease, ended, missed, memory) = (lease_seen, ended_seen, missed_seen, memory_seen);
        (leasing, Seen { page, lease, ended, missed, memory })
    }

    /// Who else is there, and whose word counts.
    pub(crate) fn follow<'a>(
        &mut self,
        others: impl IntoIterator<Item = &'a str> + Clone,
        members: BTreeSet<String>,
        now: Instant,
    ) {
        self.view = View::of(&members, self.terms);
        self.ballot.follow(others.clone(), self.view, now);
        self.own.follow(members.clone());
        self.count.follow(others, members.clone(), self.view);
        if self.members != members {
            self.members = members;
            // To be written, though neither the epoch nor a promise has changed.
            self.remembered = (0, 0);
        }
    }

    /// What the cluster's state knows of hosts.
    pub(crate) fn told(&mut self, known: &BTreeMap<String, Known>) {
        known.iter().for_each(|(host, known)| self.ballot.told(host, *known));
    }

    /// What a beat that counts says of leases. If it is no sign of life, it is acknowledged as little as one that was lost.
    pub(crate) fn heard(&mut self, beat: &Beat<'_>, is_sign: bool, now: Instant, boottime: Boottime) {
        if is_sign {
            self.ballot.beat(beat.from, beat.what, now);
            self.count.heard(beat.from, beat.what.epoch);
        } else {
            self.count.heard_deaf(beat.from, beat.what.epoch);
        }
        if let Some(acknowledged) = beat.acknowledges {
            self.own.acknowledged(beat.from, beat.view, acknowledged, boottime);
        }
        for (host, word) in &beat.words {
            if let Word::Never(epoch) = word
                && *host == self.name
            {
                self.own.refused(*epoch);
            }
            self.count.word(beat.from, beat.view, host, *word, now);
        }
    }

    /// What is on the disk by now.
    pub(crate) fn kept(&mut self, memory: &Memory) {
        self.ballot.kept(memory.promises.clone());
    }

    /// Looks at what time has made of all that, and shows it. `left` is the newest epoch of which nothing is left here.
    pub(crate) fn check(&mut self, now: Instant, boottime: Boottime, left: Option<Epoch>) {
        if self.is_member() {
            for (host, word) in self.ballot.words(now) {
                self.count.word(&self.name, self.view, host, word, now);
            }
            let (count, within) = (&self.count, self.terms.fence);
            self.ballot.check(now, |host| count.is_missed(host, within, now));
        }
        let is_held = self.own.is_held(boottime);
        if self.own.is_over() && left.is_some_and(|left| left >= self.own.epoch()) {
            self.own.begin();
        }
        self.page.set(self.own.epoch(), self.own.until().filter(|_| is_held));
        self.remember();
        let epoch = self.own.epoch();
        let lease = match () {
            () if is_held => Lease::Held(epoch),
            () if self.own.is_over() => Lease::Over(epoch),
            () => Lease::Awaited(epoch),
        };
        if self.lease.send_if_modified(|known| std::mem::replace(known, lease) != lease) {
            let held_for_ms =
                self.page.until().map(|until| until.saturating_sub(boottime).as_millis() as u64);
            tracing::info!(?lease, held_for_ms, "this host's lease");
        }
        if self.count.is_new() {
            self.show_ended();
        }
    }

    fn show_ended(&self) {
        let ended = self.count.all();
        self.ended.send_if_modified(|known| {
            let new = |(host, ended): &(&String, &Ended)| !ended.is_back && known.get(*host) != Some(*ended);
            for (host, ended) in ended.iter().filter(new) {
                tracing::info!(target: "timeline", what = "host-fenced", subject = %host, epoch = ended.epoch);
            }
            let changed = **known != ended;
            *known = Arc::new(ended);
            changed
        });
    }

    /// Gives to the disk what is to outlast this process, if it is new.
    fn remember(&mut self) {
        let now = (self.own.epoch(), self.ballot.changes());
        if now != self.remembered {
            self.remembered = now;
            let promises = self.ballot.promises().clone();
            let memory = Memory { epoch: now.0, promises, members: self.members.clone() };
            self.memory.send_replace(Arc::new(memory));
        }
    }

    /// The beat of this number, about to be sent at this time, without what it says to its receiver and whether this host is deaf.
    pub(crate) fn beat(&mut self, sequence: u64, now: Instant, boottime: Boottime) -> Beat<'_> {
        self.own.sent(sequence, boottime);
        let missed = self.count.missed(self.terms.lease.min(LATELY), now);
        self.missed.send_if_modified(|known| {
            let changed = *known != missed;
            *known = missed;
            changed
        });
        let what = Acknowledged { incarnation: self.incarnation, epoch: self.own.epoch(), sequence };
        let mut words: Vec<(&str, Word)> = match self.is_member() {
            true => self.ballot.words(now).collect(),
            false => Vec::new(),
        };
        let first = self.first_word.checked_rem(words.len()).unwrap_or_default();
        words.rotate_left(first);
        Beat { from: &self.name, what, view: self.view, acknowledges: None, is_deaf: false, words }
    }

    /// How many words the last beat carried: where not all fit into one, the next begins with the others.
    pub(crate) fn said(&mut self, words: usize) {
        self.first_word = self.first_word.wrapping_add(words);
    }

    /// What this host has taken in of another one.
    pub(crate) fn acknowledges(&self, host: &str) -> Option<Acknowledged> {
        self.ballot.acknowledges(host)
    }

    fn is_member(&self) -> bool {
        self.members.contains(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    fn page() -> LeasePage {
        LeasePage::create().unwrap()
    }

    /// Members that exchange their beats as datagrams, and hear nothing of the workers after the first beat.
    struct Members {
        all: Vec<(Leasing, Seen)>,
        sequence: u64,
        now: Instant,
        key: hmac::Key,
    }

    impl Members {
        #[allow(clippy::disallowed_methods)] // Some instant to count from.
        fn new(workers: usize) -> Self {
            let (now, names) = (Instant::now(), ["n1", "n2", "n3"]);
            let members: BTreeSet<String> = names.map(str::to_owned).into();
            let workers: Vec<String> = (0..workers).map(|n| format!("worker-{n}")).collect();
            let all = names.iter().map(|name| {
                let (mut leasing, seen) =
                    Leasing::new(Terms::default(), (*name).to_owned(), 1, 1, Memory::default(), page());
                let others = names.iter().filter(|other| *other != name).copied();
                let others: Vec<&str> = others.chain(workers.iter().map(String::as_str)).collect();
                leasing.follow(others.iter().copied(), members.clone(), now);
                for worker in &workers {
                    let what = Acknowledged { incarnation: 2, epoch: 5, sequence: 1 };
                    let (view, words) = (View(0), Vec::new());
                    let beat = Beat { from: worker, what, view, acknowledges: None, is_deaf: false, words };
                    leasing.heard(&beat, true, now, Duration::ZERO);
                }
                (leasing, seen)
            });
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
            Members { all: all.collect(), sequence: 0, now, key }
        }

        fn tick(&mut self) {
            self.sequence += 1;
            self.now += TICK;
            let boottime = TICK * u32::try_from(self.sequence).unwrap();
            for from in 0..self.all.len() {
                let mut datagrams = Vec::new();
                for to in 0..self.all.len() {
                    let acknowledges = self.all[from].0.acknowledges(&format!("n{}", to + 1));
                    let mut beat = self.all[from].0.beat(self.sequence, self.now, boottime);
                    beat.acknowledges = acknowledges;
                    let mut datagram = Vec::new();
                    let said = beat.encode(&self.key, &mut datagram);
                    datagrams.push((to, said, datagram));
                }
                let least = datagrams.iter().map(|(_, said, _)| *said).min();
                self.all[from].0.said(least.unwrap_or_default());
                for (to, _, datagram) in datagrams.into_iter().filter(|(to, ..)| *to != from) {
                    let beat = Beat::decode(&datagram, &self.key).unwrap();
                    self.all[to].0.heard(&beat, true, self.now, boottime);
                }
            }
            for (leasing, seen) in &mut self.all {
                leasing.check(self.now, boottime, None);
                let memory = seen.memory.borrow().clone();
                leasing.kept(&memory);
            }
        }
    }

    #[test]
    fn many_hosts_that_fall_silent_at_once_are_all_fenced_though_no_beat_names_them_all() {
        let mut members = Members::new(400);
        for _ in 0..40 {
            members.tick();
        }
        for (_, seen) in &members.all {
            assert!(seen.ended.borrow().values().all(|ended| ended.is_back), "before its time");
        }
        // 400 hosts are in seven beats.
        for _ in 0..30 {
            members.tick();
        }
        for (_, seen) in &members.all {
            let fenced = Ended { epoch: 5, is_back: false };
            assert_eq!(seen.ended.borrow().values().filter(|ended| **ended == fenced).count(), 400);
            assert!(matches!(*seen.lease.borrow(), Lease::Held(_)), "the members hear each other");
        }
    }

    #[test]
    fn a_process_begins_with_a_later_epoch_than_its_former_ones() {
        let memory = Memory { epoch: 7, ..Memory::default() };
        let begun = |least, page: LeasePage| {
            let (mut leasing, seen) =
                Leasing::new(Terms::default(), "n1".into(), 1, least, memory.clone(), page);
            assert_eq!(seen.page.held_for(), Some(Terms::default().lease));
            (leasing.own.epoch(), leasing.own.is_held(TICK))
        };
        assert_eq!(begun(1, page()), (8, false));
        assert_eq!(begun(100, page()), (100, false));

        // Something still runs by the former process' lease: it goes on.
        let former = page();
        former.set(7, Some(2 * TICK));
        assert_eq!(begun(100, former.clone()), (7, true));
        former.set(7, Some(TICK));
        assert_eq!(
            begun(100, former.clone()),
            (7, false),
            "it is over, and the next one waits for what is left of it"
        );
        former.set(6, Some(2 * TICK));
        assert_eq!(begun(1, former.clone()), (8, false), "there was a later one");
        former.set(9, None);
        assert_eq!(begun(1, former), (10, false), "nothing was held");
    }
}
