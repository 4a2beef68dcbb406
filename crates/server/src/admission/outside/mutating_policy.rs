//! `MutatingAdmissionPolicy`: expressions that change an object.
//!
//! Follows `pkg/admission/plugin/policy/mutating` of apiserver.

use api::policy::{Inputs, Mutation, Scope};
use cel::Budget;
use machinery::{Cause, Object, PatchType, Resource, Status};
use serde_json::Value;
use thiserror::Error;

use super::configured::{Binding, PolicyEntry};
use super::matching::{matched, namespace_of};
use super::parameters::Misconfigured;
use super::review::request_value;
use super::{Outside, Round, guard};
use crate::admission::{AdmissionRequest, Outcome};

impl Outside {
    /// Lets the policies change the object; the answer is whether one did.
    pub(super) async fn apply_policies(
        &self,
        request: &AdmissionRequest<'_>,
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
                let why = match self.apply_policy(&policy, &binding, request, object, old).await {
                    Ok(applied) => {
                        changed |= applied;
                        continue;
                    }
                    Err(why) => why,
                };
                if policy.spec["failurePolicy"] != "Ignore" {
                    return Err(refused(request, &policy, &binding, &why));
                }
                tracing::warn!(policy = policy.name, %why, "a policy failed, and is ignored");
            }
        }
        Ok(changed)
    }

    /// The answer is whether it changed anything.
    async fn apply_policy(
        &self,
        policy: &PolicyEntry,
        binding: &Binding,
        request: &AdmissionRequest<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<bool, Failure> {
        let outcome = Outcome { new: Some(object), old };
        let Some(resource) = matched(&policy.spec["matchConstraints"], "resourceRules", request, outcome)
        else {
            return Ok(false);
        };
        let kind = self.kind_of_parameters(&policy.spec, request)?;
        let narrowed = &binding.spec["matchResources"];
        if !narrowed.is_null() && matched(narrowed, "resourceRules", request, outcome).is_none() {
            return Ok(false);
        }
        let shown = self.show(request, outcome, &resource).await?;
        let Some(first) = shown.new else { return Ok(false) };
        let params = self.parameters(kind.as_ref(), binding, request).await?;
        let made = self.mutated(policy, request, &resource, &first, shown.old, &params)?;
        if made == first {
            return Ok(false);
        }
        let back = self.take_back(request, made, object, &resource).await;
        let before = std::mem::replace(object, back?);
        Ok(*object != before)
    }

    /// What the policy makes of an object, both in the form of `resource`.
    fn mutated(
        &self,
        policy: &PolicyEntry,
        request: &AdmissionRequest<'_>,
        resource: &Resource,
        object: &Object,
        old: Option<Object>,
        params: &[Option<Value>],
    ) -> Result<Object, Failure> {
        let asked = request_value(request, resource);
        let namespace = namespace_of(request).map(Object::into_value);
        let old = old.map(Object::into_value);
        let authorizer = guard::values(&self.authorizer, request);
        let mut new = object.clone();
        for params in params {
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
                    authorizer: Some(&authorizer),
                };
                let scope = Scope::new(&policy.compiled, inputs);
                if index == 0 && !scope.conditions_hold(&mut budget)? {
                    break;
                }
                let made = scope.mutate(mutation, &mut budget).map_err(|error| error.to_string())?;
                new = changed(resource, &new, mutation, made)?;
            }
        }
        Ok(new)
    }
}

/// Why a policy couldn't change an object.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Misconfigured(#[from] Misconfigured),
    /// Its expressions, or what they made.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Failed(why)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Failure::Failed(status.message)
    }
}

/// As upstream: 403 in any case, and the message stands for itself.
fn refused(request: &AdmissionRequest<'_>, policy: &PolicyEntry, binding: &Binding, why: &Failure) -> Status {
    let who = match why {
        Failure::Misconfigured(Misconfigured::UnknownKind { .. }) => format!("policy {:?}", policy.name),
        _ => format!("policy '{}' with binding '{}'", policy.name, binding.name),
    };
    let message = format!("{who} denied request: {why}");
    let mut status = request.named.forbidden("");
    if let Failure::Failed(_) = why {
        status.reason = "Invalid";
    }
    status.message.clone_from(&message);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: String::new(), message, field: String::new() });
    }
    status
}

fn changed(resource: &Resource, object: &Object, mutation: &Mutation, made: Value) -> Result<Object, Status> {
    if mutation.is_json_patch {
        return machinery::patch(resource, PatchType::Json, object, &made);
    }
    let named = |key: &str| made.get(key).is_some_and(|value| *value != object.0[key]);
    if named("apiVersion") || named("kind") || made.pointer("/metadata/managedFields").is_some() {
        return Err(Status::bad_request(
            "a mutation may not change apiVersion, kind and metadata.managedFields",
        ));
    }
    machinery::merge_configuration(resource, object, &made)
}
