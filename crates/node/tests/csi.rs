//! Volumes of CSI drivers on a host: a driver of the test's own registers, and mounts for pods what it is asked to.
#![allow(clippy::unwrap_used)] // A test that can't go on ends.

mod support;

#[path = "../../csi/tests/support/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use csi::messages::{
    Capability, Done, NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesResponse,
    NodeGetInfoResponse, NodePublishVolumeRequest, NodeServiceCapability, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, PluginInfo, RegistrationStatusResponse, Rpc,
    Topology,
};
use grpc::{Code, Status};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message;
use serde_json::{Value, json};
use server::{Answer, serve};
use support::{PATIENCE, TestHost, is_ready};
use tokio::task::JoinHandle;

const DRIVER: &str = "disks.example.org";
const UNIQUE: &str = "kubernetes.io/csi/disks.example.org^disk-1";
/// Says that this process has a mount namespace of its own.
const OWN_MOUNTS: &str = "HOLDFAST_TEST_OWN_MOUNTS";

/// Runs a test in a mount namespace of its own, so that nothing is ever left mounted on the machine. True in there.
fn with_own_mounts(test: &str) -> bool {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return true;
    }
    if !support::is_root() || !support::can_mount() {
        testing::skip("mounts", "only root mounts as storage drivers do");
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    let status = command.args(["--exact", test, "--nocapture"]).env(OWN_MOUNTS, "1").status().unwrap();
    assert!(status.success(), "{test}, in a mount namespace of its own");
    false
}

/// A driver whose volumes are folders of `backing`.
struct FakeDriver {
    backing: PathBuf,
    /// What it was asked: the method's name, and the volume.
    calls: Mutex<Vec<String>>,
    published: Mutex<Vec<NodePublishVolumeRequest>>,
    /// The method that fails.
    fails: Mutex<Option<&'static str>>,
    /// Whether it only says that it publishes.
    lies: Mutex<bool>,
}

