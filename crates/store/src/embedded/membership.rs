//! Who the members are: a part of the replicated machine. A change is a function from one membership to the
//! next, the same on every member.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState};

use super::codec::{Decoder, Malformed, put_bytes, put_number};
use crate::{MemberError, MemberId};

/// The most members a cluster may have: more make every write slower and none safer.
pub const MOST_MEMBERS: usize = 9;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its name; empty until it joins, if it was added without one.
    pub name: String,
    /// Where it listens for the others.
    pub address: SocketAddr,
    /// Whether it follows without a vote.
    pub learner: bool,
    /// Whether the leader lets it vote as soon as it has caught up.
    pub automatic: bool,
    /// Whether it ever took part.
    pub joined: bool,
}

/// All members, and the number that the next one gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    next: MemberId,
    members: BTreeMap<MemberId, MemberRecord>,
}

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Wait for a new member.
    Add {
        /// Its name, or nothing.
        name: String,
        /// Where it will listen.
        address: SocketAddr,
        /// Whether it stays without a vote until it is promoted by hand.
        learner: bool,
    },
    /// A member with an empty folder comes: under the number that waits for it, or under a new one in place
    /// of the old one of its name.
    Join {
        /// Its name.
        name: String,
        /// Where it listens.
        address: SocketAddr,
    },
    /// Let a learner vote.
    Promote(MemberId),
    /// Remove a member for good.
    Remove(MemberId),
}

/// What a change leads to.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The members then.
    pub membership: Membership,
    /// The member that it is about.
    pub id: MemberId,
    /// What Raft is to change, one after the other. No more than one voter changes, so that every majority
    /// before has a member in common with every majority after.
    pub conf_changes: Vec<ConfChangeV2>,
}

fn single(kind: ConfChangeType, id: MemberId) -> ConfChangeSingle {
    let mut change = ConfChangeSingle::default();
    change.set_change_type(kind);
    change.node_id = id.0;
    change
}

impl Membership {
    /// The members that a cluster begins with, numbered in the order of their names.
    pub fn initial(peers: &BTreeMap<String, SocketAddr>) -> Self {
        let record = |(name, address): (&String, &SocketAddr)| MemberRecord {
            name: name.clone(),
            address: *address,
            learner: false,
            automatic: false,
            joined: true,
        };
        let members: BTreeMap<_, _> = (1..).map(MemberId).zip(peers.iter().map(record)).collect();
        Membership { next: MemberId(members.len() as u64 + 1), members }
    }

