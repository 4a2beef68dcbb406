//! The links that virtual routers go by, looked at whenever the kernel says that something has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tokio::sync::watch;
use vrrp::{LinkState, Settings};

use crate::keeper;
use crate::netlink::{Netlink, View};

/// Links by name; those that are missing aren't there.
pub(super) type Links = BTreeMap<String, View>;

/// Addresses from the first to the last.
pub(super) type Range = (Ipv4Addr, Ipv4Addr);

/// The links that settings name.
pub(super) fn named(settings: &Settings) -> BTreeSet<String> {
    let tracked = |instance: &vrrp::Instance| {
        instance.track.interfaces.iter().map(|link| link.name.clone()).collect::<Vec<_>>()
    };
    let own = settings.instances.iter().map(|instance| instance.interface.clone());
    own.chain(settings.instances.iter().flat_map(tracked)).collect()
}

/// What the decisions take a link for. Its own address is the first that doesn't move between hosts.
pub(super) fn state(link: Option<&View>, moving: &[Range]) -> LinkState {
    let moves = |address: &Ipv4Addr| moving.iter().any(|(first, last)| (first..=last).contains(&address));
    match link {
        Some(View { link, addresses }) if link.is_up => {
            LinkState::Up { address: addresses.iter().find(|address| !moves(address)).copied() }
        }
        _ => LinkState::Down,
    }
}

/// Looks again and again. Each look is reported, also one that finds nothing new: what the kernel refused is tried again then.
pub(super) async fn look(
    names: BTreeSet<String>,
    looks: watch::Sender<Option<Links>>,
    mut changes: watch::Receiver<u64>,
) {
    let mut netlink = None;
    loop {
        match seen(&mut netlink, &names).await {
            Ok(links) => drop(looks.send_replace(Some(links))),
            Err(error) => {
                tracing::warn!(%error, "can't look at the links of virtual routers");
                // The connection itself may be what is broken.
                netlink = None;
            }
        }
        keeper::reason(&mut changes).await;
    }
}

async fn seen(netlink: &mut Option<Netlink>, names: &BTreeSet<String>) -> Result<Links, crate::Error> {
    let netlink = match netlink {
        Some(netlink) => netlink,
        None => netlink.insert(Netlink::open()?),
    };
    let mut links = Links::new();
    for name in names {
        if let Some(view) = netlink.view(name).await? {
            links.insert(name.clone(), view);
        }
    }
    Ok(links)
}
