//! A client's connection: the place that it takes, whether its client is known, and its end.

use std::any::Any;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use access::UserInfo;
use machinery::Status;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::limits::Limits;
use super::response;
use super::socket::Listed;
use super::strangers::Strangers;

/// Places for the connections of all listeners of a server.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    /// For clients that have shown who they are: not all, so that strangers can still come and show it.
    known: Arc<Semaphore>,
    strangers: Strangers,
    last: AtomicU64,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let known = limits.connections.saturating_sub(limits.strangers).max(1);
        Arc::new(Places {
            all: Arc::new(Semaphore::new(limits.connections)),
            known: Arc::new(Semaphore::new(known)),
            strangers: Strangers::new(limits.strangers, limits.strangers_a_peer),
            last: AtomicU64::new(0),
        })
    }

    /// Waits for a place for one more connection. Where there is none, the oldest stranger goes.
    pub(crate) async fn wait(&self) -> OwnedSemaphorePermit {
        if let Ok(place) = self.all.clone().try_acquire_owned() {
            return place;
        }
        self.strangers.end_oldest();
        match self.all.clone().acquire_owned().await {
            Ok(place) => place,
            // It is never closed.
            Err(_) => pending().await,
        }
    }

    /// Frees what a stranger takes up: the process has no file left.
    pub(crate) fn make_room(&self) {
        self.strangers.end_oldest();
    }

    /// A stranger's connection from an address takes a place.
    pub(crate) fn enter(
        self: &Arc<Self>,
        place: OwnedSemaphorePermit,
        peer: IpAddr,
        listed: Listed,
        stopped: watch::Receiver<()>,
    ) -> Connection {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let end = Arc::new(Notify::new());
        self.strangers.add(number, peer, end.clone());
        let held = Held {
            places: self.clone(),
            number,
            peer: peer.to_canonical(),
            end,
            asked: AtomicBool::new(false),
            known: AtomicBool::new(false),
            _place: place,
            _listed: listed,
        };
        Connection { held: Arc::new(held), stopped, until_over: None }
    }
}

/// On a request whose client has shown a certificate by which it is nobody: it names who it may not speak for, is over, or was
/// taken back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disbelieved;

/// A client's connection. What lasts longer than HTTP on it holds this too: until the last of these is dropped it counts
/// among the server's, and ends with its listener.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    held: Arc<Held>,
    stopped: watch::Receiver<()>,
    /// What lasts until the request that it is a part of is over.
    until_over: Option<Arc<dyn Any + Send + Sync>>,
}

#[derive(Debug)]
struct Held {
    places: Arc<Places>,
    number: u64,
    peer: IpAddr,
    end: Arc<Notify>,
    /// Whether a request has come.
    asked: AtomicBool,
    /// Whether it has one of the places for known clients.
    known: AtomicBool,
    _place: OwnedSemaphorePermit,
    _listed: Listed,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.strangers.remove(self.number);
        if *self.known.get_mut() {
            self.places.known.add_permits(1);
        }
    }
}

impl Connection {
    /// Waits until the listener stops.
    pub(crate) async fn stopped(&mut self) {
        let _ = self.stopped.changed().await;
    }

    /// Waits until one that left HTTP is over: its listener stops, or it has to end. For ever, if there is none.
    pub(crate) async fn over(connection: Option<Connection>) {
        let Some(mut connection) = connection else { return pending().await };
        let held = connection.clone();
        tokio::select! {
            () = connection.stopped() => {}
            () = held.has_to_end() => {}
        }
    }

    /// Keeps something for as long as what a request left of HTTP on this connection goes on: as long as there are clones of
    /// this one.
    pub(crate) fn hold(&mut self, until_over: Arc<dyn Any + Send + Sync>) {
        self.until_over = Some(until_over);
    }

    /// The address that it comes from.
    pub(crate) fn peer(&self) -> IpAddr {
        self.held.peer
    }

    /// A request has come.
    pub(crate) fn has_asked(&self) {
        self.held.asked.store(true, Ordering::Relaxed);
    }

    /// Whether a request has come.
    pub(crate) fn did_ask(&self) -> bool {
        self.held.asked.load(Ordering::Relaxed)
    }

    /// Its client has shown who it is.
    ///
    /// # Errors
    /// 429 if known clients have all the connections that they may have. Administrators and hosts come in always: they
    /// have to mend it.
    pub(crate) fn know(&self, who: &UserInfo) -> Result<(), Status> {
        let Held { places, number, known, .. } = &*self.held;
        if known.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_trusted = who.groups.iter().any(|group| group == "system:masters" || group == "system:nodes");
        match places.known.clone().try_acquire_owned() {
            // Of two requests at the same time one finds that it is known already.
            Ok(permit) if !known.swap(true, Ordering::AcqRel) => permit.forget(),
            Ok(_) => {}
            Err(_) if is_trusted => {}
            Err(_) => {
                let message = "Too many connections to this host, please try again later";
                return Err(response::too_many(message));
            }
        }
        places.strangers.remove(*number);
        Ok(())
    }

    /// Ends it at once: nobody reads what it is sent, or its client is nobody any more.
    pub(crate) fn cut(&self) {
        self.held.end.notify_one();
    }

    /// Waits until it has to end.
    pub(crate) async fn has_to_end(&self) {
        self.held.end.notified().await;
    }
}
