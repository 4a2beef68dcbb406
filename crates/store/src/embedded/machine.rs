//! The replicated machine: the same entries in the same order make the same machine on every member.

use bytes::Bytes;
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
    /// The lease whose time starts (anew), with its seconds.
    pub lease_started: Option<(LeaseId, u64)>,
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

    fn carry_out(&mut self, index: u64, bytes: Bytes) -> (Result<Response, Error>, Option<(LeaseId, u64)>) {
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
                (Ok(Response::Lease(lease)), Some((lease, seconds)))
            }
            Command::KeepAlive(lease) => match self.state.lease(lease) {
                Some(seconds) => (Ok(Response::Done), Some((lease, seconds))),
                None => (Err(Error::LeaseNotFound(lease)), None),
            },
            Command::Revoke(lease) => (self.state.revoke(lease).map(|()| Response::Done), None),
        }
    }
}
