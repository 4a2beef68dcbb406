//! What controllers and the scheduler read of a pod, and nothing else of it.
//!
//! Every host keeps all pods of the cluster in this form, so its size is what a pod costs a host's memory beside its
//! bytes in the store: a fraction of the API's own struct. Fields have the API's names and forms (core/v1 Pod).

mod resized;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Affinity, ContainerPort, PersistentVolumeClaimVolumeSource, PodResourceClaim, PodResourceClaimStatus,
    PodSchedulingGate, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use self::resized::resized;
use crate::copies::Copies;
use crate::{Annotations, Meta, Metadata, STOPS_WITH_LEASE, shared_text};

/// The annotation that says how much its deletion costs, for a ReplicaSet that has to choose (KEP-2255).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The annotation, and the label, with the index that it completes of its Job (KEP-2214).
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation that says how often its index failed before it (KEP-3850).
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// The annotation that says how often its index failed before it in a way that doesn't count (KEP-3850).
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The finalizer of a claim that has devices (`k8s.io/api/resource/v1`, `Finalizer`).
pub const DEVICES_FINALIZER: &str = "resource.kubernetes.io/delete-protection";

/// The annotation by which a pod says with `off` that it is not to be moved when a host came back.
pub const REBALANCE: &str = "holdfast.dev/rebalance";

/// The conditions that are read.
const CONDITIONS: [&str; 5] = ["Ready", "PodScheduled", "DisruptionTarget", RESIZE_PENDING, STOPS_WITH_LEASE];
/// The condition that its host can't give it what it asks for by now, or ever (KEP-1287).
const RESIZE_PENDING: &str = "PodResizePending";
/// What a condition's status may be.
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];
/// How far a pod may have come.
const PHASES: [&str; 5] = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Stored")]
pub struct Pod {
    /// Its metadata, without what its managers say, and of its annotations only those that are constants here.
    pub metadata: Metadata,
    /// What it asks for; pods of one owner share it.
    pub spec: Option<Arc<PodSpec>>,
    /// What its host says of it.
    pub status: Option<PodStatus>,
    node: Option<Arc<str>>,
    /// What it takes of its node, if that isn't what it asks for.
    taken: Option<Arc<PodSpec>>,
}

impl Pod {
    /// What it takes of its node, as a spec: what it asks for, and while it is resized whatever is the most of that and of what it has there;
    /// what it has, where its node will never give it what it asks for (KEP-1287).
    pub fn taken(&self) -> Option<&Arc<PodSpec>> {
        self.taken.as_ref().or(self.spec.as_ref())
    }

    /// The node that it is placed on.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The claim that was made for one of its claims of devices, by the name that this has in the pod: nothing if it isn't known yet,
    /// and none if none is needed.
    pub fn made_claim(&self, name: &str) -> Option<Option<&str>> {
        let made = &self.status.as_ref()?.resource_claim_statuses;
        made.iter().find(|made| made.name == name).map(|made| made.resource_claim_name.as_deref())
    }

    /// Its condition of a type, among those that are read.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stored {
    #[serde(deserialize_with = "crate::metadata::<_, ReadAnnotations>")]
    metadata: Metadata,
    spec: Option<PodSpec>,
    status: Option<StoredStatus>,
}

impl From<Stored> for Pod {
    fn from(Stored { metadata, mut spec, status }: Stored) -> Self {
        let node = spec.as_mut().and_then(|spec| spec.node_name.take());
        let node = node.filter(|name| !name.is_empty()).map(|name| shared_text(&name));
        let taken =
            spec.as_ref().zip(status.as_ref()).and_then(|(spec, status)| resized(spec, status)).map(Arc::new);
        let spec = spec.map(|spec| shared_spec(spec, &metadata));
        Pod { metadata, spec, status: status.map(PodStatus::from), node, taken }
    }
}

/// One copy of what pods of one owner ask for: replicas differ in name and node, and share the rest.
fn shared_spec(spec: PodSpec, metadata: &Metadata) -> Arc<PodSpec> {
    static SPECS: LazyLock<Copies<PodSpec>> = LazyLock::new(Copies::default);
    match metadata.owners().iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) => SPECS.one(&owner.uid, spec),
        None => SPECS.one((metadata.namespace(), metadata.labels()), spec),
    }
}

