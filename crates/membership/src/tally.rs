//! Which hosts are silent: a function of the beats heard and the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::{Hosts, Liveness};

/// How many of a host's former lives are remembered, so that their beats can't be played again.
const FORMER_LIVES: usize = 32;

/// Something that changed about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChange {
    /// It has not been heard for too long, or says for too long that it hears fewer than half of the members.
    Silent {
        /// Which host.
        host: String,
        /// For how long it has given no sign that it can serve.
        unheard_for: Duration,
        /// Whether it is heard all the same.
        is_deaf: bool,
    },
    /// It is heard again.
    Heard {
        /// Which host.
        host: String,
        /// For how long it had not been heard.
        unheard_for: Duration,
    },
    /// It is in a life that was not known here: heard for the first time, or started anew, whether or not it
    /// was silent in between.
    Started {
        /// Which host.
        host: String,
        /// Its new incarnation.
        incarnation: u64,
    },
}

/// Why a beat doesn't count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is from nobody that this host expects.
    Unknown,
    /// It was heard before, or is older than one that was.
    Replayed,
}

/// Counts the beats of the other hosts. A pause of this host itself is not held against them: when a check
/// comes late, everybody's last beat is taken to be as much younger.
///
/// A host that hears fewer than half of the members, itself counted, is *deaf*: it can hold no lease and reach no state, though all others may
/// hear it. It says so in its beats, and they are no sign of life then. (With exactly half it can't either; but of two members one may be gone, and
/// the rest goes on as well as it can.) To one who is deaf itself they are: where no majority is
/// left at all, the hosts that still hear each other go on.
#[derive(Debug, Clone)]
pub struct Tally {
    silent_after: Duration,
    last_check: Instant,
    /// Half of whom are to be heard at least.
    members: BTreeSet<String>,
    records: BTreeMap<String, Record>,
}

/// What is known of one host. No incarnation is both `life` and among the `former_lives`: a beat of a former life
/// counts no more, however late it comes.
#[derive(Debug, Clone)]
struct Record {
    /// When its last beat came that was a sign of life.
    last_heard: Instant,
    silent: bool,
    /// When its last beat came, sign or not, and whether that is too long ago.
    last_beat: Instant,
    unheard: bool,
    /// Since when all of its beats have said that it is deaf.
    deaf_since: Option<Instant>,
    life: Option<Life>,
    former_lives: VecDeque<u64>,
}

