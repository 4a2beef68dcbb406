//! The API's virtual address: held exactly while this host leads.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use store::Leadership;
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::info_span;

use crate::announce::Entry;
use crate::netlink::{Link, Netlink};
use crate::{Error, arp, keeper};

/// When neighbours get the news, counted from the acquisition: more than once, for a datagram may be lost.
const TELL_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200)];
/// News this late is not sent any more: a host that paused may have lost the address without knowing it yet, and
/// would draw its callers back.
const LATE: Duration = Duration::from_millis(100);
/// After this time, what the kernel refused is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// How an address is held.
#[derive(Debug)]
pub(crate) enum Holder {
    /// On a link of this host, by its name: it may go and come again. `changes` tells when to look whether the address is where
    /// it should be.
    Link { netlink: Netlink, link: String, address: IpAddr, changes: watch::Receiver<u64> },
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
            Holder::Link { netlink, link, address, .. } => {
                let link = netlink.link(link).await?;
                netlink.add_address(link, *address).await?;
                telling.spawn_in(info_span!("tell neighbours", %address), tell_neighbours(link, *address));
            }
            Holder::Switch { entry, announced } => {
                announced.send_replace(Some(entry.clone()));
            }
        }
        Ok(())
    }

    async fn release(&self) -> Result<(), Error> {
        match self {
            Holder::Link { netlink, link, address, .. } => {
                let link = match netlink.link(link).await {
                    // A link that is gone has no address.
                    Err(Error::NoLink(_)) => return Ok(()),
                    found => found?,
                };
                netlink.remove_address(link, *address).await
            }
            Holder::Switch { announced, .. } => {
                announced.send_replace(None);
                Ok(())
            }
        }
    }

    /// After a refusal: the connection to the kernel may be what is broken, and would refuse for ever.
    fn begin_anew(&mut self) {
        if let Holder::Link { netlink, .. } = self
            && let Ok(anew) = Netlink::open()
        {
            *netlink = anew;
        }
    }

    /// Waits for a reason to look at the address.
    async fn reason(&mut self) {
        match self {
            Holder::Link { changes, .. } => keeper::reason(changes).await,
            Holder::Switch { .. } => std::future::pending().await,
        }
    }

    /// Whether the address is here; where only an announcement makes it so, it is as `wanted`.
    async fn is_here(&self, wanted: bool) -> Result<bool, Error> {
        match self {
            Holder::Link { netlink, link, address, .. } => match netlink.link(link).await {
                Err(Error::NoLink(_)) => Ok(false),
                found => netlink.has_address(found?, *address).await,
            },
            Holder::Switch { .. } => Ok(wanted),
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
    mut holder: Holder,
    before_release: impl Fn() + Send,
    mut leadership: watch::Receiver<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let address = holder.address();
    // The term in which the address was taken. At the start a former life of this host may have left it on.
    let mut held: Option<u64> = None;
    let mut misplaced = matches!(holder, Holder::Link { .. });
    // Emptied before the address is given up, so that nobody hears a thing that is no longer true.
    let mut telling = JoinSet::new();
    let mut ended = false;
    loop {
        let wanted = {
            let leadership = leadership.borrow_and_update();
            (leadership.is_me && !ended).then_some(leadership.term)
        };
        let done = if wanted == held && !misplaced {
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
            (held, misplaced) = (wanted, false);
        }
        if let Err(error) = &done {
            tracing::error!(%error, "the virtual address is not where it should be");
            holder.begin_anew();
        }
        // Not with the address still on: the kernel would go on to answer for it in the name of a host that has
        // gone.
        if ended && done.is_ok() {
            return;
        }
        while telling.try_join_next().is_some() {}
        tokio::select! {
            changed = leadership.changed(), if !ended => ended |= changed.is_err(),
            () = asked(&mut stop), if !ended => ended = true,
            () = tokio::time::sleep(AGAIN), if done.is_err() => {}
            // Somebody may have removed it; or it is here, and shouldn't be.
            () = holder.reason(), if done.is_ok() && !ended => {
                let wanted = held.is_some();
                // What can't be found out is put right, as if it were wrong.
                misplaced = holder.is_here(wanted).await.map_or(true, |is_here| is_here != wanted);
                if misplaced {
                    tracing::warn!(%address, wanted, "the virtual address is not where it was put");
                }
            }
        }
    }
}

/// Returns once it is to end, or nobody is left who could say so.
async fn asked(stop: &mut watch::Receiver<bool>) {
    // Either way it ends.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