/// What a pod asks for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Taken out when a pod is read: it is what replicas differ in.
    node_name: Option<String>,
    /// Who places it.
    pub scheduler_name: Option<String>,
    /// What must be taken away before it is placed (KEP-3521).
    pub scheduling_gates: Option<Vec<PodSchedulingGate>>,
    /// Its priority as a number.
    pub priority: Option<i32>,
    /// Whether it may take others' places (KEP-902): `Never`, or by default where their priority is lower.
    pub preemption_policy: Option<String>,
    /// Its affinities.
    pub affinity: Option<Box<Affinity>>,
    /// Labels that its node must have.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// What taints it bears.
    pub tolerations: Option<Vec<Toleration>>,
    /// How it is spread.
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// Its runtime.
    pub runtime_class_name: Option<String>,
    /// What its runtime takes beside its containers.
    pub overhead: Option<BTreeMap<String, Quantity>>,
    /// What the pod as a whole asks for (KEP-2837).
    pub resources: Option<Resources>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its init containers and sidecars.
    pub init_containers: Option<Vec<Container>>,
    /// Its volumes that are claims; the others are left out.
    #[serde(deserialize_with = "claims")]
    pub volumes: Option<Vec<Volume>>,
    /// Its claims of devices.
    pub resource_claims: Option<Vec<PodResourceClaim>>,
    /// Its name within its subdomain.
    pub hostname: Option<String>,
    /// Its subdomain: a service that names it.
    pub subdomain: Option<String>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: Box<str>,
    /// Its image.
    pub image: Option<Box<str>>,
    /// Its ports.
    pub ports: Option<Vec<ContainerPort>>,
    /// What it asks for.
    pub resources: Option<Resources>,
    /// When it is started again; `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
}

/// What is asked for of a node's resources.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// How much of each.
    pub requests: Option<BTreeMap<String, Quantity>>,
}

/// A volume that is a claim, or makes one.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// The claim.
    pub persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    /// Whether the claim is made with the pod and named after both.
    #[serde(deserialize_with = "is_there")]
    pub ephemeral: bool,
}

/// What a pod's host says of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodStatus {
    /// How far it has come.
    pub phase: Option<&'static str>,
    /// What holds of it, as far as it is read: readiness, placement, whether it is about to be disrupted, and whether it
    /// stops with its host's lease.
    pub conditions: Box<[Condition]>,
    /// The node that room is being made on for it.
    pub nominated_node_name: Option<Arc<str>>,
    /// Its addresses, the first one first.
    pub addresses: Box<[IpAddr]>,
    /// Its containers.
    pub container_statuses: Box<[ContainerStatus]>,
    /// Its init containers and sidecars.
    pub init_container_statuses: Box<[ContainerStatus]>,
    /// The claims of devices that were made for it.
    pub resource_claim_statuses: Box<[PodResourceClaimStatus]>,
}

