//! `CustomResourceDefinition`.

use machinery::rules::{Column, Rules};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use super::fresh::validate_fresh;
use super::names::{validate_group, validate_names};
use super::versions::validate_versions;
use crate::kinds::client_config::validate_client;
use crate::kinds::field::{self, default, items, part, paths, text};

pub(crate) struct CustomResourceDefinition;

/// Groups below these are the Kubernetes project's, which approves their kinds.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVAL: &str = "api-approved.kubernetes.io";

impl Rules for CustomResourceDefinition {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        let Some(spec) = object.0.get_mut("spec") else { return };
        if let Some(names) = spec.get_mut("names") {
            let kind = text(names, "kind").to_owned();
            if text(names, "singular").is_empty() {
                names["singular"] = kind.to_lowercase().into();
            }
            if text(names, "listKind").is_empty() && !kind.is_empty() {
                names["listKind"] = format!("{kind}List").into();
            }
        }
        default(spec, "conversion", json!({ "strategy": "None" }));
        let service = spec.pointer_mut("/conversion/webhook/clientConfig/service");
        if let Some(service) = service {
            default(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        let stored: Vec<&Value> = stored_version(object).into_iter().collect();
        let status = json!({ "conditions": null, "storedVersions": stored });
        object.0.insert("status".into(), status);
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, _old: &Object) {
        if subresource == "status" {
            return;
        }
        let Some(stored) = stored_version(object).cloned() else { return };
        if let Some(status) = object.0.get_mut("status") {
            default(status, "storedVersions", json!([]));
            if let Value::Array(versions) = &mut status["storedVersions"]
                && !versions.contains(&stored)
            {
                versions.push(stored);
            }
        }
    }

    fn name_fault_in(&self, name: &str, object: &Object) -> Option<&'static str> {
        let spec = part(object, "spec");
        let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
        (name != wanted).then_some("must be spec.names.plural+\".\"+spec.group")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        let group = text(spec, "group");
        validate_group(&spec["group"], faults);
        let is_protected = PROTECTED.iter().any(|domain| {
            group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let approved = object.meta("annotations").and_then(|annotations| annotations.get(APPROVAL));
        if is_protected && approved.is_none_or(|value| value == "") {
            let why = "protected groups must have approval annotation, see https://github.com/kubernetes/enhancements/pull/1111";
            faults.push(Cause::required(format!("metadata.annotations[{APPROVAL}]"), why));
        }
        field::one_of(&spec["scope"], "spec.scope", &["Cluster", "Namespaced"], faults);
        validate_names(&spec["names"], faults);
        validate_versions(spec, faults);
        validate_conversion(&spec["conversion"], faults);
        if spec["preserveUnknownFields"] == true {
            let why = "must be false in order to use defaults in the schema";
            faults.push(Cause::invalid("spec.preserveUnknownFields", &true.into(), why));
        }
        validate_stored(object, faults);
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        validate_fresh(part(object, "spec"), &Value::Null, faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            return;
        }
        validate_fresh(part(object, "spec"), part(old, "spec"), faults);
        let conditions = items(&part(old, "status")["conditions"]);
        let established = conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True");
        if established {
            field::immutable("spec.scope", object, old, faults);
            field::immutable("spec.names.kind", object, old, faults);
        }
        field::immutable("spec.group", object, old, faults);
        field::immutable("spec.names.plural", object, old, faults);
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column { name: "Created At", kind: "date", priority: 0 }] }
    }

    fn cells(&self, object: &Object, _now: i64) -> Vec<Value> {
        vec![object.name().into(), object.meta("creationTimestamp").cloned().unwrap_or_default()]
    }
}

/// The name of the version that objects are stored in.
fn stored_version(object: &Object) -> Option<&Value> {
    let versions = items(&part(object, "spec")["versions"]);
    versions.iter().find(|version| version["storage"] == true).map(|version| &version["name"])
}

fn validate_stored(object: &Object, faults: &mut Faults) {
    let versions = items(&part(object, "spec")["versions"]);
    let stored = &part(object, "status")["storedVersions"];
    let storage = stored_version(object);
    for (path, version) in paths(stored, "status.storedVersions") {
        if !versions.iter().any(|known| known["name"] == *version) {
            let why = "missing from spec.versions; a version that objects are stored in can't be removed";
            faults.push(Cause::invalid(path, version, why));
        }
    }
    if let Some(storage) = storage
        && !items(stored).contains(storage)
    {
        let why = "must have the storage version";
        faults.push(Cause::invalid("status.storedVersions", stored, why));
    }
}

fn validate_conversion(conversion: &Value, faults: &mut Faults) {
    let webhook = &conversion["webhook"];
    let path = "spec.conversion";
    match text(conversion, "strategy") {
        "None" => {
            if !webhook.is_null() {
                let why = "should not be set when strategy is not set to Webhook";
                faults.push(Cause::forbidden(format!("{path}.webhook"), why));
            }
        }
        "Webhook" => {
            let path = format!("{path}.webhook");
            let why = "required when strategy is set to Webhook";
            let config = &webhook["clientConfig"];
            if field::require(config, format!("{path}.clientConfig"), why, faults) {
                validate_client(config, &format!("{path}.clientConfig"), faults);
            }
            let versions = &webhook["conversionReviewVersions"];
            let path = format!("{path}.conversionReviewVersions");
            if !field::require(versions, &path, "", faults) {
                return;
            }
            field::unique(versions, &path, faults);
            for (path, version) in paths(versions, &path) {
                field::named(version, path, name::label_1035_fault, faults);
            }
            if !items(versions).iter().any(|version| version == "v1" || version == "v1beta1") {
                let why = "must include at least one of v1, v1beta1";
                faults.push(Cause::invalid(path, versions, why));
            }
        }
        _ => {
            let choices = ["None", "Webhook"];
            field::one_of(&conversion["strategy"], format!("{path}.strategy"), &choices, faults);
        }
    }
}
