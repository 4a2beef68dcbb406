//! The volumes that claims stand for: folders of this host, its own or such as an administrator named, and what CSI drivers mount.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, Volume,
};
use objects::{Reader, ephemeral_claim, is_local_path, selects_node};

use super::identity::volume_group;
use super::ownership::give_to_group;
use super::volumes::{host_path, io_error};
use super::{Missing, Sources};

/// Where a claim's volume lies.
pub(super) struct ClaimedFolder {
    pub path: PathBuf,
    kind: FolderKind,
    claim: PersistentVolumeClaim,
    volume: PersistentVolume,
}

/// How a volume came to its folder.
enum FolderKind {
    /// It was made for the claim, in the host's folder for volumes.
    Made,
    /// An administrator said that it is there.
    Local,
    /// As a pod's own `hostPath`.
    HostPath(HostPathVolumeSource),
    /// A driver mounts it in the pod's own folder for volumes: the path is one in that folder.
    Csi,
}

/// A claim whose volume is a CSI driver's, and that volume, if one of a pod's volumes stands for such.
///
/// # Errors
/// [`Missing`] as for any claim, and if the pod may not begin to use it.
pub(crate) fn csi_claim(
    volume: &Volume,
    sources: Sources<'_>,
) -> Result<Option<(PersistentVolumeClaim, PersistentVolume)>, Missing> {
    let claimed = claimed_folder(volume, sources)?.filter(|claimed| matches!(claimed.kind, FolderKind::Csi));
    let Some(claimed) = claimed else { return Ok(None) };
    claimed.may_begin(sources)?;
    Ok(Some((claimed.claim, claimed.volume)))
}

/// Where a CSI driver mounts a volume, in the pod's folder for volumes; as the kubelet has it.
pub(crate) fn csi_mount(name: &str) -> PathBuf {
    Path::new(CSI_VOLUMES).join(name).join("mount")
}

/// The folder of the CSI drivers' volumes in a pod's folder for volumes. No volume of another kind has such a name.
pub(crate) const CSI_VOLUMES: &str = "kubernetes.io~csi";

/// The folder of the claim that one of a pod's volumes stands for, if it stands for one.
///
/// # Errors
/// [`Missing`] if the claim has no volume, the name is that of another pod's claim, or the volume is of a kind that isn't mounted
/// here.
pub(super) fn claimed_folder(
    volume: &Volume,
    sources: Sources<'_>,
) -> Result<Option<ClaimedFolder>, Missing> {
    let pod = sources.pod.metadata.name.as_deref().unwrap_or_default();
    let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => source.claim_name.clone(),
        (None, Some(_)) => ephemeral_claim(pod, &volume.name),
        (None, None) => return Ok(None),
    };
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    let claim = Reader::<PersistentVolumeClaim>::get(sources.state, namespace, &name)
        .ok_or_else(|| Missing(format!("persistentvolumeclaim {name:?} not found")))?;
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if volume.ephemeral.is_some()
        && !owners.any(|owner| Some(&owner.uid) == sources.pod.metadata.uid.as_ref())
    {
        return Err(Missing(format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod}")));
    }
    bound_folder(claim, sources).map(Some)
}

fn bound_folder(claim: PersistentVolumeClaim, sources: Sources<'_>) -> Result<ClaimedFolder, Missing> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (of(&claim.metadata.namespace), of(&claim.metadata.name));
    let (state, volumes) = (sources.state, sources.volumes);
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume =
        claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|_| phase == Some("Bound"));
    let volume =
        volume.ok_or_else(|| Missing(format!("claim {namespace}/{name} is not bound to a volume")))?;
    let volume = Reader::<PersistentVolume>::get(state, "", volume)
        .ok_or_else(|| Missing(format!("persistentvolume {volume:?} not found")))?;
    let called = volume.metadata.name.as_deref().unwrap_or_default();
    let spec = volume.spec.as_ref();
    let its_claim = spec.and_then(|spec| spec.claim_ref.as_ref()).and_then(|claim| claim.uid.as_ref());
    if its_claim != claim.metadata.uid.as_ref() {
        return Err(Missing(format!("volume {called:?} is bound to another claim than {namespace}/{name}")));
    }
    let local = spec.and_then(|spec| spec.local.as_ref());
    let host_path = spec.and_then(|spec| spec.host_path.clone());
    let (path, kind) = match (local, host_path) {
        (Some(local), _) if is_local_path(&volume.metadata) => {
            let path = PathBuf::from(&local.path);
            if path != volumes.join(called) {
                let why =
                    format!("volume {called:?} is {}, and not in this host's folder for volumes", local.path);
                return Err(Missing(why));
            }
            (path, FolderKind::Made)
        }
        (Some(local), _) => (PathBuf::from(&local.path), FolderKind::Local),
        (None, Some(source)) => (PathBuf::from(&source.path), FolderKind::HostPath(source)),
        (None, None) if spec.is_some_and(|spec| spec.csi.is_some()) => {
            if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
                let why =
                    format!("volume {called:?} has volumeMode Block: this version gives pods no devices");
                return Err(Missing(why));
            }
            (csi_mount(called), FolderKind::Csi)
        }
        (None, None) => {
            return Err(Missing(format!(
                "volume {called:?} is of a kind that isn't mounted here: a claim's volume must be local, hostPath or csi"
            )));
        }
    };
    Ok(ClaimedFolder { path, kind, claim, volume })
}

