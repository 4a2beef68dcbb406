//! What the built-in plugins of admission give, forbid and count.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::house::{House, body_of};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": {"containers": [
        {"name": "a", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}})
}

async fn quota(house: &House, name: &str, spec: Value) {
    let quota =
        json!({"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
    let path = "/api/v1/namespaces/default/resourcequotas";
    let (code, answer) = house.ask("POST", path, Some(quota)).await;
    assert_eq!(code, 201, "{answer}");
}

async fn used(house: &House, name: &str) -> Value {
    let path = format!("/api/v1/namespaces/default/resourcequotas/{name}");
    house.ask("GET", &path, None).await.1["status"]["used"].clone()
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_quota_is_exceeded_however_many_ask_at_once() {
    const MOST: usize = 25;
    let house = Arc::new(House::new().await);
    let before = house.ask("POST", PODS, Some(pod("before"))).await;
    assert_eq!(before.0, 201, "{}", before.1);
    // Some start while there is no quota yet: it counts what it finds.
    let ask = |n: usize| {
        let house = house.clone();
        tokio::spawn(async move { house.ask("POST", PODS, Some(pod(&format!("p{n}")))).await })
    };
    let early: Vec<_> = (0..8).map(ask).collect();
    quota(&house, "q", json!({"hard": {"pods": MOST.to_string(), "requests.cpu": "100"}})).await;
    let late: Vec<_> = (8..80).map(ask).collect();
    let mut made = 1;
    for task in early.into_iter().chain(late) {
        let (code, answer) = task.await.unwrap();
        match code {
            201 => made += 1,
            _ => {
                assert_eq!(code, 403, "{answer}");
                assert!(message(&answer).contains("exceeded quota: q, requested: pods=1"), "{answer}");
            }
        }
    }
    let (_, list) = house.ask("GET", PODS, None).await;
    let there = list["items"].as_array().unwrap().len();
    assert_eq!((there, made), (MOST, MOST), "exactly as many as there is room for");
    assert_eq!(used(&house, "q").await, json!({"pods": "25", "requests.cpu": "2500m"}));
    let (code, answer) = house.ask("POST", PODS, Some(pod("late"))).await;
    assert_eq!(code, 403);
    assert_eq!(
        message(&answer),
        "pods \"late\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=25, limited: pods=25"
    );
}

#[tokio::test]
async fn quotas_count_objects_scopes_and_growth() {
    let house = House::new().await;
    quota(&house, "objects", json!({"hard": {"count/configmaps": "2", "services.nodeports": "1"}})).await;
    quota(&house, "best", json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]})).await;
    let map = |name: &str| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}});
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(house.ask("POST", &format!("{maps}?dryRun=All"), Some(map("a"))).await.0, 201);
    for (name, code) in [("a", 201), ("b", 201), ("c", 403)] {
        assert_eq!(house.ask("POST", maps, Some(map(name))).await.0, code, "{name}");
    }
    assert_eq!(house.ask("POST", PODS, Some(pod("burstable"))).await.0, 201);
    let mut best = pod("best");
    best["spec"]["containers"][0]["resources"] = json!({});
    let (code, answer) = house.ask("POST", PODS, Some(best)).await;
    assert_eq!(code, 403, "{answer}");
    assert!(message(&answer).contains("exceeded quota: best"), "{answer}");

    let service = |kind: &str| {
        json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"},
            "spec": {"type": kind, "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}})
    };
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(house.ask("POST", services, Some(service("ClusterIP"))).await.0, 201);
    let grow = json!({"spec": {"type": "NodePort"}});
    let (code, answer) = house.ask("PATCH", &format!("{services}/s"), Some(grow)).await;
    assert_eq!(code, 403, "{answer}");
    assert!(message(&answer).contains("requested: services.nodeports=2"), "{answer}");
}

