//! Pods' cgroups (version 2): `ROOT/holdfast/NODE/pod-UID/CONTAINER`. They hold a pod's processes together whatever those do,
//! and give them what their pod asks for. Every step beneath the root goes by a descriptor of the folder above.

mod values;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::{AccessFlags, UnlinkatFlags, access, unlinkat};

pub(crate) use values::{Amounts, of_container, of_pod};

/// The folder of all that is ours.
const OURS: &str = "holdfast";
/// What a pod's folder begins with: nobody else's does, whatever a uid says.
const POD: &str = "pod-";
/// The controllers that values are for.
const CONTROLLERS: [&str; 2] = ["cpu", "memory"];
/// How deep a pod's own cgroups are looked into when it is removed.
///
/// A container that may make cgroups chooses the depth, and each level costs this process a descriptor.
const DEPTH: usize = 16;
/// How long a killed cgroup may take to be empty, and how often it is looked at.
const PATIENCE: (u32, Duration) = (400, Duration::from_millis(5));

/// The cgroups of one host's pods.
#[derive(Debug)]
pub(crate) struct Cgroups {
    ours: OwnedFd,
    node: OwnedFd,
    name: String,
    controllers: String,
}

/// Where this process may make cgroups: at the top of the hierarchy if it may write there, as the kubelet does without
/// systemd; else in its own, which somebody may have delegated to it. None where no hierarchy of version 2 is mounted.
pub fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        what.starts_with("cgroup2 ").then(|| place.split(' ').nth(4).map(PathBuf::from))?
    })?;
    if access(&mount, AccessFlags::W_OK).is_ok() {
        return Some(mount);
    }
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    Some(mount.join(own))
}

impl Cgroups {
    /// Those of the host `name`, beneath `root`.
    ///
    /// # Errors
    /// Why there can be none, for people.
    pub(crate) fn open(root: &Path, name: String) -> Result<Self, String> {
        let why = |what: &str, why: Errno| format!("{what} {}: {}", root.display(), why.desc());
        let top = open(root, FOLDER, Mode::empty()).map_err(|errno| why("can't open", errno))?;
        if !fstatfs(&top).is_ok_and(|about| about.filesystem_type() == CGROUP2_SUPER_MAGIC) {
            return Err(format!("{} is no cgroup of version 2", root.display()));
        }
        give(top.as_fd());
        let ours =
            make(top.as_fd(), OsStr::new(OURS)).map_err(|errno| why("can't make a cgroup in", errno))?;
        give(ours.as_fd());
        let node =
            make(ours.as_fd(), OsStr::new(&name)).map_err(|errno| why("can't make a cgroup in", errno))?;
        give(node.as_fd());
        if openat(&node, "cgroup.kill", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).is_err() {
            return Err("this kernel's cgroups can't be killed (Linux 5.14 can)".into());
        }
        let given = read(node.as_fd(), "cgroup.subtree_control").unwrap_or_default();
        let has = |name: &&&str| given.split_whitespace().any(|given| given == **name);
        let controllers: Vec<&str> = CONTROLLERS.iter().filter(has).copied().collect();
        Ok(Cgroups { ours, node, name, controllers: controllers.join(",") })
    }

    /// The controllers that values are given to, with commas between.
    pub(crate) fn controllers(&self) -> &str {
        &self.controllers
    }

