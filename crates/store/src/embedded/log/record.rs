//! One record of a segment: magic, length, how much of the segment was durable when it was written, checksum,
//! content.
//!
//! The second number tells a torn tail from damage: bytes that a later record knew to be durable can't have
//! been torn by a crash.

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use crate::embedded::codec::{Decoder, Malformed, put_number};
use crate::embedded::wire::{entry, put_entry};

const MAGIC: &[u8; 4] = b"HFR2";
/// Magic, length, durable length, checksum.
const HEADER: usize = 4 + 4 + 8 + 4;

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Term, vote and commit index from here on.
    HardState(HardState),
    /// Entries that replace those from the first one's index on.
    Entries(Vec<Entry>),
    /// The first of a segment: the log went up to this index before.
    Start(u64),
    /// A snapshot from the leader replaced everything before.
    Image {
        /// The index that it reaches to.
        index: u64,
        /// That entry's term.
        term: u64,
    },
}

impl Record {
    /// Appends it as bytes of segment `segment`, of which `synced` bytes are durable.
    pub fn encode(&self, segment: u64, synced: u64, out: &mut Vec<u8>) {
        framed(segment, synced, out, |out| match self {
            Record::HardState(state) => {
                out.push(0);
                for number in [state.term, state.vote, state.commit] {
                    put_number(out, number);
                }
            }
            Record::Entries(entries) => put_entries(out, entries),
            Record::Image { index, term } => {
                out.push(2);
                put_number(out, *index);
                put_number(out, *term);
            }
            Record::Start(last) => {
                out.push(3);
                put_number(out, *last);
            }
        });
    }

    fn decode(content: Bytes) -> Result<Self, Malformed> {
        let mut d = Decoder(content);
        let record = match d.byte()? {
            0 => {
                let (term, vote, commit) = (d.number()?, d.number()?, d.number()?);
                Record::HardState(HardState { term, vote, commit, ..HardState::default() })
            }
            1 => Record::Entries(d.list(entry)?),
            2 => Record::Image { index: d.number()?, term: d.number()? },
            3 => Record::Start(d.number()?),
            _ => return Err(Malformed("there is no such record")),
        };
        d.end()?;
        Ok(record)
    }
}

/// Appends the record of some entries, without making one.
pub fn encode_entries(entries: &[Entry], segment: u64, synced: u64, out: &mut Vec<u8>) {
    framed(segment, synced, out, |out| put_entries(out, entries));
}

fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    out.push(1);
    put_number(out, entries.len() as u64);
    for entry in entries {
        put_entry(out, entry);
    }
}

/// Appends a content with its header.
fn framed(segment: u64, synced: u64, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + HEADER, 0);
    content(out);
    let length = (out.len() - start - HEADER) as u32;
    let (header, content) = out[start..].split_at_mut(HEADER);
    header[..4].copy_from_slice(MAGIC);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..16].copy_from_slice(&synced.to_le_bytes());
    let checksum = checksum(segment, &header[..16], content);
    header[16..].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(segment: u64, header: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(header);
    hasher.update(content);
    hasher.finalize()
}

/// The content and the durable length of the record at `offset`, and where the next one begins.
fn frame(bytes: &Bytes, segment: u64, offset: usize) -> Result<(Bytes, u64, usize), Malformed> {
    let header = bytes.get(offset..offset + HEADER).ok_or(Malformed("a record is cut off"))?;
    let number = |at: usize| header[at..at + 4].iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
    if &header[..4] != MAGIC {
        return Err(Malformed("no record begins here"));
    }
    let start = offset + HEADER;
    let end = start.saturating_add(number(4) as usize);
    let content = bytes.get(start..end).ok_or(Malformed("a record is cut off"))?;
    if checksum(segment, &header[..16], content) != number(16) {
        return Err(Malformed("a record's checksum does not match"));
    }
    let synced = u64::from(number(12)) << 32 | u64::from(number(8));
    Ok((bytes.slice(start..end), synced, end))
}

/// Where the records of a segment end, and what stands there if it is not the end of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// Up to here there are records.
    pub length: u64,
    /// What is wrong with the rest.
    pub problem: Option<Malformed>,
    /// Whether the rest was durable once, so that no crash explains what is wrong with it.
    pub was_durable: bool,
}

/// Reads a segment's records up to its end or the first that can't be read.
pub fn read(bytes: &Bytes, segment: u64, mut each: impl FnMut(u64, Record)) -> End {
    let mut offset = 0;
    while offset < bytes.len() {
        let record =
            frame(bytes, segment, offset).and_then(|(content, _, next)| Ok((Record::decode(content)?, next)));
        match record {
            Ok((record, next)) => {
                each(offset as u64, record);
                offset = next;
            }
            Err(problem) => {
                let was_durable = knows_durable(bytes, segment, offset);
                return End { length: offset as u64, problem: Some(problem), was_durable };
            }
        }
    }
    End { length: offset as u64, problem: None, was_durable: true }
}

/// Whether some record after `offset` knew that what stands at `offset` was durable.
fn knows_durable(bytes: &Bytes, segment: u64, offset: usize) -> bool {
    if bytes[offset..].iter().all(|byte| *byte == 0) {
        // The room that the file took for what was to come.
        return false;
    }
    let mut at = offset + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|w| w == MAGIC)) {
        at += found;
        if frame(bytes, segment, at).is_ok_and(|(_, synced, _)| synced > offset as u64) {
            return true;
        }
        at += 1;
    }
    false
}
