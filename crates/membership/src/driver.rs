//! The tally's clock and socket, on a thread of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ring::hmac;
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};
use tracing::info_span;

use crate::beat::{Beat, LONGEST, LONGEST_NAME};
use crate::heard::{LastHeard, Solitude};
use crate::lease::{Boottime, Ended, Epoch, Known};
use crate::leasing::{Leasing, Seen};
use crate::memory::{self, Memory};
use crate::page::LeasePage;
use crate::streams::{Incoming, Outgoing};
use crate::{Error, HostChange, Hosts, Lease, Options, Tally};

/// How many datagrams are taken in before time is looked at again, so that a flood can't stop the beats.
const AT_ONCE: usize = 256;
/// A host that has said nothing of this one's last beats, so many of them, gets them by a stream, too. It says what it has heard with each of its
/// own, so one or two are on their way; and a beat more leaves time until it would call this host silent.
const UNANSWERED: u64 = 3;
/// A host whose beats arrive as datagrams, so many in a row, needs no stream any more: a second's worth.
const AS_DATAGRAMS: u32 = 20;

/// Heartbeats going out and coming in until this is dropped.
#[derive(Debug)]
pub struct HeartbeatDriver {
    name: String,
    address: SocketAddr,
    incarnation: u64,
    hosts: watch::Receiver<Arc<Hosts>>,
    silence: watch::Receiver<BTreeMap<String, Instant>>,
    last_heard: LastHeard,
    peers: watch::Sender<BTreeMap<String, SocketAddr>>,
    members: watch::Sender<Arc<BTreeSet<String>>>,
    known: watch::Sender<Arc<BTreeMap<String, Known>>>,
    leases: Seen,
    left: watch::Sender<Option<Epoch>>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl HeartbeatDriver {
    /// Starts to beat and to listen.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address can't be had, [`Error::Thread`], [`Error::Name`], [`Error::Memory`] and [`Error::Page`].
    #[allow(clippy::disallowed_methods)] // The driver: here the tally gets its time and its randomness.
    pub fn start(options: Options) -> Result<HeartbeatDriver, Error> {
        if !(1..=LONGEST_NAME).contains(&options.name.len()) {
            return Err(Error::Name(options.name));
        }
        let page = options.page.map_or_else(LeasePage::create, Ok).map_err(Error::Page)?;
        let remembered = options.memory.as_deref().map(Memory::read).transpose()?.unwrap_or_default();
        let listen = |why| Error::Listen { address: options.listen, why };
        let socket = StdUdpSocket::bind(options.listen).map_err(listen)?;
        socket.set_nonblocking(true).map_err(listen)?;
        let address = socket.local_addr().map_err(listen)?;
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread);
        let beating = runtime()?;

        let incarnation = rand::random();
        // The peers are known before the first look at them, so that nobody ever sees a cluster of one.
        let others = options.peers.keys().filter(|name| **name != options.name).cloned();
        let tally = Tally::new(others, options.silent_after, Instant::now());
        let (peers, peers_wanted) = watch::channel(options.peers);
        let members = if options.members.is_empty() { remembered.members.clone() } else { options.members };
        let (members, members_wanted) = watch::channel(Arc::new(members));
        let (known, known_seen) = watch::channel(Arc::default());
        let (left, left_seen) = watch::channel(None);
        let (leasing, leases) =
            Leasing::new(options.terms, options.name.clone(), incarnation, options.epoch, remembered, page);
        let mut threads = Vec::new();
        let kept = match options.memory {
            Some(file) => {
                let (kept, kept_seen) = watch::channel(Arc::default());
                let (wanted, remembering) = (leases.memory.clone(), runtime()?);
                let keep = move || remembering.block_on(memory::keep(file, wanted, kept));
                threads.push(
                    tasks::thread("lease memory", info_span!("lease memory"), keep).map_err(Error::Thread)?,
                );
                kept_seen
            }
            // What needs no disk is kept at once.
            None => leases.memory.clone(),
        };
        let (hosts, hosts_seen) = watch::channel(Arc::new(tally.hosts()));
        let (silence, silence_seen) = watch::channel(BTreeMap::new());
        let (stop, stopped) = oneshot::channel();
        let last_heard = LastHeard::default();
        let name = options.name.clone();
        let pulse = Pulse {
            name: options.name,
            incarnation,
            sequence: 0,
            key: hmac::Key::new(hmac::HMAC_SHA256, &options.key),
            interval: options.interval,
            peers: Vec::new(),
            paths: BTreeMap::new(),
            outgoing: Outgoing::new(address.ip(), options.silent_after),
            incoming: None,
            peers_wanted,
            members_wanted,
            known: known_seen,
            leasing,
            left: left_seen,
            kept,
            tally,
            hosts,
            silence,
            last_heard: last_heard.clone(),
        };
        let beat = move || beating.block_on(pulse.run(socket, stopped));
        threads.push(tasks::thread("heartbeats", info_span!("heartbeats"), beat).map_err(Error::Thread)?);
        Ok(HeartbeatDriver {
            name,
            address,
            incarnation,
            hosts: hosts_seen,
            silence: silence_seen,
            last_heard,
            peers,
            members,
            known,
            leases,
            left,
            stop: Some(stop),
            threads,
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

    /// The hosts whose word on leases counts, to be changed at any time, one at a time.
    pub fn members(&self) -> watch::Sender<Arc<BTreeSet<String>>> {
        self.members.clone()
    }

    /// What the cluster's state knows of the hosts' leases, to be changed at any time.
    pub fn known(&self) -> watch::Sender<Arc<BTreeMap<String, Known>>> {
        self.known.clone()
    }

    /// Follows what this host's lease is worth.
    pub fn lease(&self) -> watch::Receiver<Lease> {
        self.leases.lease.clone()
    }

    /// Where it stands until when this host's lease holds unless it is renewed, for this process and for others.
    pub fn lease_page(&self) -> LeasePage {
        self.leases.page.clone()
    }

    /// Where somebody says, after a lease has ended, up to which epoch nothing is left on this host that must not run twice.
    pub fn left(&self) -> watch::Sender<Option<Epoch>> {
        self.left.clone()
    }

    /// Follows up to which epochs hosts' leases are over for sure, by what has arrived here of the members' votes and of their own beats.
    pub fn ended(&self) -> watch::Receiver<Arc<BTreeMap<String, Ended>>> {
        self.leases.ended.clone()
    }

    /// Follows which hosts a majority of the members misses, by what has arrived here lately. That is a guess still.
    pub fn missed(&self) -> watch::Receiver<BTreeSet<String>> {
        self.leases.missed.clone()
    }

    /// When each host was last heard, to be asked at any time.
    pub fn last_heard(&self) -> LastHeard {
        self.last_heard.clone()
    }

    /// For how long this host has heard no majority of the members, to be asked at any time.
    pub fn solitude(&self) -> Solitude {
        let (own, members) = (self.name.clone(), self.members.subscribe());
        Solitude { own, members, last_heard: self.last_heard.clone() }
    }

    /// Follows who is silent, with the time when each was last heard.
    pub fn silence(&self) -> watch::Receiver<BTreeMap<String, Instant>> {
        self.silence.clone()
    }
}

impl Drop for HeartbeatDriver {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The heartbeats only ever wait for the socket, the clock and this, so they end at once. With them goes the last who wants
        // anything remembered; what was given to the disk is waited for.
        while let Some(thread) = self.threads.pop() {
            let _ = thread.join();
        }
    }
}

/// What the clock of leases says now.
pub fn boottime() -> Boottime {
    // SAFETY: zero is a value of the struct, and the call writes this one.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        // It fails for clocks that a kernel hasn't got: Linux has this one since 2.6.39.
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time);
        time
    };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How beats get to another host, and from there.
#[derive(Debug, Default)]
struct Path {
    /// The newest of this host's beats that it has heard.
    answered: u64,
    /// How many of its beats in a row have come as datagrams, and not before by a stream.
    as_datagrams: u32,
}

/// The way on which a beat came.
#[derive(Debug, Clone, Copy)]
enum Way {
    Datagram,
    Stream(IpAddr),
}

/// What the thread works with.
struct Pulse {
    name: String,
    incarnation: u64,
    sequence: u64,
    key: hmac::Key,
    interval: Duration,
    peers: Vec<(String, SocketAddr)>,
    /// How beats get to each of them, and from there.
    paths: BTreeMap<String, Path>,
    outgoing: Outgoing,
    incoming: Option<Incoming>,
    peers_wanted: watch::Receiver<BTreeMap<String, SocketAddr>>,
    members_wanted: watch::Receiver<Arc<BTreeSet<String>>>,
    known: watch::Receiver<Arc<BTreeMap<String, Known>>>,
    leasing: Leasing,
    left: watch::Receiver<Option<Epoch>>,
    kept: watch::Receiver<Arc<Memory>>,
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
        match socket.local_addr().and_then(Incoming::listen) {
            Ok(incoming) => self.incoming = Some(incoming),
            Err(error) => {
                tracing::warn!(%error, "heartbeats come as datagrams (UDP) alone: their port can't be had for TCP")
            }
        }
        let mut next_beat = Instant::now();
        self.follow_peers();
        loop {
            if Instant::now() >= next_beat {
                self.send(&socket);
                // Beats that a pause swallowed are not made up for.
                next_beat = (next_beat + self.interval).max(Instant::now());
            }
            let mut by_stream = None;
            let wake = self.tally.deadline().map_or(next_beat, |deadline| deadline.min(next_beat));
            tokio::select! {
                _ = &mut stopped => return,
                ready = socket.readable() => if let Err(error) = ready {
                    return tracing::error!(%error, "no heartbeats: the socket can't be used");
                },
                beat = next_of(&mut self.incoming) => by_stream = Some(beat),
                // What changes them may be gone before this is.
                Ok(()) = self.peers_wanted.changed() => self.follow_peers(),
                Ok(()) = self.members_wanted.changed() => self.follow_peers(),
                Ok(()) = self.known.changed() => self.leasing.told(&self.known.borrow_and_update()),
                Ok(()) = self.left.changed() => {}
                Ok(()) = self.kept.changed() => self.leasing.kept(&self.kept.borrow_and_update()),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            // What has arrived counts before who is silent is decided: after a pause of this host, the
            // others' beats are waiting.
            let mut changes = self.receive(&socket);
            if let Some((from, beat)) = by_stream {
                changes.extend(self.take(&beat, Way::Stream(from)));
            }
            changes.extend(self.tally.check(Instant::now()));
            self.tell(&changes);
            let left = *self.left.borrow_and_update();
            self.leasing.check(Instant::now(), boottime(), left);
        }
    }

