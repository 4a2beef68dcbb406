//! What a pod's volumes ask of drivers, read from the objects: the pod, its claims, their volumes, and what drivers say of themselves.

use std::collections::BTreeMap;

use csi::messages::Texts;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod,
    SecretReference, Volume,
};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use objects::Reader;

use super::book::{VolumeId, digest};
use crate::container::{Missing, Sources, csi_claim, volume_group};
use crate::pod::uid;

/// The API's default of `expirationSeconds` of a driver's token.
const TOKEN_SECONDS: i64 = 3600;

/// A Secret: its namespace and its name.
pub(super) type SecretName = (String, String);

/// What one of a pod's volumes asks of its driver.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    /// The pod's name of it.
    pub volume: String,
    /// Its own name: the PersistentVolume's, or the pod's name of it if it is the pod's own.
    pub(super) name: String,
    pub(super) id: VolumeId,
    /// The VolumeAttachment that it waits for, if it has to be attached.
    pub(super) attachment: Option<String>,
    /// It lives and dies with its pod.
    pub(super) is_ephemeral: bool,
    pub(super) read_only: bool,
    pub(super) fs_type: String,
    pub(super) mount_options: Vec<String>,
    pub(super) access_modes: Vec<String>,
    pub(super) context: Texts,
    pub(super) stage_secret: Option<SecretName>,
    pub(super) publish_secret: Option<SecretName>,
    pub(super) expand_secret: Option<SecretName>,
    /// The group that it is given to here, unless its driver does that.
    pub(super) group: Option<u32>,
    /// The pod's group, for a driver that gives volumes to groups.
    pub(super) group_for_driver: Option<u32>,
    /// Nothing is done to a volume whose root is the group's already.
    pub(super) on_mismatch: bool,
    /// What its driver hears about the pod.
    pub(super) about_pod: Texts,
    /// For whom its driver gets tokens of the pod's account, and for how many seconds.
    pub(super) tokens: Vec<(String, i64)>,
    pub(super) tokens_are_secret: bool,
    /// Its driver wants to publish it again from time to time.
    pub(super) is_republished: bool,
    /// The claim whose size its file system is to have: the claim's name, and the size if the claim doesn't say it yet.
    pub(super) grows: Option<(String, String)>,
}

/// What a pod's volumes ask of drivers.
///
/// # Errors
/// [`Missing`] if a claim isn't ready, or a driver doesn't do what is asked.
pub(crate) fn wishes(node: &str, sources: Sources<'_>) -> Result<Vec<Wish>, Missing> {
    let mut wishes = Vec::new();
    for volume in sources.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let wish = wish(node, volume, sources).map_err(|why| {
            Missing(format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name))
        })?;
        wishes.extend(wish);
    }
    Ok(wishes)
}

fn wish(node: &str, volume: &Volume, sources: Sources<'_>) -> Result<Option<Wish>, Missing> {
    if let Some(source) = &volume.csi {
        return of_pod(volume, source, sources).map(Some);
    }
    match csi_claim(volume, sources)? {
        Some((claim, found)) => of_claim(node, volume, &claim, &found, sources).map(Some),
        None => Ok(None),
    }
}

/// A volume that is the pod's own (`volumes[].csi`).
fn of_pod(volume: &Volume, source: &CSIVolumeSource, sources: Sources<'_>) -> Result<Wish, Missing> {
    let pod = sources.pod;
    let driver = driver(&source.driver, sources);
    lives(&source.driver, driver.as_ref(), "Ephemeral")?;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    // `makeVolumeHandle`.
    let handle = format!("csi-{}", digest(&format!("{}{}", uid(pod), volume.name)));
    let mut wish = Wish::new(volume, VolumeId { driver: source.driver.clone(), handle });
    wish.is_ephemeral = true;
    wish.read_only = source.read_only == Some(true);
    wish.fs_type = source.fs_type.clone().unwrap_or_default();
    wish.access_modes = vec!["ReadWriteOnce".into()];
    wish.context = source.volume_attributes.clone().unwrap_or_default();
    wish.publish_secret =
        source.node_publish_secret_ref.as_ref().map(|secret| (namespace, secret.name.clone()));
    wish.of_driver(driver, pod);
    Ok(wish)
}

