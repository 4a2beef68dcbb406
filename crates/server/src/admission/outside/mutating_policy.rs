//! `MutatingAdmissionPolicy`: expressions that change an object.
//!
//! Follows `pkg/admission/plugin/policy/mutating` of apiserver.

use api::cel::Budget;
use api::policy::{Inputs, Mutation, Scope};
use api::{Object, PatchType, Status};
use serde_json::Value;

use super::configured::{Binding, PolicyEntry};
use super::matching::{matched, namespace_of};
use super::parameters::parameters;
use super::review::request_value;
use super::{Outside, Round, guard};
use crate::admission::{Outcome, Request};

impl Outside {
    /// Lets the policies change the object; the answer is whether one did.
    pub(super) async fn apply_policies(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        old: Option<&Object>,
        round: Round,
    ) -> Result<bool, Status> {
        let mut changed = false;
        for (policy, bindings) in self.configured.mutating_policies(request.state) {
            if round == Round::Again && policy.spec["reinvocationPolicy"] != "IfNeeded" {
                continue;
            }
            for binding in bindings {
                let applied = self.apply_policy(&policy, &binding, request, object, old).await;
                match applied {
                    Err(why) if policy.spec["failurePolicy"] != "Ignore" => {
                        let why = format!(
                            "MutatingAdmissionPolicy '{}' with binding '{}' denied request: {why}",
                            policy.name, binding.name
                        );
                        return Err(request.named.forbidden(&why));
                    }
                    Err(why) => tracing::warn!(policy = policy.name, why, "a policy failed, and is ignored"),
                    Ok(applied) => changed |= applied,
                }
            }
        }
        Ok(changed)
    }

    /// The answer is whether it changed anything.
    async fn apply_policy(
        &self,
        policy: &PolicyEntry,
        binding: &Binding,
        request: &Request<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<bool, String> {
        let outcome = Outcome { new: Some(object), old };
        let Some(resource) = matched(&policy.spec["matchConstraints"], "resourceRules", request, outcome)
        else {
            return Ok(false);
        };
        let narrowed = &binding.spec["matchResources"];
        if !narrowed.is_null() && matched(narrowed, "resourceRules", request, outcome).is_none() {
            return Ok(false);
        }
        let shown = self.show(request, outcome, &resource).await.map_err(|status| status.message)?;
        let Some(first) = shown.new else { return Ok(false) };
        let made = self.mutated(policy, binding, request, &resource, &first, shown.old)?;
        if made == first {
            return Ok(false);
        }
        let back = self.take_back(request, made, object, &resource).await;
        let before = std::mem::replace(object, back.map_err(|status| status.message)?);
        Ok(*object != before)
    }

    /// What the policy makes of an object, both in the form of `resource`.
    fn mutated(
        &self,
        policy: &PolicyEntry,
        binding: &Binding,
        request: &Request<'_>,
        resource: &api::Resource,
        object: &Object,
        old: Option<Object>,
    ) -> Result<Object, String> {
        let asked = request_value(request, resource);
        let namespace = namespace_of(request).map(Object::into_value);
        let old = old.map(Object::into_value);
        let hosts = guard::hosts(&self.authorizer, request);
        let mut new = object.clone();
        for params in parameters(&policy.spec, binding, request)? {
            let mut budget = Budget::default();
            // Each mutation sees what the one before made.
            for (index, mutation) in policy.compiled.mutations().iter().enumerate() {
                let value = new.clone().into_value();
                let inputs = Inputs {
                    object: Some(&value),
                    old_object: old.as_ref(),
                    request: &asked,
                    namespace: namespace.as_ref(),
                    params: params.as_ref(),
                    authorizer: Some(&hosts),
                };
                let scope = Scope::new(&policy.compiled, inputs);
                if index == 0 && !scope.conditions_hold(&mut budget)? {
                    break;
                }
                let made = scope.mutate(mutation, &mut budget).map_err(|error| error.to_string())?;
                new = changed(resource, &new, mutation, made).map_err(|status| status.message)?;
            }
        }
        Ok(new)
    }
}

fn changed(
    resource: &api::Resource,
    object: &Object,
    mutation: &Mutation,
    made: Value,
) -> Result<Object, Status> {
    if mutation.is_json_patch {
        return api::patch(resource, PatchType::Json, object, &made);
    }
    let named = |key: &str| made.get(key).is_some_and(|value| *value != object.0[key]);
    if named("apiVersion") || named("kind") || made.pointer("/metadata/managedFields").is_some() {
        return Err(Status::bad_request(
            "a mutation may not change apiVersion, kind and metadata.managedFields",
        ));
    }
    api::merge_configuration(resource, object, &made)
}
