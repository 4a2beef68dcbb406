//! What can be reconciled, and what a change of the state makes worth reconciling.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::{Change, Pod, selects};

use crate::endpoints::SERVICE_NAME;
use crate::graph;
use crate::plan::Plan;
use crate::pods;
use crate::view::{Touched, View, controller_of, node_name};
use crate::{
    account_token, api_service, certificate, cluster_role, deployment, disruption, endpoints, expiry,
    flow_schema, garbage, missing_node, namespace, node, protection, replica_set, resource_quota,
    validating_policy,
};

/// Hosts that are silent, each with the time when it was last heard.
pub type Silence = BTreeMap<String, Instant>;

/// One thing to reconcile. The order is the order of urgency: what brings a service back comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A node, by name.
    Node(String),
    /// A service's endpoints, by namespace and name.
    Service(String, String),
    /// What a service that was deleted leaves behind.
    ServiceGone(String, String),
    /// A ReplicaSet.
    ReplicaSet(String, String),
    /// A Deployment.
    Deployment(String, String),
    /// A PodDisruptionBudget.
    DisruptionBudget(String, String),
    /// The endpoints of the API's own service.
    ApiService,
    /// A namespace, by name.
    Namespace(String),
    /// Why a namespace that is being deleted is still there.
    NamespaceEnd(String),
    /// The token Secrets of a ServiceAccount that went.
    AccountTokens(String, String),
    /// The use of a PersistentVolumeClaim.
    Claim(String, String),
    /// The use of a PersistentVolume, by name.
    Volume(String),
    /// What is used of a ResourceQuota.
    ResourceQuota(String, String),
    /// A ClusterRole, by name.
    ClusterRole(String),
    /// A FlowSchema, by name.
    FlowSchema(String),
    /// A CertificateSigningRequest, by name.
    Certificate(String),
    /// A pod that is said to be about to be disrupted.
    Disrupted(String, String),
    /// A ValidatingAdmissionPolicy, by name.
    ValidatingPolicy(String),
    /// The ownership of the object at a key of the store.
    Garbage(Bytes),
    /// The pods of a node that does not exist.
    MissingNode(String),
    /// Old Events.
    Expiry,
}

/// What time it is, for those who time things by the clock on the wall and for those who measure.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The clock on the wall.
    pub wall: Timestamp,
    /// The clock that only moves on.
    pub instant: Instant,
}

impl Key {
    /// Decides what to do about this key.
    pub fn reconcile(&self, view: &View, silence: &Silence, now: Now) -> Plan {
        match self {
            Key::Node(name) => {
                let silent_for = silence.get(name).map(|since| now.instant.saturating_duration_since(*since));
                node::reconcile(view, name, silent_for, now.wall)
            }
            Key::Service(namespace, name) => endpoints::reconcile(view, namespace, name),
            Key::ServiceGone(namespace, name) => endpoints::clean_up(view, namespace, name),
            Key::ReplicaSet(namespace, name) => replica_set::reconcile(view, namespace, name, now.wall),
            Key::Deployment(namespace, name) => deployment::reconcile(view, namespace, name, now.wall),
            Key::DisruptionBudget(namespace, name) => disruption::reconcile(view, namespace, name, now.wall),
            Key::Disrupted(namespace, name) => disruption::reconcile_pod(view, namespace, name, now.wall),
            Key::Certificate(name) => certificate::reconcile(view, name, now.wall),
            Key::ApiService => api_service::reconcile(view),
            Key::Namespace(name) => namespace::reconcile(view, name, now.wall),
            Key::NamespaceEnd(name) => namespace::report(view, name, now.wall),
            Key::ClusterRole(name) => cluster_role::reconcile(view, name),
            Key::FlowSchema(name) => flow_schema::reconcile(view, name, now.wall),
            Key::ValidatingPolicy(name) => validating_policy::reconcile(view, name),
            Key::AccountTokens(namespace, name) => account_token::reconcile(view, namespace, name),
            Key::Claim(namespace, name) => protection::reconcile_claim(view, namespace, name),
            Key::Volume(name) => protection::reconcile_volume(view, name),
            Key::ResourceQuota(namespace, name) => resource_quota::reconcile(view, namespace, name, now.wall),
            Key::Garbage(key) => garbage::reconcile(view, key),
            Key::MissingNode(name) => missing_node::reconcile(view, name),
            Key::Expiry => expiry::reconcile(view, now.wall),
        }
    }

