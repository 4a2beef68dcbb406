//! What members say to each other, as frames: length, kind, content. Raft's messages in an encoding of our
//! own, so that the protobuf under `raft` never parses bytes from outside.

use std::net::SocketAddr;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::codec::{Decoder, Malformed, put_bytes, put_number, put_signed};
use super::membership::{address, put_address};
use crate::MemberId;

/// The largest frame that is read: one append message with the largest request in it.
pub const FRAME_LIMIT: usize = 16 << 20;
/// The largest snapshot that is taken from a peer.
pub const SNAPSHOT_LIMIT: u64 = 4 << 30;
/// What a frame begins with: its length (4 bytes, least significant first).
pub const HEADER: usize = 4;

/// The version of what members say to each other. The first two bytes of a hello and the whole of a refusal
/// stay as they are, so that members of different versions can tell each other so.
pub const VERSION: u8 = 2;

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The first on every connection: who speaks, and of which cluster it is.
    Hello {
        /// The cluster.
        cluster: String,
        /// The member.
        caller: Caller,
    },
    /// A message of Raft.
    Message(Message),
    /// A snapshot follows in pieces; the message is Raft's without the snapshot's content.
    SnapshotStart {
        /// Raft's message.
        message: Message,
        /// How many bytes follow.
        length: u64,
    },
    /// The next piece of the snapshot.
    SnapshotChunk(Bytes),
    /// The last on a connection, from the one that was connected to: it will not listen.
    Refused(Refusal),
    /// A member that joins is let in: its number, and who the others are.
    Admitted {
        /// The number.
        id: MemberId,
        /// The other members.
        others: Vec<Caller>,
    },
}

/// Who speaks, or is spoken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its number; [`MemberId::NONE`] for one that has none yet and asks to be let in.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why a member does not listen to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It was removed from the cluster.
    Removed,
    /// It will not do, however often it tries.
    Never(String),
    /// Not now.
    Later(String),
}

/// The fault of a hello of another version.
pub const OTHER_VERSION: Malformed = Malformed("the peer speaks another version of the protocol");

impl Frame {
    /// As bytes, length included.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_to(&mut out);
        out
    }

    /// Appends it as bytes, length included.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + HEADER, 0);
        match self {
            Frame::Hello { cluster, caller } => {
                out.push(0);
                out.push(VERSION);
                put_bytes(out, cluster.as_bytes());
                put_caller(out, caller);
            }
            Frame::Message(message) => {
                out.push(1);
                put_message(out, message);
            }
            Frame::SnapshotStart { message, length } => {
                out.push(2);
                put_number(out, *length);
                put_message(out, message);
            }
            Frame::SnapshotChunk(bytes) => {
                out.push(3);
                out.extend_from_slice(bytes);
            }
            Frame::Refused(refusal) => {
                out.push(4);
                let (kind, why) = match refusal {
                    Refusal::Removed => (0, ""),
                    Refusal::Never(why) => (1, why.as_str()),
                    Refusal::Later(why) => (2, why.as_str()),
                };
                out.push(kind);
                put_bytes(out, why.as_bytes());
            }
            Frame::Admitted { id, others } => {
                out.push(5);
                put_number(out, id.0);
                put_number(out, others.len() as u64);
                for other in others {
                    put_caller(out, other);
                }
            }
        }
        let length = (out.len() - start - HEADER) as u32;
        out[start..start + HEADER].copy_from_slice(&length.to_le_bytes());
    }

    /// From a frame's bytes after the length. Nothing but a piece of a snapshot shares memory with them.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut d = Decoder(bytes);
        let frame = match d.byte()? {
            0 => {
                if d.byte()? != VERSION {
                    return Err(OTHER_VERSION);
                }
                Frame::Hello { cluster: d.text()?, caller: caller(&mut d)? }
            }
            1 => Frame::Message(message(&mut d)?),
            2 => {
                let length = d.number()?;
                Frame::SnapshotStart { length, message: message(&mut d)? }
            }
            3 => return Ok(Frame::SnapshotChunk(d.0)),
            4 => {
                let (kind, why) = (d.byte()?, d.text()?);
                Frame::Refused(match kind {
                    0 => Refusal::Removed,
                    1 => Refusal::Never(why),
                    _ => Refusal::Later(why),
                })
            }
            5 => Frame::Admitted { id: MemberId(d.number()?), others: d.list(caller)? },
            _ => return Err(Malformed("there is no such frame")),
        };
        d.end()?;
        Ok(frame)
    }
}

fn put_caller(out: &mut Vec<u8>, caller: &Caller) {
    put_number(out, caller.id.0);
    put_bytes(out, caller.name.as_bytes());
    put_address(out, caller.address);
}

fn caller(d: &mut Decoder) -> Result<Caller, Malformed> {
    Ok(Caller { id: MemberId(d.number()?), name: d.text()?, address: address(d)? })
}

