//! What a pod's security context asks of a container with a root of its own: done, or refused with the reason.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};

use super::app_armor::{self, AppArmor};
use super::seccomp::{compile, runtime_default};
use super::spec::Seccomp;
use crate::container::rights::capability;
use crate::container::{Accounts, AskedProfile, Groups, id, of_pod};

/// The capabilities of a container that says nothing of them: containerd's (`oci/spec.go`, `defaultUnixCaps`).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Who a container runs as, and what it may do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Security {
    pub user: u32,
    pub groups: Groups,
    /// Its user's folder, if the image has that user.
    pub home: Option<String>,
    pub capabilities: u64,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
    pub privileged: bool,
    pub seccomp: Option<Seccomp>,
    /// The profile of AppArmor that it is held to.
    pub app_armor: Option<String>,
    /// Whether parts of `/proc` and `/sys` are hidden from it.
    pub masks: bool,
}

/// Reads a profile of system calls by its name; the error says why there is none.
pub(crate) type ReadProfile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// What decides beside the pod.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// `User` of the image's settings.
    pub image_user: &'a str,
    /// The image's.
    pub accounts: &'a Accounts,
    /// What the agent has itself.
    pub capabilities: u64,
    pub profile: ReadProfile<'a>,
    pub app_armor: &'a dyn AppArmor,
}

impl Security {
    /// What a container asks for, by its own context, the pod's and the image.
    ///
    /// # Errors
    /// Why it can't be had.
    pub(crate) fn of(pod: &Pod, container: &Container, given: Given<'_>) -> Result<Self, String> {
        let (none, nothing) = (PodSecurityContext::default(), SecurityContext::default());
        let shared = of_pod(pod).unwrap_or(&none);
        let own = container.security_context.as_ref().unwrap_or(&nothing);
        if own.se_linux_options.is_some() || shared.se_linux_options.is_some() {
            return Err("seLinuxOptions: this runtime sets no SELinux labels; leave them out".into());
        }
        let who = Who::of(shared, own, given)?;
        let must_not_be_root = own.run_as_non_root.or(shared.run_as_non_root) == Some(true);
        if must_not_be_root {
            who.must_not_be_root(pod, container, given.image_user)?;
        }
        let privileged = own.privileged == Some(true);
        let capabilities = capabilities(own, privileged, given.capabilities)?;
        let asked = id(own.run_as_group.or(shared.run_as_group)).or(who.group);
        let home = given.accounts.of_user(who.user).map(|account| account.home.to_owned());
        Ok(Security {
            user: who.user,
            groups: given.accounts.groups(who.user, asked, shared),
            home: home.filter(|home| !home.is_empty()),
            capabilities,
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            read_only_root: own.read_only_root_filesystem == Some(true),
            privileged,
            seccomp: if privileged { None } else { seccomp(shared, own, capabilities, given.profile)? },
            app_armor: app_armor::profile(AskedProfile::of(pod, container)?, privileged, given.app_armor)?,
            masks: !privileged && own.proc_mount.as_deref() != Some("Unmasked"),
        })
    }
}

/// A user, and the group that the image names with it.
pub(crate) struct Who {
    pub user: u32,
    pub group: Option<u32>,
    /// Whether the pod names the user, rather than the image.
    pub is_asked: bool,
    /// Whether the image names it by its number, or not at all.
    pub is_number: bool,
}

impl Who {
    fn of(shared: &PodSecurityContext, own: &SecurityContext, given: Given<'_>) -> Result<Self, String> {
        if let Some(user) = id(own.run_as_user.or(shared.run_as_user)) {
            return Ok(Who { user, group: None, is_asked: true, is_number: true });
        }
        let (name, group) = match given.image_user.split_once(':') {
            Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
            None => (given.image_user, None),
        };
        let (user, is_number) = match name.parse() {
            _ if name.is_empty() => (0, true),
            Ok(number) => (number, true),
            Err(_) => {
                let account = given.accounts.named(name);
                let account = account
                    .ok_or_else(|| format!("the image has no user {name:?}, as which it is to run"))?;
                (account.user, false)
            }
        };
        let group = match group.map(|group| (group, group.parse())) {
            Some((_, Ok(number))) => Some(number),
            Some((name, Err(_))) => {
                let group = given.accounts.group_named(name);
                Some(group.ok_or_else(|| format!("the image has no group {name:?}, as which it is to run"))?)
            }
            None => None,
        };
        Ok(Who { user, group, is_asked: false, is_number })
    }

