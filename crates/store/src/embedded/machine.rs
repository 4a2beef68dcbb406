//! The replicated machine: the same entries in the same order make the same machine on every member.

use bytes::Bytes;
use imbl::OrdMap;
use raft::eraftpb::Entry;

use super::command::{Command, RequestId, Response};
use super::sessions::{Admission, Sessions};
use crate::{Error, LeaseId, State};

/// The map, and whose requests it has seen.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The map.
    pub state: State,
    /// The requests carried out.
    pub sessions: Sessions,
    /// For each lease, the entry that last started its time.
    pub lease_starts: OrdMap<LeaseId, u64>,
}

/// What an entry did.
#[derive(Debug)]
pub struct Applied {
    /// Whose request it was.
    pub id: RequestId,
    /// What to do with it.
    pub admission: Admission,
    /// What it led to, where it was carried out.
    pub result: Option<Result<Response, Error>>,
    /// The lease whose time starts (anew).
    pub lease_started: Option<LeaseId>,
}

impl Machine {
    /// Carries out an entry; none for one that asks for nothing (a new leader's first one).
    pub fn apply(&mut self, entry: &Entry) -> Option<Applied> {
        if entry.data.is_empty() {
            return None;
        }
        // Both were encoded by a member and came through checksums; bytes that make no sense are the same
        // on every member and so are skipped by every member.
        let id = RequestId::decode(entry.context.clone()).ok()?;
        let admission = self.sessions.admit(&id);
        let mut applied = Applied { id, admission, result: None, lease_started: None };
        if admission == Admission::Fresh {
            let (result, lease) = self.carry_out(entry.index, entry.data.clone());
            applied.result = Some(result);
            applied.lease_started = lease;
        }
        Some(applied)
    }

    fn carry_out(&mut self, index: u64, bytes: Bytes) -> (Result<Response, Error>, Option<LeaseId>) {
        let command = match Command::decode(bytes) {
            Ok(command) => command,
            Err(malformed) => return (Err(Error::Invalid(malformed.to_string())), None),
        };
        match command {
            Command::Txn(txn) => (self.state.apply(&txn).map(Response::Txn), None),
            Command::Compact(revision) => {
                self.state.compact(revision);
                (Ok(Response::Done), None)
            }
            Command::Grant(seconds) => {
                // The entry's index is a number that nobody else has or will have.
                let lease = index as LeaseId;
                self.state.grant(lease, seconds);
                self.lease_starts.insert(lease, index);
                (Ok(Response::Lease(lease)), Some(lease))
            }
            Command::KeepAlive(lease) => {
                if self.state.lease(lease).is_none() {
                    return (Err(Error::LeaseNotFound(lease)), None);
                }
                self.lease_starts.insert(lease, index);
                (Ok(Response::Done), Some(lease))
            }
            Command::Revoke(lease) => (self.end_lease(lease), None),
            Command::Expire { lease, started } if self.lease_starts.get(&lease) == Some(&started) => {
                (self.end_lease(lease), None)
            }
            Command::Expire { .. } => (Ok(Response::Done), None),
        }
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<Response, Error> {
        self.state.revoke(lease)?;
        self.lease_starts.remove(&lease);
        Ok(Response::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_was_kept_alive_outlives_the_word_that_its_time_is_up() {
        let mut machine = Machine::default();
        let mut index = 0;
        let mut apply = |command: Command| {
            index += 1;
            let id = RequestId { member: 1, boot: 1, sequence: index, oldest: 1 };
            let (context, data) = (id.encode(), command.encode());
            let applied =
                machine.apply(&Entry { index, term: 1, context, data, ..Entry::default() }).unwrap();
            (applied.result.unwrap(), machine.state.lease(1))
        };
        assert_eq!(apply(Command::Grant(10)).0.unwrap(), Response::Lease(1));
        assert_eq!(apply(Command::KeepAlive(1)).1, Some(10));
        assert_eq!(apply(Command::Expire { lease: 1, started: 1 }).1, Some(10), "that start is past");
        assert_eq!(apply(Command::Expire { lease: 1, started: 2 }).1, None);
        assert!(apply(Command::KeepAlive(1)).0.is_err());
        assert!(apply(Command::Expire { lease: 1, started: 2 }).0.is_ok(), "once more says nothing new");
    }
}
