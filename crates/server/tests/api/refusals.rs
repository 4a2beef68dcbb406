//! The words of refusals that recordings of codes and fields can't hold, and what upstream refuses by other objects.

use serde_json::{Value, json};

use crate::conversion::{DEFINITIONS, done};
use crate::house::House;
use crate::wording::{APPLY, JSON, PATH, define, message, object, thing, version};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn core(plural: &str) -> String {
    format!("/api/v1/namespaces/default/{plural}")
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

/// A pod with one container, and more in its spec.
fn pod(container: Value, more: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": more});
    pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    pod["spec"]["containers"][0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    pod
}

fn amount(resource: &str, divisor: &str) -> Value {
    let source = json!({"resource": resource, "divisor": divisor});
    json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": source}}]})
}

fn definition(schema: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "bs.odd.k8s.io"}, "spec": {"group": "odd.k8s.io", "scope": "Cluster",
        "names": {"plural": "bs", "kind": "B"}, "versions": [version("v1", true, schema)]}})
}

#[tokio::test]
async fn what_is_refused_is_told_in_upstreams_words() {
    let house = House::new().await;
    let taken = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 1}]});
    done(&house, "POST", SERVICES, Some(service("taken", taken.clone()))).await;
    let source = json!({"configMapKeyRef": {"name": "a", "key": "b"}});
    let mut two = source.clone();
    two["secretKeyRef"] = json!({"name": "a", "key": "b"});
    let env = |from: &Value, value: &str| json!({"env": [{"name": "A", "valueFrom": from, "value": value}]});
    let approved = |said: &str| {
        let mut definition = definition(json!({"type": "object"}));
        definition["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": said});
        definition
    };
    let mut broken = approved("unapproved, a test");
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object",
        "properties": {"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < nothing"}]}}});
    let subjects = json!([{"kind": "Thing", "name": "a"}]);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned();
    let slash = pod(json!({}), json!({"runtimeClassName": "a/b"}));
    for (path, body, code, why) in [
        (
            SERVICES.to_owned(),
            service("s", json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]})),
            422,
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\
             \"TargetPort\":0,\"NodePort\":0}",
        ),
        (
            SERVICES.to_owned(),
            service("s", taken),
            422,
            "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already \
             allocated",
        ),
        (
            SERVICES.to_owned(),
            service("s", json!({"clusterIP": "1.2.3.4", "ports": [{"port": 1}]})),
            422,
            "failed to allocate IP 1.2.3.4: the provided IP (1.2.3.4) is not in the valid range. The range of valid IPs \
             is 10.96.0.0/16",
        ),
        (
            bindings,
            json!({"metadata": {"name": "b"}, "subjects": subjects,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}}),
            422,
            "subjects[0].kind: Unsupported value: \"Thing\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
        ),
        (
            core("pods"),
            pod(json!({}), json!({"dnsPolicy": "Odd"})),
            422,
            "spec.dnsPolicy: Unsupported value: \"Odd\": supported values: \"ClusterFirstWithHostNet\", \
             \"ClusterFirst\", \"Default\", \"None\"",
        ),
        (
            core("pods"),
            pod(json!({}), json!({"restartPolicy": "Odd"})),
            422,
            "spec.restartPolicy: Unsupported value: \"Odd\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            core("pods"),
            pod(env(&source, "v"), json!({})),
            422,
            "env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            core("pods"),
            pod(env(&two, ""), json!({})),
            422,
            "env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
        ),
        (
            core("pods"),
            pod(amount("limits.cpu", "2"), json!({})),
            422,
            "resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with \
             the cpu resource",
        ),
        (
            core("pods"),
            pod(amount("requests.memory", "1m"), json!({})),
            422,
            "1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
        ),
        (core("pods"), slash, 500, "invalid resource name \"a/b\": [may not contain '/']"),
        (
            DEFINITIONS.to_owned(),
            approved(""),
            422,
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval \
             annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
        (
            DEFINITIONS.to_owned(),
            approved("yes"),
            422,
            "Invalid value: \"yes\": protected groups must have approval annotation \"api-approved.kubernetes.io\" with \
             either a URL or a reason starting with \"unapproved\", see \
             https://github.com/kubernetes/enhancements/pull/1111",
        ),
        (
            DEFINITIONS.to_owned(),
            broken,
            422,
            "Invalid value: {\"Rule\":\"self \\u003c nothing\",\"Message\":\"\",\"MessageExpression\":\"\",\
             \"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:8: \
             undeclared reference to 'nothing' (in container '')",
        ),
    ] {
        let (found, said) = message(&house, "POST", &format!("{path}?dryRun=All"), JSON, &body).await;
        assert_eq!(found, code, "{body}: {said}");
        assert!(said.contains(why), "{body}: {said}");
    }
    for (resource, divisor) in
        [("limits.cpu", "1000m"), ("limits.memory", "1024Ki"), ("requests.hugepages-2Mi", "1Mi")]
    {
        let body = pod(amount(resource, divisor), json!({}));
        let (code, said) =
            message(&house, "POST", &format!("{}?dryRun=All", core("pods")), JSON, &body).await;
        assert_eq!(code, 201, "{resource} {divisor}: {said}");
    }
}

