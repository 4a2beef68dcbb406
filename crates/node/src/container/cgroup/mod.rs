//! Pods' cgroups: they hold a pod's processes together whatever those do, and give them what their pod asks for.
//!
//! A machine has one hierarchy of version 2, or one of version 1 a controller, or both kinds. The first that can kill a cgroup as a
//! whole holds the pods' processes; the others that have controllers for values hold them too.

mod hierarchy;
mod kill;
mod mounts;
mod values;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use tracing::info_span;

use hierarchy::{Hierarchy, read};

pub(crate) use kill::kill;
pub use mounts::roots;
pub(crate) use values::{Amounts, of_container, of_pod};

/// How long a killed cgroup may take to be empty, and how often it is looked at.
const PATIENCE: (u32, Duration) = (400, Duration::from_millis(5));

/// The cgroups of one host's pods.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// The first holds the processes.
    all: Vec<Hierarchy>,
    name: String,
    controllers: String,
}

impl Cgroups {
    /// Those of the host `name`, beneath `roots`, as [`roots`] has them.
    ///
    /// # Errors
    /// Why there can be none, for people.
    pub(crate) fn open(roots: &[PathBuf], name: String) -> Result<Self, String> {
        let mut why =
            "no hierarchy of cgroups is mounted that can kill (version 2, or the freezer of version 1)"
                .to_owned();
        let (mut all, mut others) = (Vec::new(), Vec::new());
        for root in roots {
            match Hierarchy::open(root, &name) {
                Ok(opened) if all.is_empty() && opened.holds() => all.push(opened),
                Ok(opened) if opened.is_of_use() => others.push(opened),
                Ok(opened) => opened.close(&name),
                Err(error) if all.is_empty() => why = error,
                Err(why) => tracing::warn!(why, "pods go without this hierarchy of cgroups"),
            }
        }
        if all.is_empty() {
            others.iter().for_each(|other| other.close(&name));
            return Err(why);
        }
        all.append(&mut others);
        let has = |name: &&str| all.iter().any(|one| one.controllers.contains(name));
        let controllers: Vec<&str> = ["cpu", "memory"].into_iter().filter(has).collect();
        Ok(Cgroups { controllers: controllers.join(","), all, name })
    }

    /// The controllers that values are given to, with commas between.
    pub(crate) fn controllers(&self) -> &str {
        &self.controllers
    }

