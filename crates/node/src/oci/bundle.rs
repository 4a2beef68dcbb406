//! A container as a bundle: a function of its pod, its image and its sandbox, without I/O. Mounts, masks and defaults are
//! containerd's (`oci/spec.go`, `internal/cri/opts`), so that what runs there runs here.

use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::security::Security;
use super::spec::{
    Capabilities, Device, DeviceRule, FILE, ImageMount, Linux, Mapping, Mount, Namespace, NamespaceKind,
    Process, Resources, Root, Spec, User, VERSION, env, mapping, options,
};
use crate::container::rights;
use crate::container::{Access, Bind, Origin, Propagation, in_units};

/// What a container may not read, unless it is privileged.
pub(crate) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What it may not write.
pub(crate) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The sandbox of a pod, as its shim holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// Those that all of the pod's containers are in.
    pub namespaces: Vec<Namespace>,
    /// The host's users that are the pod's, where those are others.
    pub users: Option<Mapping>,
    /// What is `/dev/shm`.
    pub shared_memory: PathBuf,
    /// Whether its containers see all processes of the host.
    pub sees_host: bool,
}

/// What a bundle is made of.
pub(crate) struct Parts<'a> {
    /// The program and its arguments.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub folder: PathBuf,
    pub terminal: bool,
    pub security: &'a Security,
    pub binds: &'a [Bind],
    /// The images that are volumes.
    pub images: Vec<ImageMount>,
    pub sandbox: &'a Sandbox,
    /// The host's devices, for those who may use them all.
    pub devices: Vec<Device>,
    pub oom_score: i32,
}

/// Without its arguments and its environment: Secrets may be in them.
impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The bundle's `config.json`.
pub(crate) fn spec(parts: Parts<'_>) -> Spec {
    let Parts { security, sandbox, .. } = parts;
    let names = rights::names(security.capabilities);
    let capabilities = Capabilities { bounding: names.clone(), effective: names.clone(), permitted: names };
    let (masked, read_only) = if security.masks { (&MASKED[..], &READ_ONLY[..]) } else { (&[][..], &[][..]) };
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
    let map = || sandbox.users.map_or_else(Vec::new, |users| mapping(users.host_id, users.size));
    Spec {
        oci_version: VERSION.into(),
        process: Process {
            terminal: parts.terminal,
            user: User {
                uid: security.user,
                gid: security.groups.first,
                additional_gids: security.groups.all.clone(),
            },
            args: parts.args,
            env: env(&parts.env),
            cwd: parts.folder,
            capabilities: Some(capabilities),
            no_new_privileges: security.no_new_privileges,
            apparmor_profile: security.app_armor.clone(),
            oom_score_adj: Some(parts.oom_score),
        },
        root: Root { path: "rootfs".into(), readonly: security.read_only_root },
        hostname: String::new(),
        mounts: mounts(security, sandbox, parts.binds),
        linux: Linux {
            uid_mappings: map(),
            gid_mappings: map(),
            namespaces: namespaces(sandbox),
            devices: parts.devices,
            resources: Resources {
                devices: vec![DeviceRule { allow: security.privileged, access: "rwm".into() }],
            },
            seccomp: security.seccomp.clone(),
            masked_paths: paths(masked),
            readonly_paths: paths(read_only),
        },
        images: parts.images,
    }
}

/// Where a bundle's `config.json` lies.
pub(crate) fn config_file(bundle: &Path) -> PathBuf {
    bundle.join(FILE)
}

fn namespaces(sandbox: &Sandbox) -> Vec<Namespace> {
    let mut all = sandbox.namespaces.clone();
    let shares = |kind| all.iter().any(|namespace| namespace.kind == kind);
    let pid = !sandbox.sees_host && !shares(NamespaceKind::Pid);
    let own = [(NamespaceKind::Pid, pid), (NamespaceKind::Mount, true), (NamespaceKind::Cgroup, true)];
    let own = own.into_iter().filter(|(_, wanted)| *wanted);
    all.extend(own.map(|(kind, _)| Namespace { kind, path: None }));
    all
}

