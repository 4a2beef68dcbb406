//! A container with a root of its own, made of its pod and its image: its sandbox, and its bundle on the disk.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::command::{config, streams};
use super::handler::Handler;
use super::pod_host::machine_name;
use super::sandbox::sees_host_processes;
use super::{PodHost, PodTokens};
use crate::container::{Access, Bind, ConfinedPath, cgroup, environment, expand, name_files, remove_folder};
use crate::images::Image;
use crate::oci::{
    Bundle as Folders, Given, ImageMount, Namespace, PATH, Parts, Sandbox, Security, Wanted, accounts,
    config_file, host_devices, oom_score, spec,
};
use crate::pod::{StartError, uid};
use crate::runtime::{Bundle, Streams};

impl PodHost {
    /// Writes the bundle of a container that is about to start, in the sandbox that is there.
    ///
    /// # Errors
    /// What is missing, or what of its spec this host can't do.
    pub(super) fn bundle(
        &self,
        pod: &Pod,
        container: &Container,
        address: IpAddr,
        (image, volumes): (&Image, &[(String, Arc<Image>)]),
        (wanted, namespaces): (&Wanted, Vec<Namespace>),
    ) -> Result<Bundle, StartError> {
        let id = uid(pod);
        // Variables are made of no tokens.
        let (state, no_tokens) = (self.store.snapshot(), PodTokens::new());
        let sources = self.sources(&state, pod, address, &no_tokens);
        let base: Vec<(String, String)> =
            self.variables.iter().filter(|(name, _)| name != "PATH").cloned().collect();
        let env = environment(container, &base, sources).map_err(config)?;
        // As the kubelet: the image's own variables are none that a pod refers to.
        let lookup = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
        let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|part| expand(part, lookup)).collect()
        };
        let args = image.command(expanded(&container.command), expanded(&container.args));
        if args.is_empty() {
            return Err(config("no command specified: neither the container nor its image names one"));
        }
        let accounts =
            accounts(&image.layers).map_err(|why| config(format!("can't read the image's users: {why}")))?;
        let given = Given {
            image_user: &image.user,
            accounts: &accounts,
            capabilities: self.powers.capabilities,
            profile: &|name| self.seccomp_profile(name),
            app_armor: &self.app_armor,
        };
        let security = Security::of(pod, container, given).map_err(config)?;
        let streams = streams(container);
        let binds = self.all_binds(Handler::Oci, container, sources, security.read_only_root, &lookup)?;
        let name = wanted.hostname.clone().unwrap_or_else(machine_name);
        let env = all_variables(env, name, &image.env, &security, streams);
        let sandbox = Sandbox {
            namespaces,
            users: wanted.users,
            shared_memory: wanted.shared_memory.clone().unwrap_or_else(|| "/dev/shm".into()),
            sees_host: sees_host_processes(pod),
        };
        let named = [container.working_dir.as_deref().unwrap_or_default(), &image.working_dir];
        let folder = named.into_iter().find(|folder| !folder.is_empty()).unwrap_or("/");
        let made = spec(Parts {
            args,
            env,
            folder: Path::new("/").join(folder),
            terminal: streams == Streams::Terminal,
            security: &security,
            binds: &binds,
            images: volumes
                .iter()
                .map(|(volume, image)| ImageMount {
                    place: self.folders.image_volume(id, &container.name, volume),
                    layers: image.layers.clone(),
                })
                .collect(),
            sandbox: &sandbox,
            devices: if security.privileged { host_devices() } else { Vec::new() },
            oom_score: oom_score(pod, container, self.capacity.1),
        });
        let bundle = self.folders.bundle(id, &container.name);
        let layers = image.layers.clone();
        let write = || -> std::io::Result<()> {
            // What its former life wrote.
            remove_folder(&bundle)?;
            Folders::new(bundle.clone(), layers.clone(), None).make_folders()?;
            let text = serde_json::to_vec_pretty(&made)?;
            std::fs::write(config_file(&bundle), text)
        };
        write().map_err(|why| StartError::Run(format!("can't write the container's bundle: {why}")))?;
        let cgroup = cgroup::Wanted { pod: cgroup::of_pod(pod), container: cgroup::of_container(container) };
        Ok(Bundle { folder: bundle, layers, streams, cgroup, target: None })
    }

    /// All that is shown of the host's: volumes, the pod's names, and the file for last words.
    pub(super) fn all_binds(
        &self,
        by: Handler,
        container: &Container,
        sources: crate::container::Sources<'_>,
        has_read_only_root: bool,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Bind>, StartError> {
        let pod = sources.pod;
        let mut binds = self.binds(by, container, sources, lookup)?;
        for (source, path) in name_files(&self.folders.pod(uid(pod))) {
            let target = PathBuf::from(path);
            if source.exists() && !binds.iter().any(|bind| bind.target == target) {
                // As containerd has it; the kubelet's own file, of hosts, can always be written.
                let is_fixed = has_read_only_root && path != "/etc/hosts";
                let access = if is_fixed { Access::ReadOnly } else { Access::Full };
                let (what, source) = ("the pod's file", ConfinedPath::of(source));
                binds.push(Bind::of_agent(what, source, target, access));
            }
        }
        self.message_file(by, pod, container, &mut binds)?;
        Ok(binds)
    }

    /// A profile of system calls from the host's folder for them.
    pub(super) fn seccomp_profile(&self, name: &str) -> Result<String, String> {
        let root = self.folders.seccomp();
        let place = ConfinedPath { root: root.clone(), beneath: PathBuf::from(name) };
        place.read().map_err(|why| format!("it can't be read in {}: {why}", root.display()))
    }
}

/// What a container's process has: defaults, what its image says, and over it what its pod says.
fn all_variables(
    own: Vec<(String, String)>,
    hostname: String,
    image: &[String],
    security: &Security,
    streams: Streams,
) -> Vec<(String, String)> {
    let home = security.home.clone().unwrap_or_else(|| "/".into());
    let mut all = vec![("PATH".to_owned(), PATH.to_owned()), ("HOSTNAME".to_owned(), hostname)];
    if streams == Streams::Terminal {
        all.push(("TERM".into(), "xterm".into()));
    }
    let of_image = image.iter().filter_map(|variable| variable.split_once('='));
    let more = of_image.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(own);
    for (name, value) in more {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => all.push((name, value)),
        }
    }
    if !all.iter().any(|(name, _)| name == "HOME") {
        all.push(("HOME".into(), home));
    }
    all
}
