//! The tally's clock and socket, on a thread of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ring::hmac;
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};
use tracing::info_span;

use crate::beat::{Beat, LONGEST, LONGEST_NAME};
use crate::{Error, HostChange, Hosts, Tally};

/// How many datagrams are taken in before time is looked at again, so that a flood can't stop the beats.
const AT_ONCE: usize = 256;

/// What heartbeats need to know.
#[derive(Clone)]
pub struct Options {
    /// This host's name.
    pub name: String,
    /// Where beats arrive, and leave from (UDP).
    pub listen: SocketAddr,
    /// The other hosts and where they listen, to begin with: [`HeartbeatDriver::peers`] changes them.
    pub peers: BTreeMap<String, SocketAddr>,
    /// The key that all hosts of the cluster share.
    pub key: [u8; 32],
    /// From one beat to the next.
    pub interval: Duration,
    /// A host that was not heard for so long is silent.
    pub silent_after: Duration,
}

impl Options {
    /// Beats every 50 ms, silence after 250 ms.
    pub fn new(
        name: impl Into<String>,
        listen: SocketAddr,
        peers: BTreeMap<String, SocketAddr>,
        key: [u8; 32],
    ) -> Self {
        let (interval, silent_after) = (Duration::from_millis(50), Duration::from_millis(250));
        Options { name: name.into(), listen, peers, key, interval, silent_after }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { name, listen, peers, key: _, interval, silent_after } = self;
        f.debug_struct("Options")
            .field("name", name)
            .field("listen", listen)
            .field("peers", peers)
            .field("interval", interval)
            .field("silent_after", silent_after)
            .finish_non_exhaustive()
    }
}

/// Heartbeats going out and coming in until this is dropped.
#[derive(Debug)]
pub struct HeartbeatDriver {
    address: SocketAddr,
    incarnation: u64,
    hosts: watch::Receiver<Arc<Hosts>>,
    silence: watch::Receiver<BTreeMap<String, Instant>>,
    last_heard: LastHeard,
    peers: watch::Sender<BTreeMap<String, SocketAddr>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HeartbeatDriver {
    /// Starts to beat and to listen.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address can't be had, [`Error::Thread`] and [`Error::Name`].
    #[allow(clippy::disallowed_methods)] // The driver: here the tally gets its time and its randomness.
    pub fn start(options: Options) -> Result<HeartbeatDriver, Error> {
        if !(1..=LONGEST_NAME).contains(&options.name.len()) {
            return Err(Error::Name(options.name));
        }
        let listen = |why| Error::Listen { address: options.listen, why };
        let socket = StdUdpSocket::bind(options.listen).map_err(listen)?;
        socket.set_nonblocking(true).map_err(listen)?;
        let address = socket.local_addr().map_err(listen)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;

        let incarnation = rand::random();
        // The peers are known before the first look at them, so that nobody ever sees a cluster of one.
        let others = options.peers.keys().filter(|name| **name != options.name).cloned();
        let tally = Tally::new(others, options.silent_after, Instant::now());
        let (peers, peers_wanted) = watch::channel(options.peers);
        let (hosts, hosts_seen) = watch::channel(Arc::new(tally.hosts()));
        let (silence, silence_seen) = watch::channel(BTreeMap::new());
        let (stop, stopped) = oneshot::channel();
        let last_heard = LastHeard::default();
        let pulse = Pulse {
            name: options.name,
            incarnation,
            sequence: 0,
            key: hmac::Key::new(hmac::HMAC_SHA256, &options.key),
            interval: options.interval,
            peers: Vec::new(),
            peers_wanted,
            tally,
            hosts,
            silence,
            last_heard: last_heard.clone(),
        };
        let beating = move || runtime.block_on(pulse.run(socket, stopped));
        let thread = tasks::thread("heartbeats", info_span!("heartbeats"), beating).map_err(Error::Thread)?;
        Ok(HeartbeatDriver {
            address,
            incarnation,
            hosts: hosts_seen,
            silence: silence_seen,
            last_heard,
            peers,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which of this host's lives this is.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Follows the other hosts: a new value whenever one falls silent, is heard again or was started (so, too,
    /// when it is heard for the first time).
    pub fn hosts(&self) -> watch::Receiver<Arc<Hosts>> {
        self.hosts.clone()
    }

    /// The other hosts and where they listen, to be changed at any time: beats go to those of the newest value, and only
    /// theirs count. This host itself may be among them.
    pub fn peers(&self) -> watch::Sender<BTreeMap<String, SocketAddr>> {
        self.peers.clone()
    }

    /// When each host was last heard, to be asked at any time.
    pub fn last_heard(&self) -> LastHeard {
        self.last_heard.clone()
    }

    /// Follows who is silent, with the time when each was last heard.
    pub fn silence(&self) -> watch::Receiver<BTreeMap<String, Instant>> {
        self.silence.clone()
    }
}

/// When each host was last heard.
#[derive(Debug, Clone, Default)]
pub struct LastHeard(Arc<Mutex<BTreeMap<String, Instant>>>);

impl LastHeard {
    /// When a host's last beat came; nothing if none has come yet.
    pub fn of(&self, host: &str) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }

    fn keep_only(&self, hosts: &Hosts) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|host, _| hosts.0.contains_key(host));
    }

    fn note(&self, host: &str, at: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(host) {
            Some(known) => *known = at,
            None => drop(known.insert(host.to_owned(), at)),
        }
    }
}

impl Drop for HeartbeatDriver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only ever waits for the socket, the clock and this, so it ends at once.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Pulse {
    name: String,
    incarnation: u64,
    sequence: u64,
    key: hmac::Key,
    interval: Duration,
    peers: Vec<SocketAddr>,
    peers_wanted: watch::Receiver<BTreeMap<String, SocketAddr>>,
    tally: Tally,
    hosts: watch::Sender<Arc<Hosts>>,
    silence: watch::Sender<BTreeMap<String, Instant>>,
    last_heard: LastHeard,
}

impl Pulse {
    #[allow(clippy::disallowed_methods)] // The driver: here the tally gets its time.
    async fn run(mut self, socket: StdUdpSocket, mut stopped: oneshot::Receiver<()>) {
        let socket = match UdpSocket::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(%error, "no heartbeats: the socket can't be used"),
        };
        // The runtime refuses to send until it has asked the system once: the first beat would be lost.
        if let Err(error) = socket.writable().await {
            return tracing::error!(%error, "no heartbeats: the socket can't be used");
        }
        let mut next_beat = Instant::now();
        self.follow_peers();
        loop {
            if Instant::now() >= next_beat {
                self.send(&socket);
                // Beats that a pause swallowed are not made up for.
                next_beat = (next_beat + self.interval).max(Instant::now());
            }
            let wake = self.tally.deadline().map_or(next_beat, |deadline| deadline.min(next_beat));
            tokio::select! {
                _ = &mut stopped => return,
                ready = socket.readable() => if let Err(error) = ready {
                    return tracing::error!(%error, "no heartbeats: the socket can't be used");
                },
                // What changes them may be gone before this is.
                Ok(()) = self.peers_wanted.changed() => self.follow_peers(),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            // What has arrived counts before who is silent is decided: after a pause of this host, the
            // others' beats are waiting.
            let mut changes = self.receive(&socket);
            changes.extend(self.tally.check(Instant::now()));
            self.tell(&changes);
        }
    }

