//! The second path of heartbeats: TCP, for where datagrams don't arrive. A rule of a firewall that lets them through no more must not look
//! like a host that is gone.
//!
//! Who isn't sure to be heard by a host connects to it, at the address of its heartbeats, and sends each beat both ways from then on. Who is
//! connected to closes the stream once datagrams arrive again. A beat is signed, and counts once, whichever way it came; a stream carries it
//! behind its length (2 bytes, the most significant first).
//!
//! These are streams of their own, and not those by which members replicate their state: a beat isn't to wait behind what is long, the state
//! may lie in an etcd, and a host of an older version isn't spoken to in words that it doesn't know: it refuses the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tasks::SpawnIn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::info_span;

use crate::beat::LONGEST;

/// From the end of a stream to the next try to connect.
const AGAIN: Duration = Duration::from_millis(250);
/// How many beats may wait to be looked at. Each host has one under way, so more are of no use.
const WAITING: usize = 64;

/// The streams to other hosts.
pub(crate) struct Outgoing {
    own: IpAddr,
    /// What the other kernel hasn't confirmed for so long isn't sent any more. A host that was paused finds older beats, as it does among
    /// datagrams: leases count from when a beat was sent, so they only make it miss somebody later.
    patience: Duration,
    /// To each host that is sent beats this way: the newest one.
    to: BTreeMap<SocketAddr, watch::Sender<Vec<u8>>>,
    tasks: JoinSet<SocketAddr>,
}

impl Outgoing {
    /// None yet. They leave from an address of this host.
    pub(crate) fn new(own: IpAddr, patience: Duration) -> Self {
        Outgoing { own, patience, to: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Sends a beat to a host, if there is a stream or if one is `needed`. One that the last beat still waits for takes the newer one in its place.
    pub(crate) fn send(&mut self, to: SocketAddr, beat: &[u8], needed: bool) {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.iter().for_each(|ended| _ = self.to.remove(ended));
        }
        if let Some(stream) = self.to.get(&to) {
            stream.send_replace(beat.to_vec());
        } else if needed {
            let (stream, beats) = watch::channel(beat.to_vec());
            self.to.insert(to, stream);
            let (own, patience) = (self.own, self.patience);
            self.tasks.spawn_in(info_span!("stream of heartbeats", %to), async move {
                let ended = speak(own, to, patience, beats).await;
                tracing::debug!(?ended, "the stream of heartbeats is closed");
                // Also where the other side closed it, which may not know this host yet.
                sleep(AGAIN).await;
                to
            });
        }
    }

    /// Ends the streams to all hosts but these.
    pub(crate) fn keep_only(&mut self, hosts: &BTreeSet<SocketAddr>) {
        // Its task ends with it.
        self.to.retain(|to, _| hosts.contains(to));
    }
}

/// Sends what is the newest, until the other side closes or nobody gives anything more.
async fn speak(
    own: IpAddr,
    to: SocketAddr,
    patience: Duration,
    mut beats: watch::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // By which the other side knows whose it is.
    socket.bind(SocketAddr::new(own, 0))?;
    let mut stream = timeout(patience, socket.connect(to)).await??;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(patience))?;
    let (mut reader, mut writer) = stream.split();
    beats.mark_changed();
    loop {
        tokio::select! {
            changed = beats.changed() => if changed.is_err() {
                return Ok(());
            },
            // It says nothing: that is the end.
            _ = reader.read_u8() => return Ok(()),
        }
        let beat = beats.borrow_and_update().clone();
        let length = u16::try_from(beat.len()).map_err(io::Error::other)?;
        let bytes = [&length.to_be_bytes()[..], &beat].concat();
        timeout(patience, writer.write_all(&bytes)).await??;
    }
}

/// The streams from other hosts: one of each, from its own address.
pub(crate) struct Incoming {
    hosts: Arc<Mutex<BTreeSet<IpAddr>>>,
    open: Arc<Mutex<BTreeMap<IpAddr, AbortHandle>>>,
    arrived: mpsc::Receiver<(IpAddr, Vec<u8>)>,
    _tasks: JoinSet<()>,
}

impl Incoming {
    /// Listens where beats arrive. Without the port there is no second path.
    pub(crate) fn listen(at: SocketAddr) -> io::Result<Self> {
        let listener = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        listener.set_reuseaddr(true)?;
        listener.bind(at)?;
        let listener = listener.listen(64)?;
        let (hosts, open) = (Arc::default(), Arc::default());
        let (arrive, arrived) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        tasks.spawn_in(
            info_span!("streams of heartbeats"),
            accept(listener, Arc::clone(&hosts), Arc::clone(&open), arrive),
        );
        Ok(Incoming { hosts, open, arrived, _tasks: tasks })
    }

    /// The next beat that came on a stream, and from where. It may be dropped before it is done.
    pub(crate) async fn next(&mut self) -> (IpAddr, Vec<u8>) {
        match self.arrived.recv().await {
            Some(beat) => beat,
            // The listener has ended with its task, which ends with this.
            None => std::future::pending().await,
        }
    }

    /// Takes streams from these hosts alone.
    pub(crate) fn keep_only(&self, hosts: BTreeSet<IpAddr>) {
        lock(&self.open).retain(|host, stream| {
            let stays = hosts.contains(host);
            if !stays {
                stream.abort();
            }
            stays
        });
        *lock(&self.hosts) = hosts;
    }

    /// Ends the stream from a host: its datagrams arrive, or it says what is no beat.
    pub(crate) fn end(&self, host: IpAddr) {
        if let Some(stream) = lock(&self.open).remove(&host) {
            stream.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    hosts: Arc<Mutex<BTreeSet<IpAddr>>>,
    open: Arc<Mutex<BTreeMap<IpAddr, AbortHandle>>>,
    arrive: mpsc::Sender<(IpAddr, Vec<u8>)>,
) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, from)) = accepted else {
                    // Out of file descriptors, most likely: it passes, or it does not.
                    sleep(AGAIN).await;
                    continue;
                };
                let from = from.ip().to_canonical();
                if !lock(&hosts).contains(&from) {
                    continue;
                }
                let stream = streams.spawn_in(info_span!("heartbeats", %from), listen(from, stream, arrive.clone()));
                if let Some(former) = lock(&open).insert(from, stream) {
                    former.abort();
                }
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

/// Takes what a host says until it says nothing that is a beat. Beats for which there is no room are lost, as datagrams are.
async fn listen(from: IpAddr, mut stream: TcpStream, arrive: mpsc::Sender<(IpAddr, Vec<u8>)>) {
    while let Ok(length) = stream.read_u16().await {
        if usize::from(length) > LONGEST {
            return;
        }
        let mut beat = vec![0; length.into()];
        if stream.read_exact(&mut beat).await.is_err() {
            return;
        }
        let _ = arrive.try_send((from, beat));
    }
}
