//! Changing who the members are: one change at a time, through the log. The leader looks first whether the
//! cluster can stand it; Raft's own rules for such entries do the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType};
use raft::{ProgressState, StateRole};

use super::Core;
use crate::embedded::command::{Command, RequestId, asked, changes_members};
use crate::embedded::membership::{Changed, MemberChange, Membership};
use crate::{MemberError, MemberId};

/// A learner that lacks no more than this many entries has caught up.
const NEARLY: u64 = 64;
/// The wait before a learner is let vote by itself (again, if the first time came to nothing).
const PATIENCE: Duration = Duration::from_secs(1);

/// What the leader knows about a change that is on its way.
#[derive(Debug, Default)]
pub struct Changes {
    /// The change proposed by this leader: its index and whose it is.
    running: Option<(u64, RequestId)>,
    /// When a message of each peer came last.
    heard: BTreeMap<MemberId, Duration>,
    /// The next time to look for a learner that may vote.
    promote_at: Duration,
}

/// What becomes of a change that was asked for.
enum Judgement {
    Propose(Vec<u8>, ConfChangeV2),
    Refuse(MemberError),
    /// Not now: the caller will ask again.
    Later,
}

impl Core {
    /// Who the members are, as far as applied here.
    pub fn members(&self) -> &Membership {
        &self.machine.members
    }

    /// How many changes of the members are in the log that are not applied, and not known to be committed: for
    /// those who look for mistakes.
    pub fn changes_under_way(&self) -> (usize, usize) {
        let committed = self.node.raft.raft_log.committed;
        let unapplied = self.node.store().entries_from(self.applied.0 + 1);
        let indices: Vec<u64> = unapplied.filter(is_change).map(|entry| entry.index).collect();
        (indices.len(), indices.iter().filter(|index| **index > committed).count())
    }

    /// Whether this member alone votes.
    pub(super) fn votes_alone(&self) -> bool {
        self.machine.members.votes_alone(self.settings.id)
    }

    /// Whether this member was removed, as far as applied here. It still answers, until it hears that the
    /// others know: one of them may need its word to find out.
    pub fn is_removed(&self) -> bool {
        self.machine.members.is_removed(self.settings.id)
    }

    /// A message of a peer came.
    pub(super) fn heard(&mut self, from: MemberId) {
        if self.machine.members.get(from).is_some() {
            self.changes.heard.insert(from, self.now);
        }
    }

    fn is_there(&self, id: MemberId) -> bool {
        let lately = self.settings.tick * self.settings.election_ticks.1 as u32;
        let heard = self.changes.heard.get(&id);
        id == self.settings.id || heard.is_some_and(|at| self.now.saturating_sub(*at) <= lately)
    }

    fn has_caught_up(&self, id: MemberId) -> bool {
        let committed = self.node.raft.raft_log.committed;
        self.is_there(id)
            && self.node.raft.prs().get(id.0).is_some_and(|progress| {
                // With nothing new to send, one that has everything is still asked what it has.
                progress.state != ProgressState::Snapshot
                    && progress.matched > 0
                    && progress.matched + NEARLY >= committed
            })
    }

    /// Proposes the changes of members among these entries, as leader, and gives the other entries back: those
    /// that don't change the members, and refusals.
    pub(super) fn propose_member_changes(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        if !entries.iter().any(|entry| changes_members(&entry.data)) {
            return entries;
        }
        let mut rest = Vec::with_capacity(entries.len());
        for mut entry in entries {
            if !changes_members(&entry.data) {
                rest.push(entry);
                continue;
            }
            let Ok((id, command)) = asked(&entry) else { continue };
            match self.judge(id, command) {
                Judgement::Propose(context, change) => {
                    if self.node.propose_conf_change(context, change).is_ok() {
                        self.changes.running = Some((self.node.raft.raft_log.last_index(), id));
                    } else {
                        self.requests.refused(&[entry], self.now);
                    }
                }
                Judgement::Refuse(why) => {
                    entry.data = Command::Refuse(why).encode();
                    rest.push(entry);
                }
                Judgement::Later => self.requests.refused(&[entry], self.now),
            }
        }
        rest
    }

    fn judge(&mut self, id: RequestId, command: Bytes) -> Judgement {
        let Ok(Command::Members(change)) = Command::decode(command.clone()) else { return Judgement::Later };
        // Until an entry of its own term is applied, a leader may not know of a change that is under way.
        if self.applied.1 != self.node.raft.term || self.node.raft.lead_transferee.is_some() {
            return Judgement::Later;
        }
        if self.node.raft.has_pending_conf() {
            // The same one again, or one that is all but done: others may have applied it before this member.
            let is_over = |index: u64, running: RequestId| {
                let key = |id: RequestId| (id.member, id.boot, id.sequence);
                key(running) == key(id) || index <= self.node.raft.raft_log.committed
            };
            return match self.changes.running {
                Some((index, running)) if !is_over(index, running) => Judgement::Refuse(MemberError::Busy),
                _ => Judgement::Later,
            };
        }
        let changed = match self.machine.members.change(&change) {
            Ok(changed) => changed,
            Err(why) => return Judgement::Refuse(why),
        };
        if let Err(why) = self.bears(&change, &changed) {
            return Judgement::Refuse(why);
        }
        if changed.membership.is_removed(self.settings.id) {
            // The leader of the change must learn how it ends: another member does it.
            self.hand_over();
            return Judgement::Later;
        }
        let mut context = id.encode().to_vec();
        context.extend_from_slice(&command);
        // Raft looks only whether there is a change in it; what it is stands behind the request's id.
        let change = changed.conf_changes.into_iter().next().unwrap_or_default();
        Judgement::Propose(context, change)
    }

