//! Cgroups for one test.

use std::fs;
use std::path::{Path, PathBuf};

/// Cgroups for one test, one in each hierarchy; they go with it.
pub struct Top(pub Vec<PathBuf>);

impl Top {
    /// In all hierarchies that this machine has.
    pub fn make(name: &str) -> Option<Top> {
        Top::within(name, |_| true)
    }

    /// In those of version 1 alone, as on a machine that has no others.
    pub fn make_old(name: &str) -> Option<Top> {
        Top::within(&format!("{name}-old"), |root| !root.join("cgroup.controllers").exists())
    }

    fn within(name: &str, is_wanted: impl Fn(&Path) -> bool) -> Option<Top> {
        let own = format!("holdfast-test-{}-{name}", std::process::id());
        let roots = node::cgroup_roots().into_iter().filter(|root| is_wanted(root));
        let made: Vec<PathBuf> =
            roots.map(|root| root.join(&own)).filter(|top| fs::create_dir(top).is_ok()).collect();
        let top = Top(made);
        let can_kill = |top: &PathBuf| top.join("cgroup.kill").exists() || top.join("freezer.state").exists();
        if !top.0.iter().any(can_kill) {
            testing::skip("cgroups", "this user may make no such cgroups, or the kernel can't kill them");
            return None;
        }
        Some(top)
    }

    /// Lets no more processes be in them; false where this machine can't.
    pub fn bound_processes(&self, most: u32) -> bool {
        self.0.iter().any(|top| fs::write(top.join("pids.max"), most.to_string()).is_ok())
    }

    /// The cgroups of a pod, one in each hierarchy.
    fn of_pod(&self, uid: &str) -> Vec<PathBuf> {
        let hosts =
            self.0.iter().flat_map(|top| fs::read_dir(top.join("holdfast")).into_iter().flatten().flatten());
        hosts.map(|host| host.path().join(format!("pod-{uid}"))).filter(|pod| pod.exists()).collect()
    }

    /// The cgroup that holds the processes of a pod's container, if it is there.
    pub fn of(&self, uid: &str) -> Option<PathBuf> {
        self.of_pod(uid).into_iter().map(|pod| pod.join("main")).find(|container| container.exists())
    }

    /// What a file says of a pod (`""`) or of a container of it, in whichever hierarchy has it.
    pub fn read(&self, uid: &str, container: &str, file: &str) -> Option<String> {
        let mut places = self.of_pod(uid).into_iter().map(|pod| pod.join(container).join(file));
        places.find_map(|place| Some(fs::read_to_string(place).ok()?.trim().to_owned()))
    }

    /// The limits of a pod or of a container of it, in the words of version 2: the quota in 100 ms, and the memory. Nothing where no
    /// hierarchy has such limits.
    pub fn limits(&self, uid: &str, container: &str) -> (Option<String>, Option<String>) {
        let read = |file: &str| self.read(uid, container, file);
        let quota = read("cpu.max").and_then(|text| Some(text.split_once(' ')?.0.to_owned()));
        (
            quota.or_else(|| read("cpu.cfs_quota_us")),
            read("memory.max").or_else(|| read("memory.limit_in_bytes")),
        )
    }

    /// Whether nothing of a host is left in any hierarchy.
    pub fn is_empty(&self) -> bool {
        let ours =
            self.0.iter().flat_map(|top| fs::read_dir(top.join("holdfast")).into_iter().flatten().flatten());
        ours.filter(|entry| entry.path().is_dir()).count() == 0
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        fn remove(folder: &Path) {
            let children = fs::read_dir(folder).into_iter().flatten().flatten();
            children.filter(|child| child.path().is_dir()).for_each(|child| remove(&child.path()));
            let _ = fs::remove_dir(folder);
        }
        self.0.iter().for_each(|top| remove(top));
    }
}
