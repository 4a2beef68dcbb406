//! What a pod's security context asks for: done, or the container is refused with the reason. Nothing of it is
//! passed over in silence.

use std::fs;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};

use super::Isolation;
use crate::container::rights::capability;
use crate::container::{Accounts, AskedProfile, Groups, id, more, of_pod};

/// Who a container runs as, and what it may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub groups: Vec<u32>,
    /// The capabilities that it keeps; all of the agent's if none are named.
    pub capabilities: Option<u64>,
    pub no_new_privileges: bool,
    pub read_only_root: bool,
}

/// What the agent itself may do, and knows.
#[derive(Debug, Clone)]
pub(crate) struct Powers {
    pub user: u32,
    pub group: u32,
    pub groups: Vec<u32>,
    /// Its capabilities.
    pub capabilities: u64,
    pub isolation: Isolation,
    /// The host's.
    pub accounts: Accounts,
}

impl Powers {
    /// Looks.
    pub(crate) fn read(isolation: Isolation) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        let groups = nix::unistd::getgroups().unwrap_or_default();
        Powers {
            user: nix::unistd::geteuid().as_raw(),
            group: nix::unistd::getegid().as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            capabilities: capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0),
            isolation,
            accounts: Accounts::of_host(),
        }
    }

    fn is_root(&self) -> bool {
        self.user == 0
    }
}

impl Security {
    /// What a container asks for, by its own context or the pod's.
    ///
    /// # Errors
    /// Why this host can't run it so.
    pub(crate) fn of(pod: &Pod, container: &Container, powers: &Powers) -> Result<Self, String> {
        let (none, nothing) = (PodSecurityContext::default(), SecurityContext::default());
        let shared = of_pod(pod).unwrap_or(&none);
        let own = container.security_context.as_ref().unwrap_or(&nothing);
        beyond_this_host(pod, container)?;
        let asked = id(own.run_as_user.or(shared.run_as_user));
        let user = asked.unwrap_or(powers.user);
        if own.run_as_non_root.or(shared.run_as_non_root) == Some(true) && user == 0 {
            return Err(match asked {
                Some(_) => "container's runAsUser breaks non-root policy".into(),
                None => "container has runAsNonRoot and would run as root, as the host's agent does: set runAsUser"
                    .into(),
            });
        }
        let (group, groups) = identity(user, shared, own, powers)?;
        let privileged = own.privileged == Some(true);
        if privileged && !powers.is_root() {
            return Err(
                "privileged: the host's agent does not run as root and has no privileges to give".into()
            );
        }
        let no_new_privileges = own.allow_privilege_escalation == Some(false);
        let read_only_root = own.read_only_root_filesystem == Some(true);
        if read_only_root && powers.isolation == Isolation::None {
            return Err("readOnlyRootFilesystem: this host allows no mount namespaces without root or user \
                        namespaces"
                .into());
        }
        let capabilities = if privileged { None } else { capabilities(own, no_new_privileges, powers)? };
        Ok(Security { user: asked, group, groups, capabilities, no_new_privileges, read_only_root })
    }
}

/// What no pod of this runtime can have.
fn beyond_this_host(pod: &Pod, container: &Container) -> Result<(), String> {
    let (none, nothing) = (PodSecurityContext::default(), SecurityContext::default());
    let shared = of_pod(pod).unwrap_or(&none);
    let own = container.security_context.as_ref().unwrap_or(&nothing);
    let seccomp = own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref());
    if let Some(profile) = seccomp.filter(|profile| profile.type_ != "Unconfined") {
        return Err(format!(
            "seccompProfile {}: processes of the host run without a filter of system calls; leave it out, or set \
             the type Unconfined",
            profile.type_
        ));
    }
    let app_armor = AskedProfile::of(pod, container)?;
    if let Some(profile) = app_armor.filter(|profile| *profile != AskedProfile::Unconfined) {
        return Err(format!(
            "appArmorProfile {profile}: processes of the host run without a profile; leave it out, or set the type \
             Unconfined"
        ));
    }
    if own.se_linux_options.is_some() || shared.se_linux_options.is_some() {
        return Err("seLinuxOptions: processes of the host keep the agent's label; leave them out".into());
    }
    if shared.sysctls.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(
            "sysctls: a pod of this runtime has no namespaces that they would be of; set them on the host"
                .into(),
        );
    }
    if pod.spec.as_ref().and_then(|spec| spec.host_users) == Some(false) {
        return Err("hostUsers: false: processes of the host are the host's own users; leave it out".into());
    }
    Ok(())
}

