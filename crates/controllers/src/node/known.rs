//! Events about Nodes that come and go (`monitorNodeHealth` of `pkg/controller/nodelifecycle`): as there, each leader tells once of
//! each Node that it finds.

use k8s_openapi::api::core::v1::ObjectReference;
use objects::{Meta, Occurrence};

use crate::kept::Node;
use crate::notes::Notes;
use crate::plan::Plan;

/// Tells of a Node that is new under its name, and of the one that is gone.
pub(super) fn tell(name: &str, node: Option<&Node>, notes: Option<&Notes>, plan: &mut Plan) {
    let before = notes.and_then(Notes::node);
    let uid = node.map(|node| node.metadata.uid().unwrap_or_default());
    if before == uid {
        return;
    }
    if let Some(gone) = before {
        plan.told.push(event(name, gone, "RemovingNode", format!("Removing Node {name} from Controller")));
    }
    if let Some(uid) = uid {
        plan.told.push(event(name, uid, "RegisteredNode", format!("Registered Node {name} in Controller")));
    }
    plan.notes = Some(uid.map_or(Notes::Nothing, |uid| Notes::Node(uid.to_owned())));
}

fn event(name: &str, uid: &str, reason: &'static str, told: String) -> Occurrence {
    let regarding = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    Occurrence { regarding, warning: false, reason, message: format!("Node {name} event: {told}") }
}
