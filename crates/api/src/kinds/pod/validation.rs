//! Faults of pod specs: `ValidatePodSpec` of `pkg/apis/core/validation` upstream.

mod affinity;
mod container;
mod environment;
mod files;
mod ports;
mod probe;
mod resources;
mod security;
mod spread;
mod volume;

use std::collections::HashSet;
use std::net::IpAddr;

use machinery::metadata::{validate_label_key, validate_labels};
use machinery::{Cause, Faults, name};
use serde_json::{Value, json};

pub(crate) use affinity::validate_node_selector;
pub(crate) use resources::{validate_name as validate_resource_name, validate_overhead};

use super::gates::validate_gates;
use super::subresources::validate_ephemeral;
use crate::kinds::field::{items, one_of, paths, text};

type NameFault = fn(&str) -> Option<&'static str>;

/// Longer names of hosts the kernel doesn't take.
const LONGEST_HOST_NAME: usize = 64;
const MOST_NAMESERVERS: usize = 3;
/// In upstream's order, in which they are listed where another is given.
const RESTARTS: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// The faults of a pod spec at `path`.
pub(crate) fn validate_pod_spec(spec: &Value, path: &str, faults: &mut Faults) {
    let volumes = volume::validate_volumes(&spec["volumes"], &format!("{path}.volumes"), faults);
    validate_resource_claims(&spec["resourceClaims"], &format!("{path}.resourceClaims"), faults);
    container::validate_containers(spec, path, &volumes, faults);
    ports::validate_host_ports(spec, path, faults);
    for (field, choices) in [("restartPolicy", &RESTARTS[..]), ("dnsPolicy", &DNS_POLICIES[..])] {
        if !text(spec, field).is_empty() {
            one_of(&spec[field], format!("{path}.{field}"), choices, faults);
        }
    }
    validate_ephemeral(spec, path, faults);
    validate_labels(&spec["nodeSelector"], &format!("{path}.nodeSelector"), faults);
    validate_names(spec, path, faults);
    validate_seconds(spec, path, faults);
    validate_gates(&spec["schedulingGates"], &format!("{path}.schedulingGates"), faults);
    validate_tolerations(&spec["tolerations"], &format!("{path}.tolerations"), faults);
    affinity::validate_affinity(&spec["affinity"], &format!("{path}.affinity"), faults);
    let constraints = &spec["topologySpreadConstraints"];
    spread::validate_constraints(constraints, &format!("{path}.topologySpreadConstraints"), faults);
    for (path, alias) in paths(&spec["hostAliases"], &format!("{path}.hostAliases")) {
        validate_address(&alias["ip"], format!("{path}.ip"), faults);
        for (path, name) in paths(&alias["hostnames"], &format!("{path}.hostnames")) {
            crate::kinds::field::named(name, path, name::subdomain_fault, faults);
        }
    }
    for (path, gate) in paths(&spec["readinessGates"], &format!("{path}.readinessGates")) {
        validate_label_key(&gate["conditionType"], &format!("{path}.conditionType"), faults);
    }
    validate_dns(spec, path, faults);
    security::validate_of_pod(spec, path, faults);
    resources::validate_overhead(&spec["overhead"], &format!("{path}.overhead"), faults);
    resources::validate_of_pod(spec, path, faults);
    if spec["preemptionPolicy"] == "" {
        faults.retain(|fault| fault.field != format!("{path}.preemptionPolicy"));
        faults.push(Cause::required(format!("{path}.preemptionPolicy"), ""));
    }
}

fn validate_address(address: &Value, path: String, faults: &mut Faults) {
    if address.as_str().is_none_or(|ip| ip.parse::<IpAddr>().is_err()) {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        faults.push(Cause::invalid(path, address, why));
    }
}

fn validate_names(spec: &Value, path: &str, faults: &mut Faults) {
    for (field, fault) in [
        ("serviceAccountName", name::subdomain_fault as NameFault),
        ("nodeName", name::subdomain_fault),
        ("hostname", name::label_fault),
        ("subdomain", name::label_fault),
        ("priorityClassName", name::subdomain_fault),
    ] {
        if let Some(text) = spec[field].as_str().filter(|text| !text.is_empty())
            && let Some(why) = fault(text)
        {
            faults.push(Cause::invalid(format!("{path}.{field}"), &spec[field], why));
        }
    }
    // These two are wrong where they are there and empty.
    for field in ["runtimeClassName", "hostnameOverride"] {
        if let Some(why) = spec[field].as_str().and_then(name::subdomain_fault) {
            faults.push(Cause::invalid(format!("{path}.{field}"), &spec[field], why));
        }
    }
    if text(spec, "hostnameOverride").len() > LONGEST_HOST_NAME {
        faults.push(Cause::too_long(format!("{path}.hostnameOverride"), LONGEST_HOST_NAME));
    }
}

