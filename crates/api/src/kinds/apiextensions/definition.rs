//! `CustomResourceDefinition`.

use std::collections::HashSet;

use machinery::rules::{Column, Rules};
use machinery::{Approval, Cause, Faults, Object};
use serde_json::{Value, json};

use super::fresh::validate_fresh;
use super::names::{validate_group, validate_names};
use super::structural::DEEPEST;
use super::versions::{validate_shared, validate_versions};
use super::warnings::schema_warnings;
use crate::kinds::client_config::{validate_client, validate_review_versions};
use crate::kinds::field::{self, default, items, part, paths, text};

pub(crate) struct CustomResourceDefinition;

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
        let mut stored: Vec<&Value> = Vec::new();
        for version in storage_versions(object) {
            if !stored.contains(&version) {
                stored.push(version);
            }
        }
        let status = json!({ "conditions": null, "storedVersions": stored });
        object.0.insert("status".into(), status);
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, _old: &Object) {
        if subresource == "status" {
            return;
        }
        let stored: Vec<Value> = storage_versions(object).cloned().collect();
        if let Some(status) = object.0.get_mut("status") {
            default(status, "storedVersions", json!([]));
            if let Value::Array(versions) = &mut status["storedVersions"] {
                for version in stored {
                    if !versions.contains(&version) {
                        versions.push(version);
                    }
                }
            }
        }
    }

    fn name_faults_in(&self, name: &str, object: &Object) -> Vec<&'static str> {
        let spec = part(object, "spec");
        let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
        let other = (name != wanted).then_some("must be spec.names.plural+\".\"+spec.group");
        self.name_fault(name).into_iter().chain(other).collect()
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let before: HashSet<String> = old.map(schema_warnings).unwrap_or_default().into_iter().collect();
        let mut said = schema_warnings(object);
        said.retain(|warning| !before.contains(warning));
        said
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        validate_group(&spec["group"], faults);
        if field::require(&spec["scope"], "spec.scope", "", faults) {
            field::one_of(&spec["scope"], "spec.scope", &["Cluster", "Namespaced"], faults);
        }
        validate_versions(spec, faults);
        validate_names(&spec["names"], faults);
        validate_shared(spec, faults);
        validate_conversion(&spec["conversion"], faults);
        if spec["preserveUnknownFields"] == true {
            let why = "must be false in order to use defaults in the schema";
            let schemas =
                items(&spec["versions"]).iter().map(|version| &version["schema"]["openAPIV3Schema"]);
            // Once for any definition, and once more where there are defaults.
            for _ in 0..if schemas.into_iter().any(|schema| has_default(schema, 0)) { 2 } else { 1 } {
                faults.push(Cause::invalid("spec.preserveUnknownFields", &true.into(), why));
            }
            if spec["conversion"]["strategy"] == "Webhook" {
                let (path, strategy) = ("spec.conversion.strategy", &spec["conversion"]["strategy"]);
                let why = "must be None if spec.preserveUnknownFields is true";
                faults.push(Cause::invalid(path, strategy, why));
            }
        }
        validate_stored(object, faults);
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        validate_approval(object, None, faults);
        validate_fresh(part(object, "spec"), &Value::Null, faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            return;
        }
        validate_approval(object, Some(old), faults);
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

/// Kinds of protected groups say where they were approved, or that they weren't: `validateAPIApproval` upstream. What they said
/// before they may say again.
fn validate_approval(object: &Object, old: Option<&Object>, faults: &mut Faults) {
    let group = text(part(object, "spec"), "group");
    let said = |object: &Object| {
        let annotations = object.meta("annotations")?;
        annotations[Approval::ANNOTATION].as_str().map(str::to_owned)
    };
    let Some(approval) = Approval::of(group, said(object).as_deref()) else { return };
    if old.is_some_and(|old| Approval::of(group, said(old).as_deref()) == Some(approval)) {
        return;
    }
    let path = format!("metadata.annotations[{}]", Approval::ANNOTATION);
    let said = said(object).unwrap_or_default();
    let why = approval.message(&said);
    match approval {
        Approval::Missing => faults.push(Cause::required(path, &why)),
        Approval::Unclear => faults.push(Cause::invalid(path, &said.into(), &why)),
        Approval::Approved | Approval::Withheld => {}
    }
}

/// Whether a schema, or one in it, has a default.
fn has_default(schema: &Value, depth: usize) -> bool {
    let below = |schema: &Value| has_default(schema, depth + 1);
    depth <= DEEPEST
        && (!schema["default"].is_null()
            || ["items", "additionalProperties", "not"]
                .iter()
                .any(|key| schema[*key].is_object() && below(&schema[*key]))
            || ["allOf", "anyOf", "oneOf"].iter().any(|list| items(&schema[*list]).iter().any(below))
            || schema["properties"].as_object().is_some_and(|map| map.values().any(below)))
}

/// The names of the versions that objects are to be stored in: it should be one.
fn storage_versions(object: &Object) -> impl Iterator<Item = &Value> {
    let versions = items(&part(object, "spec")["versions"]).iter();
    versions.filter(|version| version["storage"] == true).map(|version| &version["name"])
}

fn validate_stored(object: &Object, faults: &mut Faults) {
    let versions = items(&part(object, "spec")["versions"]);
    let (stored, path) = (&part(object, "status")["storedVersions"], "status.storedVersions");
    if items(stored).is_empty() {
        return faults.push(Cause::invalid(path, stored, "must have at least one stored version"));
    }
    // Each version takes its name from what is stored: where two have the same, the other one finds none.
    let mut left: HashSet<&str> = items(stored).iter().filter_map(Value::as_str).collect();
    let known: HashSet<&str> = versions.iter().map(|version| text(version, "name")).collect();
    for version in versions {
        let name = text(version, "name");
        if !left.remove(name) && version["storage"] == true {
            let why = format!("must have the storage version {name}");
            faults.push(Cause::invalid(path, stored, &why));
        }
    }
    for (path, version) in paths(stored, path) {
        let name = version.as_str().unwrap_or_default();
        if !known.contains(name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            faults.push(Cause::invalid(path, version, &why));
        }
    }
}

/// Of the fields of `webhook` upstream says that they stand beside the strategy, and calls the first `webhookClientConfig`.
fn validate_conversion(conversion: &Value, faults: &mut Faults) {
    if conversion.is_null() {
        return;
    }
    let strategy = "spec.conversion.strategy";
    if field::require(&conversion["strategy"], strategy, "", faults) {
        field::one_of(&conversion["strategy"], strategy, &["None", "Webhook"], faults);
    }
    let (config, config_path) =
        (&conversion["webhook"]["clientConfig"], "spec.conversion.webhookClientConfig");
    let (versions, versions_path) =
        (&conversion["webhook"]["conversionReviewVersions"], "spec.conversion.conversionReviewVersions");
    if text(conversion, "strategy") != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if !config.is_null() {
            faults.push(Cause::forbidden(config_path, why));
        }
        if !items(versions).is_empty() {
            faults.push(Cause::forbidden(versions_path, why));
        }
        return;
    }
    if field::require(config, config_path, "required when strategy is set to Webhook", faults) {
        validate_client(config, config_path, faults);
    }
    validate_review_versions(versions, versions_path, faults);
}