    /// Nobody: what a member knows that has only just joined.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (MemberId, &MemberRecord)> {
        self.members.iter().map(|(id, record)| (*id, record))
    }

    /// One member.
    pub fn get(&self, id: MemberId) -> Option<&MemberRecord> {
        self.members.get(&id)
    }

    /// The members that vote.
    pub fn voters(&self) -> impl Iterator<Item = MemberId> {
        self.members.iter().filter(|(_, record)| !record.learner).map(|(id, _)| *id)
    }

    /// Whether it is the only one that votes.
    pub fn votes_alone(&self, id: MemberId) -> bool {
        self.voters().eq([id])
    }

    /// Whether there was a member of this number and is none any more.
    pub fn is_removed(&self, id: MemberId) -> bool {
        id != MemberId::NONE && id < self.next && !self.members.contains_key(&id)
    }

    /// The members as Raft has them.
    pub fn conf_state(&self) -> ConfState {
        let learners = self.members.iter().filter(|(_, record)| record.learner).map(|(id, _)| id.0);
        ConfState {
            voters: self.voters().map(|id| id.0).collect(),
            learners: learners.collect(),
            ..ConfState::default()
        }
    }

    /// What a change leads to.
    ///
    /// # Errors
    /// Where it makes no sense with these members.
    pub fn change(&self, change: &MemberChange) -> Result<Changed, MemberError> {
        let mut membership = self.clone();
        let (id, changes) = match change {
            MemberChange::Add { name, address, learner } => {
                self.check_free(name, *address, None)?;
                let record = MemberRecord {
                    name: name.clone(),
                    address: *address,
                    learner: true,
                    automatic: !learner,
                    joined: false,
                };
                let id = membership.add(record)?;
                (id, vec![single(ConfChangeType::AddLearnerNode, id)])
            }
            MemberChange::Join { name, address } => membership.join(name, *address)?,
            MemberChange::Promote(id) => {
                let record = membership.members.get_mut(id).ok_or(MemberError::NotFound(*id))?;
                if !record.learner {
                    return Err(MemberError::NotLearner(*id));
                }
                if !record.joined {
                    return Err(MemberError::Behind(*id));
                }
                (record.learner, record.automatic) = (false, false);
                (*id, vec![single(ConfChangeType::AddNode, *id)])
            }
            MemberChange::Remove(id) => {
                membership.members.remove(id).ok_or(MemberError::NotFound(*id))?;
                (*id, vec![single(ConfChangeType::RemoveNode, *id)])
            }
        };
        if membership.voters().next().is_none() {
            return Err(MemberError::Quorum { there: 0, voters: 0, needed: 1 });
        }
        let one = |change| {
            let mut conf_change = ConfChangeV2::default();
            conf_change.set_changes(vec![change].into());
            conf_change
        };
        Ok(Changed { membership, id, conf_changes: changes.into_iter().map(one).collect() })
    }

    fn join(
        &mut self,
        name: &str,
        address: SocketAddr,
    ) -> Result<(MemberId, Vec<ConfChangeSingle>), MemberError> {
        let same = |record: &MemberRecord| record.name == name && !name.is_empty();
        let awaited = |record: &MemberRecord| {
            !record.joined && (same(record) || record.name.is_empty() && record.address == address)
        };
        let known = self.members.iter().find(|(_, record)| awaited(record) || same(record));
        let known = known.map(|(id, record)| (*id, record.clone()));
        self.check_free(name, address, known.as_ref().map(|(id, _)| *id))?;
        match known {
            Some((id, record)) if !record.joined => {
                let here = MemberRecord { name: name.into(), address, joined: true, ..record };
                self.members.insert(id, here);
                // Raft knows the learner; to say so again changes nothing and keeps the entry's meaning.
                Ok((id, vec![single(ConfChangeType::AddLearnerNode, id)]))
            }
            old => {
                let mut changes = Vec::new();
                let mut automatic = true;
                if let Some((old, record)) = old {
                    self.members.remove(&old);
                    changes.push(single(ConfChangeType::RemoveNode, old));
                    automatic = !record.learner || record.automatic;
                }
                let record =
                    MemberRecord { name: name.into(), address, learner: true, automatic, joined: true };
                let id = self.add(record)?;
                changes.push(single(ConfChangeType::AddLearnerNode, id));
                Ok((id, changes))
            }
        }
    }

    fn add(&mut self, record: MemberRecord) -> Result<MemberId, MemberError> {
        if self.members.len() >= MOST_MEMBERS {
            return Err(MemberError::TooMany(MOST_MEMBERS as u64));
        }
        let id = self.next.max(MemberId(1));
        self.next = MemberId(id.0 + 1);
        self.members.insert(id, record);
        Ok(id)
    }

    fn check_free(
        &self,
        name: &str,
        address: SocketAddr,
        except: Option<MemberId>,
    ) -> Result<(), MemberError> {
        for (_, record) in self.members.iter().filter(|(id, _)| Some(**id) != except) {
            if record.name == name && !name.is_empty() {
                return Err(MemberError::NameTaken(name.into()));
            }
            if record.address == address {
                return Err(MemberError::AddressTaken(address));
            }
        }
        Ok(())
    }

    /// Appends it as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.next.0);
        put_number(out, self.members.len() as u64);
        for (id, record) in &self.members {
            put_number(out, id.0);
            put_bytes(out, record.name.as_bytes());
            put_address(out, record.address);
            out.extend([record.learner, record.automatic, record.joined].map(u8::from));
        }
    }

    /// From bytes.
    pub fn decode(d: &mut Decoder) -> Result<Self, Malformed> {
        let next = MemberId(d.number()?);
        let members = d.list(|d| {
            let id = MemberId(d.number()?);
            let (name, address) = (d.text()?, address(d)?);
            let (learner, automatic, joined) = (d.truth()?, d.truth()?, d.truth()?);
            Ok((id, MemberRecord { name, address, learner, automatic, joined }))
        })?;
        let members: BTreeMap<_, _> = members.into_iter().collect();
        if members.keys().any(|id| *id == MemberId::NONE || *id >= next) {
            return Err(Malformed("a member has a number that was never given"));
        }
        Ok(Membership { next, members })
    }
}

