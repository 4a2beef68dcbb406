//! Whole clusters come to rest where their objects say.
//
// Functions of a test may unwrap: a failure is the test's.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Cluster;
use controllers::Key;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use objects::{Delete, Propagation};
use serde_json::{Value, json};

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().node_name.clone().unwrap_or_default()
}

fn active(cluster: &Cluster) -> Vec<std::sync::Arc<Pod>> {
    let mut pods = cluster.list::<Pod>();
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods
}

fn ready_endpoints(cluster: &Cluster, service: &str) -> BTreeSet<String> {
    let slices = cluster.list::<EndpointSlice>();
    let own = slices.iter().filter(|slice| {
        slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"))
            == Some(&service.to_owned())
    });
    own.flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true))
        .map(|endpoint| endpoint.target_ref.as_ref().unwrap().name.clone().unwrap())
        .collect()
}

fn condition(deployment: &Deployment, kind: &str) -> (String, String) {
    let conditions = deployment.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (condition.status.clone(), condition.reason.clone().unwrap())
}

#[tokio::test]
async fn a_deployment_of_three_serves_from_three_hosts() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    cluster.deploy("web", 3, json!({})).await;
    cluster.settle().await;

    let pods = cluster.list::<Pod>();
    assert_eq!(pods.iter().map(|pod| node_of(pod)).collect::<BTreeSet<_>>().len(), 3);
    assert!(pods.iter().all(|pod| pod.metadata.name.as_ref().unwrap().starts_with("web-")));

    let deployment: Deployment = cluster.get("default", "web").unwrap();
    let status = deployment.status.clone().unwrap();
    assert_eq!(
        (status.replicas, status.ready_replicas, status.updated_replicas),
        (Some(3), Some(3), Some(3))
    );
    assert_eq!((status.available_replicas, status.unavailable_replicas), (Some(3), None));
    assert_eq!(status.observed_generation, deployment.metadata.generation);
    assert_eq!(condition(&deployment, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(condition(&deployment, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    let revision = |annotations: &Option<std::collections::BTreeMap<String, String>>| {
        annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone()
    };
    assert_eq!(revision(&deployment.metadata.annotations), "1");
    let sets = cluster.list::<ReplicaSet>();
    assert_eq!(sets.len(), 1);
    assert_eq!(revision(&sets[0].metadata.annotations), "1");

    assert_eq!(ready_endpoints(&cluster, "web").len(), 3);
    let slices = cluster.list::<EndpointSlice>();
    let own: Vec<_> =
        slices.iter().filter(|s| s.metadata.name.as_ref().unwrap().starts_with("web-")).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].ports.as_ref().unwrap()[0].port, Some(8080), "a named target port is looked up");
    let endpoints: Endpoints = cluster.get("default", "web").unwrap();
    let subset = &endpoints.subsets.unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 3);
    assert!(cluster.get::<ServiceAccount>("default", "default").is_some());
}

