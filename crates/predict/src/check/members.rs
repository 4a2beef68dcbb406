//! etcd's members and the API servers: how many, and where.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::read::{Host, Program, endpoint};
use crate::timers::Timers;

/// The members by name, each with the host of its address, as one host's `initial-cluster` tells them.
fn members(host: &Host) -> BTreeMap<String, String> {
    let told = host.value(Program::Etcd, "initial-cluster").unwrap_or_default();
    let each = told.split(',').filter_map(|each| each.trim().split_once('='));
    each.map(|(name, url)| (name.to_owned(), endpoint(url).0)).collect()
}

/// How many members etcd has, as far as anything says so: none where nothing does.
pub(crate) fn count(hosts: &[Host]) -> usize {
    let told = hosts.iter().map(|host| members(host).len()).max().unwrap_or(0);
    if told > 0 {
        return told;
    }
    let servers = |host: &Host| {
        let urls = host.value(Program::ApiServer, "etcd-servers").unwrap_or_default();
        urls.split(',').filter(|url| !url.is_empty()).count()
    };
    let named = hosts.iter().map(servers).max().unwrap_or(0);
    let run = hosts.iter().filter(|host| host.runs(Program::Etcd) || is_server(host)).count();
    // An API server mostly names the etcd of its own host alone.
    named.max(run)
}

/// There is enough to say whether it is highly available: how many members hold the state, or that something else does. A host of k3s
/// that joined another one is not alone.
pub(crate) fn suffices(hosts: &[Host]) -> bool {
    let etcds = hosts.iter().filter(|host| host.runs(Program::Etcd)).count();
    let counts = |host: &Host| {
        host.value(Program::K3s, "") == Some("server")
            && (hosts.len() > 1 || host.setting(Program::K3s, "server").is_none())
    };
    let named = |host: &Host| {
        let told = host.value(Program::ApiServer, "etcd-servers").unwrap_or_default();
        told.split(',').filter(|url| !url.is_empty()).count()
    };
    hosts.iter().any(|host| !members(host).is_empty() || named(host) > 1)
        || etcds > 1
        || hosts.iter().any(counts)
}

fn is_server(host: &Host) -> bool {
    host.value(Program::K3s, "") == Some("server")
        && host.setting(Program::K3s, "datastore-endpoint").is_none()
}

pub(super) fn check(hosts: &[Host], timers: &Timers, findings: &mut Findings) {
    let place =
        hosts.iter().find_map(|host| Some(host.setting(Program::Etcd, "initial-cluster")?.file.clone()));
    let place = place.unwrap_or_else(|| "the cluster".into());
    let remedy = "run three members, or five, each on a host of its own";
    let lists: Vec<BTreeMap<String, String>> =
        hosts.iter().map(members).filter(|list| !list.is_empty()).collect();
    // Members that joined later know more of the others than the first ones do.
    let all = lists.iter().max_by_key(|list| list.len()).cloned().unwrap_or_default();
    let external = hosts.iter().any(|host| host.setting(Program::K3s, "datastore-endpoint").is_some());
    // A single file tells how many there are only if it names them.
    let is_known = !all.is_empty() || hosts.len() > 1 || suffices(hosts);
    match timers.members {
        _ if external => {}
        1 if is_known => {
            findings.fatal(&place, "etcd has one member: when its host dies, the cluster is gone", remedy);
        }
        2 => findings.fatal(
            &place,
            "etcd has two members: both are needed for every write, so that either host's loss stops the cluster; that is worse than one",
            remedy,
        ),
        count if count > 0 && count.is_multiple_of(2) => findings.risk(
            &place,
            format!("etcd has {count} members: they bear the loss of no more hosts than {} do", count - 1),
            "take one away, or add one",
        ),
        _ => {}
    }
    shared_hosts(&place, &all, findings);
    agree(hosts, &place, findings);
    api_servers(hosts, findings);
}

