//! A container's process, made from its spec; and what any container mounts.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use super::handler::Handler;
use super::sandbox::own_hostname;
use super::{PodHost, PodTokens};
use crate::container::{
    Access, Bind, ConfinedPath, Missing, Origin, POD_FOLDER, Propagation, Sources, cgroup, environment,
    expand, is_in_memory, is_writable, name_files, volume_path,
};
use crate::host::{Command, Isolation, Security, View, plan};
use crate::pod::{StartError, uid};
use crate::runtime::Streams;

pub(super) fn config(why: impl ToString) -> StartError {
    StartError::Config(why.to_string())
}

/// How a container's streams are laid.
pub(super) fn streams(container: &Container) -> Streams {
    match (container.tty == Some(true), container.stdin == Some(true)) {
        (true, _) => Streams::Terminal,
        (false, true) => Streams::Pipes,
        (false, false) => Streams::Outputs,
    }
}

impl PodHost {
    /// The process of one container.
    ///
    /// # Errors
    /// What is missing, or what of its spec this host can't do.
    pub(crate) fn command(
        &self,
        pod: &Pod,
        container: &Container,
        address: IpAddr,
    ) -> Result<Command, StartError> {
        let uid = uid(pod);
        // Variables are made of no tokens.
        let (state, no_tokens) = (self.store.snapshot(), PodTokens::new());
        let hostname = own_hostname(pod).map_err(config)?;
        let mut base = self.variables.clone();
        let work = self.folders.work(uid).display().to_string();
        base.push(("HOME".into(), work));
        base.push(("TMPDIR".into(), self.folders.tmp(uid).display().to_string()));
        base.push(("HOSTNAME".into(), hostname.clone()));
        let folder = self.folders.pod(uid);
        let sources = self.sources(&state, pod, address, &no_tokens);
        for volume in volumes(pod) {
            let path = volume_path(&folder, volume, sources).map_err(config)?;
            let variable = format!("HOLDFAST_VOLUME_{}", volume.name.to_uppercase().replace('-', "_"));
            base.push((variable, path.display().to_string()));
        }
        let mut env = environment(container, &base, sources).map_err(|missing: Missing| config(missing))?;
        env.retain(|(name, _)| name != POD_FOLDER);
        env.push((POD_FOLDER.into(), folder.display().to_string()));
        let streams = streams(container);
        if streams == Streams::Terminal && !env.iter().any(|(name, _)| name == "TERM") {
            env.push(("TERM".into(), "xterm".into()));
        }
        let lookup = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
        let parts = container.command.iter().flatten().chain(container.args.iter().flatten());
        let argv: Vec<String> = parts.map(|part| expand(part, lookup)).collect();
        if container.command.as_ref().is_none_or(Vec::is_empty) {
            let why = "the container has no command, and pods of RuntimeClass host run no image: give it one";
            return Err(config(why));
        }
        let security = Security::of(pod, container, &self.powers).map_err(config)?;
        let mut binds = self.binds(Handler::Host, container, sources, &lookup)?;
        if self.powers.isolation != Isolation::None {
            for (source, path) in name_files(&folder) {
                let target = PathBuf::from(path);
                if source.exists() && !binds.iter().any(|bind| bind.target == target) {
                    let (what, source) = ("the pod's file", ConfinedPath::of(source));
                    binds.push(Bind::of_agent(what, source, target, Access::Full));
                }
            }
        }
        self.message_file(Handler::Host, pod, container, &mut binds)?;
        let scratch = self.folders.scratch(uid, &container.name);
        let kept = [folder, self.programs.clone()];
        let view = View { binds: &binds, kept: &kept, scratch: &scratch, read_only: security.read_only_root };
        let planned = if binds.is_empty() && !view.read_only {
            Ok(Default::default())
        } else {
            std::fs::create_dir_all(&scratch).and_then(|()| plan(&view))
        };
        let named = container.working_dir.as_deref().filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Ok(Command {
            argv,
            folder_as_user: named.is_some(),
            folder: named.unwrap_or_else(|| self.folders.work(uid)),
            hostname,
            user: security.user,
            group: security.group,
            groups: security.groups,
            capabilities: security.capabilities,
            no_new_privileges: security.no_new_privileges,
            plan: planned.map_err(|why| config(format!("can't mount {why}")))?,
            beside: None,
            streams,
            cgroup: cgroup::Wanted { pod: cgroup::of_pod(pod), container: cgroup::of_container(container) },
            env,
        })
    }

