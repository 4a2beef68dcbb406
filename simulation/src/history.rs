//! What the clients asked and what they were answered, and what that says of each key and each lease.

use std::collections::{BTreeMap, BTreeSet};

use store::{LeaseId, Revision};

use crate::chronicle::Chronicle;
use crate::linearizability::{Call, Model, Verdict, check};
use crate::report::{Failure, Report};

/// A key's content: a value that is written once in a world's life, and a lease or 0.
pub type Content = Option<(u64, LeaseId)>;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// What a key holds.
    Get(usize),
    /// Writes a key.
    Put(usize, u64, LeaseId),
    /// Deletes a key.
    Delete(usize),
    /// Writes keys, if the first one holds what is expected; reads them otherwise.
    Swap(Option<u64>, Vec<(usize, u64)>),
    /// Makes a lease of this many seconds.
    Grant(u64),
    /// Keeps a lease alive.
    KeepAlive(LeaseId),
    /// Ends a lease.
    Revoke(LeaseId),
    /// Forgets history.
    Compact(Revision),
}

/// How it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done at this revision (the map's newest then); what its keys held before, in order; for a
    /// swap, whether it was made.
    Done(Revision, Vec<Content>, bool),
    /// It made this lease.
    Granted(LeaseId),
    /// There is no such lease, so nothing was done.
    NoLease,
    /// It was refused, so nothing was done.
    Refused,
    /// Nobody knows whether it was done.
    Unknown,
}

/// One operation of one client.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it was asked for.
    pub called: u64,
    /// When it was answered.
    pub returned: u64,
    /// What was asked.
    pub operation: Operation,
    /// The answer.
    pub outcome: Outcome,
}

/// What an operation means for one key.
#[derive(Debug, Clone)]
struct Touch {
    guard: Guard,
    effect: Effect,
    /// What it saw there before.
    seen: Option<Content>,
}

#[derive(Debug, Clone)]
enum Guard {
    Any,
    Holds(Option<u64>),
    HoldsNot(Option<u64>),
}

#[derive(Debug, Clone)]
enum Effect {
    Keep,
    Put(u64, LeaseId),
    Delete,
    EndLease(LeaseId),
}

struct Key;

impl Model for Key {
    type State = Content;
    type Operation = Touch;

    fn initial(&self) -> Content {
        None
    }

    fn step(&self, state: &Content, touch: &Touch) -> Vec<Content> {
        let value = state.map(|(value, _)| value);
        let may = match touch.guard {
            Guard::Any => true,
            Guard::Holds(expected) => value == expected,
            Guard::HoldsNot(expected) => value != expected,
        };
        if !may || touch.seen.is_some_and(|seen| seen != *state) {
            return Vec::new();
        }
        vec![match touch.effect {
            Effect::Keep => *state,
            Effect::Put(value, lease) => Some((value, lease)),
            Effect::Delete => None,
            Effect::EndLease(lease) => state.filter(|(_, on)| *on != lease),
        }]
    }
}

/// What an operation says of a lease's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    IsAlive,
    IsDead,
    Ends,
}

struct Lease;

impl Model for Lease {
    type State = bool;
    type Operation = Life;

    fn initial(&self) -> bool {
        true
    }

    fn step(&self, alive: &bool, life: &Life) -> Vec<bool> {
        match (life, alive) {
            (Life::IsAlive, true) => vec![true],
            (Life::IsDead, false) => vec![false],
            (Life::Ends, true) => vec![false],
            _ => Vec::new(),
        }
    }
}