    #[allow(clippy::disallowed_methods)] // The driver: here the tally gets its time.
    fn follow_peers(&mut self) {
        let mut peers = self.peers_wanted.borrow_and_update().clone();
        peers.remove(&self.name);
        self.peers = peers.values().copied().collect();
        if self.tally.follow(peers.into_keys(), Instant::now()) {
            self.publish();
        }
    }

    /// Shows the hosts as they are known now.
    fn publish(&self) {
        let hosts = self.tally.hosts();
        let silence = hosts.silence();
        self.last_heard.keep_only(&hosts);
        // The hosts last: those who wait for them find the rest as new.
        self.silence.send_if_modified(|known| {
            let changed = *known != silence;
            *known = silence;
            changed
        });
        self.hosts.send_replace(Arc::new(hosts));
    }

    fn send(&mut self, socket: &UdpSocket) {
        self.sequence += 1;
        let beat = Beat { from: &self.name, incarnation: self.incarnation, sequence: self.sequence };
        let mut datagram = Vec::with_capacity(LONGEST);
        beat.encode(&self.key, &mut datagram);
        for peer in &self.peers {
            // A link that is down refuses; the next beat tries again.
            let _ = socket.try_send_to(&datagram, *peer);
        }
    }

    #[allow(clippy::disallowed_methods)] // The driver: here the tally gets its time.
    fn receive(&mut self, socket: &UdpSocket) -> Vec<HostChange> {
        let mut changes = Vec::new();
        // One byte more than a beat has, so that a longer datagram doesn't pass for one.
        let mut buffer = [0; LONGEST + 1];
        for _ in 0..AT_ONCE {
            let length = match socket.try_recv_from(&mut buffer) {
                Ok((length, _)) => length,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An ICMP error that an earlier beat caused: not about this datagram.
                Err(_) => continue,
            };
            let Some(beat) = Beat::decode(&buffer[..length], &self.key) else {
                tracing::debug!("a datagram that is no heartbeat of this cluster");
                continue;
            };
            let now = Instant::now();
            match self.tally.beat(beat.from, beat.incarnation, beat.sequence, now) {
                Ok(more) => {
                    self.last_heard.note(beat.from, now);
                    changes.extend(more);
                }
                Err(refused) => tracing::debug!(from = beat.from, ?refused, "a heartbeat that doesn't count"),
            }
        }
        changes
    }

    fn tell(&self, changes: &[HostChange]) {
        if changes.is_empty() {
            return;
        }
        self.publish();
        for change in changes {
            match change {
                HostChange::Silent { host, unheard_for } => {
                    let ms = unheard_for.as_millis() as u64;
                    tracing::info!(target: "timeline", what = "host-silent", subject = %host, last_heard_ms_ago = ms);
                }
                HostChange::Heard { host, unheard_for } => {
                    let ms = unheard_for.as_millis() as u64;
                    tracing::info!(target: "timeline", what = "host-heard", subject = %host, last_heard_ms_ago = ms);
                }
                HostChange::Started { host, incarnation } => {
                    tracing::info!(%host, incarnation, "a host was started, or is met for the first time");
                }
            }
        }
    }
}
