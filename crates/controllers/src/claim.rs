//! Whose an object is: a controller adopts orphans that its selector means, and releases what it no longer means.
//!
//! Follows `pkg/controller/controller_ref_manager.go`. What is being deleted is not adopted, and who is being deleted
//! adopts nothing.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use objects::{Kind, Meta, selects};
use serde_json::{Value, json};

use crate::index::{Orphans, Owner, with_labels};
use crate::plan::{Plan, merge_this};
use crate::pod_writes::owner_reference;
use crate::selectors::required;
use crate::view::View;

/// The objects whose controller is `owner`, whether a selector means them or not; it must lie in a namespace.
pub(crate) fn own<'a, O: Kind, T: Kind + 'static>(
    view: &'a View,
    owner: &O,
) -> impl Iterator<Item = &'a Arc<T>> + use<'a, O, T> {
    let namespace = owner.metadata().namespace().to_owned();
    view.by::<Owner<T>>(owner.metadata().uid().unwrap_or_default())
        .filter(move |object| object.metadata().namespace() == namespace)
}

/// The objects of `owner` that its selector means, in the order of their names but for those that are adopted, which come
/// last. `also` says what must hold beside the selector.
pub(crate) fn claim<'a, O: Kind, T: Kind + 'static>(
    view: &'a View,
    owner: &O,
    selector: &LabelSelector,
    also: impl Fn(&T) -> bool,
    plan: &mut Plan,
) -> Vec<&'a Arc<T>> {
    let is_meant = |object: &T| selects(selector, object.metadata().labels()) && also(object);
    let (mut claimed, released): (Vec<_>, Vec<_>) =
        own::<O, T>(view, owner).partition(|object| is_meant(object));
    if owner.metadata().deletion_timestamp().is_some() {
        return claimed;
    }
    released.into_iter().for_each(|object| release(owner, object.as_ref(), plan));
    if is_everything(selector) {
        return claimed;
    }
    let namespace = owner.metadata().namespace();
    let orphans = with_labels::<Orphans<T>>(view, namespace, required(selector));
    for object in orphans.filter(|object| is_meant(object)) {
        if object.metadata().deletion_timestamp().is_none() {
            adopt(owner, object.as_ref(), plan);
            claimed.push(object);
        }
    }
    claimed
}

/// Whether the selector is empty: validation refuses it, and it must never adopt a whole namespace.
pub(crate) fn is_everything(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none()
}

/// Makes `owner` the controller of an orphan.
pub(crate) fn adopt<O: Kind, T: Kind>(owner: &O, orphan: &T, plan: &mut Plan) {
    let mut owners = orphan.metadata().owners().to_vec();
    owners.push(owner_reference(owner));
    plan.write(merge_this(orphan, "", json!({"metadata": {"ownerReferences": owners}})));
}

/// Makes an object an orphan, as far as `owner` goes.
pub(crate) fn release<O: Kind, T: Kind>(owner: &O, object: &T, plan: &mut Plan) {
    let uid = owner.metadata().uid().unwrap_or_default();
    let owners = object.metadata().owners().iter();
    let kept: Vec<_> = owners.filter(|owner| owner.uid != uid).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    plan.write(merge_this(object, "", json!({"metadata": {"ownerReferences": kept}})));
}
