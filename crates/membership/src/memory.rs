//! What a host remembers of leases beyond its process: its own epoch, and what it has promised about others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Error;
use crate::lease::Epoch;

/// How long a disk that refuses is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// What is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// The newest that the host has begun.
    pub epoch: Epoch,
    /// By host: up to which epoch it is never acknowledged again.
    pub promises: BTreeMap<String, Epoch>,
    /// The members of the cluster, when it last heard of them.
    #[serde(default)]
    pub members: BTreeSet<String>,
}

impl Memory {
    /// What former processes left; nothing where there was none.
    pub fn read(file: &Path) -> Result<Memory, Error> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memory::default()),
            Err(why) => return Err(Error::Memory { file: file.into(), why }),
        };
        serde_json::from_slice(&bytes).map_err(|why| Error::Memory { file: file.into(), why: why.into() })
    }

    /// Puts it on the disk, in the place of what was there, which a crash leaves whole or replaces wholly.
    fn write(&self, file: &Path) -> io::Result<()> {
        let beside = file.with_extension("new");
        let mut new = File::create(&beside)?;
        new.write_all(&serde_json::to_vec(self)?)?;
        new.sync_all()?;
        std::fs::rename(&beside, file)?;
        file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// Keeps on the disk what is wanted there, and says what is, until nobody wants anything. On a thread of its own: a disk that is slow must
/// delay no beat.
pub(crate) async fn keep(
    file: PathBuf,
    mut wanted: watch::Receiver<Arc<Memory>>,
    kept: watch::Sender<Arc<Memory>>,
) {
    while wanted.changed().await.is_ok() {
        let memory = wanted.borrow_and_update().clone();
        match memory.write(&file) {
            Ok(()) => drop(kept.send_replace(memory)),
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "a host that isn't heard can't be voted on: that can't be written");
                if wanted.has_changed().is_err() {
                    return;
                }
                wanted.mark_changed();
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_again_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("leases.json");
        assert_eq!(Memory::read(&file).unwrap(), Memory::default());
        let (wanted, wanted_seen) = watch::channel(Arc::default());
        let (kept, mut kept_seen) = watch::channel(Arc::default());
        let memory = Arc::new(Memory {
            epoch: 3,
            promises: BTreeMap::from([("n1".into(), 9)]),
            members: BTreeSet::from(["n2".into()]),
        });
        wanted.send_replace(memory.clone());
        drop(wanted);
        keep(file.clone(), wanted_seen, kept).await;
        assert_eq!(*kept_seen.borrow_and_update(), memory);
        assert_eq!(Memory::read(&file).unwrap(), *memory);

        std::fs::write(&file, "{").unwrap();
        let error = Memory::read(&file).unwrap_err().to_string();
        assert!(error.contains("leases.json") && error.contains("members"), "{error}");
    }
}
