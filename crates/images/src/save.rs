//! An image made of files of this machine, as `docker save` writes it, but in a folder.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::digest::{Algorithm, Hashing};
use crate::{Error, Platform, Reference};

/// Of tar: what everything in an archive is a multiple of.
const BLOCK: usize = 512;
const LAYER: &str = "layer.tar";

/// A file of an image that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedFile {
    /// Its path in the image.
    pub path: PathBuf,
    /// Which file of this machine it is.
    pub source: PathBuf,
}

/// Writes an image of one layer into an empty folder, for [`crate::Store::import`]. Its files are root's, and can be executed.
///
/// # Errors
/// If a file can't be read, or has a path too long for an archive, or the folder can't be written to.
pub fn save(folder: &Path, name: &Reference, files: &[SavedFile]) -> Result<(), Error> {
    let layer = folder.join(LAYER);
    let write = |path: &Path, text: String| std::fs::write(path, text).map_err(Error::disk("write", path));
    let mut out = File::create(&layer).map_err(Error::disk("write", &layer))?;
    for file in files {
        append(&mut out, &layer, file)?;
    }
    out.write_all(&[0; 2 * BLOCK]).map_err(Error::disk("write", &layer))?;
    let whole = File::open(&layer).map_err(Error::disk("read", &layer))?;
    let whole = Hashing::new(whole, Algorithm::Sha256, u64::MAX, LAYER);
    let (digest, _) = whole.finish().map_err(Error::disk("read", &layer))?;
    let Platform { os, architecture, variant } = Platform::host();
    let config = json!({"os": os, "architecture": architecture, "variant": variant, "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest]}});
    write(&folder.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [name.to_string()], "Layers": [LAYER]}]);
    write(&folder.join("manifest.json"), manifest.to_string())
}

fn append(out: &mut File, layer: &Path, file: &SavedFile) -> Result<(), Error> {
    let read = || Error::disk("read", &file.source);
    let source = File::open(&file.source).map_err(read())?;
    let size = source.metadata().map_err(read())?.len();
    let head = header(&file.path, size).ok_or_else(|| Error::Archive {
        path: layer.to_owned(),
        why: format!("{} is too long a path, or too large a file, for it", file.path.display()),
    })?;
    let copy = || -> io::Result<u64> {
        out.write_all(&head)?;
        let copied = io::copy(&mut source.take(size), out)?;
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        out.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])?;
        Ok(copied)
    };
    match copy().map_err(Error::disk("write", layer))? {
        copied if copied == size => Ok(()),
        _ => Err(read()(io::Error::other("it grew shorter meanwhile"))),
    }
}

/// The header of a plain file, in the form `ustar`; none if it takes no such path or size.
fn header(path: &Path, size: u64) -> Option<[u8; BLOCK]> {
    let path = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
    let size = format!("{size:011o}");
    if path.is_empty() || path.len() > 100 || size.len() > 11 {
        return None;
    }
    let mut head = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, path);
    for (at, number) in [(100, &b"0000755"[..]), (108, b"0000000"), (116, b"0000000"), (136, b"00000000000")]
    {
        put(at, number);
    }
    put(124, size.as_bytes());
    // The sum counts its own field as blanks.
    put(148, b"        0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::Entries;

    #[test]
    fn what_is_saved_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        let (long, odd) = (vec![7; 3 * BLOCK], vec![1; BLOCK + 1]);
        let mut expected = Vec::new();
        let mut files = Vec::new();
        for (number, bytes) in [&b""[..], &long, &odd].into_iter().enumerate() {
            let (source, path) = (source.with_extension(number.to_string()), format!("bin/{number}"));
            std::fs::write(&source, bytes).unwrap();
            files.push(SavedFile { path: format!("/{path}").into(), source });
            expected.push((path, bytes.to_vec()));
        }
        let saved = folder.path().join("saved");
        std::fs::create_dir(&saved).unwrap();
        save(&saved, &Reference::parse("here.test/box:v1").unwrap(), &files).unwrap();
        let layer = std::fs::read(saved.join(LAYER)).unwrap();
        let mut entries = Entries::new(&layer[..]);
        let mut found = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            let mut bytes = Vec::new();
            entries.read_to_end(&mut bytes).unwrap();
            found.push((String::from_utf8(entry.name).unwrap(), bytes));
        }
        assert_eq!(found, expected);
        let mut archive = tar::Archive::new(&layer[..]);
        let modes = archive.entries().unwrap().map(|entry| entry.unwrap().header().mode().unwrap());
        assert_eq!(modes.collect::<Vec<_>>(), [0o755; 3]);
        let too_long = SavedFile { path: "x".repeat(101).into(), source: files[0].source.clone() };
        assert!(save(&saved, &Reference::parse("a").unwrap(), &[too_long]).is_err());
    }
}