    /// The controller's name in Events.
    pub fn component(&self) -> &'static str {
        match self {
            Key::Node(_) => "node-controller",
            Key::Service(..) | Key::ServiceGone(..) | Key::ApiService => "endpoint-slice-controller",
            Key::ReplicaSet(..) => "replicaset-controller",
            Key::Deployment(..) => "deployment-controller",
            Key::DisruptionBudget(..) | Key::Disrupted(..) => "controllermanager",
            Key::Certificate(_) => "certificate-controller",
            Key::Namespace(_) | Key::NamespaceEnd(_) => "namespace-controller",
            Key::AccountTokens(..) => "serviceaccount-token-controller",
            Key::Claim(..) => "pvc-protection-controller",
            Key::Volume(_) => "pv-protection-controller",
            Key::ResourceQuota(..) => "resourcequota-controller",
            Key::ClusterRole(_) => "clusterrole-aggregation-controller",
            Key::FlowSchema(_) => "api-priority-and-fairness-config-consumer-v1",
            Key::ValidatingPolicy(_) => "validatingadmissionpolicy-status-controller",
            Key::Garbage(_) => "garbage-collector-controller",
            Key::MissingNode(_) | Key::Expiry => "garbage-collector",
        }
    }

    /// Everything there is to reconcile in a view.
    pub fn all(view: &View, mut each: impl FnMut(Key, Duration)) {
        let now = Duration::ZERO;
        view.nodes.iter().for_each(|node| each(Key::Node(named(node.as_ref())), now));
        view.services.iter().for_each(|o| each(of(o.as_ref(), Key::Service), now));
        view.replica_sets.iter().for_each(|o| each(of(o.as_ref(), Key::ReplicaSet), now));
        view.deployments.iter().for_each(|o| each(of(o.as_ref(), Key::Deployment), now));
        view.budgets.iter().for_each(|o| each(of(o.as_ref(), Key::DisruptionBudget), now));
        view.certificates.iter().for_each(|request| each(Key::Certificate(named(request.as_ref())), now));
        for pod in view.pods.iter().filter(|pod| disruption::is_to_go(pod)) {
            each(of(pod.as_ref(), Key::Disrupted), now);
        }
        view.namespaces.iter().for_each(|namespace| each(Key::Namespace(named(namespace.as_ref())), now));
        closing(view, &mut each);
        for role in view.cluster_roles.iter().filter(|role| role.aggregation_rule.is_some()) {
            each(Key::ClusterRole(named(role.as_ref())), now);
        }
        view.flow_schemas.iter().for_each(|schema| each(Key::FlowSchema(named(schema.as_ref())), now));
        let policies = view.validating_policies.iter();
        policies.for_each(|policy| each(Key::ValidatingPolicy(named(policy.as_ref())), now));
        for node in view.graph.iter().filter(|node| node.deleting || !node.owners.is_empty()) {
            each(Key::Garbage(node.key.clone()), now);
        }
        view.quotas.iter().for_each(|o| each(of(o.as_ref(), Key::ResourceQuota), now));
        view.graph.iter().filter_map(|node| protected(node)).for_each(|key| each(key, now));
        // Slices and Endpoints whose service went while nobody looked.
        view.slices.iter().filter_map(|slice| service_of(slice)).for_each(|key| each(key, now));
        view.endpoints.iter().for_each(|endpoints| each(of(endpoints.as_ref(), Key::Service), now));
        for name in view.used_nodes().filter(|name| view.nodes.get("", name).is_none()) {
            each(Key::MissingNode(name.to_owned()), missing_node::QUARANTINE);
        }
        each(Key::ApiService, now);
        each(Key::Expiry, now);
    }

    /// What a change makes worth reconciling, and after which time.
    pub fn touched(view: &View, change: &Touched, mut each: impl FnMut(Key, Duration)) {
        let now = Duration::ZERO;
        match change {
            Touched::Pod(change) => pod(view, change, &mut each),
            Touched::ReplicaSet(change) => replica_set(view, change, &mut each),
            Touched::Deployment(Change { old, new, .. }) => {
                latest(old, new).for_each(|d| each(of(d, Key::Deployment), now));
            }
            Touched::Service(change) => service(change, &mut each),
            Touched::Endpoints(change) => {
                let list: Option<&Endpoints> = latest(&change.old, &change.new).next();
                list.into_iter().for_each(|endpoints| each(of(endpoints, Key::Service), now));
                if list.is_some_and(|endpoints| is_api_service(&endpoints.metadata)) {
                    each(Key::ApiService, now);
                }
            }
            Touched::Slice(change) => {
                let slice = latest(&change.old, &change.new).next();
                slice.and_then(service_of).into_iter().for_each(|key| each(key, now));
                if slice.is_some_and(|slice: &EndpointSlice| is_api_service(&slice.metadata)) {
                    each(Key::ApiService, now);
                }
            }
            Touched::Node(change) => {
                let node: Option<&Node> = latest(&change.old, &change.new).next();
                node.into_iter().for_each(|node| each(Key::Node(named(node)), now));
                each(Key::ApiService, now);
                if change.new.is_none() {
                    node.into_iter()
                        .for_each(|node| each(Key::MissingNode(named(node)), missing_node::QUARANTINE));
                }
            }
            Touched::Namespace(Change { old, new, .. }) => {
                for namespace in latest(old, new) {
                    let namespace: &Namespace = namespace;
                    each(Key::Namespace(named(namespace)), now);
                    if namespace.metadata.deletion_timestamp.is_some() {
                        each(Key::NamespaceEnd(named(namespace)), namespace::PAUSE);
                    }
                }
            }
            Touched::ServiceAccount(Change { old, new, .. }) => {
                for account in latest(old, new) {
                    each(Key::Namespace(account.metadata.namespace.clone().unwrap_or_default()), now);
                }
                let uid = |account: &Option<Arc<ServiceAccount>>| account.as_ref()?.metadata.uid.clone();
                if let Some(old) = old.as_ref().filter(|_| uid(old) != uid(new)) {
                    each(of(old.as_ref(), Key::AccountTokens), now);
                }
            }
            Touched::ClusterRole(Change { old, new, .. }) => {
                for role in [old, new].into_iter().flatten() {
                    let made = |other: &ClusterRole| cluster_role::is_made_of(other, role);
                    let whole = view.cluster_roles.iter().filter(|other| made(other));
                    whole.for_each(|whole| each(Key::ClusterRole(named(whole.as_ref())), now));
                    each(Key::ClusterRole(named(role.as_ref())), now);
                }
            }
            Touched::ResourceQuota(change) => {
                if resource_quota::is_news(change) {
                    latest(&change.old, &change.new)
                        .for_each(|q: &ResourceQuota| each(of(q, Key::ResourceQuota), now));
                }
            }
            Touched::Budget(Change { old, new, .. }) => {
                latest(old, new).for_each(|b: &PodDisruptionBudget| each(of(b, Key::DisruptionBudget), now));
            }
            Touched::Certificate(Change { old, new, .. }) => {
                latest(old, new)
                    .for_each(|r: &CertificateSigningRequest| each(Key::Certificate(named(r)), now));
            }
            Touched::FlowSchema(Change { old, new, .. }) => {
                latest(old, new).for_each(|s: &FlowSchema| each(Key::FlowSchema(named(s)), now));
            }
            Touched::PriorityLevel(Change { old, new, .. }) if old.is_some() != new.is_some() => {
                let of_level = |schema: &FlowSchema| {
                    let level = latest(old, new).next();
                    level.is_some_and(|level: &PriorityLevelConfiguration| flow_schema::is_of(schema, level))
                };
                let schemas = view.flow_schemas.iter().filter(|schema| of_level(schema));
                schemas.for_each(|schema| each(Key::FlowSchema(named(schema.as_ref())), now));
            }
            Touched::PriorityLevel(_) => {}
            Touched::ValidatingPolicy(Change { new, .. }) => {
                new.iter().for_each(|policy| each(Key::ValidatingPolicy(named(policy.as_ref())), now));
            }
            Touched::Kinds(doubted) => {
                doubted.iter().for_each(|object| each(Key::Garbage(object.clone()), now));
                closing(view, &mut each);
            }
            Touched::Owned(old, new) => owned(view, old.as_deref(), new.as_deref(), &mut each),
        }
    }
}

