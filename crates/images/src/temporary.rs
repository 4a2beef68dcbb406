//! What isn't finished: a folder a process, which goes with it, and is removed by the next one that opens the store if it didn't.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// Locked for as long as a process uses its folder: the kernel lets it go, however the process ends.
const ALIVE: &str = "alive";

/// This process's folder.
pub(crate) struct Temporary {
    folder: PathBuf,
    _alive: File,
    made: AtomicU64,
}

/// A folder or file in it, removed with all that is in it unless it was renamed before.
pub(crate) struct Piece(PathBuf);

impl Temporary {
    /// Removes what dead processes left in `parent`, and makes a folder of this one's own there. The caller holds the store's
    /// lock: without that two could see each other between folder and lock.
    pub(crate) fn claim(parent: &Path) -> Result<Self, Error> {
        let listed = fs::read_dir(parent).map_err(Error::disk("read", parent))?;
        for entry in listed {
            let path = entry.map_err(Error::disk("read", parent))?.path();
            let lives = File::open(path.join(ALIVE)).is_ok_and(|file| file.try_lock().is_err());
            if !lives {
                remove_tree(&path).map_err(Error::disk("remove", &path))?;
            }
        }
        let id = std::process::id();
        let mut count = 0;
        let folder = loop {
            let folder = parent.join(format!("{id}-{count}"));
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                made => break made.map(|()| folder.clone()).map_err(Error::disk("make", &folder))?,
            }
        };
        let alive = folder.join(ALIVE);
        let file = File::create(&alive).map_err(Error::disk("make", &alive))?;
        file.lock().map_err(Error::disk("lock", &alive))?;
        Ok(Temporary { folder, _alive: file, made: AtomicU64::new(0) })
    }

    /// A new path in it.
    pub(crate) fn piece(&self) -> Piece {
        Piece(self.folder.join(self.made.fetch_add(1, Ordering::Relaxed).to_string()))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays is removed by the next who opens the store.
        let _ = remove_tree(&self.folder);
    }
}

impl Piece {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        match remove_tree(&self.0) {
            Ok(()) => {}
            Err(why) => {
                tracing::warn!(path = %self.0.display(), %why, "what isn't needed any more can't be removed")
            }
        }
    }
}

/// Removes a file or a folder with all that is in it, also folders that their owner may not change; nothing if it isn't there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let is_folder = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        stat => stat?.is_dir(),
    };
    if !is_folder {
        return fs::remove_file(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Lets their owner into folders whose modes forbid it: layers have such, and only root doesn't care.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Of the entry itself, not of where it leads.
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_goes_and_what_a_living_one_has_stays() {
        let parent = tempfile::tempdir().unwrap();
        let living = Temporary::claim(parent.path()).unwrap();
        let piece = living.piece();
        fs::create_dir(piece.path()).unwrap();
        fs::create_dir_all(parent.path().join("1-0/0/fs/etc")).unwrap();
        fs::write(parent.path().join("1-0").join(ALIVE), "").unwrap();
        fs::create_dir(parent.path().join("2-0")).unwrap();
        let second = Temporary::claim(parent.path()).unwrap();
        let left = || fs::read_dir(parent.path()).unwrap().count();
        assert_eq!(left(), 2, "two of this process");
        assert!(piece.path().is_dir());
        drop(piece);
        drop((living, second));
        assert_eq!(left(), 0);
    }

    #[test]
    fn folders_that_forbid_it_are_removed_too() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a");
        fs::create_dir_all(folder.join("b/c")).unwrap();
        std::os::unix::fs::symlink("/", folder.join("b/root")).unwrap();
        fs::set_permissions(folder.join("b"), fs::Permissions::from_mode(0o000)).unwrap();
        open_up(&folder).unwrap();
        remove_tree(&folder).unwrap();
        assert!(!folder.exists());
        remove_tree(&folder).unwrap();
    }
}