#[tokio::test]
async fn a_silent_host_s_pods_get_spares_elsewhere() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    cluster.deploy("web", 3, json!({})).await;
    cluster
        .create(json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "bare", "namespace": "default"},
            "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "c"}]},
        }))
        .await;
    cluster.settle().await;

    cluster.silence("n2");
    cluster.pass(Duration::from_millis(1099));
    cluster.settle().await;
    assert_eq!(active(&cluster).len(), 4, "too early to do anything");
    assert!(active(&cluster).iter().any(|pod| node_of(pod) == "n2"));

    cluster.pass(Duration::from_millis(2));
    cluster.settle().await;
    let node: Node = cluster.get("", "n2").unwrap();
    let ready = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let ready = ready.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
    let taints = node.spec.unwrap().taints.unwrap();
    let effects: Vec<_> = taints.iter().map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect();
    let key = "node.kubernetes.io/unreachable";
    assert_eq!(effects, [(key, "NoSchedule"), (key, "NoExecute")]);

    let web: Vec<_> =
        active(&cluster).into_iter().filter(|pod| pod.metadata.name.as_deref() != Some("bare")).collect();
    assert_eq!(web.len(), 3);
    assert!(web.iter().all(|pod| ["n1", "n3"].contains(&node_of(pod).as_str())));
    assert_eq!(ready_endpoints(&cluster, "web").len(), 3);
    let marked = cluster.list::<Pod>().into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_some());
    assert_eq!(marked.count(), 1, "the old pod waits for its host's word");
    let bare: Pod = cluster.get("default", "bare").unwrap();
    assert!(bare.metadata.deletion_timestamp.is_none(), "nobody could stand in for a bare pod");
    let ready = &bare.status.unwrap().conditions.unwrap();
    assert!(ready.iter().any(|condition| condition.type_ == "Ready" && condition.status == "False"));

    cluster.hear("n2").await;
    cluster.settle().await;
    let node: Node = cluster.get("", "n2").unwrap();
    assert_eq!(node.spec.and_then(|spec| spec.taints).unwrap_or_default(), []);
    assert_eq!(cluster.list::<Pod>().len(), 4, "the old pod is gone");
}

#[tokio::test]
async fn a_pod_stays_as_long_as_it_tolerates_an_unreachable_node() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.deploy("web", 2, json!({})).await;
    let toleration = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": 30}]);
    let patch = json!({"spec": {"template": {"spec": {"tolerations": toleration}}}});
    cluster.patch("apps/v1", "Deployment", "default", "web", "", patch).await.unwrap();
    cluster.settle().await;
    cluster.silence("n2");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    assert!(active(&cluster).iter().any(|pod| node_of(pod) == "n2"), "it tolerates that for 30 s");
    assert_eq!(ready_endpoints(&cluster, "web").len(), 1, "but it doesn't serve");
    cluster.pass(Duration::from_secs(31));
    cluster.settle().await;
    assert!(active(&cluster).iter().all(|pod| node_of(pod) == "n1"));
    assert_eq!(ready_endpoints(&cluster, "web").len(), 2);
}

#[tokio::test]
async fn an_update_can_be_undone_and_its_history_is_limited() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    cluster.deploy("web", 2, json!({})).await;
    let limit = json!({"spec": {"revisionHistoryLimit": 1}});
    cluster.patch("apps/v1", "Deployment", "default", "web", "", limit).await.unwrap();
    cluster.settle().await;
    for image in ["web:2", "web:3", "web:2"] {
        cluster.set_image("web", image).await;
        cluster.settle().await;
    }
    let mut sets = cluster.list::<ReplicaSet>();
    sets.sort_by_key(|set| set.spec.as_ref().unwrap().replicas);
    assert_eq!(sets.len(), 2, "the first revision is forgotten");
    let revisions: Vec<_> = sets
        .iter()
        .map(|set| {
            let annotations = set.metadata.annotations.as_ref().unwrap();
            let history = annotations.get("deployment.kubernetes.io/revision-history").cloned();
            (annotations["deployment.kubernetes.io/revision"].clone(), history)
        })
        .collect();
    assert_eq!(revisions, [("3".into(), None), ("4".into(), Some("2".into()))]);
    let images: BTreeSet<_> = active(&cluster)
        .iter()
        .map(|pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap())
        .collect();
    assert_eq!(images, BTreeSet::from(["web:2".to_owned()]));
}

