//! `resource.k8s.io`: devices that pods claim.

mod claim;
mod class;
mod request;
mod slice;

pub(crate) use claim::{ResourceClaim, ResourceClaimTemplate};
pub(crate) use class::DeviceClass;
pub(crate) use slice::ResourceSlice;

use std::collections::HashSet;

use cel::{Environment, Program, Type};
use machinery::{Cause, Faults, name};
use serde_json::{Value, json};

use super::field;

/// The most items of a list of a claim or a class.
const MOST: usize = 32;
const LONGEST_DRIVER: usize = 63;

/// The name of a driver of devices.
fn validate_driver(driver: &Value, path: &str, faults: &mut Faults) {
    if !field::require(driver, path, "", faults) {
        return;
    }
    if driver.as_str().is_some_and(|driver| driver.len() > LONGEST_DRIVER) {
        faults.push(Cause::too_long(path, LONGEST_DRIVER));
    }
    field::named(driver, path, name::subdomain_fault, faults);
}

/// Selectors of devices, each an expression in CEL.
fn validate_selectors(selectors: &Value, path: &str, faults: &mut Faults) {
    validate_count(selectors, path, faults);
    for (path, selector) in field::paths(selectors, path) {
        let path = format!("{path}.cel");
        if field::require(&selector["cel"], &path, "", faults) {
            let expression = field::text(&selector["cel"], "expression");
            if let Some(why) = expression_fault(expression) {
                faults.push(Cause::invalid(format!("{path}.expression"), &json!(expression), &why));
            }
        }
    }
}

/// Why an expression can't select devices: what it says of a device is known only when there is one.
fn expression_fault(expression: &str) -> Option<String> {
    let environment = Environment::default().with("device", Type::Dyn);
    match Program::compile(&environment, expression) {
        Ok((_, Type::Dyn)) => None,
        Ok((_, result)) if result.to_string() == "bool" => None,
        Ok((_, result)) => Some(format!("must evaluate to bool or the unknown type, not {result}")),
        Err(error) => Some(format!("compilation failed: {error}")),
    }
}

/// Configuration that only its driver can read.
fn validate_opaque(config: &Value, path: &str, faults: &mut Faults) {
    let path = format!("{path}.opaque");
    let opaque = &config["opaque"];
    if !field::require(opaque, &path, "", faults) {
        return;
    }
    validate_driver(&opaque["driver"], &format!("{path}.driver"), faults);
    let parameters = &opaque["parameters"];
    let path = format!("{path}.parameters");
    if parameters.is_null() {
        faults.push(Cause::required(path, ""));
    } else if !parameters.is_object() {
        faults.push(Cause::invalid(path, parameters, "must be a valid JSON object"));
    }
}

fn validate_count(list: &Value, path: &str, faults: &mut Faults) {
    let count = field::items(list).len();
    if count > MOST {
        faults.push(Cause::too_many(path, count, MOST));
    }
}

/// Items of a list of which an earlier one has the same name: upstream names the item, not its name.
fn unique_by_name(list: &Value, path: &str, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (path, item) in field::paths(list, path) {
        if !seen.insert(field::text(item, "name")) {
            faults.push(Cause::duplicate(path, &item["name"]));
        }
    }
}
