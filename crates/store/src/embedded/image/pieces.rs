//! An image as bytes, piece by piece.
//!
//! Each version of a key is written once, though the map and several events may point to it: first all versions, those of
//! the map before those that only the history knows, then how many of them are the map's, then the history, which
//! says only their places.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{CHECKSUM, Image, MAGIC};
use crate::embedded::codec::{key_value_size, put_key_value, put_number, put_revision, put_signed};
use crate::{Event, KeyRange, KeyValue, Revision};

/// The pieces of an image. Together with the image it takes memory for a piece and for what the history points to.
pub struct Pieces {
    image: Image,
    places: Places,
    piece: usize,
    length: u64,
    checksum: crc32fast::Hasher,
    step: Step,
}

/// What comes next.
#[derive(Debug)]
enum Step {
    Head,
    /// The map's versions from this key on.
    Entries(Bytes),
    /// The history's own versions from this one on.
    Past(usize),
    Counts,
    /// The history's revisions from this one on.
    History(Revision),
    Tail,
    Checksum,
    Done,
}

/// Where among the versions those are that the history points to.
#[derive(Debug)]
struct Places {
    /// By their addresses, which stay theirs for as long as the image is held.
    by_address: HashMap<usize, u64>,
    /// Those that are not in the map any more.
    past: Vec<Arc<KeyValue>>,
}

impl Pieces {
    pub(super) fn new(image: Image, piece: usize) -> Self {
        let places = Places::of(&image);
        let mut pieces =
            Pieces { image, places, piece, length: 0, checksum: crc32fast::Hasher::new(), step: Step::Head };
        pieces.length = pieces.measure();
        pieces
    }

    /// How many bytes all pieces have together.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Counts what the steps will write. Values need not be copied for that, but where they are sealed.
    fn measure(&self) -> u64 {
        let state = &self.image.machine.state;
        let mut small = Vec::new();
        self.put_head(&mut small);
        self.put_counts(&mut small);
        self.put_tail(&mut small);
        let size = |kv: &KeyValue| key_value_size(&state.sealing().at_rest(kv));
        let entries = state.range(&KeyRange::prefix("")).map(|kv| size(kv)).sum::<usize>();
        let past = self.places.past.iter().map(|kv| size(kv)).sum::<usize>();
        let mut length = small.len() + entries + past;
        for (revision, events) in state.history().since(Revision::ZERO) {
            small.clear();
            self.places.put_events(&mut small, revision, events);
            length += small.len();
        }
        length as u64 + CHECKSUM
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        let state = &self.image.machine.state;
        out.extend_from_slice(MAGIC);
        let versions = (state.len() + self.places.past.len()) as u64;
        for number in [self.image.index, self.image.term, state.revision().0, state.compacted().0, versions] {
            put_number(out, number);
        }
    }

    fn put_counts(&self, out: &mut Vec<u8>) {
        put_number(out, self.image.machine.state.len() as u64);
        put_number(out, self.image.machine.state.history().len() as u64);
    }

    fn put_tail(&self, out: &mut Vec<u8>) {
        let machine = &self.image.machine;
        put_number(out, machine.state.leases().count() as u64);
        for (lease, seconds) in machine.state.leases() {
            put_signed(out, lease.0);
            put_number(out, seconds);
            put_number(out, machine.lease_starts.get(&lease).copied().unwrap_or(0));
        }
        machine.sessions.encode(out);
        machine.members.encode(out);
    }

    /// Appends what comes next, until the piece is long enough or something else follows; tells what that is.
    fn put(&self, out: &mut Vec<u8>) -> Step {
        let state = &self.image.machine.state;
        match &self.step {
            Step::Head => {
                self.put_head(out);
                Step::Entries(Bytes::new())
            }
            Step::Entries(from) => {
                for kv in state.range(&KeyRange { start: from.clone(), end: None }) {
                    if out.len() >= self.piece {
                        return Step::Entries(kv.key.clone());
                    }
                    put_key_value(out, &state.sealing().at_rest(kv));
                }
                Step::Past(0)
            }
            Step::Past(from) => {
                for (place, kv) in self.places.past.iter().enumerate().skip(*from) {
                    if out.len() >= self.piece {
                        return Step::Past(place);
                    }
                    put_key_value(out, &state.sealing().at_rest(kv));
                }
                Step::Counts
            }
            Step::Counts => {
                self.put_counts(out);
                Step::History(Revision::ZERO)
            }
            Step::History(from) => {
                for (revision, events) in state.history().since(*from) {
                    if out.len() >= self.piece {
                        return Step::History(revision);
                    }
                    self.places.put_events(out, revision, events);
                }
                Step::Tail
            }
            Step::Tail => {
                self.put_tail(out);
                Step::Checksum
            }
            Step::Checksum | Step::Done => Step::Done,
        }
    }
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if matches!(self.step, Step::Done) {
            return None;
        }
        let mut out = Vec::with_capacity(self.piece);
        while out.len() < self.piece && !matches!(self.step, Step::Checksum) {
            self.step = self.put(&mut out);
        }
        self.checksum.update(&out);
        if matches!(self.step, Step::Checksum) {
            out.extend_from_slice(&self.checksum.clone().finalize().to_le_bytes());
            self.step = Step::Done;
        }
        Some(out)
    }
}

impl Places {
    fn of(image: &Image) -> Self {
        let state = &image.machine.state;
        let pointed =
            || state.history().since(Revision::ZERO).flat_map(|(_, events)| events.iter()).flat_map(versions);
        let mut by_address: HashMap<usize, u64> = pointed().map(|kv| (address(kv), u64::MAX)).collect();
        for (place, kv) in state.range(&KeyRange::prefix("")).enumerate() {
            if let Some(known) = by_address.get_mut(&address(kv)) {
                *known = place as u64;
            }
        }
        let mut past = Vec::new();
        for kv in pointed() {
            let Some(place) = by_address.get_mut(&address(kv)).filter(|place| **place == u64::MAX) else {
                continue;
            };
            *place = (state.len() + past.len()) as u64;
            past.push(kv.clone());
        }
        Places { by_address, past }
    }

    fn put_events(&self, out: &mut Vec<u8>, revision: Revision, events: &[Event]) {
        put_revision(out, revision);
        put_number(out, events.len() as u64);
        for event in events {
            out.push(match event {
                Event::Put { previous: None, .. } => 0,
                Event::Put { previous: Some(_), .. } => 1,
                Event::Delete { .. } => 2,
            });
            for kv in versions(event) {
                // Each one was found when the places were.
                put_number(out, self.by_address.get(&address(kv)).copied().unwrap_or(u64::MAX));
            }
        }
    }
}

/// The versions that an event points to.
fn versions(event: &Event) -> impl Iterator<Item = &Arc<KeyValue>> {
    let (current, previous) = match event {
        Event::Put { current, previous } => (Some(current), previous.as_ref()),
        Event::Delete { previous, .. } => (None, Some(previous)),
    };
    current.into_iter().chain(previous)
}

fn address(kv: &Arc<KeyValue>) -> usize {
    Arc::as_ptr(kv).addr()
}
