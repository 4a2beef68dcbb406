//! `LimitRange`.

use std::collections::HashSet;

use cel::Quantity;
use machinery::name::qualified_faults;
use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, Object};
use serde_json::{Map, Value, json};

use super::pod::validate_resource_name;

pub(crate) struct LimitRange;

/// The kinds of things that Kubernetes itself limits.
const KINDS: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

type Amounts<'a> = Option<&'a Map<String, Value>>;

impl Rules for LimitRange {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 0)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn names_itself(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        let limits = object.0.get_mut("spec").and_then(|spec| spec.get_mut("limits"));
        for item in
            limits.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
        {
            if item.get("type").is_some_and(|kind| kind == "Container") {
                // What is limited is given, and what is given is asked for, unless they are given.
                fill_from(item, "default", "max");
                fill_from(item, "defaultRequest", "default");
                fill_from(item, "defaultRequest", "min");
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let limits = object.pointer("/spec/limits").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut kinds = HashSet::new();
        for (index, item) in limits.iter().enumerate() {
            let path = format!("spec.limits[{index}]");
            let kind = &item["type"];
            let name = kind.as_str().unwrap_or_default();
            let known = KINDS.contains(&name);
            let mut is_qualified = true;
            for why in qualified_faults(name) {
                is_qualified = false;
                faults.push(Cause::invalid(format!("{path}.type"), kind, why));
            }
            if is_qualified && !known && !name.contains('/') {
                let why = "must be a standard limit type or fully qualified";
                faults.push(Cause::invalid(format!("{path}.type"), kind, why));
            }
            if !kinds.insert(kind) {
                faults.push(Cause::duplicate(format!("{path}.type"), kind));
            }
            validate_item(item, name, &path, faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::of("Created At", "date")] }
    }

    fn cells(&self, object: &Object, _now: i64) -> Vec<Value> {
        vec![json!(object.name()), object.meta("creationTimestamp").cloned().unwrap_or(Value::Null)]
    }
}

fn fill_from(item: &mut Map<String, Value>, field: &str, source: &str) {
    let Some(amounts) = item.get(source).and_then(Value::as_object).cloned() else { return };
    if let Value::Object(filled) = item.entry(field).or_insert_with(|| json!({})) {
        for (resource, amount) in amounts {
            filled.entry(resource).or_insert(amount);
        }
    }
}

fn validate_item(item: &Value, kind: &str, path: &str, faults: &mut Faults) {
    let of = |field: &str| item[field].as_object();
    for field in ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"] {
        for resource in of(field).into_iter().flatten().map(|(resource, _)| resource) {
            let field = format!("{path}.{field}[{resource}]");
            if matches!(kind, "Container" | "Pod") {
                validate_resource_name(resource, &field, faults);
            } else {
                for why in qualified_faults(resource) {
                    faults.push(Cause::invalid(&field, &json!(resource), why));
                }
            }
        }
    }
    if kind == "Pod" {
        for field in ["default", "defaultRequest"] {
            if of(field).is_some_and(|amounts| !amounts.is_empty()) {
                let why = "may not be specified when `type` is 'Pod'";
                faults.push(Cause::forbidden(format!("{path}.{field}"), why));
            }
        }
    }
    if kind == "PersistentVolumeClaim"
        && amount(of("min"), "storage").is_none()
        && amount(of("max"), "storage").is_none()
    {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        faults.push(Cause::required(format!("{path}.limits"), why));
    }
    let mut resources: Vec<&String> = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"]
        .iter()
        .flat_map(|field| of(field).into_iter().flatten().map(|(resource, _)| resource))
        .collect();
    resources.sort_unstable();
    resources.dedup();
    for resource in resources {
        validate_resource(item, resource, path, faults);
    }
}

fn validate_resource(item: &Value, resource: &str, path: &str, faults: &mut Faults) {
    let of = |field: &str| amount(item[field].as_object(), resource);
    let (max, min) = (of("max"), of("min"));
    let (default, request) = (of("default"), of("defaultRequest"));
    let mut larger = |small: Option<Quantity>, large: Option<Quantity>, field: &str, why: &str| {
        if small.zip(large).is_some_and(|(small, large)| small > large) {
            faults.push(Cause::invalid(format!("{path}.{field}[{resource}]"), &item[field][resource], why));
        }
    };
    larger(min, max, "min", "min value is greater than max value");
    larger(min, request, "defaultRequest", "min value is greater than default request value");
    larger(request, max, "defaultRequest", "default request value is greater than max value");
    larger(request, default, "defaultRequest", "default request value is greater than default limit value");
    larger(min, default, "default", "min value is greater than default value");
    larger(default, max, "default", "default value is greater than max value");
    let Some(ratio) = of("maxLimitRequestRatio") else { return };
    let field = format!("{path}.maxLimitRequestRatio[{resource}]");
    let value = &item["maxLimitRequestRatio"][resource];
    if ratio < Quantity::from_units(1) {
        faults.push(Cause::invalid(&field, value, "ratio is less than 1"));
    }
    // Nothing is too much beside a minimum of 0, and anything beside one below that.
    if let Some((max, min)) = max.zip(min).filter(|(_, min)| min.milli() != 0)
        && (min.is_negative() || ratio.milli().saturating_mul(min.milli()) > max.milli().saturating_mul(1000))
    {
        faults.push(Cause::invalid(field, value, "ratio is greater than max/min"));
    }
}

fn amount(amounts: Amounts<'_>, resource: &str) -> Option<Quantity> {
    Quantity::parse(amounts?.get(resource)?.as_str()?).ok()
}
