//! What upstream's users rely on and no recording holds: warnings, the words of refusals, and what becomes of odd values.

use http::Request;
use serde_json::{Value, json};

use crate::conversion::{DEFINITIONS, done, until};
use crate::house::{House, admin, body_of, text};

pub const PATH: &str = "/apis/odd.example.com/v1/things";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Defines `Thing` in `v1`, as which it is stored, with that schema.
pub async fn define(house: &House, schema: Value) {
    define_versions(house, json!([version("v1", true, schema)])).await;
}

pub fn version(name: &str, storage: bool, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema}})
}

async fn define_versions(house: &House, versions: Value) {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.odd.example.com"},
        "spec": {"group": "odd.example.com", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
            "versions": versions},
    });
    done(house, "POST", DEFINITIONS, Some(definition)).await;
    until(house, PATH, |code, _| code == 200).await;
}

pub fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

pub fn thing(spec: Value) -> Value {
    json!({"apiVersion": "odd.example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})
}

/// Code, body and warnings.
async fn send(
    house: &House,
    method: &str,
    path: &str,
    kind: &str,
    body: &Value,
) -> (u16, Value, Vec<String>) {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(body_of(body.to_string())).unwrap();
    let response = house.server.handle(request, Some(admin())).await;
    let code = response.status().as_u16();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|warning| warning.to_str().unwrap().replace("\\\"", "\"")).collect();
    (code, serde_json::from_str(&text(response).await).unwrap(), warnings)
}

pub async fn message(house: &House, method: &str, path: &str, kind: &str, body: &Value) -> (u16, String) {
    let (code, answer, _) = send(house, method, path, kind, body).await;
    (code, answer["message"].as_str().unwrap_or_default().to_owned())
}

pub const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// The answer to an object that can't be read as one of its kind.
fn unreadable(kind: &str, why: &str) -> String {
    format!("{kind} in version \"v1\" cannot be handled as a {kind}: {why}")
}

#[tokio::test]
async fn what_does_not_fit_a_field_is_told_in_the_words_of_the_decoder() {
    let house = House::new().await;
    define(&house, object(json!({"spec": {"type": "object"}}))).await;
    let core = |plural: &str| format!("/api/v1/namespaces/default/{plural}");
    let pod = |container: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}});
    let cannot = |what: &str, field: &str, wanted: &str| {
        format!("json: cannot unmarshal {what} into Go struct field {field} of type {wanted}")
    };
    let layout = "2006-01-02T15:04:05Z07:00";
    let no_time = format!(
        "parsing time \"2024-01-01 00:00:00Z\" as \"{layout}\": cannot parse \" 00:00:00Z\" as \"T\""
    );
    let form = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    for (path, kind, body, why) in [
        (
            DEPLOYMENTS.to_owned(),
            "Deployment",
            json!({"spec": {"replicas": "x"}}),
            cannot("string", "DeploymentSpec.spec.replicas", "int32"),
        ),
        (
            DEPLOYMENTS.to_owned(),
            "Deployment",
            json!({"spec": {"replicas": 2147483648_i64}}),
            cannot("number 2147483648", "DeploymentSpec.spec.replicas", "int32"),
        ),
        (
            core("configmaps"),
            "ConfigMap",
            json!({"metadata": {"labels": {"a": 1}}}),
            cannot("number", "ObjectMeta.metadata.labels", "string"),
        ),
        (
            core("configmaps"),
            "ConfigMap",
            json!({"data": []}),
            cannot("array", "ConfigMap.data", "map[string]string"),
        ),
        (
            core("pods"),
            "Pod",
            pod(json!({"name": "c", "env": [{"name": "a"}, {"name": "b", "value": true}]})),
            cannot("bool", "EnvVar.spec.containers.env.value", "string"),
        ),
        (
            core("pods"),
            "Pod",
            json!({"spec": {"containers": {}}}),
            cannot("object", "PodSpec.spec.containers", "[]v1.Container"),
        ),
        (core("pods"), "Pod", pod(json!("c")), cannot("string", "PodSpec.spec.containers", "v1.Container")),
        (
            core("services"),
            "Service",
            json!({"spec": {"type": 5}}),
            cannot("number", "ServiceSpec.spec.type", "v1.ServiceType"),
        ),
        (
            core("services"),
            "Service",
            json!({"spec": {"ports": [{"targetPort": false}]}}),
            cannot("bool", "ServicePort.spec.ports.targetPort", "int32"),
        ),
        (
            core("persistentvolumeclaims"),
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce", 1]}}),
            cannot("number", "PersistentVolumeClaimSpec.spec.accessModes", "v1.PersistentVolumeAccessMode"),
        ),
        (core("pods"), "Pod", pod(json!({"resources": {"limits": {"cpu": "1x"}}})), form.to_owned()),
        (
            core("secrets"),
            "Secret",
            json!({"data": {"a": "no!"}}),
            "illegal base64 data at input byte 2".to_owned(),
        ),
        (
            core("secrets"),
            "Secret",
            json!({"metadata": {"creationTimestamp": "2024-01-01 00:00:00Z"}}),
            no_time.clone(),
        ),
        (
            PATH.to_owned(),
            "Thing",
            json!({"metadata": {"labels": {"a": 1}}}),
            cannot("number", "ObjectMeta.labels", "string"),
        ),
    ] {
        let said = message(&house, "POST", &path, JSON, &body).await;
        assert_eq!(said, (400, unreadable(kind, &why)), "{body}");
    }
    // Of several things that don't fit, the first in the body is reported, unless the decoder ends at another one.
    let replicas = cannot("string", "DeploymentSpec.spec.replicas", "int32");
    let labels = cannot("number", "ObjectMeta.metadata.labels", "string");
    for (body, why) in [
        (r#"{"spec":{"replicas":"x"},"metadata":{"labels":{"a":1}}}"#, &replicas),
        (r#"{"metadata":{"labels":{"a":1}},"spec":{"replicas":"x"}}"#, &labels),
        (
            r#"{"metadata":{"finalizers":["a",1],"labels":{"a":1}}}"#,
            &cannot("number", "ObjectMeta.metadata.finalizers", "string"),
        ),
        (
            r#"{"spec":{"replicas":"x","template":{"metadata":{"creationTimestamp":"2024-01-01 00:00:00Z"}}}}"#,
            &no_time,
        ),
    ] {
        let request = Request::post(DEPLOYMENTS).header("content-type", JSON).body(body_of(body)).unwrap();
        let answer = text(house.server.handle(request, Some(admin())).await).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["message"], unreadable("Deployment", why), "{body}");
    }
    let names = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let said = message(&house, "POST", &core("configmaps"), JSON, &json!([])).await;
    let why = format!("json: cannot unmarshal array into Go value of type {names} (5b5d)");
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
    assert_eq!(said, (400, format!("{unrecognized}{why}")));
    let request = Request::post(core("configmaps")).header("content-type", JSON);
    let request = request.body(body_of("{\"metadata\": {name: a}, \"data\": {}}".to_owned())).unwrap();
    let answer = text(house.server.handle(request, Some(admin())).await).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let why = "invalid character 'n' looking for beginning of object key string ({\"metadata\": {name: a}, \"data\" ...)";
    assert_eq!(answer["message"], format!("{unrecognized}{why}"));
}

