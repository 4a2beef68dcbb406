//! Carries out what is decided about addresses: on the link, in the state, to the neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use membership::lease::Epoch;
use membership::{Lease, LeasePage};
use objects::{AddressLease, AddressPool, Write};
use store::{Event, KeyRange, Revision, Store, Watcher};
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::info_span;

use super::LoadBalancing;
use super::holding::{Holding, Step, Taking};
use super::word::Word;
use crate::Error;
use crate::address_keeper::{Hold, Keeper};
use crate::dial::Dialer;
use crate::netlink::Link;
use crate::on_link::{OnLink, tell_neighbours};
use crate::virtual_address::asked;

/// When neighbours get the news first, counted from the acquisition.
const TELL_AFTER: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// And then from time to time, for as long as it is held: a neighbour may have been away, or come new.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// How often it is looked whether the lease still holds, at least: these timers stand still while the machine sleeps, and the lease doesn't.
const LOOK: Duration = Duration::from_millis(100);
/// What was refused, by the kernel or by the API, is tried again after this time.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(5);
/// How long callers' connections may take to end before their address goes: no longer than a thread may be busy.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long a host that ends waits until it is written that its addresses are free. If it isn't, others wait for the end of its lease.
const LEAVE: Duration = Duration::from_secs(2);
/// How long it waits before that until its Node says that it takes no more.
const WORD: Duration = Duration::from_millis(500);

/// Where addresses are held.
#[derive(Debug)]
pub(crate) enum Place {
    /// On a link of this host.
    Link(OnLink),
    /// By announcing them to the switch, which the announcer does for those that are held.
    Switch,
}

/// Holds addresses.
pub(crate) struct Driver {
    pub host: String,
    pub options: LoadBalancing,
    /// Until when this host's lease holds.
    pub page: LeasePage,
    pub place: Place,
    /// Who gives the addresses up if this process can't; none where nobody does.
    pub keeper: Option<Keeper>,
    pub store: Arc<dyn Store>,
    pub dialer: Arc<Dialer>,
    /// What is held, for who announces it.
    pub held: watch::Sender<BTreeSet<IpAddr>>,
    /// Who is silent: after that, neighbours may have missed the news.
    pub hosts: watch::Receiver<Arc<membership::Hosts>>,
}

/// What goes on.
struct Work {
    driver: Driver,
    holding: Holding,
    /// Each emptied before its address is given up, so that nobody hears a thing that is no longer true.
    telling: BTreeMap<Ipv4Addr, JoinSet<()>>,
    writing: JoinSet<(Ipv4Addr, Option<Revision>)>,
    /// Of which addresses something is being written; or with which revision it was, until the state here has come so far.
    written: BTreeMap<Ipv4Addr, Option<Revision>>,
    /// The link as it was last seen.
    link: Option<Link>,
    /// Something was refused by the kernel.
    is_left: bool,
}

impl Driver {
    /// Holds what there is to hold until `stop` or the store's end; then gives all up.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let holding = Holding::new(self.host.clone(), self.options.process, self.options.pool.clone());
        let (telling, writing, written, link) = Default::default();
        let word =
            Word { host: self.host.clone(), store: self.store.clone(), writer: self.options.writer.clone() };
        let mut saying = JoinSet::new();
        saying.spawn_in(
            info_span!("say which addresses are taken"),
            word.clone().keep(self.options.pool.clone()),
        );
        let mut work = Work { driver: self, holding, telling, writing, written, link, is_left: false };
        loop {
            match work.follow_history(&mut stop).await {
                // The history was cut past what was seen: start from the newest state again.
                Err(store::Error::Compacted { .. }) => {}
                Ok(()) => break,
                Err(error) => {
                    tracing::debug!(%error, "addresses are no longer followed");
                    break;
                }
            }
        }
        drop(saying);
        work.leave(&word).await;
    }
}

