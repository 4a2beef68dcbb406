//! Writes: what two at once come to, what a host may change, what the parts of the process do.

use std::collections::BTreeSet;

use objects::{Delete, ObjectRef, TypedRef, Write};
use serde_json::{Value, json};
use store::Store;

use crate::house::{House, node};

fn service(name: &str) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "a", "image": "i"}]}})
}

#[tokio::test]
async fn services_made_at_once_get_addresses_and_ports_of_their_own() {
    let house = House::new().await;
    let names: Vec<String> = (0..50).map(|n| format!("s{n}")).collect();
    let made = names
        .iter()
        .map(|name| house.ask("POST", "/api/v1/namespaces/default/services", Some(service(name))));
    let made = futures::future::join_all(made).await;
    let mut seen = BTreeSet::new();
    for (code, service) in &made {
        assert_eq!(*code, 201, "{service}");
        assert!(seen.insert(service["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        assert!(seen.insert(service["spec"]["ports"][0]["nodePort"].to_string()));
    }

    // What a service had is free again once it is gone, and not before.
    let address = made[0].1["spec"]["clusterIP"].clone();
    let mut again = service("again");
    again["spec"]["clusterIP"] = address.clone();
    let (code, answer) = house.ask("POST", "/api/v1/namespaces/default/services", Some(again.clone())).await;
    assert_eq!((code, &answer["details"]["causes"][0]["field"]), (422, &json!("spec.clusterIPs")));
    assert_eq!(house.ask("DELETE", "/api/v1/namespaces/default/services/s0", None).await.0, 200);
    let (code, answer) = house.ask("POST", "/api/v1/namespaces/default/services", Some(again)).await;
    assert_eq!((code, &answer["spec"]["clusterIP"]), (201, &address));
}

#[tokio::test]
async fn a_service_keeps_its_address_when_it_is_replaced_without_one() {
    let house = House::new().await;
    let (_, made) = house.ask("POST", "/api/v1/namespaces/default/services", Some(service("s"))).await;
    let (code, kept) = house.ask("PUT", "/api/v1/namespaces/default/services/s", Some(service("s"))).await;
    assert_eq!(code, 200, "{kept}");
    assert_eq!(kept["spec"], made["spec"]);

    // As another type it gives its port back.
    let mut plain = service("s");
    plain["spec"]["type"] = json!("ClusterIP");
    let (code, plain) = house.ask("PUT", "/api/v1/namespaces/default/services/s", Some(plain)).await;
    assert_eq!((code, plain["spec"]["ports"][0].get("nodePort")), (200, None), "{plain}");
    let port = made["spec"]["ports"][0]["nodePort"].clone();
    let mut other = service("other");
    other["spec"]["ports"][0]["nodePort"] = port;
    assert_eq!(house.ask("POST", "/api/v1/namespaces/default/services", Some(other)).await.0, 201);
}

#[tokio::test]
async fn what_lives_in_no_namespace_loses_the_one_that_it_names() {
    let house = House::new().await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "r", "namespace": "elsewhere"}, "rules": []});
    let (roles, one) = (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/r",
    );
    for (method, path) in [("POST", roles), ("PUT", one)] {
        let (code, made) = house.ask(method, path, Some(role.clone())).await;
        assert!(code < 300, "{method}: {made}");
        assert_eq!(made["metadata"].get("namespace"), None, "{method}");
    }

    let mut inside = role;
    (inside["kind"], inside["metadata"]["name"]) = (json!("Role"), json!("other"));
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    assert_eq!(house.ask("POST", roles, Some(inside)).await.0, 400);
}

#[tokio::test]
async fn of_changes_made_at_once_none_is_lost() {
    let house = House::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}});
    house.ask("POST", path, Some(map)).await;
    let one = format!("{path}/c");
    let patches = (0..20).map(|n| {
        let patch = json!({"data": {(format!("k{n}")): "v"}});
        house.ask("PATCH", &one, Some(patch))
    });
    for (code, answer) in futures::future::join_all(patches).await {
        assert_eq!(code, 200, "{answer}");
    }
    let (_, map) = house.ask("GET", &one, None).await;
    assert_eq!(map["data"].as_object().unwrap().len(), 20, "{map}");
}

#[tokio::test]
async fn generated_names_differ_and_dry_runs_leave_nothing() {
    let house = House::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "c-"}});
    let (_, first) = house.ask("POST", path, Some(map.clone())).await;
    let (_, second) = house.ask("POST", path, Some(map.clone())).await;
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);

    let before = house.store.snapshot().revision();
    let (code, dry) = house.ask("POST", &format!("{path}?dryRun=All"), Some(map)).await;
    assert_eq!((code, dry["metadata"].get("resourceVersion")), (201, None));
    let name = first["metadata"]["name"].as_str().unwrap();
    assert_eq!(house.ask("DELETE", &format!("{path}/{name}?dryRun=All"), None).await.0, 200);
    assert_eq!(house.store.snapshot().revision(), before);
}

