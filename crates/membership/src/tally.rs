//! Which hosts are silent: a function of the beats heard and the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::{Hosts, Liveness};

/// How many of a host's former lives are remembered, so that their beats can't be played again.
const FORMER_LIVES: usize = 32;

/// Something that changed about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChange {
    /// It has not been heard for too long.
    Silent {
        /// Which host.
        host: String,
        /// For how long it has not been heard.
        unheard_for: Duration,
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
#[derive(Debug, Clone)]
pub struct Tally {
    silent_after: Duration,
    last_check: Instant,
    records: BTreeMap<String, Record>,
}

/// What is known of one host. No incarnation is both `life` and among the `former_lives`: a beat of a former life
/// counts no more, however late it comes.
#[derive(Debug, Clone)]
struct Record {
    last_heard: Instant,
    silent: bool,
    life: Option<Life>,
    former_lives: VecDeque<u64>,
}

impl Record {
    fn new(now: Instant) -> Self {
        Record { last_heard: now, silent: false, life: None, former_lives: VecDeque::new() }
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
        Tally { silent_after, last_check: now, records }
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

    /// Counts a beat.
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
        record.life = Some(Life { incarnation, sequence });
        if record.silent {
            record.silent = false;
            let unheard_for = now.saturating_duration_since(record.last_heard);
            changes.push(HostChange::Heard { host: from.to_owned(), unheard_for });
        }
        record.last_heard = record.last_heard.max(now);
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
            record.last_heard = (record.last_heard + late).min(now).max(record.last_heard);
            let unheard_for = now.saturating_duration_since(record.last_heard);
            if !record.silent && unheard_for >= self.silent_after {
                record.silent = true;
                changes.push(HostChange::Silent { host: host.clone(), unheard_for });
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
