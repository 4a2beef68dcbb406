//! The one task that has the virtual routers: events to decisions, and decisions to the link.

use std::collections::BTreeSet;
use std::future::{pending, poll_fn};
use std::net::Ipv4Addr;
use std::task::Poll;
use std::time::Duration;

use tasks::SpawnIn;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::info_span;
use vrrp::{Advert, Command, Event, LinkState, Notice, Routers, Settings};

use super::links::{self, Links, Range};
use super::programs::Notifier;
use super::socket::{AT_ONCE, Speaker};
use crate::on_link::{OnLink, tell_neighbours};
use crate::virtual_address;

/// When neighbours get the news, counted from the acquisition. The last as keepalived does (`garp_master_delay`), for switches that
/// were busy with the fault.
const TELL_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(5)];
/// After this time, what the kernel refused is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// For how long nothing more is read after as much came at once as is read: so a flood takes its part of this thread, and no more.
const BREATH: Duration = Duration::from_millis(10);
/// How often at the end.
const LAST_TRIES: u32 = 20;
/// The most different things that are said to be wrong with one virtual router.
const MOST_SAID: usize = 32;
/// Who has the addresses for its own has them without this.
const OWNER: u8 = vrrp::state::OWNER;

pub(super) struct Driver {
    settings: Settings,
    routers: Routers,
    /// The moment that the decisions count from.
    origin: Instant,
    links: Links,
    /// Addresses that move between hosts.
    moving: Vec<Range>,
    peers: Vec<Peers>,
    notifier: Notifier,
    /// Until when nothing is read, after much was.
    breath: Option<Instant>,
    /// When addresses that aren't where they should be are seen to again.
    again: Option<Instant>,
}

/// A virtual router's connection to its peers.
#[derive(Debug)]
struct Peers {
    /// Where its addresses are.
    on: OnLink,
    speaker: Option<Speaker>,
    /// The neighbours are being told of its addresses.
    telling: JoinSet<()>,
    /// The kernel refused something about its addresses.
    refused: bool,
    /// What is wrong, as far as it was said.
    said: BTreeSet<String>,
}

impl Driver {
    /// `on` are the links of the instances, in their order.
    pub fn new(settings: Settings, elsewhere: &[Range], on: Vec<OnLink>, notifier: Notifier) -> Self {
        let routers = Routers::new(&settings);
        let ours = settings.instances.iter().filter(|instance| instance.priority != OWNER);
        let ours = ours.flat_map(|instance| instance.advert(0).addresses).map(|address| (address, address));
        let moving = ours.chain(elsewhere.iter().copied()).collect();
        let peers =
            |on| Peers { on, speaker: None, telling: JoinSet::new(), refused: false, said: BTreeSet::new() };
        let peers = on.into_iter().map(peers).collect();
        let (links, again, breath) = (Links::new(), None, None);
        Driver { settings, routers, origin: now(), links, moving, peers, notifier, breath, again }
    }

