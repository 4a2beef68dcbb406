//! The replicated machine at one index as bytes: what a snapshot holds, on disk and between members. It is written and
//! read in pieces: a member never has the whole of it in memory beside the machine itself.

mod pieces;
mod reader;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::sync::Arc;

use super::codec::Malformed;
use super::machine::Machine;
use super::membership::Membership;
use crate::{Revision, Sealing};

pub use pieces::Pieces;

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

/// What an image begins with: the kind of file and the version of its form.
const MAGIC: &[u8; 8] = b"HFIMAGE3";
/// The length of the checksum of all before, which an image ends with.
const CHECKSUM: u64 = 4;

/// How large a piece is that an image is written or sent in: large enough that what comes with each (a call of the system, a
/// frame) costs nothing beside it, and small enough that heartbeats never wait long behind one.
pub const PIECE: usize = 256 << 10;

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

    /// As bytes, in pieces of about this length each.
    pub fn pieces(self, length: usize) -> Pieces {
        Pieces::new(self, length)
    }

    /// From `length` bytes.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read(source: impl Read, length: u64) -> Result<Self, ImageError> {
        Self::read_sealed(source, length, &Sealing::default())
    }

    /// From `length` bytes, with values opened that were sealed. They are sealed so again where they leave the memory.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read_sealed(source: impl Read, length: u64, sealing: &Sealing) -> Result<Self, ImageError> {
        reader::read(source, length, sealing, false)
    }

    /// The same of what another member sends, which is refused if some value can't be opened: a newcomer that has taken it counts
    /// among those whose votes the cluster needs, and one that lacks a key ends.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read_opened(source: impl Read, length: u64, sealing: &Sealing) -> Result<Self, ImageError> {
        reader::read(source, length, sealing, true)
    }
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The source of the bytes failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not what was written.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}
