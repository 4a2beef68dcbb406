//! `Service`.

use machinery::rules::{Column, Rules, age};
use machinery::{Faults, LabelSelector, Object, name};
use serde_json::{Map, Value, json};

use super::field::{default, part};
use super::service_validation::{self, checks_health, is_reached};

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
    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        let (external, reached) = (is_external_name(object), is_reached(part(object, "spec")));
        let balanced = kind(object) == "LoadBalancer";
        let Some(spec) = spec_of(object) else { return };
        spec.entry("type").or_insert_with(|| "ClusterIP".into());
        let affinity = spec.entry("sessionAffinity").or_insert_with(|| "None".into());
        match affinity == "ClientIP" {
            true => {
                let config = spec.entry("sessionAffinityConfig").or_insert_with(|| json!({}));
                default(config, "clientIP", json!({}));
                default(&mut config["clientIP"], "timeoutSeconds", STICKY_SECONDS);
            }
            false => {
                spec.remove("sessionAffinityConfig");
            }
        }
        if reached {
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
        drop_internal_policy(object);
        let is_headless = object.pointer("/spec/clusterIP").is_some_and(|address| address == "None")
            || object.pointer("/spec/clusterIPs/0").is_some_and(|address| address == "None");
        let selects =
            object.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|map| !map.is_empty());
        if let Some(spec) = spec_of(object)
            && is_headless
            && !selects
            && !spec.contains_key("ipFamilies")
            && !spec.contains_key("ipFamilyPolicy")
        {
            // The maker of its endpoints may make them of both families.
            spec.insert("ipFamilies".into(), json!(["IPv4", "IPv6"]));
            spec.insert("ipFamilyPolicy".into(), "RequireDualStack".into());
        }
        mirror_cluster_ip(object);
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        if !subresource.is_empty() {
            return;
        }
        drop_internal_policy(object);
        drop_what_the_type_lacks(object, old);
        drop_policy(object, old);
        drop_health_check(object, old);
        keep_what_was_given(object, old);
        mirror_cluster_ip(object);
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        name::label_fault(name)
    }

    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        service_validation::warnings(object)
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        service_validation::validate(object, faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource.is_empty() {
            service_validation::validate_update(object, old, faults);
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

/// Where there is no address, there is no traffic within the cluster. What is no policy is for the validation to find.
fn drop_internal_policy(object: &mut Object) {
    if is_external_name(object)
        && let Some(spec) = spec_of(object)
        && spec.get("internalTrafficPolicy").is_some_and(|policy| policy == "Cluster" || policy == "Local")
    {
        spec.remove("internalTrafficPolicy");
    }
}

/// A client that sets one of `clusterIP` and `clusterIPs` means both; families follow.
fn mirror_cluster_ip(object: &mut Object) {
    let external = is_external_name(object);
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
    if !external {
        spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    }
}

/// An update that doesn't name what the server gave out keeps it.
fn keep_what_was_given(object: &mut Object, old: &Object) {
    if is_external_name(object) || is_external_name(old) {
        return;
    }
    let none_wanted = object.pointer("/spec/allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    let node_ports =
        has_node_ports(object) && has_node_ports(old) && !(none_wanted && kind(object) == "LoadBalancer");
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
    let asks = checks_health(&Value::Object(spec.clone()));
    let fields: &[&str] = if asks {
        &["ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"]
    } else {
        &["ipFamilies", "ipFamilyPolicy"]
    };
    for field in fields.iter().copied() {
        // A policy that says nothing is one that there isn't.
        if let Some(value) = before.get(field)
            && (unset(spec, field) && field != "ipFamilyPolicy" || !spec.contains_key(field))
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
        gone.push("healthCheckNodePort");
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

/// A service that nobody outside reaches any more has no policy for them.
fn drop_policy(object: &mut Object, old: &Object) {
    let policy = "externalTrafficPolicy";
    if is_reached(part(old, "spec"))
        && !is_reached(part(object, "spec"))
        && let Some(spec) = spec_of(object)
        && spec.get(policy) == part(old, "spec").get(policy)
    {
        spec.remove(policy);
    }
}

/// A balancer that asks no host for its health any more needs no port for that.
fn drop_health_check(object: &mut Object, old: &Object) {
    let asks = |object: &Object| checks_health(object.0.get("spec").unwrap_or(&Value::Null));
    let port = "healthCheckNodePort";
    if asks(old)
        && !asks(object)
        && let Some(spec) = spec_of(object)
        && spec.get(port) == old.pointer("/spec/healthCheckNodePort")
    {
        spec.remove(port);
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
