//! What another Kubernetes runs or has left: two of them on one machine take each other's ports, addresses and pods.

use super::{as_root, listed};
use crate::facts::{Chain, Facts};
use crate::finding::{Group, Section};

/// Links of kube-proxy and of networks of pods, by how their names begin.
const LINKS: [&str; 10] = [
    "kube-ipvs0",
    "kube-bridge",
    "cni0",
    "cbr0",
    "flannel",
    "cilium_",
    "cali",
    "vxlan.calico",
    "weave",
    "antrea-gw",
];

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Leftovers);
    let left = &facts.leftovers;
    for process in &left.processes {
        section.fault(
            "processes",
            format!("{} runs here (process {})", process.name, process.pid),
            remove(&process.name),
        );
    }
    if left.containerd {
        section.note(
            "containerd",
            "containerd holds pods of a Kubernetes (its namespace k8s.io): they go on beside Holdfast's own",
        );
    }
    for folder in &left.folders {
        let folder = folder.display();
        section.warning(
            "folders",
            format!("{folder} is left of another Kubernetes"),
            format!("{}, or remove it", remove(&folder.to_string())),
        );
    }
    for file in &left.cni {
        section.warning(
            "cni",
            format!("{} sets up pods' networks for another Kubernetes", file.display()),
            "move it away: Holdfast uses none",
        );
    }
    let links = facts.network.links.as_deref().unwrap_or_default();
    for link in links.iter().filter(|link| LINKS.iter().any(|name| link.name.starts_with(name))) {
        let effect =
            if link.name == "kube-ipvs0" { ", and makes services' addresses this machine's own" } else { "" };
        section.warning(
            "links",
            format!("the link {} is left of another Kubernetes' network{effect}", link.name),
            format!("ip link delete {}", link.name),
        );
    }
    if let Ok(filter) = &facts.network.filter {
        let count = filter.chains.iter().filter(|chain| is_kubes(chain)).count();
        if count > 0 {
            section.warning(
                "chains",
                format!("{count} chains of another Kubernetes' proxy (KUBE-..., kube-proxy) change where packets to services go"),
                "kube-proxy --cleanup, or start the machine again without it",
            );
        }
    }
    let mut unseen = left.unseen.clone();
    if facts.network.links.is_err() {
        unseen.push("links".to_owned());
    }
    if facts.network.filter.is_err() {
        unseen.push("the chains of filters".to_owned());
    }
    if !unseen.is_empty() {
        section.unseen(
            "leftovers",
            format!("not all that another Kubernetes runs or has left can be seen: not {}", listed(&unseen)),
            as_root(facts, "look at these by hand"),
        );
    }
    if section.findings.is_empty() {
        section.ok("leftovers", "no other Kubernetes is or was here");
    }
    section
}

fn is_kubes(chain: &Chain) -> bool {
    chain.table == "kube-proxy" || chain.name.starts_with("KUBE-")
}

fn remove(what: &str) -> String {
    let with = if what.contains("k3s") {
        "k3s-uninstall.sh (k3s-agent-uninstall.sh)"
    } else if what.contains("rke2") || what.contains("rancher") {
        "rke2-uninstall.sh, or k3s-uninstall.sh"
    } else if what.contains("k0s") {
        "k0s stop and k0s reset"
    } else {
        "kubeadm reset, and systemctl disable --now kubelet"
    };
    format!("remove it: {with}")
}