#[tokio::test]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    let pause = |paused: bool| json!({"spec": {"paused": paused, "replicas": 4}});
    cluster.patch("apps/v1", "Deployment", "default", "web", "", pause(true)).await.unwrap();
    cluster.set_image("web", "web:2").await;
    cluster.settle().await;
    assert_eq!(cluster.list::<ReplicaSet>().len(), 1);
    assert_eq!(active(&cluster).len(), 4);
    let deployment: Deployment = cluster.get("default", "web").unwrap();
    assert_eq!(condition(&deployment, "Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
    cluster.patch("apps/v1", "Deployment", "default", "web", "", pause(false)).await.unwrap();
    cluster.settle().await;
    assert_eq!(cluster.list::<ReplicaSet>().len(), 2);
    let deployment: Deployment = cluster.get("default", "web").unwrap();
    assert_eq!(condition(&deployment, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[tokio::test]
async fn a_rollout_that_does_not_progress_times_out() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.deploy("web", 1, json!({})).await;
    cluster.settle().await;
    cluster.serving = false;
    cluster.set_image("web", "broken").await;
    cluster.settle().await;
    cluster.pass(Duration::from_secs(601));
    cluster.settle().await;
    let deployment: Deployment = cluster.get("default", "web").unwrap();
    assert_eq!(condition(&deployment, "Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(condition(&deployment, "Available").0, "True", "the old pod is still there");
}

#[tokio::test]
async fn recreate_starts_nothing_new_before_the_old_has_ended() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.deploy("web", 2, json!({"type": "Recreate", "rollingUpdate": null})).await;
    cluster.settle().await;
    cluster.silence("n2");
    cluster.set_image("web", "web:2").await;
    cluster.settle().await;
    assert_eq!(cluster.list::<ReplicaSet>().len(), 1, "the pod on the silent host may still run");
    cluster.hear("n2").await;
    cluster.settle().await;
    assert_eq!(active(&cluster).len(), 2);
    let images = active(&cluster);
    assert!(images.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("web:2")));
}

#[tokio::test]
async fn a_replica_set_adopts_and_releases_by_its_selector() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    let pod = |name: &str| {
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "c"}]},
        })
    };
    cluster.create(pod("orphan")).await;
    cluster
        .create(json!({
            "kind": "ReplicaSet", "apiVersion": "apps/v1",
            "metadata": {"name": "x", "namespace": "default"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "x"}},
                "template": {
                    "metadata": {"labels": {"app": "x"}},
                    "spec": {"containers": [{"name": "c", "image": "c"}]},
                },
            },
        }))
        .await;
    cluster.settle().await;
    assert_eq!(cluster.list::<Pod>().len(), 2);
    let owner = |pod: &Pod| pod.metadata.owner_references.as_ref().map(|owners| owners[0].name.clone());
    assert_eq!(owner(&cluster.get("default", "orphan").unwrap()), Some("x".into()));
    let label = json!({"metadata": {"labels": {"app": "y"}}});
    cluster.patch("v1", "Pod", "default", "orphan", "", label).await.unwrap();
    cluster.settle().await;
    assert_eq!(owner(&cluster.get("default", "orphan").unwrap()), None);
    assert_eq!(cluster.list::<Pod>().len(), 3, "another took its place");
}

#[tokio::test]
async fn dependents_go_with_their_owner_as_it_was_asked() {
    for (propagation, pods_left) in [
        (None, 0),
        (Some(Propagation::Background), 0),
        (Some(Propagation::Foreground), 0),
        (Some(Propagation::Orphan), 2),
    ] {
        let mut cluster = Cluster::new(&["n1"]).await;
        cluster.deploy("web", 2, json!({})).await;
        cluster.settle().await;
        let options = Delete { propagation, ..Delete::default() };
        cluster.delete("apps/v1", "Deployment", "default", "web", options).await;
        if propagation == Some(Propagation::Foreground) {
            let waiting: Deployment = cluster.get("default", "web").unwrap();
            assert_eq!(waiting.metadata.finalizers, Some(vec!["foregroundDeletion".into()]));
        }
        cluster.settle().await;
        assert_eq!(cluster.list::<Deployment>().len(), 0, "{propagation:?}");
        assert_eq!(cluster.list::<Pod>().len(), pods_left, "{propagation:?}");
        let sets = cluster.list::<ReplicaSet>();
        assert!(sets.iter().all(|set| set.metadata.owner_references.iter().flatten().next().is_none()));
        assert_eq!(sets.len(), usize::from(pods_left > 0), "{propagation:?}");
    }
}

