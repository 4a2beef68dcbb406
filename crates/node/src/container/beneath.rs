//! Paths beneath a folder whose content belongs to somebody else: a pod may put a symbolic link anywhere in its
//! volumes, also while the agent, which may do more than the pod, walks there (CVE-2017-1002101, CVE-2021-25741). So
//! the kernel is asked to follow links only as long as they stay beneath the folder: openat2(2), Linux 5.6. Where
//! it can't, such paths are refused.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use serde::{Deserialize, Serialize};

/// How often a walk is begun anew that somebody disturbed by renaming folders meanwhile.
const ATTEMPTS: u32 = 64;

/// A path in parts: one that is trusted, and one beneath it that isn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfinedPath {
    pub root: PathBuf,
    /// Empty for the root itself.
    pub beneath: PathBuf,
}

impl ConfinedPath {
    /// A place that is trusted as a whole.
    pub(crate) fn of(root: impl Into<PathBuf>) -> Self {
        ConfinedPath { root: root.into(), beneath: PathBuf::new() }
    }

    /// A place further down.
    pub(crate) fn join(&self, path: &Path) -> Self {
        ConfinedPath { root: self.root.clone(), beneath: self.beneath.join(path) }
    }

    /// Whether nothing lies beneath the trusted part.
    pub(crate) fn is_plain(&self) -> bool {
        self.beneath.as_os_str().is_empty()
    }

    /// As one path, for people and for comparing.
    pub(crate) fn path(&self) -> PathBuf {
        if self.is_plain() { self.root.clone() } else { self.root.join(&self.beneath) }
    }

    /// What the file there holds.
    ///
    /// # Errors
    /// If it can't be read, or is not beneath its root.
    pub(crate) fn read(&self) -> io::Result<String> {
        let root = open(&self.root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let file = beneath(root.as_fd(), &self.beneath, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
        io::read_to_string(std::fs::File::from(file.map_err(|error| told(error, &self.beneath))?))
    }

    /// Whether it is a folder.
    ///
    /// # Errors
    /// If it is not there, or not beneath its root.
    pub(crate) fn is_folder(&self) -> io::Result<bool> {
        let kind = fstat(self.open()?).map_err(|error| told(error, &self.beneath))?.st_mode;
        Ok(SFlag::from_bits_truncate(kind) & SFlag::S_IFMT == SFlag::S_IFDIR)
    }

    /// Opens it, as a place only.
    ///
    /// # Errors
    /// If it is not there, or not beneath its root.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let root = open(&self.root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        if self.is_plain() {
            return Ok(root);
        }
        beneath(root.as_fd(), &self.beneath, OFlag::O_PATH).map_err(|error| told(error, &self.beneath))
    }

    /// Makes a folder there unless there is something.
    ///
    /// # Errors
    /// If it can't be made, or is not beneath its root.
    pub(crate) fn make_folder_if_missing(&self) -> io::Result<()> {
        self.make(true)
    }

    /// Makes what is missing: folders with the root's own mode (as the kubelet's `SafeMakeDir`), and an empty file at
    /// the end unless that is to be a folder too.
    ///
    /// # Errors
    /// If it can't be made, or is not beneath its root.
    pub(crate) fn make(&self, is_folder: bool) -> io::Result<()> {
        let root = open(&self.root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let mode = Mode::from_bits_truncate(fstat(root.as_fd())?.st_mode & 0o7777);
        let mut at = PathBuf::new();
        let parts: Vec<&OsStr> = self.beneath.components().filter_map(normal).collect();
        for (place, part) in parts.iter().enumerate() {
            let parent = at.clone();
            at.push(part);
            match beneath(root.as_fd(), &at, OFlag::O_PATH) {
                Ok(_) => continue,
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(told(error, &at)),
            }
            let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { &parent };
            let folder = beneath(root.as_fd(), folder, OFlag::O_PATH | OFlag::O_DIRECTORY);
            let folder = folder.map_err(|error| told(error, &parent))?;
            let last = place + 1 == parts.len();
            make_one(folder.as_fd(), part, (is_folder || !last).then_some(mode))
                .map_err(|error| told(error, &at))?;
        }
        Ok(())
    }
}

fn normal(part: Component<'_>) -> Option<&OsStr> {
    match part {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}

/// Makes a folder of that mode, whatever the umask says, or an empty file. One that came meanwhile is fine, unless it
/// is a link.
fn make_one(parent: BorrowedFd<'_>, name: &OsStr, folder: Option<Mode>) -> Result<(), Errno> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let Some(mode) = folder else {
        let how = flags | OFlag::O_CREAT | OFlag::O_RDONLY;
        return nix::fcntl::openat(parent, name, how, Mode::from_bits_truncate(0o644)).map(drop);
    };
    match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) => {
            let how = flags | OFlag::O_DIRECTORY | OFlag::O_RDONLY;
            fchmod(nix::fcntl::openat(parent, name, how, Mode::empty())?, mode)
        }
        Err(Errno::EEXIST) => {
            let how = flags | OFlag::O_DIRECTORY | OFlag::O_PATH;
            nix::fcntl::openat(parent, name, how, Mode::empty()).map(drop)
        }
        Err(error) => Err(error),
    }
}

