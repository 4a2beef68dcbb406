//! Clients: each asks one thing after the other, of one member or another, and remembers what it was told.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::Rng;
use store::parts::{Command, Input, Response};
use store::{
    Compare, Condition, Error, Event, KeyRange, KeyValue, LeaseId, Op, OpResult, Revision, State, Txn,
};

use crate::history::{Content, Operation, Outcome, Record};
use crate::report::Failure;
use crate::world::{Mistake, Moment, World};

/// How many keys the clients write.
pub const KEYS: usize = 6;

/// A client.
#[derive(Debug, Default)]
pub struct Client {
    /// It asks for nothing more.
    pub stop: bool,
    waiting: Option<Waiting>,
    /// What it believes that the keys hold.
    believes: BTreeMap<usize, Option<u64>>,
    /// The leases that it was given.
    leases: Vec<LeaseId>,
    newest: Revision,
}

#[derive(Debug)]
struct Waiting {
    token: u64,
    member: usize,
    called: u64,
    operation: Operation,
}

impl Client {
    /// Whether it waits for nothing and will ask for nothing.
    pub fn is_idle(&self) -> bool {
        self.stop && self.waiting.is_none()
    }
}

fn name(key: usize) -> Bytes {
    Bytes::from(format!("/key/{key}"))
}

/// What a key holds, as the histories tell it.
pub fn held(state: &State, key: usize) -> Content {
    state.get(&name(key)).and_then(|kv| content(kv))
}

/// The value that an event wrote.
pub fn written(event: &Event) -> Option<u64> {
    match event {
        Event::Put { current, .. } => content(current).map(|(value, _)| value),
        Event::Delete { .. } => None,
    }
}

fn content(kv: &KeyValue) -> Content {
    Some((std::str::from_utf8(&kv.value.bytes()).ok()?.trim_end().parse().ok()?, kv.lease))
}

/// Values are padded, so that the log's files fill up.
fn value(value: u64) -> Bytes {
    Bytes::from(format!("{value:<40}"))
}

fn transaction(operation: &Operation) -> Option<Command> {
    let put = |key: usize, v: u64, lease| Op::Put { key: name(key), value: value(v), lease };
    Some(match operation {
        Operation::Get(_) => return None,
        Operation::Put(key, v, lease) => {
            Command::Txn(Txn { success: vec![put(*key, *v, *lease)], ..Txn::default() })
        }
        Operation::Delete(key) => {
            Command::Txn(Txn { success: vec![Op::Delete(KeyRange::key(name(*key)))], ..Txn::default() })
        }
        Operation::Swap(expected, writes) => {
            let key = writes.first().map(|(key, _)| name(*key)).unwrap_or_default();
            let condition = match expected {
                Some(expected) => Condition::Value(key, Compare::Equal, value(*expected)),
                None => Condition::Version(key, Compare::Equal, 0),
            };
            Command::Txn(Txn {
                conditions: vec![condition],
                success: writes.iter().map(|(key, v)| put(*key, *v, LeaseId::NONE)).collect(),
                failure: writes.iter().map(|(key, _)| Op::Range(KeyRange::key(name(*key)))).collect(),
            })
        }
        Operation::Grant(seconds) => Command::Grant(*seconds),
        Operation::KeepAlive(lease) => Command::KeepAlive(*lease),
        Operation::Revoke(lease) => Command::Revoke(*lease),
        Operation::Compact(revision) => Command::Compact(*revision),
    })
}

impl World {
    /// A client does its next thing, if it is not waiting.
    pub fn client(&mut self, c: usize) -> Result<(), Failure> {
        if self.clients[c].stop || self.clients[c].waiting.is_some() {
            return Ok(());
        }
        // Most of the time the member that is nearest; but clients move.
        let members = self.hosts.len();
        let member =
            if self.rng.random_ratio(2, 3) { c % members } else { self.rng.random_range(0..members) };
        if self.hosts[member].running.is_none() {
            self.next(c);
            return Ok(());
        }
        let operation = self.choose(c);
        let token = self.report.steps << 8 | c as u64;
        let command = transaction(&operation);
        let called = self.now;
        self.clients[c].waiting = Some(Waiting { token, member, called, operation });
        match command {
            Some(command) => self.give(member, Input::Propose(token, command.encode())),
            None if self.mistake == Some(Mistake::StaleRead) => {
                self.read(member, token, true);
                Ok(())
            }
            None => self.give(member, Input::Read(token)),
        }
    }

