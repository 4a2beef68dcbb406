//! The API's virtual address: held exactly while this host leads, and runs.
//!
//! A program that was killed, or is stopped, gives nothing up, and the kernel would go on to answer for the address beside that of the next leader.
//! So who leads says in memory until when it stands for the API ([`LeasePage::leading`]), again and again, and the keeper
//! of addresses takes the address away once that time has passed, or the program is gone or is stopped. A program that finds out that
//! its time has passed has been away: it asks a majority whether it leads before it takes the address again.
//!
//! A leader that is cut off finds out by consensus only after the others may have elected another. So it gives the address up before: when it
//! hasn't heard a majority of the members for less time than an election needs at least.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use membership::{LeasePage, Solitude, boottime};
use store::Leadership;
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::info_span;

use crate::Error;
use crate::address_keeper::{Hold, Keeper};
use crate::announce::Entry;
use crate::on_link::{OnLink, tell_neighbours};

/// When neighbours get the news, counted from the acquisition.
const TELL_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200)];
/// After this time, what the kernel refused is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long this host stands for the API after it has said so. A program that is away for longer isn't the leader any more; one that only gets
/// little time to run must not lose the address for that, before it loses leadership.
const STANDS: Duration = Duration::from_millis(1200);
/// How often it says so.
const BEAT: Duration = Duration::from_millis(200);

/// How an address is held.
#[derive(Debug)]
pub(crate) enum Holder {
    /// On a link of this host.
    Link {
        on: OnLink,
        address: IpAddr,
        /// Who gives it up if this process can't; none where nobody does.
        keeper: Option<Keeper>,
    },
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

    /// Takes the address as the leader of a term, for as long as the page says so, and starts to tell the neighbours.
    async fn acquire(&self, term: u64, page: &LeasePage, telling: &mut JoinSet<()>) -> Result<(), Error> {
        match self {
            Holder::Link { on, address, keeper } => {
                // The API is worth more than a keeper: the next one hears of the address as soon as it is there.
                keeper.iter().for_each(|keeper| _ = keeper.tell(*address, Hold::Leading(term)));
                let link = on.put(*address).await?;
                let page = page.clone();
                // Who gives the address up ends this before.
                let telling_them =
                    tell_neighbours(link, *address, TELL_AFTER, move || page.ends(term).is_some());
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
            Holder::Link { on, address, keeper } => {
                on.remove(*address).await?;
                keeper.iter().for_each(|keeper| keeper.gone(*address));
                Ok(())
            }
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
            Holder::Link { on, address, .. } => on.has(*address).await,
            Holder::Switch { .. } => Ok(wanted),
        }
    }
}

/// How long who seems to be cut off looks once more: beats that have arrived may only wait for their turn.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How a leader finds out that it is cut off.
#[derive(Debug, Clone)]
pub struct Company {
    /// For how long it has heard no majority of the members.
    pub solitude: Solitude,
    /// For how long it then still counts as one that nobody has followed yet: less than an election needs at least.
    pub patience: Duration,
}

impl Company {
    /// For how much longer this host isn't cut off unless it hears somebody; nothing if it is.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.patience.checked_sub(self.solitude.lasts())
    }
}

