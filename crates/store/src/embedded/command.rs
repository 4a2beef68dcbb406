//! What an entry of the log asks of the replicated machine, and as bytes.

use bytes::Bytes;

use raft::eraftpb::{Entry, EntryType};

use super::codec::{Decoder, Malformed, put_bytes, put_number, put_revision, put_signed};
use super::membership::{MemberChange, put_refusal, refusal};
use crate::{Compare, Condition, KeyRange, LeaseId, MemberError, MemberId, Op, Revision, Txn, TxnResponse};

/// A change to the replicated machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A transaction.
    Txn(Txn),
    /// Forget the history before a revision.
    Compact(Revision),
    /// Make a lease with this time to live, in seconds.
    Grant(u64),
    /// Start a lease's time anew.
    KeepAlive(LeaseId),
    /// End a lease.
    Revoke(LeaseId),
    /// End a lease whose time ran out, unless it was kept alive since: by then another member may lead, or a
    /// request to keep it alive may have come first.
    Expire {
        /// The lease.
        lease: LeaseId,
        /// The entry that last started its time.
        started: u64,
    },
    /// Change the members: stands only in entries that Raft knows to change them.
    Members(MemberChange),
    /// The leader refuses the change of members that was asked for.
    Refuse(MemberError),
    /// Make a lease with this number and this time to live, in seconds.
    GrantAs(LeaseId, u64),
}

/// What a command led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The transaction's result.
    Txn(TxnResponse),
    /// The lease made.
    Lease(LeaseId),
    /// The member that was added, let vote or removed.
    Member(MemberId),
    /// Nothing to tell.
    Done,
}

/// Who asked, so that a request which arrives twice is carried out once (Raft dissertation, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// The member that asks.
    pub member: MemberId,
    /// Which life of that member: it grows with every start.
    pub boot: u64,
    /// The request's number within that life.
    pub sequence: u64,
    /// The lowest number that the member still waits for: what lies below will never be sent again.
    pub oldest: u64,
}

impl RequestId {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16);
        for number in [self.member.0, self.boot, self.sequence, self.oldest] {
            put_number(&mut out, number);
        }
        out.into()
    }

    /// From bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut d = Decoder(bytes);
        let id = Self::read(&mut d)?;
        d.end()?;
        Ok(id)
    }

    fn read(d: &mut Decoder) -> Result<Self, Malformed> {
        Ok(RequestId {
            member: MemberId(d.number()?),
            boot: d.number()?,
            sequence: d.number()?,
            oldest: d.number()?,
        })
    }
}

/// What is asked in an entry, and by whom. An entry that changes the members has Raft's own bytes as its data,
/// which only the leader that made them ever reads; so the command stands behind the request's id.
pub fn asked(entry: &Entry) -> Result<(RequestId, Bytes), Malformed> {
    let mut d = Decoder(entry.context.clone());
    let id = RequestId::read(&mut d)?;
    if entry.get_entry_type() == EntryType::EntryNormal {
        d.end()?;
        return Ok((id, entry.data.clone()));
    }
    Ok((id, d.0))
}

/// Whether a command's bytes ask for a change of the members.
pub fn changes_members(command: &[u8]) -> bool {
    command.first() == Some(&MEMBERS)
}

const MEMBERS: u8 = 6;

