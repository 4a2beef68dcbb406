//! A pod in a runtime of others: its sandbox and its containers as the CRI has them, and what of it can't be asked of that runtime.

use std::net::IpAddr;
use std::path::Path;

use cri::messages::{
    Capability, ContainerConfig, ContainerMetadata, IdMapping, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, ProfileType, SecurityProfile, Texts, UserNamespace,
};
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};

use super::command::{config, streams};
use super::handler::Handler;
use super::sandbox::{asks, own_hostname};
use super::{PodHost, PodTokens};
use crate::container::{
    Access, AskedProfile, Bind, Propagation, cgroup, environment, expand, id, more, of_pod,
};
use crate::foreign::{self, CONTAINER_NAME, ELSEWHERE, POD_NAME, POD_NAMESPACE, POD_UID, Part, resources};
use crate::images::Image;
use crate::oci::{AppArmor, MASKED, Mapping, READ_ONLY, Who, oom_score};
use crate::pod::{StartError, target, uid};
use crate::runtime::Streams;

impl PodHost {
    /// The sandbox of a pod.
    ///
    /// # Errors
    /// What of it this host can't do, or can't ask of its runtime.
    pub(super) fn foreign_sandbox(&self, pod: &Pod) -> Result<foreign::Sandbox, String> {
        refuse(pod)?;
        let users = self.own_users(pod)?;
        let network = self.own_network(pod).is_ok();
        if network {
            self.host_ports(pod)?;
        }
        let metadata = PodSandboxMetadata {
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: uid(pod).to_owned(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            attempt: 0,
        };
        let mut labels: Texts = pod.metadata.labels.clone().unwrap_or_default();
        labels.extend([
            (POD_NAME.to_owned(), metadata.name.clone()),
            (POD_NAMESPACE.to_owned(), metadata.namespace.clone()),
            (POD_UID.to_owned(), metadata.uid.clone()),
        ]);
        let none = PodSecurityContext::default();
        let shared = of_pod(pod).unwrap_or(&none);
        let privileged = containers(pod).any(is_privileged);
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(pod, network, users)),
            run_as_user: shared.run_as_user.map(number),
            run_as_group: shared.run_as_user.and(shared.run_as_group).map(number),
            supplemental_groups: more(shared).map(i64::from).collect(),
            privileged,
            seccomp: Some(profile(ProfileType::RuntimeDefault, String::new())).filter(|_| !privileged),
            ..LinuxSandboxSecurityContext::default()
        };
        let on_host = asks(pod, |spec| spec.host_network);
        Ok(foreign::Sandbox {
            handler: self.foreign_handler(pod),
            network,
            memory: self.foreign_memory(pod),
            amounts: cgroup::of_pod(pod),
            is_limited: has_limits(pod),
            config: PodSandboxConfig {
                hostname: if on_host { String::new() } else { own_hostname(pod)? },
                log_directory: self.folders.pod_logs(pod).display().to_string(),
                labels,
                annotations: pod.metadata.annotations.clone().unwrap_or_default(),
                linux: Some(LinuxPodSandboxConfig {
                    cgroup_parent: String::new(),
                    security_context: Some(security),
                    sysctls: self.sysctls(pod, users)?.into_iter().collect(),
                }),
                metadata: Some(metadata),
            },
        })
    }

    /// A container that is about to start in the sandbox that is there.
    ///
    /// # Errors
    /// What is missing, or what of its spec can't be asked of this host's runtime.
    pub(super) fn foreign_container(
        &self,
        pod: &Pod,
        container: &Container,
        address: IpAddr,
        image: &Image,
        sandbox: foreign::Sandbox,
    ) -> Result<foreign::Container, StartError> {
        refuse_container(container, image).map_err(config)?;
        // Variables are made of no tokens.
        let (state, no_tokens) = (self.store.snapshot(), PodTokens::new());
        let sources = self.sources(&state, pod, address, &no_tokens);
        let base: Vec<(String, String)> =
            self.variables.iter().filter(|(name, _)| name != "PATH").cloned().collect();
        let env = environment(container, &base, sources).map_err(config)?;
        let lookup = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
        let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|part| expand(part, lookup)).collect()
        };
        let own = container.security_context.clone().unwrap_or_default();
        let read_only = own.read_only_root_filesystem == Some(true);
        let binds = self.all_binds(Handler::Foreign, container, sources, read_only, &lookup)?;
        let mut security = self.foreign_security(pod, container, image).map_err(config)?;
        security.namespace_options = sandbox
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone());
        let resources = LinuxContainerResources {
            oom_score_adj: oom_score(pod, container, self.capacity.1).into(),
            ..resources(cgroup::of_container(container))
        };
        let mut labels: Texts = [(CONTAINER_NAME.to_owned(), container.name.clone())].into();
        for name in [POD_NAME, POD_NAMESPACE, POD_UID] {
            labels.insert(name.into(), sandbox.config.labels.get(name).cloned().unwrap_or_default());
        }
        let streams = streams(container);
        let named = container.image.clone().unwrap_or_default();
        let image =
            ImageSpec { image: image.digest.clone(), user_specified_image: named, ..ImageSpec::default() };
        let target = target(pod, &container.name).map(str::to_owned);
        let parts = binds.iter().enumerate().filter(|(_, bind)| !bind.source.is_plain());
        let part = |(mount, bind): (usize, &Bind)| Part {
            what: bind.what.clone(),
            mount,
            source: bind.source.clone(),
        };
        Ok(foreign::Container {
            parts: parts.map(part).collect(),
            config: ContainerConfig {
                metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: 0 }),
                image: Some(image),
                command: expanded(&container.command),
                args: expanded(&container.args),
                working_dir: container.working_dir.clone().unwrap_or_default(),
                envs: env.into_iter().map(|(key, value)| KeyValue { key, value }).collect(),
                mounts: binds.iter().map(|bind| mount(bind, foreign::users(&sandbox.config))).collect(),
                labels,
                stdin: streams != Streams::Outputs && container.stdin == Some(true),
                stdin_once: container.stdin_once == Some(true),
                tty: streams == Streams::Terminal,
                linux: Some(LinuxContainerConfig {
                    resources: Some(resources),
                    security_context: Some(security),
                }),
                ..ContainerConfig::default()
            },
            sandbox: sandbox.config,
            streams,
            target,
        })
    }

    /// Who a container runs as, and what it may do.
    fn foreign_security(
        &self,
        pod: &Pod,
        container: &Container,
        image: &Image,
    ) -> Result<LinuxContainerSecurityContext, String> {
        let (none, nothing) = (PodSecurityContext::default(), SecurityContext::default());
        let shared = of_pod(pod).unwrap_or(&none);
        let own = container.security_context.as_ref().unwrap_or(&nothing);
        if own.se_linux_options.is_some() || shared.se_linux_options.is_some() {
            return Err(format!("seLinuxOptions aren't asked of this host's runtime: {ELSEWHERE}"));
        }
        // Without a colon: the runtime told the user alone.
        let (asked, of_image) = (own.run_as_user.or(shared.run_as_user), image.user.parse::<u32>().ok());
        let user = asked.or(of_image.map(i64::from));
        if own.run_as_non_root.or(shared.run_as_non_root) == Some(true) {
            let who = Who {
                user: id(user).unwrap_or(0),
                group: None,
                is_asked: asked.is_some(),
                is_number: user.is_some() || image.user.is_empty(),
            };
            who.must_not_be_root(pod, container, &image.user)?;
        }
        let group = own.run_as_group.or(shared.run_as_group);
        let by_name = user.is_none() && !image.user.is_empty();
        if group.is_some() && by_name {
            return Err(format!(
                "runAsGroup: the image names its user ({}) by no number: say runAsUser too",
                image.user
            ));
        }
        let privileged = own.privileged == Some(true);
        let masks = !privileged && own.proc_mount.as_deref() != Some("Unmasked");
        let list = |paths: &[&str]| -> Vec<String> {
            if masks { paths.iter().map(|path| (*path).to_owned()).collect() } else { Vec::new() }
        };
        let asked = own.capabilities.clone().unwrap_or_default();
        Ok(LinuxContainerSecurityContext {
            capabilities: Some(Capability {
                add_capabilities: asked.add.unwrap_or_default(),
                drop_capabilities: asked.drop.unwrap_or_default(),
            }),
            privileged,
            namespace_options: None,
            // A group goes with a number alone.
            run_as_user: user.or(group.map(|_| 0)).map(number),
            run_as_group: group.map(number),
            run_as_username: if by_name { image.user.clone() } else { String::new() },
            readonly_rootfs: own.read_only_root_filesystem == Some(true),
            supplemental_groups: more(shared).map(i64::from).collect(),
            no_new_privs: own.allow_privilege_escalation == Some(false),
            masked_paths: list(&MASKED),
            readonly_paths: list(&READ_ONLY),
            seccomp: Some(self.foreign_seccomp(shared, own, privileged)?),
            apparmor: app_armor(AskedProfile::of(pod, container)?, privileged, self.app_armor.is_enabled())?,
        })
    }

    fn foreign_seccomp(
        &self,
        shared: &PodSecurityContext,
        own: &SecurityContext,
        privileged: bool,
    ) -> Result<SecurityProfile, String> {
        let asked = own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref());
        let Some(asked) = asked.filter(|_| !privileged) else {
            return Ok(profile(ProfileType::Unconfined, String::new()));
        };
        match asked.type_.as_str() {
            "Unconfined" => Ok(profile(ProfileType::Unconfined, String::new())),
            "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault, String::new())),
            "Localhost" => {
                let name = asked.localhost_profile.as_deref().unwrap_or_default();
                // Where it says, and nowhere else: the runtime follows whatever path it is given.
                self.seccomp_profile(name).map_err(|why| format!("seccompProfile {name:?}: {why}"))?;
                let path = self.folders.seccomp().join(name);
                Ok(profile(ProfileType::Localhost, path.display().to_string()))
            }
            other => Err(format!("seccompProfile {other}: there is no such type")),
        }
    }
}

