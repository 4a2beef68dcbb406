//! A connection to the next backend that answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use membership::Hosts;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::{Backend, Balancer, PortId, Scope, Services};

/// A backend that doesn't answer in this time is passed over.
const PATIENCE: Duration = Duration::from_millis(150);
/// How many backends are tried for one caller.
const TRIES: usize = 8;

/// What everybody who looks for a backend shares.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub services: watch::Receiver<Arc<Services>>,
    pub hosts: watch::Receiver<Arc<Hosts>>,
    balancer: Mutex<Balancer>,
}

impl Dialer {
    pub fn new(
        host: &str,
        services: watch::Receiver<Arc<Services>>,
        hosts: watch::Receiver<Arc<Hosts>>,
    ) -> Self {
        Dialer { services, hosts, balancer: Mutex::new(Balancer::new(host)) }
    }

    pub fn is_silent(&self, node: &str) -> bool {
        self.hosts.borrow().is_silent(node)
    }

    /// Waits until a backend's host falls silent.
    pub async fn silence(&self, backend: &Backend) {
        if let Some(node) = &backend.node {
            let mut hosts = self.hosts.clone();
            if hosts.wait_for(|hosts| hosts.is_silent(node)).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    /// The backends of a port in the order in which to try them.
    #[allow(clippy::disallowed_methods)] // The driver: here the balancer gets its time.
    pub fn order(&self, id: &PortId, scope: Scope, client: Option<IpAddr>) -> Vec<Backend> {
        let services = self.services.borrow().clone();
        let hosts = self.hosts.borrow().clone();
        let Some(port) = services.get(id) else { return Vec::new() };
        self.balancer().order(port, scope, client, |node| hosts.is_silent(node), Instant::now())
    }

    /// Remembers who served a client.
    #[allow(clippy::disallowed_methods)] // The driver: here the balancer gets its time.
    pub fn served(&self, id: &PortId, client: IpAddr, backend: SocketAddr) {
        let services = self.services.borrow().clone();
        if let Some(port) = services.get(id) {
            self.balancer().served(port, client, backend, Instant::now());
        }
    }

    /// Forgets what belongs to ports that are gone.
    pub fn tidy(&self, services: &Services) {
        self.balancer().retain(services);
    }

    /// Connects to the first backend that answers in time.
    pub async fn connect(
        &self,
        id: &PortId,
        scope: Scope,
        client: Option<IpAddr>,
    ) -> io::Result<(TcpStream, Backend)> {
        let order = self.order(id, scope, client);
        let nobody =
            || io::Error::new(io::ErrorKind::ConnectionRefused, format!("nobody serves {id} at present"));
        let mut last = nobody();
        for backend in order.into_iter().take(TRIES) {
            // The order may be some hundred milliseconds old by now.
            if backend.node.as_deref().is_some_and(|node| self.is_silent(node)) {
                continue;
            }
            match timeout(PATIENCE, TcpStream::connect(backend.address)).await {
                Ok(Ok(stream)) => {
                    if let Some(client) = client {
                        self.served(id, client, backend.address);
                    }
                    return Ok((stream, backend));
                }
                Ok(Err(error)) => {
                    last = io::Error::new(
                        error.kind(),
                        format!("{}, which serves {id}: {error}", backend.address),
                    );
                }
                Err(_) => {
                    let text = format!("{}, which serves {id}, doesn't answer", backend.address);
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
