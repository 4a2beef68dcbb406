//! What the facts about a cluster mean: a function of them alone.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::facts::Facts;
use super::show::time;
use super::told::{HostAnswer, HostSays};
use crate::finding::{Finding, Group, Section};
use crate::judge::{DAY, RENEW, SOON, listed, margin_of};

/// A follower applies what the leader commits within milliseconds. This number of changes is more than one request makes.
const FAR_BEHIND: u64 = 1_000;

/// All there is to say: what would break the cluster first, then what is not as it should be.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut section = Section::new(Group::Cluster);
    unreached(facts, &mut section);
    margin(facts, &mut section);
    leader(facts, &mut section);
    hosts(facts, &mut section);
    nodes(facts, &mut section);
    lags(facts, &mut section);
    leases(facts, &mut section);
    addresses(facts, &mut section);
    certificates(facts, &mut section);
    versions(facts, &mut section);
    fencing(facts, &mut section);
    section.findings
}

fn unreached(facts: &Facts, section: &mut Section) {
    for (server, why) in &facts.unreached {
        section.warning(
            "server",
            format!("{server}, which the kubeconfig names, doesn't answer: {why}"),
            format!("see who leads and holds that address; {} was asked instead", facts.server),
        );
    }
}

/// Whether a member does its part: it answers, and comes up with the others, if there is anything to come up with.
fn takes_part(facts: &Facts, name: &str) -> bool {
    let others_do = || facts.speakers().any(|(_, says)| says.caught_up_ms.is_some());
    facts.says(name).is_some_and(|says| says.caught_up_ms.is_some() || !others_do())
}

fn margin(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "margin";
    let Some(members) = &facts.cluster.members else {
        section.note(CHECK, "the state lies in an etcd: what it bears is its members' affair");
        return;
    };
    let voters: Vec<&str> =
        members.iter().filter(|member| !member.is_learner).map(|member| member.name.as_str()).collect();
    let lost: Vec<&str> = voters.iter().copied().filter(|name| !takes_part(facts, name)).collect();
    margin_of(voters.len(), &lost, section);
    for member in members {
        let name = if member.name.is_empty() { member.address.to_string() } else { member.name.clone() };
        if !member.has_joined {
            section.warning(
                "members",
                format!("the member {name} was added, and has not come yet"),
                format!("start {name}, or remove it: `etcdctl member list` and `member remove`"),
            );
        } else if member.is_learner {
            section.note("members", format!("{name} is a learner: it follows, and has no vote yet"));
        }
    }
}

fn leader(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "leader";
    let Some(leader) = facts.leader() else {
        section.fault(
            CHECK,
            "nobody leads: the cluster takes no writes, and the API's virtual address is nobody's",
            "wait a second for an election; if it stays so, bring a majority of the members back",
        );
        return;
    };
    let disagrees =
        |(_, says): &(&str, &HostSays)| says.leader.as_deref().is_some_and(|other| other != leader);
    let strays: Vec<&str> = facts.speakers().filter(disagrees).map(|(name, _)| name).collect();
    if !strays.is_empty() {
        section.warning(
            CHECK,
            format!(
                "{leader} leads, and {} still {} another one",
                listed(&strays),
                if strays.len() == 1 { "follows" } else { "follow" }
            ),
            "ask again in a second; if it stays so, look at the network between the hosts",
        );
    }
}

fn hosts(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "hosts";
    for (name, answer) in &facts.cluster.hosts {
        match answer {
            HostAnswer::Says(_) => {}
            HostAnswer::Silent(seconds) => section.fault(
                CHECK,
                format!("{name} is silent: no heartbeat has come from it for {}", time(*seconds)),
                format!("start {name}, or look at its network"),
            ),
            HostAnswer::Fails(why) => section.fault(
                CHECK,
                format!("{name} is alive, and its API doesn't tell how it is: {why}"),
                format!("read the log of {name}"),
            ),
        }
    }
}

fn nodes(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "nodes";
    let nodes = match &facts.nodes {
        Ok(nodes) => nodes,
        Err(why) => {
            section.unseen(CHECK, format!("Nodes can't be read: {why}"), "see what is said of the hosts");
            return;
        }
    };
    let is_silent = |name: &str| matches!(facts.cluster.hosts.get(name), Some(HostAnswer::Silent(_)));
    for (name, node) in nodes {
        if node.fencing.is_fenced() {
            section.warning(
                "fenced",
                format!(
                    "{name} is fenced: its lease is over, and what must not run twice may run elsewhere by now"
                ),
                format!("bring {name} back, or remove it: kubectl delete node {name}"),
            );
        }
        // A host that is silent isn't Ready either, and was told of.
        if !node.is_ready && !is_silent(name) {
            section.fault(
                CHECK,
                format!("Node {name} is not Ready: {}", node.why),
                format!("kubectl describe node {name}"),
            );
        }
        for trouble in &node.troubles {
            section.warning(
                CHECK,
                format!("Node {name} says {trouble}: it takes no pods, or ends some"),
                format!("kubectl describe node {name}"),
            );
        }
        if node.is_cordoned {
            section.note(CHECK, format!("{name} is cordoned: it gets no new pods"));
        }
    }
    for name in facts.cluster.hosts.keys().filter(|name| !nodes.contains_key(*name)) {
        section.fault(CHECK, format!("there is no Node {name}"), format!("read the log of {name}"));
    }
}

