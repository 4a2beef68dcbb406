//! The server: its parts, and what the program does with it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};

use access::{Authority, Authorizer, Identity, Tokens};
use fairness::Fairness;
use jiff::Timestamp;
use objects::Writer;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use store::Store;
use tokio::sync::watch;
use tracing::info_span;

use crate::admission::ServiceRange;
use crate::aggregation::{Aggregation, FrontProxy};
use crate::bootstrap::node_rules;
use crate::clock;
use crate::http::ahead::Ahead;
use crate::http::beside::Beside;
use crate::http::connection::Places;
use crate::http::metrics::{Measure, Metrics};
use crate::http::openapi::Swaggers;
use crate::http::outgoing::Outgoing;
use crate::http::{self, Limits, Listening};
use crate::proxy::Backends;
use crate::registry::Registry;

/// What a server is made of.
pub struct Options {
    /// Where the objects are.
    pub store: Arc<dyn Store>,
    /// The addresses that services get.
    pub services: ServiceRange,
    /// The way to the pods behind services.
    pub backends: Arc<dyn Backends>,
    /// How the server presents itself to the hosts' agents (and whom it believes), for logs.
    pub kubelet_client_tls: Arc<ClientConfig>,
    /// How the server presents itself to the servers of aggregated APIs; without, they know nobody's name.
    pub front_proxy: Option<FrontProxy>,
    /// The cluster's own authority; without, every certificate that a listener lets in may name anybody.
    pub authority: Option<Authority>,
    /// What a client may use up.
    pub limits: Limits,
    /// What tokens of service accounts are made with.
    pub tokens: Tokens,
    /// What other parts of the process measure, for `/metrics`.
    pub metrics: Vec<Measure>,
}

/// The API. Made once a process; it serves nobody from outside until it [listens](Server::listen).
pub struct Server {
    registry: Arc<Registry>,
    backends: Arc<dyn Backends>,
    kubelet_client_tls: Arc<ClientConfig>,
    authority: Option<Authority>,
    limits: Limits,
    closing: watch::Sender<bool>,
    address: OnceLock<SocketAddr>,
    metrics: Arc<Metrics>,
    fairness: Arc<Fairness>,
    swaggers: Swaggers,
    aggregation: Aggregation,
    ahead: Ahead,
    beside: Beside,
    outgoing: Arc<Outgoing>,
    places: Arc<Places>,
}

impl Server {
    /// A server over a store.
    pub fn new(options: Options) -> Arc<Self> {
        let fairness =
            Fairness::new(options.limits.seats, &options.store.snapshot(), Arc::new(clock::instant));
        let aggregation = Aggregation::new(options.front_proxy, &options.store.snapshot());
        let (places, outgoing) = (Places::new(&options.limits), Outgoing::new(&options.limits));
        Arc::new(Server {
            aggregation,
            fairness,
            registry: Arc::new(Registry::new(
                options.store,
                options.services,
                options.backends.clone(),
                options.tokens,
                Authorizer::new(node_rules()),
            )),
            backends: options.backends,
            kubelet_client_tls: options.kubelet_client_tls,
            authority: options.authority,
            limits: options.limits,
            closing: watch::Sender::new(false),
            address: OnceLock::new(),
            metrics: Arc::new(Metrics::new(options.metrics)),
            swaggers: Swaggers::default(),
            ahead: Ahead::default(),
            beside: Beside::default(),
            outgoing,
            places,
        })
    }

    /// The write path for the parts of this process.
    pub fn writer(&self) -> Arc<dyn Writer> {
        self.registry.clone()
    }

    /// Serves on one more address, until the answer is dropped. `tls` must ask clients for certificates and
    /// verify them against the cluster's authority; who has none is let in as nobody and gets 401.
    ///
    /// # Errors
    /// If the address can't be bound.
    pub fn listen(
        self: &Arc<Self>,
        address: SocketAddr,
        tls: Arc<ServerConfig>,
    ) -> Result<Listening, io::Error> {
        self.listen_on(TcpListener::bind(address)?, tls)
    }

    /// Like [`listen`](Server::listen), with a listener that was bound before, for example to an address that
    /// this host holds only at times.
    ///
    /// # Errors
    /// If the listener can't be used.
    pub fn listen_on(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
    ) -> Result<Listening, io::Error> {
        let listening = http::listen(self.clone(), listener, tls)?;
        if self.address.set(listening.address()).is_ok() {
            tasks::spawn(
                info_span!("watch over answers"),
                Outgoing::watch_over(Arc::downgrade(&self.outgoing)),
            );
        }
        Ok(listening)
    }

    /// Ends all watches, so that connections can close; for the end of the process.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn fairness(&self) -> &Arc<Fairness> {
        &self.fairness
    }

    pub(crate) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    pub(crate) fn beside(&self) -> &Beside {
        &self.beside
    }

    pub(crate) fn outgoing(&self) -> &Arc<Outgoing> {
        &self.outgoing
    }

    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    pub(crate) fn aggregation(&self) -> &Aggregation {
        &self.aggregation
    }

    pub(crate) fn swaggers(&self) -> &Swaggers {
        &self.swaggers
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn backends(&self) -> &Arc<dyn Backends> {
        &self.backends
    }

    pub(crate) fn kubelet_client_tls(&self) -> &Arc<ClientConfig> {
        &self.kubelet_client_tls
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The identity behind a certificate that was let in; none if it has expired, or names one it may not speak for.
    pub(crate) fn shown_by(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> Option<Identity> {
        let who = Identity::of_current(certificate, now)?;
        let believed =
            self.authority.as_ref().is_none_or(|authority| authority.believes(certificate, &who, now));
        if !believed {
            tracing::warn!(
                user = who.user,
                "a certificate of the requests' authority names a part of the cluster"
            );
        }
        believed.then_some(who)
    }

    /// The address that was listened on first.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }
}