#[tokio::test]
async fn a_limited_pod_must_say_what_it_needs() {
    let house = House::new().await;
    quota(&house, "q", json!({"hard": {"limits.memory": "1Gi"}})).await;
    let (code, answer) = house.ask("POST", PODS, Some(pod("p"))).await;
    assert_eq!(code, 403);
    assert_eq!(
        message(&answer),
        "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: a"
    );
    let limits = json!([{"type": "Container", "default": {"memory": "64Mi"}, "max": {"memory": "128Mi"}}]);
    let range = json!({"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "r"},
        "spec": {"limits": limits}});
    assert_eq!(house.ask("POST", "/api/v1/namespaces/default/limitranges", Some(range)).await.0, 201);
    let (code, answer) = house.ask("POST", PODS, Some(pod("p"))).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(used(&house, "q").await, json!({"limits.memory": "64Mi"}));
    let mut large = pod("large");
    large["spec"]["containers"][0]["resources"]["limits"] = json!({"memory": "256Mi"});
    let (code, answer) = house.ask("POST", PODS, Some(large)).await;
    assert_eq!(code, 403);
    let why = "maximum memory usage per Container is 128Mi, but limit is 256Mi";
    assert_eq!(message(&answer), format!("pods \"large\" is forbidden: {why}"));
}

#[tokio::test]
async fn pods_get_what_their_classes_say() {
    let house = House::new().await;
    let class = |name: &str, value: i64, default: bool| {
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
            "value": value, "globalDefault": default})
    };
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    assert_eq!(house.ask("POST", classes, Some(class("usual", 7, true))).await.0, 201);
    let runtime = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": "vm"},
        "handler": "vm", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"kvm": "yes"}, "tolerations": [{"key": "kvm", "operator": "Exists"}]}});
    assert_eq!(house.ask("POST", "/apis/node.k8s.io/v1/runtimeclasses", Some(runtime)).await.0, 201);
    let mut wanted = pod("p");
    wanted["spec"]["runtimeClassName"] = json!("vm");
    let (code, made) = house.ask("POST", PODS, Some(wanted.clone())).await;
    assert_eq!(code, 201, "{made}");
    let spec = &made["spec"];
    assert_eq!((&spec["priority"], &spec["priorityClassName"]), (&json!(7), &json!("usual")));
    assert_eq!((&spec["overhead"], &spec["nodeSelector"]), (&json!({"cpu": "250m"}), &json!({"kvm": "yes"})));
    assert!(spec["tolerations"].as_array().unwrap().contains(&json!({"key": "kvm", "operator": "Exists"})));
    wanted["metadata"]["name"] = json!("other");
    wanted["spec"]["nodeSelector"] = json!({"kvm": "no"});
    assert_eq!(house.ask("POST", PODS, Some(wanted)).await.0, 403);
    let mut nameless = pod("q");
    nameless["spec"]["priorityClassName"] = json!("none");
    let (code, answer) = house.ask("POST", PODS, Some(nameless)).await;
    assert_eq!(code, 403);
    assert_eq!(message(&answer), "pods \"q\" is forbidden: no PriorityClass with name none was found");
}

#[tokio::test(start_paused = true)]
async fn a_pod_needs_its_account_and_gets_what_that_has() {
    let house = House::new().await;
    let mut stranger = pod("p");
    stranger["spec"]["serviceAccountName"] = json!("robot");
    let (code, answer) = house.ask("POST", PODS, Some(stranger.clone())).await;
    assert_eq!(code, 403);
    assert_eq!(
        message(&answer),
        "pods \"p\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
    let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "robot"},
        "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "registry"}]});
    assert_eq!(house.ask("POST", "/api/v1/namespaces/default/serviceaccounts", Some(account)).await.0, 201);
    let (code, made) = house.ask("POST", PODS, Some(stranger)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "registry"}]));
    assert!(made["spec"]["volumes"].is_null(), "nothing is mounted: {made}");

    // The default account of a new namespace is waited for.
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "new"}});
    assert_eq!(house.ask("POST", "/api/v1/namespaces", Some(namespace)).await.0, 201);
    let path = "/api/v1/namespaces/new/pods";
    let (made, ()) = tokio::join!(house.ask("POST", path, Some(pod("p"))), house.account("new"));
    assert_eq!(made.0, 201, "{}", made.1);
}

