//! Volumes as folders of the pod's own: `emptyDir`, `configMap`, `secret`, `downwardAPI`, `projected`; and
//! `hostPath` and what claims stand for where they lie.
//!
//! Files from objects are replaced all at once, as the kubelet does it: `..data` is a link to the folder that
//! holds them, and each file is a link through it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Volume};

use super::Sources;
use super::claims::{claimed_folder, csi_mount};
use super::environment::{Missing, config_map, field, resource, secret};
use super::identity::{users, volume_group};
use super::removal::remove_folder;
use crate::pods::kind;

/// Where a volume's content lies.
///
/// # Errors
/// [`Missing`], with which volume and why, if it is a claim's and the claim has none that is mounted here.
pub(crate) fn volume_path(
    pod_folder: &Path,
    volume: &Volume,
    sources: Sources<'_>,
) -> Result<PathBuf, Missing> {
    if let Some(host) = &volume.host_path {
        return Ok(PathBuf::from(&host.path));
    }
    match claimed_folder(volume, sources).map_err(|why| about(volume, &why))? {
        // An absolute path stays as it is.
        Some(claimed) => Ok(pod_folder.join("volumes").join(claimed.path)),
        None if volume.csi.is_some() => Ok(pod_folder.join("volumes").join(csi_mount(&volume.name))),
        None => Ok(pod_folder.join("volumes").join(&volume.name)),
    }
}

/// Whether a volume is in memory, if it may choose.
pub(crate) fn is_in_memory(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref() == Some("Memory"))
}

/// Whether a pod may write in a volume, as far as the volume itself says.
pub(crate) fn is_writable(volume: &Volume) -> bool {
    let claimed = volume.persistent_volume_claim.as_ref();
    volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.ephemeral.is_some()
        || volume.csi.as_ref().is_some_and(|source| source.read_only != Some(true))
        || claimed.is_some_and(|source| source.read_only != Some(true))
}

/// Makes every volume of the pod.
///
/// # Errors
/// [`Missing`], with which volume and why.
pub(crate) fn materialise(pod_folder: &Path, sources: Sources<'_>) -> Result<(), Missing> {
    let placed = |volume| Ok((volume, volume_path(pod_folder, volume, sources)?));
    let placed: Vec<_> = volumes(sources).map(placed).collect::<Result<_, Missing>>()?;
    // Claims come last: what is in one may be walked through as a whole, and this is tried again as long as anything is missing.
    let (claimed, others): (Vec<_>, Vec<_>) = placed.into_iter().partition(|(volume, _)| is_claimed(volume));
    for (volume, path) in others.into_iter().chain(claimed) {
        make(volume, &path, sources).map_err(|why| about(volume, &why))?;
    }
    Ok(())
}

/// Brings files from objects up to date.
///
/// # Errors
/// [`Missing`], with which volume and why; what was there stays.
pub(crate) fn refresh(pod_folder: &Path, sources: Sources<'_>) -> Result<(), Missing> {
    let is_of_objects = |volume: &&Volume| {
        volume.empty_dir.is_none()
            && volume.host_path.is_none()
            && volume.image.is_none()
            && volume.csi.is_none()
            && !is_claimed(volume)
    };
    for volume in volumes(sources).filter(is_of_objects) {
        let path = volume_path(pod_folder, volume, sources)?;
        make(volume, &path, sources).map_err(|why| about(volume, &why))?;
    }
    Ok(())
}

fn is_claimed(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
}

fn volumes<'a>(sources: Sources<'a>) -> impl Iterator<Item = &'a Volume> {
    sources.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn about(volume: &Volume, why: &Missing) -> Missing {
    Missing(format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name))
}

pub(super) fn io_error(what: &Path) -> impl Fn(io::Error) -> Missing + '_ {
    move |error| Missing(format!("{}: {error}", what.display()))
}

/// The files of a volume.
type Files = BTreeMap<String, File>;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    bytes: Vec<u8>,
    mode: u32,
    /// The user and the group whose it is; where there is none, the agent's.
    owner: Option<u32>,
    group: Option<u32>,
}