    /// Whether the cluster can stand a change: what is not written in the membership itself.
    fn bears(&self, change: &MemberChange, changed: &Changed) -> Result<(), MemberError> {
        match change {
            MemberChange::Promote(id) if !self.has_caught_up(*id) => return Err(MemberError::Behind(*id)),
            MemberChange::Join { name, .. } => {
                // With an empty folder beside one that runs: somebody started a member twice.
                let runs = |(id, _): &(MemberId, _)| changed.membership.is_removed(*id) && self.is_there(*id);
                if self.machine.members.iter().any(|member| runs(&member)) {
                    return Err(MemberError::NameTaken(name.clone()));
                }
            }
            _ => {}
        }
        if self.machine.members.voters().eq(changed.membership.voters()) {
            return Ok(());
        }
        let voters = changed.membership.voters().count() as u64;
        let there = changed.membership.voters().filter(|id| self.is_there(*id)).count() as u64;
        let needed = voters / 2 + 1;
        if there < needed { Err(MemberError::Quorum { there, voters, needed }) } else { Ok(()) }
    }

    /// Tells Raft of a change that was applied.
    pub(super) fn change_conf(&mut self, entry: &Entry, changes: &[ConfChangeV2]) {
        let state = self.machine.members.conf_state();
        self.applied = (entry.index, entry.term);
        self.node.mut_store().set_applied(entry.index, entry.term);
        self.node.mut_store().set_members(state.clone());
        let taken = changes.iter().map(|change| self.node.apply_conf_change(change)).last();
        let is_same =
            |raft: &ConfState| same(&raft.voters, &state.voters) && same(&raft.learners, &state.learners);
        if !matches!(&taken, Some(Ok(raft)) if is_same(raft)) {
            self.out.fatal =
                Some(format!("Raft does not take a change of the members to {state:?}: {taken:?}"));
        }
        self.members_changed();
    }

    /// Lets the world know who the members are now.
    pub(super) fn members_changed(&mut self) {
        let members = self.machine.members.clone();
        self.changes.heard.retain(|id, _| members.get(*id).is_some());
        self.out.members = Some(members);
    }

    /// What the leader does for the members at each tick.
    pub(super) fn tend_members(&mut self) {
        if self.node.raft.state != StateRole::Leader {
            self.changes.running = None;
            return;
        }
        self.changes.running.take_if(|(index, _)| *index <= self.applied.0);
        if self.now < self.changes.promote_at || self.node.raft.has_pending_conf() {
            return;
        }
        let mut learners = self.machine.members.iter().filter(|(_, r)| r.automatic && r.learner && r.joined);
        if let Some((id, _)) = learners.find(|(id, _)| self.has_caught_up(*id)) {
            self.changes.promote_at = self.now + PATIENCE;
            let command = Command::Members(MemberChange::Promote(id)).encode();
            self.requests.add(None, command, self.now, self.now + PATIENCE);
        }
    }

    /// Whether a committed change of the members may be carried out, which a step brought.
    ///
    /// A member that hears that it was removed throws away what it has. By then the others must be able to start
    /// again without its word: that the change is committed must be on the disk.
    ///
    /// A leader that finds itself removed (it came to lead with the change in its log) leads on until a majority
    /// of those that stay knows of it: they could not elect anybody otherwise.
    pub(super) fn may_change_members(&mut self, number: u64, entry: &Entry) -> bool {
        if self.persisting.iter().any(|step| step.number <= number && step.needs_disk) {
            return false;
        }
        let Some(staying) = self.staying_without_this_one(entry) else { return true };
        if self.node.raft.state != StateRole::Leader {
            return true;
        }
        let progress = self.node.raft.prs();
        let knows = |id: &&MemberId| progress.get(id.0).is_some_and(|p| p.committed_index >= entry.index);
        if staying.iter().filter(knows).count() <= staying.len() / 2 {
            return false;
        }
        self.hand_over();
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
        true
    }

    /// The voters after a change, if it removes this member.
    fn staying_without_this_one(&self, entry: &Entry) -> Option<Vec<MemberId>> {
        let (_, command) = asked(entry).ok()?;
        let Ok(Command::Members(change)) = Command::decode(command) else { return None };
        let changed = self.machine.members.change(&change).ok()?.membership;
        changed.is_removed(self.settings.id).then(|| changed.voters().collect())
    }

    /// A peer says that this member was removed: nobody needs it any more.
    pub(super) fn leave(&mut self) {
        self.out.removed = true;
    }
}

/// Whether an entry changes the members.
pub(super) fn is_change(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}

fn same(left: &[u64], right: &[u64]) -> bool {
    let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
    set(left) == set(right)
}