    /// Those of all pods of the host, for who kills them without this process ([`kill_pod`]).
    pub(crate) fn of_pods(&self) -> BorrowedFd<'_> {
        self.all[0].node.as_fd()
    }

    /// A container's cgroups, made and with its values, and those of its pod. The first is the one that can be killed.
    ///
    /// # Errors
    /// If one can't be made. A value that the kernel doesn't take is passed over: what it is for is bounded by the pod's then.
    pub(crate) fn of_container(
        &self,
        uid: &str,
        container: &str,
        wanted: &Wanted,
    ) -> io::Result<Vec<OwnedFd>> {
        self.all.iter().map(|one| one.make(uid, container, wanted)).collect()
    }

    /// Gives a container's cgroups other values, or without a name its pod's. Fine if there are none.
    ///
    /// # Errors
    /// What the kernel didn't take. Of a controller that the host hasn't got nothing is asked.
    pub(crate) fn update(&self, uid: &str, container: Option<&str>, amounts: Amounts) -> io::Result<()> {
        self.all.iter().try_for_each(|one| one.update(uid, container, amounts))
    }

    /// As [`Cgroups::update`], for who must not wait for the kernel meanwhile.
    ///
    /// # Errors
    /// What the kernel didn't take.
    pub(crate) async fn updated(
        self: Arc<Self>,
        uid: &str,
        container: Option<&str>,
        amounts: Amounts,
    ) -> io::Result<()> {
        let (uid, name) = (uid.to_owned(), container.map(str::to_owned));
        let span = info_span!("update a cgroup", uid, container = name);
        let update = move || self.update(&uid, name.as_deref(), amounts);
        tasks::blocking(span, update).await.map_err(io::Error::other)?
    }

    /// The cgroup of a pod whose containers another program makes in it, which has its values from now on if it wasn't there. Answers what that program
    /// calls it.
    ///
    /// # Errors
    /// If it can't be made, or has no name.
    pub(crate) fn for_others(&self, uid: &str, amounts: Amounts) -> io::Result<String> {
        for one in &self.all {
            match one.find(uid, None) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(one.make_pod(uid, amounts)?),
                found => drop(found?),
            }
        }
        self.name_for_others(uid)
    }

    /// What other programs call the cgroup of a pod: its path from the top of each hierarchy, which is the same in all.
    ///
    /// # Errors
    /// If it isn't there, or has several paths.
    pub(crate) fn name_for_others(&self, uid: &str) -> io::Result<String> {
        let tops = mounts::tops(&fs::read_to_string("/proc/self/mountinfo")?);
        let mut names = BTreeSet::new();
        for one in &self.all {
            let path = one.path(uid)?;
            let name = tops.iter().find_map(|top| path.strip_prefix(top).ok());
            let name = name.and_then(Path::to_str).ok_or_else(|| {
                io::Error::other(format!("{} lies beneath no top of a hierarchy", path.display()))
            })?;
            names.insert(format!("/{name}"));
        }
        match names.pop_first() {
            Some(name) if names.is_empty() => Ok(name),
            _ => Err(io::Error::other("it has not the same path in all hierarchies of cgroups")),
        }
    }

    /// As [`Cgroups::remove`], with what the program that made cgroups in a pod's left in hierarchies that aren't used here.
    pub(crate) async fn remove_with_others(self: &Arc<Self>, uid: &str) {
        let (all, of) = (self.clone(), uid.to_owned());
        let name = move || all.name_for_others(&of);
        let name = tasks::blocking(info_span!("find a cgroup", uid), name).await;
        self.remove(uid).await;
        let Ok(Ok(name)) = name else { return };
        let all = self.clone();
        let remove = move || all.remove_of_others(&name);
        if tasks::blocking(info_span!("remove others' cgroups", uid), remove).await.is_err() {
            tracing::warn!(uid, "what a runtime left of a pod's cgroups stays");
        }
    }

    /// Removes what other programs made under a name in hierarchies that aren't used here. Blocks.
    fn remove_of_others(&self, name: &str) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is_other = |top: &PathBuf| !self.all.iter().any(|one| one.has_folder(top));
        for top in mounts::tops(&table).into_iter().filter(is_other) {
            // The folders above it were made for it, too, unless something else is in them.
            let beneath = Path::new(name.trim_start_matches('/'));
            let folders = beneath.ancestors().filter(|folder| !folder.as_os_str().is_empty());
            let _ = folders.map(|folder| fs::remove_dir(top.join(folder))).take_while(Result::is_ok).count();
        }
    }

    /// What a container uses, as far as its cgroups say.
    pub(crate) fn usage(&self, uid: &str, container: &str) -> Used {
        let folders = || self.all.iter().filter_map(|one| one.find(uid, Some(container)).ok());
        Used {
            cpu: folders().find_map(|folder| cpu(folder.as_fd())),
            memory: folders().find_map(|folder| Memory::of(folder.as_fd())),
            processes: folders()
                .find_map(|folder| Some(read(folder.as_fd(), "cgroup.procs").ok()?.lines().count() as u64)),
        }
    }

    /// The memory of a pod as a whole, as far as its cgroups say: with what its ended containers left in its volumes in memory, which is
    /// no container's any more once that one's cgroup is gone.
    pub(crate) fn memory_of_pod(&self, uid: &str) -> Option<Memory> {
        self.all.iter().find_map(|one| Memory::of(one.find(uid, None).ok()?.as_fd()))
    }

    /// Likewise of several pods, for who must not wait for the kernel meanwhile.
    pub(crate) async fn memory_of_pods(self: Arc<Self>, uids: Vec<String>) -> HashMap<String, Memory> {
        let look = move || {
            let of = |uid: String| self.memory_of_pod(&uid).map(|memory| (uid, memory));
            uids.into_iter().filter_map(of).collect::<HashMap<String, Memory>>()
        };
        tasks::blocking(info_span!("what the pods use"), look).await.unwrap_or_default()
    }

    /// The uids of the pods that have cgroups.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut uids: Vec<String> = self.all.iter().flat_map(Hierarchy::pods).collect();
        uids.sort();
        uids.dedup();
        uids
    }

    /// Kills all that is in a pod's cgroups, and removes them. Fine if there are none.
    pub(crate) async fn remove(self: &Arc<Self>, uid: &str) {
        if let Err(error) = self.removed(uid, None).await {
            tracing::warn!(uid, %error, "a pod's cgroup can't be removed");
        }
    }

    /// Likewise those of a container's former life. The kernel counts from a cgroup's making on: one that stayed would count
    /// what that life used to the next one.
    pub(crate) async fn remove_former(self: &Arc<Self>, uid: &str, container: &str) {
        if let Err(error) = self.removed(uid, Some(container)).await {
            tracing::warn!(uid, container, %error, "the cgroup of a container's former life can't be removed");
        }
    }

    /// Removes cgroups by trying again until the kernel lets go.
    async fn removed(self: &Arc<Self>, uid: &str, container: Option<&str>) -> io::Result<()> {
        let (mut left, rest) = PATIENCE;
        loop {
            let (all, of, name) = (self.clone(), uid.to_owned(), container.map(str::to_owned));
            // What is killed in version 1 is stopped first, and that is waited for.
            let remove = move || all.remove_now(&of, name.as_deref());
            let removed = tasks::blocking(info_span!("remove a cgroup", uid, container), remove).await;
            let removed = removed.map_err(io::Error::other).flatten();
            if removed.is_ok() || left == 0 {
                return removed;
            }
            left -= 1;
            tokio::time::sleep(rest).await;
        }
    }

    /// Removes cgroups if the kernel lets them go. Blocks.
    fn remove_now(&self, uid: &str, container: Option<&str>) -> io::Result<()> {
        let mut all = self.all.iter().enumerate();
        all.try_for_each(|(at, one)| one.remove(uid, container, at == 0))
    }

    /// Removes the host's own cgroups, if no pod has one any more.
    pub(crate) fn close(&self) {
        self.all.iter().for_each(|one| one.close(&self.name));
    }
}