impl File {
    fn new(bytes: Vec<u8>, mode: u32) -> Self {
        File { bytes, mode, owner: None, group: None }
    }

    /// A token of a pod: for the eyes of the pod's user alone, where all its containers have the same, or of its group
    /// (upstream: `FsUserFrom` and `fsGroup`). Where they have several and no group, as the volume says.
    fn token(token: &str, pod: &Pod, default_mode: u32) -> Self {
        let (users, group) = (users(pod), volume_group(pod));
        let bytes = token.as_bytes().to_vec();
        match (users.first(), group) {
            (Some(user), _) if users.len() == 1 => File { bytes, mode: 0o600, owner: *user, group: None },
            (_, Some(_)) => File { bytes, mode: 0o640, owner: None, group },
            _ => File::new(bytes, default_mode),
        }
    }

    /// Nobody else sees the file before it is as it should be.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&self.bytes)?;
        let me = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let owner = self.owner.filter(|owner| *owner != me.0);
        let group = self.group.filter(|group| *group != me.1);
        if owner.is_some() || group.is_some() {
            fchown(&file, owner, group)?;
        }
        file.set_permissions(fs::Permissions::from_mode(self.mode))
    }
}

fn make(volume: &Volume, path: &Path, sources: Sources<'_>) -> Result<(), Missing> {
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(host) = &volume.host_path {
        return host_path(host);
    }
    if volume.image.is_some() {
        // It is mounted where its containers are.
        return Ok(());
    }
    let group = volume_group(sources.pod);
    if let Some(source) = &volume.empty_dir {
        let medium = source.medium.as_deref().unwrap_or_default();
        if !matches!(medium, "" | "Memory") {
            return Err(Missing(format!(
                "emptyDir with medium {medium:?}: hosts have it on disk and in \"Memory\""
            )));
        }
        return empty_dir(path, group).map_err(io_error(path));
    }
    if let Some(claimed) = claimed_folder(volume, sources)? {
        return claimed.make(sources, is_writable(volume));
    }
    if volume.csi.is_some() {
        // Its driver mounted it before.
        return Ok(());
    }
    let mut files = Files::new();
    if let Some(from) = &volume.config_map {
        let data = config_map(sources.state, namespace, &from.name, from.optional)?;
        choose(&mut files, data, &from.items, from.default_mode, from.optional)?;
    } else if let Some(from) = &volume.secret {
        let name = from.secret_name.as_deref().unwrap_or_default();
        let data = secret(sources.state, namespace, name, from.optional)?;
        choose(&mut files, data, &from.items, from.default_mode, from.optional)?;
    } else if let Some(from) = &volume.downward_api {
        downward(&mut files, &from.items, from.default_mode, sources)?;
    } else if let Some(from) = &volume.projected {
        for source in from.sources.iter().flatten() {
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                let why = "this version projects no clusterTrustBundle and no podCertificate into volumes";
                return Err(Missing(why.into()));
            }
            if let Some(source) = &source.config_map {
                let data = config_map(sources.state, namespace, &source.name, source.optional)?;
                choose(&mut files, data, &source.items, from.default_mode, source.optional)?;
            }
            if let Some(source) = &source.secret {
                let data = secret(sources.state, namespace, &source.name, source.optional)?;
                choose(&mut files, data, &source.items, from.default_mode, source.optional)?;
            }
            if let Some(source) = &source.downward_api {
                downward(&mut files, &source.items, from.default_mode, sources)?;
            }
            if let Some(source) = &source.service_account_token {
                let token = sources.tokens.get(&kind(source));
                let token = token.ok_or_else(|| Missing("there is no token of the pod's account".into()))?;
                let file = File::token(token, sources.pod, mode(from.default_mode));
                files.insert(source.path.clone(), file);
            }
        }
    } else {
        return Err(Missing(
            "this version has volumes of the kinds emptyDir, hostPath, configMap, secret, downwardAPI, projected, \
             persistentVolumeClaim, ephemeral, image and csi"
                .into(),
        ));
    }
    for file in files.values_mut().filter(|file| file.group.is_none() && file.owner.is_none()) {
        if group.is_some() {
            // As upstream's SetVolumeOwnership for a volume that is only read.
            (file.group, file.mode) = (group, file.mode | 0o440);
        }
    }
    replace(path, &files).map_err(io_error(path))
}

