//! `NetworkPolicy`.

use ipnet::IpNet;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, LabelSelector, Object};
use serde_json::{Value, json};

use crate::kinds::field::{self, default, items, network, part, paths};
use crate::kinds::workload::validate_selector;

pub(crate) struct NetworkPolicy;

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

impl Rules for NetworkPolicy {
    fn sees_empties(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        let Some(spec) = object.0.get_mut("spec") else { return };
        for (direction, _) in DIRECTIONS {
            field::default_each(spec, direction, |rule| {
                field::default_each(rule, "ports", |port| default(port, "protocol", "TCP"));
            });
        }
        let types =
            if items(&spec["egress"]).is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        if items(&spec["policyTypes"]).is_empty() {
            spec["policyTypes"] = types;
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate_selector(&spec["podSelector"], "spec.podSelector", faults);
        for (direction, peers) in DIRECTIONS {
            for (path, rule) in paths(&spec[direction], &format!("spec.{direction}")) {
                for (path, port) in paths(&rule["ports"], &format!("{path}.ports")) {
                    validate_port(port, &path, faults);
                }
                for (path, peer) in paths(&rule[peers], &format!("{path}.{peers}")) {
                    validate_peer(peer, &path, faults);
                }
            }
        }
        if items(&spec["policyTypes"]).len() > 2 {
            let why = "may not specify more than two policyTypes";
            faults.push(Cause::invalid("spec.policyTypes", &spec["policyTypes"], why));
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Pod-Selector"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let selector = LabelSelector::from_value(&part(object, "spec")["podSelector"]);
        let selector = selector.filter(|s| !s.is_everything()).map(|s| s.to_string());
        let selector = selector.unwrap_or_else(|| "<none>".into());
        vec![object.name().into(), selector.into(), age(object, now)]
    }
}

fn validate_port(port: &Value, path: &str, faults: &mut Faults) {
    let end = &port["endPort"];
    let may_not = |why: &str| Cause::invalid(format!("{path}.endPort"), end, why);
    match &port["port"] {
        Value::Null if !end.is_null() => {
            faults.push(may_not("may not be specified when `port` is not specified"))
        }
        Value::Null => {}
        first @ Value::Number(_) => {
            field::port_number(first, format!("{path}.port"), faults);
            if !end.is_null() {
                if end.as_i64() < first.as_i64() {
                    faults.push(may_not("must be greater than or equal to `port`"));
                }
                field::port_number(end, format!("{path}.endPort"), faults);
            }
        }
        name => {
            if !end.is_null() {
                faults.push(may_not("may not be specified when `port` is non-numeric"));
            }
            field::port_name(name, format!("{path}.port"), faults);
        }
    }
}

fn validate_peer(peer: &Value, path: &str, faults: &mut Faults) {
    let mut peers = 0;
    for selector in ["podSelector", "namespaceSelector"] {
        if !peer[selector].is_null() {
            peers += 1;
            validate_selector(&peer[selector], &format!("{path}.{selector}"), faults);
        }
    }
    let blocked = &peer["ipBlock"];
    if !blocked.is_null() {
        validate_block(blocked, &format!("{path}.ipBlock"), faults);
        if peers > 0 {
            faults.push(Cause::forbidden(path, "may not specify both ipBlock and another peer"));
        }
    } else if peers == 0 {
        faults.push(Cause::required(path, "must specify a peer"));
    }
}

fn validate_block(value: &Value, path: &str, faults: &mut Faults) {
    if !field::require(&value["cidr"], format!("{path}.cidr"), "", faults) {
        return;
    }
    let Some(outer) = network(&value["cidr"], format!("{path}.cidr"), faults) else { return };
    for (path, except) in paths(&value["except"], &format!("{path}.except")) {
        let within = |inner: IpNet| outer.contains(&inner) && inner.prefix_len() > outer.prefix_len();
        if network(except, &path, faults).is_some_and(|inner| !within(inner)) {
            faults.push(Cause::invalid(path, except, "must be a strict subset of `cidr`"));
        }
    }
}