impl Command {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size());
        match self {
            Command::Txn(txn) => {
                out.push(0);
                put_list(&mut out, &txn.conditions, put_condition);
                put_list(&mut out, &txn.success, put_op);
                put_list(&mut out, &txn.failure, put_op);
            }
            Command::Compact(revision) => {
                out.push(1);
                put_revision(&mut out, *revision);
            }
            Command::Grant(seconds) => {
                out.push(2);
                put_number(&mut out, *seconds);
            }
            Command::KeepAlive(lease) => {
                out.push(3);
                put_signed(&mut out, lease.0);
            }
            Command::Revoke(lease) => {
                out.push(4);
                put_signed(&mut out, lease.0);
            }
            Command::Expire { lease, started } => {
                out.push(5);
                put_signed(&mut out, lease.0);
                put_number(&mut out, *started);
            }
            Command::Members(change) => {
                out.push(MEMBERS);
                change.encode(&mut out);
            }
            Command::Refuse(why) => {
                out.push(7);
                put_refusal(&mut out, why);
            }
            Command::GrantAs(lease, seconds) => {
                out.push(8);
                put_signed(&mut out, lease.0);
                put_number(&mut out, *seconds);
            }
        }
        out.into()
    }

    /// How many bytes it takes at most, if it is a transaction (the others are small): it is encoded without
    /// moving, and into no more room than it needs, as it stays in memory for long.
    fn size(&self) -> usize {
        /// What each number, tag and length takes at most, all together.
        const SMALL: usize = 24;
        let Command::Txn(txn) = self else { return SMALL };
        let conditions = txn.conditions.iter().map(|condition| match condition {
            Condition::Value(key, _, value) => key.len() + value.len(),
            Condition::ModRevision(key, ..)
            | Condition::CreateRevision(key, ..)
            | Condition::Version(key, ..)
            | Condition::Lease(key, ..) => key.len(),
        });
        let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete(range) | Op::Range(range) => {
                range.start.len() + range.end.as_ref().map_or(0, Bytes::len)
            }
        });
        SMALL + conditions.chain(ops).map(|bytes| bytes + SMALL).sum::<usize>()
    }

    /// From bytes. A value that is most of them shares their memory; all else is copied, so that what stays
    /// of a command never keeps much more in memory than itself.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let total = bytes.len();
        let mut d = Decoder(bytes);
        let command = match d.byte()? {
            0 => Command::Txn(Txn {
                conditions: d.list(condition)?,
                success: d.list(|d| op(d, total))?,
                failure: d.list(|d| op(d, total))?,
            }),
            1 => Command::Compact(d.revision()?),
            2 => Command::Grant(d.number()?),
            3 => Command::KeepAlive(LeaseId(d.signed()?)),
            4 => Command::Revoke(LeaseId(d.signed()?)),
            5 => Command::Expire { lease: LeaseId(d.signed()?), started: d.number()? },
            MEMBERS => Command::Members(MemberChange::decode(&mut d)?),
            7 => Command::Refuse(refusal(&mut d)?),
            8 => Command::GrantAs(LeaseId(d.signed()?), d.number()?),
            _ => return Err(Malformed("there is no such command")),
        };
        d.end()?;
        Ok(command)
    }
}

fn put_list<T>(out: &mut Vec<u8>, list: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_number(out, list.len() as u64);
    for element in list {
        put(out, element);
    }
}

fn put_range(out: &mut Vec<u8>, range: &KeyRange) {
    put_bytes(out, &range.start);
    out.push(u8::from(range.end.is_some()));
    if let Some(end) = &range.end {
        put_bytes(out, end);
    }
}

fn range(d: &mut Decoder) -> Result<KeyRange, Malformed> {
    let start = d.owned()?;
    let end = if d.truth()? { Some(d.owned()?) } else { None };
    Ok(KeyRange { start, end })
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Put { key, value, lease } => {
            out.push(0);
            put_bytes(out, key);
            put_bytes(out, value);
            put_signed(out, lease.0);
        }
        Op::Delete(range) => {
            out.push(1);
            put_range(out, range);
        }
        Op::Range(range) => {
            out.push(2);
            put_range(out, range);
        }
    }
}

/// A step of a command of `total` bytes.
fn op(d: &mut Decoder, total: usize) -> Result<Op, Malformed> {
    Ok(match d.byte()? {
        0 => {
            let (key, value) = (d.owned()?, d.shared()?);
            let value = if value.len() >= total / 2 { value } else { Bytes::copy_from_slice(&value) };
            Op::Put { key, value, lease: LeaseId(d.signed()?) }
        }
        1 => Op::Delete(range(d)?),
        2 => Op::Range(range(d)?),
        _ => return Err(Malformed("there is no such step of a transaction")),
    })
}

fn put_condition(out: &mut Vec<u8>, condition: &Condition) {
    let (kind, key, how) = match condition {
        Condition::ModRevision(key, how, _) => (0, key, how),
        Condition::CreateRevision(key, how, _) => (1, key, how),
        Condition::Version(key, how, _) => (2, key, how),
        Condition::Value(key, how, _) => (3, key, how),
        Condition::Lease(key, how, _) => (4, key, how),
    };
    out.push(kind);
    put_bytes(out, key);
    out.push(match how {
        Compare::Equal => 0,
        Compare::NotEqual => 1,
        Compare::Greater => 2,
        Compare::Less => 3,
    });
    match condition {
        Condition::ModRevision(_, _, revision) | Condition::CreateRevision(_, _, revision) => {
            put_revision(out, *revision);
        }
        Condition::Version(_, _, number) => put_number(out, *number),
        Condition::Value(_, _, value) => put_bytes(out, value),
        Condition::Lease(_, _, lease) => put_signed(out, lease.0),
    }
}

