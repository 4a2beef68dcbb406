//! The addresses: the hosts' own, and the one that moves.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, MOST_ADDRESSES};
use crate::read::{Host, Instance, Keepalived, Program, Script, Source, endpoint, is_reachable};
use crate::timers::instances;

pub(super) fn check(hosts: &[Host], findings: &mut Findings) {
    own(hosts, findings);
    let all = instances(hosts);
    let of: BTreeSet<&str> = all.iter().map(|(host, ..)| host.name.as_str()).collect();
    if let (1, Some(one), true) = (of.len(), of.first(), hosts.len() > 1) {
        let what = "one host of several can hold the virtual address: when it dies, nobody does";
        findings.fatal(*one, what, "run keepalived on each of the hosts");
    }
    let mut priorities: Vec<u64> = all.iter().map(|(.., one)| one.priority).collect();
    priorities.sort_unstable_by(|a, b| b.cmp(a));
    for (host, file, one) in &all {
        let Some((_, read)) = &host.keepalived else { continue };
        instance(file, read, one, priorities.get(1).copied(), findings);
    }
    router_ids(hosts, findings);
    together(&all, findings);
}

/// The addresses that a host says are its own.
fn addresses(host: &Host) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut add = |text: &str| {
        let (address, _) = endpoint(text);
        if is_reachable(&address) {
            all.insert(address);
        }
    };
    for (program, flag) in [
        (Program::ApiServer, "advertise-address"),
        (Program::Kubelet, "node-ip"),
        (Program::K3s, "node-ip"),
        (Program::Etcd, "initial-advertise-peer-urls"),
        (Program::Etcd, "listen-peer-urls"),
    ] {
        host.value(program, flag).unwrap_or_default().split(',').for_each(&mut add);
    }
    let instances = host.keepalived.iter().flat_map(|(_, read)| &read.instances);
    instances.filter_map(|one| one.source.as_deref()).for_each(&mut add);
    all
}

fn own(hosts: &[Host], findings: &mut Findings) {
    let mut holders: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for host in hosts {
        for address in addresses(host) {
            holders.entry(address).or_default().push(&host.name);
        }
    }
    let moving: BTreeSet<&String> = hosts
        .iter()
        .filter_map(|host| host.keepalived.as_ref())
        .flat_map(|(_, read)| &read.instances)
        .flat_map(|one| &one.addresses)
        .collect();
    for (address, names) in &holders {
        if names.len() > 1 {
            let what = format!(
                "{} say that {address} is their own: one address on two hosts answers now here and now there",
                names.join(" and ")
            );
            findings.fatal(names[0], what, "give each host an address of its own");
        }
        if moving.contains(address) {
            let what = format!(
                "the virtual address {address} is {}'s own address too: two hosts have it when it moves",
                names[0]
            );
            findings.fatal(names[0], what, "take an address for it that no host has");
        }
    }
}

fn instance(file: &Source, read: &Keepalived, one: &Instance, second: Option<u64>, findings: &mut Findings) {
    let place = file.at(one.line);
    let tracked: Vec<&Script> =
        read.scripts.iter().filter(|script| one.tracks.contains(&script.name)).collect();
    let stays = if one.no_preempt { "; with `nopreempt` not even a better host takes it" } else { "" };
    if tracked.is_empty() && !one.tracks_otherwise {
        let what = format!(
            "{} has no track script: when the proxy or the API server on the holder dies and the host lives, the address stays where \
             nobody answers, until a person acts{stays}",
            one.name
        );
        findings.fatal(
            &place,
            what,
            "track a script that asks the API through the host's own proxy, each second, without a weight",
        );
    } else if !tracked.is_empty() && tracked.iter().all(|script| script.weight != 0) {
        let lowers = |script: &Script| i64::try_from(one.priority).unwrap_or(0) - script.weight.abs();
        let moves = second.is_none_or(|next| {
            tracked.iter().any(|script| lowers(script) < i64::try_from(next).unwrap_or(0))
        });
        if one.no_preempt || !moves {
            let why = if one.no_preempt {
                "with `nopreempt` nobody takes an address for a higher priority"
            } else {
                "its weight doesn't bring the priority below the next host's"
            };
            let what = format!("{}'s track script moves no address: {why}", one.name);
            findings.fatal(
                &place,
                what,
                "take the script's `weight` away: then its failure gives the address up",
            );
        }
    }
    // An API that is away for longer than this is not there for people.
    const TOO_LONG_MS: u64 = 60_000;
    let slow = |script: &&&Script| script.interval_ms.saturating_mul(script.fall) > TOO_LONG_MS;
    if let Some(script) = tracked.iter().find(slow) {
        let what = format!(
            "{}'s track script {} runs every {} and must fail {} times: for as long the address stays where nobody answers",
            one.name,
            script.name,
            crate::span::time(script.interval_ms),
            script.fall
        );
        findings.fatal(&place, what, "let it run each second and fail twice");
    }
    for name in one.tracks.iter().filter(|name| !read.scripts.iter().any(|script| script.name == **name)) {
        findings.risk(
            &place,
            format!("{} follows the script {name}, which isn't in the file", one.name),
            "add a vrrp_script of that name",
        );
    }
    if one.no_preempt && one.starts_as_master {
        let what =
            format!("{} has `nopreempt` and begins as MASTER: keepalived ignores the former", one.name);
        findings.risk(&place, what, "write `state BACKUP` on all hosts");
    }
    if let Some(line) = one.password {
        let what = if read.version_3 {
            "a password that VRRP 3 doesn't use stands there"
        } else {
            "the password goes over the network in clear with each announcement, and stands in the file"
        };
        let remedy =
            "take it away, and let only the hosts' own addresses speak VRRP (unicast_peer and a firewall)";
        findings.risk(file.at(line), what, remedy);
    }
}

