//! Files of keys and certificates: written whole or not at all, keys for their owner's eyes alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Error;

/// More than any file of ours needs; a larger one is not ours.
const LARGEST: u64 = 1 << 20;

pub(crate) fn write_public(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text, 0o644)
}

pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text, 0o600)
}

pub(crate) fn read(path: &Path) -> Result<String, Error> {
    let read = || {
        let file = File::open(path)?;
        if file.metadata()?.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too large to be a key or certificate"));
        }
        io::read_to_string(file)
    };
    read().map_err(|why| Error::File { path: path.to_owned(), why })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        fs::create_dir_all(folder)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        // A file that a crash left behind may have any mode; the new one's must be ours from its first byte.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|why| Error::File { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_its_owners_alone_even_where_a_crash_left_a_readable_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/a.key");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(folder.path().join("deep/a.key.new"), "left behind").unwrap();
        write_secret(&path, "one").unwrap();
        write_secret(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nowhere/x.crt")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/x.crt: "), "{error}");
    }
}
