//! The Pod Security Standards: what the labels of a namespace say of its pods is enforced, or warned of.
//!
//! Follows `k8s.io/pod-security-admission` upstream, its sentences included.

mod baseline;
mod check;
mod policy;
mod restricted;

use std::collections::BTreeMap;

use machinery::{Cause, Object, Status};
use objects::{load, look};
use serde_json::{Value, json};
use store::{KeyRange, State};

use self::check::Subject;
use self::policy::{LABELS, Level, Policies, Policy};
use super::request::{AdmissionRequest, Operation};
use crate::http::annotations::annotate;
use crate::http::warnings::warn;

const AUDIT_VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";
/// The most pods of a namespace that are looked at when its labels change, as upstream (`defaultNamespaceMaxPodsToCheck`).
const MOST_PODS: usize = 3000;

/// 403 for a pod that its namespace forbids; a warning for one that it warns of.
pub(super) fn check_pod(
    request: &AdmissionRequest<'_>,
    pod: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let concerned = match request.operation {
        Operation::Create => request.subresource.is_empty(),
        Operation::Update => {
            matches!(request.subresource, "" | "ephemeralcontainers")
                && old.is_some_and(|old| is_significant(pod, old))
        }
        Operation::Delete | Operation::Connect => false,
    };
    if !concerned {
        return Ok(());
    }
    let policies = policies_of(request.named.namespace, request.state);
    let subject = Subject::of_pod(pod, request.state);
    if let Some(violations) = violations(&policies.enforce, &subject) {
        let why = format!("violates PodSecurity \"{}\": {violations}", policies.enforce);
        return Err(request.named.forbidden(&why));
    }
    tell_of(request, &policies, &subject);
    Ok(())
}

/// Warns of the pods that an object would make.
pub(super) fn check_template(request: &AdmissionRequest<'_>, object: &Object) {
    let template = match object.kind() {
        "PodTemplate" => "/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    };
    let Some(template) = object.pointer(template).filter(|_| request.subresource.is_empty()) else { return };
    let subject = Subject::of_template(template, request.state);
    tell_of(request, &policies_of(request.named.namespace, request.state), &subject);
}

/// Says what the namespace warns of to the caller, and what it audits to the audit and to the host's own log.
fn tell_of(request: &AdmissionRequest<'_>, policies: &Policies, subject: &Subject<'_>) {
    if let Some(violations) = violations(&policies.audit, subject) {
        annotate(AUDIT_VIOLATIONS, format!("would violate PodSecurity \"{}\": {violations}", policies.audit));
        tracing::info!(
            object = request.named.key(), user = request.who.user, policy = %policies.audit, violations,
            "a change that Pod Security would refuse, for the audit"
        );
    }
    if let Some(violations) = violations(&policies.warn, subject) {
        warn(format!("would violate PodSecurity \"{}\": {violations}", policies.warn));
    }
}

/// 422 for labels that mean nothing; a warning of the pods that a stricter level would not let in.
pub(super) fn check_namespace(
    request: &AdmissionRequest<'_>,
    namespace: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if !request.subresource.is_empty() {
        return Ok(());
    }
    let labels = namespace.labels();
    let faults = |labels: &BTreeMap<&str, &str>| -> Vec<Cause> {
        let given = LABELS.iter().filter_map(|label| Some((label, *labels.get(label.as_str())?)));
        given.filter_map(|(label, value)| label.fault(value)).collect()
    };
    let found = faults(&labels);
    let known = old.map(|old| faults(&old.labels())).unwrap_or_default();
    if !found.is_empty() && found != known {
        return Err(Status::invalid("", "Namespace", namespace.name(), found));
    }
    let Some(old) = old else { return Ok(()) };
    let (new, before) = (Policies::of(&labels).enforce, Policies::of(&old.labels()).enforce);
    if new == before || new.level == Level::Privileged || !new.may_be_stricter_than(&before) {
        return Ok(());
    }
    warn_of_existing(namespace.name(), &new, request.state);
    Ok(())
}

fn warn_of_existing(namespace: &str, policy: &Policy, state: &State) {
    let prefix = objects::namespace_prefix("", "pods", namespace);
    let pods = state.range(&KeyRange::prefix(prefix)).take(MOST_PODS).filter_map(|kv| load(kv).ok());
    let mut by_violations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in pods {
        if let Some(violations) = violations(policy, &Subject::of_pod(&pod, state)) {
            by_violations.entry(violations).or_default().push(pod.name().to_owned());
        }
    }
    if by_violations.is_empty() {
        return;
    }
    warn(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{policy}\""
    ));
    let mut lines: Vec<String> =
        by_violations.iter().map(|(violations, names)| tell(names, violations)).collect();
    lines.sort_unstable();
    lines.into_iter().for_each(warn);
}

fn tell(names: &[String], violations: &str) -> String {
    let first = names.first().map(String::as_str).unwrap_or_default();
    match names.len() {
        0 | 1 => format!("{first}: {violations}"),
        2 => format!("{first} (and 1 other pod): {violations}"),
        many => format!("{first} (and {} other pods): {violations}", many - 1),
    }
}

fn policies_of(namespace: &str, state: &State) -> Policies {
    let key = objects::key("", "namespaces", "", namespace);
    let namespace = state.get(key.as_bytes()).and_then(|kv| look(kv).ok());
    namespace.map_or_else(Policies::default, |namespace| Policies::of(&namespace.labels()))
}

/// What of a pod a policy forbids, in words.
fn violations(policy: &Policy, subject: &Subject<'_>) -> Option<String> {
    let mut found = Vec::new();
    if policy.level >= Level::Baseline {
        baseline::check(subject, policy.version, policy.level == Level::Restricted, &mut found);
    }
    if policy.level == Level::Restricted {
        restricted::check(subject, policy.version, &mut found);
    }
    (!found.is_empty()).then(|| found.join(", "))
}

/// Whether a change of a pod is one that its namespace has a say in: images, containers, profiles.
fn is_significant(pod: &Object, old: &Object) -> bool {
    let images = |pod: &Object| -> Vec<Value> {
        let lists = ["containers", "initContainers", "ephemeralContainers"].into_iter();
        let lists = lists.filter_map(|list| pod.pointer(&format!("/spec/{list}"))?.as_array());
        lists.flatten().map(|container| json!([container["name"], container["image"]])).collect()
    };
    let profiles = |pod: &Object| -> Vec<(String, Value)> {
        let annotations = pod.meta("annotations").and_then(Value::as_object).cloned().unwrap_or_default();
        annotations.into_iter().filter(|(key, _)| key.starts_with(baseline::APP_ARMOR)).collect()
    };
    images(pod) != images(old) || profiles(pod) != profiles(old)
}

#[cfg(test)]
mod tests;