/// Something that holds of a pod, or doesn't.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What.
    pub type_: &'static str,
    /// Whether it holds: `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Why, in one word.
    pub reason: Option<Arc<str>>,
    /// Why, for people.
    pub message: Option<Arc<str>>,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StoredStatus {
    phase: Option<String>,
    conditions: Option<Vec<StoredCondition>>,
    nominated_node_name: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<StoredAddress>>,
    container_statuses: Option<Vec<StoredContainer>>,
    init_container_statuses: Option<Vec<StoredContainer>>,
    resource_claim_statuses: Option<Box<[PodResourceClaimStatus]>>,
    allocated_resources: Option<BTreeMap<String, Quantity>>,
    resources: Option<Resources>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StoredContainer {
    name: String,
    restart_count: i32,
    #[serde(rename = "state", deserialize_with = "end")]
    ended: Option<Timestamp>,
    allocated_resources: Option<BTreeMap<String, Quantity>>,
    resources: Option<Resources>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StoredCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    last_transition_time: Option<Time>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredAddress {
    ip: String,
}

impl From<StoredStatus> for PodStatus {
    fn from(stored: StoredStatus) -> Self {
        let listed = stored.pod_ips.iter().flatten().filter_map(|address| address.ip.parse().ok());
        let mut addresses: Vec<IpAddr> = listed.collect();
        if addresses.is_empty() {
            addresses.extend(stored.pod_ip.and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        let of = |told: Option<Vec<StoredContainer>>| -> Box<[ContainerStatus]> {
            let told = told.unwrap_or_default().into_iter();
            told.map(|StoredContainer { restart_count, ended, .. }| ContainerStatus { restart_count, ended })
                .collect()
        };
        let nominated = stored.nominated_node_name.filter(|name| !name.is_empty());
        PodStatus {
            phase: stored.phase.and_then(|phase| one_of(&PHASES, &phase)),
            conditions: stored.conditions.into_iter().flatten().filter_map(Condition::read).collect(),
            nominated_node_name: nominated.map(|name| shared_text(&name)),
            addresses: addresses.into(),
            container_statuses: of(stored.container_statuses),
            init_container_statuses: of(stored.init_container_statuses),
            resource_claim_statuses: stored.resource_claim_statuses.unwrap_or_default(),
        }
    }
}

impl Condition {
    fn read(stored: StoredCondition) -> Option<Self> {
        Some(Condition {
            type_: one_of(&CONDITIONS, &stored.kind)?,
            status: one_of(&STATUSES, &stored.status)?,
            reason: stored.reason.filter(|text| !text.is_empty()).map(|text| shared_text(&text)),
            message: stored.message.filter(|text| !text.is_empty()).map(|text| shared_text(&text)),
            last_transition_time: stored.last_transition_time,
        })
    }
}

fn one_of(known: &[&'static str], text: &str) -> Option<&'static str> {
    known.iter().copied().find(|known| *known == text)
}

/// What a pod's host says of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerStatus {
    /// How often it was started again.
    pub restart_count: i32,
    /// When it ended, if it has.
    pub ended: Option<Timestamp>,
}

crate::thin_kind!(Pod, k8s_openapi::api::core::v1::Pod);

#[derive(Default, Deserialize)]
#[serde(default)]
struct ReadAnnotations {
    #[serde(rename = "controller.kubernetes.io/pod-deletion-cost")]
    cost: Option<String>,
    #[serde(rename = "batch.kubernetes.io/job-completion-index")]
    index: Option<String>,
    #[serde(rename = "batch.kubernetes.io/job-index-failure-count")]
    failures: Option<String>,
    #[serde(rename = "batch.kubernetes.io/job-index-ignored-failure-count")]
    ignored: Option<String>,
    #[serde(rename = "holdfast.dev/rebalance")]
    rebalance: Option<String>,
}

impl Annotations for ReadAnnotations {
    fn kept(self) -> Option<BTreeMap<String, String>> {
        let all = [
            (DELETION_COST, self.cost),
            (COMPLETION_INDEX, self.index),
            (INDEX_FAILURES, self.failures),
            (INDEX_IGNORED_FAILURES, self.ignored),
            (REBALANCE, self.rebalance),
        ];
        let kept: BTreeMap<_, _> =
            all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        (!kept.is_empty()).then_some(kept)
    }
}

fn claims<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Volume>>, D::Error> {
    let mut volumes = Option::<Vec<Volume>>::deserialize(from)?.unwrap_or_default();
    volumes.retain(|volume| volume.ephemeral || volume.persistent_volume_claim.is_some());
    volumes.shrink_to_fit();
    Ok((!volumes.is_empty()).then_some(volumes))
}

/// When a container's state says that it ended.
fn end<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    struct State {
        terminated: Option<Terminated>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Terminated {
        finished_at: Option<Time>,
    }
    let state = Option::<State>::deserialize(from)?;
    Ok(state.and_then(|state| Some(state.terminated?.finished_at?.0)))
}

fn is_there<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(from)?.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_keeps_what_is_read_of_it_and_nothing_else() {
        let pod: Pod = serde_json::from_value(json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "name": "web-1", "namespace": "d", "uid": "u", "labels": {"app": "web"},
                "annotations": {DELETION_COST: "7", COMPLETION_INDEX: "2", "other": "x"},
                "managedFields": [{"manager": "m", "operation": "Update"}],
                "creationTimestamp": "2024-01-01T00:00:00Z",
            },
            "spec": {
                "nodeName": "n1",
                "containers": [{
                    "name": "c", "image": "i", "env": [{"name": "A", "value": "b"}],
                    "ports": [{"name": "http", "containerPort": 80}],
                    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
                }],
                "volumes": [
                    {"name": "tmp", "emptyDir": {}},
                    {"name": "data", "persistentVolumeClaim": {"claimName": "c"}},
                    {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                ],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "c", "restartCount": 3,
                    "state": {"terminated": {"exitCode": 1, "finishedAt": "2024-01-01T00:00:09Z"}}}],
            },
        }))
        .unwrap();
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!(
            *annotations,
            BTreeMap::from(
                [(DELETION_COST, "7"), (COMPLETION_INDEX, "2")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            )
        );
        assert_eq!(pod.node.as_deref(), Some("n1"));
        let spec = pod.spec.unwrap();
        let volumes: Vec<_> = spec.volumes.iter().flatten().map(|v| (v.name.as_str(), v.ephemeral)).collect();
        assert_eq!(volumes, [("data", false), ("own", true)]);
        assert_eq!(spec.containers[0].ports.as_ref().unwrap()[0].container_port, 80);
        let requests = spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap();
        assert_eq!(requests["cpu"].0, "1");
        let status = pod.status.unwrap();
        let conditions: Vec<_> = status.conditions.iter().map(|c| (c.type_, c.status)).collect();
        assert_eq!(conditions, [("Ready", "True")]);
        assert_eq!(status.addresses[..], ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let container = &status.container_statuses[0];
        assert_eq!(container.restart_count, 3);
        assert_eq!(container.ended.unwrap().to_string(), "2024-01-01T00:00:09Z");
    }

    #[test]
    fn what_is_null_is_absent() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": null, "annotations": null, "ownerReferences": null},
            "spec": {"volumes": null, "affinity": null, "containers": []},
            "status": null,
        }))
        .unwrap();
        assert_eq!(pod.metadata.labels, None);
        assert_eq!(pod.spec.unwrap().volumes, None);
        assert_eq!(pod.node, None);
        assert_eq!(pod.status, None);
    }

    #[test]
    fn what_a_status_leaves_out_hides_no_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "status": {"podIPs": [{}, {"ip": "10.0.0.1"}], "conditions": [{}, {"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        let status = pod.status.unwrap();
        assert_eq!(status.addresses[..], ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(status.conditions.len(), 1);
    }

    #[test]
    fn replicas_share_what_they_ask_for() {
        let pod = |node: &str, cpu: &str| -> Pod {
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "of-this-test",
                "controller": true});
            let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
            let value = json!({
                "metadata": {"name": node, "ownerReferences": [owner]},
                "spec": {"nodeName": node, "containers": [container]},
            });
            serde_json::from_value(value).unwrap()
        };
        let spec = |pod: &Pod| pod.spec.clone().unwrap();
        let (first, second, other) = (pod("n1", "1"), pod("n2", "1"), pod("n2", "2"));
        assert!(Arc::ptr_eq(&spec(&first), &spec(&second)));
        assert_eq!((first.node(), second.node()), (Some("n1"), Some("n2")));
        assert!(!Arc::ptr_eq(&spec(&first), &spec(&other)));
        assert_ne!(spec(&first), spec(&other));
        assert!(Arc::ptr_eq(&spec(&other), &spec(&pod("n3", "2"))), "the newest is remembered");
    }

    #[test]
    fn a_pod_is_thin() {
        let (thin, whole) = (size_of::<Pod>(), size_of::<k8s_openapi::api::core::v1::Pod>());
        assert!(thin * 4 < whole, "{thin} of {whole} bytes");
    }
}