fn number(value: i64) -> Int64Value {
    Int64Value { value }
}

fn profile(kind: ProfileType, localhost_ref: String) -> SecurityProfile {
    SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|own| own.privileged) == Some(true)
}

fn namespaces(pod: &Pod, network: bool, users: Option<Mapping>) -> NamespaceOption {
    let pid = match () {
        () if asks(pod, |spec| spec.host_pid) => NamespaceMode::Node,
        () if asks(pod, |spec| spec.share_process_namespace) => NamespaceMode::Pod,
        () => NamespaceMode::Container,
    };
    let whose = |own: bool| if own { NamespaceMode::Pod } else { NamespaceMode::Node };
    NamespaceOption {
        network: whose(network) as i32,
        pid: pid as i32,
        ipc: whose(!asks(pod, |spec| spec.host_ipc)) as i32,
        target_id: String::new(),
        userns_options: users.map(|Mapping { container_id, host_id, size }| {
            let ids = vec![IdMapping { host_id, container_id, length: size }];
            UserNamespace { mode: NamespaceMode::Pod as i32, uids: ids.clone(), gids: ids }
        }),
    }
}

/// Whether a pod asks for limits as a whole.
fn has_limits(pod: &Pod) -> bool {
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    whole.is_some_and(|whole| whole.limits.as_ref().is_some_and(|limits| !limits.is_empty()))
}

