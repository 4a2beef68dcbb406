//! What is wrong with objects of the later groups, as upstream's validation names it: reason and field.

#![allow(missing_docs, clippy::unwrap_used)]

mod definitions;
mod given;

use api::resource_of_kind;
use machinery::{
    Cause, Object, decode, prepare_create, prepare_update, set_defaults, validate_create, validate_update,
};
use serde_json::{Value, json};

fn prepared(manifest: &Value) -> Object {
    let text = |field: &str| manifest[field].as_str().unwrap();
    let resource = resource_of_kind(text("apiVersion"), text("kind")).unwrap();
    let mut object = decode(resource, manifest.to_string().as_bytes()).unwrap().object;
    object.set_meta("uid", "u");
    object.set_meta("creationTimestamp", "2026-01-31T12:00:00Z");
    set_defaults(resource, &mut object).unwrap();
    prepare_create(resource, &mut object);
    object
}

fn named(faults: Vec<Cause>) -> Vec<String> {
    let short = |cause: &Cause| cause.reason.trim_start_matches("FieldValue").to_owned();
    faults.iter().map(|cause| format!("{} {}", short(cause), cause.field)).collect()
}

/// The faults of a manifest; its names get defaults.
fn faults(api_version: &str, kind: &str, name: &str, rest: Value) -> Vec<String> {
    let mut manifest = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    manifest.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let object = prepared(&manifest);
    named(validate_create(resource_of_kind(api_version, kind).unwrap(), &object))
}

/// The faults of a change.
fn change_faults(kind: (&str, &str), subresource: &str, old: Value, patch: Value) -> Vec<String> {
    let resource = resource_of_kind(kind.0, kind.1).unwrap();
    let mut manifest = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": "x"}});
    manifest.as_object_mut().unwrap().extend(old.as_object().unwrap().clone());
    let mut old = prepared(&manifest);
    if let Some(status) = manifest.get("status") {
        old.0.insert("status".into(), status.clone());
    }
    let mut object = machinery::patch(resource, machinery::PatchType::Merge, &old, &patch).unwrap();
    set_defaults(resource, &mut object).unwrap();
    prepare_update(resource, subresource, &mut object, &old);
    named(validate_update(resource, subresource, &object, &old))
}

const NONE: [&str; 0] = [];

#[test]
fn network_policies() {
    let of = |spec: Value| faults("networking.k8s.io/v1", "NetworkPolicy", "x", json!({"spec": spec}));
    assert_eq!(of(json!({"podSelector": {}})), NONE);
    let path = "spec.ingress[0].from[0]";
    for (peer, expected) in [
        (json!({}), vec![format!("Required {path}")]),
        (json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}), vec![format!("Forbidden {path}")]),
        (json!({"ipBlock": {"cidr": "10.0.0.0"}}), vec![format!("Invalid {path}.ipBlock.cidr")]),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16", "10.0.0.0/8"]}}),
            vec![format!("Invalid {path}.ipBlock.except[1]"), format!("Invalid {path}.ipBlock.except[2]")],
        ),
    ] {
        let found = of(json!({"podSelector": {}, "ingress": [{"from": [peer]}]}));
        assert_eq!(found, expected, "{peer}");
    }
    let path = "spec.egress[0].ports[0]";
    for (port, field) in [
        (json!({"port": 0}), "port"),
        (json!({"port": "Upper"}), "port"),
        (json!({"endPort": 5}), "endPort"),
        (json!({"port": 9, "endPort": 5}), "endPort"),
        (json!({"port": "http", "endPort": 5}), "endPort"),
    ] {
        let found = of(json!({"podSelector": {}, "egress": [{"ports": [port]}]}));
        assert_eq!(found, [format!("Invalid {path}.{field}")], "{port}");
    }
}

