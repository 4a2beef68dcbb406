//! ClusterRoles that are made of others: each has the rules of all roles that its selectors mean.
//!
//! Follows `pkg/controller/clusterroleaggregation`.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use objects::selects;
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::key::Key;
use crate::plan::{Plan, merge};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Gives roles that are made of others those others' rules.
pub(crate) struct ClusterRoles;

impl Controller for ClusterRoles {
    fn name(&self) -> &'static str {
        "cluster-role"
    }

    fn component(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<ClusterRole>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<ClusterRole>().iter().filter(|role| role.aggregation_rule.is_some()));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        for role in change.of::<ClusterRole>().into_iter().flat_map(both) {
            due.objects(view.table::<ClusterRole>().iter().filter(|other| is_made_of(other, role)));
            due.object(role.as_ref());
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile(view, key.name())
    }
}

/// Gives one role the rules that it is to have.
fn reconcile(view: &View, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(role) = view.table::<ClusterRole>().get("", name) else { return plan };
    let Some(aggregation) = &role.aggregation_rule else { return plan };
    let mut rules: Vec<&PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let meant = view.table::<ClusterRole>().iter().filter(|other| {
            other.metadata.name != role.metadata.name && selects(selector, other.metadata.labels.as_ref())
        });
        for rule in meant.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if !role.rules.iter().flatten().eq(rules.iter().copied()) {
        plan.write(merge(role.as_ref(), "", json!({ "rules": rules })));
    }
    plan
}

/// Whether `role` is made of roles with the labels of `other`.
pub fn is_made_of(role: &ClusterRole, other: &ClusterRole) -> bool {
    let selectors =
        role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    selectors.into_iter().any(|selector| selects(selector, other.metadata.labels.as_ref()))
}