/// As people read it: names with their numbers, and who does not vote.
impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (id, record)) in self.members.iter().enumerate() {
            let between = if place == 0 { "" } else { ", " };
            let how = if record.learner { ", learner" } else { "" };
            write!(f, "{between}{} ({id}{how})", record.name)?;
        }
        Ok(())
    }
}

impl MemberChange {
    /// Appends it as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            MemberChange::Add { name, address, learner } => {
                out.push(0);
                put_bytes(out, name.as_bytes());
                put_address(out, *address);
                out.push(u8::from(*learner));
            }
            MemberChange::Join { name, address } => {
                out.push(1);
                put_bytes(out, name.as_bytes());
                put_address(out, *address);
            }
            MemberChange::Promote(id) => {
                out.push(2);
                put_number(out, id.0);
            }
            MemberChange::Remove(id) => {
                out.push(3);
                put_number(out, id.0);
            }
        }
    }

    /// From bytes.
    pub fn decode(d: &mut Decoder) -> Result<Self, Malformed> {
        Ok(match d.byte()? {
            0 => MemberChange::Add { name: d.text()?, address: address(d)?, learner: d.truth()? },
            1 => MemberChange::Join { name: d.text()?, address: address(d)? },
            2 => MemberChange::Promote(MemberId(d.number()?)),
            3 => MemberChange::Remove(MemberId(d.number()?)),
            _ => return Err(Malformed("there is no such change of members")),
        })
    }
}

/// Appends an address.
pub fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    put_bytes(out, address.to_string().as_bytes());
}

/// Reads an address.
pub fn address(d: &mut Decoder) -> Result<SocketAddr, Malformed> {
    d.text()?.parse().map_err(|_| Malformed("an address is none"))
}

/// Appends a refusal as bytes.
pub fn put_refusal(out: &mut Vec<u8>, refusal: &MemberError) {
    match refusal {
        MemberError::NotFound(id) => {
            out.push(0);
            put_number(out, id.0);
        }
        MemberError::NameTaken(name) => {
            out.push(1);
            put_bytes(out, name.as_bytes());
        }
        MemberError::AddressTaken(address) => {
            out.push(2);
            put_address(out, *address);
        }
        MemberError::NotLearner(id) => {
            out.push(3);
            put_number(out, id.0);
        }
        MemberError::Behind(id) => {
            out.push(4);
            put_number(out, id.0);
        }
        MemberError::Busy => out.push(5),
        MemberError::Quorum { there, voters, needed } => {
            out.push(6);
            for number in [there, voters, needed] {
                put_number(out, *number);
            }
        }
        MemberError::TooMany(most) => {
            out.push(7);
            put_number(out, *most);
        }
    }
}

