//! Between a pod's place and its bind: its claims get their volumes there.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::Resource;
use machinery::Status;
use objects::{
    BIND_COMPLETED, Kind, Meta, PersistentVolume, PersistentVolumeClaim, Pod, Reader, SELECTED_NODE, Write,
    Writer,
};
use store::{KeyRange, State, Store};

use crate::cluster::{is_leaving, key};
use crate::driver::USER;
use crate::node::Node;
use crate::storage::{claims, is_in, place_of};

/// How long volumes may take to be made (`BindTimeoutSeconds` of upstream's `VolumeBindingArgs`). Until then the pod's room is kept.
const PATIENCE: Duration = Duration::from_secs(600);

/// The names of the claims that say for which node their volume is to be made.
pub(crate) type Asked = BTreeSet<String>;

/// Writes what gives a pod its volumes on a node.
///
/// # Errors
/// If something can't be written.
pub(crate) async fn ask(writer: &dyn Writer, writes: Vec<Write>) -> Result<Asked, Status> {
    let mut asked = Asked::new();
    for write in writes {
        if let Write::Merge { subject, .. } = &write
            && subject.kind == PersistentVolumeClaim::KIND
        {
            asked.insert(subject.name.clone());
        }
        writer.write(USER, write).await?;
    }
    Ok(asked)
}

/// Waits until a pod's claims have their volumes on a node.
///
/// # Errors
/// If a claim's volume isn't there or can't be made there, if the pod goes, or if it takes too long: then a place is looked for
/// again.
pub(crate) async fn wait(store: &dyn Store, pod: &Pod, node: &str, asked: Asked) -> Result<(), Status> {
    match tokio::time::timeout(PATIENCE, follow(store, pod, node, asked)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::unavailable("the pod's volumes were not made in time")),
    }
}

async fn follow(store: &dyn Store, pod: &Pod, node: &str, mut asked: Asked) -> Result<(), Status> {
    let (group, plural) = (PersistentVolumeClaim::GROUP, PersistentVolumeClaim::PLURAL);
    let near = objects::namespace_prefix(group, plural, pod.metadata.namespace());
    let ended = |error: store::Error| Status::unavailable(format!("claims are no longer followed: {error}"));
    let mut state = store.snapshot();
    let from = state.revision().next();
    let mut claims_near = store.watch(KeyRange::prefix(near), from).map_err(ended)?;
    let mut own = store.watch(KeyRange::key(key(pod)), from).map_err(ended)?;
    let key_of = |name: &str| Bytes::from(objects::key(group, plural, pod.metadata.namespace(), name));
    let mut matter: BTreeSet<Bytes> = claims(pod).map(|wanted| key_of(&wanted.name)).collect();
    matter.insert(key(pod));
    loop {
        if !is_there(&state, pod) {
            return Err(Status::unavailable("the pod is gone"));
        }
        if all_have_volumes(&state, pod, node, &mut asked)? {
            return Ok(());
        }
        // Others' claims are passed over: thousands of pods may wait here, each for its own.
        state = loop {
            let (events, newer) = tokio::select! {
                changes = claims_near.changes() => changes,
                changes = own.changes() => changes,
            }
            .map_err(ended)?;
            if events.iter().any(|event| matter.contains(event.key())) {
                break newer;
            }
        };
    }
}

/// Whether a pod is still there, and to stay.
pub(crate) fn is_there(state: &State, pod: &Pod) -> bool {
    let now = Reader::<Pod>::get(state, pod.metadata.namespace(), pod.metadata.name());
    now.is_some_and(|now| now.metadata.uid == pod.metadata.uid && !is_leaving(&now))
}

/// Whether all of a pod's claims have their volumes on a node. An error if one of them has it somewhere else, or is to. `asked` are
/// the claims for which a volume is being made there; those are added of which it turns out.
fn all_have_volumes(state: &State, pod: &Pod, node: &str, asked: &mut Asked) -> Result<bool, Status> {
    let mut all = true;
    for wanted in claims(pod) {
        let name = &wanted.name;
        let claim = Reader::<PersistentVolumeClaim>::get(state, pod.metadata.namespace(), name);
        let claim = claim.ok_or_else(|| Status::unavailable(format!("claim {name:?} is gone")))?;
        if claim.annotation(BIND_COMPLETED).is_some() {
            if !has_volume_on(state, &claim, node) {
                let why = format!("the volume of claim {name:?} is not on node {node:?}");
                return Err(Status::unavailable(why));
            }
            continue;
        }
        all = false;
        // What makes it could not make it there and took that back, or says another node (upstream: "provisioning failed for PVC").
        match claim.annotation(SELECTED_NODE) {
            Some(selected) if selected == node => drop(asked.insert(name.clone())),
            None if !asked.contains(name) => {}
            _ => {
                let why = format!("the volume of claim {name:?} is not made for node {node:?}");
                return Err(Status::unavailable(why));
            }
        }
    }
    Ok(all)
}

