//! What another Kubernetes runs or has left on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use super::{processes, text};
use crate::facts::Leftovers;

/// Its programs, by the names that the kernel keeps (15 letters). Not the scheduler and the controllers: upstream's may run on Holdfast.
const PROGRAMS: [&str; 9] =
    ["kubelet", "kubelite", "kube-apiserver", "kube-proxy", "k3s", "k3s-server", "k3s-agent", "k0s", "rke2"];
const FOLDERS: [&str; 8] = [
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/lib/k0s",
    "/var/lib/rancher/k3s",
    "/var/lib/rancher/rke2",
    "/etc/rancher",
    "/var/snap/microk8s/current",
    "/var/lib/kube-proxy",
];
const CNI: &str = "/etc/cni/net.d";
/// Where containerd keeps the bundles of the pods that it runs for a kubelet.
const CONTAINERD: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

pub(super) fn leftovers() -> Leftovers {
    // Those in containers, such as kind's hosts, live in networks of their own and are in nobody's way.
    let network = fs::read_link("/proc/self/ns/net").ok();
    let is_here = |folder: &Path| fs::read_link(folder.join("ns/net")).ok() == network;
    let known =
        |folder: &Path| text(folder.join("comm")).is_some_and(|name| PROGRAMS.contains(&name.as_str()));
    let running = processes::all().filter(|(_, folder)| known(folder) && is_here(folder));
    Leftovers {
        processes: running.map(|(pid, folder)| processes::holder(pid, &folder)).collect(),
        folders: FOLDERS.iter().map(PathBuf::from).filter(|folder| !is_empty(folder)).collect(),
        cni: files(Path::new(CNI)).into_iter().filter(|file| is_cni(file)).collect(),
        containerd: !is_empty(Path::new(CONTAINERD)),
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}

/// Empty, or not there.
fn is_empty(folder: &Path) -> bool {
    files(folder).is_empty()
}

fn is_cni(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "conf" || end == "conflist" || end == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_configurations_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_empty(folder.path()) && is_empty(&folder.path().join("nothing")));
        fs::write(folder.path().join("10-flannel.conflist"), "{}").unwrap();
        assert!(!is_empty(folder.path()));
        assert!(files(folder.path()).iter().all(|file| is_cni(file)));
        assert!(!is_cni(Path::new("/etc/cni/net.d/README")));
    }
}
