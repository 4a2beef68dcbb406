//! What reads bytes from outside, each by itself: for those who try it with bytes that nobody chose.

use std::io;

use crate::config::Stored;
use crate::manifest::{Document, choose};
use crate::pull::ways_in;
use crate::unpack::{Entries, UnpackError};
use crate::{Error, Platform};

/// Reads an archive's entries and their contents to the end; how many bytes those have.
///
/// # Errors
/// Where it is none.
pub fn archive(bytes: &[u8]) -> Result<u64, UnpackError> {
    let mut entries = Entries::new(bytes);
    let mut total = 0;
    while entries.next()?.is_some() {
        total += io::copy(&mut entries, &mut io::sink())?;
    }
    Ok(total)
}

/// Reads a manifest or an index, and chooses from it what this machine can run.
///
/// # Errors
/// If it is neither, or has nothing.
pub fn document(bytes: &[u8]) -> Result<(), Error> {
    match Document::read(bytes, "", "the document")? {
        Document::Manifest(_) => Ok(()),
        Document::Index(manifests) => choose(&manifests, &Platform::host(), "the index").map(drop),
    }
}

/// Reads the configuration of an image; how many layers it has.
///
/// # Errors
/// If it is none.
pub fn configuration(bytes: &[u8]) -> Result<usize, Error> {
    Ok(Stored::read(bytes, "the configuration")?.diff_ids().len())
}

/// Reads a value of `WWW-Authenticate`; whether there is a way in.
pub fn challenge(value: &str) -> bool {
    ways_in(value)
}
