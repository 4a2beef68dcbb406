//! Volumes at their mount paths: a plan of mounts, made with the host's folders in view, and carried out by
//! the process-to-be in its own mount namespace.
//!
//! Nothing is ever made on the host's own file systems for a mount path that doesn't exist there: the
//! nearest folder that does is covered by a memory file system that shows the same entries and has room for
//! the missing one; for the root, the process gets a new root of that kind.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One volume at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// What is shown.
    pub source: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Whether the process may only read it.
    pub read_only: bool,
}

/// One system call of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes a folder (fine if it is there).
    Folder(CString),
    /// Makes an empty file (fine if it is there).
    File(CString),
    /// Makes a symbolic link: (content, path).
    Link(CString, CString),
    /// Mounts an empty memory file system.
    Memory(CString),
    /// Shows a path with all mounted below it elsewhere: (source, target).
    Show(CString, CString),
    /// Makes a shown path read-only, keeping the flags that its mount has.
    ReadOnly(CString, libc::c_ulong),
    /// Takes a mount away.
    Hide(CString),
    /// Changes the root folder.
    Root(CString),
}

/// What the process-to-be does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) steps: Vec<Step>,
}

fn c(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::other("a path with a NUL byte"))
}

/// Plans `binds`; `scratch` is an empty folder of the pod's own.
///
/// # Errors
/// If a source is missing, a target is not absolute, or a folder can't be read.
pub(crate) fn plan(binds: &[Bind], scratch: &Path) -> io::Result<Plan> {
    let mut binds: Vec<Bind> = binds.to_vec();
    for bind in &mut binds {
        if !bind.target.is_absolute() || bind.target.components().any(|c| c == Component::ParentDir) {
            let why = format!("mountPath {} is not absolute", bind.target.display());
            return Err(io::Error::other(why));
        }
        bind.target = resolved(&bind.target);
    }
    // Outer paths first: an inner one lies within what the outer one shows.
    binds.sort_by_key(|bind| bind.target.components().count());
    let mut planner = Planner { scratch, root: None, covered: Vec::new(), plan: Plan::default() };
    let needs_root = binds.iter().any(|b| !b.target.exists() && existing(&b.target) == Path::new("/"));
    if needs_root {
        let root = scratch.join("root");
        fs::create_dir_all(&root)?;
        planner.cover(Path::new("/"), Path::new("/"), &root)?;
        planner.root = Some(root);
    }
    for (place, bind) in binds.iter().enumerate() {
        planner.bind(bind, &binds[..place])?;
    }
    if let Some(root) = &planner.root {
        planner.plan.steps.push(Step::Root(c(root)?));
    }
    Ok(planner.plan)
}

/// The path with symbolic links in its existing part resolved.
fn resolved(path: &Path) -> PathBuf {
    let mut missing: Vec<&OsStr> = Vec::new();
    let mut at = path;
    loop {
        if let Ok(real) = at.canonicalize() {
            return missing.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                at = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

/// The nearest folder above the path that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().skip(1).find(|p| p.is_dir()).unwrap_or(Path::new("/"))
}

struct Planner<'a> {
    scratch: &'a Path,
    root: Option<PathBuf>,
    /// Folders that are covered by memory already: things can be made there.
    covered: Vec<PathBuf>,
    plan: Plan,
}

impl Planner<'_> {
    /// The path as it is before the root changes.
    fn within(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    fn bind(&mut self, bind: &Bind, before: &[Bind]) -> io::Result<()> {
        let is_folder = fs::metadata(&bind.source)?.is_dir();
        let outer = before.iter().rev().find(|b| bind.target.starts_with(&b.target));
        if let Some(outer) = outer {
            // Within another volume: the mount point is made there, as container runtimes do.
            let inner = bind.target.strip_prefix(&outer.target).map_err(io::Error::other)?;
            let point = outer.source.join(inner);
            if inner != Path::new("") && !point.exists() {
                let made = if is_folder { fs::create_dir_all(&point) } else { touch(&point) };
                made?;
            }
        } else if !fs::metadata(&bind.target).is_ok_and(|m| m.is_dir() == is_folder) {
            let folder = existing(&bind.target).to_owned();
            if !self.covered.contains(&folder) {
                let place = self.within(&folder);
                self.cover_in_place(&folder, &place)?;
            }
            let mut path = self.within(&folder);
            let missing = bind.target.strip_prefix(&folder).map_err(io::Error::other)?;
            let parts: Vec<_> = missing.components().collect();
            for (n, part) in parts.iter().enumerate() {
                path.push(part);
                let last = n + 1 == parts.len();
                let step = if last && !is_folder { Step::File } else { Step::Folder };
                self.plan.steps.push(step(c(&path)?));
            }
        }
        let target = c(&self.within(&bind.target))?;
        self.plan.steps.push(Step::Show(c(&bind.source)?, target.clone()));
        if bind.read_only {
            self.plan.steps.push(Step::ReadOnly(target, mount_flags(&bind.source)));
        }
        Ok(())
    }

    /// Covers a folder by memory that shows the same entries.
    fn cover_in_place(&mut self, folder: &Path, place: &Path) -> io::Result<()> {
        let aside = self.scratch.join(format!("aside-{}", self.covered.len()));
        fs::create_dir_all(&aside)?;
        self.plan.steps.push(Step::Show(c(place)?, c(&aside)?));
        self.cover(folder, &aside, place)?;
        self.plan.steps.push(Step::Hide(c(&aside)?));
        Ok(())
    }

    /// Memory at `place` with the entries of `folder`, which are shown from `from`.
    fn cover(&mut self, folder: &Path, from: &Path, place: &Path) -> io::Result<()> {
        self.plan.steps.push(Step::Memory(c(place)?));
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (source, target) = (from.join(entry.file_name()), place.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                self.plan.steps.push(Step::Link(c(&fs::read_link(entry.path())?)?, c(&target)?));
                continue;
            }
            let step = if kind.is_dir() { Step::Folder } else { Step::File };
            self.plan.steps.push(step(c(&target)?));
            self.plan.steps.push(Step::Show(c(&source)?, c(&target)?));
        }
        self.covered.push(folder.to_owned());
        Ok(())
    }
}

