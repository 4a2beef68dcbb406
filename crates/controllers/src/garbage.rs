//! Garbage collection: dependents go with their owners, in the background, first, or not at all.
//!
//! Follows `pkg/controller/garbagecollector` (`attemptToDeleteItem`, `processDeletingDependentsItem`,
//! `orphanDependents`) over all kinds in the store. What names an owner that can't be judged stays as it is, with all
//! its owners: a kind that isn't served (yet), another server's, or a namespaced one of a cluster-scoped object.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{Delete, Occurrence, Propagation, Write};
use serde_json::{Value, json};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::graph::{Standing, Vertex};
use crate::key::Key;
use crate::plan::Plan;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Does what ownership asks for. Its keys are named like those of the store.
pub(crate) struct Garbage;

impl Controller for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn component(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Background
    }

    fn watches(&self, _: &mut Watches<'_>) {}

    fn all(&self, view: &View, due: &mut Due<'_>) {
        for node in view.graph.iter().filter(|node| node.deleting || !is_held(view, node)) {
            object_at(&node.key, due);
        }
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        change.doubted().into_iter().flatten().for_each(|key| object_at(key, due));
        let owned = change.owned();
        let (same_end, same_owners) = (owned.same_end(), owned.same_owners());
        if same_end && same_owners {
            return;
        }
        // What its owners' end asks for later, their change makes due.
        if let Some(new) = owned.new.as_ref().filter(|new| new.deleting || !is_held(view, new)) {
            object_at(&new.key, due);
        }
        for node in owned.both() {
            // Those who hang on it, and those who wait for it.
            if !same_end && !node.uid.is_empty() {
                view.graph.dependents(node.uid.as_str()).for_each(|dependent| object_at(&dependent.key, due));
            }
            for reference in &*node.owners {
                if let Some(owner) = view.graph.owner(node, reference).filter(|owner| owner.deleting) {
                    object_at(&owner.key, due);
                }
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile(view, key.name().as_bytes())
    }
}

/// The object at a key of the store is due. Keys are text: each was made of names.
fn object_at(key: &[u8], due: &mut Due<'_>) {
    if let Ok(key) = std::str::from_utf8(key) {
        due.now("", key);
    }
}

/// Whether all of an object's owners are there to stay, so that there is nothing to do about it. Most objects are: the keys of ten
/// thousand pods would be most of what a takeover takes.
fn is_held(view: &View, node: &Vertex) -> bool {
    node.owners.iter().all(|reference| {
        let owner = view.graph.standing(node, reference);
        matches!(owner, Standing::There(owner) if !owner.waits_for_dependents())
    })
}

/// Does what ownership asks for with the object at one key.
fn reconcile(view: &View, key: &[u8]) -> Plan {
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
fn finish(view: &View, node: &Vertex, plan: &mut Plan) {
    let dependents = || view.graph.dependents(node.uid.as_str()).filter(|d| view_owner(view, d, node));
    if node.has_finalizer(ORPHAN) {
        let mut none = true;
        for dependent in dependents() {
            none = false;
            plan.write(without_owners(dependent, |uid| uid == node.uid.as_str()));
        }
        if none {
            plan.write(without_finalizer(node, ORPHAN));
        }
    } else if node.has_finalizer(FOREGROUND) {
        let blocks = |dependent: &Vertex| {
            let mut owners = dependent.owners.iter();
            dependent.uid != node.uid
                && owners
                    .any(|owner| owner.uid == node.uid.as_str() && owner.block_owner_deletion == Some(true))
        };
        if !dependents().any(|dependent| blocks(dependent)) {
            plan.write(without_finalizer(node, FOREGROUND));
        }
    }
}

fn view_owner(view: &View, dependent: &Vertex, owner: &Vertex) -> bool {
    let mut owners = dependent.owners.iter().filter(|reference| reference.uid == owner.uid.as_str());
    owners.any(|reference| view.graph.owner(dependent, reference).is_some())
}

/// Deletes a dependent whose owners are all gone, and makes it forget those that are gone.
fn follow_owners(view: &View, node: &Vertex, plan: &mut Plan) {
    let (mut solid, mut gone, mut waiting) = (0, Vec::new(), Vec::new());
    let mut unknown = false;
    for reference in &*node.owners {
        match view.graph.standing(node, reference) {
            Standing::There(owner) if owner.waits_for_dependents() => waiting.push(reference.uid.clone()),
            Standing::There(_) => solid += 1,
            Standing::Gone => {
                let elsewhere = view
                    .graph
                    .with_uid(&reference.uid)
                    .is_some_and(|owner| !owner.namespace.is_empty() && owner.namespace != node.namespace);
                if elsewhere {
                    plan.told.push(wrong_namespace(node, reference));
                }
                gone.push(reference.uid.clone());
            }
            Standing::OutOfReach => {
                plan.told.push(wrong_namespace(node, reference));
                unknown = true;
            }
            Standing::Unknown => unknown = true,
        }
    }
    if unknown {
        return;
    }
    if gone.is_empty() && waiting.is_empty() {
        return;
    }
    if solid > 0 {
        plan.write(without_owners(node, |uid| gone.iter().chain(&waiting).any(|other| other == uid)));
        return;
    }
    // Two that own each other would wait for each other for ever: the later one stops holding the other up first, and
    // is deleted once that is written.
    let circular = view.graph.dependents(node.uid.as_str()).any(|dependent| dependent.waits_for_dependents());
    let holds_up = node.owners.iter().any(|owner| owner.block_owner_deletion == Some(true));
    if !waiting.is_empty() && circular && holds_up {
        plan.write(without_blocking(node));
        return;
    }
    let own_dependents = view.graph.dependents(node.uid.as_str()).next().is_some();
    let propagation = if node.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if node.has_finalizer(FOREGROUND) || (!waiting.is_empty() && own_dependents) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let options = Delete {
        uid: Some(node.uid.to_string()).filter(|uid| !uid.is_empty()),
        propagation: Some(propagation),
        ..Delete::default()
    };
    plan.write(Write::Delete { subject: node.subject(), options });
}

fn wrong_namespace(node: &Vertex, owner: &OwnerReference) -> Occurrence {
    let regarding = ObjectReference {
        api_version: Some(node.api_version.to_string()),
        kind: Some(node.kind.to_string()),
        namespace: Some(node.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
        name: Some(node.name().to_owned()),
        uid: Some(node.uid.to_string()),
        resource_version: Some(node.revision.to_string()),
        field_path: None,
    };
    let OwnerReference { api_version, kind, name, uid, .. } = owner;
    let namespace = &node.namespace;
    let message = format!(
        "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
         namespace {namespace:?}"
    );
    Occurrence { regarding, warning: true, reason: "OwnerRefInvalidNamespace", message }
}

fn without_owners(node: &Vertex, goes: impl Fn(&str) -> bool) -> Write {
    let kept: Vec<_> = node.owners.iter().filter(|owner| !goes(&owner.uid)).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    patch(node, "ownerReferences", kept)
}

fn without_blocking(node: &Vertex) -> Write {
    let mut owners = node.owners.to_vec();
    owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
    patch(node, "ownerReferences", json!(owners))
}

fn without_finalizer(node: &Vertex, finalizer: &str) -> Write {
    let kept: Vec<_> = node.finalizers.iter().filter(|f| *f != finalizer).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    patch(node, "finalizers", kept)
}

fn patch(node: &Vertex, field: &str, value: Value) -> Write {
    // Of this version only: the list is written whole, and an owner or finalizer that was added meanwhile would be
    // lost.
    let patch = json!({"metadata": {"resourceVersion": node.revision.to_string(), field: value}});
    Write::Merge { subject: node.subject(), subresource: "", patch }
}
