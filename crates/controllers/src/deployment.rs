//! Deployments: rolling from one pod template to the next.
//!
//! Follows `pkg/controller/deployment`: which ReplicaSet is the new one, how many pods each may have at
//! every step, revisions, history, conditions. One reconciliation decides on all its ReplicaSets at once.

mod rolling;
mod rollout;
mod scaling;
mod status;
mod template;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::selects;
use serde_json::json;

use crate::plan::{Plan, merge_this};
use crate::pods;
use crate::view::{View, controller_of};
use rollout::Rollout;

/// Brings one Deployment nearer to its spec.
pub fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(deployment) = view.deployments.get(namespace, name) else { return plan };
    let (Some(spec), Some(stored)) = (&deployment.spec, view.json(deployment.as_ref())) else { return plan };
    let sets = claim(view, deployment, spec, &mut plan);
    let mut rollout = Rollout::new(view, deployment, spec, &stored, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() || !view.is_open(namespace) {
        status::report(&mut rollout, &mut plan, false);
        return plan;
    }
    let paused = spec.paused == Some(true);
    rollout.sync_revision();
    let scaled = rollout.is_scaled();
    if paused || scaled {
        scaling::scale(&mut rollout);
    } else if rollout.is_recreate() {
        if rollout.retire_old() && !has_running_old_pods(view, &rollout) {
            rollout.create_new(view, &mut plan);
            rollout.grow_new_to(rollout.replicas);
        }
    } else {
        rollout.create_new(view, &mut plan);
        rolling::step(&mut rollout);
    }
    let untouched = !rollout.is_changed() && plan.actions.is_empty();
    if untouched && (paused || status::is_complete(&rollout)) {
        rollout.clean_up(&mut plan);
    }
    status::report(&mut rollout, &mut plan, !paused && !scaled);
    rollout.write(&mut plan);
    plan
}

/// The deployment's ReplicaSets, adopting orphans that its selector means and releasing what it no longer
/// means.
fn claim<'a>(
    view: &'a View,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    plan: &mut Plan,
) -> Vec<&'a Arc<ReplicaSet>> {
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let (mut claimed, released): (Vec<_>, Vec<_>) = view
        .replica_sets_of(uid)
        .filter(|set| set.metadata.namespace.as_deref() == Some(namespace))
        .partition(|set| selects(&spec.selector, set.metadata.labels.as_ref()));
    let everything = spec.selector.match_labels.is_none() && spec.selector.match_expressions.is_none();
    if deployment.metadata.deletion_timestamp.is_some() || everything {
        return claimed;
    }
    for set in released {
        let kept: Vec<_> =
            set.metadata.owner_references.iter().flatten().filter(|owner| owner.uid != uid).collect();
        plan.write(merge_this(set.as_ref(), "", json!({"metadata": {"ownerReferences": kept}})));
    }
    let orphans = view.replica_sets.in_namespace(namespace).filter(|set| {
        controller_of(&set.metadata).is_none()
            && set.metadata.deletion_timestamp.is_none()
            && selects(&spec.selector, set.metadata.labels.as_ref())
    });
    for set in orphans {
        let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
        owners.push(owner_reference(deployment));
        plan.write(merge_this(set.as_ref(), "", json!({"metadata": {"ownerReferences": owners}})));
        claimed.push(set);
    }
    claimed
}

fn owner_reference(deployment: &Deployment) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        name: deployment.metadata.name.clone().unwrap_or_default(),
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether a pod of an old set may still run: with the strategy Recreate no new one starts before it ended.
fn has_running_old_pods(view: &View, rollout: &Rollout<'_>) -> bool {
    rollout.old().any(|set| {
        let uid = set.set.metadata.uid.as_deref().unwrap_or_default();
        view.pods_of(uid).any(|pod| !pods::is_finished(pod))
    })
}
