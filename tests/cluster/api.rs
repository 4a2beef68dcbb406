//! What an operator written with `kube` does: create, watch, patch, scale, roll, delete.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Service};
use kube::api::{
    Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::harness::{Cluster, wait_for};

fn web(replicas: u32) -> Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "runtimeClassName": "host",
                    "containers": [{
                        "name": "web", "command": ["holdfast", "web"],
                        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                    }],
                },
            },
        },
    }))
    .unwrap()
}

fn service() -> Service {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }))
    .unwrap()
}

async fn ready_pods(client: &Client, count: usize) -> Vec<Pod> {
    wait_for(&format!("{count} ready pods"), || async {
        let pods = Api::<Pod>::default_namespaced(client.clone());
        let pods = pods.list(&ListParams::default().labels("app=web")).await.ok()?.items;
        let ready = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).all(|pod| {
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
        });
        (ready && pods.len() == count).then_some(pods)
    })
    .await
}

#[tokio::test]
async fn a_deployment_lives_its_whole_life() {
    let cluster = Cluster::up().await;
    let client = cluster.client().await.unwrap();
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let services = Api::<Service>::default_namespaced(client.clone());
    let pods = Api::<Pod>::default_namespaced(client.clone());

    deployments.create(&PostParams::default(), &web(3)).await.unwrap();
    services.create(&PostParams::default(), &service()).await.unwrap();
    let three = ready_pods(&client, 3).await;
    let mut hosts: Vec<_> = three.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    hosts.sort();
    assert_eq!(hosts, ["n1", "n2", "n3"], "three replicas on three hosts");

    wait_for("three endpoints", || async {
        let endpoints = Api::<Endpoints>::default_namespaced(client.clone()).get("web").await.ok()?;
        let count: usize = endpoints.subsets?.iter().map(|s| s.addresses.iter().flatten().count()).sum();
        (count == 3).then_some(())
    })
    .await;

    // Through the API's own proxy the load is spread over all three.
    let mut answers = std::collections::BTreeSet::new();
    wait_for("an answer from each pod", || async {
        let request =
            http::Request::get("/api/v1/namespaces/default/services/web:80/proxy/").body(vec![]).ok()?;
        client.request_text(request).await.ok()
    })
    .await;
    for _ in 0..9 {
        let request =
            http::Request::get("/api/v1/namespaces/default/services/web:80/proxy/").body(vec![]).unwrap();
        let answer = client.request_text(request).await.unwrap();
        answers.insert(answer.lines().next().unwrap_or_default().to_owned());
    }
    let names: std::collections::BTreeSet<_> = three.iter().map(ResourceExt::name_any).collect();
    assert_eq!(answers, names);

    // A new template rolls out; the old ReplicaSet stays for an undo, with nothing in it.
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    wait_for("the rollout", || async {
        let web = deployments.get("web").await.ok()?;
        let status = web.status?;
        (status.observed_generation == web.metadata.generation
            && status.updated_replicas == Some(3)
            && status.replicas == Some(3)
            && status.available_replicas == Some(3))
        .then_some(())
    })
    .await;
    let sets = Api::<ReplicaSet>::default_namespaced(client.clone());
    assert_eq!(sets.list(&ListParams::default()).await.unwrap().items.len(), 2);

    let scale = json!({"spec": {"replicas": 1}});
    deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();
    let one = ready_pods(&client, 1).await;

    let logs = pods.logs(&one[0].name_any(), &LogParams::default()).await;
    assert!(logs.is_ok(), "{logs:?}");

    // A pod whose process dies is started again.
    pods.delete(&one[0].name_any(), &DeleteParams::default()).await.unwrap();
    wait_for("another pod", || async {
        let now = ready_pods(&client, 1).await;
        (now[0].name_any() != one[0].name_any()).then_some(())
    })
    .await;

    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    wait_for("everything owned to be gone", || async {
        let pods = pods.list(&ListParams::default()).await.ok()?.items;
        let sets = sets.list(&ListParams::default()).await.ok()?.items;
        (pods.is_empty() && sets.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_watch_tells_every_change_and_resumes() {
    let cluster = Cluster::with(1, "auto").await;
    let maps = Api::<ConfigMap>::default_namespaced(cluster.client().await.unwrap());
    wait_for("the map that every namespace gets", || async { maps.get_opt("kube-root-ca.crt").await.ok()? })
        .await;
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let map = |value: &str| -> ConfigMap {
        serde_json::from_value(
            json!({"metadata": {"name": "seen", "labels": {"l": value}}, "data": {"k": value}}),
        )
        .unwrap()
    };
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    maps.replace("seen", &PostParams::default(), &map("b")).await.unwrap();
    maps.delete("seen", &DeleteParams::default()).await.unwrap();

    // With a selector, a change of labels comes as ADDED and DELETED.
    for (selector, expected) in [("", "AMD"), ("l=a", "AD"), ("l=b", "AD")] {
        let params = WatchParams::default().labels(selector).timeout(20);
        let events = maps.watch(&params, &start).await.unwrap().take(expected.len());
        let letters: String = events
            .map_ok(|event| match event {
                WatchEvent::Added(_) => 'A',
                WatchEvent::Modified(_) => 'M',
                WatchEvent::Deleted(_) => 'D',
                _ => '?',
            })
            .try_collect()
            .await
            .unwrap();
        assert_eq!(letters, expected, "selector {selector:?}");
    }
}

#[tokio::test]
async fn a_namespace_takes_its_contents_along() {
    let cluster = Cluster::with(1, "auto").await;
    let client = cluster.client().await.unwrap();
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "shortlived"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "shortlived");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "in-it"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("shortlived", &DeleteParams::default()).await.unwrap();
    wait_for("the namespace to go", || async {
        namespaces.get_opt("shortlived").await.ok()?.is_none().then_some(())
    })
    .await;
    assert!(maps.get_opt("in-it").await.unwrap().is_none());
}

#[tokio::test]
async fn nobody_without_a_certificate_gets_in() {
    let cluster = Cluster::with(1, "auto").await;
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    for user in &mut kubeconfig.auth_infos {
        let auth = user.auth_info.as_mut().unwrap();
        auth.client_certificate_data = None;
        auth.client_key_data = None;
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let nobody = Client::try_from(config).unwrap();
    let refused = Api::<Pod>::default_namespaced(nobody).list(&ListParams::default()).await;
    match refused {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 401),
        other => panic!("not refused as unauthorized: {other:?}"),
    }
}