fn mounts(security: &Security, sandbox: &Sandbox, binds: &[Bind]) -> Vec<Mount> {
    let access = if security.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, list: &[&str]| Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: kind.into(),
        options: options(list),
        ..Mount::default()
    };
    let has_network = sandbox.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Network);
    let sys = if sandbox.users.is_some() && !has_network {
        // Only who has rights in the network's namespace may mount its view of devices: the host's own is shown.
        let below = ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"];
        Mount { source: "/sys".into(), ..mount("/sys", "bind", &below) }
    } else {
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access])
    };
    let shared = ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"];
    let mut all = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
        Mount { source: sandbox.shared_memory.clone(), ..mount("/dev/shm", "bind", &shared) },
    ];
    // What the pod itself mounts there is wanted instead.
    all.retain(|own| !binds.iter().any(|bind| clean(&bind.target) == own.destination));
    let mut binds: Vec<&Bind> = binds.iter().collect();
    // Outer paths first: an inner one lies within what the outer one shows.
    binds.sort_by_key(|bind| bind.target.components().count());
    let map = || sandbox.users.map_or_else(Vec::new, |users| mapping(users.host_id, users.size));
    all.extend(binds.into_iter().map(|bind| {
        let access = match bind.access {
            Access::Full => "rw",
            Access::ReadOnly => "ro",
            Access::ReadOnlyBelow => "rro",
        };
        let propagation = match bind.propagation {
            Propagation::None => "rprivate",
            Propagation::FromHost => "rslave",
            Propagation::BothWays => "rshared",
        };
        let mut options = options(&["rbind", propagation, access]);
        // What an image holds as a volume is data (KEP-4639); its layers are mapped one by one.
        let is_image = bind.origin == Origin::Image;
        options.extend(is_image.then(|| "noexec".to_owned()));
        let map = || if is_image { Vec::new() } else { map() };
        Mount {
            destination: bind.target.clone(),
            kind: "bind".into(),
            source: bind.source.path(),
            options,
            uid_mappings: map(),
            gid_mappings: map(),
            trusted: Some(bind.source.root.clone()),
            makes: bind.origin == Origin::Memory && !bind.source.is_plain(),
            what: Some(bind.what.clone()),
        }
    }));
    all
}

fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

