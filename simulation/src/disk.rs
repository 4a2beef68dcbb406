//! A disk whose power can be cut at every operation: what was not synced may be there, in part, or not.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use rand::rngs::StdRng;
use store::parts::{Disk, DiskFile};

/// A member's disk. Clones are the same disk.
#[derive(Debug, Default, Clone)]
pub struct SimulatedDisk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    /// By number, as a name may go while its file stays open.
    files: BTreeMap<u64, FileContent>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// What changed the names since they were durable, in order.
    changes: Vec<NameChange>,
    /// How many more operations succeed before the power goes.
    operations: Option<u32>,
    /// How many bytes may still be written, if the disk is (nearly) full.
    room: Option<u64>,
}

#[derive(Debug, Default)]
struct FileContent {
    bytes: Vec<u8>,
    /// The file's length, if it took room for more than was appended: the rest reads as zeros.
    reserved: usize,
    /// How much of that a power cut can't undo.
    reserved_for_good: usize,
    synced: usize,
    /// Where each append began.
    appends: Vec<usize>,
}

#[derive(Debug)]
enum NameChange {
    Set(String, u64),
    Rename(String, String),
    Remove(String),
}

struct SimulatedFile(SimulatedDisk, u64);

/// One byte that is not any more what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rot {
    /// The file's name.
    pub file: String,
    /// The byte's place in it.
    pub offset: u64,
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl SimulatedDisk {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operation(&self) -> io::Result<MutexGuard<'_, Content>> {
        let mut content = self.content();
        match &mut content.operations {
            Some(0) => return Err(power_is_off()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(content)
    }

    /// The power will go after this many operations.
    pub fn cut_after(&self, operations: u32) {
        self.content().operations = Some(operations);
    }

    /// Whether the power has gone.
    pub fn is_cut(&self) -> bool {
        self.content().operations == Some(0)
    }

    /// From now on there is room for this many bytes, or (none) for all that may come.
    pub fn set_room(&self, room: Option<u64>) {
        self.content().room = room;
    }

    /// The process ended while the system went on: all that was written is there, synced or not.
    pub fn killed(&self) {
        self.content().operations = None;
    }

    /// The power is back. What was not durable is there as chance has it: of each file any part of its end,
    /// its pages in any order; of the names' changes the first ones, as a journaling file system keeps
    /// their order.
    pub fn power_on(&self, rng: &mut StdRng) {
        let mut guard = self.content();
        let content = &mut *guard;
        content.operations = None;
        let kept = rng.random_range(0..=content.changes.len());
        content.names = std::mem::take(&mut content.durable_names);
        for change in content.changes.drain(..).take(kept) {
            match change {
                NameChange::Set(name, number) => content.names.insert(name, number),
                NameChange::Rename(from, to) => {
                    let number = content.names.remove(&from);
                    number.and_then(|number| content.names.insert(to, number))
                }
                NameChange::Remove(name) => content.names.remove(&name),
            };
        }
        content.durable_names = content.names.clone();
        let named: Vec<u64> = content.names.values().copied().collect();
        content.files.retain(|number, _| named.contains(number));
        for file in content.files.values_mut() {
            let kept = rng.random_range(file.synced..=file.bytes.len());
            let torn = kept < file.bytes.len();
            file.bytes.truncate(kept);
            let mut intact = kept;
            if kept > file.synced && rng.random_ratio(1, 4) {
                let hole = rng.random_range(file.synced..kept);
                file.bytes[hole] ^= 0xff;
                intact = hole;
            }
            // An append that is not whole is none that a reader can learn anything from.
            if torn || intact < kept {
                file.appends.retain(|start| *start < intact);
                file.appends.pop();
            }
            // Of a file with room in it the length stays, and what is lost reads as zeros.
            if file.reserved > kept && (file.reserved_for_good == file.reserved || rng.random()) {
                file.bytes.resize(file.reserved, 0);
            }
            (file.reserved, file.reserved_for_good) = (0, 0);
            file.synced = file.bytes.len();
        }
    }

    /// Changes one bit of the newest snapshot or the log, at a place that a reader can tell from a torn end:
    /// before the last append, which says how much was durable before it. None if there is no such place.
    pub fn rot(&self, rng: &mut StdRng) -> Option<Rot> {
        let mut guard = self.content();
        let content = &mut *guard;
        let log: Vec<_> = content.names.iter().filter(|(name, _)| is(name, "log-")).collect();
        let snapshot = content.names.iter().rfind(|(name, _)| is(name, "snapshot-"));
        let mut places: Vec<(String, u64, usize)> = Vec::new();
        for (n, (name, number)) in log.iter().enumerate() {
            let file = content.files.get(number)?;
            let is_last = n + 1 == log.len();
            let end = if is_last { file.appends.last().copied().unwrap_or(0) } else { file.bytes.len() };
            places.push(((*name).clone(), **number, end));
        }
        if let Some((name, number)) = snapshot {
            places.push((name.clone(), *number, content.files.get(number)?.bytes.len()));
        }
        if let Some(number) = content.names.get("member.json") {
            places.push(("member.json".into(), *number, content.files.get(number)?.bytes.len()));
        }
        places.retain(|(_, _, end)| *end > 0);
        let (file, number, end) = places.get(rng.random_range(0..places.len().max(1)))?.clone();
        let offset = rng.random_range(0..end);
        let bit = 1 << rng.random_range(0..8);
        content.files.get_mut(&number)?.bytes[offset] ^= bit;
        Some(Rot { file, offset: offset as u64 })
    }
}

/// Whether it is the name of a finished file of a kind.
fn is(name: &str, kind: &str) -> bool {
    name.starts_with(kind) && !name.ends_with(".tmp")
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Content {
    fn file(&mut self, number: u64) -> io::Result<&mut FileContent> {
        self.files.get_mut(&number).ok_or_else(missing)
    }

    fn set_name(&mut self, name: &str, number: u64) {
        self.names.insert(name.into(), number);
        self.changes.push(NameChange::Set(name.into(), number));
    }

    fn remove_name(&mut self, name: &str) -> io::Result<u64> {
        let number = self.names.remove(name).ok_or_else(missing)?;
        self.changes.push(NameChange::Remove(name.into()));
        Ok(number)
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.operation()?.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut content = self.operation()?;
        let number = *content.names.get(name).ok_or_else(missing)?;
        let file = content.file(number)?;
        let mut bytes = file.bytes.clone();
        bytes.resize(file.reserved.max(bytes.len()), 0);
        Ok(bytes)
    }

    fn stream(&self, name: &str) -> io::Result<(Box<dyn io::Read + Send>, u64)> {
        let content = self.read(name)?;
        let length = content.len() as u64;
        Ok((Box::new(io::Cursor::new(content)), length))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut content = self.operation()?;
        let number = content.next_file;
        content.next_file += 1;
        content.files.insert(number, FileContent::default());
        content.set_name(name, number);
        Ok(Box::new(SimulatedFile(self.clone(), number)))
    }

    fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let number = *self.operation()?.names.get(name).ok_or_else(missing)?;
        let mut file = SimulatedFile(self.clone(), number);
        file.cut(length)?;
        file.sync()?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut content = self.operation()?;
        let number = content.names.remove(from).ok_or_else(missing)?;
        content.names.insert(to.into(), number);
        content.changes.push(NameChange::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operation()?.remove_name(name).map(|_| ())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut guard = self.operation()?;
        let content = &mut *guard;
        content.durable_names = content.names.clone();
        content.changes.clear();
        let named: Vec<u64> = content.names.values().copied().collect();
        content.files.retain(|number, _| named.contains(number));
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(self.operation()?.room.unwrap_or(u64::MAX))
    }
}

impl DiskFile for SimulatedFile {
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        let mut guard = self.0.operation()?;
        let content = &mut *guard;
        let room = content.room;
        let file = content.file(self.1)?;
        let more = length.saturating_sub(file.reserved.max(file.bytes.len()) as u64);
        if room.is_none_or(|room| room >= more) {
            file.reserved = length as usize;
            content.room = room.map(|room| room - more);
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut guard = self.0.content();
        let content = &mut *guard;
        let file = content.file(self.1)?;
        let taken = file.reserved.saturating_sub(file.bytes.len()) as u64;
        let more = (bytes.len() as u64).saturating_sub(taken);
        // Cut in the middle of a write, some of it may be there; so it is when the room ends.
        let is_cut = content.operations == Some(0);
        let is_full = content.room.is_some_and(|room| room < more);
        let part = if is_cut || is_full { &bytes[..bytes.len() / 2] } else { bytes };
        let file = content.file(self.1)?;
        if part.len() == bytes.len() {
            file.appends.push(file.bytes.len());
        }
        file.bytes.extend_from_slice(part);
        match &mut content.operations {
            Some(0) => return Err(power_is_off()),
            Some(left) => *left -= 1,
            None => {}
        }
        match &mut content.room {
            _ if is_full => return Err(io::ErrorKind::StorageFull.into()),
            Some(room) => *room -= more,
            None => {}
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut content = self.0.operation()?;
        let file = content.file(self.1)?;
        file.synced = file.bytes.len();
        file.reserved_for_good = file.reserved;
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut content = self.0.operation()?;
        let file = content.file(self.1)?;
        file.bytes.truncate(length as usize);
        (file.reserved, file.reserved_for_good) = (0, 0);
        file.appends.retain(|start| (*start as u64) < length);
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }
}
