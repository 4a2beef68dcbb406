//! Faults of containers' environments: `validateEnv` and `validateEnvFrom` upstream.

use machinery::name::{qualified_faults, subdomain_fault};
use machinery::{Cause, Faults};
use serde_json::{Value, json};

use super::volume::Volumes;
use crate::kinds::field::{paths, text};

const NAME: &str = "must be printable ASCII characters other than '='";
/// The fields of a pod that it can have in its environment.
const TOLD: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
/// Those of them that a variable can name. `status.hostIPs` can be named too, though upstream's answers don't list it.
const FIELDS: [&str; 8] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.podIP",
    "status.podIPs",
];
const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
];

pub(super) fn validate_environment(
    variables: &Value,
    volumes: &Volumes<'_>,
    path: &str,
    faults: &mut Faults,
) {
    for (path, variable) in paths(variables, path) {
        match text(variable, "name") {
            "" => faults.push(Cause::required(format!("{path}.name"), "")),
            name if !is_name(name) => {
                faults.push(Cause::invalid(format!("{path}.name"), &variable["name"], NAME));
            }
            _ => {}
        }
        if !variable["valueFrom"].is_null() {
            validate_source(variable, volumes, &format!("{path}.valueFrom"), faults);
        }
    }
}

/// Sources of many variables.
pub(super) fn validate_sources(sources: &Value, path: &str, faults: &mut Faults) {
    for (at, source) in paths(sources, path) {
        if !is_name(text(source, "prefix")) {
            faults.push(Cause::invalid(format!("{at}.prefix"), &source["prefix"], NAME));
        }
        let given: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|kind| source[*kind].is_object()).collect();
        for kind in &given {
            let field = format!("{at}.{kind}.name");
            match text(&source[*kind], "name") {
                "" => faults.push(Cause::required(field, "")),
                name => {
                    if let Some(why) = subdomain_fault(name) {
                        faults.push(Cause::invalid(field, &json!(name), why));
                    }
                }
            }
        }
        // Upstream doesn't say which of the list it is.
        if given.len() != 1 {
            let why = "must specify exactly one of: `configMapRef` or `secretRef`";
            faults.push(Cause::invalid(path, &json!(""), why));
        }
    }
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

fn validate_source(variable: &Value, volumes: &Volumes<'_>, path: &str, faults: &mut Faults) {
    let source = &variable["valueFrom"];
    let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let given: Vec<&str> = kinds.into_iter().filter(|kind| source[*kind].is_object()).collect();
    for kind in &given {
        validate_reference(kind, &source[*kind], volumes, &format!("{path}.{kind}"), faults);
    }
    let why = match given.len() {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !text(variable, "value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    faults.push(Cause::invalid(path, &json!(""), why));
}

fn validate_reference(kind: &str, reference: &Value, volumes: &Volumes<'_>, path: &str, faults: &mut Faults) {
    match kind {
        "fieldRef"
            if text(reference, "fieldPath") == "status.hostIPs" && text(reference, "apiVersion") == "v1" => {}
        "fieldRef" => validate_field(reference, &FIELDS, path, faults),
        "resourceFieldRef" => validate_amount(reference, path, faults),
        "fileKeyRef" => {
            for field in ["volumeName", "path", "key"] {
                if text(reference, field).is_empty() {
                    faults.push(Cause::required(format!("{path}.{field}"), ""));
                }
            }
            let field = format!("{path}.volumeName");
            if !volumes.contains(text(reference, "volumeName")) {
                faults.push(Cause::not_found(field, &json!(text(reference, "volumeName"))));
            }
        }
        _ => {
            if let Some(why) = subdomain_fault(text(reference, "name")) {
                faults.push(Cause::invalid(format!("{path}.name"), &json!(text(reference, "name")), why));
            }
            let (key, field) = (text(reference, "key"), format!("{path}.key"));
            if key.is_empty() {
                faults.push(Cause::required(field, ""));
            } else if !is_key(key) {
                let why = "must be at most 253 letters, digits, '-', '_' or '.', and no way up";
                faults.push(Cause::invalid(field, &json!(key), why));
            }
        }
    }
}

/// Whether a text can be a key of a ConfigMap or a Secret.
fn is_key(key: &str) -> bool {
    key.len() <= 253
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && key != "."
        && !key.starts_with("..")
}

/// A field of the pod: one of those, or one label or annotation.
pub(super) fn validate_field(reference: &Value, fields: &[&str], path: &str, faults: &mut Faults) {
    for field in ["apiVersion", "fieldPath"] {
        if text(reference, field).is_empty() {
            return faults.push(Cause::required(format!("{path}.{field}"), ""));
        }
    }
    let (asked, field) = (text(reference, "fieldPath"), format!("{path}.fieldPath"));
    let version = text(reference, "apiVersion");
    let inconvertible = |why: &str| {
        Cause::invalid(field.as_str(), &json!(asked), &format!("error converting fieldPath: {why}"))
    };
    if version != "v1" {
        return faults.push(inconvertible(&format!("unsupported pod version: {version}")));
    }
    // The older name of the same field.
    let asked = if asked == "spec.host" { "spec.nodeName" } else { asked };
    if let Some((map, key)) = subscripted(asked) {
        // The keys of annotations are compared without their case. Upstream says it of the whole reference.
        let key_in_words = match map {
            "metadata.annotations" => key.to_lowercase(),
            "metadata.labels" => key.to_owned(),
            _ => {
                return faults
                    .push(inconvertible(&format!("field label does not support subscript: {asked}")));
            }
        };
        faults.extend(qualified_faults(&key_in_words).map(|why| Cause::invalid(path, &json!(key), why)));
        return;
    }
    if fields.contains(&asked) {
        return;
    }
    if TOLD.contains(&asked) {
        faults.push(Cause::not_supported(field.as_str(), &json!(asked), fields));
    } else {
        faults.push(inconvertible(&format!("field label not supported: {asked}")));
    }
}

/// A map of a pod and the key in it that a path such as `metadata.labels['a']` names.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(map, _)| !map.is_empty())
}

/// How much of a resource a container may have.
pub(super) fn validate_amount(reference: &Value, path: &str, faults: &mut Faults) {
    let (resource, field) = (text(reference, "resource"), format!("{path}.resource"));
    if resource.is_empty() {
        faults.push(Cause::required(field, ""));
    } else if !AMOUNTS.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        faults.push(Cause::not_supported(field, &json!(resource), &AMOUNTS));
    }
    validate_divisor(reference, path, faults);
}

