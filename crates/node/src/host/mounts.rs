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
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::mount_step::Step;
use crate::container::beneath::Spot;
use crate::container::{Access, Bind, ConfinedPath, Origin, Propagation};

/// What a process shall see.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    /// Its volumes.
    pub binds: &'a [Bind],
    /// Folders that keep their path, also where a volume covers a folder above them.
    pub kept: &'a [PathBuf],
    /// An empty folder of the pod's own.
    pub scratch: &'a Path,
    /// Whether all but the volumes is read-only.
    pub read_only: bool,
}

/// What the process-to-be does, each step with what it is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountPlan {
    pub(super) steps: Vec<(Step, Arc<str>)>,
}

fn c(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::other("a path with a NUL byte"))
}

/// Plans a view.
///
/// # Errors
/// If a source is missing, a target is not absolute, or a folder can't be read; with the volume and its path.
pub(crate) fn plan(view: &View<'_>) -> io::Result<MountPlan> {
    let mut binds = view.binds.to_vec();
    for bind in &binds {
        if !bind.target.is_absolute() || bind.target.components().any(|c| c == Component::ParentDir) {
            let why = format!("mountPath {} is not absolute", bind.target.display());
            return Err(io::Error::other(why));
        }
    }
    sort(&mut binds);
    resolve(&mut binds);
    for kept in view.kept {
        // The agent's own files may lie below a folder that a volume covers (an emptyDir at /tmp).
        if kept.exists() && binds.iter().any(|bind| kept.starts_with(&bind.target)) {
            binds.push(Bind {
                what: "the pod's own folder".into(),
                source: ConfinedPath::of(kept),
                target: kept.clone(),
                access: Access::Full,
                propagation: Propagation::None,
                origin: Origin::Host,
            });
        }
    }
    sort(&mut binds);
    let root = needs_root(&binds, view).then(|| view.scratch.join("root"));
    let mut planner = Planner {
        scratch: view.scratch,
        root,
        covered: Vec::new(),
        plan: MountPlan::default(),
        shows: Vec::new(),
    };
    if let Some(root) = planner.root.clone() {
        fs::create_dir_all(&root)?;
        let about: Arc<str> = "make the pod's root folder".into();
        planner.step(Step::Memory(c(&root)?), &about);
        planner.step(Step::NotShown(c(&root)?), &about);
        planner.show_entries(Path::new("/"), Path::new("/"), &root, &about)?;
    }
    for (number, bind) in binds.iter().enumerate() {
        planner.bind(bind, &binds[..number]).map_err(|error| {
            io::Error::new(error.kind(), format!("{} at {}: {error}", bind.what, bind.target.display()))
        })?;
    }
    planner.finish(view.read_only)
}

/// Outer paths first: an inner one lies within what the outer one shows.
fn sort(binds: &mut [Bind]) {
    binds.sort_by_key(|bind| bind.target.components().count());
}

/// Follows the links of the host's in all targets; below another volume's target, only that volume's content counts.
fn resolve(binds: &mut [Bind]) {
    let asked: Vec<PathBuf> = binds.iter().map(|bind| bind.target.clone()).collect();
    for number in 0..binds.len() {
        let outer = (0..number).rev().find(|outer| asked[number].starts_with(&asked[*outer]));
        let within = outer.and_then(|outer| {
            Some(binds[outer].target.join(asked[number].strip_prefix(&asked[outer]).ok()?))
        });
        binds[number].target = match within {
            Some(target) => target.components().collect(),
            None => resolved(&asked[number]),
        };
    }
}

/// Whether the mounts need a root folder of their own: one is missing right below the root, or one would cover
/// what another one is to show.
fn needs_root(binds: &[Bind], view: &View<'_>) -> bool {
    let touched = binds
        .iter()
        .filter(|bind| !has_outer(bind, binds))
        .map(|bind| if bind.target.exists() { bind.target.as_path() } else { existing(&bind.target) });
    let shown: Vec<PathBuf> = binds.iter().map(|bind| bind.source.path()).collect();
    let needed = shown.iter().map(PathBuf::as_path).chain([view.scratch]);
    let needed: Vec<&Path> = needed.collect();
    view.read_only || touched.into_iter().any(|touched| needed.iter().any(|path| path.starts_with(touched)))
}

fn has_outer(bind: &Bind, binds: &[Bind]) -> bool {
    binds.iter().any(|other| bind.target != other.target && bind.target.starts_with(&other.target))
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
    plan: MountPlan,
    /// What comes after all mount points are there.
    shows: Vec<(Step, Arc<str>)>,
}