/// Holds a world's whole history to its promises.
pub fn judge(
    records: &[Record],
    keys: usize,
    end: &BTreeMap<usize, Content>,
    chronicle: &Chronicle,
    fastest_clock: f64,
    report: &mut Report,
) -> Result<(), Failure> {
    let finished = records.iter().map(|record| record.returned).max().unwrap_or(0) + 1;
    let seen: BTreeSet<u64> = records
        .iter()
        .filter_map(|record| match &record.outcome {
            Outcome::Done(_, before, _) => Some(before),
            _ => None,
        })
        .flatten()
        .chain(end.values())
        .filter_map(|content| content.map(|(value, _)| value))
        .collect();
    let leases = lease_lives(records);
    for key in 0..keys {
        let mut calls: Vec<Call<Touch>> = records.iter().filter_map(|r| touch(r, key, &seen)).collect();
        for (lease, granted) in &leases {
            // Its time may run out whenever nobody keeps it alive.
            let hangs =
                calls.iter().any(|call| matches!(call.operation.effect, Effect::Put(_, l) if l == *lease));
            if hangs {
                let operation = Touch { guard: Guard::Any, effect: Effect::EndLease(*lease), seen: None };
                calls.push(Call { called: granted.called, returned: None, operation });
            }
        }
        let last =
            Touch { guard: Guard::Any, effect: Effect::Keep, seen: Some(end.get(&key).copied().flatten()) };
        calls.push(Call { called: finished, returned: Some(finished + 1), operation: last });
        conclude(&format!("key {key}"), check(&Key, &calls), &calls, report)?;
    }
    for (lease, life) in &leases {
        let mut calls = life.calls.clone();
        calls.push(Call { called: life.called, returned: None, operation: Life::Ends });
        conclude(&format!("lease {lease}"), check(&Lease, &calls), &calls, report)?;
        life.ended_in_time(*lease, fastest_clock)?;
    }
    one_order(records)?;
    told_as_done(records, chronicle)
}

fn conclude<O: std::fmt::Debug>(
    what: &str,
    verdict: Verdict,
    calls: &[Call<O>],
    report: &mut Report,
) -> Result<(), Failure> {
    match verdict {
        Verdict::Linearizable => report.histories.0 += 1,
        Verdict::TooLarge => report.histories.1 += 1,
        Verdict::Broken { explained, stuck } => {
            let stuck: Vec<_> = stuck.iter().map(|n| &calls[*n]).collect();
            let what = format!("{what}: no order explains more than {explained} answers; next: {stuck:?}");
            return Err(Failure::new("linearizability", what));
        }
    }
    Ok(())
}

/// What an operation meant for a key, if anything.
fn touch(record: &Record, key: usize, observed: &BTreeSet<u64>) -> Option<Call<Touch>> {
    let known = match &record.outcome {
        Outcome::Done(_, before, made) => Some((before, *made)),
        Outcome::Unknown => None,
        _ => return None,
    };
    // A value that no answer shows, written by an operation that itself has no answer, changes nothing that
    // can be told: all that came behind it would have shown it, or overwrote it as silently.
    let told = |value: &u64, lease: LeaseId| known.is_some() || lease.is_some() || observed.contains(value);
    let seen = |place: usize| known.and_then(|(before, _)| before.get(place).copied());
    let touch = match &record.operation {
        Operation::Get(k) if *k == key => {
            known?;
            Touch { guard: Guard::Any, effect: Effect::Keep, seen: seen(0) }
        }
        Operation::Put(k, value, lease) if *k == key && told(value, *lease) => {
            Touch { guard: Guard::Any, effect: Effect::Put(*value, *lease), seen: seen(0) }
        }
        Operation::Delete(k) if *k == key => {
            Touch { guard: Guard::Any, effect: Effect::Delete, seen: seen(0) }
        }
        Operation::Swap(expected, writes) => {
            let place = writes.iter().position(|(k, _)| *k == key)?;
            let value = writes[place].1;
            let made = known.is_none_or(|(_, made)| made);
            if made && !told(&value, LeaseId::NONE) {
                return None;
            }
            let guard = match (place, made) {
                (0, true) => Guard::Holds(*expected),
                (0, false) => Guard::HoldsNot(*expected),
                _ => Guard::Any,
            };
            let effect = if made { Effect::Put(value, LeaseId::NONE) } else { Effect::Keep };
            Touch { guard, effect, seen: seen(place) }
        }
        Operation::Revoke(lease) => Touch { guard: Guard::Any, effect: Effect::EndLease(*lease), seen: None },
        _ => return None,
    };
    let returned = known.is_some().then_some(record.returned);
    Some(Call { called: record.called, returned, operation: touch })
}

/// A lease's life as the clients saw it.
struct LeaseLife {
    called: u64,
    seconds: u64,
    calls: Vec<Call<Life>>,
    /// When the last request that started its time anew (and was answered) was made.
    refreshed: u64,
    /// Whether a client asked to end it.
    revoked: bool,
}