    /// The volumes of a container.
    pub(super) fn binds(
        &self,
        by: Handler,
        container: &Container,
        sources: Sources<'_>,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Bind>, StartError> {
        if container.volume_devices.as_ref().is_some_and(|list| !list.is_empty()) {
            return Err(config(match by {
                Handler::Host => {
                    "volumeDevices: processes of the host see all of its devices at their own paths"
                }
                Handler::Oci | Handler::Foreign => "volumeDevices: this runtime shows no devices of volumes",
            }));
        }
        let pod = sources.pod;
        let folder = self.folders.pod(uid(pod));
        let mut binds = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = volumes(pod).find(|volume| volume.name == mount.name);
            let volume = volume.ok_or_else(|| config(format!("the pod has no volume {:?}", mount.name)))?;
            binds.extend({
                let root = match (&volume.image, by) {
                    (Some(_), Handler::Oci) => {
                        self.folders.image_volume(uid(pod), &container.name, &volume.name)
                    }
                    (Some(_), Handler::Foreign) => {
                        let why = "images as volumes aren't asked of this host's runtime; name a RuntimeClass with the handler oci";
                        return Err(config(format!("volume {:?}: {why}", volume.name)));
                    }
                    (Some(_), Handler::Host) => {
                        let why = "a pod of RuntimeClass host runs no image, and has none as a volume";
                        return Err(config(format!("volume {:?}: {why}", volume.name)));
                    }
                    (None, Handler::Foreign) if is_in_memory(volume) => {
                        self.folders.foreign_memory(uid(pod), &volume.name)
                    }
                    (None, _) => volume_path(&folder, volume, sources).map_err(config)?,
                };
                self.bind(by, pod, root, volume, mount, lookup)?
            });
        }
        Ok(binds)
    }

    fn bind(
        &self,
        by: Handler,
        pod: &Pod,
        root: PathBuf,
        volume: &Volume,
        mount: &VolumeMount,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Bind>, StartError> {
        let part = sub_path(mount, lookup)?;
        let source = ConfinedPath { root, beneath: PathBuf::from(part.as_deref().unwrap_or_default()) };
        let is_writable = is_writable(volume);
        let origin = match by {
            Handler::Oci if is_in_memory(volume) => Origin::Memory,
            Handler::Oci if volume.image.is_some() => Origin::Image,
            _ => Origin::Host,
        };
        if let (Some(part), true) = (&part, is_writable && origin == Origin::Host) {
            let made = source.make_folder_if_missing();
            made.map_err(|why| config(format!("subPath {part:?} of volume {:?}: {why}", volume.name)))?;
        }
        let is_on_host = by == Handler::Host;
        if is_on_host && part.is_none() && source.root == Path::new(&mount.mount_path) {
            return Ok(None);
        }
        if is_on_host && self.powers.isolation == Isolation::None {
            if volume.name.starts_with("kube-api-access-") {
                return Ok(None);
            }
            return Err(config(format!(
                "volume {:?} can't be mounted at {}: this host allows no mount namespaces without root or \
                 user namespaces; leave the mount out and use the folder in \
                 $(HOLDFAST_VOLUME_{})",
                mount.name,
                mount.mount_path,
                mount.name.to_uppercase().replace('-', "_"),
            )));
        }
        let propagation = propagation(by, pod, mount, origin)?;
        let read_only = !is_writable || mount.read_only == Some(true);
        let access = match (read_only, mount.recursive_read_only.as_deref()) {
            (true, Some("Enabled" | "IfPossible")) => Access::ReadOnlyBelow,
            (true, _) => Access::ReadOnly,
            (false, _) => Access::Full,
        };
        let what = match &part {
            Some(part) => format!("subPath {part:?} of volume {:?}", mount.name),
            None => format!("volume {:?}", mount.name),
        };
        Ok(Some(Bind { what, source, target: PathBuf::from(&mount.mount_path), access, propagation, origin }))
    }

    /// The file for the container's last words, its own, where its spec wants it.
    pub(super) fn message_file(
        &self,
        by: Handler,
        pod: &Pod,
        container: &Container,
        binds: &mut Vec<Bind>,
    ) -> Result<(), StartError> {
        let made = self.folders.make_message(uid(pod), &container.name, by == Handler::Foreign);
        let source = made.map_err(|why| config(format!("can't make the termination log: {why}")))?;
        let path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        let target = PathBuf::from(path.unwrap_or("/dev/termination-log"));
        let can_mount = by != Handler::Host || self.powers.isolation != Isolation::None;
        if can_mount && !binds.iter().any(|bind| bind.target == target) {
            let (what, source) = ("the termination log", ConfinedPath::of(source));
            binds.push(Bind::of_agent(what, source, target, Access::Full));
        }
        Ok(())
    }
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// Where the mounts below a volume show.
fn propagation(
    by: Handler,
    pod: &Pod,
    mount: &VolumeMount,
    origin: Origin,
) -> Result<Propagation, StartError> {
    let has_own_users = pod.spec.as_ref().is_some_and(|spec| spec.host_users == Some(false));
    let wanted = mount.mount_propagation.as_deref().unwrap_or("None");
    let why = match (wanted, by) {
        ("None", _) => return Ok(Propagation::None),
        (_, Handler::Host) => "a pod of this runtime sees what is mounted when it starts",
        ("HostToContainer", Handler::Oci | Handler::Foreign) => return Ok(Propagation::FromHost),
        ("Bidirectional", _) if origin != Origin::Host => "the volume is not on the host",
        ("Bidirectional", _) if has_own_users => {
            "a pod with users of its own (hostUsers: false) may mount nothing for others"
        }
        ("Bidirectional", _) => return Ok(Propagation::BothWays),
        _ => "it is not known",
    };
    Err(config(format!("mountPropagation {wanted} of volume {:?}: {why}; leave it out", mount.name)))
}

/// The part of a volume that is mounted, if not all of it.
fn sub_path(
    mount: &VolumeMount,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, StartError> {
    let plain = mount.sub_path.clone().filter(|path| !path.is_empty());
    let path = plain.or_else(|| mount.sub_path_expr.as_deref().map(|expr| expand(expr, lookup)));
    let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(None) };
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(config(format!("subPath {path:?} leaves its volume")));
    }
    Ok(Some(path))
}