#[test]
fn ingresses() {
    let of = |spec: Value| faults("networking.k8s.io/v1", "Ingress", "x", json!({"spec": spec}));
    let backend = json!({"service": {"name": "x", "port": {"number": 80}}});
    assert_eq!(of(json!({"defaultBackend": backend})), NONE);
    assert_eq!(of(json!({})), ["Invalid spec"]);
    let path = |path: Value| of(json!({"rules": [{"http": {"paths": [path]}}]}));
    let at = "spec.rules[0].http.paths[0]";
    assert_eq!(path(json!({"path": "/", "backend": backend})), [format!("Required {at}.pathType")]);
    assert_eq!(
        path(json!({"path": "x//", "pathType": "Exact", "backend": backend})),
        [format!("Invalid {at}.path"), format!("Invalid {at}.path")]
    );
    for (backend, expected) in [
        (json!({}), format!("Invalid {at}.backend")),
        (json!({"service": {"port": {"number": 1}}}), format!("Required {at}.backend.service.name")),
        (json!({"service": {"name": "x"}}), format!("Required {at}.backend")),
        (
            json!({"service": {"name": "x", "port": {"number": 70000}}}),
            format!("Invalid {at}.backend.service.port.number"),
        ),
        (
            json!({"service": {"name": "x", "port": {"name": "aB"}}}),
            format!("Invalid {at}.backend.service.port.name"),
        ),
        (json!({"resource": {"kind": "A", "name": ""}}), format!("Required {at}.backend.resource.name")),
    ] {
        assert_eq!(
            path(json!({"path": "/", "pathType": "Prefix", "backend": backend})),
            [expected],
            "{backend}"
        );
    }
    let host = |host: &str| of(json!({"rules": [{"host": host}]})).len();
    assert_eq!(["a.example.com", "*.example.com", "*", "1.2.3.4", "A"].map(host), [0, 0, 1, 1, 1]);
}

#[test]
fn addresses_and_classes_of_networks() {
    let parent = json!({"spec": {"parentRef": {"resource": "services", "name": "a", "namespace": "n"}}});
    let address = |name: &str, rest: &Value| faults("networking.k8s.io/v1", "IPAddress", name, rest.clone());
    assert_eq!(address("10.0.0.1", &parent), NONE);
    assert_eq!(address("10.0.0.01", &parent), ["Invalid metadata.name"]);
    assert_eq!(address("2001:DB8::1", &parent), ["Invalid metadata.name"]);
    assert_eq!(address("10.0.0.1", &json!({"spec": {}})), ["Required spec.parentRef"]);
    let cidrs =
        |cidrs: Value| faults("networking.k8s.io/v1", "ServiceCIDR", "x", json!({"spec": {"cidrs": cidrs}}));
    assert_eq!(cidrs(json!(["10.0.0.0/16", "2001:db8::/64"])), NONE);
    assert_eq!(cidrs(json!([])), ["Required spec.cidrs"]);
    assert_eq!(cidrs(json!(["10.0.0.0/16", "10.1.0.0/16"])), ["Invalid spec.cidrs"]);
    assert_eq!(cidrs(json!(["10.0.0.1/16"])), ["Invalid spec.cidrs[0]"]);
    let class = |spec: Value| faults("networking.k8s.io/v1", "IngressClass", "x", json!({"spec": spec}));
    assert_eq!(class(json!({"controller": "example.com/c"})), NONE);
    assert_eq!(class(json!({})), ["Required spec.controller"]);
    assert_eq!(class(json!({"controller": "c"})), ["Invalid spec.controller"]);
    let parameters = json!({"kind": "A", "name": "a", "scope": "Namespace"});
    assert_eq!(
        class(json!({"controller": "example.com/c", "parameters": parameters})),
        ["Required spec.parameters.namespace"]
    );
    let kind = ("networking.k8s.io/v1", "IngressClass");
    let patch = json!({"spec": {"controller": "example.com/d"}});
    assert_eq!(
        change_faults(kind, "", json!({"spec": {"controller": "example.com/c"}}), patch),
        ["Invalid spec.controller"]
    );
}

#[test]
fn roles_and_bindings() {
    const V: &str = "rbac.authorization.k8s.io/v1";
    let role = |kind: &str, rule: Value| faults(V, kind, "system:x", json!({"rules": [rule]}));
    assert_eq!(role("Role", json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})), NONE);
    assert_eq!(
        role("Role", json!({})),
        ["Required rules[0].verbs", "Required rules[0].apiGroups", "Required rules[0].resources"]
    );
    let url = json!({"verbs": ["get"], "nonResourceURLs": ["/x"]});
    assert_eq!(role("ClusterRole", url.clone()), NONE);
    assert_eq!(role("Role", url), ["Invalid rules[0].nonResourceURLs"]);
    assert_eq!(faults(V, "Role", "a/b", json!({})), ["Invalid metadata.name"]);
    assert_eq!(
        faults(V, "ClusterRole", "x", json!({"aggregationRule": {}})),
        ["Required aggregationRule.clusterRoleSelectors"]
    );
    let bind = |kind: &str, role: &str, subject: Value| {
        let role = json!({"kind": role, "name": "r"});
        faults(V, kind, "x", json!({"roleRef": role, "subjects": [subject]}))
    };
    assert_eq!(bind("RoleBinding", "Role", json!({"kind": "User", "name": "a"})), NONE);
    assert_eq!(
        bind("RoleBinding", "Pod", json!({"kind": "User"})),
        ["NotSupported roleRef.kind", "Required subjects[0].name"]
    );
    assert_eq!(
        bind("ClusterRoleBinding", "Role", json!({"kind": "User", "name": "a"})),
        ["NotSupported roleRef.kind"]
    );
    assert_eq!(
        bind("ClusterRoleBinding", "ClusterRole", json!({"kind": "ServiceAccount", "name": "a"})),
        ["Required subjects[0].namespace"]
    );
    assert_eq!(
        bind("RoleBinding", "Role", json!({"kind": "Host", "name": "a"})),
        ["NotSupported subjects[0].kind"]
    );
    let old = json!({"roleRef": {"kind": "ClusterRole", "name": "r"}});
    let patch = json!({"roleRef": {"name": "s"}});
    assert_eq!(change_faults((V, "ClusterRoleBinding"), "", old, patch), ["Invalid roleRef"]);
}

