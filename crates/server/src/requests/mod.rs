//! Requests: their users, what they ask for, and whether they may; then what answers them.

mod apply;
mod backup;
mod component_status;
mod discovery;
mod door;
mod health;
mod impersonate;
mod metrics;
mod objects;
mod openapi;
mod outside;
mod route;
mod serve;
mod status;
mod time_limit;
mod trail;
mod turn;
mod watch;
mod write;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::objects::Writer;
use audit::Auditor;
use fairness::Fairness;
use tokio::sync::watch::Receiver;

use self::discovery::Discovery;
use self::door::Opened;
use self::metrics::Metrics;
use self::openapi::OpenApi;
use self::outside::Outside;
use self::status::Shown;
use self::trail::AuditedWriter;
use crate::aggregation::Aggregation;
use crate::http::ahead::Ahead;
use crate::http::beside::Beside;
use crate::http::outgoing::Outgoing;
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::usage::Usage;

pub use self::door::{Door, TurnedAway};
pub use self::metrics::Measure;
pub use self::outside::TokenReviewer;
pub use self::status::Overview;

/// What requests for objects are answered with.
pub(crate) struct Objects {
    registry: Arc<Registry>,
    beside: Beside,
    outgoing: Arc<Outgoing>,
    metrics: Arc<Metrics>,
    /// Who knows tokens that the cluster didn't make.
    outside: OnceLock<Outside>,
    /// True once the server ends.
    closing: Receiver<bool>,
}

/// Who looks at what requests do.
pub(crate) struct Observers {
    /// What other parts of the process measure.
    pub(crate) measures: Vec<Measure>,
    /// The audit; none without a policy.
    pub(crate) audit: Option<Arc<Auditor>>,
}

/// All that requests are answered with.
pub(crate) struct Requests {
    registry: Arc<Registry>,
    fairness: Arc<Fairness>,
    aggregation: Arc<Aggregation>,
    proxy: Arc<Proxy>,
    usage: Usage,
    objects: Objects,
    openapi: OpenApi,
    ahead: Ahead,
    audit: Option<Arc<Auditor>>,
    /// Where the server listens first.
    address: OnceLock<SocketAddr>,
    /// For those whom nobody knows yet.
    door: OnceLock<Opened>,
    /// How the hosts are.
    overview: OnceLock<Shown>,
}

impl Requests {
    pub(crate) fn new(
        registry: Arc<Registry>,
        fairness: Arc<Fairness>,
        aggregation: Arc<Aggregation>,
        proxy: Arc<Proxy>,
        outgoing: Arc<Outgoing>,
        closing: Receiver<bool>,
        observers: Observers,
    ) -> Self {
        let Observers { measures, audit } = observers;
        let (beside, metrics) = (Beside::default(), Arc::new(Metrics::new(measures)));
        let outside = OnceLock::new();
        let objects = Objects { registry: registry.clone(), beside, outgoing, metrics, outside, closing };
        let openapi = OpenApi::new(registry.clone(), aggregation.clone());
        let usage = Usage::new(registry.clone(), proxy.clone());
        let ahead = Ahead::default();
        let (address, door, overview) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Requests {
            registry,
            fairness,
            aggregation,
            proxy,
            usage,
            objects,
            openapi,
            ahead,
            audit,
            address,
            door,
            overview,
        }
    }

    /// The server listens at an address; whether it is the first.
    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        self.address.set(address).is_ok()
    }

    /// Opens a door at a path; there is one at most.
    pub(crate) fn open_door(&self, path: &'static str, largest: usize, door: Arc<dyn Door>) {
        let _ = self.door.set(Opened::new(path, largest, door));
    }

    /// Shows how the hosts are; what is shown later isn't seen.
    pub(crate) fn show(&self, overview: Arc<dyn Overview>) {
        let _ = self.overview.set(Shown::new(overview));
    }

    /// Asks somebody outside about tokens; there is one at most.
    pub(crate) fn review_tokens_by(&self, reviewer: Arc<dyn TokenReviewer>, kept_for: Duration) {
        let _ = self.objects.outside.set(Outside::new(reviewer, kept_for));
    }

    /// The write path for the parts of this process.
    pub(crate) fn writer(&self) -> Arc<dyn Writer> {
        match &self.audit {
            Some(auditor) => Arc::new(AuditedWriter::new(self.registry.clone(), auditor.clone())),
            None => self.registry.clone(),
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    fn discovery(&self) -> Discovery<'_> {
        Discovery { registry: &self.registry, aggregation: &self.aggregation, address: self.address() }
    }
}
