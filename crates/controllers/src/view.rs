//! Everything the controllers look at, typed and consistent: one revision of the state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use objects::{Change, Kind, Pod, Pool, Table, key};
use pki::Authority;
use serde_json::Value;
use store::{Event, State};

use crate::graph::{self, Graph};

/// One revision of the state, decoded: what every reconciliation reads. It follows the state change by
/// change, so that a change costs the decoding of what changed.
#[derive(Debug)]
pub struct View {
    state: Arc<State>,
    /// Deployments.
    pub deployments: Table<Deployment>,
    /// ReplicaSets.
    pub replica_sets: Table<ReplicaSet>,
    /// Pods.
    pub pods: Table<Pod>,
    /// Services.
    pub services: Table<Service>,
    /// Endpoints.
    pub endpoints: Table<Endpoints>,
    /// EndpointSlices.
    pub slices: Table<EndpointSlice>,
    /// Nodes.
    pub nodes: Table<Node>,
    /// Namespaces.
    pub namespaces: Table<Namespace>,
    /// ServiceAccounts.
    pub service_accounts: Table<ServiceAccount>,
    /// ClusterRoles.
    pub cluster_roles: Table<ClusterRole>,
    /// ResourceQuotas.
    pub quotas: Table<ResourceQuota>,
    /// FlowSchemas.
    pub flow_schemas: Table<FlowSchema>,
    /// PriorityLevelConfigurations.
    pub priority_levels: Table<PriorityLevelConfiguration>,
    /// PodDisruptionBudgets.
    pub budgets: Table<PodDisruptionBudget>,
    /// CertificateSigningRequests.
    pub certificates: Table<CertificateSigningRequest>,
    /// ValidatingAdmissionPolicies.
    pub validating_policies: Table<ValidatingAdmissionPolicy>,
    /// Who owns whom, over all kinds.
    pub graph: Graph,
    root_certificate: Option<Arc<str>>,
    signer: Option<Arc<Authority>>,
    pods_by_owner: Index<Pod>,
    pods_by_node: Index<Pod>,
    replica_sets_by_owner: Index<ReplicaSet>,
}

/// What one change of the state did to the objects that controllers look at.
#[derive(Debug)]
pub enum Touched {
    /// A Deployment.
    Deployment(Change<Deployment>),
    /// A ReplicaSet.
    ReplicaSet(Change<ReplicaSet>),
    /// A Pod.
    Pod(Change<Pod>),
    /// A Service.
    Service(Change<Service>),
    /// An Endpoints object.
    Endpoints(Change<Endpoints>),
    /// An EndpointSlice.
    Slice(Change<EndpointSlice>),
    /// A Node.
    Node(Change<Node>),
    /// A Namespace.
    Namespace(Change<Namespace>),
    /// A ServiceAccount.
    ServiceAccount(Change<ServiceAccount>),
    /// A ClusterRole.
    ClusterRole(Change<ClusterRole>),
    /// A ResourceQuota.
    ResourceQuota(Change<ResourceQuota>),
    /// A FlowSchema.
    FlowSchema(Change<FlowSchema>),
    /// A PriorityLevelConfiguration.
    PriorityLevel(Change<PriorityLevelConfiguration>),
    /// A PodDisruptionBudget.
    Budget(Change<PodDisruptionBudget>),
    /// A CertificateSigningRequest.
    Certificate(Change<CertificateSigningRequest>),
    /// A ValidatingAdmissionPolicy.
    ValidatingPolicy(Change<ValidatingAdmissionPolicy>),
    /// An object of any kind, these among them: its place in the ownership.
    Owned(Option<Arc<graph::Node>>, Option<Arc<graph::Node>>),
    /// What is known of kinds: the keys of objects whose owners may be judged otherwise from now on.
    Kinds(Vec<Bytes>),
}

