//! A connection to the next endpoint that answers.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::farewell::Farewells;
use crate::{Balancer, Endpoint, PortId, Scope, Served, ServiceChange, Services};

/// An endpoint that doesn't answer in this time is passed over.
///
/// A dead host is known to be silent after 250 ms (`membership`); until then this is what a caller of one of its
/// endpoints loses.
const PATIENCE: Duration = Duration::from_millis(150);
/// How many endpoints are tried for one caller.
///
/// Together with the patience it bounds how long a caller waits to hear that nobody serves: 1.2 s.
const TRIES: usize = 8;

/// What everybody who looks for an endpoint shares.
///
/// `silent` is read before `balancer` is locked, and nothing is changed in `services` or `silent` while that lock is
/// held: so the three can't wait for each other.
#[derive(Debug)]
pub(crate) struct Dialer {
    services: watch::Sender<Services>,
    silent: watch::Sender<BTreeSet<String>>,
    balancer: Mutex<Balancer>,
    farewells: Farewells,
}

impl Dialer {
    pub fn new(host: &str) -> Self {
        let (services, silent) = (watch::Sender::default(), watch::Sender::default());
        let farewells = Farewells::default();
        Dialer { services, silent, balancer: Mutex::new(Balancer::new(host)), farewells }
    }

    /// Takes changes in.
    pub fn apply(&self, changes: &[ServiceChange]) {
        for change in changes {
            match change {
                ServiceChange::Served(_) | ServiceChange::Gone(_) => {
                    let mut before = None;
                    self.services.send_modify(|services| before = services.apply(change));
                    let Some(before) = before else { continue };
                    let now = self.services.borrow().get(&before.id).cloned();
                    let is_left = |id: &PortId| now.as_ref().is_some_and(|now| now.port(&id.port).is_some());
                    let gone = before.ports.iter().map(|port| &port.id).filter(|id| !is_left(id));
                    gone.for_each(|id| self.balancer().forget(id));
                }
                ServiceChange::Silent(host) => {
                    self.silent.send_modify(|silent| _ = silent.insert(host.clone()));
                }
                ServiceChange::Heard(host) => self.silent.send_modify(|silent| _ = silent.remove(host)),
            }
        }
    }

    /// Follows the services with their endpoints, on hosts silent or not.
    pub fn services(&self) -> watch::Receiver<Services> {
        self.services.subscribe()
    }

    pub fn is_silent(&self, node: &str) -> bool {
        self.silent.borrow().contains(node)
    }

    /// An address of services is about to leave this host: ends the connections to it.
    pub fn farewell(&self, address: IpAddr) -> impl Future<Output = ()> + use<> {
        self.farewells.say(address)
    }

    /// Waits until an address of services is about to leave this host.
    pub fn leaving(&self, address: IpAddr) -> impl Future<Output = ()> + use<> {
        self.farewells.hear(address)
    }

    /// Waits until an endpoint's host falls silent.
    pub async fn silence(&self, endpoint: &Endpoint) {
        if let Some(node) = &endpoint.node {
            let mut silent = self.silent.subscribe();
            if silent.wait_for(|silent| silent.contains(&**node)).await.is_ok() {
                return;
            }
        }
        // Nobody beats for an endpoint without a node: it can't fall silent.
        std::future::pending().await
    }

    fn served_of(&self, id: &PortId) -> Option<Arc<Served>> {
        self.services.borrow().get(&id.service).cloned()
    }

    /// Whether somebody serves a port at an address.
    pub fn serves(&self, id: &PortId, address: SocketAddr) -> bool {
        let served = self.served_of(id);
        let port = served.as_ref().and_then(|served| served.port(&id.port));
        port.is_some_and(|port| port.endpoints.iter().any(|endpoint| endpoint.address == address))
    }

    /// The endpoints of a port in the order in which to try them.
    #[allow(clippy::disallowed_methods)] // The driver: here the balancer gets its time.
    pub fn order(&self, id: &PortId, scope: Scope, client: Option<IpAddr>) -> Vec<Endpoint> {
        let served = self.served_of(id);
        let Some(port) = served.as_ref().and_then(|served| served.port(&id.port)) else { return Vec::new() };
        let silent = self.silent.borrow();
        self.balancer().order(port, scope, client, |node| silent.contains(node), Instant::now())
    }

    /// Remembers who served a client.
    #[allow(clippy::disallowed_methods)] // The driver: here the balancer gets its time.
    pub fn served(&self, id: &PortId, client: IpAddr, endpoint: SocketAddr) {
        let served = self.served_of(id);
        if let Some(port) = served.as_ref().and_then(|served| served.port(&id.port)) {
            self.balancer().served(port, client, endpoint, Instant::now());
        }
    }

    /// Connects to the first endpoint that answers in time.
    pub async fn connect(
        &self,
        id: &PortId,
        scope: Scope,
        client: Option<IpAddr>,
    ) -> io::Result<(TcpStream, Endpoint)> {
        let order = self.order(id, scope, client);
        let nobody =
            || io::Error::new(io::ErrorKind::ConnectionRefused, format!("nobody serves {id} at present"));
        let mut last = nobody();
        for endpoint in order.into_iter().take(TRIES) {
            // The order may be some hundred milliseconds old by now.
            if endpoint.node.as_deref().is_some_and(|node| self.is_silent(node)) {
                continue;
            }
            match timeout(PATIENCE, TcpStream::connect(endpoint.address)).await {
                Ok(Ok(stream)) => {
                    if let Some(client) = client {
                        self.served(id, client, endpoint.address);
                    }
                    return Ok((stream, endpoint));
                }
                Ok(Err(error)) => {
                    last = io::Error::new(
                        error.kind(),
                        format!("{}, which serves {id}: {error}", endpoint.address),
                    );
                }
                Err(_) => {
                    let text = format!("{}, which serves {id}, doesn't answer", endpoint.address);
                    last = io::Error::new(io::ErrorKind::TimedOut, text);
                }
            }
        }
        Err(last)
    }

    fn balancer(&self) -> MutexGuard<'_, Balancer> {
        self.balancer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
