//! A disk whose power can be cut: what was not synced may be there, in part, or not.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::Rng;
use rand::rngs::StdRng;

use crate::embedded::disk::{Disk, DiskFile};

#[derive(Debug, Default, Clone)]
pub struct SimulatedDisk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    /// By number: a file's bytes, and how many of them are durable.
    files: BTreeMap<u64, (Vec<u8>, usize)>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// How many more operations succeed before the power goes.
    operations: Option<u32>,
}

struct SimulatedFile(SimulatedDisk, u64);

impl SimulatedDisk {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    fn operation(&self) -> io::Result<MutexGuard<'_, Content>> {
        let mut content = self.content();
        match &mut content.operations {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(content)
    }

    /// The power will go after so many operations.
    pub fn cut_after(&self, operations: u32) {
        self.content().operations = Some(operations);
    }

    /// The power is back; what was not durable is there as chance has it.
    pub fn power_on(&self, rng: &mut StdRng) {
        let mut content = self.content();
        content.operations = None;
        if rng.random() {
            content.names = content.durable_names.clone();
        }
        for (bytes, synced) in content.files.values_mut() {
            bytes.truncate(rng.random_range(*synced..=bytes.len()));
            // Pages reach the disk in any order.
            if bytes.len() > *synced && rng.random_ratio(1, 4) {
                let hole = rng.random_range(*synced..bytes.len());
                bytes[hole] ^= 0xff;
            }
            *synced = bytes.len();
        }
        content.durable_names = content.names.clone();
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.operation()?.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let content = self.operation()?;
        let number = content.names.get(name).ok_or_else(missing)?;
        Ok(content.files[number].0.clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut content = self.operation()?;
        let number = content.files.keys().last().map_or(0, |last| last + 1);
        content.files.insert(number, Default::default());
        content.names.insert(name.into(), number);
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
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operation()?.names.remove(name).map(|_| ()).ok_or_else(missing)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut content = self.operation()?;
        content.durable_names = content.names.clone();
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for SimulatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Cut in the middle of a write, some of it may be there.
        let is_last = self.0.content().operations == Some(0);
        let part = if is_last { &bytes[..bytes.len() / 2] } else { bytes };
        self.0.content().files.get_mut(&self.1).unwrap().0.extend_from_slice(part);
        self.0.operation().map(|_| ())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut content = self.0.operation()?;
        let (bytes, synced) = content.files.get_mut(&self.1).unwrap();
        *synced = bytes.len();
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut content = self.0.operation()?;
        let (bytes, synced) = content.files.get_mut(&self.1).unwrap();
        bytes.truncate(length as usize);
        *synced = (*synced).min(bytes.len());
        Ok(())
    }
}
