//! What a host's certificate is good for: its own node and what is on it, so that a stolen one opens nothing else.

use serde_json::{Value, json};
use server::UserInfo;

use crate::house::{House, node};

const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";

async fn made(house: &House, path: &str, object: Value) -> Value {
    let (code, answer) = house.ask("POST", path, Some(object)).await;
    assert_eq!(code, 201, "{path}: {answer}");
    answer
}

/// The uid of a new node.
async fn with_node(house: &House, name: &str) -> Value {
    let object = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}});
    made(house, NODES, object).await["metadata"]["uid"].clone()
}

/// A pod that runs on a node.
async fn with_pod(house: &House, name: &str, on: &str) -> Value {
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"nodeName": on, "containers": [{"name": "a", "image": "i"}]}});
    made(house, PODS, pod).await
}

fn mirror(uid: &Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}]}})
}

#[tokio::test]
async fn a_host_makes_mirrors_of_its_own_pods_alone_and_they_use_nothing() {
    let house = House::new().await;
    let uid = with_node(&house, "n1").await;
    with_node(&house, "n2").await;
    let ask = async |pod: Value| house.ask_as(node("n1"), "POST", PODS, Some(pod)).await;
    let mut plain = mirror(&uid);
    plain["metadata"]["annotations"] = json!({});
    let (code, answer) = ask(plain).await;
    let why = "pods \"m\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can \
               only create mirror pods";
    assert_eq!((code, &answer["message"]), (403, &json!(why)));
    let changes: &[(&str, Value, &str)] = &[
        ("/spec/nodeName", json!("n2"), "spec.nodeName set to itself"),
        ("/spec/nodeName", json!(""), "spec.nodeName set to itself"),
        ("/metadata/ownerReferences", json!([]), "with an owner reference set to itself"),
        ("/metadata/ownerReferences/0/name", json!("n2"), "with an owner reference set to itself"),
        ("/metadata/ownerReferences/0/kind", json!("Pod"), "with an owner reference set to itself"),
        ("/metadata/ownerReferences/0/uid", json!("other"), "UID mismatch"),
        ("/metadata/ownerReferences/0/controller", json!(false), "controller owner reference"),
        ("/metadata/ownerReferences/0/blockOwnerDeletion", json!(true), "must not set blockOwnerDeletion"),
        ("/spec/serviceAccountName", json!("boss"), "reference a service account"),
        ("/spec/serviceAccount", json!("boss"), "reference a service account"),
        ("/spec/imagePullSecrets", json!([{"name": "s"}]), "reference secrets"),
        ("/spec/volumes", json!([{"name": "v", "secret": {"secretName": "s"}}]), "reference secrets"),
        (
            "/spec/volumes",
            json!([{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]),
            "reference secrets",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}]),
            "reference secrets",
        ),
        ("/spec/volumes", json!([{"name": "v", "configMap": {"name": "s"}}]), "reference configmaps"),
        (
            "/spec/volumes",
            json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
            "reference a service account",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
            "reference persistentvolumeclaims",
        ),
        (
            "/spec/resourceClaims",
            json!([{"name": "c", "resourceClaimName": "c"}]),
            "reference resourceclaims",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
            "reference secrets",
        ),
        ("/spec/containers/0/envFrom", json!([{"configMapRef": {"name": "s"}}]), "reference configmaps"),
    ];
    for (path, value, why) in changes {
        let mut pod = mirror(&uid);
        let (parent, field) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[field] = value.clone();
        let (code, answer) = ask(pod).await;
        assert_eq!(code, 403, "{path} {value}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(why), "{path} {value}: {answer}");
    }
    let (code, answer) = ask(mirror(&uid)).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["spec"].get("serviceAccountName"), None, "{answer}");
}

