//! The servers of a host, and what feeds them.

mod follow;
mod tcp;
mod udp;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use membership::Hosts;
use socket2::{Domain, Socket, Type};
use store::Store;
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info_span;

use crate::metrics::Metrics;
use crate::records::{Records, Zones};
use crate::resolver::Resolver;
use crate::upstream::Upstream;

/// How many bytes of questions the kernel keeps while this thread is at other work; more of it than by default, for bursts.
const BUFFER: usize = 1 << 20;

/// What a host's DNS needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's zones.
    pub zones: Zones,
    /// Who may ask: the cluster's own addresses. Strangers are refused, whatever they ask for.
    pub callers: Vec<IpNet>,
    /// Where to listen, by datagrams and connections: the first address is the one that counts.
    pub listen: Vec<SocketAddr>,
    /// Who is asked for other names; with none, those that `resolv_conf` names.
    pub upstream: Vec<SocketAddr>,
    /// The resolver's configuration of this host (resolv.conf(5)): it is read again when it changes.
    pub resolv_conf: PathBuf,
}

/// Why a host's DNS can't start.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} for DNS: {why}")]
pub struct Error {
    /// Which address.
    pub address: SocketAddr,
    /// What the system said.
    pub why: io::Error,
}

/// The DNS of one host, which listens, and answers once it is run.
#[derive(Debug)]
pub struct Server {
    options: Options,
    sockets: Vec<(UdpSocket, TcpListener)>,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Listens. An address needn't be this host's yet.
    ///
    /// # Errors
    /// [`Error`] if the first address can't be had; without another one it is only said.
    pub fn listen(options: Options, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let mut sockets = Vec::new();
        for address in &options.listen {
            match both(*address).map_err(|why| Error { address: *address, why }) {
                Ok(both) => sockets.push(both),
                Err(error) if sockets.is_empty() => return Err(error),
                Err(error) => tracing::warn!(%error, "names are answered for at the other address alone"),
            }
        }
        Ok(Server { options, sockets, metrics })
    }

    /// Where it listens, in the order of [`Options::listen`].
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect()
    }

    /// Answers out of `store`, as long as that is there; without the endpoints of silent hosts.
    pub async fn run(self, store: Arc<dyn Store>, hosts: watch::Receiver<Arc<Hosts>>) {
        let own = self.addresses();
        let Options { zones, callers, upstream: servers, resolv_conf, .. } = self.options;
        let upstream = Arc::new(Upstream::new(self.metrics.clone()));
        let resolver = Resolver::new(Records::new(zones), callers, upstream, self.metrics);
        let resolver = Arc::new(resolver);
        let mut serving = JoinSet::new();
        // What there is to know is known before the first question is read: a name that there is must not be denied.
        resolver.change_records().load(&store.snapshot());
        let mut machine = follow::Machine::new(resolv_conf, servers, own);
        machine.look(&resolver).await;
        for (udp, tcp) in self.sockets {
            match (tokio::net::UdpSocket::from_std(udp), tokio::net::TcpListener::from_std(tcp)) {
                (Ok(udp), Ok(tcp)) => {
                    serving.spawn_in(info_span!("dns", way = "udp"), udp::serve(udp, resolver.clone()));
                    serving.spawn_in(info_span!("dns", way = "tcp"), tcp::serve(tcp, resolver.clone()));
                }
                (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "can't answer for names"),
            }
        }
        serving.spawn_in(info_span!("follow resolv.conf"), machine.follow(resolver.clone()));
        follow::store(store, hosts, resolver).await;
    }
}

fn both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = datagrams(address)?;
    // On port 0, the same for both.
    let tcp = connections(udp.local_addr()?)?;
    Ok((udp, tcp))
}

fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(address, Type::DGRAM)?;
    // What the system allows is enough.
    let _ = socket.set_recv_buffer_size(BUFFER);
    Ok(socket.into())
}

fn connections(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, Type::STREAM)?;
    socket.listen(128)?;
    Ok(socket.into())
}

/// A socket on an address that may become this host's later (`IP_FREEBIND`, ip(7)).
fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