#[tokio::test]
async fn faults_of_a_status_are_told_from_there_on() {
    let house = House::new().await;
    let status = object(
        json!({"p": {"type": "string", "pattern": "^a$"}, "l": {"type": "array", "items": {"type": "integer"}}}),
    );
    define(&house, object(json!({"spec": object(json!({})), "status": status}))).await;
    done(&house, "POST", PATH, Some(thing(json!({})))).await;
    for (status, why) in [
        (json!({"p": "b"}), "status.p: Invalid value: \"b\": p in body should match '^a$'"),
        (
            json!({"l": ["x"]}),
            "status.l[0]: Invalid value: \"string\": l[0] in body must be of type integer: \"string\"",
        ),
    ] {
        let (code, said) =
            message(&house, "PATCH", &format!("{PATH}/t/status"), MERGE, &json!({"status": status})).await;
        assert_eq!((code, said), (422, format!("Thing.odd.example.com \"t\" is invalid: {why}")));
    }
}

#[tokio::test]
async fn a_secret_in_lines_is_stored_in_one() {
    let house = House::new().await;
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "aGVs\nbG8=\n"}});
    let made = done(&house, "POST", "/api/v1/namespaces/default/secrets", Some(secret)).await;
    assert_eq!(made["data"]["a"], "aGVsbG8=");
}