#[tokio::test]
async fn a_host_says_by_a_pods_status_what_it_sees_and_nothing_that_others_act_by() {
    let house = House::new().await;
    with_node(&house, "n1").await;
    with_pod(&house, "p", "n1").await;
    let path = format!("{PODS}/p/status");
    let ask = async |patch: Value| house.ask_as(node("n1"), "PATCH", &path, Some(patch)).await;
    for (patch, what) in [
        (json!({"metadata": {"labels": {"app": "web"}}}), "labels through pod status"),
        (json!({"metadata": {"labels": {"app": null}}}), "labels through pod status"),
        (json!({"metadata": {"annotations": {"a": "b"}}}), "annotations through pod status"),
        (json!({"metadata": {"finalizers": ["a.b/c"]}}), "finalizers through pod status"),
        (
            json!({"status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "other"}]}}),
            "resource claim statues",
        ),
    ] {
        let (code, answer) = ask(patch).await;
        assert_eq!(code, 403, "{answer}");
        let why = format!("pods \"p\" is forbidden: node \"n1\" cannot update {what}");
        assert_eq!(answer["message"], why);
    }
    let (code, answer) = ask(json!({"status": {"phase": "Running", "podIP": "10.244.1.7"}})).await;
    assert_eq!((code, &answer["metadata"]["labels"]["app"]), (200, &json!("a")), "{answer}");
}

#[tokio::test]
async fn a_host_evicts_its_own_pods_and_counts_nobody_elses() {
    let house = House::new().await;
    with_node(&house, "n1").await;
    with_pod(&house, "own", "n1").await;
    with_pod(&house, "other", "n2").await;
    let budget = json!({"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "b"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "maxUnavailable": 1}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    made(&house, budgets, budget).await;
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    let path = format!("{budgets}/b/status");
    assert_eq!(house.ask("PATCH", &path, Some(status)).await.0, 200);
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(house.ask("PATCH", &format!("{PODS}/other/status"), Some(running)).await.0, 200);
    let evict = async |name: &str| {
        let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name}});
        house.ask_as(node("n1"), "POST", &format!("{PODS}/{name}/eviction"), Some(eviction)).await
    };
    let (code, answer) = evict("other").await;
    let why = "pods \"other\" is forbidden: node \"n1\" can only evict pods with spec.nodeName set to itself";
    assert_eq!((code, &answer["message"]), (403, &json!(why)));
    let left = house.ask("GET", &format!("{budgets}/b"), None).await.1;
    assert_eq!(left["status"]["disruptionsAllowed"], 1, "nothing was counted: {left}");
    assert_eq!(evict("own").await.0, 201);
}

#[tokio::test]
async fn a_host_reads_and_writes_what_bears_its_name() {
    let house = House::new().await;
    for name in ["n1", "n2"] {
        with_node(&house, name).await;
    }
    let slice = |name: &str, on: &str| {
        json!({"kind": "ResourceSlice", "apiVersion": "resource.k8s.io/v1", "metadata": {"name": name}, "spec": {
            "driver": "d.io", "nodeName": on,
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": []}})
    };
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    made(&house, slices, slice("other", "n2")).await;
    let claim = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    made(&house, claims, claim).await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        "containers": [{"name": "a", "image": "i"}]}});
    made(&house, PODS, pod).await;
    let csi_node = |name: &str| {
        json!({"kind": "CSINode", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": name},
            "spec": {"drivers": []}})
    };
    let lease = |name: &str| json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": name}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let elsewhere = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let csi_nodes = "/apis/storage.k8s.io/v1/csinodes";
    let grown = json!({"status": {"capacity": {"storage": "1Gi"}}});
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y"}]);
    for (method, path, body, expected) in [
        ("GET", "/api/v1/nodes/n1", None, 200),
        ("GET", "/api/v1/nodes/n2", None, 403),
        ("GET", NODES, None, 403),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", None, 200),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn2", None, 403),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name!%3Dn1", None, 403),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Da%5C%2Cspec.nodeName%3Dn1", None, 403),
        ("PATCH", "/api/v1/nodes/n1", Some(json!({"metadata": {"labels": {"a": "b"}}})), 200),
        ("PATCH", "/api/v1/nodes/n1", Some(json!({"metadata": {"ownerReferences": owner}})), 403),
        ("PATCH", "/api/v1/nodes/n1", Some(json!({"spec": {"taints": null}})), 403),
        (
            "PATCH",
            "/api/v1/nodes/n1/status",
            Some(json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}})),
            403,
        ),
        ("POST", leases, Some(lease("n1")), 201),
        ("POST", leases, Some(lease("n2")), 403),
        ("POST", elsewhere, Some(lease("n1")), 403),
        ("POST", csi_nodes, Some(csi_node("n1")), 201),
        ("POST", csi_nodes, Some(csi_node("n2")), 403),
        ("POST", slices, Some(slice("own", "n1")), 201),
        ("POST", slices, Some(slice("forged", "n2")), 403),
        ("DELETE", "/apis/resource.k8s.io/v1/resourceslices/other", None, 403),
        ("DELETE", "/apis/resource.k8s.io/v1/resourceslices/own", None, 200),
        ("PATCH", &format!("{claims}/c/status"), Some(grown), 200),
        ("PATCH", &format!("{claims}/c/status"), Some(json!({"metadata": {"finalizers": ["a.b/c"]}})), 403),
        ("PATCH", &format!("{claims}/c/status"), Some(json!({"status": {"phase": "Bound"}})), 403),
        ("PATCH", &format!("{claims}/c"), Some(json!({"metadata": {"labels": {"a": "b"}}})), 403),
    ] {
        let (code, answer) = house.ask_as(node("n1"), method, path, body.clone()).await;
        assert_eq!(code, expected, "{method} {path} {body:?}: {answer}");
    }
    // An agent that doesn't say of which host is nobody's: nothing matches its empty name.
    let nameless = UserInfo::new("system:node:", ["system:nodes"]);
    for path in
        ["/api/v1/pods?fieldSelector=spec.nodeName%3D", "/api/v1/nodes?fieldSelector=metadata.name%3D"]
    {
        assert_eq!(house.ask_as(nameless.clone(), "GET", path, None).await.0, 403, "{path}");
    }
}