#[tokio::test]
async fn a_pod_needs_a_runtime_class_that_exists() {
    let house = House::new().await;
    let mut wanted = pod("p", "");
    wanted["spec"]["runtimeClassName"] = json!("nothing");
    let path = "/api/v1/namespaces/default/pods";
    assert_eq!(house.ask("POST", path, Some(wanted.clone())).await.0, 403);
    wanted["spec"]["runtimeClassName"] = json!("host");
    let (code, made) = house.ask("POST", path, Some(wanted)).await;
    assert_eq!((code, &made["spec"]["serviceAccountName"]), (201, &json!("default")), "{made}");
}

#[tokio::test]
async fn a_host_changes_its_own_node_and_pods_and_nobody_elses() {
    let house = House::new().await;
    for name in ["n1", "n2"] {
        let object = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}});
        let (code, answer) = house.ask_as(node("n1"), "POST", "/api/v1/nodes", Some(object.clone())).await;
        assert_eq!(code, if name == "n1" { 201 } else { 403 }, "{answer}");
        house.ask("POST", "/api/v1/nodes", Some(object)).await;
        let made = house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod(name, name))).await;
        assert_eq!(made.0, 201, "{}", made.1);
    }
    let running = || Some(json!({"status": {"phase": "Running"}}));
    for (method, path, body, expected) in [
        ("PATCH", "/api/v1/nodes/n1/status", running(), 200),
        ("PATCH", "/api/v1/nodes/n2/status", running(), 403),
        ("PATCH", "/api/v1/namespaces/default/pods/n1/status", running(), 200),
        ("PATCH", "/api/v1/namespaces/default/pods/n2/status", running(), 403),
        ("DELETE", "/api/v1/namespaces/default/pods/n2", None, 403),
        ("DELETE", "/api/v1/namespaces/default/pods/n1?gracePeriodSeconds=0", None, 200),
        ("POST", "/api/v1/namespaces/default/configmaps", Some(json!({})), 403),
        ("GET", "/api/v1/namespaces/default/pods", None, 403),
        ("GET", "/api/v1/namespaces/default/pods?fieldSelector=spec.nodeName%3Dn1", None, 200),
    ] {
        let (code, answer) = house.ask_as(node("n1"), method, path, body).await;
        assert_eq!(code, expected, "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn the_parts_of_the_process_write_through_the_same_path() {
    let house = House::new().await;
    let writer = house.server.writer();
    let object = |value| machinery::Object::from_value(value).unwrap();
    let mut wanted = pod("p", "");
    wanted["metadata"]["namespace"] = json!("default");
    let made = writer.write("system:kube-controller-manager", Write::Create(object(wanted))).await.unwrap();
    assert_eq!(made.pointer("/spec/restartPolicy"), Some(&json!("Always")), "defaults");

    let bind = |uid: &str, node: &str| Write::Bind {
        pod: ObjectRef::new("default", "p"),
        uid: uid.into(),
        node: node.into(),
    };
    let scheduler = "system:kube-scheduler";
    assert_eq!(writer.write(scheduler, bind("another", "n1")).await.unwrap_err().code, 409);
    let bound = writer.write(scheduler, bind(made.uid(), "n1")).await.unwrap();
    assert_eq!((bound.kind(), bound.pointer("/target/name")), ("Binding", Some(&json!("n1"))));
    let (_, placed) = house.ask("GET", "/api/v1/namespaces/default/pods/p", None).await;
    assert_eq!(placed.pointer("/spec/nodeName"), Some(&json!("n1")));
    assert_eq!(placed.pointer("/status/conditions/0/type"), Some(&json!("PodScheduled")));
    assert_eq!(writer.write(scheduler, bind(made.uid(), "n2")).await.unwrap_err().code, 409);

    let subject = TypedRef {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: "default".into(),
        name: "p".into(),
    };
    let merge = |user| {
        let patch = json!({"status": {"phase": "Running"}});
        writer.write(user, Write::Merge { subject: subject.clone(), subresource: "status", patch })
    };
    assert_eq!(merge("system:node:n2").await.unwrap_err().code, 403);
    assert_eq!(merge("system:node:n1").await.unwrap().pointer("/status/phase"), Some(&json!("Running")));

    let delete =
        |options| writer.write("system:node:n1", Write::Delete { subject: subject.clone(), options });
    let going = delete(Delete::default()).await.unwrap();
    assert!(going.deletion_timestamp().is_some());
    let now = Delete { grace_seconds: Some(0), uid: Some(made.uid().into()), ..Delete::default() };
    delete(now.clone()).await.unwrap();
    assert_eq!(delete(now).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_namespace_goes_when_its_finalizers_are_taken() {
    let house = House::new().await;
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a"}});
    house.ask("POST", "/api/v1/namespaces", Some(namespace)).await;
    let (_, mut going) = house.ask("DELETE", "/api/v1/namespaces/a", None).await;
    assert_eq!(going["status"]["phase"], "Terminating");
    going["spec"]["finalizers"] = json!([]);
    let (code, answer) = house.ask("PUT", "/api/v1/namespaces/a/finalize", Some(going)).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(house.ask("GET", "/api/v1/namespaces/a", None).await.0, 404);
}

#[tokio::test]
async fn the_clusters_own_namespaces_are_deleted_by_nobody() {
    let house = House::new().await;
    for name in ["default", "kube-system", "kube-public"] {
        let (code, answer) = house.ask("DELETE", &format!("/api/v1/namespaces/{name}"), None).await;
        let why = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert_eq!((code, &answer["message"]), (403, &json!(why)));
        let (_, still) = house.ask("GET", &format!("/api/v1/namespaces/{name}"), None).await;
        assert_eq!(still["status"]["phase"], "Active");
    }
}

#[tokio::test]
async fn the_default_objects_are_made_once() {
    let house = House::new().await;
    let before = house.store.snapshot().revision();
    house.server.bootstrap().await.unwrap();
    assert_eq!(house.store.snapshot().revision(), before);
    let (_, service) = house.ask("GET", "/api/v1/namespaces/default/services/kubernetes", None).await;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let (_, dns) = house.ask("GET", "/api/v1/namespaces/kube-system/services/kube-dns", None).await;
    assert_eq!(
        (&dns["spec"]["clusterIP"], &dns["metadata"]["labels"]["k8s-app"]),
        (&json!("10.96.0.10"), &json!("kube-dns"))
    );
    assert_eq!(dns["spec"]["selector"], Value::Null, "a controller says who is behind it");
}

#[tokio::test]
async fn a_cluster_whose_tenth_address_is_taken_goes_on_without_its_dns_service() {
    let house = House::new().await;
    let dns = "/api/v1/namespaces/kube-system/services/kube-dns";
    assert_eq!(house.ask("DELETE", dns, None).await.0, 200);
    let other = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "other"},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}});
    assert_eq!(house.ask("POST", "/api/v1/namespaces/default/services", Some(other)).await.0, 201);
    house.server.bootstrap().await.unwrap();
    assert_eq!(house.ask("GET", dns, None).await.0, 404);
}