#[tokio::test]
async fn a_status_has_its_defaults_from_the_beginning() {
    let house = House::new().await;
    let status = json!({"type": "object", "default": {"phase": "New"},
        "properties": {"phase": {"type": "string"}, "n": {"type": "integer"}}});
    let mut schema = object(json!({"spec": object(json!({"a": {"type": "integer"}})), "status": status}));
    schema["x-kubernetes-validations"] =
        json!([{"rule": "!has(oldSelf.status) || self.status.phase == oldSelf.status.phase"}]);
    define(&house, schema).await;
    let made = done(&house, "POST", PATH, Some(thing(json!({"a": 1})))).await;
    assert_eq!(made["status"], json!({"phase": "New"}), "{made}");
    let one = format!("{PATH}/t");
    assert_eq!(done(&house, "GET", &one, None).await["status"], json!({"phase": "New"}));
    let changed = done(&house, "PATCH", &one, Some(json!({"spec": {"a": 2}}))).await;
    assert_eq!(changed["status"], json!({"phase": "New"}), "the rule finds the status on a change");
    let counted = done(&house, "PATCH", &format!("{one}/status"), Some(json!({"status": {"n": 5}}))).await;
    assert_eq!(counted["status"], json!({"phase": "New", "n": 5}));
}

#[tokio::test]
async fn values_are_held_against_their_format() {
    let house = House::new().await;
    let of_format = |kind: &str, format: &str| json!({"type": kind, "format": format});
    let limited = json!({"type": "integer", "format": "int32", "maximum": 4_294_967_295_u32});
    let spec = json!({"small": of_format("integer", "int32"), "large": of_format("integer", "int64"),
        "limited": limited, "time": of_format("string", "date-time"),
        "few": {"type": "array", "maxItems": 1, "minItems": 1, "items": {"type": "string"}},
        "word": {"type": "string", "minLength": 3, "maxLength": 5, "pattern": "^a+$"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "either": {"type": "object", "properties": {"b": {"type": "integer"}, "c": {"type": "integer"}}, "anyOf": [
            {"required": ["z"]}, {"required": ["x", "y"], "properties": {"b": {"minimum": 1}, "c": {"minimum": 1}}}]}});
    define(&house, object(json!({"spec": object(spec)}))).await;
    let checked = |format: &str, field: &str| {
        format!(
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format {format} in spec.{field}"
        )
    };
    for (spec, expected) in [
        (json!({"small": 2_147_483_648_i64}), checked("int32", "small")),
        (json!({"large": 9_223_372_036_854_775_808_u64}), checked("int64", "large")),
        (
            json!({"limited": 5}),
            "Maximum boundary value must be of type integer with format int32 in spec.limited".into(),
        ),
        (json!({"small": 5.5}), "spec.small in body must be of type int32: \"float64\"".into()),
        (json!({"time": "2024-10-11 12:48:44Z"}), "must be of type date-time".into()),
        (json!({"time": "2024-10-11T12:48Z"}), "must be of type date-time".into()),
        (json!({"few": []}), "spec.few: Invalid value: 0: spec.few in body should have at least 1 items".into()),
        (json!({"few": ["a", "b"]}), "spec.few: Too many: 2: must have at most 1 item".into()),
        (
            json!({"word": "b"}),
            "\"t\" is invalid: spec.word: Invalid value: \"b\": spec.word in body should be at least 3 chars long"
                .into(),
        ),
        (
            // Told is the condition of which more is met.
            json!({"either": {"b": 3, "c": 4}}),
            "\"spec.either\" must validate at least one schema (anyOf), spec.either.x: Required value, spec.either.y: Required"
                .into(),
        ),
        (json!({"set": ["a", "a", "a"]}), "\"t\" is invalid: spec.set[1]: Duplicate value: \"a\"".into()),
    ] {
        let (code, why) = message(&house, "POST", PATH, JSON, &thing(spec.clone())).await;
        assert_eq!(code, 422, "{spec}");
        assert!(why.contains(&expected), "{spec}: {why}");
    }
    let fits = json!({"small": -2_147_483_648_i64, "large": i64::MAX, "time": "2024-10-11T12:48:44.5+02:00"});
    done(&house, "POST", PATH, Some(thing(fits))).await;
}

#[tokio::test]
async fn fields_that_are_unknown_are_told_in_upstreams_words() {
    let house = House::new().await;
    define(&house, object(json!({"spec": object(json!({"a": {"type": "string"}}))}))).await;
    let strict = |path: &str| format!("{path}?fieldValidation=Strict");
    let (code, why) = message(&house, "POST", &strict(PATH), JSON, &thing(json!({"z": 1}))).await;
    let expected = "Thing in version \"v1\" cannot be handled as a Thing: strict decoding error: unknown field \"spec.z\"";
    assert_eq!((code, why.as_str()), (400, expected));
    done(&house, "POST", PATH, Some(thing(json!({})))).await;
    let one = strict(&format!("{PATH}/t"));
    let (code, answer, _) = send(&house, "PATCH", &one, MERGE, &json!({"spec": {"z": 1}})).await;
    let expected = " \"\" is invalid: patch: Invalid value: strict decoding error: unknown field \"spec.z\"";
    assert_eq!((code, answer["message"].as_str().unwrap()), (422, expected));
    assert_eq!(answer["details"]["causes"][0]["field"], "patch");

    let mut other = thing(json!({}));
    other["kind"] = json!("Other");
    let (code, why) = message(&house, "POST", PATH, JSON, &other).await;
    assert_eq!(code, 422, "{why}");
    assert!(why.ends_with("kind: Invalid value: \"Other\": must be Thing"), "{why}");
    other = thing(json!({}));
    other["apiVersion"] = json!("odd.example.com/v2");
    let expected = "the API version in the data (odd.example.com/v2) does not match the expected API version \
                    (odd.example.com/v1)";
    assert_eq!(message(&house, "POST", PATH, JSON, &other).await, (400, expected.to_owned()));

    // Of what is refused for another reason too.
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": -1, "z": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let (code, _, warnings) = send(&house, "POST", DEPLOYMENTS, JSON, &deployment).await;
    assert_eq!((code, warnings), (422, vec!["299 - \"unknown field \"spec.z\"\"".to_owned()]));
}

#[tokio::test]
async fn what_is_applied_is_judged_as_it_was_sent() {
    let house = House::new().await;
    let spec = json!({"list": {"type": "array", "items": object(json!({"a": {"type": "string"}}))},
        "text": {"type": "string"}, "with": {"type": "string", "default": "x"}});
    define(&house, object(json!({"spec": object(spec)}))).await;
    let one = format!("{PATH}/t?fieldManager=me");
    for (spec, expected) in [
        (json!({"list": [{"a": "x", "z": 1}]}), ".spec.list[0].z: field not declared in schema"),
        (json!({"text": true}), ".spec.text: expected string, got &value.valueUnstructured{Value:true}"),
    ] {
        let head = "failed to create typed patch object (/t; odd.example.com/v1, Kind=Thing): ";
        let answer = message(&house, "PATCH", &one, APPLY, &thing(spec)).await;
        assert_eq!(answer, (500, format!("{head}{expected}")));
    }
    let (code, made, _) =
        send(&house, "PATCH", &one, APPLY, &thing(json!({"text": "a", "with": null}))).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"text": "a", "with": "x"})));
    let (code, why) = message(&house, "PATCH", &one, APPLY, &thing(json!({"text": null}))).await;
    assert_eq!(code, 422, "{why}");
    assert!(why.contains("spec.text in body must be of type string: \"null\""), "{why}");
    // Elsewhere it says nothing.
    let updated = done(&house, "PATCH", &format!("{PATH}/t"), Some(json!({"spec": {"text": null}}))).await;
    assert_eq!(updated["spec"], json!({"with": "x"}));

    let mut owned = thing(json!({}));
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "A", "name": "a"}]);
    let (code, why) = message(&house, "PATCH", &one, APPLY, &owned).await;
    assert_eq!(code, 422, "{why}");
    assert!(why.contains("metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"), "{why}");
}

