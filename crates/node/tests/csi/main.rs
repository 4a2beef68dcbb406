//! Volumes of CSI drivers on a host: a driver of the test's own registers, and mounts for pods what it is asked to.
#![allow(clippy::unwrap_used)] // A test that can't go on ends.

mod bench;
#[path = "../support/mod.rs"]
mod support;

#[path = "../../../csi/tests/support/server.rs"]
mod server;

use std::fs;
use std::path::Path;

use bench::{Bench, DRIVER, of_claim, with_own_mounts};
use serde_json::{Value, json};
use support::is_ready;

#[tokio::test]
async fn a_volume_is_attached_staged_published_and_all_of_it_undone() {
    if !with_own_mounts("a_volume_is_attached_staged_published_and_all_of_it_undone") {
        return;
    }
    let bench = Bench::start().await;
    let driver = json!({"name": DRIVER, "nodeID": "here", "topologyKeys": ["example.org/rack"], "allocatable": {"count": 5}});
    assert_eq!(bench.csi_drivers(), [driver]);
    bench
        .until("the Node says what its drivers say", |bench| {
            let node = bench.node();
            let annotations = &node["metadata"]["annotations"];
            annotations["csi.volume.kubernetes.io/nodeid"] == format!("{{\"{DRIVER}\":\"here\"}}")
                && annotations["volumes.kubernetes.io/controller-managed-attach-detach"] == "true"
                && node["metadata"]["labels"]["example.org/rack"] == "7"
        })
        .await;

    bench.claim(json!({"podInfoOnMount": true}));
    bench.pod("one", of_claim(), json!({"securityContext": {"fsGroup": 4711}}));
    bench.until("the Node says first that it uses the volume", Bench::in_use).await;
    assert_eq!(bench.calls(), [""; 0], "it isn't attached yet");
    bench.attach();
    bench.wrote("disk-1", "one").await;
    assert_eq!(bench.calls(), ["NodeStageVolume disk-1", "NodePublishVolume disk-1"]);
    let asked = bench.driver.published.lock().unwrap()[0].clone();
    assert_eq!(asked.publish_context["lun"], "3");
    assert_eq!((asked.volume_context["speed"].as_str(), asked.readonly), ("high", false));
    assert_eq!(asked.volume_context["csi.storage.k8s.io/pod.name"], "one");
    let of_pod = bench.data().join("pods/uid-of-one/volumes/kubernetes.io~csi/pv/mount");
    assert_eq!(Path::new(&asked.target_path), of_pod);
    let metadata = fs::metadata(bench.driver.backing.join("disk-1")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), 4711, "it is the pod's group's");

    // The second pod of the claim: the volume is staged already.
    bench.pod("two", of_claim(), json!({}));
    bench.wrote("disk-1", "two").await;
    assert_eq!(bench.calls()[2..], ["NodePublishVolume disk-1"]);
    bench.host.delete("one", 0);
    bench.host.until_gone("one").await;
    assert!(!of_pod.exists() && bench.in_use(), "another pod uses it");
    assert!(!bench.calls().contains(&"NodeUnstageVolume disk-1".to_owned()));
    bench.host.delete("two", 0);
    bench.host.until_gone("two").await;
    bench.until("nobody uses it", |bench| !bench.in_use()).await;
    assert_eq!(bench.calls().last().unwrap(), "NodeUnstageVolume disk-1");
    assert!(bench.driver.backing.join("disk-1/one").exists(), "what the pods wrote stays");
    let left = fs::read_dir(bench.data().join("plugins/kubernetes.io/csi").join(DRIVER)).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_driver_that_is_away_harms_nobody_elses_pods() {
    if !with_own_mounts("a_driver_that_is_away_harms_nobody_elses_pods") {
        return;
    }
    let mut bench = Bench::start().await;
    bench.claim(json!({"attachRequired": false}));
    bench.pod("one", of_claim(), json!({}));
    bench.wrote("disk-1", "one").await;
    bench.driver_goes().await;
    bench.host.delete("one", 0);
    // Another one begins and ends, while that one waits.
    bench.pod("plain", json!({"emptyDir": {}}), json!({}));
    bench.host.until("plain", "it runs", is_ready).await;
    bench.host.delete("plain", 0);
    bench.host.until_gone("plain").await;
    bench.pod("late", of_claim(), json!({}));
    let absent = "driver name disks.example.org not found in the list of registered CSI drivers";
    bench.host.until_event("FailedMount", |message| message.ends_with(absent)).await;
    assert!(bench.host.writer.get("pods", "default", "one").is_some(), "its volume is mounted still");
    assert!(bench.driver.backing.join("disk-1/one").exists(), "nothing in it was removed");
    bench.driver_comes();
    bench.host.until_gone("one").await;
    bench.wrote("disk-1", "late").await;
}

