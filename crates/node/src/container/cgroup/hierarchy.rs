//! One hierarchy of cgroups, of version 2 or 1: `ROOT/holdfast/NODE/pod-UID/CONTAINER` in it. Every step beneath the root goes by a
//! descriptor of the folder above.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Amounts;
use super::kill::{self, kill};
use super::values::Values;

/// The folder of all that is ours.
pub(super) const OURS: &str = "holdfast";
/// What a pod's folder begins with: nobody else's does, whatever a uid says.
const POD: &str = "pod-";
/// The file with the most processes and threads, in both versions.
const PROCESSES: &str = "pids.max";
/// The controllers that values are for, each with a file that its cgroups of version 1 have.
const CONTROLLERS: [(&str, &str); 3] =
    [("cpu", "cpu.shares"), ("memory", "memory.limit_in_bytes"), ("pids", PROCESSES)];
/// How deep a pod's own cgroups are looked into when it is removed.
///
/// A container that may make cgroups chooses the depth, and each level costs this process a descriptor.
const DEPTH: usize = 16;

/// Where one host's pods have their cgroups in one hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    is_v2: bool,
    ours: OwnedFd,
    pub(super) node: OwnedFd,
    /// The controllers that values are given to.
    pub(super) controllers: Vec<&'static str>,
    /// How many processes and threads there may be at most, if that is known.
    processes: Option<u64>,
}

impl Hierarchy {
    /// Those of the host `name`, beneath `root`.
    ///
    /// # Errors
    /// Why there can be none, for people.
    pub(super) fn open(root: &Path, name: &str) -> Result<Self, String> {
        let why = |what: &str, why: Errno| format!("{what} {}: {}", root.display(), why.desc());
        let top = open(root, FOLDER, Mode::empty()).map_err(|errno| why("can't open", errno))?;
        let is_v2 = match fstatfs(&top).map(|about| about.filesystem_type()) {
            Ok(CGROUP2_SUPER_MAGIC) => true,
            Ok(CGROUP_SUPER_MAGIC) => false,
            _ => return Err(format!("{} is no cgroup", root.display())),
        };
        give(top.as_fd());
        let ours =
            make(top.as_fd(), OsStr::new(OURS)).map_err(|errno| why("can't make a cgroup in", errno))?;
        give(ours.as_fd());
        // Of version 1 only then do the limits of a pod hold its containers too. What is made beneath has it from here.
        let _ = write(ours.as_fd(), "memory.use_hierarchy", "1");
        let node =
            make(ours.as_fd(), OsStr::new(name)).map_err(|errno| why("can't make a cgroup in", errno))?;
        give(node.as_fd());
        let given = read(node.as_fd(), "cgroup.subtree_control").unwrap_or_default();
        let is_given = |(name, file): &(&str, &str)| match is_v2 {
            true => given.split_whitespace().any(|given| given == *name),
            false => has(node.as_fd(), file),
        };
        let controllers = CONTROLLERS.into_iter().filter(is_given).map(|(name, _)| name).collect();
        let of = |cgroup: &OwnedFd| read(cgroup.as_fd(), PROCESSES).unwrap_or_default();
        // What pods do leaves the machine some of its own: those of all runtimes and hosts on it together.
        if of(&ours).trim() == "max" {
            let most = most_processes([of(&top)]);
            bound_processes(ours.as_fd(), most.map(|most| most.saturating_mul(9) / 10));
        }
        let processes = most_processes([of(&top), of(&ours)]);
        Ok(Hierarchy { is_v2, ours, node, controllers, processes })
    }

    /// Whether all that is in one of its cgroups can be killed as a whole.
    pub(super) fn holds(&self) -> bool {
        [kill::KILL, kill::FREEZER].iter().any(|file| has(self.node.as_fd(), file))
    }

    /// Whether it counts or bounds something of what is in it.
    pub(super) fn is_of_use(&self) -> bool {
        !self.controllers.is_empty() || has(self.node.as_fd(), "cpuacct.usage")
    }