/// Follows leadership until `stop` or the store's end; then gives the address up. `before_release` is called
/// each time before it does. `page` is where this host says until when it stands for the API; `asks` asks a majority of the store's
/// members, so that what `leadership` says afterwards was true since. `company` says for how much longer this host isn't cut off,
/// nothing if it is.
pub(crate) async fn follow(
    mut holder: Holder,
    page: LeasePage,
    before_release: impl Fn() + Send,
    asks: impl Fn() -> BoxFuture<'static, bool> + Send,
    company: impl Fn() -> Option<Duration> + Send,
    mut leadership: watch::Receiver<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let address = holder.address();
    if let Holder::Link { keeper: Some(keeper), .. } = &holder {
        keeper.is_there().await;
    }
    // The term in which the address was taken. At the start a former life of this host may have left it on.
    let mut held: Option<u64> = None;
    let mut misplaced = matches!(holder, Holder::Link { .. });
    // The term of which the page speaks.
    let mut stands: Option<u64> = None;
    // This process was away for so long that another one may lead, without having heard of it yet.
    let mut doubtful = false;
    // What a majority is asked about that, once for all news that come meanwhile.
    let mut asked_who_leads: Option<BoxFuture<'static, bool>> = None;
    // Emptied before the address is given up, so that nobody hears a thing that is no longer true.
    let mut telling = JoinSet::new();
    let mut ended = false;
    loop {
        // Before all that follows: what was seen before a pause doesn't count after it.
        let until = boottime() + STANDS;
        let leads = {
            let leadership = leadership.borrow_and_update();
            (leadership.is_me && !ended).then_some(leadership.term)
        };
        if !doubtful && stands.is_some_and(|term| page.ends(term).is_none()) {
            tracing::warn!(%address, "this program did nothing for {STANDS:?}: it gives the virtual address up until it knows that it leads");
            doubtful = true;
        }
        let mut lasts = company();
        if leads.is_some() && !doubtful && lasts.is_none() {
            sleep(LOOK_AGAIN).await;
            lasts = company();
            if lasts.is_none() {
                tracing::warn!(%address, "no majority is heard: the virtual address is given up before another host may lead");
                doubtful = true;
            }
        }
        doubtful &= leads.is_some();
        if !doubtful {
            // An answer counts for the doubt that it was asked for.
            asked_who_leads = None;
        }
        let wanted = leads.filter(|_| !doubtful);
        let done = match wanted {
            _ if held == wanted && !misplaced => {
                // Here, too: where there is news all the time, as while many pods start, the wait for the next beat begins anew each time.
                if let Some(term) = held {
                    page.set(term, Some(until));
                }
                Ok(())
            }
            // Leading again in a later term, too: another host may have had it in between.
            Some(term) => {
                telling.abort_all();
                page.set(term, Some(until));
                stands = wanted;
                holder.acquire(term, &page, &mut telling).await
            }
            None => {
                telling.abort_all();
                before_release();
                // From here on the keeper takes it away, too.
                page.set(stands.take().unwrap_or_default(), None);
                holder.release().await
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
            () = sleep(AGAIN), if done.is_err() => {}
            () = beats(&page, held), if done.is_ok() => {}
            leads = knows(&asks, &mut asked_who_leads), if done.is_ok() && doubtful && lasts.is_some() => doubtful = !leads,
            () = sleep(lasts.unwrap_or(LOOK_AGAIN)), if leads.is_some() => {}
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

/// Says in the page again and again that this host stands for the API in a term, until it hasn't said so in time.
async fn beats(page: &LeasePage, held: Option<u64>) {
    let Some(term) = held else { return std::future::pending().await };
    loop {
        sleep(BEAT).await;
        // In this order: a pause between the two must not prolong what has passed.
        let until = boottime() + STANDS;
        if page.ends(term).is_none() {
            return;
        }
        page.set(term, Some(until));
    }
}

/// Whether it is known now who leads. What was asked before goes on: news come many times while it is answered where many pods start.
async fn knows(
    asks: &(impl Fn() -> BoxFuture<'static, bool> + Send),
    asked: &mut Option<BoxFuture<'static, bool>>,
) -> bool {
    let ask = || -> BoxFuture<'static, bool> {
        let answer = asks();
        Box::pin(async move {
            let is_answered = answer.await;
            if !is_answered {
                sleep(AGAIN).await;
            }
            is_answered
        })
    };
    let is_answered = asked.get_or_insert_with(ask).await;
    *asked = None;
    is_answered
}

/// Returns once it is to end, or nobody is left who could say so.
pub(crate) async fn asked(stop: &mut watch::Receiver<bool>) {
    // Either way it ends.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;