#[test]
fn storage() {
    const V: &str = "storage.k8s.io/v1";
    assert_eq!(faults(V, "StorageClass", "x", json!({})), ["Required provisioner"]);
    assert_eq!(
        faults(V, "StorageClass", "x", json!({"provisioner": "p", "reclaimPolicy": "Recycle"})),
        ["NotSupported reclaimPolicy"]
    );
    let kind = (V, "StorageClass");
    let old = json!({"provisioner": "p", "parameters": {"a": "b"}});
    let patch =
        json!({"provisioner": "q", "parameters": {"a": "c"}, "volumeBindingMode": "WaitForFirstConsumer"});
    assert_eq!(
        change_faults(kind, "", old, patch),
        ["Invalid parameters", "Invalid provisioner", "Invalid volumeBindingMode"]
    );
    assert_eq!(faults(V, "CSIDriver", &"x".repeat(64), json!({"spec": {}})), ["Invalid metadata.name"]);
    let spec = json!({"volumeLifecycleModes": ["Often"], "tokenRequests": [{"audience": "a", "expirationSeconds": 5}]});
    assert_eq!(
        faults(V, "CSIDriver", "x", json!({"spec": spec})),
        ["NotSupported spec.volumeLifecycleModes", "Invalid spec.tokenRequests[0].expirationSeconds"]
    );
    let drivers = json!([{"name": "a", "nodeID": "1"}, {"name": "a"}]);
    assert_eq!(
        faults(V, "CSINode", "x", json!({"spec": {"drivers": drivers}})),
        ["Required spec.drivers[1].nodeID", "Duplicate spec.drivers[1].name"]
    );
    let spec = json!({"attacher": "a", "nodeName": "n", "source": {}});
    assert_eq!(faults(V, "VolumeAttachment", "x", json!({"spec": spec})), ["Required spec.source"]);
    assert_eq!(faults(V, "VolumeAttributesClass", "x", json!({"driverName": "d"})), ["Required parameters"]);
    assert_eq!(
        faults(V, "CSIStorageCapacity", "x", json!({"capacity": "-1"})),
        ["Invalid storageClassName", "Invalid capacity"]
    );
}

#[test]
fn priority_classes() {
    const KIND: (&str, &str) = ("scheduling.k8s.io/v1", "PriorityClass");
    let of = |name: &str, value: i64| faults(KIND.0, KIND.1, name, json!({"value": value}));
    assert_eq!(of("x", 1_000_000_000), NONE);
    assert_eq!(of("x", 1_000_000_001), ["Forbidden value"]);
    assert_eq!(of("system-x", 1), ["Forbidden metadata.name"]);
    assert_eq!(of("system-node-critical", 2_000_001_000), NONE);
    let patch = json!({"value": 2, "preemptionPolicy": "Never"});
    assert_eq!(
        change_faults(KIND, "", json!({"value": 1}), patch),
        ["Forbidden value", "Invalid preemptionPolicy"]
    );
}