    /// Refuses who may be root, in the kubelet's words.
    pub(crate) fn must_not_be_root(
        &self,
        pod: &Pod,
        container: &Container,
        image_user: &str,
    ) -> Result<(), String> {
        let Some(why) = self.breaks_non_root(image_user) else { return Ok(()) };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        Err(format!("{why} (pod: \"{name}_{namespace}({uid})\", container: {})", container.name))
    }

    /// Why it is not sure that it isn't root, in the kubelet's words (`verifyRunAsNonRoot`).
    fn breaks_non_root(&self, image_user: &str) -> Option<String> {
        match self {
            Who { user: 0, is_asked: true, .. } => {
                Some("container's runAsUser breaks non-root policy".into())
            }
            Who { is_number: false, .. } => {
                let name = image_user.split(':').next().unwrap_or_default();
                Some(format!(
                    "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is \
                     non-root"
                ))
            }
            Who { user: 0, .. } => Some("container has runAsNonRoot and image will run as root".into()),
            _ => None,
        }
    }
}

/// The filter of system calls: none unless one is asked for, as the kubelet has it without `--seccomp-default`.
fn seccomp(
    shared: &PodSecurityContext,
    own: &SecurityContext,
    capabilities: u64,
    read: ReadProfile<'_>,
) -> Result<Option<Seccomp>, String> {
    let Some(asked) = own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref()) else {
        return Ok(None);
    };
    match asked.type_.as_str() {
        "Unconfined" => Ok(None),
        "RuntimeDefault" => Ok(Some(runtime_default(capabilities))),
        "Localhost" => {
            let name = asked.localhost_profile.as_deref().unwrap_or_default();
            let wrong = |why: String| format!("seccompProfile {name:?}: {why}");
            let text = read(name).map_err(wrong)?;
            let profile: Seccomp = serde_json::from_str(&text).map_err(|why| wrong(why.to_string()))?;
            compile(&profile).map_err(|why| wrong(why.to_string()))?;
            Ok(Some(profile))
        }
        other => Err(format!("seccompProfile {other}: there is no such type")),
    }
}

