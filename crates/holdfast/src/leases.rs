//! This host's lease, for the rest of the program.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::HostConfig;
use jiff::Timestamp;
use membership::lease::{Ended, Epoch};
use membership::{HeartbeatDriver, Lease};
use tokio::sync::watch;
use tracing::info_span;

use crate::fence_agents::Off;

/// The least epoch that a process begins with. Later than those of its former processes, also where the file that remembers them is lost:
/// they began with the time, too, and took two seconds and more for each that followed.
#[allow(clippy::disallowed_methods)] // The program: here the host gets its time.
pub fn first_epoch() -> Epoch {
    Epoch::try_from(Timestamp::now().as_millisecond()).unwrap_or_default().max(1)
}

/// Begins the next epoch whenever one is over and nothing is left of what stops with it: neither of pods, whose keepers see to that by
/// themselves, nor of addresses of services. `pods` is the agent's folder; `addresses` is in which epoch this host holds some.
pub async fn begin_epochs(
    mut lease: watch::Receiver<Lease>,
    left: watch::Sender<Option<Epoch>>,
    pods: PathBuf,
    mut addresses: watch::Receiver<Option<Epoch>>,
) {
    loop {
        let now = *lease.borrow_and_update();
        if let Lease::Over(epoch) = now {
            tracing::warn!(epoch, "no majority of the members has heard this host: its lease is over");
            node::end_of_leased_pods(&pods).await;
            let is_left = |held: &Option<Epoch>| held.is_some_and(|held| held <= epoch);
            // Who holds none any more, because it has ended, has left none.
            _ = addresses.wait_for(|held| !is_left(held)).await;
            left.send_replace(Some(epoch));
        }
        if lease.changed().await.is_err() {
            return;
        }
    }
}

/// Whose leases are over, by the members' count or since they are switched off, as the controllers take it: with the time since when that is known here.
#[allow(clippy::disallowed_methods)] // The program: here the controllers get that time.
pub fn ended(
    mut counted: watch::Receiver<Arc<BTreeMap<String, Ended>>>,
    mut off: watch::Receiver<Off>,
) -> watch::Receiver<Arc<controllers::Ended>> {
    let (shown, seen) = watch::channel(Arc::default());
    tasks::spawn(info_span!("ended leases"), async move {
        loop {
            let counted_now = with_off(&counted.borrow_and_update(), &off.borrow_and_update());
            shown.send_if_modified(|known| {
                let next = since(known, &counted_now, Instant::now());
                let changed = **known != next;
                *known = Arc::new(next);
                changed
            });
            tokio::select! {
                changed = counted.changed() => if changed.is_err() { return },
                Ok(()) = off.changed() => {}
            }
        }
    });
    seen
}

/// What was counted, and what is over since a host is off.
fn with_off(counted: &BTreeMap<String, Ended>, off: &BTreeMap<String, Epoch>) -> BTreeMap<String, Ended> {
    let mut all = counted.clone();
    for (host, epoch) in off {
        if all.get(host).is_none_or(|ended| ended.epoch < *epoch) {
            all.insert(host.clone(), Ended { epoch: *epoch, is_back: false });
        }
    }
    all
}

fn since(known: &controllers::Ended, counted: &BTreeMap<String, Ended>, now: Instant) -> controllers::Ended {
    let end = |(host, ended): (&String, &Ended)| {
        let Ended { epoch, is_back } = *ended;
        let same = known.get(host).filter(|known| (known.epoch, known.is_back) == (epoch, is_back));
        let since = same.map_or(now, |known| known.since);
        (host.clone(), controllers::LeaseEnd { epoch, is_back, since })
    };
    counted.iter().map(end).collect()
}

/// What it takes to drop what fenced hosts send. What they need to come back are heartbeats, also by TCP, the API, the hosts' own store, and an etcd of
/// the user's.
pub fn cut_off(config: &HostConfig, membership: &HeartbeatDriver) -> network::CutOff {
    let port = |endpoint: &String| endpoint.rsplit(':').next()?.trim_end_matches('/').parse::<u16>().ok();
    let of_etcd = config
        .datastore
        .iter()
        .flat_map(|etcd| etcd.endpoints.iter().filter_map(port).chain(etcd.via.iter().map(SocketAddr::port)));
    let ports = config.ports;
    network::CutOff {
        known: membership.known().subscribe(),
        heartbeats: ports.heartbeats,
        state: [ports.heartbeats, ports.api, ports.store, ports.etcd].into_iter().chain(of_etcd).collect(),
    }
}

/// What a leader may spend, of the shortest time in which another can be elected, on noticing that it is cut off and on taking the address from its link.
const GIVING_UP: Duration = Duration::from_millis(40);

/// How this host finds out, as the leader, that it is cut off. With an etcd of the user's, leadership isn't for the hosts to give.
pub fn company(config: &HostConfig, membership: &HeartbeatDriver) -> Option<network::Company> {
    let timeouts = &config.timeouts;
    // One lost beat of each host says nothing.
    let beats = timeouts.heartbeats.every * 2 + timeouts.heartbeats.every / 5;
    let patience = timeouts.store.election_min.saturating_sub(GIVING_UP).max(beats);
    let solitude = membership.solitude();
    config.datastore.is_none().then_some(network::Company { solitude, patience })
}

/// The lease, and who is fenced, for `/metrics`.
pub fn metrics(membership: &HeartbeatDriver) -> server::Measure {
    let (lease, page, ended) = (membership.lease(), membership.lease_page(), membership.ended());
    Box::new(move |out| {
        let epoch = match *lease.borrow() {
            Lease::Awaited(epoch) | Lease::Held(epoch) | Lease::Over(epoch) => epoch,
        };
        figures::single(
            out,
            "holdfast_lease_seconds",
            "gauge",
            "For how long this host may count on a majority of the members having heard it; 0 if it may not",
            page.remaining().as_secs_f64(),
        );
        figures::single(
            out,
            "holdfast_lease_epoch",
            "gauge",
            "In which epoch this host is: a later one follows each lease that has ended, and each start",
            epoch,
        );
        figures::family(
            out,
            "holdfast_host_fenced",
            "gauge",
            "Whether a host's lease is over for sure, by what this host has heard of the members, and the host is not back yet",
        );
        for (host, ended) in ended.borrow().iter() {
            figures::sample(
                out,
                "holdfast_host_fenced",
                &format!(r#"host="{host}""#),
                u8::from(!ended.is_back),
            );
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_a_host_that_is_off_is_over_unless_a_later_one_is_counted() {
        let ended = |epoch, is_back| Ended { epoch, is_back };
        let counted = BTreeMap::from([("n1".to_owned(), ended(6, true)), ("n2".to_owned(), ended(9, true))]);
        let off = BTreeMap::from([("n1".to_owned(), 7), ("n2".to_owned(), 7), ("n3".to_owned(), 7)]);
        let all = with_off(&counted, &off);
        let seen = ["n1", "n2", "n3"].map(|host| all[host]);
        assert_eq!(seen, [ended(7, false), ended(9, true), ended(7, false)]);
    }
}