/// The kinds of message that members send each other; all others are for use within one member.
const KINDS: [MessageType; 13] = [
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

fn put_message(out: &mut Vec<u8>, m: &Message) {
    out.push(KINDS.iter().position(|kind| *kind == m.get_msg_type()).unwrap_or(KINDS.len()) as u8);
    let numbers = [
        m.to,
        m.from,
        m.term,
        m.log_term,
        m.index,
        m.commit,
        m.commit_term,
        m.request_snapshot,
        m.reject_hint,
        m.deprecated_priority,
    ];
    for number in numbers {
        put_number(out, number);
    }
    put_signed(out, m.priority);
    out.push(u8::from(m.reject));
    put_bytes(out, &m.context);
    put_number(out, m.entries.len() as u64);
    for entry in m.entries.iter() {
        put_entry(out, entry);
    }
    let metadata = m.get_snapshot().get_metadata();
    put_number(out, metadata.index);
    put_number(out, metadata.term);
    let members = metadata.get_conf_state();
    for ids in [&members.voters, &members.learners] {
        put_number(out, ids.len() as u64);
        for id in ids {
            put_number(out, *id);
        }
    }
}

fn message(d: &mut Decoder) -> Result<Message, Malformed> {
    let mut m = Message::default();
    let kind = KINDS.get(usize::from(d.byte()?)).ok_or(Malformed("there is no such message"))?;
    m.set_msg_type(*kind);
    m.to = d.number()?;
    m.from = d.number()?;
    m.term = d.number()?;
    m.log_term = d.number()?;
    m.index = d.number()?;
    m.commit = d.number()?;
    m.commit_term = d.number()?;
    m.request_snapshot = d.number()?;
    m.reject_hint = d.number()?;
    m.deprecated_priority = d.number()?;
    m.priority = d.signed()?;
    m.reject = d.truth()?;
    m.context = d.owned()?;
    m.set_entries(d.list(entry)?.into());
    let (index, term) = (d.number()?, d.number()?);
    let (voters, learners) = (d.list(Decoder::number)?, d.list(Decoder::number)?);
    if index != 0 {
        let metadata = m.mut_snapshot().mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.mut_conf_state().voters = voters;
        metadata.mut_conf_state().learners = learners;
    }
    Ok(m)
}

/// Appends an entry.
pub fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.push(u8::from(entry.get_entry_type() != EntryType::EntryNormal));
    put_number(out, entry.term);
    put_number(out, entry.index);
    put_bytes(out, &entry.context);
    put_bytes(out, &entry.data);
}

/// Reads an entry. Its content is a copy, and each entry's its own: entries and the values in them stay in memory
/// for long, and must not keep there what came with them.
pub fn entry(d: &mut Decoder) -> Result<Entry, Malformed> {
    let changes_members = d.truth()?;
    let (term, index) = (d.number()?, d.number()?);
    let (context, data) = (d.owned()?, d.owned()?);
    let mut entry = Entry { term, index, context, data, ..Entry::default() };
    if changes_members {
        entry.set_entry_type(EntryType::EntryConfChangeV2);
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn entries()(term: u64, index: u64, data: Vec<u8>, context: Vec<u8>, conf: bool) -> Entry {
            let mut entry = Entry::default();
            if conf {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
            }
            (entry.term, entry.index) = (term, index);
            (entry.data, entry.context) = (data.into(), context.into());
            entry
        }
    }

    prop_compose! {
        fn messages()(
            kind in 0..KINDS.len(),
            n in proptest::array::uniform12(any::<u64>()),
            priority: i64,
            reject: bool,
            context: Vec<u8>,
            entries in proptest::collection::vec(entries(), 0..4),
            voters: Vec<u64>,
            learners: Vec<u64>,
        ) -> Message {
            let mut m = Message::default();
            m.set_msg_type(KINDS[kind]);
            [m.to, m.from, m.term, m.log_term, m.index, m.commit, m.commit_term, ..] = n;
            [m.request_snapshot, m.reject_hint, m.deprecated_priority, ..] = [n[7], n[8], n[9]];
            (m.priority, m.reject, m.context) = (priority, reject, context.into());
            m.set_entries(entries.into());
            if n[10] != 0 {
                let metadata = m.mut_snapshot().mut_metadata();
                (metadata.index, metadata.term) = (n[10], n[11]);
                metadata.mut_conf_state().voters = voters;
                metadata.mut_conf_state().learners = learners;
            }
            m
        }
    }

    prop_compose! {
        fn callers()(id: u64, name in ".*", address: std::net::SocketAddrV4) -> Caller {
            Caller { id: MemberId(id), name, address: address.into() }
        }
    }

    fn frames() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (".*", callers()).prop_map(|(cluster, caller)| Frame::Hello { cluster, caller }),
            Just(Frame::Refused(Refusal::Removed)),
            (".*", any::<bool>()).prop_map(|(why, never)| Frame::Refused(if never {
                Refusal::Never(why)
            } else {
                Refusal::Later(why)
            })),
            (any::<u64>(), proptest::collection::vec(callers(), 0..4))
                .prop_map(|(id, others)| Frame::Admitted { id: MemberId(id), others }),
            messages().prop_map(Frame::Message),
            (messages(), any::<u64>()).prop_map(|(message, length)| Frame::SnapshotStart { message, length }),
            any::<Vec<u8>>().prop_map(|bytes| Frame::SnapshotChunk(bytes.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_frame_survives_its_bytes(frame in frames()) {
            let bytes = frame.encode();
            let length = u32::from_le_bytes(bytes[..HEADER].try_into().unwrap());
            prop_assert_eq!(length as usize, bytes.len() - HEADER);
            prop_assert_eq!(Frame::decode(Bytes::from(bytes).slice(HEADER..)), Ok(frame));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) {
            let _ = Frame::decode(bytes.into());
        }

        #[test]
        fn a_frame_with_a_changed_byte_never_panics(frame in frames(), place: usize, byte: u8) {
            let mut bytes = frame.encode().split_off(HEADER);
            let place = place % bytes.len();
            bytes[place] = byte;
            let _ = Frame::decode(bytes.into());
        }
    }
}
