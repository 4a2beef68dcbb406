//! ValidatingAdmissionPolicies: whether their expressions fit the kinds that they are about.
//!
//! Follows `pkg/controller/validatingadmissionpolicystatus`.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

use crate::plan::{Plan, merge_this};
use crate::view::View;

/// Tells what a policy's expressions get wrong, once for each generation of it.
pub fn reconcile(view: &View, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(policy) = view.validating_policies.get("", name) else { return plan };
    let generation = policy.metadata.generation;
    let status = policy.status.as_ref();
    if generation.is_none() || status.and_then(|status| status.observed_generation) == generation {
        return plan;
    }
    let policy: &ValidatingAdmissionPolicy = policy.as_ref();
    let object = serde_json::to_value(policy).ok().and_then(api::Object::from_value);
    let warnings = object.map(|object| api::policy::type_check(&object)).unwrap_or_default();
    let warnings = if warnings.is_empty() { Value::Null } else { Value::Array(warnings) };
    let status = json!({"observedGeneration": generation, "typeChecking": {"expressionWarnings": warnings}});
    plan.write(merge_this(policy, "status", json!({"status": status})));
    plan
}