    #[allow(clippy::disallowed_methods)] // The driver: here the tally gets its time.
    fn follow_peers(&mut self) {
        let mut peers = self.peers_wanted.borrow_and_update().clone();
        peers.remove(&self.name);
        let members = BTreeSet::clone(&self.members_wanted.borrow_and_update());
        self.tally.count_on(members.clone());
        self.leasing.follow(peers.keys().map(String::as_str), members, Instant::now());
        // What was told of a host before it was followed.
        self.leasing.told(&self.known.borrow_and_update());
        self.peers = peers.clone().into_iter().collect();
        self.paths = std::mem::take(&mut self.paths)
            .into_iter()
            .filter(|(peer, _)| peers.contains_key(peer))
            .collect();
        self.outgoing.keep_only(&peers.values().copied().collect());
        if let Some(incoming) = &self.incoming {
            incoming.keep_only(peers.values().map(SocketAddr::ip).collect());
        }
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

    #[allow(clippy::disallowed_methods)] // The driver: here the ballot gets its time.
    fn send(&mut self, socket: &UdpSocket) {
        self.sequence += 1;
        // The time before anything is sent: a lease counts from there.
        let at = boottime();
        let acknowledged: Vec<_> =
            self.peers.iter().map(|(peer, _)| self.leasing.acknowledges(peer)).collect();
        let is_deaf = self.tally.is_deaf();
        let mut beat = self.leasing.beat(self.sequence, Instant::now(), at);
        beat.is_deaf = is_deaf;
        let mut datagram = Vec::with_capacity(LONGEST);
        let mut said = usize::MAX;
        for ((peer, address), acknowledges) in self.peers.iter().zip(acknowledged) {
            beat.acknowledges = acknowledges;
            said = said.min(beat.encode(&self.key, &mut datagram));
            // A link that is down refuses; the next beat tries again.
            let _ = socket.try_send_to(&datagram, *address);
            let answered = self.paths.get(peer).map_or(0, |path| path.answered);
            self.outgoing.send(*address, &datagram, self.sequence.saturating_sub(answered) > UNANSWERED);
        }
        self.leasing.said(said);
    }

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
            changes.extend(self.take(&buffer[..length], Way::Datagram));
        }
        changes
    }