/// Whether hosts can be of one etcd by what they say of its members. One that joins (kubeadm's second and third) names those that were
/// there before it and itself, with `initial-cluster-state: existing`; what has changed since then is in its data, and not in its list.
fn agree(hosts: &[Host], place: &str, findings: &mut Findings) {
    let mut addresses: BTreeMap<String, String> = BTreeMap::new();
    for (name, address) in hosts.iter().flat_map(members) {
        if let Some(other) = addresses.insert(name.clone(), address.clone()).filter(|other| *other != address)
        {
            let what = format!(
                "hosts name different members of etcd in initial-cluster: {name} is at {other} for one and at {address} for another"
            );
            findings.fatal(place, what, "give each member one address");
            return;
        }
    }
    let joined = |host: &&Host| host.value(Program::Etcd, "initial-cluster-state") == Some("existing");
    let begun = hosts.iter().filter(|host| !joined(host)).map(members);
    let lists: Vec<BTreeSet<String>> = begun.map(|list| list.into_keys().collect()).collect();
    let named: BTreeSet<&String> = lists.iter().flatten().collect();
    // Of none of them its first list is here: there is nothing to hold against each other.
    if !named.is_empty() && !lists.iter().any(|list| list.len() == named.len()) {
        let what = "hosts name different members of etcd in initial-cluster: it begins with what they agree on, or not at all";
        findings.fatal(place, what, "give all members the same list");
    }
}

fn shared_hosts(place: &str, all: &BTreeMap<String, String>, findings: &mut Findings) {
    let mut by_host: BTreeMap<&str, usize> = BTreeMap::new();
    for host in all.values() {
        *by_host.entry(host).or_default() += 1;
    }
    let Some((host, most)) = by_host.iter().max_by_key(|(_, count)| **count) else { return };
    if *most < 2 || all.len() - most > all.len() / 2 {
        return;
    }
    let what = if *most == all.len() {
        format!("all members of etcd are on one host ({host}): its loss takes all of them")
    } else {
        format!(
            "{most} of {} members of etcd are on one host ({host}): its loss takes the majority",
            all.len()
        )
    };
    findings.fatal(place, what, "give each member a host of its own");
}

fn api_servers(hosts: &[Host], findings: &mut Findings) {
    let run: Vec<&Host> = hosts.iter().filter(|host| host.runs(Program::ApiServer)).collect();
    let is_k3s = hosts.iter().any(|host| host.runs(Program::K3s));
    if let ([one], true, false) = (&run[..], hosts.len() > 1, is_k3s) {
        let what = "one host of several runs an API server: when it dies, there is none";
        findings.fatal(&one.name, what, "run one on each of three hosts");
    }
    let of = |host: &&Host| {
        let told = host.setting(Program::ApiServer, "etcd-servers")?;
        let servers: BTreeSet<String> = told.value.split(',').map(|url| endpoint(url).0).collect();
        Some((told.file.clone(), servers))
    };
    let named: Vec<_> = run.iter().filter_map(of).collect();
    let is_local = |server: &str| {
        server == "localhost" || server.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    let all: BTreeSet<&String> = named.iter().flat_map(|(_, servers)| servers).collect();
    if let (true, Some((file, _)), Some(one)) =
        (named.len() > 1 && all.len() == 1, named.first(), all.first())
        && !is_local(one)
    {
        let what = format!(
            "every API server asks the same member of etcd ({one}): when its host dies, none of them works"
        );
        findings.fatal(file, what, "let each ask the member on its own host, or name all members");
    }
    for program in [Program::ControllerManager, Program::Scheduler] {
        let alone: Vec<_> = hosts.iter().filter_map(|host| host.setting(program, "leader-elect")).collect();
        if let Some(told) = alone.iter().find(|told| told.value == "false")
            && hosts.iter().filter(|host| host.runs(program)).count() > 1
        {
            let what = format!("{} works on several hosts at once: --leader-elect is false", program.name());
            findings.fatal(&told.file, what, "leave it out: it is true by default");
        }
    }
}