/// Opens a path beneath a folder.
fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let mut left = ATTEMPTS;
    loop {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) if left > 0 => left -= 1,
            result => return result,
        }
    }
}

/// The kernel's word about a path beneath a folder, for people.
fn told(error: Errno, path: &Path) -> io::Error {
    let path = path.display();
    match error {
        Errno::EXDEV | Errno::ELOOP => io::Error::other(format!(
            "a symbolic link in {path:?} leads out of the volume",
            path = path.to_string()
        )),
        Errno::ENOSYS => io::Error::other(format!(
            "{path:?} can't be looked up safely: this kernel has no openat2 (Linux 5.6 has it)",
            path = path.to_string()
        )),
        error => {
            io::Error::new(io::Error::from(error).kind(), format!("{:?}: {}", path.to_string(), error.desc()))
        }
    }
}

/// A place as the process-to-be opens it, between fork and exec: nothing is allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spot {
    root: CString,
    beneath: Option<CString>,
}

impl Spot {
    pub(crate) fn of(place: &ConfinedPath) -> io::Result<Self> {
        let c = |path: &Path| {
            CString::new(path.as_os_str().as_bytes())
                .map_err(|_| io::Error::other(format!("{} holds a NUL byte", path.display())))
        };
        let beneath = if place.is_plain() { None } else { Some(c(&place.beneath)?) };
        Ok(Spot { root: c(&place.root)?, beneath })
    }

    /// A place that is trusted as a whole.
    pub(crate) fn trusted(path: CString) -> Self {
        Spot { root: path, beneath: None }
    }

    /// Its whole path, if all of it is trusted.
    pub(crate) fn plain(&self) -> Option<&CStr> {
        self.beneath.is_none().then_some(&*self.root)
    }

    /// Opens it, as a place only.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: the path is a string that lives through the call.
        let root = owned(unsafe { libc::open(self.root.as_ptr(), flags) }.into())?;
        let Some(path) = &self.beneath else { return Ok(root) };
        // The struct is zeroed rather than written out: it may grow.
        // SAFETY: of plain numbers, for which zero is a value.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = u64::from(flags.unsigned_abs());
        how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
        let mut left = ATTEMPTS;
        loop {
            // SAFETY: path and struct live through the call, which only reads them.
            let found = unsafe {
                libc::syscall(
                    libc::SYS_openat2,
                    root.as_raw_fd(),
                    path.as_ptr(),
                    &raw const how,
                    size_of::<libc::open_how>(),
                )
            };
            match owned(found) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && left > 0 => left -= 1,
                result => return result,
            }
        }
    }
}

/// A descriptor that a system call just answered, or its error.
pub(crate) fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    match libc::c_int::try_from(answer) {
        // SAFETY: the kernel just made it, and nobody else has it.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A volume with links, and a folder beside it that is none of the pod's business.
    fn volume() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("v"), folder.path().join("outside"));
        fs::create_dir_all(root.join("in/side")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "s").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("in/side", root.join("within")).unwrap();
        symlink("../in/../..", root.join("in/up")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        (folder, root)
    }

    fn place(root: &Path, path: &str) -> ConfinedPath {
        ConfinedPath { root: root.into(), beneath: path.into() }
    }

    #[test]
    fn a_link_may_not_leave_the_volume() {
        let (folder, root) = volume();
        for path in
            ["absolute", "absolute/secret", "relative", "in/up/outside", "in/up", "magic", "../outside"]
        {
            let place = place(&root, path);
            let why = place.is_folder().unwrap_err().to_string();
            assert!(why.contains("leads out of the volume"), "{path}: {why}");
            assert!(Spot::of(&place).unwrap().open().is_err(), "{path}");
        }
        for path in ["absolute/new/er", "relative/new", "in/up/new", "magic/new", "dangling/new", "dangling"]
        {
            assert!(place(&root, path).make(true).is_err(), "{path}");
            assert!(place(&root, path).make(false).is_err(), "{path}");
        }
        let outside: Vec<_> = fs::read_dir(folder.path().join("outside")).unwrap().collect();
        assert_eq!(outside.len(), 1, "nothing was made there");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_link_may_lead_elsewhere_within_the_volume() {
        let (_folder, root) = volume();
        assert!(place(&root, "within").is_folder().unwrap());
        assert!(place(&root, "").is_folder().unwrap());
        place(&root, "within/a/b").make(true).unwrap();
        place(&root, "within/a/c").make(false).unwrap();
        assert!(root.join("in/side/a/b").is_dir() && root.join("in/side/a/c").is_file());
        let mode = fs::metadata(root.join("in/side/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777, "as the volume itself");
        Spot::of(&place(&root, "within/a/b")).unwrap().open().unwrap();
    }
}
