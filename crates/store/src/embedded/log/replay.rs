//! Reading the log at a start.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use super::record::{self, Record};
use super::{Log, SEGMENT, Segment, image_index, image_name, segment_name, segment_number, start_segment};
use crate::Sealing;
use crate::embedded::disk::{Disk, TEMPORARY};
use crate::embedded::error::StartError;
use crate::embedded::image::{Image, ImageError, PIECE};

/// What a member knew when it ended.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The newest snapshot.
    pub image: Option<Image>,
    /// Index and term of the entry before the first one kept.
    pub compacted: (u64, u64),
    /// The entries kept, without a gap.
    pub entries: VecDeque<Entry>,
}

/// What the records add up to while they are read.
#[derive(Default)]
struct Replay {
    hard_state: HardState,
    entries: VecDeque<Entry>,
    /// The last snapshot that the records name, with its term.
    image: (u64, u64),
    /// What lies before the first record that is still there.
    start: u64,
    last: u64,
    highest: u64,
    any: bool,
}

impl Log {
    /// Reads what is there and goes on behind it. A tail that a crash tore is cut off.
    ///
    /// # Errors
    /// [`StartError::Damaged`] for anything else that is not as it was written.
    pub fn open(disk: Arc<dyn Disk>) -> Result<(Log, Recovered), LogError> {
        Self::open_sealed(disk, &Sealing::default())
    }

    /// The same, with values of the snapshot opened that were sealed. Those of entries are opened as they are carried out.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_sealed(disk: Arc<dyn Disk>, sealing: &Sealing) -> Result<(Log, Recovered), LogError> {
        let names = disk.list()?;
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY)) {
            disk.remove(name)?;
        }
        let image = match names.iter().filter_map(|name| image_index(name)).max() {
            Some(index) => Some(read_image(&*disk, index, sealing)?),
            None => None,
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
            return Err(damaged(&segment_name(gap[0] + 1), 0, "the file is missing"));
        }

        let mut replay = Replay::default();
        let mut segments = VecDeque::new();
        let mut length = 0;
        for number in &numbers {
            let name = segment_name(*number);
            let bytes = Bytes::from(disk.read(&name)?);
            let mut gap = None;
            let end = record::read(&bytes, *number, |offset, record| {
                if let Err(what) = replay.add(record) {
                    gap.get_or_insert((offset, what));
                }
            });
            if let Some((offset, what)) = gap {
                return Err(damaged(&name, offset, what));
            }
            let is_last = Some(number) == numbers.last();
            // A file gets its name when its first record is durable.
            let is_torn = is_last && end.length > 0 && !end.was_durable;
            if let Some(problem) = end.problem.filter(|_| !is_torn) {
                return Err(damaged(&name, end.length, problem.0));
            }
            if end.length == 0 {
                return Err(damaged(&name, 0, "the file is empty"));
            }
            length = end.length;
            segments.push_back(Segment { number: *number, last_index: replay.highest });
        }
        let first_segment = segments.front().map_or(1, |segment| segment.number);
        let last = replay.last;
        let recovered = replay.finish(image, &segment_name(first_segment))?;
        let hard_state = recovered.hard_state.clone();

        let file = match segments.back() {
            Some(last) => {
                let mut file = disk.open(&segment_name(last.number), length)?;
                // What was written but not synced before is about to be relied on.
                file.sync()?;
                file
            }
            None => {
                segments.push_back(Segment { number: 1, last_index: 0 });
                let (file, written) = start_segment(&*disk, 1, 0, &hard_state)?;
                length = written;
                file
            }
        };
        disk.sync_folder()?;
        let mut log = Log {
            disk,
            segments,
            file,
            length,
            synced: length,
            reserved: 0,
            buffer: Vec::new(),
            last,
            // What was recovered may be more than what is written: it is written again.
            written: HardState::default(),
            hard_state,
            segment_length: SEGMENT,
            piece: PIECE,
        };
        if let Some(image) = recovered.image.as_ref().filter(|_| recovered.entries.is_empty()) {
            // What follows begins behind the snapshot, wherever the records before it ended.
            log.mark(image)?;
        }
        Ok((log, recovered))
    }
}

impl Replay {
    fn add(&mut self, record: Record) -> Result<(), &'static str> {
        let is_first = !std::mem::replace(&mut self.any, true);
        match record {
            Record::Start(last) if is_first => (self.start, self.last, self.highest) = (last, last, last),
            Record::Start(last) if last != self.last => return Err("entries are missing before this file"),
            Record::Start(_) => {}
            Record::HardState(state) => self.hard_state = state,
            Record::Image { index, term } => {
                self.entries.clear();
                self.image = (index, term);
                self.last = index;
                self.highest = self.highest.max(index);
            }
            Record::Entries(entries) => {
                for entry in entries {
                    if entry.index > self.last + 1 {
                        return Err("entries are missing before this record");
                    }
                    self.last = entry.index;
                    while self.entries.back().is_some_and(|last| last.index >= entry.index) {
                        self.entries.pop_back();
                    }
                    self.highest = self.highest.max(entry.index);
                    self.entries.push_back(entry);
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, image: Option<Image>, first_segment: &str) -> Result<Recovered, LogError> {
        let (index, term) = image.as_ref().map_or((0, 0), |image| (image.index, image.term));
        if index < self.image.0 {
            return Err(damaged(&image_name(self.image.0), 0, "the file is missing"));
        }
        let first = self.entries.front().map_or(index + 1, |entry| entry.index);
        if first > index + 1 || index < self.start {
            return Err(damaged(first_segment, 0, "entries are missing before this file"));
        }
        let mut compacted = (index, term);
        if first <= index {
            // The snapshot is of committed entries: where the log disagrees, or ends before, the log is what
            // was to be replaced by a leader's snapshot when the crash came.
            let at_image = self.entries.get((index - first) as usize).map(|entry| entry.term);
            if at_image == Some(term) {
                // The first one serves as the predecessor that Raft asks for.
                compacted = self.entries.pop_front().map_or(compacted, |entry| (entry.index, entry.term));
            } else {
                self.entries.clear();
            }
        }
        let last = self.entries.back().map_or(compacted, |entry| (entry.index, entry.term));
        let mut hard_state = self.hard_state;
        if hard_state.term < last.1.max(term) {
            hard_state.term = last.1.max(term);
            hard_state.vote = 0;
        }
        hard_state.commit = hard_state.commit.max(index).min(last.0);
        Ok(Recovered { hard_state, image, compacted, entries: self.entries })
    }
}

fn read_image(disk: &dyn Disk, index: u64, sealing: &Sealing) -> Result<Image, LogError> {
    let name = image_name(index);
    let (source, length) = disk.stream(&name)?;
    let image = Image::read_sealed(source, length, sealing).map_err(|problem| match problem {
        ImageError::Io(problem) => LogError::Io(problem),
        ImageError::Malformed(problem) => damaged(&name, 0, problem.0),
    })?;
    if image.index != index {
        return Err(damaged(&name, 0, "it is a snapshot of another index than its name says"));
    }
    Ok(image)
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system said no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The content is wrong.
    #[error(transparent)]
    Damaged(StartError),
}

fn damaged(file: &str, offset: u64, what: &str) -> LogError {
    LogError::Damaged(StartError::Damaged { file: file.into(), offset, what: what.into() })
}