    pub async fn run(
        mut self,
        mut looks: watch::Receiver<Option<Links>>,
        mut outcomes: mpsc::Receiver<(usize, bool)>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            // What was heard counts before what time says: a process that was stopped for a while must not take a master for
            // silent whose words it hasn't read yet.
            self.hear().await;
            self.on(Event::Time).await;
            let deadline = self.routers.deadline().map(|deadline| self.origin + deadline);
            let wake = deadline.into_iter().chain(self.again).chain(self.breath).min();
            tokio::select! {
                () = virtual_address::asked(&mut stop) => break,
                () = self.readable(), if self.breath.is_none() => {}
                () = until(wake) => {}
                Ok(()) = looks.changed() => {
                    let links = looks.borrow_and_update().clone();
                    self.look(links.unwrap_or_default()).await;
                }
                Some((index, passed)) = outcomes.recv() => self.on(Event::Script { index, passed }).await,
            }
            if self.again.is_some_and(|again| again <= now()) {
                self.place_again().await;
            }
        }
        self.on(Event::Stop).await;
        // Not with an address still on: the kernel would go on to answer for it in the name of a host that has gone.
        for _ in 0..LAST_TRIES {
            let Some(again) = self.again else { break };
            sleep_until(again).await;
            self.place_again().await;
        }
        self.notifier.end().await;
    }

    async fn on(&mut self, event: Event<'_>) {
        let since = now().saturating_duration_since(self.origin);
        for command in self.routers.on(event, since) {
            match command {
                Command::Advertise(instance, priority) => self.say(instance, priority),
                Command::Take(instance) | Command::Release(instance) => self.place(instance).await,
                Command::Notify(notice) => self.tell(notice),
            }
        }
    }

    fn say(&self, instance: usize, priority: u8) {
        let settings = &self.settings.instances[instance];
        let Some(speaker) = &self.peers[instance].speaker else { return };
        if let Err(error) = speaker.send(&settings.advert(priority)) {
            // Mostly a link that goes down, about which there is news in a moment.
            tracing::debug!(name = settings.name, %error, "an advertisement couldn't be sent");
        }
    }

    fn tell(&self, notice: Notice) {
        let [kind, name, state, priority] = notice.arguments();
        tracing::info!(kind, name, state, priority, "virtual router");
        self.notifier.tell(notice);
    }

    /// Waits until somebody has said something.
    async fn readable(&self) {
        let speakers = self.peers.iter().filter_map(|peers| peers.speaker.as_ref());
        let mut waiting: Vec<_> = speakers.map(|speaker| Box::pin(speaker.readable())).collect();
        poll_fn(|context| match waiting.iter_mut().any(|one| one.as_mut().poll(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    async fn hear(&mut self) {
        if self.breath.take_if(|breath| *breath <= now()).is_none() && self.breath.is_some() {
            return;
        }
        for instance in 0..self.peers.len() {
            let Some(speaker) = &self.peers[instance].speaker else { continue };
            let own = speaker.address;
            let packets = speaker.hear();
            if packets.len() >= AT_ONCE {
                self.breath = Some(now() + BREATH);
            }
            for packet in packets {
                match Advert::read(&packet) {
                    Ok((from, _)) if from == own => {}
                    Ok((from, advert)) => {
                        self.compare(instance, from, &advert);
                        self.on(Event::Heard { instance, from, advert: &advert }).await;
                    }
                    Err(why) => self.complain(instance, format!("a packet doesn't count: {why}")),
                }
            }
        }
    }

    /// Another list of addresses is a mistake of somebody's, and no reason for two masters (RFC 9568, section 7.1).
    fn compare(&mut self, instance: usize, from: Ipv4Addr, advert: &Advert) {
        let own = self.settings.instances[instance].advert(0);
        if own.router_id != advert.router_id {
            return;
        }
        let sorted = |advert: &Advert| advert.addresses.iter().copied().collect::<BTreeSet<_>>();
        if sorted(&own) != sorted(advert) {
            self.complain(instance, format!("{from} has other addresses for it: {:?}", advert.addresses));
        }
    }

    /// Says what is wrong, once however often it comes.
    fn complain(&mut self, instance: usize, what: String) {
        let said = &mut self.peers[instance].said;
        // Others can think of any number of mistakes.
        if said.len() < MOST_SAID && !said.contains(&what) {
            tracing::warn!(name = self.settings.instances[instance].name, "a virtual router: {what}");
            said.insert(what);
        }
    }

    /// Links are like this now.
    async fn look(&mut self, links: Links) {
        self.links = links;
        let mut unheard = BTreeSet::new();
        for instance in 0..self.peers.len() {
            let interface = self.settings.instances[instance].interface.clone();
            if let Err(error) = self.connect(instance, &interface) {
                self.complain(instance, format!("it can't speak on {interface}: {error}"));
                unheard.insert(interface);
            }
        }
        for name in links::named(&self.settings) {
            let state = match links::state(self.links.get(&name), &self.moving) {
                _ if unheard.contains(&name) => LinkState::Down,
                state => state,
            };
            self.on(Event::Link { name: &name, state }).await;
        }
        self.place_all().await;
    }

    /// Has a virtual router hear and speak on its link, as that is now.
    fn connect(&mut self, instance: usize, interface: &str) -> std::io::Result<()> {
        let router_id = self.settings.instances[instance].router_id;
        let speaker = &mut self.peers[instance].speaker;
        let view = self.links.get(interface);
        let (Some(view), LinkState::Up { address: Some(address) }) = (view, links::state(view, &self.moving))
        else {
            // The last word may still go out.
            return Ok(());
        };
        if speaker.as_ref().is_none_or(|known| (known.link, known.address) != (view.link.index, address)) {
            *speaker = None;
            *speaker = Some(Speaker::open(interface, view.link.index, address, router_id)?);
        }
        Ok(())
    }

    async fn place_all(&mut self) {
        for instance in 0..self.peers.len() {
            let settings = &self.settings.instances[instance];
            if settings.priority == OWNER {
                continue;
            }
            let here = |address: &Ipv4Addr| {
                self.links.get(&settings.interface).is_some_and(|view| view.addresses.contains(address))
            };
            let master = self.routers.is_master(instance);
            let mut addresses = settings.advert(0).addresses.into_iter();
            if addresses.any(|address| here(&address) != master) {
                self.place(instance).await;
            }
        }
    }

    /// Tries again what was refused.
    async fn place_again(&mut self) {
        self.again = None;
        for instance in 0..self.peers.len() {
            if self.peers[instance].refused {
                self.place(instance).await;
            }
        }
    }

    /// Has a virtual router's addresses where they should be, and tells the neighbours.
    async fn place(&mut self, instance: usize) {
        let settings = &self.settings.instances[instance];
        let master = self.routers.is_master(instance);
        let Peers { on, telling, refused, .. } = &mut self.peers[instance];
        // Before an address is given up: nobody is to hear a thing that is no longer true.
        telling.abort_all();
        while telling.try_join_next().is_some() {}
        let mut error = None;
        for address in settings.addresses.iter().copied() {
            let done = match (settings.priority == OWNER, master) {
                (true, true) => on.link().await.map(Some),
                (true, false) => Ok(None),
                (false, true) => on.put(address).await.map(Some),
                (false, false) => on.remove(address).await.map(|()| None),
            };
            match done {
                Ok(Some(link)) => {
                    let tell = tell_neighbours(link, address, TELL_AFTER, || true);
                    telling.spawn_in(info_span!("tell neighbours", %address), tell);
                }
                Ok(None) => {}
                Err(why) => error = Some(why),
            }
        }
        *refused = error.is_some();
        if let Some(error) = error {
            tracing::error!(name = settings.name, %error, "a virtual router's addresses are not where they should be");
            on.begin_anew();
            self.again = Some(now() + AGAIN);
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => pending().await,
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver of virtual routers: here they get their time")]
fn now() -> Instant {
    Instant::now()
}