impl Planner<'_> {
    /// The path as it is before the root changes.
    fn within(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    fn step(&mut self, step: Step, about: &Arc<str>) {
        self.plan.steps.push((step, about.clone()));
    }

    fn bind(&mut self, bind: &Bind, before: &[Bind]) -> io::Result<()> {
        let about: Arc<str> = format!("mount {} at {}", bind.what, bind.target.display()).into();
        let is_folder = bind.source.is_folder()?;
        let outer = before.iter().rev().find(|b| bind.target.starts_with(&b.target));
        let target = match outer {
            Some(outer) => {
                // Within another volume: the mount point is made there, as container runtimes do.
                let inner = bind.target.strip_prefix(&outer.target).map_err(io::Error::other)?;
                if inner != Path::new("") {
                    outer.source.join(inner).make(is_folder)?;
                }
                let top = before.iter().find(|b| bind.target.starts_with(&b.target)).unwrap_or(outer);
                let inner = bind.target.strip_prefix(&top.target).map_err(io::Error::other)?;
                ConfinedPath::of(self.within(&top.target)).join(inner)
            }
            None => {
                if !fs::metadata(&bind.target).is_ok_and(|m| m.is_dir() == is_folder) {
                    self.mount_point(&bind.target, is_folder, &about)?;
                }
                ConfinedPath::of(self.within(&bind.target))
            }
        };
        let show = Step::Show(Spot::of(&bind.source)?, Spot::of(&target)?, bind.access);
        self.shows.push((show, about.clone()));
        if bind.access == Access::ReadOnly && bind.source.is_plain() && target.is_plain() {
            let flags = mount_flags(&bind.source.root);
            self.shows.push((Step::ReadOnly(c(&target.root)?, flags), about));
        }
        Ok(())
    }

    /// Makes a mount point that the host doesn't have, in memory over the nearest folder that it has.
    fn mount_point(&mut self, target: &Path, is_folder: bool, about: &Arc<str>) -> io::Result<()> {
        let folder = existing(target).to_owned();
        if !self.covered.contains(&folder) {
            self.cover_in_place(&folder, about)?;
        }
        let mut path = self.within(&folder);
        let missing = target.strip_prefix(&folder).map_err(io::Error::other)?;
        let parts: Vec<_> = missing.components().collect();
        for (n, part) in parts.iter().enumerate() {
            path.push(part);
            let last = n + 1 == parts.len();
            let step = if last && !is_folder { Step::File } else { Step::Folder };
            self.step(step(c(&path)?), about);
        }
        Ok(())
    }

    /// Covers a folder by memory that shows the same entries.
    fn cover_in_place(&mut self, folder: &Path, about: &Arc<str>) -> io::Result<()> {
        let place = self.within(folder);
        if self.root.is_some() {
            // What the host has stays where it is until the root changes.
            self.step(Step::Memory(c(&place)?), about);
            return self.show_entries(folder, folder, &place, about);
        }
        let aside = self.scratch.join(format!("aside-{}", self.covered.len()));
        fs::create_dir_all(&aside)?;
        self.step(Step::show(c(&place)?, c(&aside)?), about);
        self.step(Step::Memory(c(&place)?), about);
        self.show_entries(folder, &aside, &place, about)?;
        self.step(Step::Hide(c(&aside)?), about);
        Ok(())
    }

    /// Shows the entries of `folder`, which lie at `from` now, in the memory at `place`.
    fn show_entries(&mut self, folder: &Path, from: &Path, place: &Path, about: &Arc<str>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (source, target) = (from.join(entry.file_name()), place.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                self.step(Step::Link(c(&fs::read_link(entry.path())?)?, c(&target)?), about);
                continue;
            }
            let step = if kind.is_dir() { Step::Folder } else { Step::File };
            self.step(step(c(&target)?), about);
            self.step(Step::show(c(&source)?, c(&target)?), about);
        }
        self.covered.push(folder.to_owned());
        Ok(())
    }

    /// All mount points are there: the volumes can follow, and what is not one of them may become read-only.
    fn finish(mut self, read_only: bool) -> io::Result<MountPlan> {
        if read_only && let Some(root) = &self.root {
            self.plan.steps.push((Step::ReadOnlyBelow(c(root)?), "make the root folder read-only".into()));
            let shared = Path::new("/dev/shm");
            if shared.is_dir() {
                // As a container has it: memory of its own to share among its processes.
                self.plan.steps.push((Step::Memory(c(&self.within(shared))?), "mount /dev/shm".into()));
            }
        }
        self.plan.steps.append(&mut self.shows);
        if let Some(root) = &self.root {
            self.plan.steps.push((Step::Root(c(root)?), "change the root folder".into()));
        }
        Ok(self.plan)
    }
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
