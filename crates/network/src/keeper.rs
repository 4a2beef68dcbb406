//! Puts a host's addresses and routes back whenever they are gone: the kernel takes the routes by a link away when that goes
//! down, and doesn't bring them back; and others who administer the host may remove what they don't know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ipnet::IpNet;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};
use tracing::info_span;

use crate::netlink::Netlink;
use crate::{Error, HostNetwork};

/// How often everything is looked at in any case: the kernel drops its messages when nobody reads them in time, and a
/// route that was replaced by another one is not reported as gone.
pub(crate) const EVERY: Duration = Duration::from_secs(3);
/// What is reported within this time is one reason to look: a link that goes down takes many routes along.
pub(crate) const TOGETHER: Duration = Duration::from_millis(20);

/// The networks of the pods on the other hosts, each with its host's address: the neighbour that leads there.
pub(crate) fn routes(hosts: &BTreeMap<String, HostNetwork>, own: &str) -> Vec<(IpNet, IpAddr)> {
    hosts.iter().filter(|(name, _)| *name != own).map(|(_, host)| (host.pods, host.address)).collect()
}

/// The other hosts, as they come and go.
#[derive(Debug)]
pub(crate) struct Others {
    /// This host's name.
    pub own: String,
    /// All hosts.
    pub hosts: watch::Receiver<Arc<BTreeMap<String, HostNetwork>>>,
}

/// What has to be there for as long as the host is.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Networks that are this host's own.
    pub local: Vec<IpNet>,
    /// Networks of others, each with the neighbour that leads there.
    pub routes: Vec<(IpNet, IpAddr)>,
}

impl Wanted {
    /// Makes it so, also where it is already. All is tried; the first refusal is returned.
    pub async fn put(&self, netlink: &Netlink) -> Result<(), Error> {
        let loopback = netlink.loopback().await?;
        let mut result = Ok(());
        for cidr in &self.local {
            result = result.and(netlink.make_local(*cidr, loopback).await);
        }
        for (cidr, via) in &self.routes {
            result = result.and(netlink.route(*cidr, *via).await);
        }
        result
    }
}

/// Counts what happens to links, and what is removed: each is a reason to look whether all is there.
pub(crate) async fn listen(changes: watch::Sender<u64>) {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    loop {
        match new_multicast_connection(&groups) {
            Ok((connection, _handle, mut messages)) => {
                let connection = tasks::spawn(info_span!("news of links"), connection);
                // What happened before it listened.
                changes.send_modify(|count| *count += 1);
                while let Some((message, _)) = messages.next().await {
                    if matters(&message.payload) {
                        changes.send_modify(|count| *count += 1);
                    }
                }
                connection.abort();
            }
            Err(error) => tracing::warn!(%error, "the kernel doesn't tell what happens to links and routes"),
        }
        sleep(EVERY).await;
    }
}

/// New routes don't: they are our own, as often as not.
fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelRoute, NewAddress, NewLink};
    matches!(
        payload,
        NetlinkPayload::InnerMessage(NewLink(_) | DelLink(_) | NewAddress(_) | DelAddress(_) | DelRoute(_))
    )
}

/// Waits for a reason to look.
pub(crate) async fn reason(changes: &mut watch::Receiver<u64>) {
    next_reason(changes, &mut Wait::default()).await;
}

/// How far a wait for a reason to look has come.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    /// Until the regular look.
    regular: Option<Pin<Box<Sleep>>>,
    /// Until all has happened that happens together.
    together: Option<Pin<Box<Sleep>>>,
}

/// Waits for a reason to look. Who stops waiting since there is other news goes on with the same `wait` next time: such news may come all the
/// time, and nothing that the kernel has told is lost by it.
pub(crate) async fn next_reason(changes: &mut watch::Receiver<u64>, wait: &mut Wait) {
    if wait.together.is_none() {
        let regular = wait.regular.get_or_insert_with(|| Box::pin(sleep(EVERY)));
        tokio::select! {
            // Without anybody who counts there are still the regular looks.
            Ok(()) = changes.changed() => {}
            () = regular => {}
        }
    }
    wait.together.get_or_insert_with(|| Box::pin(sleep(TOGETHER))).await;
    *wait = Wait::default();
    changes.mark_unchanged();
}

/// Keeps what is wanted there, with routes to the other hosts' pods as those come and go.
pub(crate) async fn keep(
    mut netlink: Netlink,
    mut wanted: Wanted,
    mut others: Others,
    mut changes: watch::Receiver<u64>,
) {
    let mut refused = None;
    loop {
        tokio::select! {
            () = reason(&mut changes) => {}
            Ok(()) = others.hosts.changed() => {
                let routes = routes(&others.hosts.borrow_and_update(), &others.own);
                let former = std::mem::replace(&mut wanted.routes, routes);
                let is_gone = |(cidr, _): &&(IpNet, IpAddr)| !wanted.routes.iter().any(|(kept, _)| kept == cidr);
                for (cidr, via) in former.iter().filter(is_gone) {
                    if let Err(error) = netlink.remove_route(*cidr, *via).await {
                        tracing::warn!(%error, "a route to a host that has gone stays");
                    }
                }
            }
        }
        let problem = wanted.put(&netlink).await.err();
        let said = problem.as_ref().map(ToString::to_string);
        // While a link is down, each look finds the same.
        if said != refused {
            match &said {
                Some(error) => {
                    tracing::warn!(%error, "not all of this host's routes are there; they are tried again")
                }
                None => tracing::info!("all of this host's routes are there again"),
            }
        }
        if problem.is_some()
            && let Ok(anew) = Netlink::open()
        {
            // The connection itself may be what is broken.
            netlink = anew;
        }
        refused = said;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Waits for a reason, and is called away every 5 ms.
    async fn is_looked_within(time: Duration, changes: &mut watch::Receiver<u64>) -> bool {
        let mut wait = Wait::default();
        let looks = async {
            while timeout(Duration::from_millis(5), next_reason(changes, &mut wait)).await.is_err() {}
        };
        timeout(time, looks).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn other_news_all_the_time_keeps_nobody_from_looking() {
        let (counter, mut changes) = watch::channel(0);
        counter.send_replace(1);
        assert!(is_looked_within(TOGETHER * 2, &mut changes).await, "something happened");
        assert!(!is_looked_within(TOGETHER * 2, &mut changes).await, "nothing did");
        assert!(is_looked_within(EVERY + TOGETHER * 2, &mut changes).await, "it is time");
        drop(counter);
        assert!(is_looked_within(EVERY + TOGETHER * 2, &mut changes).await, "nobody counts any more");
    }
}