fn pod(view: &View, Change { old, new, .. }: &Change<Pod>, each: &mut impl FnMut(Key, Duration)) {
    let now = Duration::ZERO;
    let is_active = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| pods::is_active(pod));
    for pod in [old, new].into_iter().flatten() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.as_ref();
        for service in view.services.in_namespace(namespace).filter(|s| endpoints::selects(s, labels)) {
            each(of(service.as_ref(), Key::Service), now);
        }
        for budget in view.budgets.in_namespace(namespace).filter(|b| disruption::covers(b, labels)) {
            each(of(budget.as_ref(), Key::DisruptionBudget), now);
        }
        match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == "ReplicaSet" => {
                each(Key::ReplicaSet(namespace.to_owned(), owner.name.clone()), now);
                // A deployment counts pods: those that make room, and with the strategy Recreate their end.
                if (new.is_none() || is_active(old) != is_active(new))
                    && let Some(set) = view.replica_sets.get(namespace, &owner.name)
                    && let Some(deployment) = controller_of(&set.metadata)
                {
                    each(Key::Deployment(namespace.to_owned(), deployment.name.clone()), now);
                }
            }
            Some(_) => {}
            None => {
                let sets = view.replica_sets.in_namespace(namespace);
                let means =
                    |set: &ReplicaSet| set.spec.as_ref().is_some_and(|spec| selects(&spec.selector, labels));
                sets.filter(|set| means(set)).for_each(|set| each(of(set.as_ref(), Key::ReplicaSet), now));
            }
        }
    }
    if let (Some(old), Some(new)) = (old, new)
        && pods::is_finished(new)
        && !pods::is_finished(old)
    {
        recount(view, new.metadata.namespace.as_deref().unwrap_or_default(), each);
    }
    if let Some(new) = new.as_ref().filter(|new| disruption::is_to_go(new)) {
        each(of(new.as_ref(), Key::Disrupted), now);
    }
    if let (Some(pod), None) = (old, new) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        protection::claims(pod).for_each(|claim| each(Key::Claim(namespace.clone(), claim), now));
    }
    if let Some(name) = new.as_ref().and_then(|pod| node_name(pod)) {
        match view.nodes.get("", name) {
            // A pod may be placed on, or say Ready from, a host that is silent.
            Some(node) if node.spec.as_ref().is_some_and(|s| s.taints.iter().flatten().next().is_some()) => {
                each(Key::Node(name.to_owned()), now);
            }
            Some(_) => {}
            None => each(Key::MissingNode(name.to_owned()), missing_node::QUARANTINE),
        }
    }
}

