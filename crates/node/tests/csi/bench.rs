//! A host, and a driver of the test's own beside it.

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
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::{Answer, serve};
use crate::support::{self, PATIENCE, TestHost};

pub const DRIVER: &str = "disks.example.org";
const UNIQUE: &str = "kubernetes.io/csi/disks.example.org^disk-1";
/// Says that this process has a mount namespace of its own.
const OWN_MOUNTS: &str = "HOLDFAST_TEST_OWN_MOUNTS";

/// Runs a test in a mount namespace of its own, so that nothing is ever left mounted on the machine. True in there.
pub fn with_own_mounts(test: &str) -> bool {
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
pub struct FakeDriver {
    pub backing: PathBuf,
    /// What it was asked: the method's name, and the volume.
    pub calls: Mutex<Vec<String>>,
    pub published: Mutex<Vec<NodePublishVolumeRequest>>,
    /// The method that fails.
    pub fails: Mutex<Option<&'static str>>,
    /// The method that does its work, and whose answer comes too late.
    pub is_late: Mutex<Option<&'static str>>,
    /// Volumes with this in their attribute `held` are published once it says so no more.
    pub holds: watch::Sender<Option<String>>,
    /// Whether it only says that it publishes.
    pub lies: Mutex<bool>,
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

    async fn answer(&self, path: &str, question: Bytes) -> Answer {
        let method = path.rsplit('/').next().unwrap();
        if method == "NodePublishVolume" {
            let asked = NodePublishVolumeRequest::decode(question.clone()).unwrap();
            let mut holds = self.holds.subscribe();
            let attribute = asked.volume_context.get("held");
            holds.wait_for(|held| held.is_none() || held.as_ref() != attribute).await.unwrap();
        }
        let done = self.done(method, question);
        match *self.is_late.lock().unwrap() == Some(method) {
            true => Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded")),
            false => done,
        }
    }

    fn done(&self, method: &str, question: Bytes) -> Answer {
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
pub struct Bench {
    pub host: TestHost,
    pub driver: Arc<FakeDriver>,
    serving: Vec<JoinHandle<()>>,
}

impl Bench {
    pub async fn start() -> Bench {
        let host = TestHost::start();
        let folder = host.folder.path().canonicalize().unwrap().join("driver");
        let driver = Arc::new(FakeDriver {
            backing: folder.join("backing"),
            calls: Mutex::default(),
            published: Mutex::default(),
            fails: Mutex::default(),
            is_late: Mutex::default(),
            holds: watch::Sender::default(),
            lies: Mutex::default(),
        });
        fs::create_dir_all(&driver.backing).unwrap();
        let mut bench = Bench { host, driver, serving: Vec::new() };
        bench.driver_comes();
        bench.until("the CSINode names the driver", |bench| bench.csi_drivers().len() == 1).await;
        bench
    }

    pub fn data(&self) -> PathBuf {
        self.host.folder.path().canonicalize().unwrap().join("agent")
    }

    fn sockets(&self) -> [PathBuf; 2] {
        [self.driver.backing.with_file_name("csi.sock"), self.data().join("plugins_registry/disks.sock")]
    }

    pub fn driver_comes(&mut self) {
        fs::create_dir_all(self.data().join("plugins_registry")).unwrap();
        for socket in self.sockets() {
            let driver = self.driver.clone();
            self.serving.push(serve(&socket, move |path, question| {
                let driver = driver.clone();
                async move { driver.answer(&path, question).await }
            }));
        }
    }

    pub async fn driver_goes(&mut self) {
        for serving in self.serving.drain(..) {
            serving.abort();
            let _ = serving.await;
        }
        self.sockets().iter().for_each(|socket| fs::remove_file(socket).unwrap());
        self.until("the CSINode names it no more", |bench| bench.csi_drivers().is_empty()).await;
    }

    pub fn csi_drivers(&self) -> Vec<Value> {
        let node = self.host.writer.get_of("storage.k8s.io", "csinodes", "", "n1");
        node.and_then(|node| node["spec"]["drivers"].as_array().cloned()).unwrap_or_default()
    }

    pub fn node(&self) -> Value {
        self.host.writer.get("nodes", "", "n1").unwrap_or_default()
    }

    pub fn calls(&self) -> Vec<String> {
        self.driver.calls.lock().unwrap().clone()
    }

    /// Waits for what the host does without a word in the store, too.
    pub async fn until(&self, what: &str, holds: impl Fn(&Bench) -> bool) {
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
    pub fn claim(&self, driver: Value) {
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
    pub fn attach(&self) {
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

    pub fn in_use(&self) -> bool {
        self.node()["status"]["volumesInUse"] == json!([UNIQUE])
    }

    /// A pod that writes its name into its volume, and stays.
    pub fn pod(&self, name: &str, volume: Value, spec: Value) {
        let mut volume = volume;
        volume["name"] = "v".into();
        let script = format!("echo {name} > /data/{name}; exec sleep 1000");
        let container =
            json!({"command": ["sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/data"}]});
        let mut all = json!({"volumes": [volume], "terminationGracePeriodSeconds": 0});
        support::merge(&mut all, &spec);
        self.host.pod(name, container, all);
    }

    pub async fn wrote(&self, volume: &str, pod: &str) {
        let path = self.driver.backing.join(volume).join(pod);
        self.host.until_file(&path, |text| text.trim() == pod).await;
    }
}

pub fn of_claim() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "data"}})
}
