//! `ResourceQuota`.

use cel::Quantity;
use machinery::name::qualified_faults;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::field::{items, text};
use super::workload::validate_stays;

pub(crate) struct ResourceQuota;

/// Resources without a domain that a quota can limit.
const RESOURCES: [&str; 22] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
    "requests.hugepages-",
    "hugepages-",
];

/// Resources of which there are only whole ones.
const WHOLE: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Scopes that leave nothing to count when they stand together.
const CONFLICTING: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

impl Rules for ResourceQuota {
    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_amounts(object, "spec", "hard", faults);
        let hard = object.pointer("/spec/hard").unwrap_or(&Value::Null);
        let scopes = object.pointer("/spec/scopes").unwrap_or(&Value::Null);
        for scope in items(scopes) {
            if !SCOPES.iter().any(|known| scope == known) {
                faults.push(Cause::invalid("spec.scopes", scopes, "unsupported scope"));
            }
            validate_counts(hard, scope, "spec.scopes", faults);
        }
        if conflict(items(scopes).iter()) {
            faults.push(Cause::invalid("spec.scopes", scopes, "conflicting scopes"));
        }
        let selector = object.pointer("/spec/scopeSelector").unwrap_or(&Value::Null);
        validate_scope_selector(selector, hard, faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            validate_amounts(object, "status", "hard", faults);
            validate_amounts(object, "status", "used", faults);
        } else {
            validate_stays(object, old, "/spec/scopes", faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Request"), Column::text("Limit"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let hard = object.pointer("/status/hard").and_then(Value::as_object);
        let mut resources: Vec<_> = hard.into_iter().flatten().collect();
        resources.sort_unstable_by_key(|(resource, _)| *resource);
        let all = |limits: bool| {
            let of_kind = resources.iter().filter(|(resource, _)| resource.starts_with("limits") == limits);
            let parts = of_kind.map(|(resource, hard)| {
                let used = object.pointer("/status/used").and_then(|used| used.get(*resource));
                let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("0").to_owned();
                format!("{resource}: {}/{}", text(used), text(Some(hard)))
            });
            parts.collect::<Vec<_>>().join(", ")
        };
        vec![json!(object.name()), all(false).into(), all(true).into(), age(object, now)]
    }
}

fn validate_amounts(object: &Object, part: &str, field: &str, faults: &mut Faults) {
    let amounts = object.pointer(&format!("/{part}/{field}")).and_then(Value::as_object);
    for (resource, amount) in amounts.into_iter().flatten() {
        let path = format!("{part}.{field}[{resource}]");
        let mut is_qualified = true;
        for why in qualified_faults(resource) {
            is_qualified = false;
            faults.push(Cause::invalid(&path, &json!(resource), why));
        }
        if !resource.contains('/') && !is_known(resource) {
            if is_qualified {
                let why = "must be a standard resource type or fully qualified";
                faults.push(Cause::invalid(&path, &json!(resource), why));
            }
            let why = "must be a standard resource for quota";
            faults.push(Cause::invalid(&path, &json!(resource), why));
        }
        let Some(quantity) = amount.as_str().and_then(|text| Quantity::parse(text).ok()) else { continue };
        if quantity.is_negative() {
            faults.push(Cause::invalid(&path, amount, "must be greater than or equal to 0"));
        }
        let whole = WHOLE.contains(&resource.as_str()) || resource.starts_with("count/");
        if whole && !quantity.is_whole() {
            faults.push(Cause::invalid(&path, amount, "must be an integer"));
        }
    }
}

fn is_known(resource: &str) -> bool {
    let exact = RESOURCES.iter().any(|known| !known.ends_with('-') && *known == resource);
    exact || RESOURCES.iter().any(|known| known.ends_with('-') && resource.starts_with(known))
}

/// Whether scopes leave nothing to count when they stand together.
fn conflict<'a>(scopes: impl Iterator<Item = &'a Value> + Clone) -> bool {
    CONFLICTING.iter().any(|pair| pair.iter().all(|scope| scopes.clone().any(|given| given == scope)))
}

/// A scope is one of pods or of claims, and resources of other things have none of it: each of them is a fault.
fn validate_counts(hard: &Value, scope: &Value, path: &str, faults: &mut Faults) {
    let of_pods = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory", "pods"];
    let counted: &[&str] = match scope.as_str() {
        Some("BestEffort") => &["pods"],
        Some("VolumeAttributesClass") => &["persistentvolumeclaims", "requests.storage"],
        Some(known) if SCOPES.contains(&known) => &of_pods,
        _ => return,
    };
    let resources = hard.as_object().into_iter().flatten().map(|(resource, _)| resource.as_str());
    for _ in resources.filter(|resource| is_known(resource) && !counted.contains(resource)) {
        faults.push(Cause::invalid(path, scope, "unsupported scope applied to resource"));
    }
}

fn validate_scope_selector(selector: &Value, hard: &Value, faults: &mut Faults) {
    let path = "spec.scopeSelector.matchExpressions";
    let requirements = &selector["matchExpressions"];
    for requirement in items(requirements) {
        let values = items(&requirement["values"]).len();
        let (scope, operator) = (&requirement["scopeName"], text(requirement, "operator"));
        if !SCOPES.iter().any(|known| scope == known) {
            faults.push(Cause::invalid(format!("{path}.scopeName"), scope, "unsupported scope"));
        } else if !matches!(scope.as_str(), Some("PriorityClass" | "VolumeAttributesClass"))
            && operator != "Exists"
        {
            let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                or ResourceQuotaScopeCrossNamespacePodAffinity";
            faults.push(Cause::invalid(format!("{path}.operator"), &requirement["operator"], why));
        }
        validate_counts(hard, scope, path, faults);
        match operator {
            "In" | "NotIn" if values == 0 => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                faults.push(Cause::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                faults.push(Cause::invalid(format!("{path}.values"), &requirement["values"], why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                faults.push(Cause::invalid(format!("{path}.operator"), &requirement["operator"], why));
            }
        }
    }
    if conflict(items(requirements).iter().map(|requirement| &requirement["scopeName"])) {
        faults.push(Cause::invalid(path, requirements, "conflicting scopes"));
    }
}
