//! `Ingress`.

use std::net::IpAddr;

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::Value;

use super::reference::validate_reference;
use crate::kinds::endpoints::SHOWN;
use crate::kinds::field::{self, items, part, paths, text};

pub(crate) struct Ingress;

/// How a class was named before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

impl Rules for Ingress {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let has_class = |object: &Object| {
            object.meta("annotations").is_some_and(|all| all.get(CLASS_ANNOTATION).is_some())
        };
        // On a change, who had it before has heard it.
        if !has_class(object) || old.is_some_and(has_class) {
            return Vec::new();
        }
        vec![format!(
            "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
        )]
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        let old_class = object.meta("annotations").and_then(|annotations| annotations.get(CLASS_ANNOTATION));
        if let Some(class) = old_class.filter(|_| !spec["ingressClassName"].is_null())
            && object.meta("generation").and_then(Value::as_i64) == Some(1)
        {
            let why = "can not be set when the class field is also set";
            faults.push(Cause::invalid(format!("annotations.{CLASS_ANNOTATION}"), class, why));
        }
        if items(&spec["rules"]).is_empty() && spec["defaultBackend"].is_null() {
            let why = "either `defaultBackend` or `rules` must be specified";
            faults.push(Cause::invalid("spec", &spec["rules"], why));
        }
        if !spec["defaultBackend"].is_null() {
            validate_backend(&spec["defaultBackend"], "spec.defaultBackend", faults);
        }
        for (path, rule) in paths(&spec["rules"], "spec.rules") {
            validate_rule(rule, &path, faults);
        }
        for (path, tls) in paths(&spec["tls"], "spec.tls") {
            for (path, host) in paths(&tls["hosts"], &format!("{path}.hosts")) {
                field::named(host, path, host_fault, faults);
            }
            if !text(tls, "secretName").is_empty() {
                field::named(&tls["secretName"], format!("{path}.secretName"), name::subdomain_fault, faults);
            }
        }
        if !spec["ingressClassName"].is_null() {
            field::named(&spec["ingressClassName"], "spec.ingressClassName", name::subdomain_fault, faults);
        }
    }

    fn validate_update(&self, subresource: &str, object: &Object, _old: &Object, faults: &mut Faults) {
        if subresource != "status" {
            return;
        }
        let balancers = &part(object, "status")["loadBalancer"]["ingress"];
        for (path, balancer) in paths(balancers, "status.loadBalancer.ingress") {
            let ip = text(balancer, "ip");
            if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
                let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                faults.push(Cause::invalid(format!("{path}.ip"), &balancer["ip"], why));
            }
            let host = text(balancer, "hostname");
            if !host.is_empty() {
                if host.parse::<IpAddr>().is_ok() {
                    let why = "must be a DNS name, not an IP address";
                    faults.push(Cause::invalid(format!("{path}.hostname"), &balancer["hostname"], why));
                }
                field::named(
                    &balancer["hostname"],
                    format!("{path}.hostname"),
                    name::subdomain_fault,
                    faults,
                );
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Class"),
                Column::text("Hosts"),
                Column::text("Address"),
                Column::text("Ports"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        let class = spec["ingressClassName"].as_str().unwrap_or("<none>");
        let balancers = items(&part(object, "status")["loadBalancer"]["ingress"]).iter();
        let addresses: Vec<&str> = balancers
            .map(|balancer| match text(balancer, "ip") {
                "" => text(balancer, "hostname"),
                ip => ip,
            })
            .filter(|address| !address.is_empty())
            .collect();
        let ports = if items(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
        vec![
            object.name().into(),
            class.into(),
            hosts(spec).into(),
            addresses.join(",").into(),
            ports.into(),
            age(object, now),
        ]
    }
}

fn hosts(spec: &Value) -> String {
    let hosts: Vec<&str> =
        items(&spec["rules"]).iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty()).collect();
    match hosts.len() {
        0 => "*".to_owned(),
        1..=SHOWN => hosts.join(","),
        more => format!("{} + {} more...", hosts[..SHOWN].join(","), more - SHOWN),
    }
}

/// A DNS name, maybe with `*` for its first label.
fn host_fault(host: &str) -> Option<&'static str> {
    name::subdomain_fault(host.strip_prefix("*.").unwrap_or(host))
}

fn validate_rule(rule: &Value, path: &str, faults: &mut Faults) {
    let host = text(rule, "host");
    if !host.is_empty() {
        if host.parse::<IpAddr>().is_ok() {
            let why = "must be a DNS name, not an IP address";
            faults.push(Cause::invalid(format!("{path}.host"), &rule["host"], why));
        }
        field::named(&rule["host"], format!("{path}.host"), host_fault, faults);
    }
    if rule["http"].is_null() {
        return;
    }
    let path = format!("{path}.http.paths");
    field::require(&rule["http"]["paths"], &path, "", faults);
    for (path, rule) in paths(&rule["http"]["paths"], &path) {
        if validate_path(rule, &path, faults) {
            validate_backend(&rule["backend"], &format!("{path}.backend"), faults);
        }
    }
}

/// Whether it says of what type it is: of one that doesn't, upstream says nothing more.
fn validate_path(rule: &Value, path: &str, faults: &mut Faults) -> bool {
    let url = text(rule, "path");
    let mut invalid = |why: &str| faults.push(Cause::invalid(format!("{path}.path"), &Value::from(url), why));
    match rule["pathType"].as_str() {
        None => faults.push(Cause::required(format!("{path}.pathType"), "pathType must be specified")),
        Some("Exact" | "Prefix") => {
            if !url.starts_with('/') {
                invalid("must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| url.contains(bad)) {
                invalid(&format!("must not contain '{bad}'"));
            }
            for bad in ["/..", "/."].into_iter().filter(|bad| url.ends_with(bad)) {
                invalid(&format!("cannot end with '{bad}'"));
            }
        }
        Some(_) => {
            if !url.is_empty() && !url.starts_with('/') {
                invalid("must be an absolute path");
            }
        }
    }
    !rule["pathType"].is_null()
}

fn validate_backend(backend: &Value, path: &str, faults: &mut Faults) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    let invalid = |why: &str| Cause::invalid(path, &Value::from(""), why);
    match (service.is_null(), resource.is_null()) {
        (false, false) => faults.push(invalid("cannot set both resource and service backends")),
        (true, true) => faults.push(invalid("resource or service backend is required")),
        (true, false) => validate_reference(resource, &format!("{path}.resource"), faults),
        (false, true) => validate_service(service, path, faults),
    }
}

fn validate_service(service: &Value, path: &str, faults: &mut Faults) {
    if field::require(&service["name"], format!("{path}.service.name"), "", faults) {
        field::named(&service["name"], format!("{path}.service.name"), name::label_1035_fault, faults);
    }
    let port = &service["port"];
    let has_number = port["number"].as_i64().is_some_and(|number| number != 0);
    match (text(port, "name").is_empty(), has_number) {
        (false, true) => {
            let why = "cannot set both port name & port number";
            faults.push(Cause::invalid(path, &Value::from(""), why));
        }
        (false, false) => field::port_name(&port["name"], format!("{path}.service.port.name"), faults),
        (true, true) => field::port_number(&port["number"], format!("{path}.service.port.number"), faults),
        (true, false) => faults.push(Cause::required(path, "port name or number is required")),
    }
}