/// How soon the kernel takes a container when memory is short: by its pod's class, as the kubelet has it
/// (`pkg/kubelet/qos/policy.go`). `memory` is what the host has, in bytes.
pub(crate) fn oom_score(pod: &Pod, container: &Container, memory: u64) -> i32 {
    const CRITICAL: i32 = 2_000_000_000;
    let is_critical =
        pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= CRITICAL);
    let class = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    match class {
        _ if is_critical => -997,
        Some("Guaranteed") => -997,
        Some("BestEffort") => 1000,
        _ => {
            let resources = container.resources.as_ref();
            let amounts = resources.and_then(|all| all.requests.as_ref().or(all.limits.as_ref()));
            let asked = amounts.and_then(|amounts| amounts.get("memory"));
            let asked =
                asked.and_then(|amount| in_units(&amount.0, "1")).and_then(|bytes| u64::try_from(bytes).ok());
            let share = asked.unwrap_or(0).saturating_mul(1000).checked_div(memory).unwrap_or(0);
            // More than 2, so that a pod that asks for next to everything goes after the system's own processes; less than
            // 1000, so that one that asks for nothing goes after those without any claim.
            i32::try_from(1000_u64.saturating_sub(share)).unwrap_or(999).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::container::{ConfinedPath, Groups};

    fn security() -> Security {
        Security {
            user: 33,
            groups: Groups { first: 34, all: vec![34, 4] },
            home: None,
            capabilities: rights::capability("KILL").unwrap(),
            no_new_privileges: true,
            read_only_root: true,
            privileged: false,
            seccomp: None,
            app_armor: Some("web".into()),
            masks: true,
        }
    }

    fn bind(target: &str, access: Access) -> Bind {
        Bind {
            what: format!("volume {target:?}"),
            source: ConfinedPath { root: "/pods/u/volumes/v".into(), beneath: "part".into() },
            target: target.into(),
            access,
            propagation: Propagation::None,
            origin: Origin::Host,
        }
    }

    fn made(security: &Security, sandbox: &Sandbox, binds: &[Bind]) -> Spec {
        spec(Parts {
            args: vec!["server".into(), "--port=80".into()],
            env: vec![("PATH".into(), "/bin".into())],
            folder: "/srv".into(),
            terminal: false,
            security,
            binds,
            images: Vec::new(),
            sandbox,
            devices: Vec::new(),
            oom_score: 1000,
        })
    }

    fn mounted<'a>(spec: &'a Spec, at: &str) -> &'a Mount {
        spec.mounts.iter().find(|mount| mount.destination == Path::new(at)).unwrap()
    }

    #[test]
    fn a_bundle_says_what_the_pod_asks_for_in_ocis_words() {
        let ipc = Namespace { kind: NamespaceKind::Ipc, path: Some("/proc/7/fd/3".into()) };
        let sandbox =
            Sandbox { namespaces: vec![ipc], shared_memory: "/pods/u/shm".into(), ..Sandbox::default() };
        let binds = [bind("/data/inner", Access::ReadOnly), bind("/data", Access::Full)];
        let told = serde_json::to_value(made(&security(), &sandbox, &binds)).unwrap();
        assert_eq!(told["ociVersion"], "1.0.2");
        assert_eq!(told["process"]["user"], json!({"uid": 33, "gid": 34, "additionalGids": [34, 4]}));
        assert_eq!(told["process"]["args"], json!(["server", "--port=80"]));
        assert_eq!(told["process"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
        assert_eq!(told["process"]["noNewPrivileges"], true);
        assert_eq!(told["process"]["apparmorProfile"], "web");
        assert_eq!(told["root"], json!({"path": "rootfs", "readonly": true}));
        assert_eq!(
            told["linux"]["namespaces"],
            json!([{"type": "ipc", "path": "/proc/7/fd/3"}, {"type": "pid"},
            {"type": "mount"}, {"type": "cgroup"}])
        );
        assert_eq!(told["linux"]["resources"]["devices"], json!([{"allow": false, "access": "rwm"}]));
        let last: Vec<_> = told["mounts"].as_array().unwrap().iter().rev().take(2).rev().collect();
        assert_eq!(last[0]["destination"], "/data", "outer ones first");
        assert_eq!(
            last[1],
            &json!({"destination": "/data/inner", "type": "bind", "source": "/pods/u/volumes/v/part",
            "options": ["rbind", "rprivate", "ro"], "dev.holdfast.trusted": "/pods/u/volumes/v",
            "dev.holdfast.what": "volume \"/data/inner\""})
        );
        let again: Spec = serde_json::from_value(told).unwrap();
        assert_eq!(again, made(&security(), &sandbox, &binds));
    }

    #[test]
    fn what_is_in_memory_is_made_by_the_shim_and_what_is_in_an_image_is_data() {
        let users = Some(Mapping { container_id: 0, host_id: 131_072, size: 65_536 });
        let sandbox = Sandbox { users, ..Sandbox::default() };
        let of = |origin| Bind { origin, ..bind("/data", Access::ReadOnly) };
        let [memory, image] = [Origin::Memory, Origin::Image]
            .map(|origin| mounted(&made(&security(), &sandbox, &[of(origin)]), "/data").clone());
        assert!(
            memory.makes && memory.options == ["rbind", "rprivate", "ro"] && !memory.uid_mappings.is_empty()
        );
        assert!(!image.makes && image.options == ["rbind", "rprivate", "ro", "noexec"], "{image:?}");
        assert!(image.uid_mappings.is_empty());
    }

    #[test]
    fn what_a_pod_mounts_itself_takes_the_place_of_what_is_there() {
        let binds = [bind("/dev/shm/", Access::Full)];
        let spec = made(&security(), &Sandbox::default(), &binds);
        let at: Vec<_> =
            spec.mounts.iter().filter(|mount| mount.destination.starts_with("/dev/shm")).collect();
        assert_eq!(at.len(), 1);
        assert_eq!(at[0].source, Path::new("/pods/u/volumes/v/part"));
    }

    #[test]
    fn only_the_privileged_see_and_change_the_machine() {
        let spec = made(&security(), &Sandbox::default(), &[]);
        assert!(spec.linux.masked_paths.contains(&"/proc/kcore".into()));
        assert!(spec.linux.readonly_paths.contains(&"/proc/sys".into()));
        assert!(
            mounted(&spec, "/sys").options.contains(&"ro".into()) && !spec.linux.resources.allows_devices()
        );
        let security = Security { privileged: true, masks: false, ..security() };
        let spec = made(&security, &Sandbox { sees_host: true, ..Sandbox::default() }, &[]);
        assert!(spec.linux.masked_paths.is_empty() && spec.linux.readonly_paths.is_empty());
        assert!(
            mounted(&spec, "/sys").options.contains(&"rw".into()) && spec.linux.resources.allows_devices()
        );
        assert!(spec.linux.namespace(NamespaceKind::Pid).is_none(), "the host's");
    }

    #[test]
    fn users_of_its_own_are_mapped_in_volumes_too() {
        let users = Some(Mapping { container_id: 0, host_id: 131_072, size: 65_536 });
        let spec =
            made(&security(), &Sandbox { users, ..Sandbox::default() }, &[bind("/data", Access::Full)]);
        assert_eq!(spec.linux.uid_mappings[0].host_id, 131_072);
        assert_eq!(mounted(&spec, "/data").uid_mappings, spec.linux.uid_mappings);
        assert_eq!(mounted(&spec, "/sys").kind, "bind");
    }

    #[test]
    fn who_asked_for_memory_is_killed_later() {
        let container = |request: &str| -> Container {
            serde_json::from_value(json!({"name": "c", "resources": {"requests": {"memory": request}}}))
                .unwrap()
        };
        let pod = |class: &str, priority: i32| -> Pod {
            let pod =
                json!({"spec": {"containers": [], "priority": priority}, "status": {"qosClass": class}});
            serde_json::from_value(pod).unwrap()
        };
        let memory = 1 << 30;
        for (class, priority, request, score) in [
            ("BestEffort", 0, "0", 1000),
            ("Guaranteed", 0, "1Gi", -997),
            ("Burstable", 0, "512Mi", 500),
            ("Burstable", 0, "1Gi", 3),
            ("Burstable", 0, "1", 999),
            ("BestEffort", 2_000_000_000, "0", -997),
        ] {
            assert_eq!(
                oom_score(&pod(class, priority), &container(request), memory),
                score,
                "{class} {request}"
            );
        }
    }
}
