//! What every pod of this host shares, and a container's command made from its spec.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use objects::{Occurrence, Recorder, Writer};
use store::{State, Store};

use super::{Folders, Logs, PodTokens, Running, TokenBook};
use crate::addresses::{Addresses, PodAddresses};
use crate::clock::Clock;
use crate::host::{
    Bind, Command, Isolation, Missing, POD_FOLDER, Sources, Spawner, Streams, end_leftovers, environment,
    expand, materialise, name_files, plan, refresh, volume_path, write_name_files,
};
use crate::pod::{StartError, hostname, uid};

/// What every pod of this host shares.
pub(crate) struct Host {
    pub name: String,
    pub address: IpAddr,
    pub store: Arc<dyn Store>,
    pub writer: Arc<dyn Writer>,
    pub network: Arc<dyn PodAddresses>,
    pub addresses: Mutex<Addresses>,
    pub folders: Folders,
    pub recorder: Recorder,
    pub clock: Clock,
    pub isolation: Isolation,
    pub spawner: Spawner,
    pub logs: Logs,
    pub running: Running,
    pub tokens: TokenBook,
    /// Processors in thousandths, memory in bytes.
    pub capacity: (u64, u64),
    /// Variables of every container.
    pub variables: Vec<(String, String)>,
}

impl Host {
    /// The agent's name as a user.
    pub(crate) fn user(&self) -> String {
        format!("system:node:{}", self.name)
    }

    /// Has an Event written of a pod, or of a container of it. Never waits.
    pub(crate) fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let mut occurrence = Occurrence::of(pod, warning, reason, message);
        occurrence.regarding.field_path = container.map(|name| {
            let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            let list = if init.any(|c| c.name == name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        });
        self.recorder.record(occurrence);
    }