/// Removes the folder of all that is ours, where no host has anything in it any more.
pub(crate) fn remove_ours(roots: &[PathBuf]) {
    for root in roots {
        let _ = std::fs::remove_dir(root.join(hierarchy::OURS));
    }
}

/// The time of a processor that was had in a cgroup.
fn cpu(cgroup: BorrowedFd<'_>) -> Option<Duration> {
    if let Ok(stat) = read(cgroup, "cpu.stat")
        && let Some(micros) = number(&stat, "usage_usec")
    {
        return Some(Duration::from_micros(micros));
    }
    Some(Duration::from_nanos(read(cgroup, "cpuacct.usage").ok()?.trim().parse().ok()?))
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
    /// As version 2 says it, and version 1.
    const NAMES: [(&str, [&str; 4]); 2] = [
        ("memory.current", ["inactive_file", "anon", "pgfault", "pgmajfault"]),
        ("memory.usage_in_bytes", ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"]),
    ];

    fn of(cgroup: BorrowedFd<'_>) -> Option<Self> {
        Self::NAMES.iter().find_map(|(file, names)| {
            Self::read(&read(cgroup, file).ok()?, &read(cgroup, "memory.stat").unwrap_or_default(), names)
        })
    }

    /// From what is used now, and `memory.stat`.
    fn read(current: &str, stat: &str, names: &[&str; 4]) -> Option<Self> {
        let current = current.trim().parse::<u64>().ok()?;
        let [inactive, rss, faults, major_faults] = names.map(|name| number(stat, name).unwrap_or(0));
        Some(Memory {
            all: current,
            working_set: current.saturating_sub(inactive),
            rss,
            faults,
            major_faults,
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

/// Kills all that is in a pod's cgroup, of those of all pods of a host. Fine if it has none.
///
/// # Errors
/// If the kernel can't.
pub(crate) fn kill_pod(pods: BorrowedFd<'_>, uid: &str) -> io::Result<()> {
    match hierarchy::of_pod(pods, uid) {
        Ok(pod) => kill(pod.as_fd()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The files by which a process enters cgroups.
///
/// # Errors
/// If one can't be opened.
pub(crate) fn entrances(cgroups: &[OwnedFd]) -> io::Result<Vec<File>> {
    let open =
        |cgroup: &OwnedFd| openat(cgroup, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    cgroups.iter().map(|cgroup| Ok(open(cgroup)?.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_the_kernel_can_let_go_of_are_not_in_the_working_set() {
        let stat = "anon 30\nfile 60\nshmem 20\ninactive_anon 5\nactive_file 7\ninactive_file 40\npgfault 3\npgmajfault 1\n";
        let expected = Memory { all: 100, working_set: 60, rss: 30, faults: 3, major_faults: 1 };
        assert_eq!(Memory::read("100\n", stat, &Memory::NAMES[0].1), Some(expected));
        assert_eq!(Memory::read("max\n", stat, &Memory::NAMES[0].1), None);
        let stat = "inactive_file 1\nrss 2\ntotal_rss 30\ntotal_inactive_file 40\ntotal_pgfault 3\ntotal_pgmajfault 1\n";
        assert_eq!(Memory::read("100\n", stat, &Memory::NAMES[1].1), Some(expected));
    }
}
