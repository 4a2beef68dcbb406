//! `Service`.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::endpoints::validate_port;
use super::rules::{Column, Rules, age};
use crate::faults::Faults;
use crate::name;
use crate::object::Object;
use crate::selector::LabelSelector;
use crate::status::Cause;
use crate::validate::validate_labels;

pub(crate) struct Service;

/// Seconds that a client stays with one endpoint, where `sessionAffinity` is `ClientIP`.
const STICKY_SECONDS: u32 = 10_800;

fn is_external_name(object: &Object) -> bool {
    kind(object) == "ExternalName"
}

fn kind(object: &Object) -> &str {
    object.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP")
}

fn has_node_ports(object: &Object) -> bool {
    matches!(kind(object), "NodePort" | "LoadBalancer")
}

fn ports(object: &Object) -> &[Value] {
    object.pointer("/spec/ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn spec_of(object: &mut Object) -> Option<&mut Map<String, Value>> {
    object.0.get_mut("spec")?.as_object_mut()
}

impl Rules for Service {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        let (external, with_node_ports) = (is_external_name(object), has_node_ports(object));
        let balanced = kind(object) == "LoadBalancer";
        let Some(spec) = spec_of(object) else { return };
        spec.entry("type").or_insert_with(|| "ClusterIP".into());
        let affinity = spec.entry("sessionAffinity").or_insert_with(|| "None".into());
        match affinity == "ClientIP" {
            true => {
                let config = json!({ "clientIP": { "timeoutSeconds": STICKY_SECONDS } });
                spec.entry("sessionAffinityConfig").or_insert(config);
            }
            false => {
                spec.remove("sessionAffinityConfig");
            }
        }
        if with_node_ports {
            spec.entry("externalTrafficPolicy").or_insert_with(|| "Cluster".into());
        }
        if !external {
            spec.entry("internalTrafficPolicy").or_insert_with(|| "Cluster".into());
        }
        if balanced {
            spec.entry("allocateLoadBalancerNodePorts").or_insert(Value::Bool(true));
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(port) = port {
                let number = port.get("port").cloned();
                let target = port.entry("targetPort").or_insert_with(|| 0.into());
                if (*target == 0 || *target == "")
                    && let Some(number) = number
                {
                    *target = number;
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        mirror_cluster_ip(object);
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        if !subresource.is_empty() {
            return;
        }
        drop_what_the_type_lacks(object, old);
        keep_what_was_given(object, old);
        mirror_cluster_ip(object);
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        name::label_1035_fault(name)
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let headless = object.pointer("/spec/clusterIP").is_some_and(|ip| ip == "None");
        if ports(object).is_empty() && !headless && !is_external_name(object) {
            faults.push(Cause::required("spec.ports", ""));
        }
        if is_external_name(object) {
            let name = object.pointer("/spec/externalName").and_then(Value::as_str).unwrap_or_default();
            let name = name.trim_end_matches('.');
            if name.is_empty() {
                faults.push(Cause::required("spec.externalName", ""));
            } else if let Some(fault) = name::subdomain_fault(name) {
                faults.push(Cause::invalid("spec.externalName", &json!(name), fault));
            }
        }
        validate_ports(ports(object), faults);
        let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
        validate_labels(selector, "spec.selector", faults);
        let addresses = object.pointer("/spec/clusterIPs").and_then(Value::as_array);
        for (index, ip) in addresses.into_iter().flatten().enumerate() {
            let known = ip.as_str().is_some_and(|ip| ip == "None" || ip.parse::<IpAddr>().is_ok());
            if !known {
                let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                faults.push(Cause::invalid(format!("spec.clusterIPs[{index}]"), ip, why));
            }
        }
        if let Some(seconds) = object.pointer("/spec/sessionAffinityConfig/clientIP/timeoutSeconds")
            && !seconds.as_i64().is_some_and(|seconds| (1..=86_400).contains(&seconds))
        {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            faults.push(Cause::invalid(field, seconds, "must be greater than 0 and at most 86400"));
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        let (before, after) = (old.pointer("/spec/clusterIP"), object.pointer("/spec/clusterIP"));
        let stays = !is_external_name(object) && !is_external_name(old);
        if stays && before.is_some_and(|before| before != "") && before != after {
            let after = after.unwrap_or(&Value::Null);
            faults.push(Cause::invalid("spec.clusterIPs[0]", after, "may not change once set"));
        }
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")]
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Type"),
                Column::text("Cluster-IP"),
                Column::text("External-IP"),
                Column::text("Port(s)"),
                Column::text("Age"),
                Column::wide("Selector"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let ip = object.pointer("/spec/clusterIP").and_then(Value::as_str).filter(|ip| !ip.is_empty());
        let selector = object.pointer("/spec/selector").and_then(LabelSelector::from_labels);
        let selector = selector.filter(|s| !s.is_everything()).map(|s| s.to_string());
        vec![
            json!(object.name()),
            kind(object).into(),
            ip.unwrap_or("<none>").into(),
            external(object).into(),
            shown_ports(ports(object)).into(),
            age(object, now),
            selector.unwrap_or_else(|| "<none>".into()).into(),
        ]
    }
}

fn validate_ports(ports: &[Value], faults: &mut Faults) {
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            faults.push(Cause::required(format!("{path}.name"), ""));
        } else if !name.is_empty() {
            if let Some(fault) = name::label_fault(name) {
                faults.push(Cause::invalid(format!("{path}.name"), &json!(name), fault));
            }
            if !names.insert(name) {
                faults.push(Cause::duplicate(format!("{path}.name"), &json!(name)));
            }
        }
        validate_port(&port["port"], format!("{path}.port"), faults);
        match &port["targetPort"] {
            target @ Value::Number(_) => validate_port(target, format!("{path}.targetPort"), faults),
            Value::String(target) if port_name_fault(target) => {
                let why = "must be at most 15 lower case letters, digits or '-', with a letter among them";
                faults.push(Cause::invalid(format!("{path}.targetPort"), &json!(target), why));
            }
            _ => {}
        }
    }
    for (index, port) in ports.iter().enumerate() {
        if !numbers.insert((&port["port"], &port["protocol"])) {
            let value = json!({ "port": port["port"], "protocol": port["protocol"] });
            faults.push(Cause::duplicate(format!("spec.ports[{index}]"), &value));
        }
    }
}

/// Whether `name` can't be a service name of RFC 6335.
pub(crate) fn port_name_fault(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.is_empty()
        || name.len() > 15
        || !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        || !bytes.iter().any(u8::is_ascii_lowercase)
        || name.starts_with('-')
        || name.ends_with('-')
        || name.contains("--")
}

/// A client that sets one of `clusterIP` and `clusterIPs` means both; families follow.
fn mirror_cluster_ip(object: &mut Object) {
    if is_external_name(object) {
        return;
    }
    let Some(spec) = spec_of(object) else { return };
    let first = spec.get("clusterIPs").and_then(|ips| ips.get(0)).cloned();
    match (spec.get("clusterIP").filter(|ip| *ip != "").cloned(), first) {
        (Some(ip), None) => {
            spec.insert("clusterIPs".into(), json!([ip]));
        }
        (None, Some(ip)) => {
            spec.insert("clusterIP".into(), ip);
        }
        _ => {}
    }
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
}

/// An update that doesn't name what the server gave out keeps it.
fn keep_what_was_given(object: &mut Object, old: &Object) {
    if is_external_name(object) || is_external_name(old) {
        return;
    }
    let node_ports = has_node_ports(object) && has_node_ports(old);
    let Some(spec) = spec_of(object) else { return };
    let Some(before) = old.0.get("spec").and_then(Value::as_object) else { return };
    let unset = |spec: &Map<String, Value>, field: &str| spec.get(field).is_none_or(|value| value == "");
    if unset(spec, "clusterIP") && unset(spec, "clusterIPs") {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = before.get(field) {
                spec.insert(field.into(), value.clone());
            }
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
        if let Some(value) = before.get(field)
            && unset(spec, field)
        {
            spec.insert(field.into(), value.clone());
        }
    }
    if !node_ports {
        return;
    }
    let given = before.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or_default() == 0
            && let Some(old) =
                given.iter().find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"])
            && let Some(number) = old.get("nodePort")
        {
            port["nodePort"] = number.clone();
        }
    }
}

/// A service that changes its type loses what the new type doesn't have, unless the client changed that too.
fn drop_what_the_type_lacks(object: &mut Object, old: &Object) {
    if kind(object) == kind(old) {
        return;
    }
    let (external, with_node_ports) = (is_external_name(object), has_node_ports(object));
    let balanced = kind(object) == "LoadBalancer";
    let Some(spec) = spec_of(object) else { return };
    let mut gone: Vec<&str> = Vec::new();
    if external {
        let families = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"];
        gone.extend(families);
    } else {
        gone.push("externalName");
    }
    if !with_node_ports {
        gone.extend(["externalTrafficPolicy", "healthCheckNodePort"]);
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(port) = port {
                let unchanged = ports(old).iter().any(|old| old.get("nodePort") == port.get("nodePort"));
                if unchanged {
                    port.remove("nodePort");
                }
            }
        }
    }
    if !balanced {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    for field in gone {
        if spec.get(field) == old.pointer(&format!("/spec/{field}")) {
            spec.remove(field);
        }
    }
}

fn external(object: &Object) -> String {
    let texts = |pointer: &str| {
        let list = object.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut addresses = Vec::new();
    match kind(object) {
        "ExternalName" => {
            let name = object.pointer("/spec/externalName").and_then(Value::as_str);
            return name.unwrap_or_default().to_owned();
        }
        "LoadBalancer" => {
            let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
            let address = |ingress: &Value| {
                let ip = ingress["ip"].as_str().filter(|ip| !ip.is_empty());
                ip.or(ingress["hostname"].as_str()).map(str::to_owned)
            };
            addresses.extend(ingress.into_iter().flatten().filter_map(address));
            addresses.extend(texts("/spec/externalIPs"));
            if addresses.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => addresses.extend(texts("/spec/externalIPs")),
    }
    if addresses.is_empty() { "<none>".to_owned() } else { addresses.join(",") }
}

fn shown_ports(ports: &[Value]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .map(|port| {
            let (number, protocol) = (&port["port"], port["protocol"].as_str().unwrap_or("TCP"));
            match port["nodePort"].as_i64() {
                None | Some(0) => format!("{number}/{protocol}"),
                Some(node_port) => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    if shown.is_empty() { "<none>".to_owned() } else { shown.join(",") }
}
