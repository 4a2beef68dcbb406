//! Webhooks: `AdmissionReview` of admission.k8s.io/v1, asked and answered.
//!
//! Follows `pkg/admission/plugin/webhook` of apiserver.

use std::borrow::Cow;

use api::policy::{Inputs, conditions_hold};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cel::Budget;
use machinery::{Details, Object, PatchType, Resource, Status};
use serde_json::{Value, json};

use super::configured::Hook;
use super::matching::matched;
use super::review::{Shown, request_value};
use super::{Outside, Round, guard};
use crate::admission::{AdmissionRequest, Outcome};
use crate::http::warnings;

/// The longest warning that a webhook gets through.
const LONGEST_WARNING: usize = 256;

/// A webhook's answer, if it admits the change.
struct Admitted {
    patch: Option<Value>,
}

impl Outside {
    /// Lets the webhooks change the object, one after the other; the answer is whether one did.
    pub(super) async fn call_mutating(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Object,
        old: Option<&Object>,
        round: Round,
    ) -> Result<bool, Status> {
        let configured = self.configured.mutating_hooks(request.state);
        if configured.is_empty() {
            return Ok(false);
        }
        let before = object.clone();
        let wants = |hook: &&Hook| round == Round::First || hook.value["reinvocationPolicy"] == "IfNeeded";
        for hooks in configured {
            for hook in hooks.iter().filter(wants) {
                let outcome = Outcome { new: Some(object), old };
                let Some((resource, shown)) = self.wanted(hook, request, outcome).await? else { continue };
                let resource = &*resource;
                let Some(Admitted { patch: Some(patch) }) =
                    self.call(hook, request, resource, &shown).await?
                else {
                    continue;
                };
                let failed = |status: Status| {
                    Status::internal(format!(
                        "failed to apply the patch of webhook {:?}: {}",
                        hook.name, status.message
                    ))
                };
                let Some(before) = &shown.new else { continue };
                let changed = machinery::patch(resource, PatchType::Json, before, &patch).map_err(failed)?;
                *object = self.take_back(request, changed, object, resource).await.map_err(failed)?;
            }
        }
        Ok(*object != before)
    }

    /// Asks the webhooks that may change objects about a delete, one after the other.
    pub(super) async fn call_before_delete(
        &self,
        request: &AdmissionRequest<'_>,
        old: &Object,
    ) -> Result<(), Status> {
        for hooks in self.configured.mutating_hooks(request.state) {
            for hook in hooks.iter() {
                let outcome = Outcome { new: None, old: Some(old) };
                let Some((resource, shown)) = self.wanted(hook, request, outcome).await? else { continue };
                let Some(Admitted { patch: Some(_) }) = self.call(hook, request, &resource, &shown).await?
                else {
                    continue;
                };
                return Err(Status::internal(format!(
                    "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                    hook.name
                )));
            }
        }
        Ok(())
    }

    /// Asks the webhooks that judge, all at once.
    pub(super) async fn call_validating(
        &self,
        request: &AdmissionRequest<'_>,
        outcome: Outcome<'_>,
    ) -> Result<(), Status> {
        let configured = self.configured.validating_hooks(request.state);
        let mut wanted = Vec::new();
        for hook in configured.iter().flat_map(|hooks| hooks.iter()) {
            let shown = self.wanted(hook, request, outcome).await?;
            wanted.extend(shown.map(|(resource, shown)| (hook, resource, shown)));
        }
        let calls = wanted.iter().map(|(hook, resource, shown)| self.call(hook, request, resource, shown));
        // All of them are waited for, even after a refusal: the client gets the first in the order of the
        // configurations, not the fastest, so that the same request gets the same answer.
        futures::future::join_all(calls).await.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }

