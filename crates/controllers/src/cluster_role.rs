//! ClusterRoles that are made of others: each has the rules of all roles that its selectors mean.
//!
//! Follows `pkg/controller/clusterroleaggregation`.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use objects::selects;
use serde_json::json;

use crate::plan::{Plan, merge};
use crate::view::View;

/// Gives one role the rules that it is to have.
pub fn reconcile(view: &View, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(role) = view.cluster_roles.get("", name) else { return plan };
    let Some(aggregation) = &role.aggregation_rule else { return plan };
    let mut rules: Vec<&PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let meant = view.cluster_roles.iter().filter(|other| {
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
