//! The listeners that the services ask for, opened and closed as they change.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::{tcp, udp};
use crate::announce::{Entry, Kind};
use crate::dial::Dialer;
use crate::frontends::{Frontend, wanted};
use crate::{PortId, Protocol, Scope, Services};

/// After this time an address that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where a Service's own addresses are listened on.
#[derive(Debug)]
pub(crate) enum Place {
    /// On the addresses themselves, which are all this host's own.
    There,
    /// On this host's address, and announced to the switch.
    Here(watch::Sender<Vec<Entry>>),
}

/// The open listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    host: IpAddr,
    place: Place,
    dialer: Arc<Dialer>,
    connections: Arc<Semaphore>,
    open: BTreeMap<Frontend, Open>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Open {
    port: PortId,
    bound: SocketAddr,
    task: AbortHandle,
}

impl Listeners {
    pub fn new(host: IpAddr, place: Place, dialer: Arc<Dialer>, most_connections: usize) -> Self {
        let connections = Arc::new(Semaphore::new(most_connections));
        Listeners { host, place, dialer, connections, open: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Follows the services until they end.
    pub async fn run(mut self) {
        let mut services = self.dialer.services.clone();
        let mut refused = Vec::new();
        loop {
            let now = services.borrow_and_update().clone();
            let refused_now = self.apply(&now).await;
            if refused_now != refused {
                for (frontend, error) in &refused_now {
                    let (address, protocol) = (frontend.address, frontend.protocol);
                    tracing::warn!(%address, ?protocol, error, "can't listen for a service; trying on");
                }
                refused = refused_now;
            }
            tokio::select! {
                changed = services.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN), if !refused.is_empty() => {}
            }
        }
    }

    /// Opens and closes what is needed; what could not be opened, with the reason.
    async fn apply(&mut self, services: &Services) -> Vec<(Frontend, String)> {
        let wanted = wanted(services, self.host);
        self.open.retain(|frontend, open| {
            let kept = wanted.get(frontend) == Some(&open.port);
            if !kept {
                open.task.abort();
            }
            kept
        });
        // Sockets are closed when their tasks are gone; only then may another one take the address.
        while self.tasks.len() > self.open.len() {
            self.tasks.join_next().await;
        }
        let mut refused = Vec::new();
        for (frontend, port) in wanted {
            if self.open.contains_key(&frontend) {
                continue;
            }
            match self.listen(frontend, &port).await {
                Ok((bound, task)) => {
                    self.open.insert(frontend, Open { port, bound, task });
                }
                Err(error) => refused.push((frontend, error.to_string())),
            }
        }
        self.dialer.tidy(services);
        if let Place::Here(announced) = &self.place {
            let entries = announcements(&self.open);
            announced.send_if_modified(|known| {
                let changed = *known != entries;
                *known = entries;
                changed
            });
        }
        refused
    }

    async fn listen(&mut self, frontend: Frontend, port: &PortId) -> io::Result<(SocketAddr, AbortHandle)> {
        let at = match (&self.place, frontend.scope) {
            (Place::Here(_), Scope::Internal) => SocketAddr::new(self.host, 0),
            _ => frontend.address,
        };
        let front = Front { port: port.clone(), scope: frontend.scope, dialer: self.dialer.clone() };
        Ok(match frontend.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(at).await?;
                let bound = listener.local_addr()?;
                (bound, self.tasks.spawn(tcp::serve(listener, front, self.connections.clone())))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(at).await?;
                (socket.local_addr()?, self.tasks.spawn(udp::serve(socket, front)))
            }
        })
    }
}

/// What a listener stands for.
#[derive(Debug, Clone)]
pub(super) struct Front {
    pub port: PortId,
    pub scope: Scope,
    pub dialer: Arc<Dialer>,
}

fn announcements(open: &BTreeMap<Frontend, Open>) -> Vec<Entry> {
    let internal = open.iter().filter(|(frontend, _)| frontend.scope == Scope::Internal);
    internal
        .map(|(frontend, open)| Entry {
            kind: Kind::Service,
            address: frontend.address.ip(),
            port: frontend.address.port(),
            protocol: frontend.protocol,
            target: open.bound,
        })
        .collect()
}
