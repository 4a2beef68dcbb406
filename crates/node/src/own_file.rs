//! Small files of the host's own, each replaced as a whole: who reads one finds the former content or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// What a file is called while it is written. One writer at a time writes into a folder.
const UNFINISHED: &str = ".unfinished";

/// Writes a file, for root alone, and makes its folder; it is on the disk then.
///
/// # Errors
/// If that fails: then the file has the former content, or the new one that may not last.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let unfinished = path.with_file_name(UNFINISHED);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    // Else a power cut may bring the former content back.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Removes a file; fine if there is none.
///
/// # Errors
/// If it can't be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
