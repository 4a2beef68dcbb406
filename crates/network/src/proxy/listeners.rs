//! The listeners that the services ask for, opened and closed as they change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use objects::AddressPool;
use tasks::SpawnIn;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::info_span;

use super::{tcp, udp};
use crate::announce::{AddressKind, Entry};
use crate::backend::{Outcome, ServiceBackend};
use crate::dial::Dialer;
use crate::frontends::{Frontend, Frontends};
use crate::listen::{bind_before_held, listen_before_held};
use crate::{Answered, PortId, Protocol, Scope, ServiceChange};

/// Where a Service's own addresses are listened on.
#[derive(Debug)]
pub(crate) enum ListenAt {
    /// On the addresses themselves, which are all this host's own.
    There,
    /// On this host's address, and announced to the switch.
    Here(watch::Sender<Vec<Entry>>),
}

/// The in-process proxy: the open listeners.
///
/// Every entry of `open` is one task of `tasks`, which never ends by itself: whatever `tasks` has beyond them was
/// aborted and is about to close its socket. A frontend is in `open` or in `refused`, never in both.
#[derive(Debug)]
pub(crate) struct Proxy {
    host: IpAddr,
    place: ListenAt,
    dialer: Arc<Dialer>,
    connections: Arc<Semaphore>,
    frontends: Frontends,
    answered: Vec<Answered>,
    open: BTreeMap<Frontend, Open>,
    /// What could not be opened, and why.
    refused: BTreeMap<Frontend, String>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Open {
    port: PortId,
    bound: SocketAddr,
    task: AbortHandle,
}

impl ServiceBackend for Proxy {
    fn apply<'a>(&'a mut self, changes: &'a [ServiceChange]) -> BoxFuture<'a, Outcome> {
        // From here on callers get the new endpoints, and none of a silent host.
        self.dialer.apply(changes);
        let mut touched: BTreeSet<Frontend> = self.refused.keys().copied().collect();
        for change in changes {
            match change {
                ServiceChange::Served(served) => {
                    touched.extend(self.frontends.set(&served.id, &served.ports))
                }
                ServiceChange::Gone(id) => touched.extend(self.frontends.set(id, &[])),
                // Connections watch their endpoint's host themselves.
                // The listener stays:
                ServiceChange::Silent(_) | ServiceChange::Heard(_) => {}
            }
        }
        async move {
            if !touched.is_empty() {
                self.listen_anew(touched).await;
            }
            if self.refused.is_empty() { Outcome::Done } else { Outcome::Left }
        }
        .boxed()
    }
}

impl Proxy {
    pub fn new(
        host: IpAddr,
        place: ListenAt,
        (answered, pool): (Vec<Answered>, AddressPool),
        dialer: Arc<Dialer>,
        most_connections: usize,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(most_connections));
        let by_itself = answered.iter().map(|answered| (answered.protocol, answered.address)).collect();
        Proxy {
            host,
            place,
            dialer,
            connections,
            frontends: Frontends::new(host, by_itself, pool),
            answered,
            open: BTreeMap::new(),
            refused: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Opens and closes what is needed of these.
    async fn listen_anew(&mut self, touched: BTreeSet<Frontend>) {
        for frontend in &touched {
            if let Some(open) = self.open.get(frontend)
                && self.frontends.port(frontend) != Some(&open.port)
            {
                open.task.abort();
                self.open.remove(frontend);
            }
        }
        // Sockets are closed when their tasks are gone; only then may another one take the address.
        while self.tasks.len() > self.open.len() {
            self.tasks.join_next().await;
        }
        for frontend in touched {
            let before = self.refused.remove(&frontend);
            let Some(port) = self.frontends.port(&frontend).cloned() else { continue };
            if self.open.contains_key(&frontend) {
                continue;
            }
            match self.listen(frontend, &port).await {
                Ok((bound, task)) => {
                    self.open.insert(frontend, Open { port, bound, task });
                }
                Err(error) => {
                    let error = error.to_string();
                    if before.as_ref() != Some(&error) {
                        let (address, protocol) = (frontend.address, frontend.protocol);
                        tracing::warn!(%address, ?protocol, error, "can't listen for a service; trying on");
                    }
                    self.refused.insert(frontend, error);
                }
            }
        }
        if let ListenAt::Here(announced) = &self.place {
            // All of them each time: what an announcement doesn't list is given up.
            let entries = announcements(&self.answered, &self.open);
            announced.send_if_modified(|known| {
                let changed = *known != entries;
                *known = entries;
                changed
            });
        }
    }

    async fn listen(&mut self, frontend: Frontend, port: &PortId) -> io::Result<(SocketAddr, AbortHandle)> {
        let at = match (&self.place, frontend.scope) {
            (ListenAt::Here(_), Scope::Internal | Scope::Balanced) => SocketAddr::new(self.host, 0),
            _ => frontend.address,
        };
        let (scope, address) = (frontend.scope, frontend.address.ip());
        let front = Front { port: port.clone(), scope, address, dialer: self.dialer.clone() };
        // Whether this host holds the address or not.
        let is_held = scope == Scope::Balanced && at == frontend.address;
        Ok(match frontend.protocol {
            Protocol::Tcp => {
                let listener = match is_held {
                    true => TcpListener::from_std(listen_before_held(at)?)?,
                    false => TcpListener::bind(at).await?,
                };
                let bound = listener.local_addr()?;
                (
                    bound,
                    self.tasks.spawn_in(
                        info_span!("service", port = %front.port),
                        tcp::serve(listener, front, self.connections.clone()),
                    ),
                )
            }
            Protocol::Udp => {
                let socket = match is_held {
                    true => UdpSocket::from_std(bind_before_held(at)?)?,
                    false => UdpSocket::bind(at).await?,
                };
                (
                    socket.local_addr()?,
                    self.tasks.spawn_in(info_span!("service", port = %front.port), udp::serve(socket, front)),
                )
            }
        })
    }
}

/// What a listener stands for.
#[derive(Debug, Clone)]
pub(super) struct Front {
    pub port: PortId,
    pub scope: Scope,
    pub address: IpAddr,
    pub dialer: Arc<Dialer>,
}

impl Front {
    /// Waits until this host is about to give the address up; for ever, where it has it for good.
    pub async fn leaving(&self) {
        match self.scope {
            Scope::Balanced => self.dialer.leaving(self.address).await,
            Scope::Internal | Scope::External => std::future::pending().await,
        }
    }
}

fn announcements(answered: &[Answered], open: &BTreeMap<Frontend, Open>) -> Vec<Entry> {
    let by_itself = answered.iter().map(|answered| Entry {
        kind: AddressKind::Service,
        address: answered.address.ip(),
        port: answered.address.port(),
        protocol: answered.protocol,
        target: answered.at,
    });
    let proxied = open.iter().filter_map(|(frontend, open)| {
        let kind = match frontend.scope {
            Scope::Internal => AddressKind::Service,
            // The announcer tells it while this host holds it.
            Scope::Balanced => AddressKind::Vip,
            Scope::External => return None,
        };
        let (address, port) = (frontend.address.ip(), frontend.address.port());
        Some(Entry { kind, address, port, protocol: frontend.protocol, target: open.bound })
    });
    by_itself.chain(proxied).collect()
}