#[tokio::test]
async fn what_names_an_owner_that_never_was_is_removed() {
    let mut cluster = Cluster::new(&[]).await;
    let map = |name: &str, owners: Value| {
        json!({"kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "ownerReferences": owners}})
    };
    let owner = cluster.create(map("owner", json!([]))).await;
    let reference = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid});
    cluster.create(map("dangling", json!([reference("no-such-uid")]))).await;
    cluster.create(map("half", json!([reference("no-such-uid"), reference(owner.uid())]))).await;
    cluster.settle().await;
    assert!(cluster.get::<ConfigMap>("default", "dangling").is_none());
    let half: ConfigMap = cluster.get("default", "half").unwrap();
    assert_eq!(half.metadata.owner_references.unwrap().len(), 1, "it forgets the owner that is not there");
}

#[tokio::test]
async fn a_deleted_namespace_is_emptied_and_goes() {
    let mut cluster = Cluster::new(&["n1"]).await;
    cluster.create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})).await;
    cluster.settle().await;
    assert!(cluster.get::<ServiceAccount>("shop", "default").is_some());
    for (kind, spec) in
        [("ConfigMap", Value::Null), ("Pod", json!({"containers": [{"name": "c", "image": "c"}]}))]
    {
        let metadata = json!({"name": "a", "namespace": "shop"});
        let mut object = json!({"kind": kind, "apiVersion": "v1", "metadata": metadata});
        if !spec.is_null() {
            object["spec"] = spec;
        }
        cluster.create(object).await;
    }
    cluster.settle().await;
    cluster.delete("v1", "Namespace", "", "shop", Delete::default()).await;
    assert!(cluster.get::<Namespace>("", "shop").is_some(), "it waits for its contents");
    cluster.settle().await;
    assert!(cluster.get::<Namespace>("", "shop").is_none());
    let left = cluster.state();
    let left = left.range(&store::KeyRange::prefix("/registry/"));
    assert_eq!(left.filter(|kv| String::from_utf8_lossy(&kv.key).contains("/shop/")).count(), 0);
}

#[tokio::test]
async fn pods_of_a_node_that_no_longer_exists_are_removed() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.deploy("web", 2, json!({})).await;
    cluster.settle().await;
    cluster.silence("n2");
    cluster.delete("v1", "Node", "", "n2", Delete::default()).await;
    cluster.settle().await;
    assert!(active(&cluster).iter().any(|pod| node_of(pod) == "n2"), "it may be registering anew");
    cluster.pass(Duration::from_secs(41));
    cluster.settle().await;
    assert!(cluster.list::<Pod>().iter().all(|pod| node_of(pod) == "n1"));
    assert_eq!(active(&cluster).len(), 2);
}

#[tokio::test]
async fn the_api_s_service_is_backed_by_the_ready_hosts() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    cluster
        .create(json!({
            "kind": "Service", "apiVersion": "v1", "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
        }))
        .await;
    cluster.settle().await;
    cluster.silence("n3");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    let endpoints: Endpoints = cluster.get("default", "kubernetes").unwrap();
    let subset = &endpoints.subsets.unwrap()[0];
    let addresses: Vec<&str> = subset.addresses.iter().flatten().map(|a| a.ip.as_str()).collect();
    assert_eq!(addresses, ["10.73.0.1", "10.73.0.2"]);
    let slice: EndpointSlice = cluster.get("default", "kubernetes").unwrap();
    assert_eq!(slice.endpoints.unwrap_or_default().len(), 2);
}