fn condition(d: &mut Decoder) -> Result<Condition, Malformed> {
    let kind = d.byte()?;
    let key = d.owned()?;
    let how = match d.byte()? {
        0 => Compare::Equal,
        1 => Compare::NotEqual,
        2 => Compare::Greater,
        3 => Compare::Less,
        _ => return Err(Malformed("there is no such comparison")),
    };
    Ok(match kind {
        0 => Condition::ModRevision(key, how, d.revision()?),
        1 => Condition::CreateRevision(key, how, d.revision()?),
        2 => Condition::Version(key, how, d.number()?),
        3 => Condition::Value(key, how, d.owned()?),
        4 => Condition::Lease(key, how, LeaseId(d.signed()?)),
        _ => return Err(Malformed("there is no such condition")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn ranges() -> impl Strategy<Value = KeyRange> {
        (bytes(), proptest::option::of(bytes())).prop_map(|(start, end)| KeyRange { start, end })
    }

    fn ops() -> impl Strategy<Value = Op> {
        prop_oneof![
            (bytes(), bytes(), any::<i64>()).prop_map(|(key, value, lease)| Op::Put {
                key,
                value,
                lease: LeaseId(lease)
            }),
            ranges().prop_map(Op::Delete),
            ranges().prop_map(Op::Range),
        ]
    }

    fn conditions() -> impl Strategy<Value = Condition> {
        let how = prop_oneof![
            Just(Compare::Equal),
            Just(Compare::NotEqual),
            Just(Compare::Greater),
            Just(Compare::Less)
        ];
        (bytes(), how, any::<u64>(), bytes(), 0..5).prop_map(|(key, how, n, value, kind)| match kind {
            0 => Condition::ModRevision(key, how, Revision(n)),
            1 => Condition::CreateRevision(key, how, Revision(n)),
            2 => Condition::Version(key, how, n),
            3 => Condition::Value(key, how, value),
            _ => Condition::Lease(key, how, LeaseId(n as i64)),
        })
    }

    fn changes() -> impl Strategy<Value = MemberChange> {
        (any::<(u64, bool, std::net::SocketAddrV4)>(), ".*").prop_map(|((id, learner, address), name)| {
            let address = address.into();
            match id % 4 {
                0 => MemberChange::Add { name, address, learner },
                1 => MemberChange::Join { name, address },
                2 => MemberChange::Promote(MemberId(id)),
                _ => MemberChange::Remove(MemberId(id)),
            }
        })
    }

    fn commands() -> impl Strategy<Value = Command> {
        let list = || proptest::collection::vec(ops(), 0..4);
        prop_oneof![
            (proptest::collection::vec(conditions(), 0..4), list(), list()).prop_map(
                |(conditions, success, failure)| Command::Txn(Txn { conditions, success, failure })
            ),
            any::<u64>().prop_map(|revision| Command::Compact(Revision(revision))),
            any::<u64>().prop_map(Command::Grant),
            any::<(i64, u64)>().prop_map(|(lease, seconds)| Command::GrantAs(LeaseId(lease), seconds)),
            any::<i64>().prop_map(|lease| Command::KeepAlive(LeaseId(lease))),
            any::<i64>().prop_map(|lease| Command::Revoke(LeaseId(lease))),
            any::<(i64, u64)>()
                .prop_map(|(lease, started)| Command::Expire { lease: LeaseId(lease), started }),
            changes().prop_map(Command::Members),
            (any::<u64>(), ".*").prop_map(|(id, name)| Command::Refuse(match id % 3 {
                0 => MemberError::NameTaken(name),
                1 => MemberError::Busy,
                _ => MemberError::Quorum { there: id, voters: 3, needed: 2 },
            })),
        ]
    }

    proptest! {
        #[test]
        fn a_command_survives_its_bytes(command in commands()) {
            prop_assert_eq!(Command::decode(command.encode()), Ok(command));
        }

        #[test]
        fn a_transaction_is_encoded_without_moving(command in commands()) {
            prop_assert!(!matches!(command, Command::Txn(_)) || command.encode().len() <= command.size());
        }

        #[test]
        fn any_bytes_are_a_command_or_an_error(bytes: Vec<u8>) {
            let _ = Command::decode(bytes.into());
        }

        #[test]
        fn a_request_id_survives_its_bytes(member: u64, boot: u64, sequence: u64, oldest: u64) {
            let id = RequestId { member: MemberId(member), boot, sequence, oldest };
            prop_assert_eq!(RequestId::decode(id.encode()), Ok(id));
        }
    }
}