#[tokio::test]
async fn a_version_that_objects_were_stored_in_stays() {
    let house = House::new().await;
    let mut definition = definition(json!({"type": "object"}));
    definition["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "https://example.com/1"});
    done(&house, "POST", DEFINITIONS, Some(definition)).await;
    let one = format!("{DEFINITIONS}/bs.odd.k8s.io");
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/name", "value": "v2"}]);
    let (code, said) = message(&house, "PATCH", &one, "application/json-patch+json", &patch).await;
    let why = "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage \
               version, and must remain in spec.versions until a storage migration ensures no data remains persisted in \
               v1 and removes v1 from status.storedVersions";
    assert_eq!(code, 422, "{said}");
    assert!(said.contains(why), "{said}");
    // An approval can't be taken back either.
    let patch = json!({"metadata": {"annotations": null}});
    let (code, said) = message(&house, "PATCH", &one, "application/merge-patch+json", &patch).await;
    assert_eq!(code, 422, "{said}");
    assert!(said.contains("metadata.annotations[api-approved.kubernetes.io]: Required value"), "{said}");
}

#[tokio::test]
async fn ports_of_one_number_get_one_port_of_the_hosts() {
    let house = House::new().await;
    let port =
        |name: &str, protocol: &str, number: u16| json!({"name": name, "protocol": protocol, "port": number});
    let ports = json!([port("udp", "UDP", 53), port("tcp", "TCP", 53), port("metrics", "TCP", 9153)]);
    let made =
        done(&house, "POST", SERVICES, Some(service("dns", json!({"type": "NodePort", "ports": ports}))))
            .await;
    let on_hosts =
        |service: &Value, index: usize| service["spec"]["ports"][index]["nodePort"].as_i64().unwrap();
    assert_eq!(on_hosts(&made, 0), on_hosts(&made, 1), "{made}");
    assert_ne!(on_hosts(&made, 0), on_hosts(&made, 2), "{made}");
    // One that is given counts for the other too, wherever it stands.
    let mut given = json!([port("udp", "UDP", 53), port("tcp", "TCP", 53)]);
    let free = if on_hosts(&made, 0) == 30_053 || on_hosts(&made, 2) == 30_053 { 30_054 } else { 30_053 };
    given[1]["nodePort"] = json!(free);
    let given = service("given", json!({"type": "NodePort", "ports": given}));
    let given = done(&house, "POST", SERVICES, Some(given)).await;
    assert_eq!((on_hosts(&given, 0), on_hosts(&given, 1)), (free, free), "{given}");
    // Where another has that of TCP, UDP keeps it alone.
    let mut other = json!([port("udp", "UDP", 53), port("tcp", "TCP", 53)]);
    other[0]["nodePort"] = json!(31_053);
    let blocking = json!([{"port": 1, "nodePort": 31_053}]);
    done(&house, "POST", SERVICES, Some(service("b", json!({"type": "NodePort", "ports": blocking})))).await;
    let other = service("other", json!({"type": "NodePort", "ports": other}));
    let other = done(&house, "POST", SERVICES, Some(other)).await;
    assert_eq!(on_hosts(&other, 0), 31_053, "{other}");
    assert_ne!(on_hosts(&other, 1), 31_053, "{other}");
}

#[tokio::test]
async fn devices_are_claimed_for_administrators_where_the_namespace_says_so() {
    let house = House::new().await;
    let path = |plural: &str| format!("/apis/resource.k8s.io/v1/namespaces/default/{plural}");
    let spec = json!({"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "c"}},
        {"name": "b", "exactly": {"deviceClassName": "c", "adminAccess": true}},
    ]}});
    let claim = json!({"metadata": {"name": "c"}, "spec": spec});
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": spec}});
    let why = "spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the \
               `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    for (plural, body) in [("resourceclaims", &claim), ("resourceclaimtemplates", &template)] {
        let (code, said) = message(&house, "POST", &path(plural), JSON, body).await;
        assert_eq!(code, 422, "{said}");
        assert!(said.ends_with(why), "{said}");
    }
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    done(&house, "PATCH", "/api/v1/namespaces/default", Some(label)).await;
    done(&house, "POST", &path("resourceclaims"), Some(claim)).await;
    done(&house, "POST", &path("resourceclaimtemplates"), Some(template)).await;
}

#[tokio::test]
async fn faults_of_a_custom_resource_are_told_in_upstreams_order() {
    let house = House::new().await;
    let spec = json!({"type": "object", "required": ["z"], "properties": {
        "z": {"type": "integer"},
        "list": {"type": "array", "minItems": 3, "items": {"type": "integer"}},
        "all": {"type": "string", "allOf": [{"minLength": 3}, {"pattern": "^b"}]},
        "one": {"type": "string", "oneOf": [{"minLength": 1}, {"pattern": "^b"}]},
    }});
    define(&house, object(json!({"spec": spec}))).await;
    for (spec, told) in [
        (
            json!({"list": ["x"]}),
            "[spec.list[0]: Invalid value: \"string\": spec.list[0] in body must be of type integer: \"string\", \
             spec.list: Invalid value: 1: spec.list in body should have at least 3 items, spec.z: Required value]",
        ),
        (
            json!({"z": 1, "all": "a"}),
            "[spec.all: Invalid value: \"a\": spec.all in body should be at least 3 chars long, spec.all: Invalid value: \
             \"a\": spec.all in body should match '^b', <nil>: Invalid value: \"\": \"spec.all\" must validate all the \
             schemas (allOf). None validated]",
        ),
    ] {
        let (code, said) = message(&house, "POST", PATH, JSON, &thing(spec)).await;
        assert_eq!(code, 422, "{said}");
        assert!(said.ends_with(told), "{said}");
    }
    // Of nothing, conditions aren't asked.
    done(&house, "POST", PATH, Some(thing(json!({"z": 1})))).await;
    let one = format!("{PATH}/t?fieldManager=a&force=true");
    let (code, said) = message(&house, "PATCH", &one, APPLY, &thing(json!({"z": 1, "one": null}))).await;
    assert_eq!(code, 422, "{said}");
    let told = "\"t\" is invalid: spec.one: Invalid value: \"null\": spec.one in body must be of type string: \"null\"";
    assert!(said.ends_with(told), "{said}");
}