/// What an amount is divided by: one that says nothing is 1 (`validateContainerResourceDivisor` upstream).
fn validate_divisor(reference: &Value, path: &str, faults: &mut Faults) {
    const OF_CPU: [&str; 2] = ["1m", "1"];
    const OF_BYTES: [&str; 13] =
        ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (resource, divisor) = (text(reference, "resource"), text(reference, "divisor"));
    if matches!(divisor, "" | "0") {
        return;
    }
    let resource = resource.split_once('.').map_or("", |(_, resource)| resource);
    let (known, what) = match resource {
        "cpu" => (&OF_CPU[..], "cpu"),
        "memory" => (&OF_BYTES[..], "memory"),
        "ephemeral-storage" => (&OF_BYTES[..], "local ephemeral storage"),
        _ if resource.starts_with("hugepages-") => (&OF_BYTES[..], "hugepages"),
        _ => return,
    };
    if !known.contains(&divisor) {
        let listed = if known.len() == 2 { known.join(" and ") } else { known.join(", ") };
        let why = format!("only divisor's values {listed} are supported with the {what} resource");
        // Upstream shows the resource.
        faults.push(Cause::invalid(format!("{path}.divisor"), &reference["resource"], &why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_or_an_annotation_is_named_by_a_key_that_one_can_have() {
        let told = |field_path: &str| {
            let mut faults = Faults::default();
            validate_field(&json!({"apiVersion": "v1", "fieldPath": field_path}), &FIELDS, "f", &mut faults);
            faults.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>()
        };
        for fits in
            ["metadata.labels['a']", "metadata.annotations['Example.com/A']", "metadata.labels['a.b/c']"]
        {
            assert_eq!(told(fits), [""; 0], "{fits}");
        }
        let none = told("metadata.labels['']");
        assert_eq!(none.len(), 2, "{none:?}");
        assert!(none[0].starts_with("f: Invalid value: \"\": name part must be non-empty"), "{none:?}");
        assert!(told("metadata.annotations['a b']")[0].starts_with("f: Invalid value: \"a b\": name part"));
        assert_eq!(
            told("spec.nodeSelector['a']"),
            [
                "f.fieldPath: Invalid value: \"spec.nodeSelector['a']\": error converting fieldPath: field label does not \
              support subscript: spec.nodeSelector['a']"
            ]
        );
        assert!(told("['a']")[0].contains("field label not supported: ['a']"));
    }
}
