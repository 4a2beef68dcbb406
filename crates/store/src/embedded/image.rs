//! The replicated machine at one index as bytes: what a snapshot holds, on disk and between members.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::codec::{Decoder, Malformed, put_bytes, put_number, put_signed};
use super::machine::Machine;
use super::membership::Membership;
use super::sessions::Sessions;
use crate::state::History;
use crate::{Event, KeyValue, Revision, State};

/// The machine as it was after an entry of the log.
#[derive(Debug, Clone)]
pub struct Image {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// The machine.
    pub machine: Machine,
}

const MAGIC: &[u8; 8] = b"HFIMAGE3";

impl Image {
    /// What a cluster of these members begins with. It counts as an entry, so that a member that joins later
    /// gets it as a snapshot: the log alone does not say who the first members were.
    pub fn initial(members: Membership) -> Self {
        let machine = Machine { members: Arc::new(members), ..Machine::default() };
        Image { index: 1, term: 1, machine }
    }

    /// The map's revision in it.
    pub fn revision(&self) -> Revision {
        self.machine.state.revision()
    }

    /// As bytes that end in a checksum of all before.
    pub fn encode(&self) -> Vec<u8> {
        let state = &self.machine.state;
        let mut out = MAGIC.to_vec();
        for number in [self.index, self.term, state.revision(), state.compacted()] {
            put_number(&mut out, number);
        }
        put_versions(&mut out, state);
        let leases: Vec<_> = state.leases().collect();
        put_number(&mut out, leases.len() as u64);
        for (lease, seconds) in leases {
            put_signed(&mut out, lease);
            put_number(&mut out, seconds);
            put_number(&mut out, self.machine.lease_starts.get(&lease).copied().unwrap_or(0));
        }
        self.machine.sessions.encode(&mut out);
        self.machine.members.encode(&mut out);
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// From bytes.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let body = bytes.len().checked_sub(4).ok_or(Malformed("a snapshot is cut off"))?;
        let checksum = crc32fast::hash(&bytes[..body]).to_le_bytes();
        if checksum != bytes[body..] {
            return Err(Malformed("a snapshot's checksum does not match"));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Malformed("a snapshot is of another kind or version"));
        }
        let mut d = Decoder(bytes.slice(MAGIC.len()..body));
        let (index, term, revision, compacted) = (d.number()?, d.number()?, d.number()?, d.number()?);
        let (entries, history) = versions(&mut d)?;
        let leases = d.list(|d| Ok((d.signed()?, d.number()?, d.number()?)))?;
        let lease_starts = leases.iter().map(|(lease, _, started)| (*lease, *started)).collect();
        let leases = leases.into_iter().map(|(lease, seconds, _)| (lease, seconds)).collect();
        let sessions = Sessions::decode(&mut d)?;
        let members = Arc::new(Membership::decode(&mut d)?);
        d.end()?;
        let state = State::restored(revision, compacted, entries, history, leases);
        Ok(Image { index, term, machine: Machine { state, sessions, lease_starts, members } })
    }
}

/// Writes each version of a key once, though the map and several events may point to it: first all
/// versions, then how many of them are the map's entries (they come first), then the history, which says
/// only their places.
fn put_versions(out: &mut Vec<u8>, state: &State) {
    let mut places: HashMap<*const KeyValue, u64> = HashMap::new();
    let mut versions: Vec<&Arc<KeyValue>> = Vec::new();
    let mut place = |kv| {
        *places.entry(Arc::as_ptr(kv)).or_insert_with(|| {
            versions.push(kv);
            versions.len() as u64 - 1
        })
    };
    let mut entries = 0;
    for kv in state.range(&crate::KeyRange::prefix("")) {
        place(kv);
        entries += 1;
    }
    let mut history = Vec::new();
    put_number(&mut history, state.history().len() as u64);
    for (revision, events) in state.history().since(0) {
        put_number(&mut history, revision);
        put_number(&mut history, events.len() as u64);
        for event in events.iter() {
            match event {
                Event::Put { current, previous: None } => {
                    history.push(0);
                    put_number(&mut history, place(current));
                }
                Event::Put { current, previous: Some(previous) } => {
                    history.push(1);
                    put_number(&mut history, place(current));
                    put_number(&mut history, place(previous));
                }
                Event::Delete { previous, .. } => {
                    history.push(2);
                    put_number(&mut history, place(previous));
                }
            }
        }
    }
    /// What a version takes beside its key and value: six numbers of up to ten bytes.
    const NUMBERS: usize = 60;
    let bytes = versions.iter().map(|kv| kv.key.len() + kv.value.len() + NUMBERS).sum::<usize>();
    out.reserve(bytes + history.len() + 4096);
    put_number(out, versions.len() as u64);
    for kv in versions {
        put_bytes(out, &kv.key);
        put_bytes(out, &kv.value);
        put_number(out, kv.create_revision);
        put_number(out, kv.mod_revision);
        put_number(out, kv.version);
        put_signed(out, kv.lease);
    }
    put_number(out, entries);
    out.extend_from_slice(&history);
}