impl LeaseLife {
    /// A lease may end late, as after a leader's loss, but never before its time by the fastest clock.
    fn ended_in_time(&self, lease: LeaseId, fastest_clock: f64) -> Result<(), Failure> {
        let dead = self.calls.iter().filter(|call| call.operation == Life::IsDead);
        let Some(dead_at) = dead.filter_map(|call| call.returned).min().filter(|_| !self.revoked) else {
            return Ok(());
        };
        let earliest = self.refreshed + (self.seconds as f64 * 1e6 / fastest_clock) as u64;
        if dead_at < earliest {
            let what = format!("lease {lease} was gone at {dead_at}, before its time {earliest}");
            return Err(Failure::new("lease", what));
        }
        Ok(())
    }
}

fn lease_lives(records: &[Record]) -> BTreeMap<LeaseId, LeaseLife> {
    let mut lives = BTreeMap::new();
    for record in records {
        if let (Operation::Grant(seconds), Outcome::Granted(lease)) = (&record.operation, &record.outcome) {
            let (called, seconds) = (record.called, *seconds);
            let life = LeaseLife { called, seconds, calls: Vec::new(), refreshed: called, revoked: false };
            lives.insert(*lease, life);
        }
    }
    for record in records {
        let (lease, says) = match (&record.operation, &record.outcome) {
            (Operation::Put(_, _, lease) | Operation::KeepAlive(lease), Outcome::Done(..)) => {
                (lease, Some(Life::IsAlive))
            }
            (Operation::Revoke(lease), Outcome::Done(..) | Outcome::Unknown) => (lease, Some(Life::Ends)),
            (
                Operation::Put(_, _, lease) | Operation::KeepAlive(lease) | Operation::Revoke(lease),
                Outcome::NoLease,
            ) => (lease, Some(Life::IsDead)),
            (Operation::Revoke(lease), _) => (lease, None),
            _ => continue,
        };
        let Some(life) = lives.get_mut(lease) else { continue };
        life.revoked |= matches!(record.operation, Operation::Revoke(_));
        if matches!((&record.operation, says), (Operation::KeepAlive(_), Some(Life::IsAlive))) {
            life.refreshed = life.refreshed.max(record.called);
        }
        if let Some(operation) = says {
            let returned = (record.outcome != Outcome::Unknown).then_some(record.returned);
            life.calls.push(Call { called: record.called, returned, operation });
        }
    }
    lives
}

/// Across all keys: what was answered before another operation was called has no higher revision.
fn one_order(records: &[Record]) -> Result<(), Failure> {
    let revision = |record: &Record| match record.outcome {
        Outcome::Done(revision, _, _) if revision > Revision::ZERO => Some(revision),
        _ => None,
    };
    let mut returned: Vec<(u64, Revision)> =
        records.iter().filter_map(|record| Some((record.returned, revision(record)?))).collect();
    returned.sort_unstable();
    let mut called: Vec<&Record> = records.iter().filter(|record| revision(record).is_some()).collect();
    called.sort_by_key(|record| record.called);
    let (mut next, mut newest) = (0, Revision::ZERO);
    for record in called {
        while returned.get(next).is_some_and(|(at, _)| *at < record.called) {
            newest = newest.max(returned[next].1);
            next += 1;
        }
        if revision(record).is_some_and(|revision| revision < newest) {
            let what = format!("{record:?} came after revision {newest} was answered");
            return Err(Failure::new("order", what));
        }
    }
    Ok(())
}

/// Each acknowledged write stands in the history that the members tell, at its revision and nowhere else;
/// no write stands there twice.
fn told_as_done(records: &[Record], chronicle: &Chronicle) -> Result<(), Failure> {
    let mut told: BTreeMap<u64, Revision> = BTreeMap::new();
    for (revision, events) in chronicle.all() {
        for value in events.iter().filter_map(crate::clients::written) {
            if let Some(before) = told.insert(value, revision) {
                let what = format!("the write of {value} was done at revision {before} and at {revision}");
                return Err(Failure::new("done twice", what));
            }
        }
    }
    for record in records {
        let Outcome::Done(revision, _, made) = &record.outcome else { continue };
        let values: Vec<u64> = match &record.operation {
            Operation::Put(_, value, _) => vec![*value],
            Operation::Swap(_, writes) if *made => writes.iter().map(|(_, value)| *value).collect(),
            _ => continue,
        };
        for value in values {
            if told.get(&value) != Some(revision) {
                let at = told.get(&value);
                let what = format!("{record:?}: {value} was acknowledged at {revision} and stands at {at:?}");
                return Err(Failure::new("lost", what));
            }
        }
    }
    Ok(())
}
