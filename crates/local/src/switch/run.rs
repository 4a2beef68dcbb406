//! The switch's sockets: announcements in, connections through.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tasks::SpawnIn;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug_span, info_span};

use super::announcement::{Announcement, Protocol};
use super::table::{Frontend, Table};
use super::udp;
use crate::addresses::{Addresses, NetKind};
use crate::relay;

/// How often the switch looks for hosts that fell silent, and tries again to get sockets that it was refused.
const ROUND: Duration = Duration::from_millis(50);
/// The longest datagram.
const LONGEST: usize = 65_535;
/// How many connections may wait to be passed on, before callers wait in the kernel.
const BACKLOG: usize = 1024;

/// Why a switch can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Someone else has the address.
    #[error(
        "{address} is in use: another cluster runs on this machine's loopback; stop it, or use --net netns"
    )]
    InUse {
        /// Which address.
        address: SocketAddr,
    },
    /// The address can't be had.
    #[error("can't listen on {address}: {why}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
}

/// Where a switch listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchAddresses {
    /// For announcements (UDP).
    pub announcements: SocketAddr,
    /// The API's virtual address (TCP), which is listened on from the start.
    pub virtual_address: SocketAddr,
}

impl Default for SwitchAddresses {
    fn default() -> Self {
        let addresses = Addresses::new(NetKind::Loopback);
        Self { announcements: addresses.announcements(), virtual_address: addresses.api() }
    }
}

/// A running switch; ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Switch {
    task: JoinHandle<()>,
    addresses: SwitchAddresses,
}

impl Switch {
    /// Starts a switch. Port 0 means any port; [`Switch::addresses`] says which it became.
    pub async fn start(addresses: SwitchAddresses) -> Result<Self, Error> {
        let refused = |address| {
            move |why: io::Error| match why.kind() {
                io::ErrorKind::AddrInUse => Error::InUse { address },
                _ => Error::Bind { address, why },
            }
        };
        let failed = refused(addresses.virtual_address);
        let listener = TcpListener::bind(addresses.virtual_address).await.map_err(failed)?;
        let failed = refused(addresses.announcements);
        let announcements = UdpSocket::bind(addresses.announcements).await.map_err(failed)?;
        let addresses = SwitchAddresses {
            announcements: announcements.local_addr().map_err(refused(addresses.announcements))?,
            virtual_address: listener.local_addr().map_err(refused(addresses.virtual_address))?,
        };
        let vip = Frontend {
            protocol: Protocol::Tcp,
            address: addresses.virtual_address.ip(),
            port: addresses.virtual_address.port(),
        };
        let shared =
            Shared { table: Arc::new(Mutex::new(Table::with_vip(vip))), news: watch::Sender::new(()) };
        let task = tasks::spawn(info_span!("switch"), run(announcements, (vip, listener), shared));
        Ok(Self { task, addresses })
    }

