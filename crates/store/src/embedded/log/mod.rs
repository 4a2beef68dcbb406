//! The log on disk: what Raft must not forget, appended to segments and read again at the next start.

mod record;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use super::disk::{Disk, DiskFile, for_good, is_full, may_be_tried_again, replace};
use super::image::Image;
use record::Record;
pub use replay::{LogError, Recovered};

/// A segment that has grown to this length is followed by a new one, unless the log is set up otherwise.
const SEGMENT: u64 = 4 << 20;

/// Something for the log to keep, as one step of Raft made it.
#[derive(Debug, Clone, Default)]
pub struct Persist {
    /// The step's number, which is reported to Raft when the step is durable.
    pub number: u64,
    /// A snapshot that a leader sent: it replaces everything before.
    pub image: Option<Image>,
    /// Term, vote and commit index.
    pub hard_state: Option<HardState>,
    /// Entries; they replace those from the first one's index on.
    pub entries: Vec<Entry>,
    /// Whether anything but the commit index changed: without it, nothing needs to reach the disk soon.
    pub sync: bool,
}

/// The open log. Append-only: nothing in it is read until the next start.
pub struct Log {
    disk: Arc<dyn Disk>,
    /// Oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    file: Box<dyn DiskFile>,
    length: u64,
    synced: u64,
    /// Up to here there is room in the file.
    reserved: u64,
    /// What is appended next is put together here.
    buffer: Vec<u8>,
    /// The last entry's index.
    last: u64,
    /// The newest one, which the disk may know less of, and the one that it knows.
    hard_state: HardState,
    written: HardState,
    segment_length: u64,
    /// How much of a snapshot is written at a time.
    piece: usize,
}

/// A file of the log.
#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    /// The highest index of an entry in it (or before it): it may go when that one is not needed any more.
    last_index: u64,
}

impl Log {
    /// Appends all steps and makes them durable with one sync (with none where none is needed).
    ///
    /// # Errors
    /// A full disk, or a folder in which no file can be made, leaves the log as it was, to be tried again. After any
    /// other error nothing is known
    /// about the file: the process must end, so that the next start reads what is really there.
    pub fn append(&mut self, steps: &[Persist]) -> io::Result<()> {
        let mut buffer = self.take_buffer();
        let (mut last, mut highest) = (self.last, self.current().last_index);
        let (mut hard_state, mut written) = (self.hard_state.clone(), self.written.clone());
        for step in steps {
            if let Some(image) = &step.image {
                save(&*self.disk, image.clone(), self.piece)?;
                let (index, term) = (image.index, image.term);
                self.put(&mut buffer, &Record::Image { index, term });
                last = index;
                highest = highest.max(index);
            }
            // Term and vote before the entries of that term: a torn tail must not leave entries of a term
            // that the member then knows nothing about.
            // And what is known to be committed before the entries behind it: a member with a change of the
            // members in its log must know that the change before it is committed. Not of these entries
            // themselves: if the tail is torn, those that they were to replace are there.
            if let Some(new) = &step.hard_state {
                hard_state = new.clone();
            }
            if step.sync && hard_state != written {
                written = hard_state.clone();
                if let Some(first) = step.entries.first() {
                    written.commit = written.commit.min(first.index.saturating_sub(1));
                }
                self.put(&mut buffer, &Record::HardState(written.clone()));
            }
            if let Some(entry) = step.entries.last() {
                last = entry.index;
                highest = highest.max(last);
                let (number, synced) = (self.current().number, self.synced);
                record::encode_entries(&step.entries, number, synced, &mut buffer);
            }
        }
        self.write(&buffer)?;
        self.buffer = buffer;
        (self.last, self.hard_state, self.written) = (last, hard_state, written);
        if let Some(segment) = self.segments.back_mut() {
            segment.last_index = highest;
        }
        if self.length >= self.segment_length {
            self.rotate()?;
        }
        Ok(())
    }

    /// From now on a segment that has grown to `segment` bytes is followed by a new one, and snapshots are written in pieces
    /// of `piece` bytes.
    pub fn set_lengths(&mut self, segment: u64, piece: usize) {
        (self.segment_length, self.piece) = (segment, piece);
    }