#[test]
fn webhooks_and_policies() {
    const V: &str = "admissionregistration.k8s.io/v1";
    let hook = |change: &dyn Fn(&mut Value)| {
        let mut webhook = json!({
            "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": "https://127.0.0.1/x"},
        });
        change(&mut webhook);
        faults(V, "ValidatingWebhookConfiguration", "x", json!({"webhooks": [webhook]}))
    };
    assert_eq!(hook(&|_| {}), NONE);
    for (field, value, expected) in [
        ("name", json!("a.com"), "Invalid webhooks[0].name"),
        ("sideEffects", json!("Some"), "NotSupported webhooks[0].sideEffects"),
        ("timeoutSeconds", json!(31), "Invalid webhooks[0].timeoutSeconds"),
        ("admissionReviewVersions", json!(["v7"]), "Invalid webhooks[0].admissionReviewVersions"),
        ("clientConfig", json!({}), "Required webhooks[0].clientConfig"),
        ("clientConfig", json!({"url": "http://a/b"}), "Invalid webhooks[0].clientConfig.url"),
        (
            "rules",
            json!([{"apiGroups": ["*", "a"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["*"]}]),
            "Invalid webhooks[0].rules[0].apiGroups",
        ),
    ] {
        assert_eq!(hook(&|webhook| webhook[field] = value.clone()), [expected], "{value}");
    }
    let policy = |spec: Value| faults(V, "ValidatingAdmissionPolicy", "x", json!({"spec": spec}));
    assert_eq!(
        policy(json!({})),
        ["Required spec.matchConstraints", "Required spec.validations", "Required spec.auditAnnotations"]
    );
    let bind = |spec: Value| faults(V, "ValidatingAdmissionPolicyBinding", "x", json!({"spec": spec}));
    assert_eq!(bind(json!({})), ["Required spec.policyName", "Required spec.validationActions"]);
    assert_eq!(
        bind(json!({"policyName": "x", "validationActions": ["Deny", "Warn"], "paramRef": {}})),
        [
            "Required spec.paramRef",
            "Required spec.paramRef.parameterNotFoundAction",
            "Invalid spec.validationActions"
        ]
    );
}

#[test]
fn requests_for_certificates() {
    const KIND: (&str, &str) = ("certificates.k8s.io/v1", "CertificateSigningRequest");
    // A sequence that is no real request is enough: signers read it, the API only holds it.
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let spec = json!({"request": pem, "signerName": "example.com/s", "usages": ["client auth"]});
    assert_eq!(faults(KIND.0, KIND.1, "x", json!({"spec": spec})), NONE);
    assert_eq!(
        faults(KIND.0, KIND.1, "x", json!({"spec": {"request": "AAAA", "expirationSeconds": 1}})),
        [
            "Invalid spec.request",
            "Required spec.usages",
            "Required spec.signerName",
            "Invalid spec.expirationSeconds"
        ]
    );
    let old = json!({"spec": spec, "status": {}});
    let decided = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    assert_eq!(change_faults(KIND, "approval", old.clone(), decided("Approved")), NONE);
    assert_eq!(
        change_faults(KIND, "status", old.clone(), decided("Approved")),
        ["Forbidden status.conditions"]
    );
    assert_eq!(
        change_faults(KIND, "approval", old.clone(), decided("Failed")),
        ["Forbidden status.conditions"]
    );
    let approved = json!({"spec": spec, "status": decided("Approved")["status"]});
    assert_eq!(change_faults(KIND, "approval", approved, decided("Denied")), ["Forbidden status.conditions"]);
}

#[test]
fn api_services() {
    const V: &str = "apiregistration.k8s.io/v1";
    let spec = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10});
    assert_eq!(faults(V, "APIService", "v1.a.b", json!({"spec": spec})), NONE);
    assert_eq!(faults(V, "APIService", "v2.a.b", json!({"spec": spec})), ["Invalid metadata.name"]);
    let spec = json!({"group": "a.b", "version": "v1", "service": {"name": "s"}, "insecureSkipTLSVerify": true, "caBundle": "AAAA"});
    assert_eq!(
        faults(V, "APIService", "v1.a.b", json!({"spec": spec})),
        [
            "Invalid spec.groupPriorityMinimum",
            "Invalid spec.versionPriority",
            "Required spec.service.namespace",
            "Invalid spec.insecureSkipTLSVerify"
        ]
    );
}

#[test]
fn flows_and_priority_levels() {
    const V: &str = "flowcontrol.apiserver.k8s.io/v1";
    let flow = |spec: Value| faults(V, "FlowSchema", "x", json!({"spec": spec}));
    assert_eq!(
        flow(
            json!({"matchingPrecedence": 10001, "rules": [{"subjects": [{"kind": "User", "group": {"name": "g"}}]}]})
        ),
        [
            "Invalid spec.matchingPrecedence",
            "Required spec.priorityLevelConfiguration.name",
            "Forbidden spec.rules[0].subjects[0].group",
            "Required spec.rules[0].subjects[0].user",
            "Required spec.rules[0]"
        ]
    );
    let level =
        |name: &str, spec: Value| faults(V, "PriorityLevelConfiguration", name, json!({"spec": spec}));
    let limited = |queuing: Value| json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
    assert_eq!(level("x", limited(json!({}))), NONE);
    assert_eq!(
        level("x", limited(json!({"queues": 4, "handSize": 8}))),
        ["Invalid spec.limited.limitResponse.queuing.handSize"]
    );
    assert_eq!(
        level("x", limited(json!({"queues": 128, "handSize": 20}))),
        ["Invalid spec.limited.limitResponse.queuing.handSize"]
    );
    assert_eq!(level("x", json!({"type": "Exempt"})), ["Invalid spec.type"]);
    assert_eq!(level("exempt", json!({"type": "Exempt"})), NONE);
}

