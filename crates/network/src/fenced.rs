//! Hosts that are fenced are cut off: nothing that they send is taken in until they are back in a later epoch of their lease.
//!
//! What must not run twice has stopped there by the clock. A machine that stood still as a whole, its clock too, doesn't know that, and goes on when it
//! wakes up: what it still sends would reach pods, services and hosts that have gone on without it. So each of the others drops it. What
//! a host needs to come back is let through: its heartbeats, and what it asks of the cluster's state and is answered, at these ports alone; and what
//! virtual routers tell each other, which is no matter of leases.
//!
//! Who is fenced stands in the state. A host that is behind may take one for fenced that is back; by those ports it hears of that.
//! The rules are a table of nftables of our own (`nft list table ip holdfast-fenced`), put as a whole, and none where nobody is fenced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use membership::lease::Known;
use nftables::{
    Change, Family, Hook, News, accepted, append, chain, compare, create_set, create_table, dropped,
    elements, is_in, load_address, load_port, mask, number, protocol, remove_table,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::HostNetwork;
use crate::keeper::{EVERY, TOGETHER};
use crate::packets::{ADDRESS, ADDRESS_TYPE, FROM, TO, within};

const TABLE: &str = "holdfast-fenced";
const CHAIN: &str = "arriving";
/// The number of its protocol (RFC 9568).
const VRRP: u8 = 112;
/// The set of the hosts' addresses.
const HOSTS: (&str, u32) = ("hosts", 1);

/// What it takes to cut off hosts that are fenced.
#[derive(Debug, Clone)]
pub struct CutOff {
    /// What the cluster's state knows of the hosts' leases.
    pub known: watch::Receiver<Arc<BTreeMap<String, Known>>>,
    /// Where this host hears heartbeats (UDP).
    pub heartbeats: u16,
    /// By which ports hosts get at the cluster's state, and hear heartbeats where no datagrams arrive (TCP): they may ask there, and answer from there.
    pub state: BTreeSet<u16>,
}

/// The other hosts, and what is never open to one that is fenced.
#[derive(Debug)]
pub(crate) struct Fence {
    /// This host's name.
    pub own: String,
    pub hosts: watch::Receiver<Arc<BTreeMap<String, HostNetwork>>>,
    pub cut_off: CutOff,
    /// The addresses of pods and of services.
    pub networks: [IpNet; 2],
}

impl Fence {
    /// Keeps the rules as the state says, until it is asked to stop: then none is left. What a former life left is replaced.
    pub async fn keep(mut self, mut stop: watch::Receiver<bool>) {
        let news = News::listen().ok();
        let mut put: Option<BTreeMap<String, HostNetwork>> = None;
        let mut refused = None;
        loop {
            let hosts = self.hosts.borrow_and_update().clone();
            let wanted = fenced(&self.own, &hosts, &self.cut_off.known.borrow_and_update());
            if put.as_ref() != Some(&wanted) || !is_there(&wanted) {
                match nftables::transact(Family::Ipv4, &self.rules(&wanted)) {
                    Ok(()) => {
                        tell(&put.unwrap_or_default(), &wanted);
                        (put, refused) = (Some(wanted), None);
                    }
                    Err(error) => {
                        let said = Some(error.to_string());
                        if said != refused && !wanted.is_empty() {
                            tracing::warn!(%error, hosts = ?wanted.keys(), "hosts that are fenced can't be cut off");
                        }
                        (put, refused) = (None, said);
                    }
                }
            }
            tokio::select! {
                () = asked(&mut stop) => break,
                Ok(()) = self.hosts.changed() => {}
                Ok(()) = self.cut_off.known.changed() => {}
                // Others may empty nftables as a whole.
                () = reason(news.as_ref()) => {}
            }
        }
        if let Err(error) = nftables::transact(Family::Ipv4, &none())
            && put.is_some_and(|put| !put.is_empty())
        {
            tracing::warn!(%error, "the rules about hosts that are fenced stay (nft delete table ip {TABLE})");
        }
    }

    /// The table in place of the one that is there; none if nobody is fenced.
    fn rules(&self, fenced: &BTreeMap<String, HostNetwork>) -> Vec<Change> {
        let mut changes = none();
        if fenced.is_empty() {
            return changes;
        }
        let (hosts, pods) = addresses(fenced);
        let arriving = Hook { place: number::PRE_ROUTING, priority: number::RAW };
        changes.extend([
            create_table(TABLE),
            create_set(TABLE, HOSTS, ADDRESS_TYPE, ADDRESS),
            chain(TABLE, CHAIN, "filter", arriving),
        ]);
        changes.extend(elements(number::NEW_ELEMENTS, TABLE, HOSTS.0, &hosts));
        let from_host = || vec![load_address(number::REGISTER, FROM), is_in(HOSTS, true)];
        let mut rule = |parts: Vec<Vec<u8>>| changes.push(append(TABLE, CHAIN, &parts));
        // At any port.
        for network in self.networks.iter().filter_map(v4) {
            rule([from_host(), within(TO, network, number::EQUAL), vec![dropped()]].concat());
        }
        // Virtual routers agree by what they hear of each other: one that isn't heard has its address twice.
        let of_vrrp = vec![protocol(), compare(number::EQUAL, &[VRRP]), accepted()];
        rule([from_host(), of_vrrp].concat());
        let mut let_in = |transport: u8, is_senders: bool, port: u16| {
            let at_port = vec![
                protocol(),
                compare(number::EQUAL, &[transport]),
                load_port(is_senders),
                compare(number::EQUAL, &port.to_be_bytes()),
                accepted(),
            ];
            rule([from_host(), at_port].concat());
        };
        let_in(libc::IPPROTO_UDP as u8, false, self.cut_off.heartbeats);
        for port in &self.cut_off.state {
            let_in(libc::IPPROTO_TCP as u8, false, *port);
            let_in(libc::IPPROTO_TCP as u8, true, *port);
        }
        rule([from_host(), vec![dropped()]].concat());
        // A set for each length of a network's part: its rule compares what is left of an address.
        for (id, ((bits, netmask), networks)) in (HOSTS.1 + 1..).zip(pods) {
            let name = format!("pods{bits}");
            let set = (name.as_str(), id);
            changes.push(create_set(TABLE, set, ADDRESS_TYPE, ADDRESS));
            changes.extend(elements(number::NEW_ELEMENTS, TABLE, &name, &networks));
            let from_pod = [load_address(number::REGISTER, FROM), mask(netmask), is_in(set, true), dropped()];
            changes.push(append(TABLE, CHAIN, &from_pod));
        }
        changes
    }
}

/// No table, whether there is one or not.
fn none() -> Vec<Change> {
    vec![create_table(TABLE), remove_table(TABLE)]
}

/// Which of the other hosts are fenced.
fn fenced(
    own: &str,
    hosts: &BTreeMap<String, HostNetwork>,
    known: &BTreeMap<String, Known>,
) -> BTreeMap<String, HostNetwork> {
    let is_fenced = |name: &String| name != own && known.get(name).is_some_and(Known::is_fenced);
    hosts.iter().filter(|(name, _)| is_fenced(name)).map(|(name, host)| (name.clone(), *host)).collect()
}

/// Addresses as elements of sets.
type Keys = Vec<Vec<u8>>;

/// Their own addresses; and their pods' networks, by how long they are and which part of an address is theirs.
fn addresses(fenced: &BTreeMap<String, HostNetwork>) -> (Keys, BTreeMap<(u8, [u8; 4]), Keys>) {
    let hosts = fenced.values().filter_map(|host| match host.address {
        IpAddr::V4(address) => Some(address.octets().to_vec()),
        IpAddr::V6(_) => None,
    });
    let mut pods: BTreeMap<_, Keys> = BTreeMap::new();
    for network in fenced.values().filter_map(|host| v4(&host.pods)) {
        let part = (network.prefix_len(), network.netmask().octets());
        pods.entry(part).or_default().push(network.network().octets().to_vec());
    }
    (hosts.collect(), pods)
}

fn v4(network: &IpNet) -> Option<Ipv4Net> {
    match network {
        IpNet::V4(network) => Some(*network),
        IpNet::V6(_) => None,
    }
}

/// Whether the rules are there, as far as there have to be any.
fn is_there(fenced: &BTreeMap<String, HostNetwork>) -> bool {
    fenced.is_empty() || nftables::rules_of(Family::Ipv4, TABLE, CHAIN).is_ok_and(|rules| rules > 0)
}

fn tell(before: &BTreeMap<String, HostNetwork>, now: &BTreeMap<String, HostNetwork>) {
    for host in now.keys().filter(|host| !before.contains_key(*host)) {
        tracing::warn!(%host, "a host is fenced: what it sends is dropped until it is back");
    }
    for host in before.keys().filter(|host| !now.contains_key(*host)) {
        tracing::info!(%host, "a host is back: what it sends is taken in again");
    }
}

async fn asked(stop: &mut watch::Receiver<bool>) {
    _ = stop.wait_for(|stop| *stop).await;
}

/// Waits until it is time to look whether the rules are there.
async fn reason(news: Option<&News>) {
    match news {
        Some(news) => {
            // The kernel drops news when nobody reads it in time: a look in any case.
            if timeout(EVERY, news.next()).await.is_ok() {
                sleep(TOGETHER).await;
                news.forget();
            }
        }
        None => sleep(EVERY).await,
    }
}

#[cfg(test)]
mod tests;
