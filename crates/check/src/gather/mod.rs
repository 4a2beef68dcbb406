//! Where the facts come from: all I/O of this room. What can't be read is left out of the facts, or says why; nothing here judges.

mod clock;
mod cluster;
mod disk;
mod identity;
mod kernel;
mod leftovers;
mod names;
mod netfilter;
mod network;
mod processes;
mod resources;
mod sockets;
mod system;

pub(crate) use cluster::parse_nodes;
pub(crate) use identity::identity;

use std::fs;
use std::path::Path;

use client::Kubeconfig;

use crate::facts::{Facts, Kernel, Presence};
use crate::plan::Plan;

/// All that can be found out. What is known of an administrator is used where the host's own identity isn't enough.
pub(crate) async fn gather(plan: Plan, administrator: Option<&Kubeconfig>) -> Facts {
    let links = network::links_and_routes().await;
    let settings = kernel::settings(plan.link());
    let ports = plan.ports();
    let watched = [ports.api, ports.agent, ports.store, ports.etcd, ports.heartbeats, dns::PORT];
    let listening = sockets::listening(&watched);
    let host = listening.iter().flatten().filter_map(|socket| socket.holder.as_ref());
    let host =
        host.filter(|_| plan.installed().is_some()).find(|holder| holder.is_ours).map(|holder| holder.pid);
    let before = resources::processors_time();
    let disk = disk::disk(&plan).await;
    let stolen = before.zip(resources::processors_time()).map(|(before, after)| after.stolen(before));
    let filter = netfilter::filter();
    let nftables = match &filter {
        Ok(_) => Presence::Here,
        Err(netfilter::Error::Missing) => kernel::module("nf_tables"),
        Err(why) => Presence::Unseen(why.to_string()),
    };
    let identity = plan.installed().map(identity);
    let cluster = match plan.installed() {
        Some(config) => Some(cluster::cluster(config, administrator).await),
        None => None,
    };
    let (links, routes) = links;
    let virtual_address = network::neighbour(&plan, links.as_deref().unwrap_or_default()).await;
    Facts {
        is_root: nix::unistd::geteuid().is_root(),
        kernel: Kernel { nftables, ..kernel::kernel() },
        settings,
        resources: resources::resources(host, stolen),
        disk,
        clock: clock::clock(),
        listening,
        network: crate::facts::Network {
            links,
            routes,
            filter: filter.map_err(|error| error.to_string()),
            old_tables: netfilter::old_tables(),
            virtual_address,
        },
        names: names::names(),
        system: system::system(),
        leftovers: leftovers::leftovers(),
        identity,
        cluster,
        plan,
    }
}

/// A small text without the blanks around it.
fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