impl FakeDriver {
    fn bind(&self, from: &Path, to: &str) -> Answer {
        if !is_mounted(Path::new(to)) {
            fs::create_dir_all(from).unwrap();
            fs::create_dir_all(to).unwrap();
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
        Ok(Done {}.encode_to_vec())
    }

    fn answer(&self, path: &str, question: Bytes) -> Answer {
        let method = path.rsplit('/').next().unwrap();
        if *self.fails.lock().unwrap() == Some(method) {
            return Err(Status::new(Code::Internal, "the disk is on fire"));
        }
        let called = |volume: &str| self.calls.lock().unwrap().push(format!("{method} {volume}"));
        match method {
            "GetInfo" => {
                let info = PluginInfo {
                    r#type: "CSIPlugin".into(),
                    name: DRIVER.into(),
                    endpoint: self.backing.with_file_name("csi.sock").to_str().unwrap().into(),
                    supported_versions: vec!["1.11.0".into()],
                };
                Ok(info.encode_to_vec())
            }
            "NotifyRegistrationStatus" => Ok(RegistrationStatusResponse {}.encode_to_vec()),
            "NodeGetInfo" => {
                let segments = [("example.org/rack".to_owned(), "7".to_owned())].into();
                let info = NodeGetInfoResponse {
                    node_id: "here".into(),
                    max_volumes_per_node: 5,
                    accessible_topology: Some(Topology { segments }),
                };
                Ok(info.encode_to_vec())
            }
            "NodeGetCapabilities" => {
                let of = |each: Capability| NodeServiceCapability { rpc: Some(Rpc { r#type: each as i32 }) };
                let capabilities = vec![of(Capability::StageUnstageVolume), of(Capability::ExpandVolume)];
                Ok(NodeGetCapabilitiesResponse { capabilities }.encode_to_vec())
            }
            "NodeStageVolume" => {
                let asked = NodeStageVolumeRequest::decode(question).unwrap();
                called(&asked.volume_id);
                self.bind(&self.backing.join(&asked.volume_id), &asked.staging_target_path)
            }
            "NodePublishVolume" => {
                let asked = NodePublishVolumeRequest::decode(question).unwrap();
                called(&asked.volume_id);
                let from = match asked.staging_target_path.as_str() {
                    "" => self.backing.join(&asked.volume_id),
                    staged => staged.into(),
                };
                let target = asked.target_path.clone();
                self.published.lock().unwrap().push(asked);
                match *self.lies.lock().unwrap() {
                    true => Ok(Done {}.encode_to_vec()),
                    false => self.bind(&from, &target),
                }
            }
            "NodeUnpublishVolume" => {
                let asked = NodeUnpublishVolumeRequest::decode(question).unwrap();
                called(&asked.volume_id);
                let _ = umount2(asked.target_path.as_str(), MntFlags::empty());
                let _ = fs::remove_dir(&asked.target_path);
                Ok(Done {}.encode_to_vec())
            }
            "NodeUnstageVolume" => {
                let asked = NodeUnstageVolumeRequest::decode(question).unwrap();
                called(&asked.volume_id);
                let _ = umount2(asked.staging_target_path.as_str(), MntFlags::empty());
                Ok(Done {}.encode_to_vec())
            }
            "NodeExpandVolume" => {
                let asked = NodeExpandVolumeRequest::decode(question).unwrap();
                called(&asked.volume_id);
                let bytes = asked.capacity_range.unwrap().required_bytes;
                Ok(NodeExpandVolumeResponse { capacity_bytes: bytes }.encode_to_vec())
            }
            other => Err(Status::new(Code::Unimplemented, other)),
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// A host, and a driver beside it.
struct Bench {
    host: TestHost,
    driver: Arc<FakeDriver>,
    serving: Vec<JoinHandle<()>>,
}

impl Bench {
    async fn start() -> Bench {
        let host = TestHost::start();
        let folder = host.folder.path().canonicalize().unwrap().join("driver");
        let driver = Arc::new(FakeDriver {
            backing: folder.join("backing"),
            calls: Mutex::default(),
            published: Mutex::default(),
            fails: Mutex::default(),
            lies: Mutex::default(),
        });
        fs::create_dir_all(&driver.backing).unwrap();
        let mut bench = Bench { host, driver, serving: Vec::new() };
        bench.driver_comes();
        bench.until("the CSINode names the driver", |bench| bench.csi_drivers().len() == 1).await;
        bench
    }

    fn data(&self) -> PathBuf {
        self.host.folder.path().canonicalize().unwrap().join("agent")
    }

    fn sockets(&self) -> [PathBuf; 2] {
        [self.driver.backing.with_file_name("csi.sock"), self.data().join("plugins_registry/disks.sock")]
    }

    fn driver_comes(&mut self) {
        fs::create_dir_all(self.data().join("plugins_registry")).unwrap();
        for socket in self.sockets() {
            let driver = self.driver.clone();
            self.serving.push(serve(&socket, move |path, question| {
                let driver = driver.clone();
                async move { driver.answer(&path, question) }
            }));
        }
    }

    async fn driver_goes(&mut self) {
        for serving in self.serving.drain(..) {
            serving.abort();
            let _ = serving.await;
        }
        self.sockets().iter().for_each(|socket| fs::remove_file(socket).unwrap());
        self.until("the CSINode names it no more", |bench| bench.csi_drivers().is_empty()).await;
    }

    fn csi_drivers(&self) -> Vec<Value> {
        let node = self.host.writer.get_of("storage.k8s.io", "csinodes", "", "n1");
        node.and_then(|node| node["spec"]["drivers"].as_array().cloned()).unwrap_or_default()
    }

    fn node(&self) -> Value {
        self.host.writer.get("nodes", "", "n1").unwrap_or_default()
    }

    fn calls(&self) -> Vec<String> {
        self.driver.calls.lock().unwrap().clone()
    }

    /// Waits for what the host does without a word in the store, too.
    async fn until(&self, what: &str, holds: impl Fn(&Bench) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, wait).await;
        done.unwrap_or_else(|_| {
            panic!("{what}: {:?} {:?} {}", self.calls(), self.host.events(), self.node())
        });
    }

    /// A claim with a volume of the driver, and what the driver says of itself.
    fn claim(&self, driver: Value) {
        let put = |object: Value| self.host.writer.put(&object);
        put(
            json!({"kind": "CSIDriver", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": DRIVER}, "spec": driver}),
        );
        put(json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "metadata": {"name": "data", "namespace": "default", "uid": "c"}, "spec": {"volumeName": "pv"},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}));
        put(json!({"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "pv"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "claimRef": {"uid": "c"}, "capacity": {"storage": "1Gi"},
            "csi": {"driver": DRIVER, "volumeHandle": "disk-1", "fsType": "ext4", "volumeAttributes": {"speed": "high"}}}}));
    }

    /// What the attach/detach controller and the driver's attacher do.
    fn attach(&self) {
        let sum = ring::digest::digest(&ring::digest::SHA256, format!("disk-1{DRIVER}n1").as_bytes());
        let digits: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.host.writer.put(&json!({"kind": "VolumeAttachment", "apiVersion": "storage.k8s.io/v1",
            "metadata": {"name": format!("csi-{digits}")},
            "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "pv"}},
            "status": {"attached": true, "attachmentMetadata": {"lun": "3"}}}));
        let mut node = self.node();
        node["status"]["volumesAttached"] = json!([{"name": UNIQUE, "devicePath": ""}]);
        self.host.writer.put(&node);
    }

    fn in_use(&self) -> bool {
        self.node()["status"]["volumesInUse"] == json!([UNIQUE])
    }

    /// A pod that writes its name into its volume, and stays.
    fn pod(&self, name: &str, volume: Value, spec: Value) {
        let mut volume = volume;
        volume["name"] = "v".into();
        let script = format!("echo {name} > /data/{name}; exec sleep 1000");
        let container =
            json!({"command": ["sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/data"}]});
        let mut all = json!({"volumes": [volume], "terminationGracePeriodSeconds": 0});
        support::merge(&mut all, &spec);
        self.host.pod(name, container, all);
    }

    async fn wrote(&self, volume: &str, pod: &str) {
        let path = self.driver.backing.join(volume).join(pod);
        self.host.until_file(&path, |text| text.trim() == pod).await;
    }
}

fn of_claim() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "data"}})
}

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