/// With `fsGroup` the folder is that group's, and what is made in it too (upstream's `SetVolumeOwnership`).
fn empty_dir(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group)?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o777
}

fn choose(
    files: &mut Files,
    mut data: BTreeMap<String, Vec<u8>>,
    items: &Option<Vec<KeyToPath>>,
    default_mode: Option<i32>,
    optional: Option<bool>,
) -> Result<(), Missing> {
    let Some(items) = items.as_ref().filter(|items| !items.is_empty()) else {
        files.extend(data.into_iter().map(|(key, bytes)| (key, File::new(bytes, mode(default_mode)))));
        return Ok(());
    };
    for item in items {
        match data.remove(&item.key) {
            Some(bytes) => {
                files.insert(item.path.clone(), File::new(bytes, mode(item.mode.or(default_mode))));
            }
            None if optional == Some(true) => {}
            None => return Err(Missing(format!("references non-existent config key: {}", item.key))),
        }
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    items: &Option<Vec<DownwardAPIVolumeFile>>,
    default_mode: Option<i32>,
    sources: Sources<'_>,
) -> Result<(), Missing> {
    for item in items.iter().flatten() {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(select), _) => field(select, sources)?,
            (None, Some(select)) => {
                let first = sources.pod.spec.as_ref().and_then(|spec| spec.containers.first());
                let first = first.ok_or_else(|| Missing("the pod has no containers".into()))?;
                resource(first, select, sources)?
            }
            (None, None) => continue,
        };
        let mode = mode(item.mode.or(default_mode));
        files.insert(item.path.clone(), File::new(value.into_bytes(), mode));
    }
    Ok(())
}

pub(super) fn host_path(host: &HostPathVolumeSource) -> Result<(), Missing> {
    let path = Path::new(&host.path);
    let found = fs::metadata(path);
    let is = |right: bool, what: &str| {
        if right { Ok(()) } else { Err(Missing(format!("hostPath {} is not {what}", path.display()))) }
    };
    match host.type_.as_deref().unwrap_or_default() {
        "DirectoryOrCreate" if found.is_err() => fs::create_dir_all(path).map_err(io_error(path)),
        "FileOrCreate" if found.is_err() => fs::write(path, b"").map_err(io_error(path)),
        "Directory" | "DirectoryOrCreate" => is(found.is_ok_and(|m| m.is_dir()), "a directory"),
        "File" | "FileOrCreate" => is(found.is_ok_and(|m| m.is_file()), "a file"),
        _ => is(found.is_ok(), "there"),
    }
}

/// Replaces a volume's files all at once, unless they are the same.
fn replace(path: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let data = path.join("..data");
    let old = fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|old| is_same(&path.join(old), files)) {
        return Ok(());
    }
    let number = old.as_ref().and_then(|old| old.to_str()?.strip_prefix("..")?.parse::<u64>().ok());
    let name = format!("..{}", number.unwrap_or(0) + 1);
    let folder = path.join(&name);
    remove_folder(&folder)?;
    fs::DirBuilder::new().mode(0o755).create(&folder)?;
    for (file, content) in files {
        let relative = Path::new(file);
        if !relative.components().all(|part| matches!(part, Component::Normal(_))) || file.starts_with("..") {
            return Err(io::Error::other(format!("{file:?} is not a path within the volume")));
        }
        let target = folder.join(relative);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        content.write(&target)?;
    }
    let next = path.join("..data_next");
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    let shown: Vec<&str> = files.keys().filter_map(|file| file.split('/').next()).collect();
    for first in &shown {
        let link = path.join(first);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(first), &link)?;
        }
    }
    for entry in fs::read_dir(path)?.flatten() {
        let name = entry.file_name();
        let kept = name.to_str().is_some_and(|name| name.starts_with("..") || shown.contains(&name));
        // What is no link is a mount point that another volume needed here.
        if !kept && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        remove_folder(&path.join(old))?;
    }
    Ok(())
}