#[tokio::test]
async fn nothing_is_left_of_nulls_in_lists_that_a_merge_patch_brings() {
    let house = House::new().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&house, object(json!({"spec": open}))).await;
    done(&house, "POST", PATH, Some(thing(json!({"old": {"a": 1}})))).await;
    let patch = json!({"spec": {"new": [{"a": null, "b": 1}, null], "old": [{"a": null}]}});
    let patched = done(&house, "PATCH", &format!("{PATH}/t"), Some(patch)).await;
    assert_eq!(patched["spec"], json!({"new": [{"b": 1}, null], "old": [{"a": null}]}));
}

#[tokio::test]
async fn a_dry_run_shows_what_the_stored_version_would_leave() {
    let house = House::new().await;
    let text = |default: &str| json!({"type": "string", "default": default});
    let newer = version("v2", false, object(json!({"b": text("two"), "z": {"type": "integer"}})));
    let stored = version("v1", true, object(json!({"a": text("one")})));
    define_versions(&house, json!([stored, newer])).await;
    let asked =
        json!({"apiVersion": "odd.example.com/v2", "kind": "Thing", "metadata": {"name": "t"}, "z": 1});
    let path = PATH.replace("/v1/", "/v2/");
    let shown = done(&house, "POST", &format!("{path}?dryRun=All"), Some(asked.clone())).await;
    let made = done(&house, "POST", &path, Some(asked)).await;
    for field in ["a", "b", "z"] {
        assert_eq!(shown.get(field), made.get(field), "{field}");
    }
}

