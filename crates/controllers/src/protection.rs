//! Volumes and claims that are to be deleted: they go once nobody uses them.
//!
//! Follows `pkg/controller/volume/pvcprotection` and `pvprotection`.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use objects::{Kind, Pod, Reader};
use serde_json::json;

use crate::plan::{Plan, merge_this};
use crate::view::{View, node_name};

const OF_CLAIM: &str = "kubernetes.io/pvc-protection";
const OF_VOLUME: &str = "kubernetes.io/pv-protection";

/// Protects a claim, or lets it go if it is to be deleted and no pod on any node uses it.
pub fn reconcile_claim(view: &View, namespace: &str, name: &str) -> Plan {
    let Some(claim) = Reader::<PersistentVolumeClaim>::get(view.state(), namespace, name) else {
        return Plan::default();
    };
    // A pod without a node is never started once its claim is being deleted.
    let uses = |pod: &Pod| node_name(pod).is_some() && claims(pod).any(|used| used == name);
    let used = || view.pods.in_namespace(namespace).any(|pod| uses(pod));
    keep_or_release(&claim, OF_CLAIM, used)
}

/// Protects a volume, or lets it go if it is to be deleted and bound to no claim.
pub fn reconcile_volume(view: &View, name: &str) -> Plan {
    let Some(volume) = Reader::<PersistentVolume>::get(view.state(), "", name) else {
        return Plan::default();
    };
    let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    keep_or_release(&volume, OF_VOLUME, || bound)
}

/// The names of the claims that a pod uses.
pub fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes.map(move |volume| match &volume.persistent_volume_claim {
        Some(source) => source.claim_name.clone(),
        None => format!("{pod_name}-{}", volume.name),
    })
}

fn keep_or_release<T: Kind>(object: &T, finalizer: &str, used: impl Fn() -> bool) -> Plan {
    let mut plan = Plan::default();
    let metadata = object.metadata();
    let mut finalizers: Vec<&str> = metadata.finalizers.iter().flatten().map(String::as_str).collect();
    let has = finalizers.contains(&finalizer);
    match metadata.deletion_timestamp {
        Some(_) if has && !used() => finalizers.retain(|known| *known != finalizer),
        None if !has => finalizers.push(finalizer),
        _ => return plan,
    }
    plan.write(merge_this(object, "", json!({"metadata": {"finalizers": finalizers}})));
    plan
}