    /// A container's cgroup, made and with its values, and those of its pod.
    ///
    /// # Errors
    /// If it can't be made. A value that the kernel doesn't take is passed over: what it is for is bounded by the pod's then.
    pub(super) fn make(&self, uid: &str, container: &str, wanted: &super::Wanted) -> io::Result<OwnedFd> {
        let pod = self.make_pod(uid, wanted.pod)?;
        let container = make(pod.as_fd(), OsStr::new(single(container)?))?;
        put(container.as_fd(), &self.values(wanted.container));
        // A container that is out of memory ends as a whole, rather than by one of its processes.
        put(container.as_fd(), &vec![("memory.oom.group", "1".to_owned())]);
        Ok(container)
    }

    /// The cgroup of a pod, made and with its values, in which others may be made.
    ///
    /// # Errors
    /// If it can't be made.
    pub(super) fn make_pod(&self, uid: &str, amounts: Amounts) -> io::Result<OwnedFd> {
        let pod = make(self.node.as_fd(), OsStr::new(&pod_name(uid)?))?;
        give(pod.as_fd());
        put(pod.as_fd(), &self.values(amounts));
        // One that forks without end leaves the others as many.
        bound_processes(pod.as_fd(), self.processes.map(|most| most / 2));
        Ok(pod)
    }

    /// Where the cgroup of a pod lies, if it is there.
    pub(super) fn path(&self, uid: &str) -> io::Result<PathBuf> {
        let pod = self.find(uid, None)?;
        fs::read_link(format!("/proc/self/fd/{}", pod.as_raw_fd()))
    }

    /// Whether a folder is in it.
    pub(super) fn has_folder(&self, folder: &Path) -> bool {
        let own = fstat(&self.node).map(|about| about.st_dev);
        fs::metadata(folder).is_ok_and(|about| Ok(about.dev()) == own)
    }

