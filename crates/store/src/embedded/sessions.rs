//! Which requests of which member were carried out: what makes a retry harmless.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::{Decoder, Malformed, put_number};
use super::command::RequestId;
use crate::MemberId;

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It is new: carry it out.
    Fresh,
    /// It was carried out, or its sender gave it up.
    Repeated,
    /// It comes from a life of its sender that ended, or that knows less than the cluster about itself.
    Outdated,
}

/// The members' requests carried out so far. Part of the replicated machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions(BTreeMap<MemberId, Session>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Session {
    boot: u64,
    /// Everything below was carried out or given up.
    floor: u64,
    /// What was carried out from the floor on.
    applied: BTreeSet<u64>,
}

impl Sessions {
    /// Records a request and says what to do with it.
    pub fn admit(&mut self, id: &RequestId) -> Novelty {
        let session = self.0.entry(id.member).or_default();
        if id.boot < session.boot {
            return Novelty::Outdated;
        }
        if id.boot > session.boot {
            *session = Session { boot: id.boot, ..Session::default() };
        }
        if id.oldest > session.floor {
            session.floor = id.oldest;
            session.applied = session.applied.split_off(&id.oldest);
        }
        if id.sequence < session.floor || !session.applied.insert(id.sequence) {
            return Novelty::Repeated;
        }
        Novelty::Fresh
    }

    /// Forgets a member that was removed: its number never comes back.
    pub fn forget(&mut self, member: MemberId) {
        self.0.remove(&member);
    }

    /// The newest life of a member that made a request, 0 if none did.
    pub fn boot(&self, member: MemberId) -> u64 {
        self.0.get(&member).map_or(0, |session| session.boot)
    }

    /// Whether a request was carried out (or can't be any more).
    pub fn knows(&self, member: MemberId, boot: u64, sequence: u64) -> bool {
        self.0.get(&member).is_some_and(|session| {
            session.boot > boot
                || session.boot == boot && (sequence < session.floor || session.applied.contains(&sequence))
        })
    }

    /// Appends it as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.0.len() as u64);
        for (member, session) in &self.0 {
            for number in [member.0, session.boot, session.floor, session.applied.len() as u64] {
                put_number(out, number);
            }
            for sequence in &session.applied {
                put_number(out, *sequence);
            }
        }
    }

    /// From bytes.
    pub fn decode(d: &mut Decoder) -> Result<Self, Malformed> {
        let sessions = d.list(|d| {
            let member = MemberId(d.number()?);
            let (boot, floor) = (d.number()?, d.number()?);
            let applied = d.list(Decoder::number)?.into_iter().collect();
            Ok((member, Session { boot, floor, applied }))
        })?;
        Ok(Sessions(sessions.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(boot: u64, sequence: u64, oldest: u64) -> RequestId {
        RequestId { member: MemberId(1), boot, sequence, oldest }
    }

    #[test]
    fn a_request_is_carried_out_once() {
        let mut sessions = Sessions::default();
        let table = [
            (id(1, 1, 1), Novelty::Fresh),
            (id(1, 1, 1), Novelty::Repeated),
            (id(1, 3, 1), Novelty::Fresh),
            (id(1, 2, 1), Novelty::Fresh),
            // 4 was given up before 5 was sent: when it arrives after all, it is too late.
            (id(1, 5, 5), Novelty::Fresh),
            (id(1, 4, 4), Novelty::Repeated),
            (id(2, 1, 1), Novelty::Fresh),
            (id(1, 6, 5), Novelty::Outdated),
            (id(2, 1, 1), Novelty::Repeated),
        ];
        for (n, (id, expected)) in table.into_iter().enumerate() {
            assert_eq!(sessions.admit(&id), expected, "row {n}");
        }
        let knows = |boot, sequence| sessions.knows(MemberId(1), boot, sequence);
        assert!(knows(2, 1) && knows(1, 99) && !knows(2, 2));
        let mut bytes = Vec::new();
        sessions.encode(&mut bytes);
        assert_eq!(Sessions::decode(&mut Decoder(bytes.into())), Ok(sessions));
    }
}
