//! The API's virtual address: held exactly while this host leads.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use store::Leadership;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::announce::Entry;
use crate::netlink::{Link, Netlink};
use crate::{Error, arp};

/// When neighbours are told, counted from the acquisition: more than once, for a datagram may be lost.
const TELL_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200)];
/// What is this late is not said any more: a host that paused may have lost the address without knowing it yet, and
/// would draw its callers back.
const LATE: Duration = Duration::from_millis(100);
/// After this time, what the kernel refused is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// How an address is held.
#[derive(Debug)]
pub(crate) enum Holder {
    /// On a link of this host.
    Link { netlink: Arc<Netlink>, link: Link, address: IpAddr },
    /// By announcing it to the switch.
    Switch { entry: Entry, announced: watch::Sender<Option<Entry>> },
}

impl Holder {
    fn address(&self) -> IpAddr {
        match self {
            Holder::Link { address, .. } => *address,
            Holder::Switch { entry, .. } => entry.address,
        }
    }

    /// Takes the address, and starts to tell the neighbours.
    async fn acquire(&self, telling: &mut JoinSet<()>) -> Result<(), Error> {
        match self {
            Holder::Link { netlink, link, address } => {
                netlink.add_address(*link, *address).await?;
                telling.spawn(tell_neighbours(*link, *address));
            }
            Holder::Switch { entry, announced } => {
                announced.send_replace(Some(entry.clone()));
            }
        }
        Ok(())
    }

    async fn release(&self) -> Result<(), Error> {
        match self {
            Holder::Link { netlink, link, address } => netlink.remove_address(*link, *address).await,
            Holder::Switch { announced, .. } => {
                announced.send_replace(None);
                Ok(())
            }
        }
    }
}

async fn tell_neighbours(link: Link, address: IpAddr) {
    let IpAddr::V4(address) = address else { return };
    let acquired = now();
    for after in TELL_AFTER {
        tokio::time::sleep_until(acquired + after).await;
        if now() > acquired + after + LATE {
            return;
        }
        let told: io::Result<()> = arp::announce(link.index, link.hardware, address);
        if let Err(error) = told {
            tracing::warn!(%address, %error, "can't tell the neighbours who has the virtual address");
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver of the virtual address: here it gets its time")]
fn now() -> Instant {
    Instant::now()
}

/// Follows leadership until `stop` or the store's end; then gives the address up. `before_release` is called
/// each time before it does.
pub(crate) async fn follow(
    holder: Holder,
    before_release: impl Fn() + Send,
    mut leadership: watch::Receiver<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let address = holder.address();
    // The term in which the address was taken. At the start a former life of this host may have left it on.
    let mut held: Option<u64> = None;
    let mut left_behind = matches!(holder, Holder::Link { .. });
    // Emptied before the address is given up, so that nobody is told a thing that is no longer true.
    let mut telling = JoinSet::new();
    let mut ended = false;
    loop {
        let wanted = {
            let leadership = leadership.borrow_and_update();
            (leadership.is_me && !ended).then_some(leadership.term)
        };
        let done = if wanted == held && !left_behind {
            Ok(())
        } else {
            telling.abort_all();
            match wanted {
                // Leading again in a later term, too: another host may have had it in between.
                Some(_) => holder.acquire(&mut telling).await,
                None => {
                    before_release();
                    holder.release().await
                }
            }
        };
        if done.is_ok() {
            match (held, wanted) {
                (None, Some(_)) => tracing::info!(target: "timeline", what = "vip-moved", subject = %address),
                (Some(_), None) => {
                    tracing::info!(target: "timeline", what = "vip-released", subject = %address);
                }
                _ => {}
            }
            (held, left_behind) = (wanted, false);
        }
        if let Err(error) = &done {
            tracing::error!(%error, "the virtual address is not where it should be");
        }
        if ended && done.is_ok() {
            return;
        }
        while telling.try_join_next().is_some() {}
        tokio::select! {
            changed = leadership.changed(), if !ended => ended |= changed.is_err(),
            _ = stop.wait_for(|stop| *stop), if !ended => ended = true,
            () = tokio::time::sleep(AGAIN), if done.is_err() => {}
        }
    }
}

#[cfg(test)]
mod tests;