fn replica_set(
    view: &View,
    Change { old, new, .. }: &Change<ReplicaSet>,
    each: &mut impl FnMut(Key, Duration),
) {
    let now = Duration::ZERO;
    for set in [old, new].into_iter().flatten() {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        each(of(set.as_ref(), Key::ReplicaSet), now);
        match controller_of(&set.metadata) {
            Some(owner) => each(Key::Deployment(namespace.to_owned(), owner.name.clone()), now),
            None => {
                let labels = set.metadata.labels.as_ref();
                for deployment in view.deployments.in_namespace(namespace).filter(|deployment| {
                    deployment.spec.as_ref().is_some_and(|spec| selects(&spec.selector, labels))
                }) {
                    each(of(deployment.as_ref(), Key::Deployment), now);
                }
            }
        }
    }
}

fn service(Change { old, new, .. }: &Change<Service>, each: &mut impl FnMut(Key, Duration)) {
    if let Some(service) = latest(old, new).next() {
        each(of(service, Key::Service), Duration::ZERO);
        if new.is_none() {
            each(of(service, Key::ServiceGone), Duration::ZERO);
        }
        if is_api_service(&service.metadata) {
            each(Key::ApiService, Duration::ZERO);
        }
    }
}

fn owned(
    view: &View,
    old: Option<&graph::Node>,
    new: Option<&graph::Node>,
    each: &mut impl FnMut(Key, Duration),
) {
    let now = Duration::ZERO;
    let ends = |node: &graph::Node| (node.deleting, node.finalizers.clone());
    let same_end = match (old, new) {
        (Some(old), Some(new)) => ends(old) == ends(new) && old.uid == new.uid,
        (None, Some(new)) => !new.deleting,
        _ => false,
    };
    // What is gone, and what may be less, is free again.
    let shrinks = |node: &graph::Node| matches!(node.kind.as_str(), "Service" | "PersistentVolumeClaim");
    if let Some(old) = old.filter(|old| new.is_none() || shrinks(old)) {
        recount(view, &old.namespace, each);
    }
    new.or(old).into_iter().for_each(|node| scaled(view, node, each));
    new.and_then(protected).into_iter().for_each(|key| each(key, now));
    for node in [old, new].into_iter().flatten() {
        // Somebody may have taken it away, or changed it.
        if node.kind == "ConfigMap" && node.name == namespace::ROOT_CERTIFICATE {
            each(Key::Namespace(node.namespace.clone()), now);
        }
    }
    let same_owners = old.map(|node| &node.owners) == new.map(|node| &node.owners);
    if let Some(new) = new.filter(|new| !new.owners.is_empty() || new.deleting)
        && (!same_owners || !same_end)
    {
        each(Key::Garbage(new.key.clone()), now);
    }
    if same_end && same_owners {
        return;
    }
    for node in [old, new].into_iter().flatten() {
        // Those who hang on it, and those who wait for it.
        if !same_end && !node.uid.is_empty() {
            for dependent in view.graph.dependents(&node.uid) {
                each(Key::Garbage(dependent.key.clone()), now);
            }
        }
        for reference in &node.owners {
            if let Some(owner) = view.graph.owner(node, reference).filter(|owner| owner.deleting) {
                each(Key::Garbage(owner.key.clone()), now);
            }
        }
        if !node.namespace.is_empty() && !view.is_open(&node.namespace) {
            each(Key::Namespace(node.namespace.clone()), now);
            each(Key::NamespaceEnd(node.namespace.clone()), namespace::PAUSE);
        }
    }
}