#[tokio::test]
async fn what_was_mounted_when_the_agent_died_is_unmounted_by_the_next() {
    if !with_own_mounts("what_was_mounted_when_the_agent_died_is_unmounted_by_the_next") {
        return;
    }
    let mut bench = Bench::start().await;
    bench.claim(json!({}));
    bench.pod("one", of_claim(), json!({}));
    bench.until("it says that it uses the volume", Bench::in_use).await;
    bench.attach();
    bench.wrote("disk-1", "one").await;
    bench.host.agent.take().unwrap().leave().await;
    bench.host.writer.remove("pods", "default", "one");
    bench.host.switch_on();
    bench.until("nobody uses it", |bench| !bench.in_use()).await;
    let calls = bench.calls();
    assert_eq!(calls[calls.len() - 2..], ["NodeUnpublishVolume disk-1", "NodeUnstageVolume disk-1"]);
    bench.until("its folder goes", |bench| !bench.data().join("pods/uid-of-one").exists()).await;
    assert!(bench.driver.backing.join("disk-1/one").exists(), "what the pod wrote stays");
}

#[tokio::test]
async fn a_driver_that_fails_or_lies_is_the_reason_why_a_pod_waits() {
    if !with_own_mounts("a_driver_that_fails_or_lies_is_the_reason_why_a_pod_waits") {
        return;
    }
    let bench = Bench::start().await;
    bench.claim(json!({"attachRequired": false}));
    *bench.driver.fails.lock().unwrap() = Some("NodeStageVolume");
    bench.pod("one", of_claim(), json!({}));
    let told = "MountVolume.MountDevice failed for volume \"pv\" : rpc error: code = Internal desc = the disk is on fire";
    bench.host.until_event("FailedMount", |message| message == told).await;
    *bench.driver.lies.lock().unwrap() = true;
    *bench.driver.fails.lock().unwrap() = None;
    bench.host.until_event("FailedMount", |message| message.contains("nothing is mounted at")).await;
    *bench.driver.lies.lock().unwrap() = false;
    bench.wrote("disk-1", "one").await;
    // Its claim is made larger, and the driver's controller has done its part.
    let mut volume = bench.host.writer.get("persistentvolumes", "", "pv").unwrap();
    volume["spec"]["capacity"]["storage"] = "2Gi".into();
    bench.host.writer.put(&volume);
    bench
        .until("the claim is as large", |bench| {
            let claim = bench.host.writer.get("persistentvolumeclaims", "default", "data").unwrap();
            claim["status"]["capacity"]["storage"] == "2Gi"
        })
        .await;
    assert!(bench.calls().contains(&"NodeExpandVolume disk-1".to_owned()));
}

#[tokio::test]
async fn a_volume_that_may_have_been_unstaged_is_staged_for_the_next_pod() {
    if !with_own_mounts("a_volume_that_may_have_been_unstaged_is_staged_for_the_next_pod") {
        return;
    }
    let bench = Bench::start().await;
    bench.claim(json!({"attachRequired": false}));
    bench.pod("one", of_claim(), json!({}));
    bench.wrote("disk-1", "one").await;
    *bench.driver.is_late.lock().unwrap() = Some("NodeUnstageVolume");
    bench.host.delete("one", 0);
    bench.host.until_gone("one").await;
    let unstaged = "NodeUnstageVolume disk-1".to_owned();
    bench.until("it is unstaged, and nobody hears of that", |bench| bench.calls().contains(&unstaged)).await;
    bench.pod("two", of_claim(), json!({}));
    bench.wrote("disk-1", "two").await;
    let calls = bench.calls();
    assert_eq!(calls[calls.len() - 2..], ["NodeStageVolume disk-1", "NodePublishVolume disk-1"]);
}

/// A volume that is its pod's own.
fn own(attributes: &Value) -> Value {
    json!({"csi": {"driver": DRIVER, "volumeAttributes": attributes}})
}