type Versions = (OrdMap<Bytes, Arc<KeyValue>>, History);

fn versions(d: &mut Decoder) -> Result<Versions, Malformed> {
    let versions = d.list(|d| {
        Ok(Arc::new(KeyValue {
            key: d.owned()?,
            value: d.owned()?,
            create_revision: d.number()?,
            mod_revision: d.number()?,
            version: d.number()?,
            lease: d.signed()?,
        }))
    })?;
    let entries = d.number()? as usize;
    let entries = versions.get(..entries).ok_or(Malformed("the map has more entries than versions"))?;
    let entries = entries.iter().map(|kv| (kv.key.clone(), kv.clone())).collect();
    let version = |d: &mut Decoder| {
        let place = usize::try_from(d.number()?).unwrap_or(usize::MAX);
        versions.get(place).cloned().ok_or(Malformed("an event points to no version"))
    };
    let history = d.list(|d| {
        let revision = d.number()?;
        let events = d.list(|d| {
            Ok(match d.byte()? {
                0 => Event::Put { current: version(d)?, previous: None },
                1 => Event::Put { current: version(d)?, previous: Some(version(d)?) },
                2 => Event::Delete { revision, previous: version(d)? },
                _ => return Err(Malformed("there is no such event")),
            })
        })?;
        Ok((revision, Arc::from(events)))
    })?;
    Ok((entries, history.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{KeyRange, Op, Txn};

    fn sample() -> Image {
        let mut state = State::default();
        for n in 0..50u8 {
            state.apply(&Txn::put(format!("/a/{}", n % 20), vec![n; 30])).unwrap();
        }
        let delete = Op::Delete(KeyRange::prefix("/a/1"));
        state.apply(&Txn { success: vec![delete], ..Txn::default() }).unwrap();
        state.grant(7, 60);
        state.compact(10);
        let lease_starts = [(7, 65u64)].into_iter().collect();
        let peers = [("n1".to_owned(), SocketAddr::from(([127, 0, 0, 1], 2380)))].into();
        let members = Arc::new(Membership::initial(&peers));
        let machine = Machine { state, sessions: Sessions::default(), lease_starts, members };
        Image { index: 70, term: 3, machine }
    }

    #[test]
    fn an_image_survives_its_bytes() {
        let image = sample();
        let restored = Image::decode(image.encode().into()).unwrap();
        let (old, new) = (&image.machine.state, &restored.machine.state);
        assert_eq!((restored.index, restored.term), (70, 3));
        assert_eq!((new.revision(), new.compacted()), (old.revision(), 10));
        let all = KeyRange::prefix("");
        assert!(new.range(&all).eq(old.range(&all)));
        assert!(new.events(0).eq(old.events(0)));
        assert_eq!((new.bytes(), new.history_bytes()), (old.bytes(), old.history_bytes()));
        assert!(new.leases().eq(old.leases()));
        assert_eq!(restored.machine.lease_starts, image.machine.lease_starts);
        assert_eq!(restored.machine.members, image.machine.members);
    }

    #[test]
    fn a_changed_byte_is_found() {
        let bytes = sample().encode();
        for place in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[place] ^= 1;
            assert!(Image::decode(broken.into()).is_err(), "byte {place}");
        }
        assert!(Image::decode(Bytes::new()).is_err());
    }
}
