//! `IngressClass`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::Value;

use super::reference::validate_reference;
use crate::kinds::field::{self, default, part, text};

pub(crate) struct IngressClass;

/// Upstream's `maxLenIngressClassController`.
const LONGEST_CONTROLLER: usize = 250;

impl Rules for IngressClass {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(parameters) = object.0.get_mut("spec").and_then(|spec| spec.get_mut("parameters")) {
            default(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        if text(spec, "controller").len() > LONGEST_CONTROLLER {
            faults.push(Cause::too_long("spec.controller", LONGEST_CONTROLLER));
        }
        field::domain_path(&spec["controller"], "spec.controller", faults);
        let parameters = &spec["parameters"];
        if parameters.is_null() {
            return;
        }
        validate_reference(parameters, "spec.parameters", faults);
        let (namespace, path) = (&parameters["namespace"], "spec.parameters.namespace");
        match text(parameters, "scope") {
            "Namespace" => {
                let why = "`parameters.scope` is set to 'Namespace'";
                if field::require(namespace, path, why, faults) {
                    field::named(namespace, path, name::label_fault, faults);
                }
            }
            "Cluster" if !namespace.is_null() => {
                faults.push(Cause::forbidden(path, "`parameters.scope` is set to 'Cluster'"));
            }
            "Cluster" => {}
            _ => {
                let choices = ["Cluster", "Namespace"];
                field::one_of(&parameters["scope"], "spec.parameters.scope", &choices, faults);
            }
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        field::immutable("spec.controller", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Controller"),
                Column::text("Parameters"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        let parameters = &spec["parameters"];
        let (kind, name) = (text(parameters, "kind"), text(parameters, "name"));
        let parameters = match (parameters.is_null(), text(parameters, "apiGroup")) {
            (true, _) => "<none>".to_owned(),
            (false, "") => format!("{kind}/{name}"),
            (false, group) => format!("{kind}.{group}/{name}"),
        };
        vec![object.name().into(), text(spec, "controller").into(), parameters.into(), age(object, now)]
    }
}
