//! The one way to the disk: every write, sync and rename goes through [`Disk`], so that a simulation can put
//! one that tears writes and fails syncs in its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A folder of files.
pub trait Disk: Send + Sync + 'static {
    /// The names of the files in it.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file's content.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A file's content bit by bit, and its length: for one that is too large to be in memory as a whole.
    fn stream(&self, name: &str) -> io::Result<(Box<dyn Read + Send>, u64)>;
    /// Makes a file, empty even if there was one, to append to.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file to append to, cut to `length`.
    fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// How many bytes may still be written; an error if no file can be made (see `is_sealed`).
    fn free_space(&self) -> io::Result<u64>;
}

/// A file that grows at its end.
pub trait DiskFile: Send {
    /// Takes room for the file to grow to `length`; what was not appended yet reads as zeros until it is. To
    /// sync what is appended within then changes nothing that the file system keeps about the file, which
    /// takes a third less time. Where a file system can't, or has no room for it, it is left out.
    fn reserve(&mut self, length: u64) -> io::Result<()>;
    /// Appends bytes; they are durable after the next [`sync`](DiskFile::sync).
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `length`.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

/// Writes a whole file, piece by piece, so that after a crash it is there in full or not at all. It can be appended to.
pub fn replace<P: AsRef<[u8]>>(
    disk: &dyn Disk,
    name: &str,
    pieces: impl IntoIterator<Item = P>,
) -> io::Result<Box<dyn DiskFile>> {
    let temporary = format!("{name}{TEMPORARY}");
    let mut file = disk.create(&temporary)?;
    for piece in pieces {
        if let Err(error) = file.append(piece.as_ref()) {
            // What is left of it takes room that may be what was missing; the next start removes it too.
            let _ = disk.remove(&temporary);
            return Err(error);
        }
    }
    for_good(file.sync())?;
    disk.rename(&temporary, name)?;
    for_good(disk.sync_folder())?;
    Ok(file)
}

/// A sync that failed, for whatever reason, is never tried again: the system may have dropped what it could
/// not write, and then says that all is well.
pub fn for_good(sync: io::Result<()>) -> io::Result<()> {
    sync.map_err(|error| io::Error::other(format!("a sync failed: {error}")))
}

/// How the names of files end that were not finished.
pub const TEMPORARY: &str = ".tmp";

/// Whether an error says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error says that the folder can't be written: its permissions, or a file system that takes no writes.
pub fn is_sealed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether a file could not be made, and nothing happened: it may be tried again.
pub fn may_be_tried_again(error: &io::Error) -> bool {
    is_full(error) || is_sealed(error)
}

/// A folder of the operating system's.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Uses a folder, made if it is not there, readable by its owner alone.
    pub fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Folder(path.to_owned()))
    }

    /// Locks the folder against other processes for as long as the answer lives; none if one has it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.0.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    fn stream(&self, name: &str) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let file = File::open(self.0.join(name))?;
        let length = file.metadata()?.len();
        Ok((Box::new(file), length))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        Ok(Box::new(options.open(self.0.join(name))?))
    }

    fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut file = OpenOptions::new().write(true).open(self.0.join(name))?;
        if file.metadata()?.len() != length {
            DiskFile::cut(&mut file, length)?;
            file.sync_all()?;
        }
        io::Seek::seek(&mut file, io::SeekFrom::Start(length))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn free_space(&self) -> io::Result<u64> {
        nix::unistd::access(&self.0, nix::unistd::AccessFlags::W_OK)?;
        let stats = nix::sys::statvfs::statvfs(&self.0)?;
        // The types of the fields differ from system to system.
        #[allow(clippy::useless_conversion)]
        Ok(u64::from(stats.blocks_available()) * u64::from(stats.fragment_size()))
    }
}

impl DiskFile for File {
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use nix::errno::Errno;
            use nix::fcntl::{FallocateFlags, fallocate};
            // A length that the system can't count is one that no file reaches.
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            match fallocate(&*self, FallocateFlags::empty(), 0, length) {
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOSPC | Errno::EDQUOT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = length;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        io::Seek::seek(self, io::SeekFrom::Start(length)).map(|_| ())
    }
}