#[tokio::test]
async fn the_cluster_s_dns_is_backed_by_every_ready_host_of_this_program() {
    let mut cluster = Cluster::new(&["n1", "n2", "n3", "n4"]).await;
    cluster
        .create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system"}}))
        .await;
    cluster
        .create(json!({
            "kind": "Service", "apiVersion": "v1", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]},
        }))
        .await;
    // One of them is of another program, and answers for no names.
    let beats = json!({"metadata": {"annotations": {objects::HEARTBEATS: null}}});
    cluster.patch("v1", "Node", "", "n4", "", beats).await.unwrap();
    cluster.settle().await;
    cluster.silence("n3");
    cluster.pass(Duration::from_secs(2));
    cluster.settle().await;
    let endpoints: Endpoints = cluster.get("kube-system", "kube-dns").unwrap();
    let subset = &endpoints.subsets.unwrap()[0];
    let addresses: Vec<_> =
        subset.addresses.iter().flatten().map(|a| (&*a.ip, a.node_name.as_deref().unwrap())).collect();
    assert_eq!(addresses, [("10.73.0.1", "n1"), ("10.73.0.2", "n2")]);
    let ports: Vec<_> =
        subset.ports.iter().flatten().map(|p| (p.port, p.protocol.as_deref().unwrap())).collect();
    assert_eq!(ports, [(53, "UDP"), (53, "TCP")]);
    let slice: EndpointSlice = cluster.get("kube-system", "kube-dns").unwrap();
    assert_eq!(slice.endpoints.unwrap_or_default().len(), 2);
}

#[tokio::test]
async fn the_api_s_service_is_due_only_when_its_endpoints_may_change() {
    let mut cluster = Cluster::new(&["n1", "n2"]).await;
    cluster.settle().await;
    let key = Key::of("host-services", "default", "kubernetes").unwrap();
    let member = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let other = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": null}}});
    let ready = |cluster: &Cluster, status: &str| json!({"status": {"conditions": [cluster.condition("Ready", status)]}});
    // (what happens to which node, whether it may change the endpoints)
    for (node, subresource, patch, matters) in [
        ("n2", "", json!({"metadata": {"annotations": {"a": "b"}}}), false),
        ("n2", "status", ready(&cluster, "False"), true),
        ("n1", "", member.clone(), true),
        ("n2", "status", ready(&cluster, "True"), false),
        ("n1", "status", ready(&cluster, "False"), true),
        ("n2", "", member, true),
        (
            "n2",
            "status",
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.73.0.9"}]}}),
            true,
        ),
        ("n2", "", other.clone(), true),
        ("n1", "", other, true),
        ("n2", "status", ready(&cluster, "Unknown"), true),
    ] {
        cluster.patch("v1", "Node", "", node, subresource, patch.clone()).await.unwrap();
        assert_eq!(cluster.due().contains(&key), matters, "{node}: {patch}");
        cluster.settle().await;
    }
}

#[tokio::test]
async fn a_role_is_made_of_those_that_its_selectors_mean() {
    let mut cluster = Cluster::new(&["n1"]).await;
    let role = |name: &str, labels: Value, verb: &str| {
        json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": name, "labels": labels},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]})
    };
    let mut whole = role("whole", json!({}), "get");
    whole.as_object_mut().unwrap().remove("rules");
    whole["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]});
    cluster.create(whole).await;
    cluster.create(role("b", json!({"part": "yes"}), "list")).await;
    cluster.create(role("a", json!({"part": "yes"}), "get")).await;
    cluster.create(role("c", json!({"part": "no"}), "delete")).await;
    cluster.settle().await;
    let verbs = |cluster: &Cluster| -> Vec<String> {
        let whole: ClusterRole = cluster.get("", "whole").unwrap();
        whole.rules.into_iter().flatten().flat_map(|rule| rule.verbs).collect()
    };
    assert_eq!(verbs(&cluster), ["get", "list"]);
    let labels = json!({"metadata": {"labels": {"part": "no"}}});
    cluster.patch("rbac.authorization.k8s.io/v1", "ClusterRole", "", "a", "", labels).await.unwrap();
    cluster.settle().await;
    assert_eq!(verbs(&cluster), ["list"]);
}
