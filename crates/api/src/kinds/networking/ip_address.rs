//! `IPAddress`.

use std::net::IpAddr;

use machinery::rules::{Column, Rules, age};
use machinery::{Faults, Object, name};
use serde_json::Value;

use crate::kinds::field::{self, part, text};

pub(crate) struct IpAddress;

impl Rules for IpAddress {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        match name.parse::<IpAddr>() {
            Err(_) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            Ok(address) if address.to_string() != name => Some("must be in canonical form"),
            Ok(_) => None,
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let parent = &part(object, "spec")["parentRef"];
        if !field::require(parent, "spec.parentRef", "", faults) {
            return;
        }
        if !text(parent, "group").is_empty() {
            field::named(&parent["group"], "spec.parentRef.group", name::subdomain_fault, faults);
        }
        for part in ["resource", "name"] {
            let path = format!("spec.parentRef.{part}");
            if field::require(&parent[part], &path, "", faults) {
                field::named(&parent[part], path, field::segment_fault, faults);
            }
        }
        if !text(parent, "namespace").is_empty() {
            field::named(&parent["namespace"], "spec.parentRef.namespace", field::segment_fault, faults);
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        field::immutable("spec.parentRef", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("ParentRef"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let parent = &part(object, "spec")["parentRef"];
        let mut reference = text(parent, "resource").to_lowercase();
        if !text(parent, "group").is_empty() {
            reference = format!("{reference}.{}", text(parent, "group").to_lowercase());
        }
        for part in ["namespace", "name"].into_iter().filter(|part| !text(parent, part).is_empty()) {
            reference = format!("{reference}/{}", text(parent, part));
        }
        let reference = if parent.is_null() { "<none>".to_owned() } else { reference };
        vec![object.name().into(), reference.into(), age(object, now)]
    }
}
