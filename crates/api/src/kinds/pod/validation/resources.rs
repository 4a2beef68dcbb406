//! Faults of what containers and pods ask for: `ValidateResourceRequirements` upstream.

use std::collections::HashSet;

use machinery::name::qualified_faults;
use machinery::{Cause, Faults};
use serde_json::{Value, json};

use crate::kinds::field::{items, paths, text};
use cel::Quantity;

const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const OF_PODS: [&str; 2] = ["cpu", "memory"];
const HUGE_PAGES: &str = "hugepages-";

fn amount(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|text| Quantity::parse(text).ok())
}

/// The resources of a container; `claims` are the names of the pod's claims.
pub(super) fn validate_resources(resources: &Value, claims: &HashSet<&str>, path: &str, faults: &mut Faults) {
    validate_amounts(resources, path, validate_name, faults);
    validate_claims(resources, claims, path, faults);
}

fn validate_claims(resources: &Value, claims: &HashSet<&str>, path: &str, faults: &mut Faults) {
    let mut names = HashSet::new();
    for (path, claim) in paths(&resources["claims"], &format!("{path}.claims")) {
        let name = text(claim, "name");
        if name.is_empty() {
            faults.push(Cause::required(path, ""));
        } else if !names.insert((name, text(claim, "request"))) {
            faults.push(Cause::duplicate(path, &json!(name)));
        } else if !claims.contains(name) {
            faults.push(Cause::not_found(path, &json!(name)));
        }
    }
}

type Check = fn(&str, &str, &mut Faults);

fn validate_amounts(resources: &Value, path: &str, check: Check, faults: &mut Faults) {
    for list in ["limits", "requests"] {
        for (resource, value) in resources[list].as_object().into_iter().flatten() {
            let field = format!("{path}.{list}[{resource}]");
            check(resource, &field, faults);
            if amount(value).is_some_and(|amount| amount.is_negative()) {
                faults.push(Cause::invalid(&field, value, "must be greater than or equal to 0"));
            }
            let whole = resource.contains('/') && !resource.starts_with("kubernetes.io/");
            if whole && amount(value).is_some_and(|amount| !amount.is_whole()) {
                faults.push(Cause::invalid(&field, value, "must be an integer"));
            }
        }
    }
    for (resource, value) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][resource];
        let over = is_overcommitted(resource);
        if limit.is_null() && !over {
            let why = "Limit must be set for non overcommitable resources";
            faults.push(Cause::required(format!("{path}.limits"), why));
        }
        if let (Some(request), Some(limit)) = (amount(value), amount(limit))
            && (request > limit || !over && request != limit)
        {
            let relation = if over { "less than or equal to" } else { "equal to" };
            let why = format!("must be {relation} {resource} limit of {limit}");
            faults.push(Cause::invalid(format!("{path}.requests"), value, &why));
        }
    }
    let asks =
        |resource: &str| ["limits", "requests"].iter().any(|list| !resources[*list][resource].is_null());
    let huge = ["limits", "requests"].iter().any(|list| {
        resources[*list].as_object().is_some_and(|map| map.keys().any(|key| key.starts_with(HUGE_PAGES)))
    });
    if huge && !asks("cpu") && !asks("memory") {
        faults.push(Cause::forbidden(path, "HugePages require cpu or memory"));
    }
}

/// Whether more may be promised of it than there is.
fn is_overcommitted(resource: &str) -> bool {
    (!resource.contains('/') || resource.starts_with("kubernetes.io/")) && !resource.starts_with(HUGE_PAGES)
}

/// The name of a resource of a container: without a domain it is one of a few.
pub(crate) fn validate_name(resource: &str, field: &str, faults: &mut Faults) {
    let qualified: Vec<_> = qualified_faults(resource).collect();
    for fault in &qualified {
        faults.push(Cause::invalid(field, &json!(resource), fault));
    }
    if resource.contains('/') || resource.starts_with(HUGE_PAGES) {
        return;
    }
    if qualified.is_empty() && !is_standard(resource) {
        let why = "must be a standard resource type or fully qualified";
        faults.push(Cause::invalid(field, &json!(resource), why));
    }
    if !OF_CONTAINERS.contains(&resource) {
        faults.push(Cause::invalid(field, &json!(resource), "must be a standard resource for containers"));
    }
}

/// Whether a name without a domain is known at all, if only to quotas.
fn is_standard(resource: &str) -> bool {
    let name =
        resource.strip_prefix("requests.").or_else(|| resource.strip_prefix("limits.")).unwrap_or(resource);
    OF_CONTAINERS.contains(&name)
        || matches!(
            resource,
            "pods"
                | "services"
                | "replicationcontrollers"
                | "resourcequotas"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "storage"
                | "requests.storage"
                | "services.nodeports"
                | "services.loadbalancers"
        )
}

/// What a pod takes besides its containers.
pub(crate) fn validate_overhead(overhead: &Value, path: &str, faults: &mut Faults) {
    validate_amounts(&json!({ "limits": overhead }), path, validate_name, faults);
}

/// What a pod as a whole asks for.
pub(super) fn validate_of_pod(spec: &Value, path: &str, faults: &mut Faults) {
    let resources = &spec["resources"];
    if resources.is_null() {
        return;
    }
    let field = format!("{path}.resources");
    if resources["claims"].is_array() {
        faults.push(Cause::forbidden(
            format!("{field}.claims"),
            "claims may not be set for Resources at pod-level",
        ));
    }
    let claims = items(&spec["resourceClaims"]).iter().map(|claim| text(claim, "name")).collect();
    validate_claims(resources, &claims, &field, faults);
    let check: Check = |resource, field, faults| {
        if !OF_PODS.contains(&resource) && !resource.starts_with(HUGE_PAGES) {
            let why = "must be a supported resource at the level of a pod";
            faults.push(Cause::invalid(field, &json!(resource), why));
        }
    };
    validate_amounts(resources, &field, check, faults);
    validate_sums(spec, resources, &field, faults);
}

/// The containers together ask for no more than the pod, and none of them may take more than it.
fn validate_sums(spec: &Value, resources: &Value, path: &str, faults: &mut Faults) {
    for (resource, value) in resources["requests"].as_object().into_iter().flatten() {
        let asked: Vec<i128> = items(&spec["containers"])
            .iter()
            .filter_map(|container| amount(&container["resources"]["requests"][resource]))
            .map(|amount| amount.milli())
            .collect();
        let sum: i128 = asked.iter().sum();
        if !asked.is_empty() && amount(value).is_some_and(|whole| sum > whole.milli()) {
            let why = "must be greater than or equal to aggregate container requests";
            faults.push(Cause::invalid(format!("{path}.requests[{resource}]"), value, why));
        }
    }
    for (resource, value) in resources["limits"].as_object().into_iter().flatten() {
        for (index, container) in items(&spec["containers"]).iter().enumerate() {
            let limit = &container["resources"]["limits"][resource];
            if amount(limit).zip(amount(value)).is_some_and(|(limit, whole)| limit > whole) {
                let why = format!("must be less than or equal to pod limits of {value}");
                faults.push(Cause::invalid(
                    format!("{path}.containers[{index}][{resource}].limits"),
                    limit,
                    &why,
                ));
            }
        }
    }
}