    /// Counts what came, if it is a heartbeat.
    #[allow(clippy::disallowed_methods)] // The driver: here the tally gets its time.
    fn take(&mut self, datagram: &[u8], way: Way) -> Vec<HostChange> {
        let Some(beat) = Beat::decode(datagram, &self.key) else {
            tracing::debug!(?way, "what came is no heartbeat of this cluster");
            if let (Way::Stream(from), Some(incoming)) = (way, &self.incoming) {
                incoming.end(from);
            }
            return Vec::new();
        };
        let (now, is_sign) = (Instant::now(), self.tally.is_sign(beat.is_deaf));
        let (from, incarnation, sequence) = (beat.from, beat.what.incarnation, beat.what.sequence);
        let counted = match is_sign {
            true => self.tally.beat(from, incarnation, sequence, now),
            false => self.tally.no_sign(from, incarnation, sequence, now),
        };
        match counted {
            Ok(changes) => {
                if is_sign {
                    self.last_heard.note(from, now);
                }
                if is_sign || self.tally.has_been_deaf(from, now) {
                    self.leasing.heard(&beat, is_sign, now, boottime());
                }
                self.note_path(&beat, way);
                changes
            }
            Err(refused) => {
                tracing::debug!(from, ?refused, "a heartbeat that doesn't count");
                Vec::new()
            }
        }
    }

