//! ValidatingAdmissionPolicies: whether their expressions fit the kinds that they are about.
//!
//! Follows `pkg/controller/validatingadmissionpolicystatus`.

use std::collections::BTreeSet;

use api::policy::type_check;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use machinery::{Definition, Object};
use objects::{kind_prefix, parse};
use serde_json::{Value, json};
use store::KeyRange;

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::key::Key;
use crate::plan::{Plan, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Says of ValidatingAdmissionPolicies what their expressions get wrong.
pub(crate) struct ValidatingPolicies;

impl Controller for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "validating-policy"
    }

    fn component(&self) -> &'static str {
        "validatingadmissionpolicy-status-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<ValidatingAdmissionPolicy>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<ValidatingAdmissionPolicy>().iter());
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        due.objects(change.of::<ValidatingAdmissionPolicy>().and_then(|change| change.new.as_ref()));
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile(view, key.name())
    }
}

/// Tells what a policy's expressions get wrong, once for each generation of it.
fn reconcile(view: &View, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(policy) = view.table::<ValidatingAdmissionPolicy>().get("", name) else { return plan };
    let generation = policy.metadata.generation;
    let status = policy.status.as_ref();
    if generation.is_none() || status.and_then(|status| status.observed_generation) == generation {
        return plan;
    }
    let policy: &ValidatingAdmissionPolicy = policy.as_ref();
    let object = serde_json::to_value(policy).ok().and_then(Object::from_value);
    let warnings = object.map(|object| type_check(&object, &definitions(view, &object))).unwrap_or_default();
    let warnings = if warnings.is_empty() { Value::Null } else { Value::Array(warnings) };
    let status = json!({"observedGeneration": generation, "typeChecking": {"expressionWarnings": warnings}});
    plan.write(merge_this(policy, "status", json!({"status": status})));
    plan
}

/// The definitions in the groups that a policy names.
fn definitions(view: &View, policy: &Object) -> Vec<Definition> {
    let rules = policy.pointer("/spec/matchConstraints/resourceRules").and_then(Value::as_array);
    let named =
        rules.into_iter().flatten().flat_map(|rule| rule["apiGroups"].as_array().into_iter().flatten());
    let mut groups: BTreeSet<&str> = named.filter_map(Value::as_str).collect();
    let params = policy.pointer("/spec/paramKind/apiVersion").and_then(Value::as_str).unwrap_or_default();
    groups.extend(params.split_once('/').map(|(group, _)| group));
    let range = KeyRange::prefix(kind_prefix("apiextensions.k8s.io", "customresourcedefinitions"));
    let all = view.state().range(&range);
    let of_groups = all.filter(|kv| {
        let group = parse(&kv.key).and_then(|place| Some(place.name.split_once('.')?.1));
        group.is_some_and(|group| groups.contains(group))
    });
    of_groups.filter_map(|kv| Definition::parse(kv.value.bytes(), kv.mod_revision.0, None).ok()).collect()
}