/// What of a pod as a whole can't be asked of a runtime of others.
fn refuse(pod: &Pod) -> Result<(), String> {
    let cant = |what: String| Err(format!("{what}: {ELSEWHERE}"));
    let Some(spec) = &pod.spec else { return Ok(()) };
    let shared = spec.security_context.as_ref();
    if shared.and_then(|shared| shared.supplemental_groups_policy.as_deref()) == Some("Strict") {
        return cant("supplementalGroupsPolicy Strict isn't asked of this host's runtime".into());
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.image.is_some() {
            return cant(format!(
                "volume {:?}: images as volumes aren't asked of this host's runtime",
                volume.name
            ));
        }
    }
    Ok(())
}

/// Likewise of one container.
fn refuse_container(container: &Container, image: &Image) -> Result<(), String> {
    let asked = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    if let Some(signal) = asked.filter(|asked| Some(*asked) != image.stop_signal.as_deref()) {
        return Err(format!(
            "stopSignal {signal}: this host's runtime ends containers by their image's signal; {ELSEWHERE}"
        ));
    }
    for mount in container.volume_mounts.iter().flatten() {
        let mut parts = [&mount.sub_path, &mount.sub_path_expr].into_iter().flatten();
        let is_part = parts.any(|path| !path.is_empty());
        let both_ways = mount.mount_propagation.as_deref() == Some("Bidirectional");
        let what = match () {
            // What shows a part is the agent's own, from which nothing leads back.
            () if both_ways && is_part => "mountPropagation Bidirectional of a part",
            () if mount.recursive_read_only.as_deref() == Some("Enabled") => "recursiveReadOnly",
            () => continue,
        };
        return Err(format!(
            "{what} of volume {:?} can't be had with this host's runtime: {ELSEWHERE}",
            mount.name
        ));
    }
    Ok(())
}

/// A volume as it is shown. Where a part of one shows that the pod itself names ([`Part`]) is said later: the runtime would follow whatever link the
/// pod puts there.
fn mount(bind: &Bind, users: &[IdMapping]) -> Mount {
    let propagation = match bind.propagation {
        Propagation::None => MountPropagation::Private,
        Propagation::FromHost => MountPropagation::HostToContainer,
        Propagation::BothWays => MountPropagation::Bidirectional,
    };
    Mount {
        container_path: Path::new("/").join(&bind.target).display().to_string(),
        host_path: bind.source.path().display().to_string(),
        readonly: bind.access != Access::Full,
        selinux_relabel: false,
        propagation: propagation as i32,
        // As the kubelet: what is the host's on the disk belongs to the pod's users there.
        uid_mappings: users.to_vec(),
        gid_mappings: users.to_vec(),
    }
}