/// The namespaces that are being deleted.
fn closing(view: &View, each: &mut impl FnMut(Key, Duration)) {
    for namespace in view.namespaces.iter().filter(|n| n.metadata.deletion_timestamp.is_some()) {
        each(Key::Namespace(named(namespace.as_ref())), Duration::ZERO);
        each(Key::NamespaceEnd(named(namespace.as_ref())), namespace::PAUSE);
    }
}

/// The budgets that cover the pods of something whose number of pods may have changed.
fn scaled(view: &View, owner: &graph::Node, each: &mut impl FnMut(Key, Duration)) {
    let mut budgets = view.budgets.in_namespace(&owner.namespace).peekable();
    if owner.namespace.is_empty() || budgets.peek().is_none() {
        return;
    }
    // The pods of one template have the same labels.
    let sets = view.replica_sets_of(&owner.uid).filter_map(|set| set.metadata.uid.as_deref());
    let owners = sets.chain([owner.uid.as_str()]);
    let pods: Vec<_> = owners.filter_map(|uid| view.pods_of(uid).next()).collect();
    for budget in budgets.filter(|b| pods.iter().any(|p| disruption::covers(b, p.metadata.labels.as_ref()))) {
        each(of(budget.as_ref(), Key::DisruptionBudget), Duration::ZERO);
    }
}

/// Counts the quotas of a namespace anew, soon.
fn recount(view: &View, namespace: &str, each: &mut impl FnMut(Key, Duration)) {
    if !namespace.is_empty() {
        let quotas = view.quotas.in_namespace(namespace);
        quotas.for_each(|quota| each(of(quota.as_ref(), Key::ResourceQuota), resource_quota::PAUSE));
    }
}

/// The use of what is not deleted while it is used.
fn protected(node: &graph::Node) -> Option<Key> {
    match node.kind.as_str() {
        "PersistentVolumeClaim" => Some(Key::Claim(node.namespace.clone(), node.name.clone())),
        "PersistentVolume" => Some(Key::Volume(node.name.clone())),
        _ => None,
    }
}

fn latest<'a, T>(old: &'a Option<Arc<T>>, new: &'a Option<Arc<T>>) -> impl Iterator<Item = &'a T> {
    new.as_deref().or(old.as_deref()).into_iter()
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::Service(slice.metadata.namespace.clone()?, name.clone()))
}

fn is_api_service(metadata: &ObjectMeta) -> bool {
    metadata.namespace.as_deref() == Some(api_service::NAMESPACE)
        && metadata.name.as_deref() == Some(api_service::NAME)
}

fn named<T: Metadata<Ty = ObjectMeta>>(object: &T) -> String {
    object.metadata().name.clone().unwrap_or_default()
}

fn of<T: Metadata<Ty = ObjectMeta>>(object: &T, key: fn(String, String) -> Key) -> Key {
    key(object.metadata().namespace.clone().unwrap_or_default(), named(object))
}