#[tokio::test]
async fn an_endpoint_at_what_a_host_keeps_to_itself_is_refused() {
    let house = House::new().await;
    // On loopback the cluster's own are there, and nobody else.
    house.backends.refused.lock().unwrap().insert("127.0.0.1".parse().unwrap());
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = |address: &str| {
        json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {"name": "a"},
            "addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]})
    };
    for (address, range) in [
        ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("169.254.169.254", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("0.0.0.0", "may not be unspecified (0.0.0.0 or ::)"),
    ] {
        let (code, status) = house.ask("POST", slices, Some(slice(address))).await;
        let cause = &status["details"]["causes"][0];
        assert_eq!((code, &cause["field"]), (422, &json!("endpoints[0].addresses[0]")), "{status}");
        assert_eq!(cause["message"], format!("Invalid value: \"{address}\": {range}"));
    }
    let (code, made) = house.ask("POST", slices, Some(slice("127.1.0.7"))).await;
    assert_eq!(code, 201, "{made}");
    let patch = json!({"endpoints": [{"addresses": ["127.0.0.1"]}]});
    assert_eq!(house.ask("PATCH", &format!("{slices}/a"), Some(patch)).await.0, 422);
    let endpoints = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "b"},
        "subsets": [{"addresses": [{"ip": "::ffff:127.0.0.1"}], "ports": [{"port": 80}]}]});
    let (code, status) = house.ask("POST", "/api/v1/namespaces/default/endpoints", Some(endpoints)).await;
    let causes: Vec<&str> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["message"].as_str())
        .collect();
    assert_eq!(code, 422);
    assert_eq!(
        causes,
        [
            "Invalid value: \"::ffff:127.0.0.1\": must not be an IPv4-mapped IPv6 address",
            "Invalid value: \"::ffff:127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ]
    );
}

#[tokio::test]
async fn a_secret_without_a_name_is_an_item_of_the_empty_name() {
    let house = House::new().await;
    let mut pod = pod("p", "");
    pod["spec"]["imagePullSecrets"] = json!([{}]);
    let (code, pod) = house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(code, 201, "{pod}");
    let fields = &pod["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:imagePullSecrets"];
    assert_eq!(*fields, json!({".": {}, "k:{\"name\":\"\"}": {}}));
}