impl Work {
    fn watch(&mut self) -> Result<Watcher, store::Error> {
        let range = KeyRange::prefix(AddressLease::prefix());
        let state = self.driver.store.snapshot();
        let watcher = self.driver.store.watch(range.clone(), state.revision().next())?;
        self.holding.learn_all(state.range(&range).filter_map(|kv| AddressLease::of(kv)));
        self.written.retain(|_, until| until.is_none_or(|until| until > state.revision()));
        Ok(watcher)
    }

    /// Follows until `stop`.
    async fn follow_history(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), store::Error> {
        let mut leases = self.watch()?;
        loop {
            self.act().await;
            let until_end = self.until_end();
            let is_left = self.is_left;
            tokio::select! {
                // A lease that is over comes first.
                biased;
                () = until_end => {}
                changed = self.driver.options.lease.changed() => changed.map_err(|_| store::Error::Closed)?,
                () = asked(stop) => return Ok(()),
                events = leases.changes() => events?.0.iter().for_each(|event| self.learn(event)),
                Some(written) = self.writing.join_next() => self.wrote(written),
                () = reason(&mut self.driver.place) => self.look().await,
                Ok(()) = self.driver.hosts.changed() => self.tell_again().await,
                () = sleep(AGAIN), if is_left => {}
            }
        }
    }

    /// The end of the lease by which something is held, if it isn't renewed until then; never, if nothing is.
    fn until_end(&self) -> impl Future<Output = ()> + use<> {
        let epoch = self.holding.here().map(|(_, taking)| taking.epoch).min();
        let (page, is_left) = (self.driver.page.clone(), self.is_left);
        async move {
            let Some(epoch) = epoch else { return std::future::pending().await };
            if is_left {
                // It is over already, and the kernel refuses.
                return sleep(AGAIN).await;
            }
            while page.ends(epoch).is_some() {
                sleep(page.remaining().min(LOOK)).await;
            }
        }
    }

    /// The epoch in which this host's lease is held.
    fn epoch(&self) -> Option<Epoch> {
        match *self.driver.options.lease.borrow() {
            Lease::Held(epoch) => self.driver.page.ends(epoch).map(|_| epoch),
            Lease::Awaited(_) | Lease::Over(_) => None,
        }
    }

    fn learn(&mut self, event: &Event) {
        let Some(address) = AddressLease::address_at(event.key()) else { return };
        let (lease, revision) = match event {
            Event::Put { current, .. } => (AddressLease::of(current), current.mod_revision),
            Event::Delete { revision, .. } => (None, *revision),
        };
        self.holding.learn(address, lease);
        if self.written.get(&address).is_some_and(|until| until.is_some_and(|until| until <= revision)) {
            self.written.remove(&address);
        }
    }

    /// Does all that there is to do.
    async fn act(&mut self) {
        self.is_left = false;
        self.driver.options.lease.borrow_and_update();
        // What was removed is then to be written, and so on.
        loop {
            let (epoch, mut again) = (self.epoch(), false);
            let steps = self.holding.steps(epoch);
            let leaving = steps.iter().filter(|(_, step)| *step == Step::Remove).map(|(address, _)| *address);
            self.say_farewell(leaving, epoch.is_some()).await;
            for (address, step) in steps {
                match step {
                    Step::Remove => again |= self.remove(address).await,
                    Step::Put(taking) => self.put(address, taking).await,
                    Step::Write(change) => self.write(address, &change.0, &change.1),
                }
            }
            if !again {
                break;
            }
        }
        let epoch = self.holding.here().map(|(_, taking)| taking.epoch).max();
        self.driver.options.epoch.send_if_modified(|known| std::mem::replace(known, epoch) != epoch);
    }

