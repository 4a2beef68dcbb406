//! How many pods are wanted by the objects that keep them at a number.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{Pod, key};
use serde_json::Value;

use super::Expected;
use crate::kept::{Deployment, ReplicaSet};
use crate::scale;
use crate::view::{View, controller_of};

/// The sum of what the controllers of these pods want, each counted once, and the pods that have none.
///
/// # Errors
/// Why that can't be said of a pod's controller.
pub(super) fn of<'a>(view: &View, pods: &[&'a Pod]) -> Result<Expected<'a>, String> {
    let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut unmanaged = Vec::new();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(owner) = controller_of(&pod.metadata) else {
            unmanaged.push(name);
            continue;
        };
        if known.insert(&owner.uid) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let (uid, count) = deployment(view, namespace, owner)
                .map_or_else(|| any(view, namespace, name, owner), Ok)
                .map_err(|why| format!("{why} (pod {name:?})"))?;
            wanted.insert(uid, count);
        }
    }
    let pods = wanted.values().fold(0, |sum: i32, count| sum.saturating_add(*count));
    Ok(Expected { pods, serving: 0, unmanaged })
}

/// The Deployment behind a ReplicaSet: during a rollout its sets' numbers are on the move, its own is what is wanted.
fn deployment(view: &View, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let is =
        |uid: &Option<String>, reference: &OwnerReference| uid.as_deref() == Some(reference.uid.as_str());
    let set =
        view.table::<ReplicaSet>().get(namespace, &owner.name).filter(|set| is(&set.metadata.uid, owner))?;
    let reference = controller_of(&set.metadata).filter(|reference| reference.kind == "Deployment")?;
    let deployment = view.table::<Deployment>().get(namespace, &reference.name)?;
    let replicas = deployment.spec.as_ref()?.replicas.unwrap_or(1);
    is(&deployment.metadata.uid, reference).then(|| (reference.uid.clone(), replicas))
}

/// Whatever else has a scale.
fn any(view: &View, namespace: &str, pod: &str, owner: &OwnerReference) -> Result<(String, i32), String> {
    let none = || format!("found no controller {} {:?}", owner.kind, owner.name);
    let pod = view.graph.get(key("", "pods", namespace, pod).as_bytes()).ok_or_else(none)?;
    let controller = view.graph.owner(pod, owner).ok_or_else(none)?;
    let object = scale::stored(view, &controller.key).ok_or_else(none)?;
    let scale = scale::of_stored(view, &controller.api_version, &controller.kind, &controller.key, &object);
    let scale =
        scale.ok_or_else(|| format!("{} does not implement the scale subresource", controller.kind))?;
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    Ok((owner.uid.clone(), i32::try_from(replicas).unwrap_or(i32::MAX)))
}