    /// Where it listens.
    pub fn addresses(&self) -> SwitchAddresses {
        self.addresses
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the switch's tasks share.
#[derive(Clone)]
pub(super) struct Shared {
    table: Arc<Mutex<Table>>,
    news: watch::Sender<()>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    #[allow(clippy::disallowed_methods)] // A driver: the table's clock.
    fn announced(&self, announcement: &Announcement) {
        if self.table().announced(announcement, Instant::now()) {
            self.news.send_replace(());
        }
    }

    #[allow(clippy::disallowed_methods)] // A driver: the table's clock.
    fn wanted(&self) -> BTreeSet<Frontend> {
        let mut table = self.table();
        table.expire(Instant::now());
        table.frontends()
    }

    #[allow(clippy::disallowed_methods)] // A driver: the table's clock.
    pub(super) fn targets(&self, frontend: Frontend) -> Vec<SocketAddr> {
        self.table().targets(frontend, Instant::now())
    }

    /// Waits until another host than the one at `holder` has the address; for ever if it is no such address.
    async fn moved(&self, frontend: Frontend, holder: SocketAddr) {
        let mut news = self.news.subscribe();
        while !self.table().is_elsewhere(frontend, holder) {
            if news.changed().await.is_err() {
                return;
            }
        }
    }
}

async fn run(announcements: UdpSocket, (vip, listener): (Frontend, TcpListener), shared: Shared) {
    let mut sockets = JoinSet::new();
    let (accepted, connections) = mpsc::channel(BACKLOG);
    sockets.spawn_in(info_span!("pass connections on"), pass_all_on(connections, shared.clone()));
    let mut open = BTreeMap::from([(
        vip,
        sockets.spawn_in(info_span!("virtual address"), accept_all(vip, listener, accepted.clone())),
    )]);
    let mut refused: BTreeSet<Frontend> = BTreeSet::new();
    let mut buffer = vec![0; LONGEST];
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            received = announcements.recv_from(&mut buffer) => match received {
                Ok((length, from)) => match Announcement::parse(&buffer[..length]) {
                    Ok(announcement) => shared.announced(&announcement),
                    Err(error) => {
                        tracing::debug!(%from, %error, "not an announcement");
                        continue;
                    }
                },
                // ICMP errors of earlier datagrams turn up here; there is nothing to do about them.
                Err(_) => continue,
            },
            _ = rounds.tick() => refused.clear(),
        }
        let wanted = shared.wanted();
        open.retain(|frontend, task| {
            wanted.contains(frontend) || {
                task.abort();
                false
            }
        });
        for frontend in wanted {
            if open.contains_key(&frontend) || refused.contains(&frontend) {
                continue;
            }
            match listen(frontend, &shared, &accepted, &mut sockets).await {
                Ok(task) => {
                    open.insert(frontend, task);
                }
                Err(error) => {
                    tracing::debug!(address = %frontend.socket(), %error, "can't stand for an address");
                    refused.insert(frontend);
                }
            }
        }
        while sockets.try_join_next().is_some() {}
    }
}

async fn listen(
    frontend: Frontend,
    shared: &Shared,
    accepted: &mpsc::Sender<(Frontend, TcpStream)>,
    sockets: &mut JoinSet<()>,
) -> io::Result<tokio::task::AbortHandle> {
    Ok(match frontend.protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind(frontend.socket()).await?;
            sockets.spawn_in(
                info_span!("frontend", at = %frontend.socket()),
                accept_all(frontend, listener, accepted.clone()),
            )
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(frontend.socket()).await?;
            sockets.spawn_in(
                info_span!("frontend", at = %frontend.socket()),
                udp::serve(frontend, socket, shared.clone()),
            )
        }
    })
}

/// Accepts until it is aborted. What it accepted lives on: a connection outlasts the announcement of its
/// address.
async fn accept_all(
    frontend: Frontend,
    listener: TcpListener,
    accepted: mpsc::Sender<(Frontend, TcpStream)>,
) {
    while accepted.send((frontend, relay::accept(&listener).await)).await.is_ok() {}
}

async fn pass_all_on(mut accepted: mpsc::Receiver<(Frontend, TcpStream)>, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some((frontend, near)) = accepted.recv() => {
                connections.spawn_in(debug_span!("connection"), pass_on(frontend, near, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
            else => return,
        }
    }
}

async fn pass_on(frontend: Frontend, mut near: TcpStream, shared: Shared) {
    // An address that nobody holds answers with silence.
    let Ok(far) = tokio::time::timeout(relay::PATIENCE, connect(frontend, &shared)).await else { return };
    let Some((mut far, target)) = far else { return relay::reset(&near) };
    tokio::select! {
        () = relay::splice(&mut near, &mut far) => return,
        () = shared.moved(frontend, target) => {}
    }
    // What the client sends from now on goes to a host that knows nothing of the connection, and whose kernel
    // says so. Until then the client hears nothing, of the former holder neither.
    let _ = near.readable().await;
    relay::reset(&near);
}

/// A connection to who stands for the address, and which of them that is; none when all refuse. Waits while
/// nobody stands for it.
async fn connect(frontend: Frontend, shared: &Shared) -> Option<(TcpStream, SocketAddr)> {
    let mut news = shared.news.subscribe();
    let targets = loop {
        let targets = shared.targets(frontend);
        if !targets.is_empty() {
            break targets;
        }
        news.changed().await.ok()?;
    };
    for target in targets {
        if let Ok(far) = TcpStream::connect(target).await {
            return Some((far, target));
        }
    }
    None
}