    async fn put(&mut self, address: Ipv4Addr, taking: Taking) {
        // Shown before it is looked whether the lease holds: so who ends an epoch sees either that or that it was too late.
        self.driver.options.epoch.send_replace(Some(taking.epoch));
        self.holding.puts(address, taking);
        if self.driver.page.ends(taking.epoch).is_none() {
            // Nothing was put anywhere.
            self.holding.removed(address);
            self.is_left = true;
            return;
        }
        if let Some(keeper) = &self.driver.keeper {
            // No longer than the lease holds by now: nobody would give up what else is held, while there is no keeper.
            let kept = keeper.keep(address.into(), Hold::Lease(taking.epoch));
            let kept = timeout(self.driver.page.remaining(), kept).await;
            if let Err(error) = kept.unwrap_or_else(|late| Err(Error::Keeper(late.into()))) {
                keeper.gone(address.into());
                self.refused(&error, "can't take an address");
                return self.holding.removed(address);
            }
        }
        if let Place::Link(on) = &self.driver.place
            && let Err(error) = on.put(address.into()).await
        {
            self.refused(&error, "can't take an address");
            // It may be there for all that: it is taken away first.
            return self.doubt(address).await;
        }
        if self.driver.page.ends(taking.epoch).is_none() {
            // This host slept in between.
            return self.doubt(address).await;
        }
        tracing::info!(target: "timeline", what = "address-taken", subject = %address);
        self.driver.held.send_modify(|held| _ = held.insert(address.into()));
        self.tell(address, taking).await;
    }

    /// Takes away what may be here, and wasn't meant to be.
    async fn doubt(&mut self, address: Ipv4Addr) {
        self.is_left = true;
        if let Place::Link(on) = &self.driver.place
            && let Err(error) = on.remove(address.into()).await
        {
            // It stays among what is here: by the next look it isn't as it should be.
            return self.refused(&error, "can't give up an address");
        }
        self.removed(address);
    }

    fn removed(&mut self, address: Ipv4Addr) {
        self.holding.removed(address);
        if let Some(keeper) = &self.driver.keeper {
            keeper.gone(address.into());
        }
    }

    /// Ends callers' connections to addresses that are about to go, while these are still here: nothing can be sent from them afterwards.
    async fn say_farewell(&mut self, leaving: impl Iterator<Item = Ipv4Addr>, has_time: bool) {
        let farewells: Vec<_> = leaving.map(|address| self.driver.dialer.farewell(address.into())).collect();
        if has_time && !farewells.is_empty() {
            _ = timeout(FAREWELL, futures::future::join_all(farewells)).await;
        }
    }

    /// Takes an address from the link. True if it is gone.
    async fn remove(&mut self, address: Ipv4Addr) -> bool {
        self.telling.remove(&address);
        self.driver.held.send_if_modified(|held| held.remove(&IpAddr::V4(address)));
        if let Place::Link(on) = &self.driver.place
            && let Err(error) = on.remove(address.into()).await
        {
            self.refused(&error, "can't give up an address");
            return false;
        }
        tracing::info!(target: "timeline", what = "address-given-up", subject = %address);
        self.removed(address);
        true
    }

    fn refused(&mut self, error: &Error, what: &str) {
        tracing::error!(%error, "{what}; it is tried again");
        self.is_left = true;
        if let Place::Link(on) = &mut self.driver.place {
            on.begin_anew();
        }
    }

    #[allow(clippy::disallowed_methods)] // The driver: here writes get their time.
    fn write(&mut self, address: Ipv4Addr, lease: &AddressLease, next: &AddressLease) {
        if self.written.contains_key(&address) {
            return;
        }
        self.written.insert(address, None);
        let (writer, user) =
            (self.driver.options.writer.clone(), format!("system:node:{}", self.driver.host));
        let write: Write = lease.change(next, Timestamp::now());
        self.writing.spawn_in(info_span!("write who holds an address", %address), async move {
            let written = timeout(WRITE, writer.write(&user, write)).await;
            let revision = match &written {
                Ok(Ok(lease)) => lease.resource_version().parse().ok(),
                Ok(Err(status)) => {
                    tracing::debug!(%address, %status, "who holds an address was not written");
                    None
                }
                Err(_) => {
                    tracing::debug!(%address, "who holds an address was not written in time");
                    None
                }
            };
            if revision.is_none() {
                // Until then this counts as being written: no news make it be tried again at once.
                sleep(AGAIN).await;
            }
            (address, revision)
        });
    }

