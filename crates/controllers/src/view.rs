//! Everything the controllers look at, typed and consistent: one revision of the state.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{AddressPool, Kind, Meta, Pod, Pool, key};
use pki::Authority;
use serde_json::Value;
use store::State;

use crate::controller::Part;
use crate::graph::Graph;
use crate::index::{By, Group};
use crate::list::controllers;
use crate::tables::{Account, Index, Rows, Tables, Watches};
use crate::touched::{Owned, Touched};
use crate::{fencing, host_services, node};

/// One revision of the state, decoded: what every reconciliation reads. It follows the state change by
/// change, so that a change costs the decoding of what changed.
pub struct View {
    state: Arc<State>,
    part: Part,
    tables: Tables,
    /// Which object owns which, over all kinds.
    pub(crate) graph: Graph,
    root_certificate: Option<Arc<str>>,
    signer: Option<Arc<Authority>>,
    grace: Duration,
    fenced_after: Duration,
    api_port: u16,
    addresses: AddressPool,
}

impl View {
    /// The view that all controllers have of a state, with pods of a pool.
    pub fn load(state: Arc<State>, pods: &Pool<Pod>) -> Self {
        View::load_part(state, pods, Part::All)
    }

    /// The same for some of them.
    pub fn load_part(state: Arc<State>, pods: &Pool<Pod>, part: Part) -> Self {
        let declare = |watches: &mut Watches<'_>| {
            // What the view itself reads.
            watches.table::<Namespace>();
            controllers(part).for_each(|(_, controller)| controller.watches(watches));
        };
        View {
            tables: Tables::load(&state, pods, declare),
            graph: Graph::load(&state),
            root_certificate: None,
            signer: None,
            grace: node::GRACE,
            fenced_after: fencing::FENCED_AFTER,
            api_port: host_services::PORT,
            addresses: AddressPool::default(),
            part,
            state,
        }
    }

    /// The same, with the certificate (PEM) by which pods believe the API, to be published.
    pub fn publishing(self, root_certificate: Arc<str>) -> Self {
        View { root_certificate: Some(root_certificate), ..self }
    }

    /// The certificate by which pods believe the API.
    pub fn root_certificate(&self) -> Option<&str> {
        self.root_certificate.as_deref()
    }

    /// The same, with the authority that signs what certificates are asked for.
    pub fn signing(self, signer: Option<Arc<Authority>>) -> Self {
        View { signer, ..self }
    }

    /// The authority that signs what certificates are asked for.
    pub fn signer(&self) -> Option<&Authority> {
        self.signer.as_deref()
    }

    /// The same, where a host is not ready after `grace` of silence and holds no lease `fenced_after` it was last heard, and the API listens on
    /// `api_port`.
    pub fn configured(self, grace: Duration, fenced_after: Duration, api_port: u16) -> Self {
        View { grace, fenced_after, api_port, ..self }
    }

    /// The same, with the addresses that Services of type LoadBalancer may have.
    pub fn lending(self, addresses: AddressPool) -> Self {
        View { addresses, ..self }
    }

    /// The addresses that Services of type LoadBalancer may have.
    pub fn addresses(&self) -> &AddressPool {
        &self.addresses
    }

    /// Which controllers have it.
    pub(crate) fn part(&self) -> Part {
        self.part
    }

    /// A host that was silent for this long is not ready.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// A host that nobody can hear any more holds no lease after so long.
    pub fn fenced_after(&self) -> Duration {
        self.fenced_after
    }

    /// The port on which every host's API listens.
    pub fn api_port(&self) -> u16 {
        self.api_port
    }

    /// The state that this is a view of.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Moves on to a newer state; `touched` gets everything that changed. Returns false, with nothing
    /// done, if the history between the two is forgotten: then load anew.
    pub fn advance(&mut self, state: Arc<State>, mut touched: impl FnMut(&View, &Touched)) -> bool {
        let from = self.state.revision().next();
        if state.revision() < from {
            return true;
        }
        if state.check_history(from).is_err() {
            return false;
        }
        self.state = state.clone();
        for event in state.events(from) {
            let change = self.tables.apply(event);
            let (old, new) = self.graph.apply(event);
            let doubted = self.graph.learn(event);
            touched(self, &Touched::new(change, Owned { old, new }, doubted));
        }
        self.tables.settle(&state);
        true
    }

    /// The objects of one kind, which some controller declares that it looks at.
    pub(crate) fn table<T: Kind + 'static>(&self) -> Rows<'_, T> {
        self.tables.table()
    }

    /// What is kept about one kind, which some controller declares; nothing if none does.
    pub(crate) fn index<I: Index>(&self) -> Option<&I> {
        self.tables.index()
    }

    /// What is kept of the objects as they are stored, which some controller declares; nothing if none does.
    pub(crate) fn account<A: Account>(&self) -> Option<&A> {
        self.tables.account()
    }

    /// The objects that a group finds by a value, in the order of namespaces and names.
    pub(crate) fn by<'a, G: Group>(
        &'a self,
        value: &str,
    ) -> impl Iterator<Item = &'a Arc<G::Of>> + Clone + use<'a, G> {
        self.index::<By<G>>().map(|index| index.get(value)).into_iter().flatten()
    }

    /// The JSON of an object as it is stored, fields unknown to the typed structs included.
    pub fn json<T: Kind>(&self, object: &T) -> Option<Value> {
        let metadata = object.metadata();
        let key = key(T::GROUP, T::PLURAL, metadata.namespace(), metadata.name());
        let kv = self.state.get(key.as_bytes())?;
        serde_json::from_slice(&kv.value.bytes()).ok()
    }

    /// Whether objects may be made in a namespace: it is there and not being deleted.
    pub fn is_open(&self, namespace: &str) -> bool {
        self.table::<Namespace>().get("", namespace).is_some_and(|n| n.metadata.deletion_timestamp.is_none())
    }
}

/// The reference of an object to its controller.
pub fn controller_of<M: Meta>(metadata: &M) -> Option<&OwnerReference> {
    metadata.owners().iter().find(|owner| owner.controller == Some(true))
}