#[tokio::test]
async fn a_pod_that_fails_while_a_volume_is_mounted_is_unmounted_after_that() {
    if !with_own_mounts("a_pod_that_fails_while_a_volume_is_mounted_is_unmounted_after_that") {
        return;
    }
    let bench = Bench::start().await;
    bench
        .host
        .writer
        .put(&json!({"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": DRIVER},
        "spec": {"volumeLifecycleModes": ["Ephemeral"]}}));
    bench.driver.holds.send_replace(Some("yes".into()));
    let mut held = own(&json!({"held": "yes"}));
    held["name"] = "held".into();
    let mut free = own(&json!({}));
    free["name"] = "v".into();
    bench.pod("one", own(&json!({})), json!({"activeDeadlineSeconds": 1, "volumes": [free, held]}));
    bench.until("one of its volumes is there", |bench| bench.calls().len() == 1).await;
    bench.host.until("one", "it fails", |pod| pod["status"]["phase"] == "Failed").await;
    // Once this one runs, the host has heard of that, too.
    bench.pod("plain", json!({"emptyDir": {}}), json!({}));
    bench.host.until("plain", "it runs", is_ready).await;
    bench.host.delete("plain", 0);
    bench.host.until_gone("plain").await;
    assert_eq!(bench.calls().len(), 1, "nothing is unmounted meanwhile: {:?}", bench.calls());
    bench.driver.holds.send_replace(None);
    let unmounted = |bench: &Bench| {
        bench.calls().iter().filter(|call| call.starts_with("NodeUnpublishVolume")).count() == 2
    };
    bench.until("both are unmounted", unmounted).await;
    bench.until("nothing runs of it", |bench| bench.host.shims().is_empty()).await;
    bench
        .until("its record goes", |bench| {
            !bench.data().join("pods/uid-of-one/volumes/kubernetes.io~csi/held").exists()
        })
        .await;
    assert_eq!(bench.calls().len(), 4);
}

#[tokio::test]
async fn nothing_is_mounted_for_a_pod_that_failed_while_it_waited() {
    if !with_own_mounts("nothing_is_mounted_for_a_pod_that_failed_while_it_waited") {
        return;
    }
    let mut bench = Bench::start().await;
    bench.claim(json!({"attachRequired": false}));
    *bench.driver.fails.lock().unwrap() = Some("NodeStageVolume");
    // Its end comes while the driver that failed is given time: by then, more than three seconds of it.
    bench.pod("one", of_claim(), json!({"activeDeadlineSeconds": 5}));
    bench.host.until("one", "it fails", |pod| pod["status"]["phase"] == "Failed").await;
    bench.pod("plain", json!({"emptyDir": {}}), json!({}));
    bench.host.until("plain", "it runs", is_ready).await;
    *bench.driver.fails.lock().unwrap() = None;
    // All that waits for the driver goes on.
    bench.driver_goes().await;
    bench.driver_comes();
    bench.until("the CSINode names it again", |bench| bench.csi_drivers().len() == 1).await;
    bench.pod("two", of_claim(), json!({}));
    bench.wrote("disk-1", "two").await;
    let asked = bench.driver.published.lock().unwrap().clone();
    assert!(asked.iter().all(|asked| asked.target_path.contains("/uid-of-two/")), "{asked:?}");
    assert!(!bench.data().join("pods/uid-of-one/volumes/kubernetes.io~csi/pv").exists());
}

#[tokio::test]
async fn a_pods_own_volume_comes_and_goes_with_it() {
    if !with_own_mounts("a_pods_own_volume_comes_and_goes_with_it") {
        return;
    }
    let bench = Bench::start().await;
    bench.host.writer.put(&json!({"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": DRIVER},
        "spec": {"volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": true, "tokenRequests": [{"audience": "vault"}]}}));
    bench.host.writer.put(
        &json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "key", "namespace": "default"},
        "stringData": {"password": "open"}}),
    );
    let source = json!({"driver": DRIVER, "volumeAttributes": {"size": "small"}, "nodePublishSecretRef": {"name": "key"}});
    bench.pod("one", json!({"csi": source}), json!({}));
    bench.until("it is published", |bench| !bench.driver.published.lock().unwrap().is_empty()).await;
    let asked = bench.driver.published.lock().unwrap()[0].clone();
    bench.wrote(&asked.volume_id, "one").await;
    assert!(asked.volume_id.starts_with("csi-") && asked.staging_target_path.is_empty());
    assert_eq!(
        (asked.secrets["password"].as_str(), asked.volume_context["size"].as_str()),
        ("open", "small")
    );
    assert_eq!(asked.volume_context["csi.storage.k8s.io/ephemeral"], "true");
    let tokens: Value =
        serde_json::from_str(&asked.volume_context["csi.storage.k8s.io/serviceAccount.tokens"]).unwrap();
    assert!(tokens["vault"]["token"].as_str().unwrap().contains("vault"), "{tokens}");
    bench.host.delete("one", 0);
    bench.host.until_gone("one").await;
    assert_eq!(bench.calls().last().unwrap(), &format!("NodeUnpublishVolume {}", asked.volume_id));
    assert!(!bench.in_use());
}
