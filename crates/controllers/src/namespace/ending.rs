//! Why a namespace that is being deleted is still there: five conditions, with the words of
//! `pkg/controller/namespace/deletion/status_condition_utils.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{Write, parse};
use serde_json::json;

use super::is_ours;
use crate::plan::{Plan, merge_this};
use crate::touched::Touched;
use crate::view::View;

/// The least time between two looks: a namespace that goes at once needs no explanation, and one with many objects is
/// not written for each of them.
pub const PAUSE: Duration = Duration::from_secs(2);

const DISCOVERY: &str = "NamespaceDeletionDiscoveryFailure";
const PARSING: &str = "NamespaceDeletionGroupVersionParsingFailure";
const DELETION: &str = "NamespaceDeletionContentFailure";
const CONTENT: &str = "NamespaceContentRemaining";
const FINALIZERS: &str = "NamespaceFinalizersRemaining";

/// What is wrong: type, reason and message.
type Finding = (&'static str, &'static str, String);
/// The names of the namespaces that are being deleted.
pub(super) fn all(view: &View) -> impl Iterator<Item = &str> {
    let closing = view.table::<Namespace>().iter().filter(|n| n.metadata.deletion_timestamp.is_some());
    closing.filter_map(|namespace| namespace.metadata.name.as_deref())
}

/// The namespaces that a change may bring nearer to their end: the one that something lies in, or all if it is another
/// question now what kinds there are.
pub(super) fn closing(view: &View, change: &Touched, mut each: impl FnMut(&str)) {
    if change.doubted().is_some() {
        all(view).for_each(&mut each);
    }
    let owned = change.owned();
    if owned.same_end() && owned.same_owners() {
        return;
    }
    if let Some(node) = owned.latest().filter(|n| !n.namespace.is_empty() && !view.is_open(&n.namespace)) {
        each(&node.namespace);
    }
}

/// Says in a namespace's status what it waits for.
pub fn report(view: &View, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = view.table::<Namespace>().get("", name) else { return plan };
    if namespace.metadata.deletion_timestamp.is_none() || !is_ours(namespace) {
        return plan;
    }
    let findings = findings(view, namespace, name);
    let known = known(namespace);
    // Nothing is wrong and nothing ever was: it is about to go.
    if findings.is_empty() && known.is_empty() {
        return plan;
    }
    let conditions = with(known, &findings, now);
    if conditions != self::known(namespace) {
        plan.write(merge_this(namespace.as_ref(), "status", json!({"status": {"conditions": conditions}})));
    }
    plan
}

/// What to write if something in a namespace may not be deleted; `{}` stands for the reason.
pub(super) fn refused(namespace: &Arc<Namespace>, now: Timestamp) -> Write {
    let message = "Failed to delete all resource types, 1 remaining: {}".to_owned();
    let mut conditions = known(namespace);
    put(&mut conditions, (DELETION, "ContentDeletionFailed", message), true, now);
    // Which version of the namespace is there by then doesn't matter: nobody else writes its conditions.
    crate::plan::merge(namespace.as_ref(), "status", json!({"status": {"conditions": conditions}}))
}

fn known(namespace: &Namespace) -> Vec<NamespaceCondition> {
    namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default()
}

fn findings(view: &View, namespace: &Namespace, name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let silent: Vec<&str> = view.graph.kinds().unavailable().collect();
    if !silent.is_empty() {
        let each: Vec<String> = silent
            .iter()
            .map(|version| format!("{version}: stale GroupVersion discovery: {version}"))
            .collect();
        let message = format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
            silent.len(),
            each.join(", ")
        );
        findings.push((DISCOVERY, "DiscoveryFailed", message));
    }
    let (mut resources, mut finalizers) = (BTreeMap::<String, usize>::new(), BTreeMap::<&str, usize>::new());
    let mut untouched = false;
    for node in view.graph.in_namespace(name) {
        let Some(place) = parse(&node.key) else { continue };
        *resources.entry(format!("{}.{}", place.resource, place.group)).or_default() += 1;
        for finalizer in &*node.finalizers {
            *finalizers.entry(finalizer).or_default() += 1;
        }
        untouched |= !node.deleting;
    }
    // Only the writer that was refused knows of a refusal: the condition stays until everything is being deleted.
    let failed = known(namespace).into_iter().find(|c| c.type_ == DELETION && c.status == "True");
    if let Some(failed) = failed.filter(|_| untouched) {
        findings.push((DELETION, "ContentDeletionFailed", failed.message.unwrap_or_default()));
    }
    if !resources.is_empty() {
        let each: Vec<String> = resources
            .iter()
            .map(|(resource, count)| format!("{resource} has {count} resource instances"))
            .collect();
        let message = format!("Some resources are remaining: {}", each.join(", "));
        findings.push((CONTENT, "SomeResourcesRemain", message));
    }
    if !finalizers.is_empty() {
        let each: Vec<String> =
            finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
        let message = format!("Some content in the namespace has finalizers remaining: {}", each.join(", "));
        findings.push((FINALIZERS, "SomeFinalizersRemain", message));
    }
    findings
}

/// The conditions with what was found, and with their good news where nothing was.
fn with(
    mut conditions: Vec<NamespaceCondition>,
    findings: &[Finding],
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    for (kind, reason, message) in [
        (DISCOVERY, "ResourcesDiscovered", "All resources successfully discovered"),
        (PARSING, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (DELETION, "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        (CONTENT, "ContentRemoved", "All content successfully removed"),
        (FINALIZERS, "ContentRemoved", "All content successfully removed"),
    ] {
        let found = findings.iter().find(|(found, ..)| *found == kind);
        let finding = found.cloned().unwrap_or((kind, reason, message.to_owned()));
        put(&mut conditions, finding, found.is_some(), now);
    }
    conditions
}

fn put(conditions: &mut Vec<NamespaceCondition>, finding: Finding, holds: bool, now: Timestamp) {
    let (kind, reason, message) = finding;
    let status = if holds { "True" } else { "False" };
    let known = conditions.iter().position(|condition| condition.type_ == kind);
    let since = known.map(|at| &conditions[at]).filter(|known| known.status == status);
    let since = since.and_then(|known| known.last_transition_time.clone());
    let condition = NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: since.or(Some(Time(now))),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}
