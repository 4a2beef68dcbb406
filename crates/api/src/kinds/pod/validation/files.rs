//! Faults of the files that volumes show: none lies outside of its volume, none where the agent keeps its own.

use machinery::{Cause, Faults};
use serde_json::{Value, json};

use super::environment::{validate_amount, validate_field};
use crate::kinds::field::{items, paths, text};

/// The fields of a pod that can be files.
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// The highest mode of a file.
const MODES: i64 = 0o777;

/// The faults of the files of a volume at `path`, which come from `source`.
pub(super) fn validate_files(source: &str, shown: &Value, path: &str, faults: &mut Faults) {
    let path = format!("{path}.{source}");
    validate_mode(&shown["defaultMode"], &format!("{path}.defaultMode"), faults);
    match source {
        "downwardAPI" => validate_of_pod(shown, &path, faults),
        "projected" => validate_projected(shown, &path, faults),
        "configMap" | "secret" => validate_keys(shown, &path, faults),
        "gitRepo" => validate_descending(text(shown, "directory"), &format!("{path}.directory"), faults),
        _ => {}
    }
}

/// A path that leads from a folder down into it: `validateLocalDescendingPath` upstream.
pub(super) fn validate_descending(path: &str, field: &str, faults: &mut Faults) {
    if path.starts_with('/') {
        faults.push(Cause::invalid(field, &json!(path), "must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        faults.push(Cause::invalid(field, &json!(path), "must not contain '..'"));
    }
}

/// The place of a file in a volume. The agent keeps what it swaps in one go under names that begin with two dots.
fn validate_place(place: &Value, field: &str, faults: &mut Faults) {
    let path = place.as_str().unwrap_or_default();
    if path.is_empty() {
        faults.push(Cause::required(field, ""));
    }
    validate_descending(path, field, faults);
    if path.starts_with("..") && path != ".." && !path.starts_with("../") {
        faults.push(Cause::invalid(field, &json!(path), "must not start with '..'"));
    }
}

fn validate_mode(mode: &Value, field: &str, faults: &mut Faults) {
    if mode.as_i64().is_some_and(|mode| !(0..=MODES).contains(&mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        faults.push(Cause::invalid(field, mode, why));
    }
}

/// The keys of a ConfigMap or a Secret that become files.
fn validate_keys(source: &Value, path: &str, faults: &mut Faults) {
    for (path, item) in paths(&source["items"], &format!("{path}.items")) {
        if text(item, "key").is_empty() {
            faults.push(Cause::required(format!("{path}.key"), ""));
        }
        validate_place(&item["path"], &format!("{path}.path"), faults);
        validate_mode(&item["mode"], &format!("{path}.mode"), faults);
    }
}

/// What files tell of the pod itself; upstream doesn't say which of them is wrong.
fn validate_of_pod(source: &Value, path: &str, faults: &mut Faults) {
    for item in items(&source["items"]) {
        validate_place(&item["path"], &format!("{path}.path"), faults);
        match (item["fieldRef"].is_null(), item["resourceFieldRef"].is_null()) {
            (true, true) => {
                faults.push(Cause::required(path, "one of fieldRef and resourceFieldRef is required"));
            }
            (false, is_lone) => {
                validate_field(&item["fieldRef"], &FIELDS, &format!("{path}.fieldRef"), faults);
                if !is_lone {
                    let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    faults.push(Cause::invalid(path, &json!("resource"), why));
                }
            }
            (true, false) => {
                let (amount, path) = (&item["resourceFieldRef"], format!("{path}.resourceFieldRef"));
                if text(amount, "containerName").is_empty() {
                    faults.push(Cause::required(format!("{path}.containerName"), ""));
                } else {
                    validate_amount(amount, &path, faults);
                }
            }
        }
        validate_mode(&item["mode"], &format!("{path}.mode"), faults);
    }
}

fn validate_projected(projected: &Value, path: &str, faults: &mut Faults) {
    for (path, source) in paths(&projected["sources"], &format!("{path}.sources")) {
        for (kind, part) in source.as_object().into_iter().flatten() {
            let path = format!("{path}.{kind}");
            match kind.as_str() {
                "configMap" | "secret" => validate_keys(part, &path, faults),
                "downwardAPI" => validate_of_pod(part, &path, faults),
                "serviceAccountToken" | "clusterTrustBundle" => {
                    validate_place(&part["path"], &format!("{path}.path"), faults);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(volume: Value) -> Vec<String> {
        let mut faults = Faults::default();
        for (source, shown) in volume.as_object().unwrap() {
            validate_files(source, shown, "v", &mut faults);
        }
        faults.into_iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
    }

    #[test]
    fn files_stay_in_their_volume() {
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.name"});
        let item = |path: &str| json!({"key": "k", "path": path, "fieldRef": field});
        type Make = fn(Value) -> Value;
        let kinds: [(Make, &str); 6] = [
            (|item| json!({"configMap": {"name": "m", "items": [item]}}), "v.configMap.items[0].path"),
            (|item| json!({"secret": {"secretName": "m", "items": [item]}}), "v.secret.items[0].path"),
            (|item| json!({"downwardAPI": {"items": [item]}}), "v.downwardAPI.path"),
            (
                |item| json!({"projected": {"sources": [{"secret": {"name": "s", "items": [item]}}]}}),
                "v.projected.sources[0].secret.items[0].path",
            ),
            (
                |item| json!({"projected": {"sources": [{"configMap": {"name": "s", "items": [item]}}]}}),
                "v.projected.sources[0].configMap.items[0].path",
            ),
            (
                |item| json!({"projected": {"sources": [{}, {"downwardAPI": {"items": [item]}}]}}),
                "v.projected.sources[1].downwardAPI.path",
            ),
        ];
        for (of, field) in kinds {
            for good in ["a", "a/b", "a..b", "a/..b", ".a", "a/"] {
                assert_eq!(told(of(item(good))), [""; 0], "{good} {field}");
            }
            for (bad, why) in [
                ("../../x", "must not contain '..'"),
                ("a/../b", "must not contain '..'"),
                ("..", "must not contain '..'"),
                ("/etc/x", "must be a relative path"),
                ("..data", "must not start with '..'"),
                ("..data/x", "must not start with '..'"),
            ] {
                assert_eq!(
                    told(of(item(bad))),
                    [format!("{field}: Invalid value: \"{bad}\": {why}")],
                    "{bad}"
                );
            }
            assert_eq!(told(of(item("/a/../b"))).len(), 2);
            assert_eq!(told(of(item(""))), [format!("{field}: Required value")]);
        }
        let token = |path: &str| json!({"projected": {"sources": [{"serviceAccountToken": {"path": path}}]}});
        assert_eq!(told(token("token")), [""; 0]);
        assert_eq!(
            told(token("../t")),
            [
                "v.projected.sources[0].serviceAccountToken.path: Invalid value: \"../t\": must not contain '..'"
            ]
        );
        assert_eq!(told(json!({"gitRepo": {"repository": "r", "directory": "../x"}})).len(), 1);
    }

    #[test]
    fn keys_and_modes_are_said() {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        assert_eq!(
            told(
                json!({"configMap": {"name": "m", "defaultMode": 0o1000, "items": [{"path": "p", "mode": -1}]}})
            ),
            [
                format!("v.configMap.defaultMode: Invalid value: 512: {why}"),
                "v.configMap.items[0].key: Required value".to_owned(),
                format!("v.configMap.items[0].mode: Invalid value: -1: {why}"),
            ]
        );
        assert_eq!(told(json!({"projected": {"defaultMode": 0o777, "sources": []}})), [""; 0]);
        assert_eq!(
            told(json!({"downwardAPI": {"items": [{"path": "p"}]}})),
            ["v.downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"]
        );
    }

    #[test]
    fn what_files_tell_of_the_pod_has_to_be_there() {
        let of = |source: Value| {
            let mut item = source;
            item["path"] = "p".into();
            told(json!({"downwardAPI": {"items": [item]}}))
        };
        let field = |path: &str| of(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}}));
        for path in ["metadata.labels", "metadata.annotations['a']", "metadata.uid"] {
            assert_eq!(field(path), [""; 0], "{path}");
        }
        assert_eq!(field(""), ["v.downwardAPI.fieldRef.fieldPath: Required value"]);
        assert_eq!(
            field("spec.nodeName"),
            ["v.downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \
                 \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\""]
        );
        assert_eq!(
            field("metadata.nothing"),
            [
                "v.downwardAPI.fieldRef.fieldPath: Invalid value: \"metadata.nothing\": error converting fieldPath: field \
                 label not supported: metadata.nothing"
            ]
        );
        let amount = |amount: Value| of(json!({ "resourceFieldRef": amount }));
        assert_eq!(amount(json!({"containerName": "c", "resource": "limits.cpu"})), [""; 0]);
        let at = "v.downwardAPI.resourceFieldRef";
        assert_eq!(
            amount(json!({"resource": "limits.cpu"})),
            [format!("{at}.containerName: Required value")]
        );
        assert_eq!(amount(json!({"containerName": "c"})), [format!("{at}.resource: Required value")]);
    }
}