#[tokio::test]
async fn writers_hear_what_upstream_warns_of() {
    let house = House::new().await;
    let namespaced = |group: &str, plural: &str| format!("{group}/namespaces/default/{plural}?dryRun=All");
    let container =
        json!({"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]});
    let format = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "bs.odd.example.com"}, "spec": {"group": "odd.example.com", "scope": "Cluster",
        "names": {"plural": "bs", "kind": "B"}, "versions": [version("v1", true,
            object(json!({"a": {"type": "integer", "format": "int16"}})))]}});
    for (path, object, expected) in [
        (
            namespaced("/api/v1", "pods"),
            json!({"metadata": {"name": "a.b"}, "spec": {"containers": [container]}}),
            &[
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label \
                 is recommended: [must not contain dots]",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            ][..],
        ),
        (
            namespaced("/apis/networking.k8s.io/v1", "ingresses"),
            json!({"metadata": {"name": "i", "annotations": {"kubernetes.io/ingress.class": "n"}},
                "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}}}),
            &[
                "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
            ],
        ),
        (
            namespaced("/api/v1", "secrets"),
            json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "eA==", "tls.key": "eA=="}}),
            &["tls: failed to find any PEM data in certificate input"],
        ),
        (
            namespaced("/api/v1", "services"),
            json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ["192.0.2.1"], "ports": [{"port": 1}]}}),
            &["spec.externalIPs is deprecated and may no longer be implemented in some clusters"],
        ),
        (
            namespaced("/api/v1", "persistentvolumeclaims"),
            json!({"metadata": {"name": "p", "annotations": {"volume.beta.kubernetes.io/storage-class": "x"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1500m"}}}}),
            &[
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
                 \"storageClassName\" attribute instead",
                "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
            ],
        ),
        (format!("{DEFINITIONS}?dryRun=All"), format, &["unrecognized format \"int16\""]),
    ] {
        let (code, answer, warnings) = send(&house, "POST", &path, JSON, &object).await;
        assert_eq!(code, 201, "{answer}");
        let expected: Vec<String> = expected.iter().map(|text| format!("299 - \"{text}\"")).collect();
        for warning in &expected {
            assert!(warnings.contains(warning), "{path}: {warnings:?}");
        }
    }

    let current = version("v1", true, json!({"type": "object"}));
    let mut old = version("v1beta1", false, json!({"type": "object"}));
    old["deprecated"] = json!(true);
    define_versions(&house, json!([old, current])).await;
    let old = PATH.replace("/v1/", "/v1beta1/");
    let mut finalized = thing(json!({}));
    finalized.as_object_mut().unwrap().remove("spec");
    finalized["metadata"]["finalizers"] = json!(["cleanup"]);
    finalized["apiVersion"] = json!("odd.example.com/v1beta1");
    let (_, _, warnings) = send(&house, "POST", &old, JSON, &finalized).await;
    assert_eq!(
        warnings,
        [
            "299 - \"metadata.finalizers: \"cleanup\": prefer a domain-qualified finalizer name to avoid accidental \
             conflicts with other finalizer writers\"",
            "299 - \"odd.example.com/v1beta1 Thing is deprecated; use odd.example.com/v1 Thing\"",
        ]
    );
}