fn lags(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "lag";
    // Without a leader there is nothing to come up with.
    if facts.leader().is_none() {
        return;
    }
    for (name, says) in facts.speakers() {
        let behind = facts.behind(name).unwrap_or_default();
        let changes = if behind == 1 { "change" } else { "changes" };
        let far = format!("{name} is {behind} {changes} behind the leader");
        let remedy = format!("see with `holdfast check` on {name} what its disk and its network can do");
        if says.caught_up_ms.is_none() {
            section.warning(
                CHECK,
                format!(
                    "{far}, and didn't come up with it when it was asked: its disk or its network is slow"
                ),
                remedy,
            );
        } else if behind > FAR_BEHIND {
            section.warning(CHECK, format!("{far}: its disk or its network is slow"), remedy);
        }
    }
}

fn leases(facts: &Facts, section: &mut Section) {
    let without: Vec<&str> =
        facts.speakers().filter(|(_, says)| says.lease.seconds <= 0.0).map(|(name, _)| name).collect();
    if !without.is_empty() {
        let verb = if without.len() == 1 { "holds no lease" } else { "hold no leases" };
        section.warning(
            "leases",
            format!(
                "{} {verb}: no majority of the members hears {}, and what must not run twice stops there",
                listed(&without),
                if without.len() == 1 { "it" } else { "them" }
            ),
            "let UDP heartbeats through between the hosts (ports.heartbeats)",
        );
    }
}

fn addresses(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "addresses";
    match &facts.addresses {
        Err(why) => section.unseen(
            CHECK,
            format!("who holds which address can't be read: {why}"),
            "see what is said of the hosts",
        ),
        Ok(addresses) => {
            for lease in addresses.iter().filter(|lease| lease.holder.is_none()) {
                let service = lease.service.as_deref().unwrap_or("no Service any more");
                let wanted = lease.wanted.as_deref().map(|host| format!("; {host} is to take it"));
                section.warning(
                    CHECK,
                    format!(
                        "nobody holds {}, the address of {service}{}",
                        lease.address,
                        wanted.unwrap_or_default()
                    ),
                    "ask again in a second; if it stays so, see the Service's Events",
                );
            }
        }
    }
}

fn certificates(facts: &Facts, section: &mut Section) {
    let mut end = |of: &str, until: Timestamp, remedy: &str| {
        // Nothing is left of one that is over.
        let left = Duration::try_from(until.duration_since(facts.now)).unwrap_or_default();
        let days = match left.as_secs() / DAY {
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        if left.is_zero() {
            section.fault("certificates", format!("{of} is over"), remedy);
        } else if left.as_secs() < DAY {
            section.fault("certificates", format!("{of} ends today"), remedy);
        } else if left < SOON {
            section.warning("certificates", format!("{of} ends in {days}"), remedy);
        }
    };
    // Authorities and what hosts share lie on each of them: told once.
    let mut ends: BTreeMap<(&str, Timestamp), Vec<&str>> = BTreeMap::new();
    for (name, says) in facts.speakers() {
        for certificate in &says.certificates {
            ends.entry((&certificate.file, certificate.until)).or_default().push(name);
        }
    }
    for ((file, until), hosts) in ends {
        end(&format!("{file} on {}", listed(&hosts)), until, RENEW);
    }
    if let Some(until) = facts.own_certificate {
        end("the kubeconfig's certificate", until, "get a new one from an administrator");
    }
}

fn versions(facts: &Facts, section: &mut Section) {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, says) in facts.speakers() {
        versions.entry(&says.version).or_default().push(name);
    }
    if versions.len() > 1 {
        let each: Vec<String> =
            versions.iter().map(|(version, hosts)| format!("{version} on {}", listed(hosts))).collect();
        section.warning(
            "versions",
            format!("versions differ: {}", each.join("; ")),
            "bring all hosts to the newest one, one after the other (docs/upgrade.md)",
        );
    }
}

fn fencing(facts: &Facts, section: &mut Section) {
    let mut grades: BTreeMap<objects::Grade, Vec<&str>> = BTreeMap::new();
    for (name, node) in facts.nodes.iter().flatten() {
        if let Some(grade) = node.fencing.grade {
            grades.entry(grade).or_default().push(name);
        }
    }
    for (grade, hosts) in grades {
        let verb = if hosts.len() == 1 { "is" } else { "are" };
        section.note(
            "fencing",
            format!(
                "{} {verb} fenced by {}: that doesn't cover {} (docs/leases.md)",
                listed(&hosts),
                grade.as_str(),
                grade.lacks()
            ),
        );
    }
}

#[cfg(test)]
mod tests;
