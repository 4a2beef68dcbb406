//! Making a layer's files beneath its root.
//!
//! Every step is one name in an open folder, and follows no link: the kernel is never given a path. Links that a layer has as folders of
//! its paths are followed here, as if its root were the root of all, as containerd does it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entries::{Entry, Kind, Meta};
use super::names::{Meaning, anchored, meaning, shown};
use super::{Overlay, UnpackError};

/// How deep folders may lie in each other: what goes through a layer opens each.
const DEEPEST: usize = 256;
/// As the kernel: `MAXSYMLINKS`.
const MOST_LINKS: usize = 40;
const BUFFER: usize = 128 << 10;
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READABLE: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

type Parts = Vec<Vec<u8>>;

/// A folder of the layer.
struct Folder {
    /// Its path from the root, through no link.
    path: Parts,
    fd: OwnedFd,
}

/// What has a name already.
enum There {
    Nothing,
    Directory,
    Whiteout,
    Other,
}

/// A layer that is being made.
pub(super) struct Tree {
    root: OwnedFd,
    trash: OwnedFd,
    thrown: u64,
    overlay: Overlay,
    /// This process may give files to anybody.
    privileged: bool,
    /// Where the last entry was, by what its path was called: most entries are beside the one before.
    last: Option<(Parts, Folder)>,
    /// What folders get in the end: their times change with what is made in them, and their modes may forbid that.
    folders: BTreeMap<Parts, Meta>,
    bytes: u64,
    opaque: bool,
    buffer: Vec<u8>,
}

fn io_error(name: &[u8], errno: Errno) -> UnpackError {
    UnpackError::Disk { name: shown(name), why: errno.into() }
}

fn entry_error(name: &[u8], why: impl Into<String>) -> UnpackError {
    UnpackError::Entry { name: shown(name), why: why.into() }
}

impl Tree {
    pub(super) fn open(root: &Path, trash: &Path, overlay: Overlay) -> Result<Self, UnpackError> {
        let open = |path: &Path| {
            fs::openat(CWD, path, FOLDER, Mode::empty())
                .map_err(|errno| UnpackError::Disk { name: path.display().to_string(), why: errno.into() })
        };
        Ok(Tree {
            root: open(root)?,
            trash: open(trash)?,
            thrown: 0,
            overlay,
            privileged: is_privileged(),
            last: None,
            folders: BTreeMap::new(),
            bytes: 0,
            opaque: false,
            buffer: vec![0; BUFFER],
        })
    }

    /// Makes one entry of the archive; `content` is read for files.
    pub(super) fn place(&mut self, entry: Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        let name = entry.name.clone();
        let parts = anchored(&name);
        let Some((base, parents)) = parts.split_last() else {
            return match entry.kind {
                Kind::Directory => {
                    self.folders.insert(Vec::new(), entry.meta);
                    Ok(())
                }
                _ => Err(entry_error(&name, "only a folder can be the root")),
            };
        };
        if parents.iter().any(|part| meaning(part) == Meaning::Nothing) {
            return Ok(());
        }
        if base.len() > 255 {
            return Err(entry_error(&name, "a name has more than 255 bytes"));
        }
        let folder = self.folder(parents, true, &name)?;
        match meaning(base) {
            Meaning::Wrong => return Err(entry_error(&name, "it names nothing that could be gone")),
            Meaning::Nothing => {}
            Meaning::Opaque => self.hide_below(&folder, &name)?,
            Meaning::Gone(gone) => self.whiteout(&folder, gone, &name)?,
            Meaning::Itself => self.make(&folder, base, entry, content)?,
        }
        self.last = Some((parents.iter().map(|part| part.to_vec()).collect(), folder));
        Ok(())
    }