    fn sources<'a>(
        &self,
        state: &'a State,
        pod: &'a Pod,
        pod_address: IpAddr,
        tokens: &'a PodTokens,
    ) -> Sources<'a> {
        Sources { state, pod, pod_address, host_address: self.address, capacity: self.capacity, tokens }
    }

    /// Makes a pod's folder, volumes and address. The error is a reason and a message.
    pub(crate) async fn prepare(self: Arc<Self>, pod: Arc<Pod>) -> Result<IpAddr, (String, String)> {
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            move |message: String| (reason, message)
        };
        let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let address = if on_host { self.address } else { self.pod_address(&pod).await? };
        let host = self.clone();
        let renewed = self.renew_tokens(&pod).await;
        let work = tokio::task::spawn_blocking(move || {
            renewed.map_err(|missing| missing.to_string())?;
            let (state, tokens) = (host.store.snapshot(), host.tokens.of(&pod));
            let user = Identity::of(&pod, None);
            let chown = nix::unistd::geteuid().is_root();
            let (owner, group) = if chown { (user.user, user.group) } else { (None, None) };
            host.folders.make(uid(&pod), owner, group).map_err(|e| e.to_string())?;
            let folder = host.folders.pod(uid(&pod));
            write_name_files(&folder, &pod, address).map_err(|e| e.to_string())?;
            materialise(&folder, host.sources(&state, &pod, address, &tokens)).map_err(|e| e.to_string())
        });
        match work.await {
            Ok(result) => result.map(|()| address).map_err(failed("ContainerCreating")),
            Err(error) => Err(failed("ContainerCreating")(error.to_string())),
        }
    }

    async fn pod_address(&self, pod: &Pod) -> Result<IpAddr, (String, String)> {
        let known = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let failed = |message: String| ("FailedCreatePodSandBox".to_owned(), message);
        let address = {
            let mut book = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            book.of(uid(pod), known)
        };
        let address =
            address.ok_or_else(|| failed("every address of the host's pod range is taken".into()))?;
        let added = self.network.add(address).await;
        added.map_err(|error| failed(format!("can't add the address {address}: {error}")))?;
        Ok(address)
    }

    /// Gives back what a pod that ended had.
    pub(crate) async fn clean_up(self: Arc<Self>, pod: Arc<Pod>) {
        end_leftovers(self.folders.pod(uid(&pod))).await;
        self.tokens.forget(&pod);
        let address = {
            let mut book = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            book.release(uid(&pod))
        };
        if let Some(address) = address
            && let Err(error) = self.network.remove(address).await
        {
            tracing::warn!(%address, %error, "can't remove a pod's address");
        }
        let host = self.clone();
        let _ = tokio::task::spawn_blocking(move || host.folders.remove(&pod)).await;
    }

    /// Brings the pod's files from ConfigMaps and Secrets up to date.
    pub(crate) fn refresh(&self, pod: &Pod, address: IpAddr) -> Result<(), Missing> {
        let (state, tokens) = (self.store.snapshot(), self.tokens.of(pod));
        refresh(&self.folders.pod(uid(pod)), self.sources(&state, pod, address, &tokens))
    }

    /// The process of one container.
    pub(crate) fn command(
        &self,
        pod: &Pod,
        container: &Container,
        address: IpAddr,
    ) -> Result<Command, StartError> {
        let config = |missing: Missing| StartError::Config(missing.0);
        let uid = uid(pod);
        // Variables are made of no tokens.
        let (state, no_tokens) = (self.store.snapshot(), PodTokens::new());
        let mut base = self.variables.clone();
        let work = self.folders.work(uid).display().to_string();
        base.push(("HOME".into(), work));
        base.push(("TMPDIR".into(), self.folders.tmp(uid).display().to_string()));
        base.push(("HOSTNAME".into(), hostname(pod)));
        let folder = self.folders.pod(uid);
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let variable = format!("HOLDFAST_VOLUME_{}", volume.name.to_uppercase().replace('-', "_"));
            base.push((variable, volume_path(&folder, volume).display().to_string()));
        }
        let mut env =
            environment(container, &base, self.sources(&state, pod, address, &no_tokens)).map_err(config)?;
        env.retain(|(name, _)| name != POD_FOLDER);
        env.push((POD_FOLDER.into(), folder.display().to_string()));
        let streams = match (container.tty == Some(true), container.stdin == Some(true)) {
            (true, _) => Streams::Terminal,
            (false, true) => Streams::Pipes,
            (false, false) => Streams::Outputs,
        };
        if streams == Streams::Terminal && !env.iter().any(|(name, _)| name == "TERM") {
            env.push(("TERM".into(), "xterm".into()));
        }
        let lookup = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
        let parts = container.command.iter().flatten().chain(container.args.iter().flatten());
        let argv: Vec<String> = parts.map(|part| expand(part, lookup)).collect();
        if container.command.as_ref().is_none_or(Vec::is_empty) {
            let why = "the container has no command, and pods of RuntimeClass host run no image: give it one";
            return Err(StartError::Config(why.into()));
        }
        let binds = self.binds(pod, container, &lookup)?;
        let scratch = self.folders.scratch(uid, &container.name);
        let mounts = if binds.is_empty() {
            Ok(Default::default())
        } else {
            std::fs::create_dir_all(&scratch).and_then(|()| plan(&binds, &scratch))
        };
        let user = Identity::of(pod, Some(container));
        user.check()?;
        let folder = container.working_dir.as_deref().filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Ok(Command {
            argv,
            folder: folder.unwrap_or_else(|| self.folders.work(uid)),
            hostname: hostname(pod),
            user: user.user,
            group: user.group,
            groups: user.groups,
            plan: mounts.map_err(|e| StartError::Config(format!("can't mount the volumes: {e}")))?,
            beside: None,
            streams,
            env,
        })
    }

    fn binds(
        &self,
        pod: &Pod,
        container: &Container,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Bind>, StartError> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let folder = self.folders.pod(uid(pod));
        let mut binds = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = volumes.clone().find(|volume| volume.name == mount.name);
            let Some(volume) = volume else {
                return Err(StartError::Config(format!("the pod has no volume {:?}", mount.name)));
            };
            let mut source = volume_path(&folder, volume);
            if let Some(part) = sub_path(mount, lookup)? {
                source.push(part);
                if volume.empty_dir.is_some() || volume.host_path.is_some() {
                    let made = source.exists() || std::fs::create_dir_all(&source).is_ok();
                    if !made {
                        return Err(StartError::Config(format!("can't make subPath {}", source.display())));
                    }
                }
            }
            if source == Path::new(&mount.mount_path) {
                continue;
            }
            if self.isolation == Isolation::None {
                let token_only = volume.name.starts_with("kube-api-access-");
                if token_only {
                    continue;
                }
                return Err(StartError::Config(format!(
                    "volume {:?} can't be mounted at {}: this host allows no mount namespaces without root or \
                     user namespaces; leave the mount out and use the folder in \
                     $(HOLDFAST_VOLUME_{})",
                    mount.name,
                    mount.mount_path,
                    mount.name.to_uppercase().replace('-', "_"),
                )));
            }
            let files = volume.empty_dir.is_none() && volume.host_path.is_none();
            let read_only = files || mount.read_only == Some(true);
            binds.push(Bind { source, target: PathBuf::from(&mount.mount_path), read_only });
        }
        if self.isolation != Isolation::None {
            for (source, path) in name_files(&folder) {
                let target = PathBuf::from(path);
                if source.exists() && !binds.iter().any(|bind| bind.target == target) {
                    binds.push(Bind { source, target, read_only: false });
                }
            }
        }
        Ok(binds)
    }
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
        return Err(StartError::Config(format!("subPath {path:?} leaves its volume")));
    }
    Ok(Some(path))
}

/// Who a container runs as.
struct Identity {
    user: Option<u32>,
    group: Option<u32>,
    groups: Vec<u32>,
    not_root: bool,
}

impl Identity {
    fn of(pod: &Pod, container: Option<&Container>) -> Self {
        let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let own = container.and_then(|container| container.security_context.as_ref());
        let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
        let mut groups: Vec<u32> = of_pod
            .iter()
            .flat_map(|c| c.supplemental_groups.iter().flatten())
            .filter_map(|g| id(Some(*g)))
            .collect();
        groups.extend(of_pod.and_then(|c| id(c.fs_group)));
        Identity {
            user: id(own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user))),
            group: id(own.and_then(|c| c.run_as_group).or(of_pod.and_then(|c| c.run_as_group))),
            groups,
            not_root: own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root))
                == Some(true),
        }
    }

    /// Whether this host can run it so.
    fn check(&self) -> Result<(), StartError> {
        let me = nix::unistd::geteuid();
        let user = self.user.unwrap_or(me.as_raw());
        if self.not_root && user == 0 {
            return Err(StartError::Config("container has runAsNonRoot and would run as root".into()));
        }
        let gid = nix::unistd::getegid().as_raw();
        let other = user != me.as_raw() || self.group.is_some_and(|group| group != gid);
        if other && !me.is_root() {
            let why =
                format!("runAsUser {user} or its group: only an agent that runs as root can change them");
            return Err(StartError::Config(why));
        }
        Ok(())
    }
}
