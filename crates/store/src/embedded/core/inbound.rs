//! Messages from peers. Raft trusts its input and panics where it makes no sense; a peer is a member with a
//! certificate, but that is no reason to.

use raft::StateRole;
use raft::Storage;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::Core;
use crate::MemberId;
use crate::embedded::image::Image;

impl Core {
    pub(super) fn receive(&mut self, mut message: Message, image: Option<Image>) {
        if !self.makes_sense(&message) {
            tracing::debug!(?message, "left out a message that makes no sense here");
            return;
        }
        self.heard(MemberId(message.from));
        match message.get_msg_type() {
            MessageType::MsgHeartbeat
                if message.term >= self.node.raft.term
                    && message.commit > self.node.raft.raft_log.last_index() =>
            {
                let last = self.node.raft.raft_log.last_index();
                self.out.fatal = Some(format!(
                    "this member confirmed entries up to {} once, but has only those up to {last}: its disk \
                     lost data; remove the member from the cluster and let it join anew",
                    message.commit
                ));
                return;
            }
            MessageType::MsgSnapshot => {
                let metadata = message.get_snapshot().get_metadata();
                let key = (metadata.index, metadata.term);
                match image {
                    Some(image) if (image.index, image.term) == key && is_of(&message, &image) => {
                        self.received.insert(key, image);
                    }
                    _ => return,
                }
            }
            // A leader asks for no votes: one that does leads no more.
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                self.distrust(MemberId(message.from))
            }
            MessageType::MsgTimeoutNow if self.may_not_lead() => return,
            MessageType::MsgPropose => {
                let entries = self.propose_member_changes(message.take_entries().into());
                if entries.is_empty() {
                    return;
                }
                message.set_entries(entries.into());
            }
            _ => {}
        }
        // Raft's errors say that it has no use for the message: from no member, no leader to pass it on to.
        let _ = self.node.step(message);
    }

    fn makes_sense(&self, message: &Message) -> bool {
        let entries = &message.entries;
        // A member may be newer than what this one knows of the members; one that was removed has no say.
        let known = message.from != self.settings.id.0
            && message.from != raft::INVALID_ID
            && !self.machine.members.is_removed(MemberId(message.from));
        if message.to != self.settings.id.0 || !known {
            return false;
        }
        let leading = self.node.raft.state == StateRole::Leader;
        match message.get_msg_type() {
            // Passed on by nobody but the one who asks: it asks again when it knows the new leader.
            MessageType::MsgPropose => {
                let normal = |entry: &Entry| entry.get_entry_type() == EntryType::EntryNormal;
                leading && !entries.is_empty() && entries.iter().all(normal) && self.space.is_ok()
            }
            MessageType::MsgReadIndex => leading && entries.len() == 1,
            MessageType::MsgAppend => {
                let mut next = message.index;
                let contiguous = entries.iter().all(|entry| {
                    next = next.saturating_add(1);
                    entry.index == next && entry.term <= message.term && entry.term > 0
                });
                message.term > 0 && contiguous && !self.contradicts(message)
            }
            MessageType::MsgSnapshot => message.term > 0 && message.get_snapshot().get_metadata().index > 0,
            _ => message.term > 0,
        }
    }

    /// Whether an append would change what is committed: no correct leader sends that.
    fn contradicts(&self, message: &Message) -> bool {
        let log = &self.node.raft.raft_log;
        let store = log.store();
        message
            .entries
            .iter()
            .take_while(|entry| entry.index <= log.committed)
            .any(|entry| store.term(entry.index).is_ok_and(|term| term != entry.term))
    }
}

/// Whether a snapshot's members are those that its message tells Raft of.
fn is_of(message: &Message, image: &Image) -> bool {
    let told = message.get_snapshot().get_metadata().get_conf_state();
    let members = image.machine.members.conf_state();
    (&told.voters, &told.learners) == (&members.voters, &members.learners)
}
