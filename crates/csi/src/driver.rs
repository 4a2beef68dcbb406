//! A driver's node service: what a host asks of it, and what it answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::call::{Failure, call};
use crate::messages::{
    AccessMode, Capability, CapacityRange, Done, Mode, MountVolume, NodeExpandVolumeRequest,
    NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest,
    NodeGetInfoResponse, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, Texts, VolumeCapability,
};

/// How long a driver may take for one call (`csiTimeout` of `pkg/volume/csi`).
const PATIENCE: Duration = Duration::from_secs(2 * 60);

/// A driver that listens at a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    socket: PathBuf,
}

/// What a driver says of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// How it calls this node.
    pub id: String,
    /// How many volumes it can have here; 0 or less: it doesn't say.
    pub max_volumes: i64,
    /// Where the node is, for the volumes that can be reached from there; nothing if it doesn't care.
    pub topology: Option<Texts>,
}

/// What a driver can do beside the least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// A volume is staged once for the node before it is published for each pod.
    pub stages: bool,
    /// It makes a file system that is in use larger.
    pub expands: bool,
    /// It tells a volume of one node from one of one pod.
    pub tells_writers: bool,
    /// It gives volumes to a pod's group by itself.
    pub gives_to_group: bool,
}

/// What is the same for staging and publishing a volume.
#[derive(Clone, Default, PartialEq)]
pub struct Stage {
    /// The driver's name of the volume.
    pub volume: String,
    /// What its controller said when it attached it.
    pub publish_context: Texts,
    /// What the volume's object says for the driver.
    pub volume_context: Texts,
    /// What the driver needs to know and nobody else.
    pub secrets: Texts,
    /// Where it is to be staged; nothing for a driver that doesn't.
    pub staged_at: Option<PathBuf>,
    /// The file system; empty for the driver's own choice.
    pub fs_type: String,
    /// Options of the mount.
    pub mount_options: Vec<String>,
    /// The pod's group, where the driver gives volumes to groups.
    pub group: Option<u32>,
    /// An access mode of the API, such as `ReadWriteOnce`.
    pub access_mode: String,
}

/// How a volume is published for a pod.
#[derive(Clone, Default, PartialEq)]
pub struct Publish {
    /// The volume.
    pub stage: Stage,
    /// Where the pod's mount is to be.
    pub target: PathBuf,
    /// Whether the pod only reads.
    pub read_only: bool,
}

