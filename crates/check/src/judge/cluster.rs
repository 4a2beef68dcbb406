//! The hosts together: who answers, whose clock is wrong, and what would break the cluster.

use std::collections::BTreeMap;

use super::{listed, milliseconds};
use crate::facts::{Cluster, Facts, Health, Peer};
use crate::finding::{Group, Section};

/// Clocks that differ by more make logs and Events hard to read, in milliseconds; `Date` tells whole seconds.
const SKEWED: i64 = 2_000;
/// By more than that tokens and certificates count as over, or as not yet valid.
const WRONG: i64 = 60_000;

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Cluster);
    let cluster = match &facts.cluster {
        None => return section,
        Some(Err(why)) => {
            let remedy = match facts.is_root {
                true => "mend the host's certificates",
                false => "mend the host's certificates, or check as root",
            };
            section.unseen("hosts", format!("nobody can be asked: {why}"), remedy);
            return section;
        }
        Some(Ok(cluster)) => cluster,
    };
    members(cluster, &mut section);
    margin(facts, cluster, &mut section);
    clocks(cluster, &mut section);
    api(facts, cluster, &mut section);
    nodes(cluster, &mut section);
    leases(cluster, &mut section);
    section
}

fn is_ready(peer: &Peer) -> bool {
    peer.health.as_ref().is_ok_and(|health| health.code == 200)
}

fn members(cluster: &Cluster, section: &mut Section) {
    const CHECK: &str = "hosts";
    for (name, peer) in &cluster.peers {
        match &peer.health {
            Err(why) => section.fault(
                CHECK,
                format!("{name} doesn't answer at {}: {why}", peer.address),
                format!("start it, or let TCP port {} through between the hosts", peer.address.port()),
            ),
            Ok(health) if health.code != 200 => section.fault(
                CHECK,
                format!("{name} is not ready: {}", complaints(health)),
                "wait for a majority of the members, and read its log",
            ),
            Ok(_) => {}
        }
    }
    let ready: Vec<&String> =
        cluster.peers.iter().filter(|(_, peer)| is_ready(peer)).map(|(name, _)| name).collect();
    if !ready.is_empty() {
        let slowest =
            cluster.peers.values().filter_map(|peer| peer.way.as_ref().ok()).map(|way| way.time).max();
        let slowest =
            slowest.map(|time| format!("; the longest way takes {}", milliseconds(time))).unwrap_or_default();
        section.ok("ready", format!("{} ready{slowest}", are(&ready)));
    }
}

fn are(names: &[impl AsRef<str>]) -> String {
    format!("{} {}", listed(names), if names.len() == 1 { "is" } else { "are" })
}

/// The checks that failed, of `/readyz?verbose`.
fn complaints(health: &Health) -> String {
    let failed: Vec<&str> = health.says.lines().filter_map(|line| line.strip_prefix("[-]")).collect();
    if failed.is_empty() { format!("its API answers with code {}", health.code) } else { failed.join("; ") }
}

/// How many members may still be lost: those that the cluster began with, each of which has a vote.
fn margin(facts: &Facts, cluster: &Cluster, section: &mut Section) {
    const CHECK: &str = "margin";
    if !facts.plan.has_store() {
        section.note(CHECK, "the state lies in an etcd: what it bears is its members' affair");
        return;
    }
    let lost: Vec<&str> =
        cluster.peers.iter().filter(|(_, peer)| !is_ready(peer)).map(|(name, _)| name.as_str()).collect();
    margin_of(cluster.peers.len(), &lost, section);
}

/// How many of the members that have a vote may still be lost, where some of them are already.
pub(crate) fn margin_of(members: usize, lost: &[&str], section: &mut Section) {
    const CHECK: &str = "margin";
    let ready = members.saturating_sub(lost.len());
    let majority = members / 2 + 1;
    match (members, ready.checked_sub(majority)) {
        (1, Some(_)) => section.note(CHECK, "there is one member: when it stops, the cluster stops; three bear the loss of one"),
        (_, None) => section.fault(
            CHECK,
            format!("{ready} of {members} members are ready, and {majority} are a majority: the cluster takes no writes"),
            format!("bring {} back", listed(lost)),
        ),
        (_, Some(0)) if lost.is_empty() => section.warning(
            CHECK,
            format!("{members} members are ready: one loss and the cluster stops"),
            "take three members",
        ),
        (_, Some(0)) => section.warning(
            CHECK,
            format!("{ready} of {members} members are ready: one more loss and the cluster stops"),
            format!("bring {} back", listed(lost)),
        ),
        (_, Some(more)) => {
            section.ok(CHECK, format!("{ready} of {members} members are ready: the cluster bears the loss of {more}"));
        }
    }
}

