//! Aggregated APIs: groups and versions that another server in the cluster answers for (an APIService with a service).
//!
//! Requests for them are forwarded with the user's name, vouched for by the front proxy's certificate; what the servers
//! serve stands in discovery and OpenAPI beside what is served here. Groups that are served here stay here, whatever an
//! APIService says. Follows `k8s.io/kube-aggregator`.

mod authentication;
mod discovery;
mod forward;
mod probe;
mod remotes;
mod request_info;

use std::sync::Arc;

use objects::Followed;
use pki::{LiveIdentity, Trust};
use serde_json::Value;
use store::State;

use crate::backend::Relay;
use crate::registry::Registry;

use authentication::config_map;
pub(crate) use discovery::{add_discovered, add_group, discovered};
use probe::Probes;
pub(crate) use remotes::Remote;
use remotes::Remotes;
pub(crate) use request_info::RequestInfo;

/// The name that the front proxy's certificate has to have.
const FRONT_PROXY: &str = "front-proxy-client";

/// How the API presents itself to the servers of aggregated APIs.
#[derive(Debug, Clone)]
pub struct FrontProxy {
    /// The certificate by which they know that what a request says about its user is true: `CN=front-proxy-client`.
    pub identity: LiveIdentity,
    /// The authority that signed it.
    pub trust: Trust,
    /// The authorities that sign clients' certificates.
    pub clients: Trust,
}

/// Aggregated APIs as far as they are known here.
pub(crate) struct Aggregation {
    registry: Arc<Registry>,
    relay: Relay,
    front_proxy: Option<FrontProxy>,
    remotes: Followed<Remotes>,
    probes: Probes,
}

impl Aggregation {
    pub(crate) fn new(registry: Arc<Registry>, relay: Relay, front_proxy: Option<FrontProxy>) -> Self {
        let remotes = Followed::new(remotes::PREFIX, Remotes::of, &registry.store().snapshot());
        Aggregation { registry, relay, front_proxy, remotes, probes: Probes::default() }
    }

    /// What servers of aggregated APIs need so that they know which clients to believe, as the object in which they look it up.
    pub(crate) fn config_map(&self) -> Option<Value> {
        self.front_proxy.as_ref().map(config_map)
    }

    /// The aggregated APIs in a state.
    fn remotes(&self, state: &State) -> Arc<Remotes> {
        self.remotes.get(state, |_| {})
    }
}
