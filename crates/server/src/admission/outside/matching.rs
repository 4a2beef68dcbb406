//! Whether a policy or a webhook is about a request.
//!
//! Follows `pkg/admission/plugin/webhook/predicates` of apiserver.

use std::borrow::Cow;

use machinery::{LabelSelector, Object, Resource};
use objects::load;
use serde_json::Value;

use crate::admission::{AdmissionRequest, Operation, Outcome};

/// Nothing that is configured decides over what is configured: nobody could repair it.
const OWN_GROUP: &str = "admissionregistration.k8s.io";

/// Whether anybody outside is asked about the request at all.
pub(super) fn is_exempt(request: &AdmissionRequest<'_>) -> bool {
    let resource = request.named.resource;
    resource.group == OWN_GROUP
}

/// The operation as rules name it.
pub(super) fn operation(request: &AdmissionRequest<'_>) -> &'static str {
    match request.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// The resource in whose form the request is shown to a policy (`matchConstraints`, `matchResources`) or a webhook;
/// nothing if it isn't about the request. `rules` is the list's name.
pub(super) fn matched<'r>(
    constraints: &Value,
    rules: &str,
    request: &'r AdmissionRequest<'_>,
    outcome: Outcome<'_>,
) -> Option<Cow<'r, Resource>> {
    if !selects_namespace(&constraints["namespaceSelector"], request, outcome)
        || !selects_object(&constraints["objectSelector"], outcome)
    {
        return None;
    }
    let own = request.named.resource;
    let exact_only = constraints["matchPolicy"] == "Exact";
    if by_rules(&constraints["excludeResourceRules"], request, own, exact_only).is_some() {
        return None;
    }
    match &constraints[rules] {
        Value::Array(list) if !list.is_empty() => by_rules(&constraints[rules], request, own, exact_only),
        // A binding without rules narrows nothing; a webhook without rules matches nothing.
        _ => (rules == "resourceRules").then_some(Cow::Borrowed(own)),
    }
}

fn by_rules<'r>(
    rules: &Value,
    request: &AdmissionRequest<'_>,
    own: &'r Resource,
    exact_only: bool,
) -> Option<Cow<'r, Resource>> {
    let rules = rules.as_array().filter(|rules| !rules.is_empty())?;
    let in_version =
        |resource: &Resource, version: &str| rules.iter().any(|rule| fits(rule, request, resource, version));
    let fits = |resource: &Resource| in_version(resource, resource.version);
    if fits(own) {
        return Some(Cow::Borrowed(own));
    }
    if exact_only {
        return None;
    }
    // The same objects under another group or version.
    if let Some(custom) = own.custom() {
        let definition = custom.definition();
        let version = definition.served_versions().find(|version| in_version(own, version))?;
        let mut others = definition.resources().into_iter();
        return others.find(|other| other.version == version).map(|other| Cow::Owned((*other).clone()));
    }
    let same = |other: &&'static Resource| other.stored_under() == own.stored_under() && **other != *own;
    api::resources().filter(same).find(|other| fits(other)).map(Cow::Borrowed)
}

fn fits(rule: &Value, request: &AdmissionRequest<'_>, resource: &Resource, version: &str) -> bool {
    let has = |key: &str, wanted: &str| {
        let list = rule[key].as_array();
        list.into_iter().flatten().any(|item| item == "*" || item == wanted)
    };
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    let named = names.is_none_or(|names| names.iter().any(|name| name == request.named.name));
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => resource.namespaced,
        Some("Cluster") => !resource.namespaced,
        _ => true,
    };
    let covers = |pattern: &Value| {
        let pattern = pattern.as_str().unwrap_or_default();
        let (plural, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        (plural == "*" || plural == resource.plural)
            && (subresource == "*" || subresource == request.subresource)
    };
    scope
        && named
        && has("operations", operation(request))
        && has("apiGroups", resource.group)
        && has("apiVersions", version)
        && rule["resources"].as_array().into_iter().flatten().any(covers)
}

fn is_empty(selector: &Value) -> bool {
    selector.as_object().is_none_or(serde_json::Map::is_empty)
}

fn selects_namespace(selector: &Value, request: &AdmissionRequest<'_>, outcome: Outcome<'_>) -> bool {
    if is_empty(selector) {
        return true;
    }
    let Some(selector) = LabelSelector::from_value(selector) else { return false };
    let resource = request.named.resource;
    if (resource.group, resource.plural) == ("", "namespaces") {
        return outcome.new.or(outcome.old).is_some_and(|namespace| selector.matches(namespace));
    }
    if !resource.namespaced {
        return true;
    }
    namespace_of(request).is_some_and(|namespace| selector.matches(&namespace))
}

fn selects_object(selector: &Value, outcome: Outcome<'_>) -> bool {
    if is_empty(selector) {
        return true;
    }
    let Some(selector) = LabelSelector::from_value(selector) else { return false };
    // What can't have labels, such as the options of a stream, is never selected.
    let mut labelled =
        [outcome.new, outcome.old].into_iter().flatten().filter(|o| o.0.contains_key("metadata"));
    labelled.any(|object| selector.matches(object))
}

/// The namespace that the object lies in.
pub(super) fn namespace_of(request: &AdmissionRequest<'_>) -> Option<Object> {
    if request.named.namespace.is_empty() {
        return None;
    }
    let key = objects::key("", "namespaces", "", request.named.namespace);
    load(request.state.get(key.as_bytes())?).ok()
}
