//! A claim of a storage driver in a whole cluster: attached, mounted and written to on one host, let go there, and found on another. The driver
//! is the test's own: its node plugins mount in their hosts' mount namespaces, and its attacher says that all is attached.

#[path = "../../crates/csi/tests/support/server.rs"]
mod server;

use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use csi::messages::{
    Capability, Done, NodeGetCapabilitiesResponse, NodeGetInfoResponse, NodePublishVolumeRequest,
    NodeServiceCapability, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    PluginInfo, RegistrationStatusResponse, Rpc,
};
use grpc::{Code, Status};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, VolumeAttachment};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use server::{Answer, serve};

use crate::harness::{Cluster, text, wait_for};

const DRIVER: &str = "disks.example.org";
const HOSTS: [&str; 3] = ["n1", "n2", "n3"];

/// The driver's node plugin on one host. Its volumes are folders of `backing`.
struct Plugin {
    host: &'static str,
    /// The host's process, whose mounts it works in.
    process: i32,
    backing: PathBuf,
}

impl Plugin {
    /// Runs a script among the host's mounts.
    fn run(&self, script: &str, args: &[&str]) -> Answer {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.process))
            .args(["--mount", "--", "sh", "-c", script])
            .args(args);
        let output = command.output().unwrap();
        match output.status.success() {
            true => Ok(Done {}.encode_to_vec()),
            false => Err(Status::new(Code::Internal, text(&output))),
        }
    }

    fn bind(&self, from: &str, to: &str) -> Answer {
        let script = r#"mkdir -p "$0" "$1" && { mountpoint -q "$1" || mount --bind "$0" "$1"; }"#;
        self.run(script, &[from, to])
    }

    fn unbind(&self, at: &str) -> Answer {
        self.run(r#"! mountpoint -q "$0" || umount "$0""#, &[at])
    }

    fn answer(&self, path: &str, question: Bytes) -> Answer {
        match path.rsplit('/').next().unwrap() {
            "GetInfo" => {
                let info = PluginInfo {
                    r#type: "CSIPlugin".into(),
                    name: DRIVER.into(),
                    endpoint: String::new(),
                    supported_versions: vec!["1.11.0".into()],
                };
                Ok(info.encode_to_vec())
            }
            "NotifyRegistrationStatus" => Ok(RegistrationStatusResponse {}.encode_to_vec()),
            "NodeGetInfo" => {
                let info =
                    NodeGetInfoResponse { node_id: self.host.into(), ..NodeGetInfoResponse::default() };
                Ok(info.encode_to_vec())
            }
            "NodeGetCapabilities" => {
                let rpc = Rpc { r#type: Capability::StageUnstageVolume as i32 };
                let capabilities = vec![NodeServiceCapability { rpc: Some(rpc) }];
                Ok(NodeGetCapabilitiesResponse { capabilities }.encode_to_vec())
            }
            "NodeStageVolume" => {
                let asked = NodeStageVolumeRequest::decode(question).unwrap();
                let from = self.backing.join(&asked.volume_id);
                self.bind(from.to_str().unwrap(), &asked.staging_target_path)
            }
            "NodePublishVolume" => {
                let asked = NodePublishVolumeRequest::decode(question).unwrap();
                self.bind(&asked.staging_target_path, &asked.target_path)
            }
            "NodeUnpublishVolume" => {
                self.unbind(&NodeUnpublishVolumeRequest::decode(question).unwrap().target_path)
            }
            "NodeUnstageVolume" => {
                self.unbind(&NodeUnstageVolumeRequest::decode(question).unwrap().staging_target_path)
            }
            other => Err(Status::new(Code::Unimplemented, other)),
        }
    }

    /// Whether one of the driver's volumes is mounted on the host.
    fn has_mounted(&self) -> bool {
        let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.process)).unwrap();
        mounts.contains("/node/plugins/kubernetes.io/csi/") || mounts.contains("/kubernetes.io~csi/")
    }
}

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A pod with the claim.
fn pod(name: &str, script: &str, spec: Value) -> Pod {
    let container = json!({"name": "main", "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let mut all = json!({"runtimeClassName": "host", "terminationGracePeriodSeconds": 0, "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(json!({"metadata": {"name": name}, "spec": all}))
}

/// Does what the driver's attacher does, once it is asked to: answers for which host.
async fn attach(client: &Client, is_meant: impl Fn(&str) -> bool) -> String {
    let attachments = Api::<VolumeAttachment>::all(client.clone());
    let (name, host) = wait_for("a volume that is to be attached", async || {
        let all = attachments.list(&ListParams::default()).await.ok()?;
        let meant = all.into_iter().find(|found| is_meant(&found.spec.node_name))?;
        Some((meant.name_any(), meant.spec.node_name))
    })
    .await;
    let patch = Patch::Merge(json!({"status": {"attached": true}}));
    attachments.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    host
}

#[tokio::test]
async fn a_volume_of_a_driver_goes_from_host_to_host_with_its_pods() {
    if !testing::has_namespaces() || !testing::has("nsenter") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return testing::skip("mounts", "only root mounts as storage drivers do");
    }
    let cluster = Cluster::with(HOSTS.len(), "netns").await;
    let client = cluster.client().await.unwrap();
    let backing = cluster.dir().canonicalize().unwrap().join("backing");
    let plugins = HOSTS.map(|host| {
        let process = cluster.pid_of_host(host).unwrap();
        std::sync::Arc::new(Plugin { host, process, backing: backing.clone() })
    });
    for plugin in &plugins {
        let plugin = plugin.clone();
        let registry = cluster.folder().join(plugin.host).join("data/node/plugins_registry");
        std::fs::create_dir_all(&registry).unwrap();
        serve(&registry.join("disks.sock"), move |path, question| {
            let plugin = plugin.clone();
            async move { plugin.answer(&path, question) }
        });
    }
    let new = PostParams::default();
    let drivers = Api::<CSIDriver>::all(client.clone());
    let driver = object(json!({"metadata": {"name": DRIVER}, "spec": {"attachRequired": true}}));
    drivers.create(&new, &driver).await.unwrap();
    let nodes = Api::<CSINode>::all(client.clone());
    wait_for("the driver on all hosts", async || {
        let all = nodes.list(&ListParams::default()).await.ok()?;
        let has = |node: &&CSINode| node.spec.drivers.iter().any(|driver| driver.node_id == node.name_any());
        (all.iter().filter(has).count() == HOSTS.len()).then_some(())
    })
    .await;
    let volume = object(json!({"metadata": {"name": "disk"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "csi": {"driver": DRIVER, "volumeHandle": "disk-1"}}}));
    Api::<PersistentVolume>::all(client.clone()).create(&new, &volume).await.unwrap();
    let claim = object(json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "", "volumeName": "disk", "resources": {"requests": {"storage": "1Gi"}}}}));
    let claims = Api::<PersistentVolumeClaim>::default_namespaced(client.clone());
    claims.create(&new, &claim).await.unwrap();

    let pods = Api::<Pod>::default_namespaced(client.clone());
    let one = pod("one", "echo written > /data/one; exec sleep 1000", json!({}));
    pods.create(&new, &one).await.unwrap();
    let first = attach(&client, |_| true).await;
    let wrote = async |file: &str| {
        let path = backing.join("disk-1").join(file);
        wait_for(file, async || (std::fs::read_to_string(&path).ok()? == "written\n").then_some(())).await;
    };
    wrote("one").await;

    // The next pod is another host's: it waits until the first one has let the volume go.
    let other = HOSTS.into_iter().find(|host| *host != first).unwrap();
    let selector = json!({"nodeSelector": {"kubernetes.io/hostname": other}});
    pods.create(&new, &pod("two", "cat /data/one > /data/two; exec sleep 1000", selector)).await.unwrap();
    pods.delete("one", &DeleteParams::default()).await.unwrap();
    assert_eq!(attach(&client, |host| host == other).await, other);
    let mounted = |host: &str| plugins.iter().any(|plugin| plugin.host == host && plugin.has_mounted());
    assert!(!mounted(&first), "it was detached from {first}, where it is still mounted");
    wrote("two").await;
    assert!(mounted(other));

    pods.delete("two", &DeleteParams::default()).await.unwrap();
    let attachments = Api::<VolumeAttachment>::all(client.clone());
    wait_for("the volume's last detachment", async || {
        attachments.list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())
    })
    .await;
    assert!(!plugins.iter().any(|plugin| plugin.has_mounted()), "it is detached, and still mounted");
    assert!(backing.join("disk-1/two").exists(), "what the pods wrote stays");
}