fn clocks(cluster: &Cluster, section: &mut Section) {
    const CHECK: &str = "skew";
    let mut compared = 0;
    for (name, peer) in &cluster.peers {
        let Some(skew) = peer.health.as_ref().ok().and_then(|health| health.skew) else { continue };
        compared += 1;
        // What it is at least: the reported seconds may be nearly over, and the answer was on its way.
        let apart = if skew.least > 0 { skew.least } else { skew.most.min(0) };
        let (by, where_to) = (apart.unsigned_abs(), if apart > 0 { "ahead of" } else { "behind" });
        let what = format!("{name}'s clock is {:.1} s {where_to} this host's", by as f64 / 1000.0);
        let remedy = "synchronise the clocks of all hosts: chrony, or systemd-timesyncd";
        if apart.abs() > WRONG {
            let what = format!("{what}: tokens and certificates of one don't count on the other");
            section.fault(CHECK, what, remedy);
        } else if apart.abs() > SKEWED {
            section.warning(CHECK, what, remedy);
        }
    }
    if compared > 0 {
        section.ok_unless_said(CHECK, "the hosts' clocks agree, to two seconds");
    }
}

fn api(facts: &Facts, cluster: &Cluster, section: &mut Section) {
    const CHECK: &str = "virtual-address";
    let Some(config) = &facts.plan.config else { return };
    let at = config.virtual_api();
    match &cluster.virtual_api {
        Ok(200) => section.ok(CHECK, format!("the API answers at the virtual address, {at}")),
        Ok(code) => section.fault(
            CHECK,
            format!("the API at the virtual address, {at}, isn't ready (code {code})"),
            "see what the hosts say above",
        ),
        Err(why) => section.fault(
            CHECK,
            format!("nobody of this cluster answers at the virtual address, {at}: {why}"),
            "see that a member leads, and that nobody else on the network has the address",
        ),
    }
}

fn nodes(cluster: &Cluster, section: &mut Section) {
    const CHECK: &str = "nodes";
    let nodes = match &cluster.nodes {
        Err(why) => {
            section.unseen(CHECK, format!("Nodes can't be read: {why}"), "see what the hosts say above");
            return;
        }
        Ok(nodes) => nodes,
    };
    for node in nodes.iter().filter(|node| !node.is_ready) {
        section.fault(
            CHECK,
            format!("Node {} is not Ready: {}", node.name, node.why),
            format!("kubectl describe node {}", node.name),
        );
    }
    let missing: Vec<&String> = cluster
        .peers
        .keys()
        .filter(|name| cluster.sees_all_nodes && nodes.iter().all(|node| node.name != **name))
        .collect();
    for name in missing {
        section.fault(CHECK, format!("there is no Node {name}"), "start its host, and read its log");
    }
    if cluster.sees_all_nodes {
        let names: Vec<&String> = nodes.iter().map(|node| &node.name).collect();
        section.ok_unless_said(CHECK, format!("all Nodes are Ready: {}", listed(&names)));
    } else {
        section.ok_unless_said(CHECK, "this host's Node is Ready");
        let what = "the Nodes of others can't be seen: a host may read its own";
        section.unseen("other-nodes", what, "name an administrator's kubeconfig: --kubeconfig FILE");
    }
    let mut machines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| !node.machine_id.is_empty()) {
        machines.entry(&node.machine_id).or_default().push(&node.name);
    }
    for twins in machines.values().filter(|names| names.len() > 1) {
        section.warning(
            "machine-id",
            format!("{} have the same /etc/machine-id: they are one machine, whose loss is the loss of all, or copies of one", listed(twins)),
            "take machines of their own; on copies: rm /etc/machine-id && systemd-machine-id-setup, and start again",
        );
    }
}

fn leases(cluster: &Cluster, section: &mut Section) {
    const CHECK: &str = "leases";
    let mut held = Vec::new();
    for (name, peer) in cluster.peers.iter().filter(|(_, peer)| is_ready(peer)) {
        match &peer.lease {
            Err(why) => {
                // The same for each: their certificates are of one kind.
                section.unseen(
                    CHECK,
                    format!("leases can't be seen: {why}"),
                    "name an administrator's kubeconfig: --kubeconfig FILE",
                );
                return;
            }
            Ok(lease) if lease.seconds > 0.0 => held.push(name),
            Ok(_) => section.warning(
                CHECK,
                format!("{name} holds no lease: no majority of the members hears it"),
                "let UDP heartbeats through between the hosts (ports.heartbeats)",
            ),
        }
        if let Ok(lease) = &peer.lease {
            for fenced in &lease.fenced {
                section.warning(
                    CHECK,
                    format!("{name} says that {fenced} is fenced"),
                    format!("bring {fenced} back, or remove it"),
                );
            }
        }
    }
    if !held.is_empty() {
        let verb = if held.len() == 1 { "holds its lease" } else { "hold their leases" };
        section.ok(CHECK, format!("{} {verb}", listed(&held)));
    }
}