/// Whether the volume of a claim can be used on a node (`checkBindings` upstream). The controller that bound the claim may have taken one of which
/// the pod's place knows nothing.
fn has_volume_on(state: &State, claim: &PersistentVolumeClaim, node: &str) -> bool {
    let volume = claim.volume_name().and_then(|name| Reader::<PersistentVolume>::get(state, "", name));
    let node = Reader::<Node>::get(state, "", node);
    volume.zip(node).is_some_and(|(volume, node)| is_in(&node, place_of(&volume).as_deref()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::{Memory, Txn};

    use super::*;

    /// A pod with a claim; a claim with annotations, bound to a volume that is on `n1`.
    async fn state(claim: Value, bound: bool) -> std::sync::Arc<State> {
        let store = Memory::default();
        let on_n1 = json!({"nodeSelectorTerms": [{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
        let node = |name: &str| json!({"metadata": {"name": name}});
        for (plural, namespace, name, object) in [
            ("nodes", "", "n1", node("n1")),
            ("nodes", "", "n2", node("n2")),
            (
                "persistentvolumes",
                "",
                "v",
                json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": on_n1}}}),
            ),
            (
                "persistentvolumeclaims",
                "d",
                "c",
                json!({"metadata": {"name": "c", "namespace": "d", "annotations": claim},
                    "spec": {"volumeName": if bound { "v" } else { "" }}}),
            ),
        ] {
            let key = objects::key("", plural, namespace, name);
            store.txn(Txn::put(key, object.to_string())).await.unwrap();
        }
        store.snapshot()
    }

    fn pod(more: Value) -> Pod {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        let mut pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"},
            "spec": {"containers": [], "volumes": volumes}});
        pod["metadata"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    #[tokio::test]
    async fn a_pod_waits_for_its_volume_until_it_is_there_or_will_not_be() {
        let (asked, not_asked) = (Asked::from(["c".to_owned()]), Asked::new());
        for (annotations, bound, asked, node, expected) in [
            (json!({SELECTED_NODE: "n1"}), false, &asked, "n1", Some(false)),
            (json!({SELECTED_NODE: "n1"}), false, &not_asked, "n1", Some(false)),
            (json!({SELECTED_NODE: "n2"}), false, &asked, "n1", None),
            // Taken back: it could not be made there.
            (json!({}), false, &asked, "n1", None),
            // A volume that is there was promised to it.
            (json!({}), false, &not_asked, "n1", Some(false)),
            (json!({BIND_COMPLETED: "yes"}), true, &asked, "n1", Some(true)),
            // Somebody bound it to one elsewhere.
            (json!({BIND_COMPLETED: "yes"}), true, &asked, "n2", None),
        ] {
            let state = state(annotations.clone(), bound).await;
            let mut asked = asked.clone();
            let outcome = all_have_volumes(&state, &pod(json!({})), node, &mut asked);
            assert_eq!(outcome.ok(), expected, "{annotations} {asked:?} {node}");
        }
    }

    #[tokio::test]
    async fn what_was_being_made_is_remembered() {
        let mut asked = Asked::new();
        let begun = state(json!({SELECTED_NODE: "n1"}), false).await;
        assert!(all_have_volumes(&begun, &pod(json!({})), "n1", &mut asked).is_ok());
        let taken_back = state(json!({}), false).await;
        assert!(all_have_volumes(&taken_back, &pod(json!({})), "n1", &mut asked).is_err());
    }

    #[tokio::test]
    async fn a_pod_that_goes_waits_no_more() {
        let store = Memory::default();
        let put = |pod: Value| store.txn(Txn::put(objects::key("", "pods", "d", "p"), pod.to_string()));
        put(json!({"metadata": {"name": "p", "namespace": "d", "uid": "p"}})).await.unwrap();
        let claim = json!({"metadata": {"name": "c", "namespace": "d"}, "spec": {}});
        let key = objects::key("", "persistentvolumeclaims", "d", "c");
        store.txn(Txn::put(key, claim.to_string())).await.unwrap();
        let waiting_pod = pod(json!({}));
        let wait = wait(&store, &waiting_pod, "n1", Asked::new());
        let goes = put(json!({"metadata": {"name": "p", "namespace": "d", "uid": "another"}}));
        let (outcome, _) = tokio::join!(wait, goes);
        assert_eq!(outcome.unwrap_err().message, "the pod is gone");
    }
}
