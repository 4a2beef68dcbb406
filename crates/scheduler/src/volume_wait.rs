//! Between a pod's place and its bind: its claims get their volumes there.

use std::time::Duration;

use k8s_openapi::Resource;
use machinery::Status;
use objects::{BIND_COMPLETED, Kind, Meta, PersistentVolumeClaim, Pod, Reader, SELECTED_NODE, Write, Writer};
use store::{KeyRange, State, Store};

use crate::driver::USER;
use crate::storage::claims;

/// How long volumes may take to be made (`BindTimeoutSeconds` of upstream's `VolumeBindingArgs`). Until then the pod's room is kept.
const PATIENCE: Duration = Duration::from_secs(600);

/// Writes what gives a pod its volumes on a node, and waits until its claims have them.
///
/// # Errors
/// If something can't be written, a claim's volume can't be made there, or it takes too long: then a place is looked for again.
pub(crate) async fn wait_for_volumes(
    store: &dyn Store,
    writer: &dyn Writer,
    pod: &Pod,
    node: &str,
    writes: Vec<Write>,
) -> Result<(), Status> {
    for write in writes {
        writer.write(USER, write).await?;
    }
    match tokio::time::timeout(PATIENCE, follow(store, pod, node)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::unavailable("the pod's volumes were not made in time")),
    }
}

async fn follow(store: &dyn Store, pod: &Pod, node: &str) -> Result<(), Status> {
    let prefix = objects::kind_prefix(PersistentVolumeClaim::GROUP, PersistentVolumeClaim::PLURAL);
    let ended = |error: store::Error| Status::unavailable(format!("claims are no longer followed: {error}"));
    let mut state = store.snapshot();
    let mut watcher = store.watch(KeyRange::prefix(prefix), state.revision().next()).map_err(ended)?;
    loop {
        if all_have_volumes(&state, pod, node)? {
            return Ok(());
        }
        state = watcher.changes().await.map_err(ended)?.1;
    }
}

/// Whether all of a pod's claims have their volumes. An error if one of them is to get it somewhere else.
fn all_have_volumes(state: &State, pod: &Pod, node: &str) -> Result<bool, Status> {
    let mut all = true;
    for wanted in claims(pod) {
        let name = &wanted.name;
        let claim = Reader::<PersistentVolumeClaim>::get(state, pod.metadata.namespace(), name);
        let claim = claim.ok_or_else(|| Status::unavailable(format!("claim {name:?} is gone")))?;
        if claim.annotation(BIND_COMPLETED).is_some() {
            continue;
        }
        // What makes it could not make it there (upstream: "provisioning failed for PVC").
        if claim.annotation(SELECTED_NODE).is_some_and(|selected| selected != node) {
            return Err(Status::unavailable(format!(
                "the volume of claim {name:?} is made for another node"
            )));
        }
        all = false;
    }
    Ok(all)
}
