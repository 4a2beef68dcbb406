//! `Node`.

use std::collections::HashSet;

use machinery::metadata::validate_label_key;
use machinery::name::label_value_fault;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::field::{self, part, paths, text};

pub(crate) struct Node;

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

impl Rules for Node {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(Value::Object(status)) = object.0.get_mut("status")
            && !status.contains_key("allocatable")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status.insert("allocatable".into(), capacity);
        }
        let Some(Value::Object(spec)) = object.0.get_mut("spec") else { return };
        // Nobody keeps an agent's configuration here any more.
        spec.remove("configSource");
        // Two names for one thing, of which the older one counts.
        let first = spec.get("podCIDR").cloned().filter(|first| *first != "");
        let blocks = spec.get("podCIDRs").cloned().unwrap_or_default();
        match first {
            Some(first) if blocks[0] != first => _ = spec.insert("podCIDRs".into(), json!([first])),
            None if !blocks[0].is_null() => _ = spec.insert("podCIDR".into(), blocks[0].clone()),
            _ => {}
        }
    }

    fn keeps_status(&self) -> bool {
        true
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate_taints(&spec["taints"], faults);
        let blocks = paths(&spec["podCIDRs"], "spec.podCIDRs");
        let families: Vec<bool> = blocks
            .filter_map(|(path, block)| Some(field::network(block, path, faults)?.addr().is_ipv4()))
            .collect();
        if families.len() > 2 || families.len() == 2 && families[0] == families[1] {
            let why = "may specify no more than one CIDR for each IP family";
            faults.push(Cause::invalid("spec.podCIDRs", &spec["podCIDRs"], why));
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        // Upstream looks at the taints twice.
        validate_taints(&part(object, "spec")["taints"], faults);
        for field in ["podCIDRs", "providerID"] {
            let pointer = format!("/spec/{field}");
            let before = old.pointer(&pointer);
            if before.is_some() && before != object.pointer(&pointer) {
                let why = "node updates may not change it, except from \"\" to valid";
                faults.push(Cause::forbidden(format!("spec.{field}"), why));
            }
        }
        if text(part(object, "spec"), "externalID") != text(part(old, "spec"), "externalID") {
            faults.push(Cause::forbidden("spec.externalID", "may not be updated"));
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.unschedulable", "/spec/unschedulable")]
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Status"),
                Column::text("Roles"),
                Column::text("Age"),
                Column::text("Version"),
                Column::wide("Internal-IP"),
                Column::wide("External-IP"),
                Column::wide("OS-Image"),
                Column::wide("Kernel-Version"),
                Column::wide("Container-Runtime"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let info = |field: &str| {
            let value = object.pointer("/status/nodeInfo").and_then(|info| info.get(field)?.as_str());
            value.unwrap_or_default()
        };
        let or_unknown = |field: &str| if info(field).is_empty() { "<unknown>" } else { info(field) };
        vec![
            json!(object.name()),
            status(object).into(),
            roles(object).into(),
            age(object, now),
            info("kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            or_unknown("osImage").into(),
            or_unknown("kernelVersion").into(),
            or_unknown("containerRuntimeVersion").into(),
        ]
    }
}

/// Upstream names taints as if they were metadata.
fn validate_taints(taints: &Value, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (path, taint) in paths(taints, "metadata.taints") {
        validate_label_key(&json!(text(taint, "key")), &format!("{path}.key"), faults);
        field::named(&taint["value"], format!("{path}.value"), label_value_fault, faults);
        match text(taint, "effect") {
            "" => faults.push(Cause::required(format!("{path}.effect"), "")),
            effect if !EFFECTS.contains(&effect) => {
                faults.push(Cause::not_supported(format!("{path}.effect"), &taint["effect"], &EFFECTS));
            }
            _ => {}
        }
        if !seen.insert((text(taint, "key"), text(taint, "effect"))) {
            faults.push(Cause::duplicate(path, taint));
        }
    }
}

fn status(object: &Object) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        None => "Unknown",
        Some(ready) if ready["status"] == "True" => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(object: &Object) -> String {
    let labels = object.labels();
    let mut roles: Vec<&str> = labels
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None => (*key == ROLE_LABEL).then_some(*value),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address<'a>(object: &'a Object, kind: &str) -> &'a str {
    let addresses = object.pointer("/status/addresses").and_then(Value::as_array);
    let address = addresses.into_iter().flatten().find(|address| address["type"] == kind);
    address.and_then(|address| address["address"].as_str()).unwrap_or("<none>")
}