impl ClaimedFolder {
    /// Whether a pod may begin to use it. One that has begun goes on whatever happens to the claim and to its node's labels, also
    /// with new lives of its containers: as the kubelet has it, which looks at both when it mounts.
    fn may_begin(&self, sources: Sources<'_>) -> Result<(), Missing> {
        if self.claim.metadata.deletion_timestamp.is_some() {
            return Err(Missing("PVC is being deleted".into()));
        }
        let affinity = self.volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return Ok(()) };
        // A pod that names its node passes the scheduler by.
        let name = sources.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let node = Reader::<Node>::get(sources.state, "", name);
        let labels = node.as_ref().and_then(|node| node.metadata.labels.as_ref());
        if !selects_node(required, name, labels) {
            return Err(Missing(format!(
                "volume {:?} is not on this node: no matching NodeSelectorTerms",
                self.volume.metadata.name.as_deref().unwrap_or_default()
            )));
        }
        Ok(())
    }

    /// Makes what has to be made, and gives it to the pod's group.
    ///
    /// # Errors
    /// [`Missing`] if the pod may not have it, or it can't be made, or isn't there.
    pub fn make(&self, sources: Sources<'_>, is_writable: bool) -> Result<(), Missing> {
        self.may_begin(sources)?;
        let pod = sources.pod;
        match &self.kind {
            FolderKind::Made => make_folder(&self.path).map_err(io_error(&self.path))?,
            FolderKind::Local if self.path.is_dir() => {}
            FolderKind::Local => {
                return Err(Missing(format!("path {:?} does not exist", self.path.display().to_string())));
            }
            // It is the host's: no pod's group gets it.
            FolderKind::HostPath(source) => return host_path(source),
            // It was mounted before, and given to the pod's group as far as its driver wants that.
            FolderKind::Csi => return Ok(()),
        }
        let Some(group) = volume_group(pod).filter(|_| is_writable) else { return Ok(()) };
        let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
        give_to_group(&self.path, group, policy == Some("OnRootMismatch")).map_err(io_error(&self.path))
    }
}

