//! `ValidatingAdmissionPolicy`: expressions that judge a change.
//!
//! Follows `pkg/admission/plugin/policy/validating/dispatcher.go` of apiserver.

use api::policy::{Inputs, Ruling, Scope};
use cel::Budget;
use machinery::{Cause, Object, Status};
use serde_json::{Value, json};

use super::configured::{Binding, PolicyEntry};
use super::matching::{matched, namespace_of};
use super::parameters::Misconfigured;
use super::review::{Shown, request_value};
use super::{Outside, guard};
use crate::admission::{AdmissionRequest, Outcome};
use crate::http::{annotations, warnings};

/// What would be refused if its binding didn't only want to hear of it.
const VALIDATION_FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Why a policy is against a change.
struct Denial {
    message: String,
    reason: String,
}

impl Outside {
    /// Asks the policies.
    pub(super) async fn ask_policies(
        &self,
        request: &AdmissionRequest<'_>,
        outcome: Outcome<'_>,
    ) -> Result<(), Status> {
        let mut denied = None;
        for (policy, bindings) in self.configured.validating_policies(request.state) {
            let Some(resource) = matched(&policy.spec["matchConstraints"], "resourceRules", request, outcome)
            else {
                continue;
            };
            let shown = self.show(request, outcome, &resource).await?;
            let asked = request_value(request, &resource);
            let kind = match self.kind_of_parameters(&policy.spec, request) {
                Ok(kind) => kind,
                Err(why) => {
                    denied = denied.or_else(|| misconfigured(&policy, None, &why));
                    continue;
                }
            };
            for binding in bindings {
                let narrowed = &binding.spec["matchResources"];
                if !narrowed.is_null() && matched(narrowed, "resourceRules", request, outcome).is_none() {
                    continue;
                }
                let params = match self.parameters(kind.as_ref(), &binding, request).await {
                    Ok(params) => params,
                    Err(why) => {
                        denied = denied.or_else(|| misconfigured(&policy, Some(&binding), &why));
                        continue;
                    }
                };
                for denial in self.judge(&policy, request, &shown, &asked, &params) {
                    let first = act(&policy, &binding, &denial);
                    denied = denied.or(first);
                }
            }
        }
        match denied {
            Some((message, reason)) => Err(refused(request, message, &reason)),
            None => Ok(()),
        }
    }

    fn judge(
        &self,
        policy: &PolicyEntry,
        request: &AdmissionRequest<'_>,
        shown: &Shown,
        asked: &Value,
        params: &[Option<Value>],
    ) -> Vec<Denial> {
        let fails = policy.spec["failurePolicy"] != "Ignore";
        let failed = |message: String| {
            let denial = Denial { message, reason: String::new() };
            if fails { vec![denial] } else { Vec::new() }
        };
        let namespace = namespace_of(request).map(Object::into_value);
        let value = |object: &Option<Object>| object.clone().map(Object::into_value);
        let (new, old) = (value(&shown.new), value(&shown.old));
        let authorizer = guard::values(&self.authorizer, request);
        let mut denials = Vec::new();
        for params in params {
            let mut budget = Budget::default();
            let inputs = Inputs {
                object: new.as_ref(),
                old_object: old.as_ref(),
                request: asked,
                namespace: namespace.as_ref(),
                params: params.as_ref(),
                authorizer: Some(&authorizer),
            };
            let scope = Scope::new(&policy.compiled, inputs);
            match scope.conditions_hold(&mut budget) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    denials.extend(failed(why));
                    continue;
                }
            }
            for verdict in scope.validate(&mut budget) {
                match verdict {
                    Ruling::Admit => {}
                    Ruling::Deny { message, reason } => denials.push(Denial { message, reason }),
                    Ruling::Failed(why) => denials.extend(failed(why)),
                }
            }
            for (key, value) in scope.audit(&mut budget) {
                annotations::annotate(format!("{}/{key}", policy.name), value);
            }
        }
        denials
    }
}

/// A policy that can't be asked refuses whatever it is about, unless it is to be ignored then: its bindings' actions are
/// about what it says.
fn misconfigured(
    policy: &PolicyEntry,
    binding: Option<&Binding>,
    why: &Misconfigured,
) -> Option<(String, String)> {
    if policy.spec["failurePolicy"] == "Ignore" {
        return None;
    }
    let binding = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{}'{binding} denied request: {why}", policy.name);
    Some((message, String::new()))
}

/// Does what the binding wants to be done; the answer is why the change is refused, if it is.
fn act(policy: &PolicyEntry, binding: &Binding, denial: &Denial) -> Option<(String, String)> {
    let (policy, binding, actions) = (&policy.name, &binding.name, &binding.spec["validationActions"]);
    let mut refusal = None;
    for action in actions.as_array().into_iter().flatten().filter_map(Value::as_str) {
        match action {
            "Deny" => {
                let message = format!(
                    "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}",
                    denial.message
                );
                refusal = Some((message, denial.reason.clone()));
            }
            "Warn" => warnings::warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                denial.message
            )),
            _ => {
                let message = &denial.message;
                annotations::annotate_item(
                    VALIDATION_FAILURE,
                    json!({"message": message, "policy": policy, "binding": binding, "validationActions": actions}),
                );
                tracing::info!(
                    policy,
                    binding,
                    message,
                    "a change that a policy would refuse, for the audit"
                );
            }
        }
    }
    refusal
}

fn refused(request: &AdmissionRequest<'_>, message: String, reason: &str) -> Status {
    let mut status = request.named.forbidden(&message);
    (status.code, status.reason) = match reason {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: String::new(), message, field: String::new() });
    }
    status
}