    /// The folder with this path: opened step by step, and made where it is missing.
    fn folder(&mut self, parts: &[&[u8]], create: bool, name: &[u8]) -> Result<Folder, UnpackError> {
        if let Some((called, folder)) = self.last.take()
            && called.len() == parts.len()
            && called.iter().zip(parts).all(|(one, other)| one == other)
        {
            return Ok(folder);
        }
        let failed = |errno| io_error(name, errno);
        let mut ahead: VecDeque<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let mut here = self.root().map_err(failed)?;
        let mut links = 0;
        while let Some(part) = ahead.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here.path.pop();
                    here = self.reopen(here.path).map_err(failed)?;
                    continue;
                }
                _ => {}
            }
            if here.path.len() >= DEEPEST {
                return Err(entry_error(name, format!("it lies more than {DEEPEST} folders deep")));
            }
            match fs::openat(&here.fd, part.as_slice(), FOLDER, Mode::empty()) {
                Ok(fd) => {
                    here.path.push(part);
                    here.fd = fd;
                }
                Err(Errno::NOENT) if create => {
                    fs::mkdirat(&here.fd, part.as_slice(), Mode::from_raw_mode(0o755)).map_err(failed)?;
                    ahead.push_front(part);
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let Ok(target) = fs::readlinkat(&here.fd, part.as_slice(), Vec::new()) else {
                        if create && matches!(there(&here.fd, &part).map_err(failed)?, There::Whiteout) {
                            // What was there below is gone, and another folder is there.
                            self.make_folder_over_whiteout(&here, &part, name)?;
                            ahead.push_front(part);
                            continue;
                        }
                        return Err(entry_error(name, format!("{} is no folder", shown(&part))));
                    };
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(entry_error(name, "too many symbolic links lead to it"));
                    }
                    if target.as_bytes().starts_with(b"/") {
                        here = self.root().map_err(failed)?;
                    }
                    for part in target.as_bytes().split(|byte| *byte == b'/').rev() {
                        ahead.push_front(part.to_vec());
                    }
                }
                Err(Errno::NAMETOOLONG) => return Err(entry_error(name, "a name has more than 255 bytes")),
                Err(Errno::NOENT) => {
                    return Err(entry_error(name, format!("there is no {}", shown(&part))));
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(here)
    }

    fn root(&self) -> Result<Folder, Errno> {
        Ok(Folder { path: Vec::new(), fd: fs::openat(&self.root, ".", FOLDER, Mode::empty())? })
    }

    fn reopen(&self, path: Parts) -> Result<Folder, Errno> {
        let mut here = self.root()?;
        for part in &path {
            here.fd = fs::openat(&here.fd, part.as_slice(), FOLDER, Mode::empty())?;
        }
        Ok(Folder { path, ..here })
    }

    fn make(
        &mut self,
        folder: &Folder,
        base: &[u8],
        entry: Entry,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let failed = |errno| io_error(&entry.name, errno);
        let before = there(&folder.fd, base).map_err(failed)?;
        let was_gone = matches!(before, There::Whiteout);
        match (before, entry.kind) {
            (There::Nothing, _) => {}
            (There::Directory, Kind::Directory) => {
                self.folders.insert(below(folder, base), entry.meta);
                return Ok(());
            }
            // Devices are left out, and so is what they would replace.
            (There::Directory, _) => self.throw_away(folder, base).map_err(failed)?,
            (There::Whiteout | There::Other, _) => {
                if let Kind::HardLink = entry.kind
                    && self.is_itself(folder, base, &entry)?
                {
                    return Ok(());
                }
                fs::unlinkat(&folder.fd, base, AtFlags::empty()).map_err(failed)?;
            }
        }
        match entry.kind {
            Kind::Directory => {
                fs::mkdirat(&folder.fd, base, Mode::from_raw_mode(0o755)).map_err(failed)?;
                if was_gone {
                    self.set_opaque(&folder.fd, base, &entry.name)?;
                }
                self.folders.insert(below(folder, base), entry.meta);
            }
            Kind::File => self.make_file(folder, base, entry, content)?,
            Kind::Symlink => self.make_symlink(folder, base, &entry)?,
            Kind::HardLink => self.make_hard_link(folder, base, &entry)?,
            Kind::Fifo => {
                fs::mknodat(&folder.fd, base, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(failed)?;
                self.set_owner(&folder.fd, base, &entry)?;
                let mode = Mode::from_raw_mode(entry.meta.mode);
                // Made in the line above, by the only one who makes something here: it is no link.
                fs::chmodat(&folder.fd, base, mode, AtFlags::empty()).map_err(failed)?;
                self.set_times(&folder.fd, base, &entry)?;
            }
            // A container gets its devices from its runtime, in /dev; others would be a way around what it may use.
            Kind::Device => {}
        }
        Ok(())
    }

    fn make_file(
        &mut self,
        folder: &Folder,
        base: &[u8],
        entry: Entry,
        content: &mut impl Read,
    ) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&folder.fd, base, flags, Mode::from_raw_mode(0o600))
            .map_err(|errno| io_error(&entry.name, errno))?;
        let mut file = File::from(fd);
        let mut left = entry.size;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match content.read(&mut self.buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            if count == 0 {
                return Err(UnpackError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let written = file.write_all(&self.buffer[..count]);
            written.map_err(|why| UnpackError::Disk { name: shown(&entry.name), why })?;
            left -= count as u64;
        }
        self.bytes += entry.size;
        self.set_all(&file, &entry.meta, &entry.name)
    }

    fn make_symlink(&self, folder: &Folder, base: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(entry_error(&entry.name, "it is a symbolic link to nothing"));
        }
        fs::symlinkat(entry.link.as_slice(), &folder.fd, base).map_err(|errno| match errno {
            Errno::NAMETOOLONG => {
                entry_error(&entry.name, "it is a symbolic link to a path that is too long")
            }
            errno => io_error(&entry.name, errno),
        })?;
        self.set_owner(&folder.fd, base, entry)?;
        self.set_times(&folder.fd, base, entry)
    }

    /// A link to another file of this layer, by the path that it has here.
    fn make_hard_link(&mut self, folder: &Folder, base: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let (target, name) = self.target(entry)?;
        if !matches!(there(&target.fd, &name).map_err(|errno| io_error(&entry.name, errno))?, There::Other) {
            let why = format!("it is a hard link to {}, which is no file of the layer", shown(&entry.link));
            return Err(entry_error(&entry.name, why));
        }
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one to that, not to where it leads.
        fs::linkat(&target.fd, name.as_slice(), &folder.fd, base, AtFlags::empty())
            .map_err(|errno| io_error(&entry.name, errno))
    }

    /// The folder and name of what a hard link leads to.
    fn target(&mut self, entry: &Entry) -> Result<(Folder, Vec<u8>), UnpackError> {
        let parts = anchored(&entry.link);
        let Some((name, parents)) = parts.split_last() else {
            return Err(entry_error(&entry.name, "it is a hard link to nothing"));
        };
        self.last = None;
        Ok((self.folder(parents, false, &entry.name)?, name.to_vec()))
    }

    /// Whether a hard link leads to what has its name already: that must not be removed first.
    fn is_itself(&mut self, folder: &Folder, base: &[u8], entry: &Entry) -> Result<bool, UnpackError> {
        let (target, name) = self.target(entry)?;
        let identity = |fd: &OwnedFd, name: &[u8]| {
            fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino)).ok()
        };
        let itself = identity(&folder.fd, base);
        Ok(itself.is_some() && itself == identity(&target.fd, &name))
    }

    /// What has this name in lower layers is gone: a character device with the number 0, in overlayfs. Since Linux 5.8 every user may
    /// make one.
    fn whiteout(&mut self, folder: &Folder, gone: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        let failed = |errno| io_error(name, errno);
        match there(&folder.fd, gone).map_err(failed)? {
            There::Nothing => {
                let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
                fs::mknodat(&folder.fd, gone, kind, mode, fs::makedev(0, 0)).map_err(failed)
            }
            // It means lower layers: what this one has stays, and hides them.
            There::Directory => self.set_opaque(&folder.fd, gone, name),
            There::Whiteout | There::Other => Ok(()),
        }
    }

    fn hide_below(&mut self, folder: &Folder, name: &[u8]) -> Result<(), UnpackError> {
        // Overlayfs doesn't ask the root of a layer: who stacks the layers does.
        self.opaque |= folder.path.is_empty();
        self.set_opaque(&folder.fd, b".", name)
    }

    fn set_opaque(&self, folder: &OwnedFd, base: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        let set = || {
            let fd = fs::openat(folder, base, READABLE, Mode::empty())?;
            fs::fsetxattr(fd, self.overlay.opaque(), b"y", XattrFlags::empty())
        };
        set().map_err(|errno| io_error(name, errno))
    }

    fn make_folder_over_whiteout(&self, here: &Folder, part: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        let failed = |errno| io_error(name, errno);
        fs::unlinkat(&here.fd, part, AtFlags::empty()).map_err(failed)?;
        fs::mkdirat(&here.fd, part, Mode::from_raw_mode(0o755)).map_err(failed)?;
        self.set_opaque(&here.fd, part, name)
    }

    /// Takes a folder with all that is in it out of the layer, at once however much that is.
    fn throw_away(&mut self, folder: &Folder, base: &[u8]) -> Result<(), Errno> {
        fs::renameat(&folder.fd, base, &self.trash, self.thrown.to_string())?;
        self.thrown += 1;
        let path = below(folder, base);
        let gone = self.folders.range(path.clone()..).map(|(inside, _)| inside);
        let gone: Vec<Parts> = gone.take_while(|inside| inside.starts_with(&path)).cloned().collect();
        for inside in gone {
            self.folders.remove(&inside);
        }
        Ok(())
    }

    /// Gives the folders what they should have.
    pub(super) fn finish(mut self) -> Result<(u64, bool), UnpackError> {
        // From the inside out: a folder may forbid to go into it.
        for (path, meta) in std::mem::take(&mut self.folders).into_iter().rev() {
            let name = path.join(&b'/');
            let set = || {
                let folder = self.reopen(path)?;
                fs::openat(&folder.fd, ".", READABLE, Mode::empty())
            };
            let fd = set().map_err(|errno| io_error(&name, errno))?;
            self.set_all(&fd, &meta, &name)?;
        }
        Ok((self.bytes, self.opaque))
    }

    /// Owner before mode, since the kernel takes set-uid from what changes hands; both before the capabilities, which it takes
    /// too; the times last.
    fn set_all(&self, fd: impl AsFd, meta: &Meta, name: &[u8]) -> Result<(), UnpackError> {
        let failed = |errno| io_error(name, errno);
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        self.allowed(fs::fchown(&fd, Some(uid), Some(gid))).map_err(failed)?;
        fs::fchmod(&fd, Mode::from_raw_mode(meta.mode)).map_err(failed)?;
        for (attribute, value) in meta.xattrs.iter().filter(|(attribute, _)| is_kept(attribute)) {
            match self.allowed(fs::fsetxattr(&fd, attribute.as_slice(), value, XattrFlags::empty())) {
                // The file system has none: as containerd, without.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        fs::futimens(&fd, &times(meta)).map_err(failed)
    }

    fn set_owner(&self, folder: &OwnedFd, base: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let (uid, gid) = (Uid::from_raw(entry.meta.uid), Gid::from_raw(entry.meta.gid));
        let set = fs::chownat(folder, base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        self.allowed(set).map_err(|errno| io_error(&entry.name, errno))
    }

    fn set_times(&self, folder: &OwnedFd, base: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        fs::utimensat(folder, base, &times(&entry.meta), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| io_error(&entry.name, errno))
    }

    /// What only root may do is left out by others.
    fn allowed(&self, done: Result<(), Errno>) -> Result<(), Errno> {
        match done {
            // INVAL: a user that the namespace doesn't have.
            Err(Errno::PERM | Errno::INVAL) if !self.privileged => Ok(()),
            done => done,
        }
    }
}

fn below(folder: &Folder, base: &[u8]) -> Parts {
    let mut path = folder.path.clone();
    path.push(base.to_vec());
    path
}

fn there(folder: &OwnedFd, base: &[u8]) -> Result<There, Errno> {
    let stat = match fs::statat(folder, base, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(There::Nothing),
        stat => stat?,
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => There::Directory,
        // No other device is ever made here.
        FileType::CharacterDevice => There::Whiteout,
        _ => There::Other,
    })
}

fn times(meta: &Meta) -> Timestamps {
    let (seconds, nanos) = meta.modified;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// File capabilities and users' own. What overlayfs believes is ours alone to say.
fn is_kept(attribute: &[u8]) -> bool {
    attribute == b"security.capability"
        || (attribute.starts_with(b"user.") && !attribute.starts_with(b"user.overlay."))
}

/// Whether this process is root, and of all users.
fn is_privileged() -> bool {
    let all = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    is_root && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(all)
}