#[test]
fn claims_of_devices() {
    const V: &str = "resource.k8s.io/v1";
    let claim = |requests: Value| {
        faults(V, "ResourceClaim", "x", json!({"spec": {"devices": {"requests": requests}}}))
    };
    assert_eq!(claim(json!([{"name": "a", "exactly": {"deviceClassName": "c"}}])), NONE);
    assert_eq!(claim(json!([{"name": "a"}])), ["Required spec.devices.requests[0]"]);
    assert_eq!(
        claim(json!([{"name": "a", "exactly": {"allocationMode": "All", "count": 2}}])),
        [
            "Required spec.devices.requests[0].exactly.deviceClassName",
            "Invalid spec.devices.requests[0].exactly.count"
        ]
    );
    let slice = |spec: Value| faults(V, "ResourceSlice", "x", json!({"spec": spec}));
    let pool = json!({"name": "p", "resourceSliceCount": 1});
    assert_eq!(slice(json!({"driver": "d", "pool": pool, "nodeName": "n"})), NONE);
    assert_eq!(slice(json!({"driver": "d", "pool": pool})), ["Required spec"]);
    assert_eq!(
        slice(json!({"driver": "d", "pool": pool, "nodeName": "n", "allNodes": true})),
        ["Invalid spec"]
    );
}

#[test]
fn endpoint_slices_have_addresses_of_their_type() {
    let of = |kind: &str, address: &str| {
        let rest = json!({"addressType": kind, "endpoints": [{"addresses": [address]}]});
        faults("discovery.k8s.io/v1", "EndpointSlice", "x", rest)
    };
    for (kind, address) in
        [("IPv4", "10.0.0.1"), ("IPv6", "2001:db8::1"), ("FQDN", "a.example.com"), ("FQDN", "example.com.")]
    {
        assert_eq!(of(kind, address), NONE, "{kind} {address}");
    }
    // Upstream names a wrong family by the list, and what is no address by its place.
    assert_eq!(of("IPv4", "2001:db8::1"), ["Invalid endpoints[0].addresses"]);
    assert_eq!(of("IPv6", "10.0.0.1"), ["Invalid endpoints[0].addresses"]);
    for (kind, address) in
        [("IPv4", "a"), ("IPv4", "010.0.0.1"), ("FQDN", "localhost"), ("FQDN", "a..b"), ("FQDN", "")]
    {
        assert_eq!(of(kind, address), ["Invalid endpoints[0].addresses[0]"], "{kind} {address}");
    }
}

#[test]
fn mounts_stay_below_their_volume() {
    let of = |mount: Value| {
        let mut mount = mount;
        mount["name"] = "v".into();
        mount["mountPath"] = "/m:x".into();
        let spec = json!({"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "k"}]}}],
            "containers": [{"name": "c", "image": "i", "volumeMounts": [mount]}]});
        faults("v1", "Pod", "x", json!({"spec": spec}))
    };
    assert_eq!(of(json!({"subPath": "a/b"})), NONE);
    assert_eq!(of(json!({"subPathExpr": "$(A)/b"})), NONE);
    // Upstream names these by the list alone.
    assert_eq!(of(json!({"subPath": "../b"})), ["Invalid spec.containers[0].volumeMounts.subPath"]);
    assert_eq!(of(json!({"subPath": "/b"})), ["Invalid spec.containers[0].volumeMounts.subPath"]);
    assert_eq!(
        of(json!({"subPathExpr": "a/../$(A)"})),
        ["Invalid spec.containers[0].volumeMounts.subPathExpr"]
    );
    assert_eq!(
        of(json!({"subPath": "a", "subPathExpr": "b"})),
        ["Invalid spec.containers[0].volumeMounts[0].subPathExpr"]
    );
    let volume = json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "../../x"}]}}],
        "containers": [{"name": "c", "image": "i"}]});
    assert_eq!(
        faults("v1", "Pod", "x", json!({"spec": volume})),
        ["Invalid spec.volumes[0].secret.items[0].path"]
    );
}
