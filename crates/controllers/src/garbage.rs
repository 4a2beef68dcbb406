//! Garbage collection: dependents go with their owners, in the background, first, or not at all.
//!
//! Follows `pkg/controller/garbagecollector` (`attemptToDeleteItem`, `processDeletingDependentsItem`,
//! `orphanDependents`) over all kinds in the store. Upstream's doubt about an owner that it can't see is
//! not needed: a view is one consistent revision.

use objects::{Delete, Propagation, Write};
use serde_json::{Value, json};

use crate::graph::Node;
use crate::plan::Plan;
use crate::view::View;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Does what ownership asks for with the object at one key.
pub fn reconcile(view: &View, key: &[u8]) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = view.graph.get(key) else { return plan };
    if node.deleting {
        finish(view, node, &mut plan);
    }
    // A dependent that waits for its own dependents may have to release its owner no more.
    if !node.owners.is_empty() && !node.deleting {
        follow_owners(view, node, &mut plan);
    }
    plan
}

/// Takes the finalizers away that stand for what happens to an object's dependents, once it has happened.
fn finish(view: &View, node: &Node, plan: &mut Plan) {
    let dependents = || view.graph.dependents(&node.uid).filter(|d| view_owner(view, d, node));
    if node.has_finalizer(ORPHAN) {
        let mut none = true;
        for dependent in dependents() {
            none = false;
            plan.write(without_owners(dependent, |uid| uid == node.uid));
        }
        if none {
            plan.write(without_finalizer(node, ORPHAN));
        }
    } else if node.has_finalizer(FOREGROUND) {
        let blocks = |dependent: &Node| {
            let mut owners = dependent.owners.iter();
            owners.any(|owner| owner.uid == node.uid && owner.block_owner_deletion == Some(true))
        };
        if !dependents().any(|dependent| blocks(dependent)) {
            plan.write(without_finalizer(node, FOREGROUND));
        }
    }
}

fn view_owner(view: &View, dependent: &Node, owner: &Node) -> bool {
    let mut owners = dependent.owners.iter().filter(|reference| reference.uid == owner.uid);
    owners.any(|reference| view.graph.owner(dependent, reference).is_some())
}

/// Deletes a dependent whose owners are all gone, and makes it forget those that are gone.
fn follow_owners(view: &View, node: &Node, plan: &mut Plan) {
    let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
    for reference in &node.owners {
        match view.graph.owner(node, reference) {
            None => gone.push(reference.uid.clone()),
            Some(owner) if owner.waits_for_dependents() => waiting.push(reference.uid.clone()),
            Some(_) => solid += 1,
        }
    }
    if gone.is_empty() && waiting.is_empty() {
        return;
    }
    if solid > 0 {
        plan.write(without_owners(node, |uid| gone.iter().chain(&waiting).any(|other| other == uid)));
        return;
    }
    let own_dependents = view.graph.dependents(&node.uid).next().is_some();
    let propagation = if node.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if node.has_finalizer(FOREGROUND) || (!waiting.is_empty() && own_dependents) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let options = Delete {
        uid: Some(node.uid.clone()).filter(|uid| !uid.is_empty()),
        propagation: Some(propagation),
        ..Delete::default()
    };
    plan.write(Write::Delete { subject: node.subject(), options });
}

fn without_owners(node: &Node, goes: impl Fn(&str) -> bool) -> Write {
    let kept: Vec<_> = node.owners.iter().filter(|owner| !goes(&owner.uid)).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    patch(node, "ownerReferences", kept)
}

fn without_finalizer(node: &Node, finalizer: &str) -> Write {
    let kept: Vec<_> = node.finalizers.iter().filter(|f| *f != finalizer).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    patch(node, "finalizers", kept)
}

fn patch(node: &Node, field: &str, value: Value) -> Write {
    let patch = json!({"metadata": {"resourceVersion": node.revision.to_string(), field: value}});
    Write::Merge { subject: node.subject(), subresource: "", patch }
}
