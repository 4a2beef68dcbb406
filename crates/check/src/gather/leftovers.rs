//! What another Kubernetes runs or has left on this machine.

use std::fs;
use std::io;
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
    let mut left = Leftovers::default();
    // Where /proc is mounted with `hidepid`, others' processes are hidden: the first is always there.
    if text("/proc/1/comm").is_none() {
        left.unseen.push("other users' processes".to_owned());
    }
    let own = fs::read_link("/proc/self/ns/net").ok();
    for (pid, folder) in processes::all() {
        let Some(name) = text(folder.join("comm")).filter(|name| PROGRAMS.contains(&name.as_str())) else {
            continue;
        };
        match place(fs::read_link(folder.join("ns/net")), own.as_deref()) {
            Place::Here => left.processes.push(processes::holder(pid, &folder)),
            Place::Elsewhere => {}
            Place::Unseen => left.unseen.push(format!("in whose network {name} runs (process {pid})")),
        }
    }
    let mut seen = |folder: &Path| {
        files(folder).unwrap_or_else(|why| {
            left.unseen.push(why);
            Vec::new()
        })
    };
    left.folders = FOLDERS.iter().map(PathBuf::from).filter(|folder| !seen(folder).is_empty()).collect();
    left.cni = seen(Path::new(CNI)).into_iter().filter(|file| is_cni(file)).collect();
    left.containerd = !seen(Path::new(CONTAINERD)).is_empty();
    left
}

/// In whose network a process is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here,
    /// Those in containers, such as kind's hosts, live in networks of their own and are in nobody's way.
    Elsewhere,
    Unseen,
}

fn place(network: io::Result<PathBuf>, own: Option<&Path>) -> Place {
    match network {
        Ok(network) if Some(network.as_path()) == own => Place::Here,
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Place::Unseen,
        // What has ended meanwhile is nowhere.
        Ok(_) | Err(_) => Place::Elsewhere,
    }
}

/// What is in a folder; nothing where there is none.
///
/// # Errors
/// The folder can't be looked into, with the reason.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).collect()),
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(why) => Err(format!("{} ({})", folder.display(), why.kind())),
    }
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
        for empty in [folder.path(), &folder.path().join("nothing")] {
            assert_eq!(files(empty), Ok(Vec::new()));
        }
        let file = folder.path().join("10-flannel.conflist");
        fs::write(&file, "{}").unwrap();
        assert_eq!(files(folder.path()), Ok(vec![file.clone()]));
        assert_eq!(files(&file), Ok(Vec::new()), "no folder");
        assert!(is_cni(&file));
        assert!(!is_cni(Path::new("/etc/cni/net.d/README")));
    }

    #[test]
    fn what_cant_be_looked_at_isnt_taken_for_nothing() {
        // Root may look into every folder: a name that no file system takes can't be looked at by anybody.
        let unseen = files(Path::new(&format!("/{}", "x".repeat(300)))).unwrap_err();
        assert!(unseen.starts_with("/xxx") && unseen.ends_with(')'), "{unseen}");
        let (own, other) = (Path::new("net:[1]"), Path::new("net:[2]"));
        let of = |network: io::Result<&Path>| place(network.map(Path::to_owned), Some(own));
        let failed = |kind: io::ErrorKind| Err(io::Error::from(kind));
        assert_eq!(of(Ok(own)), Place::Here);
        assert_eq!(of(Ok(other)), Place::Elsewhere);
        assert_eq!(of(failed(io::ErrorKind::PermissionDenied)), Place::Unseen);
        assert_eq!(of(failed(io::ErrorKind::NotFound)), Place::Elsewhere, "it has ended");
    }
}