impl Driver {
    /// The driver at a socket.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Driver { socket: socket.into() }
    }

    async fn ask<A: prost::Message + Default>(
        &self,
        method: &str,
        question: &impl prost::Message,
    ) -> Result<A, Failure> {
        call(&self.socket, &format!("/csi.v1.Node/{method}"), question, PATIENCE).await
    }

    /// What it says of this node.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn node_info(&self) -> Result<NodeInfo, Failure> {
        let answer: NodeGetInfoResponse = self.ask("NodeGetInfo", &NodeGetInfoRequest {}).await?;
        let topology = answer.accessible_topology.map(|topology| topology.segments);
        Ok(NodeInfo { id: answer.node_id, max_volumes: answer.max_volumes_per_node, topology })
    }

    /// What it can do.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn capabilities(&self) -> Result<Capabilities, Failure> {
        let asked = self.ask("NodeGetCapabilities", &NodeGetCapabilitiesRequest {}).await;
        let answer: NodeGetCapabilitiesResponse = asked?;
        let can = |wanted: Capability| {
            let mut types = answer.capabilities.iter().filter_map(|each| each.rpc.as_ref());
            types.any(|rpc| rpc.r#type == wanted as i32)
        };
        Ok(Capabilities {
            stages: can(Capability::StageUnstageVolume),
            expands: can(Capability::ExpandVolume),
            tells_writers: can(Capability::SingleNodeMultiWriter),
            gives_to_group: can(Capability::VolumeMountGroup),
        })
    }

    /// Makes a volume ready for all pods of the node, at `staged_at`.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn stage(&self, stage: &Stage, can: Capabilities) -> Result<(), Failure> {
        let question = NodeStageVolumeRequest {
            volume_id: stage.volume.clone(),
            publish_context: stage.publish_context.clone(),
            staging_target_path: stage.staged_at.as_deref().map(text).unwrap_or_default(),
            volume_capability: Some(capability(stage, can)),
            secrets: stage.secrets.clone(),
            volume_context: stage.volume_context.clone(),
        };
        self.ask::<Done>("NodeStageVolume", &question).await.map(drop)
    }

    /// The other way round.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn unstage(&self, volume: &str, staged_at: &Path) -> Result<(), Failure> {
        let question =
            NodeUnstageVolumeRequest { volume_id: volume.into(), staging_target_path: text(staged_at) };
        self.ask::<Done>("NodeUnstageVolume", &question).await.map(drop)
    }

    /// Mounts a volume for a pod.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn publish(&self, publish: &Publish, can: Capabilities) -> Result<(), Failure> {
        let stage = &publish.stage;
        let question = NodePublishVolumeRequest {
            volume_id: stage.volume.clone(),
            publish_context: stage.publish_context.clone(),
            staging_target_path: stage.staged_at.as_deref().map(text).unwrap_or_default(),
            target_path: text(&publish.target),
            volume_capability: Some(capability(stage, can)),
            readonly: publish.read_only,
            secrets: stage.secrets.clone(),
            volume_context: stage.volume_context.clone(),
        };
        self.ask::<Done>("NodePublishVolume", &question).await.map(drop)
    }

    /// The other way round.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn unpublish(&self, volume: &str, target: &Path) -> Result<(), Failure> {
        let question = NodeUnpublishVolumeRequest { volume_id: volume.into(), target_path: text(target) };
        self.ask::<Done>("NodeUnpublishVolume", &question).await.map(drop)
    }

    /// Has the file system of a published volume grow to at least so many bytes; its size afterwards, 0 if the driver doesn't say.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn expand(&self, publish: &Publish, bytes: i64, can: Capabilities) -> Result<i64, Failure> {
        let stage = &publish.stage;
        let question = NodeExpandVolumeRequest {
            volume_id: stage.volume.clone(),
            volume_path: text(&publish.target),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            staging_target_path: stage.staged_at.as_deref().map(text).unwrap_or_default(),
            volume_capability: Some(capability(stage, can)),
            secrets: stage.secrets.clone(),
        };
        let answer: NodeExpandVolumeResponse = self.ask("NodeExpandVolume", &question).await?;
        Ok(answer.capacity_bytes)
    }
}

/// Paths of a host are UTF-8 as far as its data folder's is: protobuf has no other texts.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn capability(stage: &Stage, can: Capabilities) -> VolumeCapability {
    VolumeCapability {
        mount: Some(MountVolume {
            fs_type: stage.fs_type.clone(),
            mount_flags: stage.mount_options.clone(),
            volume_mount_group: stage.group.map(|group| group.to_string()).unwrap_or_default(),
        }),
        access_mode: Some(AccessMode { mode: mode(&stage.access_mode, can) as i32 }),
    }
}

/// An access mode of the API in the driver's words (`asCSIAccessModeV1` of `pkg/volume/csi`).
fn mode(api: &str, can: Capabilities) -> Mode {
    match (api, can.tells_writers) {
        ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
        ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
        ("ReadWriteOnce" | "ReadWriteOncePod", false) => Mode::SingleNodeWriter,
        ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
        ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
        _ => Mode::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_modes_are_said_as_finely_as_the_driver_knows_them() {
        let old = Capabilities::default();
        let new = Capabilities { tells_writers: true, ..old };
        assert_eq!(mode("ReadWriteOnce", old), Mode::SingleNodeWriter);
        assert_eq!(mode("ReadWriteOnce", new), Mode::SingleNodeMultiWriter);
        assert_eq!(mode("ReadWriteOncePod", old), Mode::SingleNodeWriter);
        assert_eq!(mode("ReadWriteOncePod", new), Mode::SingleNodeSingleWriter);
        assert_eq!(mode("ReadOnlyMany", new), Mode::MultiNodeReaderOnly);
        assert_eq!(mode("ReadWriteMany", old), Mode::MultiNodeMultiWriter);
    }
}