#[tokio::test]
async fn namespaces_warn_of_pods_that_they_would_not_let_in() {
    let house = House::new().await;
    assert_eq!(house.ask("POST", PODS, Some(pod("there"))).await.0, 201);
    let warnings = async |method: &str, path: &str, body: Value| -> (u16, Vec<String>) {
        let request = http::Request::builder().method(method).uri(path);
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = request.header("content-type", kind).body(body_of(body.to_string())).unwrap();
        let response = house.server.handle(request, Some(crate::house::admin())).await;
        let all = response.headers().get_all("warning").iter();
        let texts = all.map(|value| value.to_str().unwrap().replace('\\', "")).collect();
        (response.status().as_u16(), texts)
    };
    let labels = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let path = "/api/v1/namespaces/default";
    assert_eq!(warnings("PATCH", path, labels("strict")).await.0, 422);
    let (code, told) = warnings("PATCH", path, labels("restricted")).await;
    assert_eq!(code, 200);
    assert!(told[0].contains("existing pods in namespace \"default\" violate"), "{told:?}");
    assert!(told[1].contains("there: allowPrivilegeEscalation != false"), "{told:?}");
    assert_eq!(house.ask("POST", PODS, Some(pod("p"))).await.0, 403);
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("")["spec"]}}});
    let (code, told) = warnings("POST", "/apis/apps/v1/namespaces/default/deployments", deployment).await;
    assert_eq!(code, 201);
    assert!(
        told[0].contains("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{told:?}"
    );
}

#[tokio::test]
async fn claims_and_ingresses_get_the_default_class() {
    let house = House::new().await;
    let class = |kind: &str, group: &str, name: &str, mark: &str, rest: Value| {
        let mut class = json!({"kind": kind, "apiVersion": group, "metadata": {"name": name,
            "annotations": {mark: "true"}}});
        class.as_object_mut().unwrap().extend(rest.as_object().cloned().unwrap());
        class
    };
    let mark = "storageclass.kubernetes.io/is-default-class";
    let rest = json!({"provisioner": "example.com/disk"});
    let storage = class("StorageClass", "storage.k8s.io/v1", "disk", mark, rest);
    assert_eq!(house.ask("POST", "/apis/storage.k8s.io/v1/storageclasses", Some(storage)).await.0, 201);
    let mark = "ingressclass.kubernetes.io/is-default-class";
    let rest = json!({"spec": {"controller": "example.com/front"}});
    let ingress = class("IngressClass", "networking.k8s.io/v1", "front", mark, rest);
    assert_eq!(house.ask("POST", "/apis/networking.k8s.io/v1/ingressclasses", Some(ingress)).await.0, 201);

    let claim = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let (code, made) =
        house.ask("POST", "/api/v1/namespaces/default/persistentvolumeclaims", Some(claim)).await;
    assert_eq!((code, &made["spec"]["storageClassName"]), (201, &json!("disk")));
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress = json!({"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "i"},
        "spec": {"defaultBackend": backend}});
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let (code, made) = house.ask("POST", path, Some(ingress)).await;
    assert_eq!((code, &made["spec"]["ingressClassName"]), (201, &json!("front")));
}

#[tokio::test]
async fn pods_that_are_processes_of_the_host_are_kept_out_by_baseline_whatever_their_class_is_called() {
    let house = House::new().await;
    let class = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": "nice"},
        "handler": "host"});
    assert_eq!(house.ask("POST", "/apis/node.k8s.io/v1/runtimeclasses", Some(class)).await.0, 201);
    let of_class = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["runtimeClassName"] = json!(class);
        pod
    };
    let made = house.ask("POST", PODS, Some(of_class("before", "nice"))).await;
    assert_eq!(made.0, 201, "a namespace that says nothing lets it in: {}", made.1);
    let level = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    assert_eq!(house.ask("PATCH", "/api/v1/namespaces/default", Some(level)).await.0, 200);
    for class in ["nice", "host"] {
        let (code, answer) = house.ask("POST", PODS, Some(of_class("p", class))).await;
        assert_eq!(code, 403);
        let why = format!(
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": hostProcess (pod must not set \
             runtimeClassName=\"{class}\", which runs it as processes of the host)"
        );
        assert_eq!(message(&answer), why);
    }
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
    let path = format!("{PODS}/before/ephemeralcontainers");
    let (code, answer) = house.ask("PATCH", &path, Some(debugger)).await;
    assert!(code == 403 && message(&answer).contains("hostProcess"), "{answer}");

    let job = json!({"template": {"spec": {
        "restartPolicy": "Never", "runtimeClassName": "nice", "containers": [{"name": "a", "image": "i"}]}}});
    let cron = json!({"kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": "c"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}});
    let request = http::Request::post("/apis/batch/v1/namespaces/default/cronjobs")
        .header("content-type", "application/json")
        .body(body_of(cron.to_string()))
        .unwrap();
    let response = house.server.handle(request, Some(crate::house::admin())).await;
    assert_eq!(response.status(), 201, "of a workload it is only warned");
    let told = response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap());
    assert!(told.into_iter().any(|text| text.contains("hostProcess")), "{:?}", response.headers());
}