    /// Learns by a beat that counts which of this host's own have arrived, and on which way others come.
    fn note_path(&mut self, beat: &Beat<'_>, way: Way) {
        let path = self.paths.entry(beat.from.to_owned()).or_default();
        if let Some(heard) = beat.acknowledges.filter(|heard| heard.incarnation == self.incarnation) {
            path.answered = path.answered.max(heard.sequence);
        }
        path.as_datagrams = match way {
            Way::Datagram => path.as_datagrams.wrapping_add(1),
            Way::Stream(_) => 0,
        };
        if path.as_datagrams % AS_DATAGRAMS == AS_DATAGRAMS - 1
            && let Some(incoming) = &self.incoming
            && let Some((_, at)) = self.peers.iter().find(|(peer, _)| peer == beat.from)
        {
            incoming.end(at.ip());
        }
    }

    fn tell(&self, changes: &[HostChange]) {
        if changes.is_empty() {
            return;
        }
        self.publish();
        for change in changes {
            match change {
                HostChange::Silent { host, unheard_for, is_deaf } => {
                    let ms = unheard_for.as_millis() as u64;
                    if *is_deaf {
                        tracing::warn!(%host, "a host is heard, but hears fewer than half of the members: it counts as silent");
                    }
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

/// The next beat that comes by a stream; never, where there are none.
async fn next_of(incoming: &mut Option<Incoming>) -> (IpAddr, Vec<u8>) {
    match incoming {
        Some(incoming) => incoming.next().await,
        None => std::future::pending().await,
    }
}