fn validate_seconds(spec: &Value, path: &str, faults: &mut Faults) {
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline.as_i64().is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds)) {
        let why = "must be between 1 and 2147483647, inclusive";
        faults.push(Cause::invalid(format!("{path}.activeDeadlineSeconds"), deadline, why));
    }
}

/// What claims of resources the pod uses: each is one that there is, or one of a template.
fn validate_resource_claims(claims: &Value, path: &str, faults: &mut Faults) {
    let mut names = HashSet::new();
    for (path, claim) in paths(claims, path) {
        validate_unique_name(text(claim, "name"), &path, &mut names, faults);
        let given = ["resourceClaimName", "resourceClaimTemplateName"].map(|field| !claim[field].is_null());
        if given[0] == given[1] {
            let why = "exactly one of resourceClaimName and resourceClaimTemplateName is required";
            faults.push(Cause::invalid(&path, claim, why));
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(why) = claim[field].as_str().and_then(name::subdomain_fault) {
                faults.push(Cause::invalid(format!("{path}.{field}"), &claim[field], why));
            }
        }
    }
}

/// What taints of nodes a pod puts up with.
pub(crate) fn validate_tolerations(tolerations: &Value, path: &str, faults: &mut Faults) {
    for (path, toleration) in paths(tolerations, path) {
        let text = |field: &str| text(toleration, field);
        if !text("key").is_empty() {
            validate_label_key(&toleration["key"], &format!("{path}.key"), faults);
        }
        if text("key").is_empty() && text("operator") != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            faults.push(Cause::invalid(format!("{path}.operator"), &json!(text("operator")), why));
        }
        if !toleration["tolerationSeconds"].is_null() && text("effect") != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            faults.push(Cause::invalid(format!("{path}.effect"), &json!(text("effect")), why));
        }
        let field = format!("{path}.operator");
        match text("operator") {
            "" | "Equal" => {
                if let Some(why) = name::label_value_fault(text("value")) {
                    faults.push(Cause::invalid(field, &toleration["value"], why));
                }
            }
            "Exists" if !text("value").is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                faults.push(Cause::invalid(field, &toleration["value"], why));
            }
            "Exists" => {}
            _ => faults.push(Cause::not_supported(field, &toleration["operator"], &["Equal", "Exists"])),
        }
    }
}

/// Where a pod brings its own DNS, it says a server.
fn validate_dns(spec: &Value, path: &str, faults: &mut Faults) {
    let config = &spec["dnsConfig"];
    let path = format!("{path}.dnsConfig");
    let servers = items(&config["nameservers"]);
    if spec["dnsPolicy"] == "None" {
        let why = "must provide `dnsConfig` when `dnsPolicy` is None";
        if config.is_null() {
            return faults.push(Cause::required(path, why));
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            faults.push(Cause::required(format!("{path}.nameservers"), why));
        }
    }
    if servers.len() > MOST_NAMESERVERS {
        let why = "must not have more than 3 nameservers";
        faults.push(Cause::invalid(format!("{path}.nameservers"), &config["nameservers"], why));
    }
    for (path, server) in paths(&config["nameservers"], &format!("{path}.nameservers")) {
        validate_address(server, path, faults);
    }
    for (path, search) in paths(&config["searches"], &format!("{path}.searches")) {
        let domain = search.as_str().unwrap_or_default();
        let plain = domain.strip_suffix('.').unwrap_or(domain).replace('_', "-");
        let trimmed: String =
            plain.split('.').map(|part| part.trim_matches('-')).collect::<Vec<_>>().join(".");
        let looked_at = if domain.contains('_') { &trimmed } else { &plain };
        if domain != "."
            && let Some(why) = name::subdomain_fault(looked_at)
        {
            faults.push(Cause::invalid(path, search, why));
        }
    }
    for (path, option) in paths(&config["options"], &format!("{path}.options")) {
        if text(option, "name").is_empty() {
            faults.push(Cause::required(path, "must not be empty"));
        }
    }
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
