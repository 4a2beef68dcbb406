//! An image out of bytes that come one after the other.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use bytes::Bytes;

use super::{CHECKSUM, Image, ImageError, MAGIC, PIECE};
use crate::embedded::codec::{Decoder, Malformed};
use crate::embedded::machine::Machine;
use crate::embedded::membership::Membership;
use crate::embedded::sessions::Sessions;
use crate::state::History;
use crate::{Event, KeyValue, LeaseId, SEALED, Sealing, State};

/// The longest item: a version with the largest key and value that fit into a request, or the members' sessions.
/// Nothing that claims to be longer is read on.
const MOST_ITEM: usize = 16 << 20;

/// Reads an image of `length` bytes, and no byte more. With `must_open` one with values that can't be opened is refused.
pub fn read(source: impl Read, length: u64, sealing: &Sealing, must_open: bool) -> Result<Image, ImageError> {
    let left = length.checked_sub(CHECKSUM).ok_or(Malformed("a snapshot is cut off"))?;
    let (window, checksum) = (Bytes::new(), crc32fast::Hasher::new());
    let mut reader = Reader { source, left, window, checksum, must_open };
    match reader.image(sealing) {
        Ok(image) => reader.check().map(|()| image),
        Err(ImageError::Malformed(problem)) => {
            // Where any byte was changed, that is what is wrong, and not what it happened to lead to.
            reader.check()?;
            Err(problem.into())
        }
        Err(problem) => Err(problem),
    }
}

struct Reader<R> {
    source: R,
    /// How many bytes before the checksum are still to be read.
    left: u64,
    /// What was read and not used yet.
    window: Bytes,
    checksum: crc32fast::Hasher,
    must_open: bool,
}

impl<R: Read> Reader<R> {
    fn image(&mut self, sealing: &Sealing) -> Result<Image, ImageError> {
        if self.item(Decoder::array)? != *MAGIC {
            return Err(Malformed("a snapshot is of another kind or version").into());
        }
        let (index, term, revision, compacted) =
            self.item(|d| Ok((d.number()?, d.number()?, d.revision()?, d.revision()?)))?;
        let versions = self.versions(sealing)?;
        let entries = self.item(Decoder::number)?;
        let entries = usize::try_from(entries).ok().and_then(|entries| versions.get(..entries));
        let entries = entries.ok_or(Malformed("the map has more entries than versions"))?;
        let entries = entries.iter().map(|kv| (kv.key.clone(), kv.clone())).collect();
        let history = self.history(&versions)?;
        let leases = self.list(|d| Ok((LeaseId(d.signed()?), d.number()?, d.number()?)))?;
        let lease_starts = leases.iter().map(|(lease, _, started)| (*lease, *started)).collect();
        let leases = leases.into_iter().map(|(lease, seconds, _)| (lease, seconds)).collect();
        let sessions = self.item(Sessions::decode)?;
        let members = Arc::new(self.item(Membership::decode)?);
        if self.ahead() > 0 {
            return Err(Malformed("there is more than there should be").into());
        }
        let state = State::restored(revision, compacted, entries, history, leases);
        let state = state.with_sealing(sealing.clone());
        Ok(Image { index, term, machine: Machine { state, sessions, lease_starts, members } })
    }

    /// The versions of keys: first the map's, in order, then the history's. Each is likely to be like the one before it.
    fn versions(&mut self, sealing: &Sealing) -> Result<Vec<Arc<KeyValue>>, ImageError> {
        let count = self.count()?;
        let mut versions: Vec<Arc<KeyValue>> = Vec::with_capacity(count.min(1024) as usize);
        for _ in 0..count {
            let mut version = sealing.opened(self.item(Decoder::key_value)?);
            if self.must_open && version.value.bytes().starts_with(SEALED) {
                return Err(Malformed("it holds values that this host has no key for").into());
            }
            version.value = version.value.packed(None, versions.last().map(|before| &before.value));
            versions.push(Arc::new(version));
        }
        Ok(versions)
    }

    fn history(&mut self, versions: &[Arc<KeyValue>]) -> Result<History, ImageError> {
        let version = |d: &mut Decoder| {
            let place = usize::try_from(d.number()?).unwrap_or(usize::MAX);
            versions.get(place).cloned().ok_or(Malformed("an event points to no version"))
        };
        let mut history = History::default();
        for _ in 0..self.count()? {
            let revision = self.item(Decoder::revision)?;
            let events = self.list(|d| {
                Ok(match d.byte()? {
                    0 => Event::Put { current: version(d)?, previous: None },
                    1 => Event::Put { current: version(d)?, previous: Some(version(d)?) },
                    2 => Event::Delete { revision, previous: version(d)? },
                    _ => return Err(Malformed("there is no such event")),
                })
            })?;
            history.push(revision, events.into());
        }
        Ok(history)
    }

    /// How many elements follow; each takes a byte at least, so memory stays within the input's size.
    fn count(&mut self) -> Result<u64, ImageError> {
        let count = self.item(Decoder::number)?;
        if count > self.ahead() {
            return Err(Malformed("there are fewer elements than announced").into());
        }
        Ok(count)
    }

    fn list<T>(
        &mut self,
        element: impl Fn(&mut Decoder) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, ImageError> {
        let count = self.count()?;
        let mut list = Vec::with_capacity(count.min(1024) as usize);
        for _ in 0..count {
            list.push(self.item(&element)?);
        }
        Ok(list)
    }

    /// How many bytes are still to be used.
    fn ahead(&self) -> u64 {
        self.left + self.window.len() as u64
    }

    /// Reads one item. Where the window holds only its beginning, it is begun anew with more.
    fn item<T>(&mut self, read: impl Fn(&mut Decoder) -> Result<T, Malformed>) -> Result<T, ImageError> {
        loop {
            let mut d = Decoder(self.window.clone());
            match read(&mut d) {
                Ok(item) => {
                    self.window = d.0;
                    return Ok(item);
                }
                Err(problem) if problem.may_be_a_beginning() && self.left > 0 => {
                    if self.window.len() >= MOST_ITEM {
                        return Err(Malformed("a snapshot holds something that is too long").into());
                    }
                    self.fill()?;
                }
                Err(problem) => return Err(problem.into()),
            }
        }
    }

    /// Reads more into the window: twice what it holds, so that what is begun anew costs no more than what is read.
    fn fill(&mut self) -> Result<(), ImageError> {
        let more = (self.window.len().max(PIECE) as u64).min(self.left);
        let mut window = Vec::with_capacity(self.window.len() + more as usize);
        window.extend_from_slice(&self.window);
        let read = self.source.by_ref().take(more).read_to_end(&mut window)? as u64;
        if read < more {
            return Err(ImageError::Io(ErrorKind::UnexpectedEof.into()));
        }
        self.checksum.update(&window[self.window.len()..]);
        self.left -= more;
        self.window = window.into();
        Ok(())
    }

    /// Reads the rest, and makes sure that every byte is as it was written.
    fn check(&mut self) -> Result<(), ImageError> {
        while self.left > 0 {
            self.window = Bytes::new();
            self.fill()?;
        }
        let mut written = [0; CHECKSUM as usize];
        self.source.read_exact(&mut written)?;
        if self.checksum.clone().finalize().to_le_bytes() != written {
            return Err(Malformed("a snapshot's checksum does not match").into());
        }
        Ok(())
    }
}