    /// How the request is shown to the webhook; nothing if it isn't asked.
    async fn wanted<'r>(
        &self,
        hook: &Hook,
        request: &'r AdmissionRequest<'_>,
        outcome: Outcome<'_>,
    ) -> Result<Option<(Cow<'r, Resource>, Shown)>, Status> {
        let Some(resource) = matched(&hook.value, "rules", request, outcome) else { return Ok(None) };
        let shown = self.show(request, outcome, &resource).await?;
        if hook.conditions.is_empty() {
            return Ok(Some((resource, shown)));
        }
        let asked = request_value(request, &resource);
        let value = |object: &Option<Object>| object.clone().map(Object::into_value);
        let (new, old) = (value(&shown.new), value(&shown.old));
        let authorizer = guard::values(&self.authorizer, request);
        let inputs = Inputs {
            object: new.as_ref(),
            old_object: old.as_ref(),
            request: &asked,
            namespace: None,
            params: None,
            authorizer: Some(&authorizer),
        };
        match conditions_hold(&hook.conditions, &inputs, &mut Budget::default()) {
            Ok(holds) => Ok(holds.then_some((resource, shown))),
            Err(why) if hook.value["failurePolicy"] != "Ignore" => Err(request.named.forbidden(&why)),
            Err(why) => {
                tracing::warn!(webhook = hook.name, why, "a webhook's conditions failed, and it isn't asked");
                Ok(None)
            }
        }
    }

    /// Asks one; nothing if it could not be asked, and that doesn't matter.
    async fn call(
        &self,
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        resource: &Resource,
        shown: &Shown,
    ) -> Result<Option<Admitted>, Status> {
        let effects = hook.value["sideEffects"].as_str().unwrap_or("Unknown");
        if request.dry_run && !matches!(effects, "None" | "NoneOnDryRun") {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Status::bad_request(why));
        }
        let versions = hook.value["admissionReviewVersions"].as_array();
        let known = versions.into_iter().flatten().filter_map(Value::as_str);
        let version = known.into_iter().find(|version| matches!(*version, "v1" | "v1beta1")).unwrap_or("v1");
        let review = format!("admission.k8s.io/{version}");
        let uid = request.edge.uid();
        let mut asked = json!({"uid": uid});
        if let (Value::Object(asked), Value::Object(rest)) = (&mut asked, request_value(request, resource)) {
            asked.extend(rest);
            let value = |object: &Option<Object>| object.clone().map_or(Value::Null, Object::into_value);
            asked.insert("object".into(), value(&shown.new));
            asked.insert("oldObject".into(), value(&shown.old));
        }
        let body = json!({"kind": "AdmissionReview", "apiVersion": review, "request": asked});
        // The API's own default and bounds.
        let seconds = hook.value["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30);
        let answer = self.client.post(&hook.value["clientConfig"], &body, seconds).await;
        let answer = answer
            .map_err(|error| format!("failed to call webhook: {error}"))
            .and_then(|answer| response(answer, &review, &uid));
        let response = match answer {
            Ok(response) => response,
            Err(why) if hook.value["failurePolicy"] == "Ignore" => {
                tracing::warn!(webhook = hook.name, why, "a webhook failed, and is ignored");
                return Ok(None);
            }
            Err(why) => {
                return Err(Status::internal(format!("failed calling webhook {:?}: {why}", hook.name)));
            }
        };
        for warning in response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            warnings::warn(warning.chars().take(LONGEST_WARNING).collect::<String>());
        }
        if response["allowed"] != true {
            return Err(denied(&hook.name, &response["status"]));
        }
        Ok(Some(Admitted { patch: patch(hook, &response)? }))
    }
}

/// The response in a review, if it is one to this request.
fn response(mut review: Value, version: &str, uid: &str) -> Result<Value, String> {
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != version {
        return Err(format!(
            "expected webhook response of {version}, Kind=AdmissionReview, got {}, Kind={}",
            review["apiVersion"], review["kind"]
        ));
    }
    let response = review["response"].take();
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    // The older version didn't have to repeat it.
    if response["uid"] != uid && !version.ends_with("v1beta1") {
        return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
    }
    Ok(response)
}

fn patch(hook: &Hook, response: &Value) -> Result<Option<Value>, Status> {
    let Some(text) = response["patch"].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |why: String| {
        Status::internal(format!("received invalid webhook response of {:?}: {why}", hook.name))
    };
    if response["patchType"].as_str().is_some_and(|kind| kind != "JSONPatch") {
        return Err(wrong(format!("unsupported patch type {}", response["patchType"])));
    }
    let bytes = STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
    values::from_json(&bytes).map(Some).map_err(|error| wrong(format!("the patch is no JSON: {error}")))
}

/// The reasons that clients know.
const REASONS: [&str; 18] = [
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Invalid",
    "ServerTimeout",
    "Timeout",
    "TooManyRequests",
    "BadRequest",
    "MethodNotAllowed",
    "NotAcceptable",
    "RequestEntityTooLarge",
    "UnsupportedMediaType",
    "InternalError",
    "Expired",
    "ServiceUnavailable",
];

/// A webhook's refusal, as it words it.
fn denied(name: &str, status: &Value) -> Status {
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let by = format!("admission webhook {name:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let code = status["code"].as_u64().filter(|code| (400..600).contains(code)).unwrap_or(400) as u16;
    let reason = REASONS.into_iter().find(|known| *known == text("reason")).unwrap_or_default();
    let mut refusal = Status::new(code, reason, message);
    refusal.details = serde_json::from_value::<Details>(status["details"].clone()).ok().map(Box::new);
    refusal
}
