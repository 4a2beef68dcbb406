//! A layer as a folder: whatever its archive says, nothing outside of that folder is made, changed or read.

mod entries;
mod names;
mod tree;

#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::Path;

pub(crate) use entries::{Entries, Kind};
use tree::Tree;

use crate::compression::decompress;
use crate::digest::{Algorithm, Digest, Hashing};
use crate::error::Error;
use crate::manifest::Descriptor;

/// What one layer may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its archive, decompressed.
    pub bytes: u64,
    /// Files, folders, links and what else has a header.
    pub entries: u64,
}

impl Default for Limits {
    /// More than any layer has that is meant well (models and games have tens of gigabytes), and less than what fills a disk by a few
    /// megabytes of gzip.
    fn default() -> Self {
        Limits { bytes: 64 << 30, entries: 4_000_000 }
    }
}

/// Whose extended attributes say that a folder hides what lies below it: how overlayfs must be mounted on these layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// `trusted.overlay.*`, the kernel's own: for root.
    Trusted,
    /// `user.overlay.*`: mount with the option `userxattr`.
    User,
}

impl Overlay {
    fn opaque(self) -> &'static str {
        match self {
            Overlay::Trusted => "trusted.overlay.opaque",
            Overlay::User => "user.overlay.opaque",
        }
    }

    /// What this process may write in a folder: `folder` is left as it is.
    pub(crate) fn of(folder: &Path) -> Self {
        let probe = "trusted.holdfast";
        match rustix::fs::setxattr(folder, probe, b"", rustix::fs::XattrFlags::empty()) {
            Ok(()) => {
                // It is only there to see whether it may be.
                let _ = rustix::fs::removexattr(folder, probe);
                Overlay::Trusted
            }
            Err(_) => Overlay::User,
        }
    }
}

/// Why a layer can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[source] io::Error),
    /// It is no tar archive, or a damaged one.
    #[error("{0}")]
    Archive(String),
    /// One of its entries can't be taken.
    #[error("{name}: {why}")]
    Entry {
        /// Its path.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is too large.
    #[error("it unpacks to more than the {0} bytes that a layer may have")]
    TooLarge(u64),
    /// It has too many files.
    #[error("it has more than the {0} files that a layer may have")]
    TooMany(u64),
    /// The disk refuses.
    #[error("{name} can't be written: {why}")]
    Disk {
        /// The entry's path.
        name: String,
        /// What the system says.
        why: io::Error,
    },
}

impl UnpackError {
    /// Whether the archive itself is the reason, so that it may not be what it was said to be.
    fn may_be_damage(&self) -> bool {
        matches!(self, UnpackError::Read(_) | UnpackError::Archive(_) | UnpackError::Entry { .. })
    }
}

/// More passes than may: carried through readers as an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{what} has more than {most} bytes")]
pub(crate) struct TooLong {
    pub(crate) what: &'static str,
    pub(crate) most: u64,
}

const LAYER: &str = "the layer";

impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>()) {
            Some(long) if long.what == LAYER => UnpackError::TooLarge(long.most),
            _ => UnpackError::Read(error),
        }
    }
}

/// What a layer is said to be.
pub(crate) struct Expected<'a> {
    /// The digest of its archive, not compressed.
    pub(crate) diff_id: &'a Digest,
    /// What it comes as, if that was said.
    pub(crate) blob: Option<&'a Descriptor>,
}

/// What a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// It hides all that lies below it.
    pub(crate) opaque: bool,
}

/// Unpacks a layer as it comes into the empty folder `root`, and checks that it is what it is said to be. What it makes and
/// replaces again goes to the folder `trash`. After an error both folders are the caller's to remove.
pub(crate) fn layer(
    source: impl Read,
    expected: &Expected,
    root: &Path,
    trash: &Path,
    limits: Limits,
    overlay: Overlay,
) -> Result<Unpacked, Error> {
    let (named, algorithm, most) = match expected.blob {
        Some(blob) => (&blob.digest, blob.digest.algorithm(), blob.size),
        None => (expected.diff_id, Algorithm::Sha256, u64::MAX),
    };
    let failed = |why| Error::Layer { layer: named.clone(), why };
    let mut source = Hashing::new(source, algorithm, most, "what came of it");
    let unpacked = plain(&mut source, expected.diff_id.algorithm(), root, trash, limits, overlay);
    let whole = match &unpacked {
        Err(error) if !error.may_be_damage() => None,
        // Content that isn't what it should be is the better reason for an archive that can't be read.
        Err(_) => source.finish().ok(),
        Ok(_) => Some(source.finish().map_err(|error| failed(error.into()))?),
    };
    if let (Some((digest, size)), Some(blob)) = (whole, expected.blob) {
        check(&format!("layer {}", blob.digest), (&blob.digest, blob.size), (digest, size))?;
    }
    let (digest, unpacked) = unpacked.map_err(failed)?;
    if digest != *expected.diff_id {
        let what = format!("the archive in layer {named}");
        return Err(Error::WrongDigest { what, expected: expected.diff_id.clone(), found: digest });
    }
    Ok(unpacked)
}

/// Whether content is what it should be.
pub(crate) fn check(what: &str, expected: (&Digest, u64), found: (Digest, u64)) -> Result<(), Error> {
    let what = what.to_owned();
    if found.1 != expected.1 {
        return Err(Error::WrongSize { what, expected: expected.1, found: found.1 });
    }
    if found.0 != *expected.0 {
        return Err(Error::WrongDigest { what, expected: expected.0.clone(), found: found.0 });
    }
    Ok(())
}

fn plain(
    source: &mut impl Read,
    algorithm: Algorithm,
    root: &Path,
    trash: &Path,
    limits: Limits,
    overlay: Overlay,
) -> Result<(Digest, Unpacked), UnpackError> {
    let mut plain = Hashing::new(decompress(source)?, algorithm, limits.bytes, LAYER);
    let mut entries = Entries::new(&mut plain);
    let mut tree = Tree::open(root, trash, overlay)?;
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > limits.entries {
            return Err(UnpackError::TooMany(limits.entries));
        }
        // Before the first of its bytes is written.
        if entry.size > limits.bytes {
            return Err(UnpackError::TooLarge(limits.bytes));
        }
        tree.place(entry, &mut entries)?;
    }
    let (bytes, opaque) = tree.finish()?;
    let (digest, _) = plain.finish()?;
    Ok((digest, Unpacked { bytes, entries: count, opaque }))
}
