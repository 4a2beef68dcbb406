//! Aggregated APIs: groups and versions that another server in the cluster answers for (an APIService with a service).
//!
//! Requests for them are forwarded with the name of who asks, vouched for by the front proxy's certificate; what they
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
use pki::{Identity, Trust};
use store::State;

pub(crate) use authentication::config_map;
pub(crate) use forward::forward;
pub(crate) use probe::Probes;
pub(crate) use remotes::Remote;
use remotes::Remotes;
pub(crate) use request_info::RequestInfo;

/// The name that the front proxy's certificate has to have.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// How the API presents itself to the servers of aggregated APIs.
#[derive(Debug, Clone)]
pub struct FrontProxy {
    /// The certificate by which they know that what a request says about its user is true: `CN=front-proxy-client`.
    pub identity: Identity,
    /// The authority that signed it.
    pub trust: Trust,
    /// The authorities that sign clients' certificates.
    pub clients: Trust,
}

/// Aggregated APIs as far as they are known here.
pub(crate) struct Aggregation {
    remotes: Followed<Remotes>,
    pub(crate) front_proxy: Option<FrontProxy>,
    pub(crate) probes: Probes,
}

impl Aggregation {
    pub(crate) fn new(front_proxy: Option<FrontProxy>, state: &State) -> Self {
        let remotes = Followed::new(remotes::PREFIX, Remotes::of, state);
        Aggregation { remotes, front_proxy, probes: Probes::default() }
    }

    /// The aggregated APIs in a state.
    pub(crate) fn remotes(&self, state: &State) -> Arc<Remotes> {
        self.remotes.get(state, |_| {})
    }
}
