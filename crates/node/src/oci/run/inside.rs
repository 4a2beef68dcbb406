//! Paths within a container's root, which holds whatever its image and its volumes hold: links in it lead nowhere else
//! (`RESOLVE_IN_ROOT` of openat2(2)), also those of `/proc`.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

/// How many links may lead on from one path, as the kernel has it.
const MOST_LINKS: usize = 40;
/// How often a walk is begun anew that somebody disturbed by renaming folders meanwhile.
const ATTEMPTS: u32 = 64;

/// A root.
#[derive(Debug)]
pub(super) struct Inside(OwnedFd);

impl Inside {
    pub(super) fn new(root: OwnedFd) -> Self {
        Inside(root)
    }

    /// This process' own.
    pub(super) fn own() -> io::Result<Self> {
        Ok(Inside(open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// Opens a place.
    pub(super) fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.look(path)?)
    }

    /// Opens a place to which no link may lead.
    pub(super) fn find_plain(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, ResolveFlag::RESOLVE_NO_SYMLINKS)?)
    }

    fn look(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(path, ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    fn resolve(&self, path: &Path, links: ResolveFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
        let how = how.resolve(ResolveFlag::RESOLVE_IN_ROOT | links);
        let mut left = ATTEMPTS;
        loop {
            match openat2(self.0.as_fd(), path, how) {
                Err(Errno::EAGAIN) if left > 0 => left -= 1,
                result => return result,
            }
        }
    }

    /// Opens a place that is made if it is missing, with the folders above it: a folder, or an empty file.
    pub(super) fn make(&self, path: &Path, is_folder: bool) -> io::Result<OwnedFd> {
        let mut rest: VecDeque<OsString> = parts(path);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        let mut here = self.look(&at)?;
        while let Some(part) = rest.pop_front() {
            let is_last = rest.is_empty();
            let next = at.join(&part);
            match self.look(&next) {
                Ok(found) => here = found,
                Err(Errno::ENOENT) => match make_one(here.as_fd(), &part, is_folder || !is_last) {
                    Ok(()) => here = self.look(&next)?,
                    // A link to something that isn't there: that is made.
                    Err(Errno::EEXIST) if links < MOST_LINKS => {
                        links += 1;
                        let to = PathBuf::from(readlinkat(&here, part.as_os_str())?);
                        let mut parts = parts(&to);
                        parts.append(&mut rest);
                        rest = parts;
                        if to.is_absolute() {
                            at = PathBuf::from("/");
                            here = self.look(&at)?;
                        }
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
            at = next;
        }
        Ok(here)
    }

    /// The folder itself.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The parts of a path. `..` stays: the kernel looks at it within the root.
fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

fn make_one(parent: BorrowedFd<'_>, name: &OsStr, is_folder: bool) -> Result<(), Errno> {
    if is_folder {
        return mkdirat(parent, name, Mode::from_bits_truncate(0o755));
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
    nix::fcntl::openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
}

/// Whether an open place is a folder.
pub(super) fn is_folder(place: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: zero is a value of this struct of numbers.
    let mut about: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the struct lives through the call, which fills it in.
    super::child::check(unsafe { libc::fstat(place.as_raw_fd(), &raw mut about) })?;
    Ok(about.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Opens a path of the host's that is trusted, as a place only.
pub(super) fn trusted(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Another descriptor of a file that this process was started with.
pub(super) fn standard(number: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a call on numbers.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    super::child::check(copy)?;
    // SAFETY: the kernel just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_within_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        for (link, to) in [
            ("absolute", "/real"),
            ("up", "../../../outside"),
            ("real/up", "../../outside"),
            ("dangling", "/run/later"),
            ("loop", "loop"),
            ("magic", "/proc/self/root"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        let inside = Inside::new(trusted(&root).unwrap());
        inside.make(Path::new("/absolute/new/er"), true).unwrap();
        inside.make(Path::new("/absolute/deep/file"), false).unwrap();
        assert!(root.join("real/new/er").is_dir() && root.join("real/deep/file").is_file());
        // What lies above the root is the root.
        inside.make(Path::new("/up/x"), true).unwrap();
        inside.make(Path::new("/real/up/y"), true).unwrap();
        assert!(root.join("outside/x").is_dir() && root.join("outside/y").is_dir());
        inside.make(Path::new("/dangling/z"), false).unwrap();
        assert!(root.join("run/later/z").is_file());
        inside.make(Path::new("/magic/w"), true).unwrap();
        assert!(root.join("proc/self/root/w").is_dir());
        assert!(inside.make(Path::new("/loop/x"), true).is_err());
        assert!(inside.find(Path::new("/missing")).is_err());
        assert!(
            inside.find_plain(Path::new("/real/deep")).is_ok() && inside.find(Path::new("/absolute")).is_ok()
        );
        assert!(inside.find_plain(Path::new("/absolute")).is_err());
        assert_eq!(fs::read_dir(folder.path().join("outside")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
