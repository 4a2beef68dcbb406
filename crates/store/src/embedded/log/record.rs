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

/// What a record's first bytes say of it.
struct Header {
    synced: u64,
    checksum: u32,
    /// Where the next record begins.
    end: usize,
}

/// The header at `offset`, if all that it speaks of is there.
fn header(bytes: &[u8], offset: usize) -> Option<Header> {
    let header = bytes.get(offset..offset.checked_add(HEADER)?)?;
    let number = |at: usize| header[at..at + 4].iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
    let end = (offset + HEADER).saturating_add(number(4) as usize);
    let synced = u64::from(number(12)) << 32 | u64::from(number(8));
    (end <= bytes.len()).then_some(Header { synced, checksum: number(16), end })
}

/// The content of the record at `offset`, and where the next one begins.
fn frame(bytes: &Bytes, segment: u64, offset: usize) -> Result<(Bytes, usize), Malformed> {
    let start = offset + HEADER;
    if bytes.len() >= start && bytes[offset..start][..4] != *MAGIC {
        return Err(Malformed("no record begins here"));
    }
    let header = header(bytes, offset).ok_or(Malformed("a record is cut off"))?;
    if checksum(segment, &bytes[offset..offset + 16], &bytes[start..header.end]) != header.checksum {
        return Err(Malformed("a record's checksum does not match"));
    }
    Ok((bytes.slice(start..header.end), header.end))
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
            frame(bytes, segment, offset).and_then(|(content, next)| Ok((Record::decode(content)?, next)));
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
    // Whatever looks like a record may be a part of what somebody stored, which overlaps as often as they like: so each byte
    // is summed up once, and what is between two places is reckoned from the sums up to them.
    let mut seeming = Vec::new();
    let mut at = offset + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|w| w == MAGIC)) {
        at += found;
        if let Some(header) = header(bytes, at)
            && header.synced > offset as u64
        {
            seeming.push((at, header));
        }
        at += 1;
    }
    let mut places: Vec<usize> = seeming.iter().flat_map(|(at, header)| [at + HEADER, header.end]).collect();
    places.sort_unstable();
    places.dedup();
    let (mut hasher, mut summed) = (crc32fast::Hasher::new(), offset);
    let sum = |place: &usize| {
        hasher.update(&bytes[summed..*place]);
        summed = *place;
        hasher.clone().finalize()
    };
    let sums: Vec<u32> = places.iter().map(sum).collect();
    let sum_to = |place| places.binary_search(&place).ok().and_then(|at| sums.get(at)).copied();
    seeming.iter().any(|(at, header)| {
        let Some((before, to_end)) = sum_to(at + HEADER).zip(sum_to(header.end)) else { return false };
        // A sum of two pieces is that of the first, moved on by the second's length, with the second's: the same content is
        // behind both, and drops out.
        let begun = checksum(segment, &bytes[*at..at + 16], &[]);
        moved_on(before ^ begun, header.end - at - HEADER) == to_end ^ header.checksum
    })
}

/// What a checksum becomes when `length` zeros follow, without what the zeros add themselves.
fn moved_on(sum: u32, length: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(sum);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(0, length as u64));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A segment of records, each of which knew how much before it was durable.
    fn segment(contents: &[(u64, u64)]) -> (Bytes, Vec<usize>) {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (last, synced) in contents {
            places.push(bytes.len());
            Record::Start(*last).encode(1, *synced, &mut bytes);
        }
        (bytes.into(), places)
    }

    proptest! {
        #[test]
        fn what_was_durable_is_what_a_whole_record_behind_it_knew(
            contents in prop::collection::vec((any::<u64>(), 0_u64..200), 1..8),
            torn in any::<prop::sample::Index>(), bit in 0..8_u8, at in any::<prop::sample::Index>(),
        ) {
            let (bytes, places) = segment(&contents);
            let offset = places[torn.index(places.len())];
            let mut bytes = bytes.to_vec();
            let place = offset + at.index(bytes.len() - offset);
            bytes[place] ^= 1 << bit;
            let bytes = Bytes::from(bytes);
            let each = (offset + 1..bytes.len()).any(|at| {
                frame(&bytes, 1, at).is_ok() && header(&bytes, at).is_some_and(|header| header.synced > offset as u64)
            });
            prop_assert_eq!(knows_durable(&bytes, 1, offset), each);
        }
    }

    #[test]
    fn stored_bytes_that_look_like_records_are_no_trouble() {
        // Each covers half of the rest: tried one after the other they are some 100 GB.
        const RECORDS: usize = 100_000;
        let one = [&MAGIC[..], &((RECORDS * HEADER / 2) as u32).to_le_bytes(), &[0xff; 8], &[0; 4]].concat();
        let bytes = Bytes::from([&b"torn"[..], &one.repeat(RECORDS)].concat());
        assert!(!knows_durable(&bytes, 1, 0));
    }
}