/// A volume that a claim stands for.
fn of_claim(
    node: &str,
    volume: &Volume,
    claim: &PersistentVolumeClaim,
    found: &PersistentVolume,
    sources: Sources<'_>,
) -> Result<Wish, Missing> {
    let spec = found.spec.as_ref();
    let source: &CSIPersistentVolumeSource =
        spec.and_then(|spec| spec.csi.as_ref()).ok_or_else(|| Missing("its volume is no driver's".into()))?;
    let driver = driver(&source.driver, sources);
    lives(&source.driver, driver.as_ref(), "Persistent")?;
    let id = VolumeId { driver: source.driver.clone(), handle: source.volume_handle.clone() };
    let mut wish = Wish::new(volume, id);
    wish.name = found.metadata.name.clone().unwrap_or_default();
    // A driver that says nothing of itself attaches.
    let attaches = driver.as_ref().and_then(|driver| driver.attach_required) != Some(false);
    wish.attachment = attaches.then(|| wish.id.attachment(node));
    wish.read_only = volume.persistent_volume_claim.as_ref().and_then(|of| of.read_only) == Some(true);
    wish.fs_type = source.fs_type.clone().unwrap_or_default();
    wish.mount_options = spec.and_then(|spec| spec.mount_options.clone()).unwrap_or_default();
    wish.access_modes = spec.and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    wish.context = source.volume_attributes.clone().unwrap_or_default();
    wish.stage_secret = named(source.node_stage_secret_ref.as_ref());
    wish.publish_secret = named(source.node_publish_secret_ref.as_ref());
    wish.expand_secret = named(source.node_expand_secret_ref.as_ref());
    wish.of_driver(driver, sources.pod);
    let has = size(claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
    let wants = size(spec.and_then(|spec| spec.capacity.as_ref()));
    if let (Some(has), Some(wants)) = (has, wants)
        && bytes(&wants) > bytes(&has)
    {
        wish.grows = Some((claim.metadata.name.clone().unwrap_or_default(), wants));
    }
    Ok(wish)
}

fn size(sizes: Option<&BTreeMap<String, Quantity>>) -> Option<String> {
    sizes.and_then(|sizes| sizes.get("storage")).map(|size| size.0.clone())
}

/// A size in bytes.
pub(super) fn bytes(size: &str) -> Option<i64> {
    crate::container::in_units(size, "1").and_then(|bytes| i64::try_from(bytes).ok())
}

fn named(secret: Option<&SecretReference>) -> Option<SecretName> {
    secret
        .map(|secret| (secret.namespace.clone().unwrap_or_default(), secret.name.clone().unwrap_or_default()))
}

fn driver(name: &str, sources: Sources<'_>) -> Option<CSIDriverSpec> {
    Reader::<CSIDriver>::get(sources.state, "", name).map(|driver| driver.spec)
}

/// Whether a driver has volumes that live like this one (`supportsVolumeLifecycleMode`).
fn lives(name: &str, driver: Option<&CSIDriverSpec>, mode: &str) -> Result<(), Missing> {
    let modes = driver.and_then(|driver| driver.volume_lifecycle_modes.clone()).unwrap_or_default();
    let modes = if modes.is_empty() { vec!["Persistent".to_owned()] } else { modes };
    if modes.iter().any(|known| known == mode) {
        return Ok(());
    }
    let only = match driver {
        Some(_) => format!("only supports {modes:?}"),
        None => "no CSIDriver object".into(),
    };
    Err(Missing(format!("volume mode {mode:?} not supported by driver {name} ({only})")))
}

impl Wish {
    fn new(volume: &Volume, id: VolumeId) -> Self {
        Wish {
            volume: volume.name.clone(),
            name: volume.name.clone(),
            id,
            attachment: None,
            is_ephemeral: false,
            read_only: false,
            fs_type: String::new(),
            mount_options: Vec::new(),
            access_modes: Vec::new(),
            context: Texts::new(),
            stage_secret: None,
            publish_secret: None,
            expand_secret: None,
            group: None,
            group_for_driver: None,
            on_mismatch: false,
            about_pod: Texts::new(),
            tokens: Vec::new(),
            tokens_are_secret: false,
            is_republished: false,
            grows: None,
        }
    }

    /// Takes in what the driver says of itself.
    fn of_driver(&mut self, driver: Option<CSIDriverSpec>, pod: &Pod) {
        let driver = driver.unwrap_or_default();
        if driver.pod_info_on_mount == Some(true) {
            self.about_pod = about(pod, self.is_ephemeral);
        }
        let tokens = driver.token_requests.into_iter().flatten();
        self.tokens =
            tokens.map(|of| (of.audience, of.expiration_seconds.unwrap_or(TOKEN_SECONDS))).collect();
        self.tokens_are_secret = driver.service_account_token_in_secrets == Some(true);
        self.is_republished = driver.requires_republish == Some(true);
        self.group_for_driver = volume_group(pod);
        self.group = volume_group(pod).filter(|_| self.is_given(driver.fs_group_policy.as_deref()));
        let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let policy = security.and_then(|security| security.fs_group_change_policy.as_deref());
        self.on_mismatch = policy == Some("OnRootMismatch");
    }

    /// Whether the volume is given to the pod's group (`supportsFSGroup`).
    fn is_given(&self, policy: Option<&str>) -> bool {
        match policy {
            _ if self.read_only => false,
            Some("None") => false,
            Some("File") => true,
            // ReadWriteOnceWithFSType: of a volume that several hosts may write at once nobody knows whose it is.
            _ => {
                let is_of_one = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
                !self.fs_type.is_empty() && self.access_modes.iter().any(is_of_one)
            }
        }
    }
}

/// What a driver hears about a pod (`getPodInfoAttrs`).
fn about(pod: &Pod, is_ephemeral: bool) -> Texts {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    [
        ("pod.name", pod.metadata.name.clone()),
        ("pod.namespace", pod.metadata.namespace.clone()),
        ("pod.uid", pod.metadata.uid.clone()),
        ("serviceAccount.name", account),
        ("ephemeral", Some(is_ephemeral.to_string())),
    ]
    .map(|(name, value)| (format!("csi.storage.k8s.io/{name}"), value.unwrap_or_default()))
    .into()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;

    use serde_json::{Value, json};
    use store::{Memory, Store, Txn};

    use super::*;
    use crate::pods::PodTokens;

    /// What a pod with one volume asks, given what a driver says of itself.
    async fn asked(volume: Value, driver: Option<Value>, persistent: Value) -> Result<Wish, String> {
        let store = Memory::default();
        let mut objects = vec![(
            objects::key("", "persistentvolumeclaims", "d", "data"),
            json!({"metadata": {"name": "data", "namespace": "d", "uid": "c"}, "spec": {"volumeName": "pv"},
                "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}),
        )];
        objects.push((objects::key("", "persistentvolumes", "", "pv"), persistent));
        if let Some(spec) = driver {
            let key = objects::key("storage.k8s.io", "csidrivers", "", "d.example.org");
            objects.push((key, json!({"metadata": {"name": "d.example.org"}, "spec": spec})));
        }
        for (key, object) in objects {
            store.txn(Txn::put(key, object.to_string())).await.unwrap();
        }
        let mut volume = volume;
        volume["name"] = "v".into();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"nodeName": "n1", "serviceAccountName": "a", "containers": [], "volumes": [volume],
                "securityContext": {"fsGroup": 7, "fsGroupChangePolicy": "OnRootMismatch"}},
        }))
        .unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let sources = Sources {
            state: &store.snapshot(),
            pod: &pod,
            pod_address: address,
            host_address: address,
            capacity: (1000, 1),
            volumes: Path::new("/volumes"),
            tokens: &PodTokens::new(),
        };
        wishes("n1", sources).map(|mut all| all.remove(0)).map_err(|why| why.to_string())
    }

    fn persistent(modes: Value, source: Value) -> Value {
        let mut csi = json!({"driver": "d.example.org", "volumeHandle": "h"});
        csi.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": "c"}, "accessModes": modes, "csi": csi,
            "mountOptions": ["noatime"], "capacity": {"storage": "2Gi"}}})
    }

    fn claim() -> Value {
        json!({"persistentVolumeClaim": {"claimName": "data"}})
    }

    #[tokio::test]
    async fn a_claims_volume_is_asked_for_as_its_objects_say() {
        let secrets = json!({"fsType": "ext4", "volumeAttributes": {"a": "b"},
            "nodeStageSecretRef": {"namespace": "s", "name": "stage"},
            "nodePublishSecretRef": {"namespace": "s", "name": "publish"}});
        let wish = asked(claim(), None, persistent(json!(["ReadWriteOnce"]), secrets)).await.unwrap();
        assert_eq!((wish.name.as_str(), wish.volume.as_str()), ("pv", "v"));
        assert_eq!(wish.attachment, Some(wish.id.attachment("n1")), "a driver that says nothing attaches");
        assert_eq!((wish.fs_type.as_str(), wish.read_only, wish.is_ephemeral), ("ext4", false, false));
        assert_eq!(wish.mount_options, ["noatime"]);
        assert_eq!(wish.context["a"], "b");
        assert_eq!(wish.stage_secret, Some(("s".into(), "stage".into())));
        assert_eq!(wish.publish_secret, Some(("s".into(), "publish".into())));
        assert_eq!((wish.group, wish.on_mismatch), (Some(7), true));
        assert_eq!(wish.grows, Some(("data".into(), "2Gi".into())));
        assert!(wish.about_pod.is_empty());
    }

    #[tokio::test]
    async fn a_driver_says_what_it_wants() {
        let spec = json!({"attachRequired": false, "podInfoOnMount": true, "requiresRepublish": true,
            "fsGroupPolicy": "File", "tokenRequests": [{"audience": "vault"}, {"audience": "", "expirationSeconds": 900}]});
        let wish = asked(claim(), Some(spec), persistent(json!(["ReadWriteMany"]), json!({}))).await.unwrap();
        assert_eq!((wish.attachment, wish.is_republished, wish.group), (None, true, Some(7)));
        assert_eq!(wish.tokens, [("vault".to_owned(), 3600), (String::new(), 900)]);
        let about: Vec<&str> = wish.about_pod.values().map(String::as_str).collect();
        assert_eq!(about, ["false", "p", "d", "u", "a"]);
        for (policy, modes, group) in [
            ("None", "ReadWriteOnce", None),
            ("ReadWriteOnceWithFSType", "ReadWriteMany", None),
            ("File", "ReadWriteMany", Some(7)),
        ] {
            let persistent = persistent(json!([modes]), json!({"fsType": "ext4"}));
            let wish = asked(claim(), Some(json!({"fsGroupPolicy": policy})), persistent).await.unwrap();
            assert_eq!((wish.group, wish.group_for_driver), (group, Some(7)), "{policy}");
        }
    }

    #[tokio::test]
    async fn a_pods_own_volume_needs_a_driver_that_has_such() {
        let own = || {
            json!({"csi": {"driver": "d.example.org", "readOnly": true, "volumeAttributes": {"a": "b"},
            "nodePublishSecretRef": {"name": "s"}}})
        };
        let none = || persistent(json!([]), json!({}));
        let why = asked(own(), None, none()).await.unwrap_err();
        let begin = "MountVolume.SetUp failed for volume \"v\" : volume mode \"Ephemeral\" not supported by driver d.example.org";
        assert_eq!(why, format!("{begin} (no CSIDriver object)"));
        let why = asked(own(), Some(json!({})), none()).await.unwrap_err();
        assert_eq!(why, format!("{begin} (only supports [\"Persistent\"])"));
        let wish = asked(own(), Some(json!({"volumeLifecycleModes": ["Ephemeral"]})), none()).await.unwrap();
        // printf '%s' uv | sha256sum
        let handle = "csi-e6184ce10e266134fdcfa401e8f1a95005bcd4f18d16b62b757323e2833fe9a9";
        assert_eq!((wish.id.handle.as_str(), wish.name.as_str()), (handle, "v"));
        assert_eq!((wish.attachment, wish.is_ephemeral, wish.read_only), (None, true, true));
        assert_eq!(wish.publish_secret, Some(("d".into(), "s".into())));
    }
}