/// Makes the folder of a volume, open to all: which users its pods have isn't known. Later it stays as its pods leave it, so it
/// gets its name only when it is as it should be.
fn make_folder(path: &Path) -> io::Result<()> {
    // Several pods may begin with one claim at the same time, and a folder that is renamed replaces an empty one.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if path.is_dir() {
        return Ok(());
    }
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(above)?;
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    let unfinished = above.join(unfinished);
    match fs::create_dir(&unfinished) {
        // A former life of this host came no further.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o777))?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use k8s_openapi::api::core::v1::Pod;
    use objects::LOCAL_PATH;
    use serde_json::{Value, json};
    use store::{Memory, Store, Txn};

    use super::*;
    use crate::pods::PodTokens;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// The node `n1`, a pod on it, its claim, and the claim's volume: a folder of that node.
    struct Bench {
        store: Memory,
        volumes: tempfile::TempDir,
        pod: Value,
        claim: Value,
        volume: Value,
    }

    impl Bench {
        fn new() -> Bench {
            let volumes = tempfile::tempdir().unwrap();
            let on_host = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]});
            Bench {
                store: Memory::default(),
                pod: json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"nodeName": "n1",
                    "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
                claim: json!({"metadata": {"name": "data", "namespace": "d", "uid": "c"},
                    "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
                volume: json!({
                    "metadata": {"name": "pv", "annotations": {"pv.kubernetes.io/provisioned-by": LOCAL_PATH}},
                    "spec": {"local": {"path": volumes.path().join("pv")}, "claimRef": {"uid": "c"},
                        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_host]}]}}}}),
                volumes,
            }
        }

        /// What the pod hears that begins with its volume, and what it hears that has begun long ago.
        async fn told(&self) -> [Option<String>; 2] {
            let node = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}});
            for (plural, namespace, object) in [
                ("nodes", "", &node),
                ("persistentvolumeclaims", "d", &self.claim),
                ("persistentvolumes", "", &self.volume),
            ] {
                let key = objects::key("", plural, namespace, object["metadata"]["name"].as_str().unwrap());
                self.store.txn(Txn::put(key, object.to_string())).await.unwrap();
            }
            let pod: Pod = serde_json::from_value(self.pod.clone()).unwrap();
            let sources = Sources {
                state: &self.store.snapshot(),
                pod: &pod,
                pod_address: LOCALHOST,
                host_address: LOCALHOST,
                capacity: (1000, 1),
                volumes: self.volumes.path(),
                tokens: &PodTokens::new(),
            };
            let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
            let found = claimed_folder(volume, sources).map(Option::unwrap);
            let begun = found.as_ref().map_or_else(
                |why| Err(why.to_string()),
                |found| found.make(sources, true).map_err(|why| why.to_string()),
            );
            [begun.err(), found.err().map(|why| why.to_string())]
        }
    }

    #[tokio::test]
    async fn a_folder_is_made_for_its_claim_and_is_open_to_all() {
        let bench = Bench::new();
        // A former life of the host came no further.
        fs::create_dir(bench.volumes.path().join(".pv")).unwrap();
        assert_eq!(bench.told().await, [None, None]);
        let folder = bench.volumes.path().join("pv");
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o777);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.join("kept"), "").unwrap();
        assert_eq!(bench.told().await, [None, None]);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "it stays as it is");
        assert!(folder.join("kept").exists());
        assert_eq!(fs::read_dir(bench.volumes.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn no_pod_begins_with_a_volume_of_another_host_or_a_claim_that_goes() {
        let mut bench = Bench::new();
        let values = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values";
        *bench.volume.pointer_mut(values).unwrap() = json!(["n2"]);
        let [begins, has_begun] = bench.told().await;
        assert!(begins.unwrap().ends_with("no matching NodeSelectorTerms"));
        assert_eq!(has_begun, None);
        assert!(!bench.volumes.path().join("pv").exists(), "nothing was made");

        let mut bench = Bench::new();
        bench.claim["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        assert_eq!(bench.told().await, [Some("PVC is being deleted".to_owned()), None]);
        assert!(!bench.volumes.path().join("pv").exists(), "nothing was made");
    }

    #[tokio::test]
    async fn a_volume_made_for_a_claim_lies_in_the_hosts_folder_and_nowhere_else() {
        let mut bench = Bench::new();
        let elsewhere = tempfile::tempdir().unwrap();
        for path in [elsewhere.path().join("pv"), bench.volumes.path().join("../pv"), "/etc".into()] {
            bench.volume["spec"]["local"]["path"] = json!(path);
            let [begins, has_begun] = bench.told().await;
            assert!(begins.is_some_and(|why| why.contains("not in this host's folder")), "{path:?}");
            assert!(has_begun.is_some(), "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_volume_of_a_kind_that_no_host_mounts_is_refused_with_the_reason() {
        for source in
            [json!({"nfs": {"server": "files", "path": "/"}}), json!({"fc": {"lun": 1, "targetWWNs": ["w"]}})]
        {
            let mut bench = Bench::new();
            bench.volume["metadata"]["annotations"] = json!(null);
            bench.volume["spec"].as_object_mut().unwrap().remove("local");
            bench.volume["spec"].as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            let why = "volume \"pv\" is of a kind that isn't mounted here: a claim's volume must be local, hostPath or csi";
            let refused = Some(why.to_owned());
            assert_eq!(bench.told().await, [refused.clone(), refused], "{source}");
        }
    }

    #[tokio::test]
    async fn what_a_driver_mounts_lies_in_the_pods_own_folder() {
        let mut bench = Bench::new();
        bench.volume["metadata"]["annotations"] = json!(null);
        bench.volume["spec"].as_object_mut().unwrap().remove("local");
        bench.volume["spec"]["csi"] = json!({"driver": "disks.example.org", "volumeHandle": "1"});
        assert_eq!(bench.told().await, [None, None]);
        let of_pod = Path::new("/data/pods/u/volumes").join(csi_mount("pv"));
        assert_eq!(of_pod, Path::new("/data/pods/u/volumes/kubernetes.io~csi/pv/mount"));

        bench.volume["spec"]["volumeMode"] = json!("Block");
        let [begins, has_begun] = bench.told().await;
        assert!(begins.unwrap().contains("volumeMode Block") && has_begun.is_some());
    }

    #[tokio::test]
    async fn a_pods_own_volume_is_no_other_pods_claim() {
        let mut bench = Bench::new();
        bench.pod["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {}}]);
        bench.claim["metadata"]["name"] = json!("p-v");
        let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}]);
        bench.claim["metadata"]["ownerReferences"] = owner("former");
        assert_eq!(bench.told().await[0].as_deref(), Some("PVC d/p-v was not created for pod d/p"));
        bench.claim["metadata"]["ownerReferences"] = owner("u");
        assert_eq!(bench.told().await, [None, None]);
    }
}
