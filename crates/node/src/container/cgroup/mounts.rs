//! Where on a machine cgroups can be made.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// The controllers of version 1 that are of use here; the first is what holds processes together where there is no version 2.
const OLD: [&str; 5] = ["freezer", "cpu", "cpuacct", "memory", "pids"];

/// Where this process may make cgroups: in the hierarchy of version 2, if it is mounted, then in those of version 1. Of each at the top if
/// it may write there, as the kubelet does without systemd; else in its own cgroup, which somebody may have delegated to it.
pub fn roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    find(&mounts, &own, |place| access(place, AccessFlags::W_OK).is_ok())
}

fn find(mounts: &str, own: &str, is_open: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mounted = |is_it: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let (place, what) = line.split_once(" - ")?;
            let mut what = what.split(' ');
            let (kind, options) = (what.next()?, what.nth(1)?);
            is_it(kind, options).then(|| place.split(' ').nth(4).map(PathBuf::from))?
        })
    };
    let place = |mount: PathBuf, controller: &str| {
        if is_open(&mount) {
            return Some(mount);
        }
        let is_its = |list: &str| list.split(',').any(|known| known == controller);
        let mut lines = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let (_, own) = lines.find(|(list, _)| is_its(list))?;
        Some(mount.join(own.trim_start_matches('/')))
    };
    let new = mounted(&|kind, _| kind == "cgroup2").and_then(|mount| place(mount, ""));
    let mut all: Vec<PathBuf> = new.into_iter().collect();
    for controller in OLD {
        let has =
            |kind: &str, options: &str| kind == "cgroup" && options.split(',').any(|one| one == controller);
        // Some are mounted together.
        let found =
            mounted(&has).and_then(|mount| place(mount, controller)).filter(|found| !all.contains(found));
        all.extend(found);
    }
    all
}

/// Where hierarchies of cgroups are mounted from their tops on, by a mount table.
pub(super) fn tops(mounts: &str) -> Vec<PathBuf> {
    let top = |line: &str| {
        let (place, what) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        (root == "/" && what.starts_with("cgroup")).then(|| PathBuf::from(point))
    };
    mounts.lines().filter_map(top).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_has_a_top_where_it_is_mounted_as_a_whole() {
        let mounts = "30 23 0:26 / /c/unified rw - cgroup2 cgroup2 rw\n31 23 0:27 /part /c/cpu rw shared:1 - cgroup cgroup rw,cpu\n\
                      32 23 0:28 / /c/memory rw shared:2 - cgroup cgroup rw,memory\n33 23 0:29 / /c rw - tmpfs tmpfs rw\nodd\n";
        assert_eq!(tops(mounts), [Path::new("/c/unified"), Path::new("/c/memory")]);
    }

    #[test]
    fn each_hierarchy_that_is_of_use_is_found_once() {
        let mounts = "30 23 0:26 / /c/unified rw - cgroup2 cgroup2 rw\n\
                      31 23 0:27 / /c/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                      32 23 0:28 / /c/memory rw - cgroup cgroup rw,memory\n\
                      33 23 0:29 / /c/freezer rw - cgroup cgroup rw,freezer\n\
                      35 23 0:31 / /c/pids rw - cgroup cgroup rw,pids\n\
                      34 23 0:30 / /c/systemd rw - cgroup cgroup rw,name=systemd\n";
        let own = "3:memory:/own/one\n2:cpu,cpuacct:/\n0::/two\n";
        let names =
            |found: Vec<PathBuf>| found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let all = find(mounts, own, |_| true);
        assert_eq!(names(all), ["/c/unified", "/c/freezer", "/c/cpu,cpuacct", "/c/memory", "/c/pids"]);
        let delegated = find(mounts, own, |_| false);
        assert_eq!(names(delegated), ["/c/unified/two", "/c/cpu,cpuacct/", "/c/memory/own/one"]);
        assert_eq!(names(find("1 2 0:1 / / rw - ext4 /dev/a rw", own, |_| true)), [""; 0]);
    }
}