fn touch(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
}

/// The flags that a remount must repeat: within a user namespace they can't be taken off.
fn mount_flags(path: &Path) -> libc::c_ulong {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let Ok(stat) = statvfs(path) else { return 0 };
    [
        (FsFlags::ST_NOSUID, libc::MS_NOSUID),
        (FsFlags::ST_NODEV, libc::MS_NODEV),
        (FsFlags::ST_NOEXEC, libc::MS_NOEXEC),
        (FsFlags::ST_NOATIME, libc::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, libc::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, libc::MS_RELATIME),
    ]
    .iter()
    .filter(|(flag, _)| stat.flags().contains(*flag))
    .fold(0, |all, (_, flag)| all | flag)
}

impl Step {
    /// Carries the step out. Makes nothing but system calls: it runs between fork and exec.
    pub(super) fn run(&self) -> io::Result<()> {
        let null = std::ptr::null();
        let mount = |source: *const libc::c_char, target: &CString, kind, flags| {
            // SAFETY: every pointer is null or a string that lives through the call.
            unsafe { libc::mount(source, target.as_ptr(), kind, flags, null) }
        };
        let result = match self {
            // SAFETY: the path is a string that lives through the call.
            Step::Folder(path) => exists_is_fine(unsafe { libc::mkdir(path.as_ptr(), 0o755) }),
            Step::File(path) => {
                let flags = libc::O_CREAT | libc::O_CLOEXEC | libc::O_RDONLY;
                // SAFETY: the path lives through the call; the descriptor is closed here and nowhere else.
                unsafe {
                    let file = libc::open(path.as_ptr(), flags, 0o644);
                    if file < 0 { file } else { libc::close(file) }
                }
            }
            Step::Link(to, path) => {
                // SAFETY: both strings live through the call.
                exists_is_fine(unsafe { libc::symlink(to.as_ptr(), path.as_ptr()) })
            }
            Step::Memory(path) => mount(c"none".as_ptr(), path, c"tmpfs".as_ptr(), 0),
            Step::Show(source, target) => {
                mount(source.as_ptr(), target, null.cast(), libc::MS_BIND | libc::MS_REC)
            }
            Step::ReadOnly(path, flags) => mount(
                null.cast(),
                path,
                null.cast(),
                libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | flags,
            ),
            // SAFETY: the path is a string that lives through the call.
            Step::Hide(path) => unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) },
            // SAFETY: the strings live through the calls.
            Step::Root(path) => unsafe {
                if libc::chroot(path.as_ptr()) == 0 { libc::chdir(c"/".as_ptr()) } else { -1 }
            },
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn exists_is_fine(result: libc::c_int) -> libc::c_int {
    let exists = || io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST);
    if result < 0 && exists() { 0 } else { result }
}