#[tokio::test]
async fn an_agents_rights_hold_it_back_even_where_a_role_gives_it_more() {
    let house = House::new().await;
    with_pod(&house, "p", "n1").await;
    let binding = json!({"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "all"}, "subjects": [{"kind": "Group", "name": "system:nodes"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    made(&house, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "q"},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}]}});
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
    let nameless = UserInfo::new("system:node:", ["system:nodes"]);
    for (who, method, path, body) in [
        (node("n1"), "POST", PODS.to_owned(), pod.clone()),
        (nameless.clone(), "POST", PODS.to_owned(), pod),
        (node("n1"), "PATCH", format!("{PODS}/p"), json!({"metadata": {"labels": {"app": "web"}}})),
        (node("n1"), "PATCH", format!("{PODS}/p/ephemeralcontainers"), debugger),
        (nameless, "DELETE", format!("{PODS}/p"), json!({})),
    ] {
        let (code, answer) = house.ask_as(who, method, &path, Some(body)).await;
        assert_eq!(code, 403, "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn an_agents_tokens_are_for_its_own_pods_and_whom_their_volumes_name() {
    let house = House::new().await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "volumes": [{"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}],
        "containers": [{"name": "a", "image": "i"}]}});
    let uid = made(&house, PODS, pod).await["metadata"]["uid"].clone();
    let ask_for = async |pod: &str, audiences: Value, uid: Value| {
        let spec = json!({"audiences": audiences, "boundObjectRef":
            {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}});
        let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
        let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
        house.ask_as(node("n1"), "POST", path, Some(request)).await
    };
    let ask = async |audiences: Value, uid: Value| ask_for("p", audiences, uid).await;
    assert_eq!(ask(json!(["vault"]), uid.clone()).await.0, 201);
    assert_eq!(ask(json!([]), uid.clone()).await.0, 201);
    let (code, answer) = ask(json!(["vault", "bank"]), uid).await;
    let why = "audience \"bank\" not found in pod spec volume";
    assert!(code == 403 && answer["message"].as_str().unwrap().contains(why), "{answer}");
    let (code, answer) = ask(json!([]), json!("")).await;
    assert!(code == 403 && answer["message"].as_str().unwrap().contains("without a uid"), "{answer}");

    // What the drivers of the pod's volumes ask for: of one that the pod names, and of one behind a claim.
    for driver in ["own.io", "claimed.io"] {
        let object = json!({"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": driver},
            "spec": {"volumeLifecycleModes": ["Ephemeral", "Persistent"], "tokenRequests": [{"audience": driver}]}});
        made(&house, "/apis/storage.k8s.io/v1/csidrivers", object).await;
    }
    let volume = json!({"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "claimed.io", "volumeHandle": "h"}}});
    made(&house, "/api/v1/persistentvolumes", volume).await;
    let claim = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "c"},
        "spec": {"volumeName": "v", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    made(&house, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "q"}, "spec": {"nodeName": "n1",
        "volumes": [{"name": "own", "csi": {"driver": "own.io"}},
            {"name": "claimed", "persistentVolumeClaim": {"claimName": "c"}}],
        "containers": [{"name": "a", "image": "i"}]}});
    let uid = made(&house, PODS, pod).await["metadata"]["uid"].clone();
    for (audience, expected) in [("own.io", 201), ("claimed.io", 201), ("vault", 403)] {
        let (code, answer) = ask_for("q", json!([audience]), uid.clone()).await;
        assert_eq!(code, expected, "{audience}: {answer}");
    }
}
