//! Faults of pod specs: `ValidatePodSpec` of `pkg/apis/core/validation` upstream.

mod container;
mod files;

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use container::validate_containers;
use files::validate_files;

use super::gates::validate_gates;
use crate::faults::Faults;
use crate::name;
use crate::status::Cause;
use crate::validate::validate_labels;

/// The faults of a pod spec at `path`.
pub(crate) fn validate_pod_spec(spec: &Value, path: &str, faults: &mut Faults) {
    let volumes = validate_volumes(&spec["volumes"], &format!("{path}.volumes"), faults);
    validate_containers(spec, path, &volumes, faults);
    validate_labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), faults);
    for (field, fault) in [
        ("serviceAccountName", name::subdomain_fault as fn(&str) -> Option<&'static str>),
        ("nodeName", name::subdomain_fault),
        ("hostname", name::label_fault),
        ("subdomain", name::label_fault),
        ("runtimeClassName", name::subdomain_fault),
        ("priorityClassName", name::subdomain_fault),
    ] {
        if let Some(text) = spec[field].as_str().filter(|text| !text.is_empty())
            && let Some(why) = fault(text)
        {
            faults.push(Cause::invalid(format!("{path}.{field}"), &spec[field], why));
        }
    }
    validate_seconds(spec, path, faults);
    validate_gates(&spec["schedulingGates"], &format!("{path}.schedulingGates"), faults);
    validate_tolerations(&spec["tolerations"], &format!("{path}.tolerations"), faults);
    for (index, constraint) in items(&spec["topologySpreadConstraints"]).enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{index}]");
        if constraint["maxSkew"].as_i64().is_none_or(|skew| skew < 1) {
            let why = "must be greater than zero";
            faults.push(Cause::invalid(format!("{path}.maxSkew"), &constraint["maxSkew"], why));
        }
        for field in ["topologyKey", "whenUnsatisfiable"] {
            if constraint[field].as_str().unwrap_or_default().is_empty() {
                faults.push(Cause::required(format!("{path}.{field}"), "can not be empty"));
            }
        }
    }
    for (index, alias) in items(&spec["hostAliases"]).enumerate() {
        if alias["ip"].as_str().is_none_or(|ip| ip.parse::<IpAddr>().is_err()) {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.push(Cause::invalid(format!("{path}.hostAliases[{index}].ip"), &alias["ip"], why));
        }
    }
}

fn validate_seconds(spec: &Value, path: &str, faults: &mut Faults) {
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        let why = "must be between 1 and 2147483647, inclusive";
        faults.push(Cause::invalid(format!("{path}.activeDeadlineSeconds"), deadline, why));
    }
    let grace = &spec["terminationGracePeriodSeconds"];
    if grace.as_i64().is_some_and(|seconds| seconds < 0) {
        let why = "must be greater than or equal to 0";
        faults.push(Cause::invalid(format!("{path}.terminationGracePeriodSeconds"), grace, why));
    }
}

fn validate_tolerations(tolerations: &Value, path: &str, faults: &mut Faults) {
    for (index, toleration) in items(tolerations).enumerate() {
        let path = format!("{path}[{index}]");
        let text = |field: &str| toleration[field].as_str().unwrap_or_default();
        if let Some(why) = name::qualified_fault(text("key")).filter(|_| !text("key").is_empty()) {
            faults.push(Cause::invalid(format!("{path}.key"), &toleration["key"], why));
        }
        if text("key").is_empty() && text("operator") != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            faults.push(Cause::invalid(format!("{path}.operator"), &json!(text("operator")), why));
        }
        if text("operator") == "Exists" && !text("value").is_empty() {
            let why = "value must be empty when `operator` is 'Exists'";
            faults.push(Cause::invalid(format!("{path}.operator"), &toleration["value"], why));
        }
        if !toleration["tolerationSeconds"].is_null() && text("effect") != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            faults.push(Cause::invalid(format!("{path}.effect"), &json!(text("effect")), why));
        }
    }
}

/// Faults of the volumes; their names.
fn validate_volumes<'a>(volumes: &'a Value, path: &str, faults: &mut Faults) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (index, volume) in items(volumes).enumerate() {
        let path = format!("{path}[{index}]");
        let name = volume["name"].as_str().unwrap_or_default();
        validate_unique_name(name, &path, &mut names, faults);
        let mut sources =
            volume.as_object().into_iter().flat_map(|map| map.keys()).filter(|key| *key != "name");
        if sources.next().is_some() && sources.next().is_some() {
            faults.push(Cause::forbidden(&path, "may not specify more than 1 volume type"));
        }
        for (source, field) in
            [("hostPath", "path"), ("secret", "secretName"), ("persistentVolumeClaim", "claimName")]
        {
            let source_of = &volume[source];
            if source_of.is_object() && source_of[field].as_str().unwrap_or_default().is_empty() {
                faults.push(Cause::required(format!("{path}.{source}.{field}"), ""));
            }
        }
        validate_files(volume, &path, faults);
        if volume["hostPath"]["path"].as_str().is_some_and(|path| path.split('/').any(|part| part == "..")) {
            let field = format!("{path}.hostPath.path");
            faults.push(Cause::invalid(field, &volume["hostPath"]["path"], "must not contain '..'"));
        }
    }
    names
}

/// A DNS label that is none of `taken`, and is from now on.
fn validate_unique_name<'a>(name: &'a str, path: &str, taken: &mut HashSet<&'a str>, faults: &mut Faults) {
    let field = format!("{path}.name");
    if name.is_empty() {
        faults.push(Cause::required(field, ""));
    } else if let Some(why) = name::label_fault(name) {
        faults.push(Cause::invalid(field, &json!(name), why));
    } else if taken.contains(name) {
        faults.push(Cause::duplicate(field, &json!(name)));
    }
    taken.insert(name);
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