    /// Gives a container's cgroup other values, or without a name its pod's. Fine if there is none.
    ///
    /// # Errors
    /// What the kernel didn't take. Of a controller that isn't here nothing is asked.
    pub(super) fn update(&self, uid: &str, container: Option<&str>, amounts: Amounts) -> io::Result<()> {
        let cgroup = match self.find(uid, container) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            cgroup => cgroup?,
        };
        for (file, value) in self.values(amounts) {
            match write(cgroup.as_fd(), file, &value) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("{file} doesn't take {value:?}: {error}"),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn values(&self, amounts: Amounts) -> Values {
        if self.is_v2 { amounts.v2() } else { amounts.v1() }
    }

    /// The cgroup of a container, or without a name of its pod.
    pub(super) fn find(&self, uid: &str, container: Option<&str>) -> io::Result<OwnedFd> {
        let pod = openat(&self.node, pod_name(uid)?.as_str(), FOLDER, Mode::empty())?;
        match container {
            Some(name) => Ok(openat(&pod, single(name)?, FOLDER, Mode::empty())?),
            None => Ok(pod),
        }
    }

    /// The uids of the pods that have cgroups.
    pub(super) fn pods(&self) -> Vec<String> {
        let name = |name: String| name.strip_prefix(POD).map(str::to_owned);
        children(self.node.as_fd()).into_iter().filter_map(name).collect()
    }

    /// Removes a container's cgroup, or without a name its pod's; what is in it dies first, where this one `holds` processes. They are
    /// gone a moment later only, so this is tried again.
    pub(super) fn remove(&self, uid: &str, container: Option<&str>, holds: bool) -> io::Result<()> {
        let removed = match container {
            None => remove_one(self.node.as_fd(), &pod_name(uid)?, holds),
            Some(name) => self.find(uid, None).and_then(|pod| remove_one(pod.as_fd(), single(name)?, holds)),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes the host's own cgroup, if no pod has one any more.
    pub(super) fn close(&self, name: &str) {
        let _ = unlinkat(&self.ours, name, UnlinkatFlags::RemoveDir);
    }
}

fn remove_one(parent: BorrowedFd<'_>, name: &str, holds: bool) -> io::Result<()> {
    let cgroup = openat(parent, name, FOLDER, Mode::empty())?;
    if holds {
        kill(cgroup.as_fd())?;
    }
    remove_beneath(cgroup.as_fd(), DEPTH);
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}

/// The cgroup of a pod among those of all pods.
pub(super) fn of_pod(pods: BorrowedFd<'_>, uid: &str) -> io::Result<OwnedFd> {
    Ok(openat(pods, pod_name(uid)?.as_str(), FOLDER, Mode::empty())?)
}

const FOLDER: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens a cgroup, which is made if it isn't there.
fn make(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => openat(parent, name, FOLDER, Mode::empty()),
        Err(error) => Err(error),
    }
}

/// Lets the cgroups beneath this one have what controllers there are: of version 1 they have them anyway.
fn give(cgroup: BorrowedFd<'_>) {
    for (controller, _) in CONTROLLERS {
        // One by one: those that this machine lacks, or keeps, are no reason to have none.
        let _ = write(cgroup, "cgroup.subtree_control", &format!("+{controller}"));
    }
}

fn put(cgroup: BorrowedFd<'_>, values: &Values) {
    for (file, value) in values {
        if let Err(error) = write(cgroup, file, value)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(file, value, %error, "a cgroup doesn't take a value");
        }
    }
}

/// How many processes and threads this machine takes, beneath cgroups that say this of it.
fn most_processes<const N: usize>(above: [String; N]) -> Option<u64> {
    let kernels = ["pid_max", "threads-max"]
        .map(|name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default());
    kernels.into_iter().chain(above).filter_map(|text| text.trim().parse().ok()).min()
}

/// Lets no more processes and threads be in a cgroup.
fn bound_processes(cgroup: BorrowedFd<'_>, most: Option<u64>) {
    if let Some(most) = most {
        put(cgroup, &vec![(PROCESSES, most.max(1).to_string())]);
    }
}

fn has(cgroup: BorrowedFd<'_>, file: &str) -> bool {
    openat(cgroup, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty()).is_ok()
}

pub(super) fn write(cgroup: BorrowedFd<'_>, file: &str, value: &str) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    File::from(openat(cgroup, file, flags, Mode::empty())?).write_all(value.as_bytes())
}

pub(super) fn read(cgroup: BorrowedFd<'_>, file: &str) -> io::Result<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    io::read_to_string(File::from(openat(cgroup, file, flags, Mode::empty())?))
}

/// The names of the cgroups beneath.
fn children(cgroup: BorrowedFd<'_>) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/self/fd/{}", cgroup.as_raw_fd()));
    let folders = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Shows a cgroup and those beneath it, one after the other.
pub(super) fn each(cgroup: BorrowedFd<'_>, see: &mut dyn FnMut(BorrowedFd<'_>)) {
    fn look(cgroup: BorrowedFd<'_>, depth: usize, see: &mut dyn FnMut(BorrowedFd<'_>)) {
        see(cgroup);
        for name in children(cgroup).into_iter().filter(|_| depth > 0) {
            if let Ok(child) = openat(cgroup, name.as_str(), FOLDER, Mode::empty()) {
                look(child.as_fd(), depth - 1, see);
            }
        }
    }
    look(cgroup, DEPTH, see);
}

/// The processes in a cgroup and in those beneath it.
pub(super) fn processes(cgroup: BorrowedFd<'_>) -> Vec<i32> {
    let mut found = Vec::new();
    each(cgroup, &mut |one| {
        let own = read(one, "cgroup.procs").unwrap_or_default();
        // One that can't be named from here is 0, which to a signal is this process' own group.
        found.extend(own.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    });
    found
}

fn remove_beneath(cgroup: BorrowedFd<'_>, depth: usize) {
    for name in children(cgroup) {
        if depth > 0
            && let Ok(child) = openat(cgroup, name.as_str(), FOLDER, Mode::empty())
        {
            remove_beneath(child.as_fd(), depth - 1);
        }
        let _ = unlinkat(cgroup, name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

fn pod_name(uid: &str) -> io::Result<String> {
    Ok(format!("{POD}{}", single(uid)?))
}

/// A name that leads nowhere else.
fn single(name: &str) -> io::Result<&str> {
    if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name for a cgroup")));
    }
    Ok(name)
}