/// Two groups with one number on one link take each other's announcements for their own.
fn router_ids(hosts: &[Host], findings: &mut Findings) {
    // Each is held against the first one of its number alone: hosts are many.
    let mut groups: BTreeMap<(&str, u64), (BTreeSet<&String>, &Instance)> = BTreeMap::new();
    for host in hosts {
        let Some((file, read)) = &host.keepalived else { continue };
        for one in &read.instances {
            let Some(id) = one.router_id else { continue };
            let own: BTreeSet<&String> = one.addresses.iter().collect();
            let (before, other) =
                groups.entry((one.interface.as_str(), id)).or_insert_with(|| (own.clone(), one));
            if *before != own {
                let what = format!(
                    "{} and {} have the same virtual_router_id {id} on {} and other addresses: one of the two never holds its own",
                    other.name, one.name, one.interface
                );
                findings.fatal(file.at(one.line), what, "give each group of addresses a number of its own");
            }
        }
    }
}

/// What hosts of one group must agree about.
fn together(all: &[(&Host, &Source, &Instance)], findings: &mut Findings) {
    let mut groups: BTreeMap<&String, Vec<(&Host, &Source, &Instance)>> = BTreeMap::new();
    for each in all {
        each.2.addresses.iter().take(1).for_each(|address| groups.entry(address).or_default().push(*each));
    }
    for (address, group) in groups.iter().filter(|(_, group)| group.len() > 1) {
        let (_, file, first) = group[0];
        let place = file.at(first.line);
        let all_of =
            |of: fn(&Instance) -> u64| group.iter().map(|(.., one)| of(one)).collect::<BTreeSet<u64>>();
        let version_3 = |host: &Host| host.keepalived.as_ref().is_some_and(|(_, read)| read.version_3);
        let versions: BTreeSet<bool> = group.iter().map(|(host, ..)| version_3(host)).collect();
        if all_of(|one| one.router_id.unwrap_or(51)).len() > 1 {
            let what = format!(
                "hosts hold {address} under different virtual_router_ids: each is its own only one, and all hold it at once"
            );
            findings.fatal(&place, what, "give all of them the same number");
        }
        if versions.len() > 1 {
            let what = format!(
                "some of the hosts of {address} speak VRRP 2 and others 3: they don't hear each other, and hold it at once"
            );
            findings.fatal(&place, what, "set vrrp_version alike");
        }
        if all_of(|one| one.advert_ms).len() > 1 {
            let what = format!("advert_int differs between the hosts of {address}");
            let remedy = "set it alike on all hosts";
            match versions.contains(&false) {
                true => findings.fatal(
                    &place,
                    what + ": with VRRP 2 they ignore each other's announcements, and hold it at once",
                    remedy,
                ),
                false => {
                    findings.risk(&place, what + ": how long a move takes depends on who held it", remedy)
                }
            }
        }
        if all_of(|one| one.priority).len() < group.len() {
            let what = format!(
                "hosts have equal priorities for {address}: two stand up at once, and the higher address wins"
            );
            findings.risk(&place, what, "give each host a priority of its own");
        }
        if group.iter().filter(|(.., one)| one.starts_as_master).count() > 1 {
            let what =
                format!("two hosts begin as MASTER for {address}: both hold it until they hear each other");
            findings.risk(&place, what, "write `state BACKUP` on all hosts");
        }
        let sources: BTreeSet<(&String, &String)> = group
            .iter()
            .filter_map(|(host, _, one)| Some((one.source.as_ref()?, &host.name)))
            .take(MOST_ADDRESSES)
            .collect();
        for (host, file, one) in group.iter().filter(|(.., one)| one.unicast) {
            let peers: BTreeSet<&String> = one.peers.iter().collect();
            let missing = sources.iter().find(|(of, name)| **name != host.name && !peers.contains(of));
            if let Some((missing, _)) = missing {
                let what = format!(
                    "{} doesn't tell {missing} of itself (unicast_peer): that host takes it for dead, and both hold {address}",
                    host.name
                );
                findings.fatal(file.at(one.line), what, "name all other hosts as unicast_peer");
            }
        }
    }
}