impl View {
    /// The view of a state, with pods of a pool.
    pub fn load(state: Arc<State>, pods: &Pool<Pod>) -> Self {
        let mut view = View {
            deployments: Table::load(&state),
            replica_sets: Table::load(&state),
            pods: Table::load_shared(&state, pods),
            services: Table::load(&state),
            endpoints: Table::load(&state),
            slices: Table::load(&state),
            nodes: Table::load(&state),
            namespaces: Table::load(&state),
            service_accounts: Table::load(&state),
            cluster_roles: Table::load(&state),
            quotas: Table::load(&state),
            flow_schemas: Table::load(&state),
            priority_levels: Table::load(&state),
            budgets: Table::load(&state),
            certificates: Table::load(&state),
            validating_policies: Table::load(&state),
            graph: Graph::load(&state),
            root_certificate: None,
            signer: None,
            pods_by_owner: Index::new(owner_uid),
            pods_by_node: Index::new(|pod: &Pod| node_name(pod).map(str::to_owned)),
            replica_sets_by_owner: Index::new(owner_uid),
            state,
        };
        for pod in view.pods.iter() {
            view.pods_by_owner.insert(pod);
            view.pods_by_node.insert(pod);
        }
        for set in view.replica_sets.iter() {
            view.replica_sets_by_owner.insert(set);
        }
        view
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

    /// The state that this is a view of.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Moves on to a newer state; `touched` gets everything that changed. Returns false, with nothing
    /// done, if the history between the two is forgotten: then load anew.
    pub fn advance(&mut self, state: Arc<State>, mut touched: impl FnMut(&View, Touched)) -> bool {
        let from = self.state.revision() + 1;
        if state.revision() < from {
            return true;
        }
        if state.check_history(from).is_err() {
            return false;
        }
        self.state = state.clone();
        for event in state.events(from) {
            if let Some(change) = self.apply(event) {
                touched(self, change);
            }
            let (old, new) = self.graph.apply(event);
            touched(self, Touched::Owned(old, new));
            if let Some(doubted) = self.graph.learn(event) {
                touched(self, Touched::Kinds(doubted));
            }
        }
        true
    }

    fn apply(&mut self, event: &Event) -> Option<Touched> {
        if let Some(change) = self.pods.apply(event) {
            self.pods_by_owner.apply(&change);
            self.pods_by_node.apply(&change);
            return Some(Touched::Pod(change));
        }
        if let Some(change) = self.replica_sets.apply(event) {
            self.replica_sets_by_owner.apply(&change);
            return Some(Touched::ReplicaSet(change));
        }
        None.or_else(|| self.deployments.apply(event).map(Touched::Deployment))
            .or_else(|| self.services.apply(event).map(Touched::Service))
            .or_else(|| self.endpoints.apply(event).map(Touched::Endpoints))
            .or_else(|| self.slices.apply(event).map(Touched::Slice))
            .or_else(|| self.nodes.apply(event).map(Touched::Node))
            .or_else(|| self.namespaces.apply(event).map(Touched::Namespace))
            .or_else(|| self.service_accounts.apply(event).map(Touched::ServiceAccount))
            .or_else(|| self.cluster_roles.apply(event).map(Touched::ClusterRole))
            .or_else(|| self.quotas.apply(event).map(Touched::ResourceQuota))
            .or_else(|| self.flow_schemas.apply(event).map(Touched::FlowSchema))
            .or_else(|| self.priority_levels.apply(event).map(Touched::PriorityLevel))
            .or_else(|| self.budgets.apply(event).map(Touched::Budget))
            .or_else(|| self.certificates.apply(event).map(Touched::Certificate))
            .or_else(|| self.validating_policies.apply(event).map(Touched::ValidatingPolicy))
    }

    /// The pods whose controller has this uid.
    pub fn pods_of(&self, uid: &str) -> impl Iterator<Item = &Arc<Pod>> + Clone {
        self.pods_by_owner.get(uid)
    }

    /// The pods placed on a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods_by_node.get(node)
    }

    /// The names of all nodes that some pod is placed on.
    pub fn used_nodes(&self) -> impl Iterator<Item = &str> {
        self.pods_by_node.entries.keys().map(String::as_str)
    }

    /// The ReplicaSets whose controller has this uid.
    pub fn replica_sets_of(&self, uid: &str) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.replica_sets_by_owner.get(uid)
    }

    /// The JSON of an object as it is stored, fields unknown to the typed structs included.
    pub fn json<T: Kind>(&self, object: &T) -> Option<Value> {
        let metadata = object.metadata();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        let kv = self.state.get(key(T::GROUP, T::PLURAL, namespace, name).as_bytes())?;
        serde_json::from_slice(&kv.value).ok()
    }

    /// Whether objects may be made in a namespace: it is there and not being deleted.
    pub fn is_open(&self, namespace: &str) -> bool {
        self.namespaces.get("", namespace).is_some_and(|n| n.metadata.deletion_timestamp.is_none())
    }
}

/// The reference of an object to its controller.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn owner_uid<T: Kind>(object: &T) -> Option<String> {
    controller_of(object.metadata()).map(|owner| owner.uid.clone())
}

/// The node that a pod is placed on.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

#[derive(Debug)]
struct Index<T> {
    of: fn(&T) -> Option<String>,
    entries: HashMap<String, BTreeMap<(String, String), Arc<T>>>,
}

impl<T: Kind> Index<T> {
    fn new(of: fn(&T) -> Option<String>) -> Self {
        Index { of, entries: HashMap::new() }
    }

    fn get(&self, value: &str) -> impl Iterator<Item = &Arc<T>> + Clone {
        self.entries.get(value).into_iter().flat_map(BTreeMap::values)
    }

    fn apply(&mut self, change: &Change<T>) {
        if let Some(old) = &change.old {
            self.remove(old);
        }
        if let Some(new) = &change.new {
            self.insert(new);
        }
    }

    fn insert(&mut self, object: &Arc<T>) {
        if let Some(value) = (self.of)(object) {
            self.entries.entry(value).or_default().insert(place(object.as_ref()), object.clone());
        }
    }

    fn remove(&mut self, object: &Arc<T>) {
        let Some(value) = (self.of)(object) else { return };
        if let Some(entries) = self.entries.get_mut(&value) {
            entries.remove(&place(object.as_ref()));
            if entries.is_empty() {
                self.entries.remove(&value);
            }
        }
    }
}

fn place<T: Kind>(object: &T) -> (String, String) {
    let metadata = object.metadata();
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