/// The profile of AppArmor: the runtime's own unless another is asked for.
fn app_armor(
    asked: Option<AskedProfile<'_>>,
    privileged: bool,
    is_there: bool,
) -> Result<Option<SecurityProfile>, String> {
    match asked {
        None if is_there && !privileged => Ok(Some(profile(ProfileType::RuntimeDefault, String::new()))),
        None => Ok(None),
        Some(AskedProfile::Unconfined) => Ok(Some(profile(ProfileType::Unconfined, String::new()))),
        // In the kubelet's words.
        Some(_) if !is_there => Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".into()),
        Some(AskedProfile::RuntimeDefault) => Ok(Some(profile(ProfileType::RuntimeDefault, String::new()))),
        Some(AskedProfile::Localhost(name)) => Ok(Some(profile(ProfileType::Localhost, name.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({"spec": {"containers": [{"name": "c"}]}});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn what_the_runtime_cannot_is_refused_by_name() {
        for (spec, what) in [
            (json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}), "Strict"),
            (json!({"volumes": [{"name": "i", "image": {"reference": "box"}}]}), "\"i\": images"),
        ] {
            let why = refuse(&pod(spec)).unwrap_err();
            assert!(why.contains(what) && why.contains("handler oci"), "{why}");
        }
        let limited = |resources: Value| has_limits(&pod(json!({"resources": resources})));
        assert!(limited(json!({"limits": {"memory": "1Mi"}})) && !limited(json!({"requests": {"cpu": "1"}})));
        let image = Image { stop_signal: Some("SIGINT".into()), ..Image::default() };
        let of = |more: Value| {
            let mut container = json!({"name": "c"});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            refuse_container(&serde_json::from_value(container).unwrap(), &image)
        };
        let mount = |more: Value| {
            let mut mount = json!({"name": "v", "mountPath": "/v"});
            mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            of(json!({"volumeMounts": [mount]}))
        };
        assert!(of(json!({"lifecycle": {"stopSignal": "SIGUSR1"}})).unwrap_err().contains("SIGUSR1"));
        of(json!({"lifecycle": {"stopSignal": "SIGINT"}})).unwrap();
        let both_ways = |more: Value| {
            let mut all = json!({"mountPropagation": "Bidirectional"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            mount(all)
        };
        both_ways(json!({"subPath": ""})).unwrap();
        for part in [json!({"subPath": "a"}), json!({"subPathExpr": "$(A)"})] {
            mount(part.clone()).unwrap();
            assert!(both_ways(part).unwrap_err().contains("of a part of volume \"v\""));
        }
        assert!(mount(json!({"readOnly": true, "recursiveReadOnly": "Enabled"})).is_err());
        mount(json!({"readOnly": true, "recursiveReadOnly": "IfPossible"})).unwrap();
    }

    #[test]
    fn namespaces_are_as_the_pod_asks() {
        use NamespaceMode::{Container, Node, Pod};
        let of = |spec: Value, network| {
            let NamespaceOption { network, pid, ipc, .. } = namespaces(&pod(spec), network, None);
            [network, pid, ipc]
        };
        assert_eq!(of(json!({}), true), [Pod as i32, Container as i32, Pod as i32]);
        let host = json!({"hostPID": true, "hostIPC": true, "shareProcessNamespace": false});
        assert_eq!(of(host, false), [Node as i32; 3]);
        assert_eq!(of(json!({"shareProcessNamespace": true}), true)[1], Pod as i32);
        let users = Some(Mapping { container_id: 0, host_id: 1 << 16, size: 1 << 16 });
        let users = namespaces(&pod(json!({"hostUsers": false})), true, users).userns_options.unwrap();
        let expected = [IdMapping { host_id: 1 << 16, container_id: 0, length: 1 << 16 }];
        assert_eq!(
            (users.mode, &users.uids[..], &users.gids[..]),
            (Pod as i32, &expected[..], &expected[..])
        );
    }

    #[test]
    fn app_armor_is_had_or_refused() {
        use AskedProfile::{Localhost, RuntimeDefault, Unconfined};
        let of = |asked, is_there| app_armor(asked, false, is_there);
        let kind = |kind: ProfileType| Some(kind as i32);
        let told = |asked, is_there| of(asked, is_there).unwrap().map(|profile| profile.profile_type);
        assert_eq!((told(None, false), told(None, true)), (None, kind(ProfileType::RuntimeDefault)));
        assert_eq!(told(Some(Localhost("p")), true), kind(ProfileType::Localhost));
        assert_eq!(told(Some(Unconfined), false), kind(ProfileType::Unconfined));
        assert!(of(Some(RuntimeDefault), false).is_err());
    }
}