/// The capabilities to keep, as containerd reckons (`internal/cri/server`): `ALL` first, then the others, added before
/// dropped.
fn capabilities(own: &SecurityContext, privileged: bool, agent: u64) -> Result<u64, String> {
    let default = DEFAULT.iter().filter_map(|name| capability(name)).fold(0, |all, bit| all | bit);
    if privileged {
        return Ok(agent);
    }
    let (mut bits, mut dropped) = (default & agent, 0);
    let Some(asked) = &own.capabilities else { return Ok(bits) };
    let is_all = |name: &&String| name.eq_ignore_ascii_case("ALL");
    let lists = [&asked.add, &asked.drop].map(|list| list.iter().flatten());
    if lists[0].clone().any(|name| is_all(&name)) {
        bits = agent;
    }
    if lists[1].clone().any(|name| is_all(&name)) {
        bits = 0;
    }
    for (list, sum) in lists.into_iter().zip([&mut bits, &mut dropped]) {
        for name in list.filter(|name| !is_all(name)) {
            *sum |= capability(name).ok_or_else(|| format!("unknown capability {name:?}"))?;
        }
    }
    let bits = bits & !dropped;
    if bits & !agent != 0 {
        return Err("capabilities: the host's agent doesn't have those to add itself".into());
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AGENT: u64 = 0x1ff_ffff_ffff;

    /// A host without AppArmor.
    struct Without;

    impl AppArmor for Without {
        fn is_enabled(&self) -> bool {
            false
        }

        fn has(&self, _: &str) -> Result<bool, String> {
            Err("it was asked".into())
        }

        fn load_default(&self) -> Result<(), String> {
            Err("it was asked".into())
        }
    }

    fn asked(image_user: &str, pod: Value, own: Value) -> Result<Security, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"securityContext": pod,
            "containers": [{"name": "c", "securityContext": own}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let accounts = Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n".into(),
            group: "root:x:0:\nadm:x:4:web,root\nweb:x:34:\n".into(),
        };
        let profile = |name: &str| match name {
            "mkdir.json" => Ok(r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}"#
                .to_owned()),
            "bad.json" => Ok(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.to_owned()),
            _ => Err("no such file".to_owned()),
        };
        let given = Given {
            image_user,
            accounts: &accounts,
            capabilities: AGENT,
            profile: &profile,
            app_armor: &Without,
        };
        Security::of(&pod, &pod.spec.as_ref().unwrap().containers[0], given)
    }

    #[test]
    fn the_user_is_the_pods_or_the_images() {
        for (image, own, user, first, all) in [
            ("", json!({}), 0, 0, vec![0, 4]),
            ("web", json!({}), 33, 34, vec![34, 4]),
            ("33", json!({}), 33, 34, vec![34, 4]),
            ("web:adm", json!({}), 33, 4, vec![4]),
            ("33:77", json!({}), 33, 77, vec![77, 4]),
            ("55", json!({}), 55, 0, vec![0]),
            // A pod that names a user gets the groups of the image's files, not the group that the image names.
            ("33:77", json!({"runAsUser": 33}), 33, 34, vec![34, 4]),
            ("web", json!({"runAsUser": 9, "runAsGroup": 8}), 9, 8, vec![8]),
        ] {
            let security = asked(image, json!({}), own.clone()).unwrap();
            let groups = (security.groups.first, security.groups.all);
            assert_eq!((security.user, groups), (user, (first, all)), "{image} {own}");
        }
        assert_eq!(asked("web", json!({}), json!({})).unwrap().home.as_deref(), Some("/srv"));
        assert!(asked("nobody", json!({}), json!({})).unwrap_err().contains("no user \"nobody\""));
        assert!(asked("0:staff", json!({}), json!({})).unwrap_err().contains("no group \"staff\""));
    }

    #[test]
    fn who_must_not_be_root_is_known_not_to_be() {
        let must = || json!({"runAsNonRoot": true});
        for (image, own, why) in [
            ("", json!({}), "image will run as root (pod: \"p_n(u)\", container: c)"),
            ("0:5", json!({}), "image will run as root"),
            ("web", json!({}), "image has non-numeric user (web), cannot verify user is non-root"),
            ("33", json!({"runAsUser": 0}), "container's runAsUser breaks non-root policy"),
        ] {
            let refused = asked(image, must(), own).unwrap_err();
            assert!(refused.contains(why), "{image}: {refused}");
        }
        assert!(asked("33", must(), json!({})).is_ok());
        assert!(asked("web", must(), json!({"runAsUser": 33})).is_ok());
    }

    #[test]
    fn capabilities_are_containerds_unless_others_are_asked_for() {
        let default = 0x0000_0000_a804_25fb;
        let bit = |name| capability(name).unwrap();
        for (own, keep) in [
            (json!({}), default),
            (json!({"capabilities": {"drop": ["ALL"]}}), 0),
            (
                json!({"capabilities": {"drop": ["all"], "add": ["NET_BIND_SERVICE"]}}),
                bit("NET_BIND_SERVICE"),
            ),
            (
                json!({"capabilities": {"drop": ["KILL"], "add": ["SYS_TIME"]}}),
                (default | bit("SYS_TIME")) & !bit("KILL"),
            ),
            (json!({"capabilities": {"add": ["ALL"], "drop": ["CAP_BPF"]}}), AGENT & !bit("BPF")),
            (json!({"privileged": true}), AGENT),
        ] {
            assert_eq!(asked("", json!({}), own.clone()).unwrap().capabilities, keep, "{own}");
        }
        assert!(asked("", json!({}), json!({"capabilities": {"add": ["FLY"]}})).is_err());
    }

    #[test]
    fn filters_of_system_calls_are_found_or_the_pod_is_refused() {
        let of = |profile: Value| asked("", json!({}), json!({"seccompProfile": profile}));
        assert_eq!(of(json!({"type": "Unconfined"})).unwrap().seccomp, None);
        assert!(of(json!({"type": "RuntimeDefault"})).unwrap().seccomp.is_some());
        let local = |name: &str| of(json!({"type": "Localhost", "localhostProfile": name}));
        assert_eq!(local("mkdir.json").unwrap().seccomp.unwrap().syscalls.len(), 1);
        assert!(local("none.json").unwrap_err().contains("\"none.json\": no such file"));
        assert!(local("bad.json").unwrap_err().contains("SCMP_ACT_NOTIFY"));
        let privileged = json!({"privileged": true, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(asked("", json!({}), privileged).unwrap().seccomp, None);
        assert!(asked("", json!({"seLinuxOptions": {"level": "s0"}}), json!({})).is_err());
        let of = |kind: &str| asked("", json!({"appArmorProfile": {"type": kind}}), json!({}));
        assert_eq!(of("Unconfined").unwrap().app_armor, None);
        assert!(of("RuntimeDefault").unwrap_err().starts_with("Cannot enforce AppArmor"));
    }
}