    /// Those of all pods of the host, for who kills them without this process ([`kill_pod`]).
    pub(crate) fn of_pods(&self) -> BorrowedFd<'_> {
        self.node.as_fd()
    }

    /// A container's cgroup, made and with its values, and those of its pod.
    ///
    /// # Errors
    /// If it can't be made. A value that the kernel doesn't take is passed over: what it is for is bounded by the pod's then.
    pub(crate) fn of_container(&self, uid: &str, container: &str, wanted: &Wanted) -> io::Result<OwnedFd> {
        let pod = make(self.node.as_fd(), OsStr::new(&pod_name(uid)?))?;
        give(pod.as_fd());
        put(pod.as_fd(), &wanted.pod.v2());
        let container = make(pod.as_fd(), OsStr::new(single(container)?))?;
        put(container.as_fd(), &wanted.container.v2());
        // A container that is out of memory ends as a whole, rather than by one of its processes.
        put(container.as_fd(), &vec![("memory.oom.group", "1".to_owned())]);
        Ok(container)
    }

    /// Gives a container's cgroup other values, or without a name its pod's. Fine if there is none.
    ///
    /// # Errors
    /// What the kernel didn't take. Of a controller that the host hasn't got nothing is asked.
    pub(crate) fn update(&self, uid: &str, container: Option<&str>, amounts: Amounts) -> io::Result<()> {
        let folder = || -> io::Result<OwnedFd> {
            let pod = openat(&self.node, pod_name(uid)?.as_str(), FOLDER, Mode::empty())?;
            match container {
                Some(name) => Ok(openat(&pod, single(name)?, FOLDER, Mode::empty())?),
                None => Ok(pod),
            }
        };
        let folder = match folder() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder?,
        };
        for (file, value) in amounts.v2() {
            match write(folder.as_fd(), file, &value) {
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

    /// What a container uses, as far as its cgroup says.
    pub(crate) fn usage(&self, uid: &str, container: &str) -> Used {
        let folder = || -> io::Result<OwnedFd> {
            let pod = openat(&self.node, pod_name(uid)?.as_str(), FOLDER, Mode::empty())?;
            Ok(openat(&pod, single(container)?, FOLDER, Mode::empty())?)
        };
        let Ok(folder) = folder() else { return Used::default() };
        let text = |file: &str| read(folder.as_fd(), file).ok();
        let cpu = text("cpu.stat").and_then(|stat| number(&stat, "usage_usec")).map(Duration::from_micros);
        Used {
            cpu,
            memory: Memory::of(folder.as_fd()),
            processes: text("cgroup.procs").map(|list| list.lines().count() as u64),
        }
    }

    /// The memory of a pod as a whole, as far as its cgroup says: with what its ended containers left in its volumes in memory, which is
    /// no container's any more once that one's cgroup is gone.
    pub(crate) fn memory_of_pod(&self, uid: &str) -> Option<Memory> {
        let pod = openat(&self.node, pod_name(uid).ok()?.as_str(), FOLDER, Mode::empty()).ok()?;
        Memory::of(pod.as_fd())
    }

    /// The uids of the pods that have cgroups.
    pub(crate) fn pods(&self) -> Vec<String> {
        let name = |name: String| name.strip_prefix(POD).map(str::to_owned);
        children(self.node.as_fd()).into_iter().filter_map(name).collect()
    }

    /// Kills all that is in a pod's cgroups, and removes them. Fine if there are none.
    pub(crate) async fn remove(&self, uid: &str) {
        let removed = removed(|| remove_one(self.node.as_fd(), &pod_name(uid)?)).await;
        if let Err(error) = removed {
            tracing::warn!(uid, %error, "a pod's cgroup can't be removed");
        }
    }

    /// Likewise that of a container's former life. The kernel counts from a cgroup's making on: one that stayed would count
    /// what that life used to the next one.
    pub(crate) async fn remove_former(&self, uid: &str, container: &str) {
        let remove = || match openat(&self.node, pod_name(uid)?.as_str(), FOLDER, Mode::empty()) {
            Ok(pod) => remove_one(pod.as_fd(), single(container)?),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = removed(remove).await {
            tracing::warn!(uid, container, %error, "the cgroup of a container's former life can't be removed");
        }
    }

    /// Removes the host's own cgroup, if no pod has one any more.
    pub(crate) fn close(&self) {
        let _ = unlinkat(&self.ours, self.name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

/// What a cgroup says of what is in it; nothing of what its controllers don't count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// The time of a processor.
    pub cpu: Option<Duration>,
    pub memory: Option<Memory>,
    pub processes: Option<u64>,
}

/// Memory in bytes, as the kubelet tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub all: u64,
    /// Without files that the kernel can let go of.
    pub working_set: u64,
    pub rss: u64,
    pub faults: u64,
    pub major_faults: u64,
}

impl Memory {
    fn of(cgroup: BorrowedFd<'_>) -> Option<Self> {
        Self::read(&read(cgroup, "memory.current").ok()?, &read(cgroup, "memory.stat").unwrap_or_default())
    }

    /// From `memory.current` and `memory.stat`.
    fn read(current: &str, stat: &str) -> Option<Self> {
        let current = current.trim().parse::<u64>().ok()?;
        let of = |name: &str| number(stat, name).unwrap_or(0);
        Some(Memory {
            all: current,
            working_set: current.saturating_sub(of("inactive_file")),
            rss: of("anon"),
            faults: of("pgfault"),
            major_faults: of("pgmajfault"),
        })
    }
}

/// A number of a file of names and numbers.
fn number(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(known, _)| *known == name)?.1.parse().ok()
}

/// What the cgroups of a container and of its pod are to be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub pod: Amounts,
    pub container: Amounts,
}

/// Kills all that is in a cgroup and beneath it, at once: what is forked meanwhile dies too (cgroup-v2.rst, `cgroup.kill`).
///
/// # Errors
/// If the kernel can't.
pub(crate) fn kill(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    write(cgroup, "cgroup.kill", "1")
}

/// Likewise those of a pod, of those of all pods of a host. Fine if it has none.
///
/// # Errors
/// If the kernel can't.
pub(crate) fn kill_pod(pods: BorrowedFd<'_>, uid: &str) -> io::Result<()> {
    match openat(pods, pod_name(uid)?.as_str(), FOLDER, Mode::empty()) {
        Ok(pod) => kill(pod.as_fd()),
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a cgroup by trying again until the kernel lets go.
async fn removed(remove: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let (tries, rest) = PATIENCE;
    for _ in 0..tries {
        if remove().is_ok() {
            return Ok(());
        }
        tokio::time::sleep(rest).await;
    }
    remove()
}

fn remove_one(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let cgroup = match openat(parent, name, FOLDER, Mode::empty()) {
        Ok(cgroup) => cgroup,
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // A cgroup that holds processes can't be removed: they die first. They are gone a moment later only, so this is tried again.
    kill(cgroup.as_fd())?;
    remove_beneath(cgroup.as_fd(), DEPTH);
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}

/// The file by which a process enters a cgroup.
///
/// # Errors
/// If it can't be opened.
pub(crate) fn entrance(cgroup: BorrowedFd<'_>) -> io::Result<File> {
    Ok(openat(cgroup, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?.into())
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

/// Lets the cgroups beneath this one have what controllers there are.
fn give(cgroup: BorrowedFd<'_>) {
    for controller in CONTROLLERS {
        // One by one: those that this machine lacks, or keeps, are no reason to have none.
        let _ = write(cgroup, "cgroup.subtree_control", &format!("+{controller}"));
    }
}

fn put(cgroup: BorrowedFd<'_>, values: &values::Values) {
    for (file, value) in values {
        if let Err(error) = write(cgroup, file, value)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(file, value, %error, "a cgroup doesn't take a value");
        }
    }
}

fn write(cgroup: BorrowedFd<'_>, file: &str, value: &str) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    File::from(openat(cgroup, file, flags, Mode::empty())?).write_all(value.as_bytes())
}

fn read(cgroup: BorrowedFd<'_>, file: &str) -> io::Result<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_the_kernel_can_let_go_of_are_not_in_the_working_set() {
        let stat = "anon 30\nfile 60\nshmem 20\ninactive_anon 5\nactive_file 7\ninactive_file 40\npgfault 3\npgmajfault 1\n";
        let expected = Memory { all: 100, working_set: 60, rss: 30, faults: 3, major_faults: 1 };
        assert_eq!(Memory::read("100\n", stat), Some(expected));
        assert_eq!(Memory::read("max\n", stat), None);
    }
}