/// Reads a refusal.
pub fn refusal(d: &mut Decoder) -> Result<MemberError, Malformed> {
    Ok(match d.byte()? {
        0 => MemberError::NotFound(MemberId(d.number()?)),
        1 => MemberError::NameTaken(d.text()?),
        2 => MemberError::AddressTaken(address(d)?),
        3 => MemberError::NotLearner(MemberId(d.number()?)),
        4 => MemberError::Behind(MemberId(d.number()?)),
        5 => MemberError::Busy,
        6 => MemberError::Quorum { there: d.number()?, voters: d.number()?, needed: d.number()? },
        7 => MemberError::TooMany(d.number()?),
        _ => return Err(Malformed("there is no such refusal")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], n))
    }

    fn three() -> Membership {
        Membership::initial(&(1..=3).map(|n| (format!("n{n}"), address(n))).collect())
    }

    fn changed(old: &Membership, change: MemberChange) -> (Membership, MemberId) {
        let Changed { membership, id, .. } = old.change(&change).unwrap();
        let mut bytes = Vec::new();
        membership.encode(&mut bytes);
        assert_eq!(Membership::decode(&mut Decoder(bytes.into())).as_ref(), Ok(&membership));
        (membership, id)
    }

    fn join(n: u16) -> MemberChange {
        MemberChange::Join { name: format!("n{n}"), address: address(n) }
    }

    #[test]
    fn a_number_is_never_used_twice() {
        let (members, id) = changed(&three(), join(2));
        assert_eq!(id, MemberId(4));
        assert_eq!([2, 4, 5].map(|id| members.is_removed(MemberId(id))), [true, false, false]);
        assert_eq!(members.conf_state().voters, [1, 3]);
        let (members, _) = changed(&members, MemberChange::Remove(MemberId(4)));
        let (members, id) = changed(&members, join(2));
        assert_eq!(id, MemberId(5));
        let (members, _) = changed(&members, MemberChange::Promote(MemberId(5)));
        assert_eq!(members.conf_state().voters, [1, 3, 5]);
    }

    #[test]
    fn who_was_added_comes_under_the_number_that_waits_for_it() {
        let nameless = MemberChange::Add { name: String::new(), address: address(7), learner: true };
        let (members, id) = changed(&three(), nameless);
        assert!(!members.get(id).unwrap().joined);
        assert_eq!(members.change(&MemberChange::Promote(id)).unwrap_err(), MemberError::Behind(id));
        let (members, again) = changed(&members, join(7));
        assert_eq!((again, &*members.get(id).unwrap().name), (id, "n7"));
        assert!(!members.get(id).unwrap().automatic, "it was asked to stay a learner");
        // The next time it comes with an empty folder it is somebody else.
        assert_eq!(changed(&members, join(7)).1, MemberId(id.0 + 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let members = three();
        let add =
            |name: &str, n| MemberChange::Add { name: name.into(), address: address(n), learner: false };
        let table = [
            (add("n1", 9), MemberError::NameTaken("n1".into())),
            (add("n9", 1), MemberError::AddressTaken(address(1))),
            (
                MemberChange::Join { name: "n9".into(), address: address(1) },
                MemberError::AddressTaken(address(1)),
            ),
            (MemberChange::Promote(MemberId(1)), MemberError::NotLearner(MemberId(1))),
            (MemberChange::Promote(MemberId(9)), MemberError::NotFound(MemberId(9))),
            (MemberChange::Remove(MemberId(4)), MemberError::NotFound(MemberId(4))),
        ];
        for (change, expected) in table {
            assert_eq!(members.change(&change).unwrap_err(), expected);
            let mut bytes = Vec::new();
            put_refusal(&mut bytes, &expected);
            assert_eq!(refusal(&mut Decoder(bytes.into())), Ok(expected));
        }
        let mut alone = members;
        for id in [1, 2].map(MemberId) {
            alone = changed(&alone, MemberChange::Remove(id)).0;
        }
        assert!(matches!(alone.change(&MemberChange::Remove(MemberId(3))), Err(MemberError::Quorum { .. })));
        let mut many = alone;
        while let Ok(Changed { membership, .. }) = many.change(&add("", 100 + many.next.0 as u16)) {
            many = membership;
        }
        assert_eq!(many.iter().count(), MOST_MEMBERS);
    }
}