    /// Notes that a snapshot replaced everything before.
    fn mark(&mut self, image: &Image) -> io::Result<()> {
        let mut buffer = Vec::new();
        self.put(&mut buffer, &Record::Image { index: image.index, term: image.term });
        self.write(&buffer)?;
        self.last = image.index;
        if let Some(segment) = self.segments.back_mut() {
            segment.last_index = segment.last_index.max(image.index);
        }
        Ok(())
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let end = self.length + buffer.len() as u64;
        if self.reserved < end {
            self.reserved = self.segment_length.max(end);
            self.file.reserve(self.reserved)?;
        }
        if let Err(error) = self.file.append(buffer) {
            if !is_full(&error) {
                // A file that is open and takes nothing is not to be tried again, whatever the reason is.
                return Err(io::Error::other(format!("a write failed: {error}")));
            }
            self.file.cut(self.length)?;
            self.reserved = 0;
            return Err(error);
        }
        for_good(self.file.sync())?;
        self.length = end;
        self.synced = self.length;
        Ok(())
    }

    /// Deletes the segments that hold nothing above `index`.
    ///
    /// # Errors
    /// What the system says; nothing is lost then, only room.
    pub fn forget(&mut self, index: u64) -> io::Result<()> {
        while self.segments.len() > 1 && self.segments[0].last_index <= index {
            self.disk.remove(&segment_name(self.segments[0].number))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// An empty buffer, the last one if it did not become too large to be kept.
    fn take_buffer(&mut self) -> Vec<u8> {
        const MOST: usize = 2 << 20;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.shrink_to(MOST);
        buffer
    }

    fn current(&self) -> Segment {
        self.segments.back().copied().unwrap_or(Segment { number: 0, last_index: 0 })
    }

    fn put(&self, out: &mut Vec<u8>, record: &Record) {
        record.encode(self.current().number, self.synced, out);
    }

    /// Goes on in a new segment. Where there can't be one yet, the old one grows a little longer.
    fn rotate(&mut self) -> io::Result<()> {
        if self.reserved > self.length {
            // Only of the last segment it is known that it may end in zeros.
            self.file.cut(self.length)?;
            for_good(self.file.sync())?;
            self.reserved = self.length;
        }
        let last = self.current();
        match start_segment(&*self.disk, last.number + 1, self.last, &self.hard_state) {
            Ok((file, length)) => {
                (self.file, self.length, self.synced, self.reserved) = (file, length, length, 0);
                self.written = self.hard_state.clone();
                self.segments.push_back(Segment { number: last.number + 1, last_index: last.last_index });
                Ok(())
            }
            Err(error) if may_be_tried_again(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Makes a segment. It begins with the last index and the hard state, so that those before it may be deleted.
/// It gets its name when it is durable: the one before goes on growing where there is no room for this one, and
/// must not be taken for finished then.
fn start_segment(
    disk: &dyn Disk,
    number: u64,
    last: u64,
    hard_state: &HardState,
) -> io::Result<(Box<dyn DiskFile>, u64)> {
    let mut buffer = Vec::new();
    Record::Start(last).encode(number, 0, &mut buffer);
    Record::HardState(hard_state.clone()).encode(number, 0, &mut buffer);
    let file = replace(disk, &segment_name(number), [&buffer])?;
    Ok((file, buffer.len() as u64))
}

/// Writes a snapshot in pieces of `piece` bytes and removes those that it replaces. Tells its length.
pub fn save(disk: &dyn Disk, image: Image, piece: usize) -> io::Result<u64> {
    let index = image.index;
    let pieces = image.pieces(piece);
    let length = pieces.length();
    replace(disk, &image_name(index), pieces)?;
    for name in disk.list()? {
        if image_index(&name).is_some_and(|other| other < index) {
            disk.remove(&name)?;
        }
    }
    Ok(length)
}

fn segment_name(number: u64) -> String {
    format!("log-{number:020}")
}

fn segment_number(name: &str) -> Option<u64> {
    name.strip_prefix("log-")?.parse().ok()
}

fn image_name(index: u64) -> String {
    format!("snapshot-{index:020}")
}

fn image_index(name: &str) -> Option<u64> {
    name.strip_prefix("snapshot-")?.parse().ok()
}

/// Whether a file's name is that of a part of the log.
pub fn is_log(name: &str) -> bool {
    segment_number(name).is_some()
}

/// Whether a file's name is that of a snapshot.
pub fn is_snapshot(name: &str) -> bool {
    image_index(name).is_some()
}
