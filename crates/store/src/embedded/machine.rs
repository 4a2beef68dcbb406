//! The replicated machine: the same entries in the same order make the same machine on every member.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType};

use super::command::{Command, RequestId, Response, asked};
use super::membership::{Changed, MemberChange, Membership};
use super::sessions::{Novelty, Sessions};
use crate::{Error, LeaseId, MemberId, State};

/// The map, and whose requests it has seen.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The map.
    pub state: State,
    /// The requests carried out.
    pub sessions: Sessions,
    /// For each lease, the entry that last started its time.
    pub lease_starts: OrdMap<LeaseId, u64>,
    /// Who the members are.
    pub members: Arc<Membership>,
}

/// What an entry did.
#[derive(Debug)]
pub struct Applied {
    /// Whose request it was.
    pub id: RequestId,
    /// What to do with it.
    pub novelty: Novelty,
    /// What it led to, where it was carried out.
    pub result: Option<Result<Response, Error>>,
    /// The lease whose time starts (anew).
    pub lease_started: Option<LeaseId>,
    /// What it changed of the members, for Raft.
    pub conf_changes: Vec<ConfChangeV2>,
}

/// What a command did.
#[derive(Default)]
struct Effect {
    lease_started: Option<LeaseId>,
    conf_changes: Vec<ConfChangeV2>,
}

impl Machine {
    /// Carries out an entry; none for one that asks for nothing (a new leader's first one).
    pub fn apply(&mut self, entry: &Entry) -> Option<Applied> {
        if entry.data.is_empty() && entry.context.is_empty() {
            return None;
        }
        // Both were encoded by a member and came through checksums; bytes that make no sense are the same
        // on every member and so are skipped by every member.
        let (id, command) = asked(entry).ok()?;
        let novelty =
            if self.members.is_removed(id.member) { Novelty::Outdated } else { self.sessions.admit(&id) };
        let mut applied =
            Applied { id, novelty, result: None, lease_started: None, conf_changes: Vec::new() };
        if novelty == Novelty::Fresh {
            let mut effect = Effect::default();
            applied.result = Some(self.carry_out(entry, command, &mut effect));
            (applied.lease_started, applied.conf_changes) = (effect.lease_started, effect.conf_changes);
        }
        Some(applied)
    }

    fn carry_out(&mut self, entry: &Entry, bytes: Bytes, effect: &mut Effect) -> Result<Response, Error> {
        let command = Command::decode(bytes).map_err(|malformed| Error::Invalid(malformed.to_string()))?;
        let changes_members = entry.get_entry_type() != EntryType::EntryNormal;
        if changes_members != matches!(command, Command::Members(_)) {
            return Err(Error::Invalid("the entry is of another kind than its command".into()));
        }
        match command {
            Command::Txn(txn) => {
                let txn = self.state.sealing().open_txn(txn);
                return self.state.apply(&txn).map(Response::Txn);
            }
            Command::Compact(revision) => self.state.compact(revision),
            Command::Grant(seconds) => {
                // The entry's index is a number that nobody was given before, but somebody may have chosen it.
                let lease = self.state.free_lease(LeaseId(entry.index as i64));
                self.state.grant(lease, seconds);
                self.lease_starts.insert(lease, entry.index);
                effect.lease_started = Some(lease);
                return Ok(Response::Lease(lease));
            }
            Command::GrantAs(lease, seconds) => {
                self.state.grant_as(lease, seconds)?;
                self.lease_starts.insert(lease, entry.index);
                effect.lease_started = Some(lease);
                return Ok(Response::Lease(lease));
            }
            Command::KeepAlive(lease) => {
                if self.state.lease(lease).is_none() {
                    return Err(Error::LeaseNotFound(lease));
                }
                self.lease_starts.insert(lease, entry.index);
                effect.lease_started = Some(lease);
            }
            Command::Revoke(lease) => return self.end_lease(lease),
            Command::Expire { lease, started } if self.lease_starts.get(&lease) == Some(&started) => {
                return self.end_lease(lease);
            }
            Command::Expire { .. } => {}
            Command::Members(change) => return self.change_members(&change, effect),
            Command::Refuse(why) => return Err(why.into()),
        }
        Ok(Response::Done)
    }

    fn change_members(&mut self, change: &MemberChange, effect: &mut Effect) -> Result<Response, Error> {
        let Changed { membership, id, conf_changes } = self.members.change(change)?;
        let gone = |id: &MemberId| membership.is_removed(*id);
        let gone: Vec<MemberId> = self.members.iter().map(|(id, _)| id).filter(gone).collect();
        for id in gone {
            self.sessions.forget(id);
        }
        self.members = Arc::new(membership);
        effect.conf_changes = conf_changes;
        Ok(Response::Member(id))
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
            let id = RequestId { member: MemberId(1), boot: 1, sequence: index, oldest: 1 };
            let (context, data) = (id.encode(), command.encode());
            let applied =
                machine.apply(&Entry { index, term: 1, context, data, ..Entry::default() }).unwrap();
            (applied.result.unwrap(), machine.state.lease(LeaseId(1)))
        };
        assert_eq!(apply(Command::Grant(10)).0.unwrap(), Response::Lease(LeaseId(1)));
        assert_eq!(apply(Command::KeepAlive(LeaseId(1))).1, Some(10));
        assert_eq!(
            apply(Command::Expire { lease: LeaseId(1), started: 1 }).1,
            Some(10),
            "that start is past"
        );
        assert_eq!(apply(Command::Expire { lease: LeaseId(1), started: 2 }).1, None);
        assert!(apply(Command::KeepAlive(LeaseId(1))).0.is_err());
        assert!(
            apply(Command::Expire { lease: LeaseId(1), started: 2 }).0.is_ok(),
            "once more says nothing new"
        );
    }
}