/// The group and all groups: those of the host's own files, as container runtimes take them from an image's.
fn identity(
    user: u32,
    shared: &PodSecurityContext,
    own: &SecurityContext,
    powers: &Powers,
) -> Result<(Option<u32>, Vec<u32>), String> {
    let asked = id(own.run_as_group.or(shared.run_as_group));
    if !powers.is_root() {
        let group = asked.unwrap_or(powers.group);
        if user != powers.user || group != powers.group {
            return Err(format!(
                "runAsUser {user}, runAsGroup {group}: only an agent that runs as root can change them"
            ));
        }
        let is_ours = |group: &u32| *group == powers.group || powers.groups.contains(group);
        return match more(shared).find(|group| !is_ours(group)) {
            Some(group) => Err(format!(
                "group {group} of supplementalGroups or fsGroup: only an agent that runs as root can give it"
            )),
            None => Ok((None, Vec::new())),
        };
    }
    let Groups { first, all } = powers.accounts.groups(user, asked, shared);
    Ok((Some(first), all))
}

/// The capabilities to keep, as containerd reckons: first `ALL`, then the others, added before dropped.
fn capabilities(own: &SecurityContext, no_new: bool, powers: &Powers) -> Result<Option<u64>, String> {
    let Some(asked) = &own.capabilities else { return Ok(None) };
    let bits = |list: &Option<Vec<String>>| -> Result<(bool, u64), String> {
        let (mut all, mut bits) = (false, 0);
        for name in list.iter().flatten() {
            match capability(name) {
                Some(bit) => bits |= bit,
                None if name.eq_ignore_ascii_case("ALL") => all = true,
                None => return Err(format!("unknown capability {name:?}")),
            }
        }
        Ok((all, bits))
    };
    let ((_, added), (drops_all, dropped)) = (bits(&asked.add)?, bits(&asked.drop)?);
    let lacking = added & !dropped & !powers.capabilities;
    if lacking != 0 {
        return Err("capabilities: the host's agent doesn't have those to add itself".into());
    }
    let keep = (if drops_all { 0 } else { powers.capabilities } | added) & !dropped;
    let drops = drops_all || dropped != 0;
    if !drops && (added == 0 || !powers.is_root()) {
        return Ok(None);
    }
    if !powers.is_root() && powers.isolation != Isolation::UserNamespace {
        // Without the right to bound them: a process that can't gain any has none to drop.
        return match no_new {
            true => Ok(None),
            false => Err("capabilities: an agent without root can't drop what set-uid programs give; set \
                          allowPrivilegeEscalation: false too"
                .into()),
        };
    }
    Ok(Some(keep))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn powers(user: u32) -> Powers {
        Powers {
            user,
            group: user,
            groups: vec![user, 7],
            capabilities: if user == 0 { 0x1ff_ffff_ffff } else { 0 },
            isolation: if user == 0 { Isolation::Privileged } else { Isolation::None },
            accounts: Accounts {
                passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/false\n".into(),
                group: "root:x:0:\nadm:x:4:web,root\nweb:x:34:\nwww:x:5:webmaster\n".into(),
            },
        }
    }

    fn asked(powers: &Powers, pod: Value, own: Value) -> Result<Security, String> {
        let pod = json!({"spec": {"hostUsers": pod.get("hostUsers"), "securityContext": pod,
            "containers": [{"name": "c", "securityContext": own}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        Security::of(&pod, &pod.spec.as_ref().unwrap().containers[0], powers)
    }

    #[test]
    fn groups_are_those_of_the_hosts_files_as_in_an_image() {
        for (pod, own, group, groups) in [
            (json!({}), json!({}), 0, vec![0, 4]),
            (json!({"runAsUser": 33}), json!({}), 34, vec![34, 4]),
            (json!({"runAsUser": 2345}), json!({}), 0, vec![0]),
            (json!({"runAsUser": 2345, "runAsGroup": 9}), json!({}), 9, vec![9]),
            (
                json!({"runAsUser": 1, "runAsGroup": 9}),
                json!({"runAsUser": 33, "runAsGroup": 8}),
                8,
                vec![8, 4],
            ),
            (
                json!({"supplementalGroups": [5, 5, 0], "fsGroup": 6}),
                json!({"runAsUser": 33}),
                34,
                vec![34, 4, 5, 0, 6],
            ),
            (
                json!({"runAsUser": 33, "supplementalGroupsPolicy": "Strict", "fsGroup": 6}),
                json!({}),
                34,
                vec![34, 6],
            ),
        ] {
            let security = asked(&powers(0), pod.clone(), own).unwrap();
            assert_eq!((security.group, security.groups), (Some(group), groups), "{pod}");
        }
    }

    #[test]
    fn capabilities_are_those_that_are_asked_for() {
        let all = powers(0).capabilities;
        let bind = capability("NET_BIND_SERVICE").unwrap();
        for (own, keep) in [
            (json!({}), None),
            (json!({"drop": ["ALL"]}), Some(0)),
            (json!({"drop": ["all"], "add": ["NET_BIND_SERVICE"]}), Some(bind)),
            (json!({"drop": ["ALL"], "add": ["cap_net_bind_service"]}), Some(bind)),
            (json!({"drop": ["NET_BIND_SERVICE"]}), Some(all & !bind)),
            (json!({"add": ["ALL"], "drop": ["NET_BIND_SERVICE"]}), Some(all & !bind)),
            (json!({"add": ["SYS_TIME"]}), Some(all)),
        ] {
            let security = asked(&powers(0), json!({}), json!({"capabilities": own})).unwrap();
            assert_eq!(security.capabilities, keep, "{own}");
        }
        let privileged = json!({"privileged": true, "capabilities": {"drop": ["ALL"]}});
        assert_eq!(asked(&powers(0), json!({}), privileged).unwrap().capabilities, None);
    }

    #[test]
    fn what_this_host_can_not_do_is_refused_with_the_reason() {
        let (root, user) = (powers(0), powers(1000));
        for (powers, pod, own, why) in [
            (
                &root,
                json!({"seccompProfile": {"type": "RuntimeDefault"}}),
                json!({}),
                "seccompProfile RuntimeDefault",
            ),
            (&root, json!({}), json!({"seccompProfile": {"type": "Localhost"}}), "seccompProfile Localhost"),
            (&root, json!({}), json!({"appArmorProfile": {"type": "RuntimeDefault"}}), "appArmorProfile"),
            (&root, json!({"seLinuxOptions": {"level": "s0"}}), json!({}), "seLinuxOptions"),
            (&root, json!({"sysctls": [{"name": "a", "value": "b"}]}), json!({}), "sysctls"),
            (&root, json!({"hostUsers": false}), json!({}), "hostUsers"),
            (&root, json!({"runAsNonRoot": true}), json!({}), "would run as root"),
            (&root, json!({"runAsNonRoot": true}), json!({"runAsUser": 0}), "breaks non-root policy"),
            (&root, json!({}), json!({"capabilities": {"add": ["FLY"]}}), "unknown capability \"FLY\""),
            (&user, json!({"runAsUser": 2}), json!({}), "only an agent that runs as root"),
            (&user, json!({"fsGroup": 8}), json!({}), "group 8"),
            (&user, json!({}), json!({"privileged": true}), "privileged"),
            (&user, json!({}), json!({"capabilities": {"add": ["NET_ADMIN"]}}), "doesn't have those"),
            (&user, json!({}), json!({"capabilities": {"drop": ["ALL"]}}), "allowPrivilegeEscalation"),
            (&user, json!({}), json!({"readOnlyRootFilesystem": true}), "no mount namespaces"),
        ] {
            let refused = asked(powers, pod.clone(), own.clone()).unwrap_err();
            assert!(refused.contains(why), "{pod} {own}: {refused}");
        }
        for (powers, pod, own) in [
            (&root, json!({"seccompProfile": {"type": "Unconfined"}}), json!({"privileged": true})),
            (&root, json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false})),
            (
                &root,
                json!({"seccompProfile": {"type": "RuntimeDefault"}}),
                json!({"seccompProfile": {"type": "Unconfined"}}),
            ),
            (&user, json!({"runAsUser": 1000, "runAsNonRoot": true, "fsGroup": 7}), json!({})),
            (&user, json!({}), json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})),
        ] {
            let refused = asked(powers, pod.clone(), own.clone()).err();
            assert_eq!(refused, None, "{pod} {own}");
        }
    }
}
