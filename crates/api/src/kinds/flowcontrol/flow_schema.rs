//! `FlowSchema`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::Value;

use super::EXEMPT;
use crate::kinds::field::{self, items, part, paths, text};

pub(crate) struct FlowSchema;

const LAST_PRECEDENCE: i64 = 10_000;
const VERBS: [&str; 11] =
    ["*", "create", "delete", "deletecollection", "get", "head", "list", "patch", "proxy", "update", "watch"];
const METHODS: [&str; 10] =
    ["*", "connect", "delete", "get", "head", "options", "patch", "post", "put", "trace"];
const DISTINGUISHERS: [&str; 2] = ["ByNamespace", "ByUser"];

impl Rules for FlowSchema {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 0)
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(Value::Object(spec)) = object.0.get_mut("spec")
            && spec.get("matchingPrecedence").is_none_or(|precedence| precedence == 0)
        {
            spec.insert("matchingPrecedence".into(), 1000.into());
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        let precedence = &spec["matchingPrecedence"];
        let number = precedence.as_i64().unwrap_or_default();
        if number <= 0 {
            faults.push(Cause::invalid("spec.matchingPrecedence", precedence, "must be a positive value"));
        }
        if number > LAST_PRECEDENCE {
            let why = format!("must not be greater than {LAST_PRECEDENCE}");
            faults.push(Cause::invalid("spec.matchingPrecedence", precedence, &why));
        }
        if number == 1 && object.name() != EXEMPT {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            faults.push(Cause::invalid("spec.matchingPrecedence", precedence, why));
        }
        if !spec["distinguisherMethod"].is_null() {
            let method = &spec["distinguisherMethod"]["type"];
            field::one_of(method, "spec.distinguisherMethod.type", &DISTINGUISHERS, faults);
        }
        let (level, path) =
            (&spec["priorityLevelConfiguration"]["name"], "spec.priorityLevelConfiguration.name");
        let why = "must reference a priority level";
        if field::require(level, path, why, faults) {
            field::named(level, path, name::subdomain_fault, faults);
        }
        for (path, rule) in paths(&spec["rules"], "spec.rules") {
            validate_rule(rule, &path, faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("PriorityLevel"),
                Column::text("MatchingPrecedence"),
                Column::text("DistinguisherMethod"),
                Column::text("Age"),
                Column::text("MissingPL"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        let method = spec["distinguisherMethod"]["type"].as_str().unwrap_or("<none>");
        let conditions = items(&part(object, "status")["conditions"]);
        let dangling = conditions.iter().find(|condition| condition["type"] == "Dangling");
        // Without a controller that looks, the level counts as being there.
        let dangling = dangling.map_or("False", |condition| text(condition, "status"));
        vec![
            object.name().into(),
            text(&spec["priorityLevelConfiguration"], "name").into(),
            spec["matchingPrecedence"].clone(),
            method.into(),
            age(object, now),
            dangling.into(),
        ]
    }
}

fn validate_rule(rule: &Value, path: &str, faults: &mut Faults) {
    let why = "subjects must contain at least one value";
    field::require(&rule["subjects"], format!("{path}.subjects"), why, faults);
    for (path, subject) in paths(&rule["subjects"], &format!("{path}.subjects")) {
        validate_subject(subject, &path, faults);
    }
    if items(&rule["resourceRules"]).is_empty() && items(&rule["nonResourceRules"]).is_empty() {
        faults.push(Cause::required(
            path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        ));
    }
    for (path, rule) in paths(&rule["resourceRules"], &format!("{path}.resourceRules")) {
        validate_list(&rule["verbs"], &format!("{path}.verbs"), &VERBS, faults);
        for field in ["apiGroups", "resources"] {
            validate_list(&rule[field], &format!("{path}.{field}"), &[], faults);
        }
        let namespaces = &rule["namespaces"];
        if items(namespaces).is_empty() && rule["clusterScope"] != true {
            let why = "resource rules that are not cluster scoped must supply at least one namespace";
            faults.push(Cause::required(format!("{path}.namespaces"), why));
        }
        validate_wildcard(namespaces, &format!("{path}.namespaces"), faults);
        for (path, namespace) in paths(namespaces, &format!("{path}.namespaces")) {
            if namespace != "*" {
                field::named(namespace, path, name::label_fault, faults);
            }
        }
    }
    for (path, rule) in paths(&rule["nonResourceRules"], &format!("{path}.nonResourceRules")) {
        validate_list(&rule["verbs"], &format!("{path}.verbs"), &METHODS, faults);
        let urls = &rule["nonResourceURLs"];
        validate_list(urls, &format!("{path}.nonResourceURLs"), &[], faults);
        for (path, url) in paths(urls, &format!("{path}.nonResourceURLs")) {
            validate_url(url, &path, faults);
        }
    }
}

fn validate_list(list: &Value, path: &str, choices: &[&str], faults: &mut Faults) {
    field::require(list, path, "must contain at least one value", faults);
    validate_wildcard(list, path, faults);
    if !choices.is_empty() && items(list).iter().any(|item| !choices.iter().any(|choice| item == choice)) {
        faults.push(Cause::not_supported(path, list, choices));
    }
}

fn validate_wildcard(list: &Value, path: &str, faults: &mut Faults) {
    if items(list).len() > 1 && items(list).iter().any(|item| item == "*") {
        let why = "if '*' is present, must not specify other values";
        faults.push(Cause::invalid(path, list, why));
    }
}

fn validate_url(value: &Value, path: &str, faults: &mut Faults) {
    let url = value.as_str().unwrap_or_default();
    let mut invalid = |why: &str| faults.push(Cause::invalid(path, value, why));
    match url {
        "" => invalid("nonResourceURL must not be empty"),
        "*" | "/" => {}
        url if !url.starts_with('/') => invalid("nonResourceURL must start with slash"),
        url if url.contains(' ') => invalid("nonResourceURL must not contain white-space"),
        url if url.contains("//") => invalid("nonResourceURL must not contain double slash"),
        url => {
            let star = url.find('*').is_some_and(|at| at != url.len() - 1 || !url.ends_with("/*"));
            if star {
                invalid("wildcard can only do suffix matching");
            }
        }
    }
}

fn validate_subject(subject: &Value, path: &str, faults: &mut Faults) {
    let kinds = [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")];
    let kind = text(subject, "kind");
    let Some((_, wanted)) = kinds.iter().find(|(name, _)| *name == kind) else {
        let names = kinds.map(|(name, _)| name);
        field::one_of(&subject["kind"], format!("{path}.kind"), &names, faults);
        return;
    };
    for (_, other) in kinds.iter().filter(|(_, field)| field != wanted) {
        if !subject[*other].is_null() {
            let why = format!("{other} is forbidden when subject kind is not of it");
            faults.push(Cause::forbidden(format!("{path}.{other}"), &why));
        }
    }
    let value = &subject[*wanted];
    let path = format!("{path}.{wanted}");
    let why = format!("{wanted} is required when subject kind is {kind:?}");
    if !field::require(value, &path, &why, faults) {
        return;
    }
    if kind != "ServiceAccount" {
        field::require(&value["name"], format!("{path}.name"), "", faults);
        return;
    }
    if field::require(&value["name"], format!("{path}.name"), "", faults) && value["name"] != "*" {
        field::named(&value["name"], format!("{path}.name"), name::subdomain_fault, faults);
    }
    if field::require(&value["namespace"], format!("{path}.namespace"), "", faults) {
        field::named(&value["namespace"], format!("{path}.namespace"), name::label_fault, faults);
    }
}