    fn wrote(&mut self, written: Result<(Ipv4Addr, Option<Revision>), tokio::task::JoinError>) {
        let Ok((address, revision)) = written else { return };
        let is_seen =
            |revision: Revision| self.holding.version(address).is_some_and(|known| known >= revision);
        match revision {
            // Until what was written has come here, it isn't written again. It may have come before this.
            Some(revision) if !is_seen(revision) => drop(self.written.insert(address, Some(revision))),
            _ => drop(self.written.remove(&address)),
        }
    }

    /// Whether all that is held is where it was put; what isn't is put there again. Neighbours hear of it anew when the link comes up again.
    async fn look(&mut self) {
        let Place::Link(on) = &self.driver.place else { return };
        let link = on.link().await.ok();
        let is_up = |link: &Option<Link>| link.is_some_and(|link| link.is_up);
        let comes_up = is_up(&link) && self.link.is_some() && (!is_up(&self.link) || self.link != link);
        self.link = link;
        if comes_up {
            self.tell_again().await;
        }
        let Place::Link(on) = &self.driver.place else { return };
        // One look, however many there are; what can't be found out is put there again.
        let all: BTreeSet<_> = match self.holding.here().next() {
            Some(_) => on.all().await.unwrap_or_default().into_iter().collect(),
            None => return,
        };
        let gone: Vec<_> =
            self.holding.here().filter(|(address, _)| !all.contains(&IpAddr::V4(*address))).collect();
        for (address, taking) in gone {
            tracing::warn!(%address, "an address is not where it was put");
            self.put(address, taking).await;
        }
    }

    async fn tell_again(&mut self) {
        self.driver.hosts.mark_unchanged();
        let here: Vec<_> = self.holding.here().collect();
        for (address, taking) in here {
            self.tell(address, taking).await;
        }
    }

    /// Tells the neighbours that an address is here, now and for as long as it is.
    async fn tell(&mut self, address: Ipv4Addr, taking: Taking) {
        let Place::Link(on) = &self.driver.place else { return };
        let Ok(link) = on.link().await else { return };
        let page = self.driver.page.clone();
        let later = (1..).map(|times| TELL_AFTER[4] + TELL_EVERY * times);
        let telling = tell_neighbours(link, address.into(), TELL_AFTER.into_iter().chain(later), move || {
            page.ends(taking.epoch).is_some()
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_in(info_span!("tell neighbours", %address), telling);
        self.telling.insert(address, tasks);
    }

    /// Gives all up, and says so; first that no more is taken.
    async fn leave(mut self, word: &Word) {
        self.holding.leave();
        // What was written and hasn't come back here won't any more: nobody follows the state.
        self.written.retain(|_, until| until.is_none());
        let all = async {
            // What can't be said must not hold up what is to be given up.
            _ = timeout(WORD, word.say(&AddressPool::default())).await;
            loop {
                self.act().await;
                if self.written.is_empty() && !self.is_left {
                    return;
                }
                let is_left = self.is_left;
                tokio::select! {
                    Some(written) = self.writing.join_next() => {
                        // Once: what was refused is free when this host's lease is over.
                        let Ok((address, _)) = written else { continue };
                        self.holding.learn(address, None);
                        self.written.remove(&address);
                    }
                    () = sleep(AGAIN), if is_left => {}
                }
            }
        };
        if timeout(LEAVE, all).await.is_err() {
            tracing::warn!("not all addresses of services could be given up in time");
        }
    }
}

async fn reason(place: &mut Place) {
    match place {
        Place::Link(on) => on.reason().await,
        Place::Switch => std::future::pending().await,
    }
}
