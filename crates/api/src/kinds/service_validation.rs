//! Faults of services: `ValidateService` and `ValidateServiceUpdate` upstream.

use std::collections::HashSet;
use std::net::IpAddr;

use machinery::metadata::{validate_label_key, validate_labels};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Map, Value, json};

use super::endpoints::validate_port;
use super::field::{self, items, part, paths, port_name, text};

const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const RANGES: &str = "spec.LoadBalancerSourceRanges";
const BALANCED_ALONE: &str = "may only be used when `type` is 'LoadBalancer'";

/// What the writer of a Service should hear (upstream: `pkg/api/service/warnings.go`).
pub(super) fn warnings(object: &Object) -> Vec<String> {
    let (spec, mut said) = (part(object, "spec"), Vec::new());
    let is = |field: &str, value: &str| text(spec, field) == value;
    let is_headless = is("type", "ClusterIP") && is("clusterIP", "None");
    let has_external = !items(&spec["externalIPs"]).is_empty();
    let mut say = |warns: bool, what: &str| said.extend(warns.then(|| what.to_owned()));
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let hints = object.meta("annotations").is_some_and(|all| all.get(HINTS).is_some());
    say(
        hints,
        &format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"),
    );
    let ignored = |field: &str| format!("spec.{field} is ignored for headless services");
    say(is_headless && !text(spec, "loadBalancerIP").is_empty(), &ignored("loadBalancerIP"));
    say(is_headless && has_external, &ignored("externalIPs"));
    say(is_headless && !is("sessionAffinity", "None"), &ignored("SessionAffinity"));
    let is_named = is("type", "ExternalName");
    let deprecated = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    say(has_external && !is_headless && !is_named, deprecated);
    say(is_named && has_external, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    let no_name = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
    say(!is_named && !text(spec, "externalName").is_empty(), no_name);
    let close = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
    say(is("trafficDistribution", "PreferClose"), close);
    said
}

pub(super) fn validate(object: &Object, faults: &mut Faults) {
    let spec = part(object, "spec");
    let kind = text(spec, "type");
    let headless = spec["clusterIP"] == "None";
    if kind == "ExternalName" {
        validate_external_name(spec, faults);
    } else if items(&spec["ports"]).is_empty() && !headless {
        faults.push(Cause::required("spec.ports", ""));
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let why = format!("may not be set to 'None' for {kind} services");
        faults.push(Cause::invalid("spec.clusterIPs[0]", &json!("None"), &why));
    }
    validate_ports(spec, kind, faults);
    validate_labels(&spec["selector"], "spec.selector", faults);
    validate_addresses(spec, kind, faults);
    validate_affinity(spec, faults);
    validate_balancer(spec, kind, faults);
    validate_policies(spec, faults);
}

pub(super) fn validate_update(object: &Object, old: &Object, faults: &mut Faults) {
    let (spec, before) = (part(object, "spec"), part(old, "spec"));
    let (kind, was) = (text(spec, "type"), text(before, "type"));
    let address = |spec: &Value| text(spec, "clusterIP").to_owned();
    let stays = kind != "ExternalName" && was != "ExternalName";
    if stays && !address(before).is_empty() && address(before) != address(spec) {
        // One fault of an address is enough.
        faults.retain(|fault| fault.field != "spec.clusterIPs[0]");
        faults.push(Cause::invalid("spec.clusterIPs[0]", &spec["clusterIP"], "may not change once set"));
    }
    validate_class(spec, kind, faults);
    let class = &spec["loadBalancerClass"];
    if kind == "LoadBalancer" && was == kind && *class != before["loadBalancerClass"] {
        faults.push(Cause::invalid("spec.loadBalancerClass", class, "may not change once set"));
    }
    let number = |spec: &Value| spec["healthCheckNodePort"].as_i64().unwrap_or_default();
    if number(before) != 0 && checks_health(spec) && checks_health(before) && number(spec) != number(before) {
        faults.push(Cause::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
}

/// Whether a balancer asks each host whether it has an endpoint.
pub(super) fn checks_health(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn validate_external_name(spec: &Value, faults: &mut Faults) {
    // Of what such a service has not, upstream says only that it has it.
    faults.retain(|fault| !matches!(fault.field.as_str(), "spec.ipFamilyPolicy"));
    faults.retain(|fault| !fault.field.starts_with("spec.ipFamilies"));
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let is_set = match &spec[field] {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        if is_set {
            faults
                .push(Cause::forbidden(format!("spec.{field}"), "may not be set for ExternalName services"));
        }
    }
    let name = text(spec, "externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        faults.push(Cause::required("spec.externalName", ""));
    } else if let Some(fault) = name::subdomain_fault(name) {
        faults.push(Cause::invalid("spec.externalName", &spec["externalName"], fault));
    }
}

fn validate_ports(spec: &Value, kind: &str, faults: &mut Faults) {
    let (mut names, mut numbers, mut taken) = (HashSet::new(), HashSet::new(), HashSet::new());
    let several = items(&spec["ports"]).len() > 1;
    for (path, port) in paths(&spec["ports"], "spec.ports") {
        let name = text(port, "name");
        if name.is_empty() && several {
            faults.push(Cause::required(format!("{path}.name"), ""));
        } else if !name.is_empty() {
            if let Some(fault) = name::label_fault(name) {
                faults.push(Cause::invalid(format!("{path}.name"), &json!(name), fault));
            }
            if !names.insert(name) {
                faults.push(Cause::duplicate(format!("{path}.name"), &json!(name)));
            }
        }
        validate_port(&json!(port["port"].as_i64().unwrap_or_default()), format!("{path}.port"), faults);
        match &port["targetPort"] {
            target @ Value::Number(_) => validate_port(target, format!("{path}.targetPort"), faults),
            Value::String(_) => port_name(&port["targetPort"], format!("{path}.targetPort"), faults),
            _ => {}
        }
        if !port["appProtocol"].is_null() {
            validate_label_key(&port["appProtocol"], &format!("{path}.appProtocol"), faults);
        }
        let on_hosts = port["nodePort"].as_i64().unwrap_or_default();
        if on_hosts != 0 {
            let field = format!("{path}.nodePort");
            if kind == "ClusterIP" {
                faults.push(Cause::forbidden(&field, "may not be used when `type` is 'ClusterIP'"));
            }
            if !taken.insert((on_hosts, text(port, "protocol"))) {
                faults.push(Cause::duplicate(field, &port["nodePort"]));
            }
        }
        if !numbers.insert((&port["port"], &port["protocol"])) {
            // Upstream shows its own type of a port, with what makes two of them the same.
            let message = format!(
                r#"Duplicate value: {{"Name":"","Protocol":{},"AppProtocol":null,"Port":{},"TargetPort":0,"NodePort":0}}"#,
                port["protocol"], port["port"]
            );
            faults.push(Cause { message, ..Cause::duplicate(path, &Value::Null) });
        }
    }
}

fn validate_addresses(spec: &Value, kind: &str, faults: &mut Faults) {
    for (path, address) in paths(&spec["clusterIPs"], "spec.clusterIPs").filter(|_| kind != "ExternalName") {
        let known = address.as_str().is_some_and(|ip| ip == "None" || ip.parse::<IpAddr>().is_ok());
        if !known {
            faults.push(Cause::invalid(path, address, ADDRESS));
        }
    }
    for (path, address) in paths(&spec["externalIPs"], "spec.externalIPs") {
        if address.as_str().is_none_or(|ip| ip.parse::<IpAddr>().is_err()) {
            faults.push(Cause::invalid(path, address, ADDRESS));
        }
    }
    if kind == "ExternalName" {
        return;
    }
    // The addresses of services are of one family here.
    let of_both = spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(Map::is_empty);
    if spec["ipFamilyPolicy"] == "RequireDualStack" && !of_both {
        let why = "the cluster is not configured for dual-stack services";
        faults.push(Cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why));
    }
    if spec["ipFamilies"][0] == "IPv6" {
        let why = "expected an IPv6 value as indicated by `ipFamilies[0]`";
        faults.push(Cause::invalid("spec.clusterIPs[0]", &spec["clusterIP"], why));
    }
    field::unique(&spec["ipFamilies"], "spec.ipFamilies", faults);
}

fn validate_affinity(spec: &Value, faults: &mut Faults) {
    let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if !seconds.is_null() && !seconds.as_i64().is_some_and(|seconds| (1..=86_400).contains(&seconds)) {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        faults.push(Cause::invalid(field, seconds, "must be greater than 0 and at most 86400"));
    }
}

fn validate_balancer(spec: &Value, kind: &str, faults: &mut Faults) {
    if !items(&spec["loadBalancerSourceRanges"]).is_empty() && kind != "LoadBalancer" {
        faults.push(Cause::forbidden(RANGES, BALANCED_ALONE));
    }
    for (path, range) in paths(&spec["loadBalancerSourceRanges"], RANGES).filter(|_| kind == "LoadBalancer") {
        field::network(&json!(range.as_str().unwrap_or_default().trim()), path, faults);
    }
    if !spec["allocateLoadBalancerNodePorts"].is_null() && kind != "LoadBalancer" {
        faults.push(Cause::forbidden("spec.allocateLoadBalancerNodePorts", BALANCED_ALONE));
    }
    validate_class(spec, kind, faults);
}

fn validate_class(spec: &Value, kind: &str, faults: &mut Faults) {
    let (class, path) = (&spec["loadBalancerClass"], "spec.loadBalancerClass");
    if class.is_null() {
        return;
    }
    if kind == "LoadBalancer" {
        validate_label_key(class, path, faults);
    } else {
        faults.push(Cause::forbidden(path, BALANCED_ALONE));
    }
}

/// Whether clients outside the cluster reach a service.
pub(super) fn is_reached(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" | "LoadBalancer" => true,
        kind => matches!(kind, "ClusterIP" | "") && !items(&spec["externalIPs"]).is_empty(),
    }
}

fn validate_policies(spec: &Value, faults: &mut Faults) {
    let path = "spec.externalTrafficPolicy";
    let reached = is_reached(spec);
    match text(spec, "externalTrafficPolicy") {
        "" => {}
        policy if reached && !POLICIES.contains(&policy) => {
            faults.push(Cause::not_supported(path, &spec["externalTrafficPolicy"], &POLICIES));
        }
        _ if reached => {}
        _ => {
            let why = "may only be set for externally-accessible services";
            faults.push(Cause::invalid(path, &spec["externalTrafficPolicy"], why));
        }
    }
    let (port, path) = (&spec["healthCheckNodePort"], "spec.healthCheckNodePort");
    let number = port.as_i64().unwrap_or_default();
    if checks_health(spec) {
        if !(0..=65535).contains(&number) {
            faults.push(Cause::invalid(path, port, "must be between 0 and 65535, inclusive"));
        }
    } else if number != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        faults.push(Cause::invalid(path, port, why));
    }
    let distribution = &spec["trafficDistribution"];
    if distribution.as_str().is_some_and(|way| !DISTRIBUTIONS.contains(&way)) {
        faults.push(Cause::not_supported("spec.trafficDistribution", distribution, &DISTRIBUTIONS));
    }
}
