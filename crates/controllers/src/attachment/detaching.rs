//! When a volume may be detached that nobody on its node wants any more.
//!
//! First the Node no longer says that it is attached, unless its kubelet still has it mounted; and only when that is read back, and
//! it is still not mounted, the attachment is deleted. A kubelet says that it mounts before it does, and mounts what its Node says is
//! attached: so of the two one always sees the other (`pkg/controller/volume/attachdetach/reconciler`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use objects::{Meta, PersistentVolume};
use serde_json::json;

use super::known;
use super::wanted::attachment_name;
use crate::controller::Moment;
use crate::fencing;
use crate::kept::Node;
use crate::node::ready_status;
use crate::plan::{Plan, delete, merge_this};
use crate::pod_gc::OUT_OF_SERVICE;

/// How long a node that fails may have a volume mounted that nobody wants there (`ReconcilerMaxWaitForUnmountDuration`).
const PATIENCE: Duration = Duration::from_secs(6 * 60);
/// The annotation of an attachment with since when that is so. Upstream keeps it in memory, and begins anew with each leader.
const UNWANTED_SINCE: &str = "holdfast.dev/unwanted-since";
/// The number of hexadecimal digits after `csi-` in an attachment's name.
const DIGITS: usize = 64;

/// Whether an attachment was made here, or by a kube-controller-manager: others have other names.
pub(super) fn is_ours(attachment: &VolumeAttachment, volume: Option<&PersistentVolume>) -> bool {
    let called = attachment.metadata.name();
    let source = volume.and_then(|volume| volume.spec.as_ref()?.csi.as_ref());
    match (volume, source) {
        (_, Some(source)) => called == attachment_name(source, &attachment.spec.node_name),
        (Some(_), None) => false,
        // Its volume is gone, and with it what the name can be compared with.
        (None, _) => called.strip_prefix("csi-").is_some_and(|sum| {
            sum.len() == DIGITS && sum.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        }),
    }
}

/// Takes the next step of detaching a volume with this name in its node's status. True if the Node is to say that it is attached.
pub(super) fn detach(
    attachment: &VolumeAttachment,
    volume: Option<&str>,
    node: Option<&Node>,
    moment: &Moment<'_>,
    plan: &mut Plan,
) -> bool {
    if attachment.metadata.deletion_timestamp.is_some() {
        return false;
    }
    if let (Some(volume), Some(node)) = (volume, node) {
        let is_mounted = in_use(node).any(|used| used == volume);
        if is_mounted && !is_off(node) && !is_given_up(attachment, node, moment, plan) {
            return true;
        }
        if known(Some(node)).any(|known| known == volume) {
            return false;
        }
    }
    plan.write(delete(attachment));
    false
}

/// Whether a node fails for so long that what it mounts counts no longer.
fn is_given_up(attachment: &VolumeAttachment, node: &Node, moment: &Moment<'_>, plan: &mut Plan) -> bool {
    if ready_status(node) == "True" {
        is_needed(attachment, plan);
        return false;
    }
    let since = annotation(attachment).and_then(|since| since.parse::<Timestamp>().ok());
    let Some(since) = since else {
        let patch = json!({"metadata": {"annotations": {(UNWANTED_SINCE): moment.now.wall.to_string()}}});
        plan.write(merge_this(attachment, "", patch));
        return false;
    };
    let waited = Duration::try_from(moment.now.wall.duration_since(since)).unwrap_or_default();
    if waited < PATIENCE {
        plan.again(PATIENCE - waited);
    }
    waited >= PATIENCE
}

/// Nobody waits any longer for it to be given up.
pub(super) fn is_needed(attachment: &VolumeAttachment, plan: &mut Plan) {
    if annotation(attachment).is_some() {
        let patch = json!({"metadata": {"annotations": {(UNWANTED_SINCE): null}}});
        plan.write(merge_this(attachment, "", patch));
    }
}

fn annotation(attachment: &VolumeAttachment) -> Option<&str> {
    attachment.metadata.annotations()?.get(UNWANTED_SINCE).map(String::as_str)
}

/// Whether somebody says of a node that it is switched off (KEP-2268), or it is fenced: then nobody uses there what one host alone may.
pub(super) fn is_off(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    fencing::is_fenced(node) || taints.any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The volumes that a node's kubelet has mounted, or is about to.
pub(super) fn in_use(node: &Node) -> impl Iterator<Item = &str> {
    let status = node.status.as_ref();
    status.and_then(|status| status.volumes_in_use.as_ref()).into_iter().flatten().map(String::as_str)
}