    fn choose(&mut self, c: usize) -> Operation {
        let key = self.rng.random_range(0..KEYS);
        // No two writes of a world write the same.
        let unique = self.report.steps * 4;
        let client = &self.clients[c];
        let lease = match client.leases.len() {
            0 => LeaseId::NONE,
            n => client.leases[self.rng.random_range(n.saturating_sub(3)..n)],
        };
        match self.rng.random_range(0..100) {
            0..30 => Operation::Get(key),
            30..55 => Operation::Put(key, unique, LeaseId::NONE),
            55..62 => Operation::Put(key, unique, lease),
            62..68 => Operation::Delete(key),
            68..86 => {
                let expected = client.believes.get(&key).copied().flatten();
                let mut writes = vec![(key, unique)];
                if self.rng.random() {
                    writes.push(((key + 1) % KEYS, unique + 1));
                }
                Operation::Swap(expected, writes)
            }
            86..91 => Operation::Grant(self.rng.random_range(1..4)),
            91..96 if lease.is_some() => Operation::KeepAlive(lease),
            96..98 if lease.is_some() => Operation::Revoke(lease),
            98.. if client.newest > Revision(60) => Operation::Compact(Revision(client.newest.0 - 50)),
            _ => Operation::Get(key),
        }
    }

    /// A member answers a change.
    pub fn changed(&mut self, token: u64, result: Result<Response, Error>) {
        let outcome = match result {
            Ok(Response::Txn(response)) => {
                let before = |result: &OpResult| match result {
                    OpResult::Put(before) => before.as_deref().and_then(content),
                    OpResult::Deleted(all) | OpResult::Range(all) => all.first().and_then(|kv| content(kv)),
                };
                let before = response.results.iter().map(before).collect();
                Outcome::Done(response.revision, before, response.succeeded)
            }
            Ok(Response::Lease(lease)) => Outcome::Granted(lease),
            Ok(Response::Done | Response::Member(_)) => Outcome::Done(Revision::ZERO, Vec::new(), true),
            Err(Error::LeaseNotFound(_)) => Outcome::NoLease,
            Err(Error::NoSpace(_) | Error::Sealed { .. } | Error::Invalid(_)) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        self.answered(token, outcome);
    }

    /// A member answers a read: its state answers it now.
    pub fn read(&mut self, n: usize, token: u64, ok: bool) {
        let c = (token & 0xff) as usize;
        let state = self.hosts[n].running.as_ref().map(|running| running.states.borrow().clone());
        let key = match self.clients[c].waiting.as_ref().map(|waiting| &waiting.operation) {
            Some(Operation::Get(key)) => *key,
            _ => return,
        };
        let outcome = match state.filter(|_| ok) {
            Some(state) => Outcome::Done(state.revision(), vec![held(&state, key)], true),
            None => Outcome::Unknown,
        };
        self.answered(token, outcome);
    }

    fn answered(&mut self, token: u64, outcome: Outcome) {
        let c = (token & 0xff) as usize;
        let Some(waiting) = self.clients[c].waiting.take_if(|waiting| waiting.token == token) else { return };
        self.finish(c, waiting, outcome);
    }

    /// The process that a client waits for has ended.
    pub fn give_up(&mut self, c: usize, member: usize) {
        if let Some(waiting) = self.clients[c].waiting.take_if(|waiting| waiting.member == member) {
            self.finish(c, waiting, Outcome::Unknown);
        }
    }

    fn finish(&mut self, c: usize, waiting: Waiting, outcome: Outcome) {
        self.report.operation(match &outcome {
            Outcome::Done(..) | Outcome::Granted(_) => "done",
            Outcome::NoLease => "without a lease",
            Outcome::Refused => "refused",
            Outcome::Unknown => "unknown",
        });
        let client = &mut self.clients[c];
        match (&waiting.operation, &outcome) {
            (Operation::Get(key), Outcome::Done(_, before, _)) => {
                let value = before.first().copied().flatten().map(|(value, _)| value);
                client.believes.insert(*key, value);
            }
            (Operation::Put(key, value, _), Outcome::Done(..)) => {
                client.believes.insert(*key, Some(*value));
            }
            (Operation::Swap(_, writes), Outcome::Done(_, before, made)) => {
                for (place, (key, value)) in writes.iter().enumerate() {
                    let before = before.get(place).copied().flatten().map(|(value, _)| value);
                    client.believes.insert(*key, if *made { Some(*value) } else { before });
                }
            }
            (Operation::Grant(_), Outcome::Granted(lease)) => client.leases.push(*lease),
            // A dead lease is asked for once more now and then, to hear that it stays dead.
            (Operation::Put(_, _, lease) | Operation::KeepAlive(lease), Outcome::NoLease)
                if self.rng.random_ratio(3, 4) =>
            {
                client.leases.retain(|known| known != lease);
            }
            _ => {}
        }
        if let Outcome::Done(revision, _, _) = outcome {
            client.newest = client.newest.max(revision);
        }
        let Waiting { called, operation, .. } = waiting;
        self.records.push(Record { called, returned: self.now, operation, outcome });
        self.next(c);
    }

    fn next(&mut self, c: usize) {
        let later = self.rng.random_range(1_000..60_000);
        self.schedule(later, Moment::Client(c));
    }
}
