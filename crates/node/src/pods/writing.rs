//! Writes about pods: status, and the confirmation of an end.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use machinery::Object;
use objects::{Delete, Reader, TypedRef, Write};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::PodHost;
use super::life::Report;
use crate::pod::{Then, uid};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(10);

fn subject(pod: &Pod) -> TypedRef {
    TypedRef {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

async fn write(host: &PodHost, write: Write) -> Result<(), machinery::Status> {
    let user = host.user();
    match tokio::time::timeout(PATIENCE, host.writer.write(&user, write)).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(machinery::Status::unavailable("the store did not answer in time")),
    }
}

/// Merges `patch` into the status of the pod, whose object in the API has the uid `object`, once.
pub(crate) async fn write_status(
    host: Arc<PodHost>,
    pod: Arc<Pod>,
    object: String,
    patch: Value,
    reports: mpsc::UnboundedSender<Report>,
) {
    // The uid is a condition: a new pod may bear the name by now.
    let patch = json!({"metadata": {"uid": object}, "status": patch});
    let result = write(&host, Write::Merge { subject: subject(&pod), subresource: "status", patch }).await;
    let _ = reports.send(Report::Written(uid(&pod).to_owned(), result));
}

/// The last steps of a pod whose processes are dead: cleans up, says how it ended, confirms its removal, if it is in the API as
/// `object`. Tries until it is done.
pub(crate) async fn finish(
    host: Arc<PodHost>,
    pod: Arc<Pod>,
    object: Option<String>,
    then: Then,
    status: Option<Value>,
    reports: mpsc::UnboundedSender<Report>,
) {
    match then {
        Then::Stay => host.end_sandbox(&pod).await,
        // First of all: once the removal is confirmed, a pod of the same name may start elsewhere.
        Then::Confirm | Then::Forget => host.clone().clean_up(pod.clone()).await,
    }
    if let (Then::Confirm, Some(object)) = (then, object) {
        if let Some(status) = status {
            let patch = json!({"metadata": {"uid": object}, "status": status});
            until_done(&host, Write::Merge { subject: subject(&pod), subresource: "status", patch }).await;
        }
        delete(&host, &pod, object).await;
    }
    let _ = reports.send(Report::Finished(uid(&pod).to_owned()));
}

/// Has the pod's object of that uid go at once.
async fn delete(host: &PodHost, pod: &Pod, object: String) {
    let options = Delete { uid: Some(object), grace_seconds: Some(0), ..Delete::default() };
    until_done(host, Write::Delete { subject: subject(pod), options }).await;
}

/// Has a mirror go that is not to be there.
pub(super) async fn remove_mirror(host: Arc<PodHost>, mirror: Pod, reports: mpsc::UnboundedSender<Report>) {
    let object = uid(&mirror).to_owned();
    delete(&host, &mirror, object.clone()).await;
    let _ = reports.send(Report::MirrorRemoved(object));
}

/// Makes the mirror of the static pod `id`, once.
pub(super) async fn make_mirror(
    host: Arc<PodHost>,
    id: String,
    mirror: Arc<Object>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let node = Reader::<Node>::get(&host.store.snapshot(), "", &host.name).and_then(|node| node.metadata.uid);
    let made = match node {
        Some(node) => {
            let mut mirror = (*mirror).clone();
            // The node alone may make it, and it goes with the node.
            let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": host.name, "uid": node, "controller": true}]);
            mirror.set_meta("ownerReferences", owner);
            write(&host, Write::Create(mirror)).await
        }
        None => Err(machinery::Status::unavailable("this host's Node isn't there yet")),
    };
    let _ = reports.send(Report::Mirrored(id, made));
}

/// Writes until it is written, or never will be.
async fn until_done(host: &PodHost, what: Write) {
    let mut leadership = host.store.leadership();
    let mut wait = Duration::from_millis(20);
    loop {
        leadership.borrow_and_update();
        match write(host, what.clone()).await {
            Ok(()) => return,
            Err(status) if (400..500).contains(&status.code) && status.code != 429 => {
                // 404 and 409: it is gone, or another pod bears the name.
                if !matches!(status.code, 404 | 409) {
                    tracing::warn!(%status, "a change of a pod that ended was refused");
                }
                return;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = leadership.changed() => {}
        }
        wait = (wait * 2).min(Duration::from_secs(1));
    }
}