#[tokio::test]
async fn a_write_of_what_nothing_acts_on_gets_a_warning() {
    let house = House::new().await;
    let told = async |method: &str, path: &str, body: Value| -> Vec<String> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(body_of(body.to_string())).unwrap();
        let response = house.server.handle(request, Some(crate::house::admin())).await;
        assert!(response.status().is_success(), "{method} {path}: {}", response.status());
        let all = response.headers().get_all("warning").iter();
        all.map(|value| value.to_str().unwrap().replace('\\', "")).collect()
    };
    let of = |spec: &Value| json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
    let plain = json!({"containers": [{"name": "a", "image": "i"}]});
    let on_host = json!({"runtimeClassName": "host", "containers": [{"name": "a", "image": "i"}]});
    let limited = json!({"runtimeClassName": "host", "containers": [
        {"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}}}]});
    let object = |kind: &str, version: &str, spec: Value| json!({"kind": kind, "apiVersion": version, "metadata": {"generateName": "x-"}, "spec": spec});
    let selector = json!({"matchLabels": {"a": "b"}});
    let workload = |spec: &Value| json!({"selector": selector, "template": of(spec)});
    let mut job = on_host.clone();
    job["restartPolicy"] = json!("Never");
    let job = json!({"template": of(&job)});
    let ports = json!([{"port": 80}]);
    let service = |kind: &str| json!({"type": kind, "ports": ports});
    for (path, object, expected) in [
        ("/api/v1/namespaces/default/pods", object("Pod", "v1", plain.clone()), ""),
        ("/api/v1/namespaces/default/pods", object("Pod", "v1", on_host.clone()), ""),
        ("/api/v1/namespaces/default/pods", object("Pod", "v1", limited), ""),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            object("Deployment", "apps/v1", workload(&plain)),
            "",
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            object("Deployment", "apps/v1", workload(&on_host)),
            "",
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            object("DaemonSet", "apps/v1", workload(&on_host)),
            "",
        ),
        ("/apis/apps/v1/namespaces/default/daemonsets", object("DaemonSet", "apps/v1", workload(&plain)), ""),
        ("/apis/batch/v1/namespaces/default/jobs", object("Job", "batch/v1", job.clone()), ""),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            object("NetworkPolicy", "networking.k8s.io/v1", json!({"podSelector": {}})),
            "all traffic passes",
        ),
        ("/api/v1/namespaces/default/services", object("Service", "v1", service("ClusterIP")), ""),
        ("/api/v1/namespaces/default/services", object("Service", "v1", service("NodePort")), ""),
        ("/api/v1/namespaces/default/services", object("Service", "v1", service("LoadBalancer")), ""),
        (
            "/api/v1/namespaces/default/services",
            object("Service", "v1", json!({"clusterIP": "None", "ports": ports})),
            "",
        ),
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"generateName": "x-"},
                "handler": "runsc"}),
            "no host has",
        ),
    ] {
        let warnings = told("POST", path, object.clone()).await;
        match expected {
            "" => assert!(warnings.is_empty(), "{object}: {warnings:?}"),
            words => {
                assert!(warnings.len() == 1 && warnings[0].contains(words), "{object}: {warnings:?}");
            }
        }
    }
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let mut named = object("Ingress", "networking.k8s.io/v1", json!({"defaultBackend": backend}));
    named["metadata"] = json!({"name": "i"});
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    told("POST", ingresses, named).await;
    let path = format!("{ingresses}/i");
    assert_eq!(told("PATCH", &path, json!({"metadata": {"labels": {"x": "y"}}})).await.len(), 1);
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    assert!(told("PATCH", &format!("{path}/status"), status).await.is_empty());
}