impl Record {
    fn new(now: Instant) -> Self {
        Record {
            last_heard: now,
            silent: false,
            last_beat: now,
            unheard: false,
            deaf_since: None,
            life: None,
            former_lives: VecDeque::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Life {
    incarnation: u64,
    sequence: u64,
}

impl Tally {
    /// A tally of `hosts`, none of them silent yet; one that stays unheard is silent `silent_after` from now.
    pub fn new(hosts: impl IntoIterator<Item = String>, silent_after: Duration, now: Instant) -> Self {
        let records = hosts.into_iter().map(|host| (host, Record::new(now))).collect();
        Tally { silent_after, last_check: now, members: BTreeSet::new(), records }
    }

    /// Half of which hosts this one has to hear at least. Without any it is never deaf.
    pub fn count_on(&mut self, members: BTreeSet<String>) {
        self.members = members;
    }

    /// Whether this host is deaf, as of the last check. A member that isn't followed here, such as this host itself, counts as heard.
    pub fn is_deaf(&self) -> bool {
        let is_unheard = |member: &&String| self.records.get(*member).is_some_and(|record| record.unheard);
        let unheard = self.members.iter().filter(is_unheard).count();
        2 * (self.members.len() - unheard) < self.members.len()
    }

    /// Whether the beats of a host are signs of life, which are those of a deaf one or of another.
    pub fn is_sign(&self, is_deaf: bool) -> bool {
        !is_deaf || self.is_deaf()
    }

    /// Whether a host has said that it is deaf for long enough. The first beats that arrive after a link was cut say so, too: they were sent before their
    /// sender heard anybody.
    pub fn has_been_deaf(&self, host: &str, now: Instant) -> bool {
        let since = self.records.get(host).and_then(|record| record.deaf_since);
        since.is_some_and(|since| now.saturating_duration_since(since) >= self.silent_after)
    }

    /// Counts the beats of these hosts from now on. One that is new is as if it had been heard just now; one that is not
    /// among them any more is forgotten. Tells whether the hosts are others than before.
    pub fn follow(&mut self, hosts: impl IntoIterator<Item = String>, now: Instant) -> bool {
        let mut former = std::mem::take(&mut self.records);
        let mut changed = false;
        for host in hosts {
            let record = former.remove(&host).unwrap_or_else(|| {
                changed = true;
                Record::new(now)
            });
            self.records.insert(host, record);
        }
        changed || !former.is_empty()
    }

    /// Counts a beat that is a sign of life.
    ///
    /// # Errors
    /// [`Refused`] if it doesn't count.
    pub fn beat(
        &mut self,
        from: &str,
        incarnation: u64,
        sequence: u64,
        now: Instant,
    ) -> Result<Vec<HostChange>, Refused> {
        let mut changes = self.no_sign(from, incarnation, sequence, now)?;
        if let Some(record) = self.records.get_mut(from) {
            if record.silent {
                record.silent = false;
                let unheard_for = now.saturating_duration_since(record.last_heard);
                changes.push(HostChange::Heard { host: from.to_owned(), unheard_for });
            }
            record.last_heard = record.last_heard.max(now);
            record.deaf_since = None;
        }
        Ok(changes)
    }

    /// Counts a beat that is no sign of life: its sender is deaf, and will be silent unless it soon says otherwise.
    ///
    /// # Errors
    /// [`Refused`] if it doesn't count.
    pub fn no_sign(
        &mut self,
        from: &str,
        incarnation: u64,
        sequence: u64,
        now: Instant,
    ) -> Result<Vec<HostChange>, Refused> {
        let record = self.records.get_mut(from).ok_or(Refused::Unknown)?;
        let mut changes = Vec::new();
        match record.life {
            Some(life) if life.incarnation == incarnation => {
                if sequence <= life.sequence {
                    return Err(Refused::Replayed);
                }
            }
            former => {
                if record.former_lives.contains(&incarnation) {
                    return Err(Refused::Replayed);
                }
                if let Some(former) = former {
                    // The oldest makes room; the front is the newest.
                    record.former_lives.truncate(FORMER_LIVES - 1);
                    record.former_lives.push_front(former.incarnation);
                }
                changes.push(HostChange::Started { host: from.to_owned(), incarnation });
            }
        }
        // Another life begins anew.
        record.deaf_since = record.deaf_since.filter(|_| changes.is_empty()).or(Some(now));
        record.life = Some(Life { incarnation, sequence });
        record.last_beat = record.last_beat.max(now);
        record.unheard = false;
        Ok(changes)
    }

    /// Finds who has become silent. To be called at [`deadline`](Tally::deadline) at the latest, and at least twice in the
    /// time that makes a host silent, after all beats that have arrived were counted.
    pub fn check(&mut self, now: Instant) -> Vec<HostChange> {
        // Half of it, as a check comes with each of this host's own beats, of which two fit in at least: with less, hosts that
        // beat seldom would count as paused between any two, and find a dead one late.
        let on_time = self.silent_after / 2;
        let late = now.saturating_duration_since(self.last_check).saturating_sub(on_time);
        self.last_check = self.last_check.max(now);
        let mut changes = Vec::new();
        for (host, record) in &mut self.records {
            // Not past now; and a beat counted ahead of this check's clock stays as it is.
            for at in [&mut record.last_heard, &mut record.last_beat] {
                *at = (*at + late).min(now).max(*at);
            }
            record.unheard = now.saturating_duration_since(record.last_beat) >= self.silent_after;
            let unheard_for = now.saturating_duration_since(record.last_heard);
            if !record.silent && unheard_for >= self.silent_after {
                record.silent = true;
                let (host, is_deaf) = (host.clone(), !record.unheard);
                changes.push(HostChange::Silent { host, unheard_for, is_deaf });
            }
        }
        changes
    }

    /// When somebody becomes silent unless a beat comes; nothing if all are.
    pub fn deadline(&self) -> Option<Instant> {
        let speaking = self.records.values().filter(|record| !record.silent);
        speaking.map(|record| record.last_heard + self.silent_after).min()
    }

    /// What is known of every host.
    pub fn hosts(&self) -> Hosts {
        let host = |record: &Record| Liveness {
            last_heard: record.last_heard,
            silent: record.silent,
            incarnation: record.life.map(|life| life.incarnation),
        };
        Hosts(self.records.iter().map(|(name, record)| (name.clone(), host(record))).collect())
    }
}

#[cfg(test)]
mod tests;
