//! The API's virtual address: held exactly while this host leads.

use std::net::IpAddr;
use std::time::Duration;

use store::Leadership;
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info_span;

use crate::Error;
use crate::announce::Entry;
use crate::on_link::{OnLink, tell_neighbours};

/// When neighbours get the news, counted from the acquisition.
const TELL_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200)];
/// After this time, what the kernel refused is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// How an address is held.
#[derive(Debug)]
pub(crate) enum Holder {
    /// On a link of this host.
    Link { on: OnLink, address: IpAddr },
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
            Holder::Link { on, address } => {
                let link = on.put(*address).await?;
                // Who gives the address up ends this before.
                let telling_them = tell_neighbours(link, *address, TELL_AFTER, || true);
                telling.spawn_in(info_span!("tell neighbours", %address), telling_them);
            }
            Holder::Switch { entry, announced } => {
                announced.send_replace(Some(entry.clone()));
            }
        }
        Ok(())
    }

    async fn release(&self) -> Result<(), Error> {
        match self {
            Holder::Link { on, address } => on.remove(*address).await,
            Holder::Switch { announced, .. } => {
                announced.send_replace(None);
                Ok(())
            }
        }
    }

    /// After a refusal: the connection to the kernel may be what is broken, and would refuse for ever.
    fn begin_anew(&mut self) {
        if let Holder::Link { on, .. } = self {
            on.begin_anew();
        }
    }

    /// Waits for a reason to look at the address.
    async fn reason(&mut self) {
        match self {
            Holder::Link { on, .. } => on.reason().await,
            Holder::Switch { .. } => std::future::pending().await,
        }
    }

    /// Whether the address is here; where only an announcement makes it so, it is as `wanted`.
    async fn is_here(&self, wanted: bool) -> Result<bool, Error> {
        match self {
            Holder::Link { on, address } => on.has(*address).await,
            Holder::Switch { .. } => Ok(wanted),
        }
    }
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
pub(crate) async fn asked(stop: &mut watch::Receiver<bool>) {
    // Either way it ends.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
