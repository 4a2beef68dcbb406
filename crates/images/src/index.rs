//! What a store has, as one small file that is replaced whole: what isn't in it isn't there, whatever lies in the folders.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::temporary::Piece;
use crate::{Digest, Error};

/// The form of the file. A later one is refused, not guessed.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    format: u32,
    /// Images' names, tags and digests, by the digests of their manifests.
    pub(crate) references: BTreeMap<String, Digest>,
    /// Images by the digests of their manifests.
    pub(crate) images: BTreeMap<Digest, Record>,
    /// Layers by the digests of their archives, not compressed.
    pub(crate) layers: BTreeMap<Digest, Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) config: Digest,
    pub(crate) layers: Vec<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// Of its files.
    pub(crate) bytes: u64,
    /// It hides all layers below it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) opaque: bool,
}

impl Default for Index {
    fn default() -> Self {
        Index {
            format: FORMAT,
            references: BTreeMap::new(),
            images: BTreeMap::new(),
            layers: BTreeMap::new(),
        }
    }
}

/// Which version of the file it is: a new one is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64, i64, i64, u64);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Stamp(file.ino(), file.mtime(), file.mtime_nsec(), file.len())
    }

    /// That of the file that is there; none before the first.
    pub(crate) fn at(path: &Path) -> Result<Option<Self>, Error> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            stat => Ok(Some(Stamp::of(&stat.map_err(Error::disk("read", path))?))),
        }
    }
}

impl Index {
    /// Reads the file; empty if there is none.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |why: String| Error::Store { path: path.to_owned(), why };
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
            text => text.map_err(Error::disk("read", path))?,
        };
        let index: Index = serde_json::from_slice(&text).map_err(|why| wrong(why.to_string()))?;
        match index.format {
            FORMAT => Ok(index),
            other => {
                Err(wrong(format!("it is of form {other}, and this version of Holdfast knows form {FORMAT}")))
            }
        }
    }

    /// Replaces the file: a reader sees the old one or the new one, also after a power cut.
    pub(crate) fn write(&self, path: &Path, new: &Piece) -> Result<(), Error> {
        let text = serde_json::to_vec(self)
            .map_err(|why| Error::Store { path: path.to_owned(), why: why.to_string() })?;
        place(&text, path, new)
    }
}

/// Puts a small file where it belongs, whole and for good.
pub(crate) fn place(content: &[u8], path: &Path, new: &Piece) -> Result<(), Error> {
    let write = || {
        let mut file = File::create(new.path())?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(new.path(), path)?;
        // The name lies in the folder.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(Error::disk("write", path))
}
