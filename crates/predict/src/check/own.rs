//! Holdfast's own configurations, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::{HostConfig, NetConfig};

use super::Findings;
use crate::read::Host;

pub(super) fn check(hosts: &[Host], findings: &mut Findings) {
    let all: Vec<(&str, &HostConfig)> = hosts
        .iter()
        .filter_map(|host| host.holdfast.as_ref())
        .map(|(file, config)| (file.as_str(), &**config))
        .collect();
    let Some((file, first)) = all.first().copied() else { return };
    let members = first.peers.len();
    if first.datastore.is_none() {
        count(file, members, findings);
    }
    let addresses: BTreeSet<&IpAddr> = first.peers.values().collect();
    if addresses.len() < members {
        findings.fatal(file, "two members have one address", "give each host an address of its own");
    }
    if matches!(first.net, NetConfig::Loopback { .. }) {
        let what = "all hosts are processes of one machine (net: loopback): its power takes all of them";
        findings.fatal(
            file,
            what,
            "for trying it out that is meant; else run each host on a machine of its own",
        );
    }
    let mut own: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (place, config) in &all {
        if let Some(other) = own.insert(config.address, &config.name).filter(|other| *other != config.name) {
            let what = format!("{other} and {} have the same address {}", config.name, config.address);
            findings.fatal(*place, what, "give each host an address of its own");
        }
        let differs: Vec<&str> = [
            ("clusterId", config.cluster_id != first.cluster_id),
            ("peers", config.peers != first.peers),
            ("virtualAddress", config.virtual_address != first.virtual_address),
            ("loadBalancerCidrs", config.load_balancer_cidrs != first.load_balancer_cidrs),
            ("ports", config.ports != first.ports),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect();
        if !differs.is_empty() {
            let what = format!(
                "{} differs from {file} in {}: they are not one cluster",
                config.name,
                differs.join(", ")
            );
            findings.fatal(*place, what, "give all hosts of a cluster the same");
        }
        if config.timeouts != first.timeouts {
            let what = format!(
                "{}'s timeouts differ from those in {file}: what a cut costs depends on who led",
                config.name
            );
            findings.risk(*place, what, "give all hosts of a cluster the same");
        }
        for warning in config.check().warnings {
            findings.risk(*place, format!("{}: {}", warning.field, warning.what), warning.remedy);
        }
    }
}

/// How many members hold the state.
pub(super) fn count(place: &str, members: usize, findings: &mut Findings) {
    let remedy = "begin with three members, or five, each on a host of its own";
    match members {
        0 | 1 => findings.fatal(place, "the cluster has one member: when its host dies, it is gone", remedy),
        2 => findings.fatal(
            place,
            "the cluster has two members: both are needed for every write, so that either host's loss stops it; that is worse than one",
            remedy,
        ),
        _ if members.is_multiple_of(2) => findings.risk(
            place,
            format!("{members} members bear the loss of no more hosts than {} do", members - 1),
            "take one away, or add one",
        ),
        _ => {}
    }
}