fn is_same(folder: &Path, files: &Files) -> bool {
    fn count(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
    }
    count(folder) == files.len()
        && files.iter().all(|(file, content)| {
            let path = folder.join(file);
            let same_mode = fs::metadata(&path).is_ok_and(|m| m.permissions().mode() & 0o777 == content.mode);
            same_mode && fs::read(path).is_ok_and(|there| there == content.bytes)
        })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use serde_json::json;
    use store::Store;

    use super::*;
    use crate::pods::PodTokens;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(name, text)| ((*name).into(), File::new(text.as_bytes().to_vec(), 0o640))).collect()
    }

    #[test]
    fn files_are_replaced_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        replace(&path, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(path.join("sub/b")).unwrap(), "2");
        let before = fs::read_link(path.join("..data")).unwrap();
        replace(&path, &files(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_link(path.join("..data")).unwrap(), before, "nothing changed: nothing moved");
        replace(&path, &files(&[("a", "3")])).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "3");
        assert!(!path.join("sub").exists() && fs::symlink_metadata(path.join("sub")).is_err());
        assert!(!path.join(before).exists());
    }

    #[test]
    fn a_token_is_for_the_eyes_of_the_pods_user() {
        let file = |of_pod: serde_json::Value, own: [serde_json::Value; 2]| {
            let containers = own.map(|own| serde_json::json!({"name": "c", "securityContext": own}));
            let pod = serde_json::json!({"spec": {"securityContext": of_pod, "containers": containers}});
            let file = File::token("t", &serde_json::from_value(pod).unwrap(), 0o644);
            (file.mode, file.owner, file.group)
        };
        use serde_json::json;
        let (none, seven, eight) = (json!({}), json!({"runAsUser": 7}), json!({"runAsUser": 8}));
        assert_eq!(file(none.clone(), [none.clone(), none.clone()]), (0o600, None, None), "the agent's own");
        assert_eq!(file(seven.clone(), [none.clone(), none.clone()]), (0o600, Some(7), None));
        assert_eq!(file(eight.clone(), [seven.clone(), seven.clone()]), (0o600, Some(7), None));
        assert_eq!(file(seven, [none.clone(), eight.clone()]), (0o644, None, None), "of two users");
        assert_eq!(file(json!({"fsGroup": 9}), [none, eight]), (0o640, None, Some(9)), "of one group");
    }

    #[test]
    fn a_token_is_nobody_elses_from_its_first_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let token = |text: &str| {
            let file = File { mode: 0o600, ..File::new(text.as_bytes().to_vec(), 0o644) };
            Files::from([("token".to_owned(), file)])
        };
        replace(&path, &token("one")).unwrap();
        replace(&path, &token("two")).unwrap();
        let there = path.join("token");
        assert_eq!(fs::read_to_string(&there).unwrap(), "two");
        assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_no_host_can_provide_is_refused_by_name() {
        let store = store::Memory::default();
        for (volume, why) in [
            (
                json!({"nfs": {"server": "files", "path": "/"}}),
                "this version has volumes of the kinds emptyDir, ",
            ),
            (
                json!({"projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "ca.crt"}}]}}),
                "this version projects no clusterTrustBundle",
            ),
        ] {
            let mut volume = volume;
            volume["name"] = "v".into();
            let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [], "volumes": [volume]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let folder = tempfile::tempdir().unwrap();
            let sources = Sources {
                state: &store.snapshot(),
                pod: &pod,
                pod_address: address,
                host_address: address,
                capacity: (1000, 1),
                volumes: folder.path(),
                tokens: &PodTokens::new(),
            };
            let told = materialise(folder.path(), sources).unwrap_err().to_string();
            let expected = format!("MountVolume.SetUp failed for volume \"v\" : {why}");
            assert!(told.starts_with(&expected), "{told}");
        }
    }

    #[test]
    fn no_file_leaves_its_volume() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../x", "/etc/x", "..x", "a/../../x"] {
            assert!(replace(&folder.path().join("v"), &files(&[(name, "1")])).is_err(), "{name}");
        }
    }
}
