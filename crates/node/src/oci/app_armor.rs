//! Which of AppArmor's profiles a container gets, without I/O, as the kubelet and containerd decide it
//! (`pkg/security/apparmor`; `generateApparmorSpecOpts`).

use k8s_openapi::api::core::v1::Pod;

use crate::container::{AskedProfile, needs_app_armor};

/// The name of the profile of containers that ask for no other.
pub(super) const DEFAULT: &str = "holdfast-default";
/// What it allows: as Docker's and containerd's own, all but what leads out of a container.
pub(super) const DEFAULT_POLICY: &str = include_str!("app_armor.policy");

/// Why a host can't enforce anything.
const NOT_ENABLED: &str = "AppArmor is not enabled on the host";

/// What a host has of AppArmor.
pub(crate) trait AppArmor {
    /// Whether its kernel holds processes to profiles.
    fn is_enabled(&self) -> bool;

    /// Whether somebody loaded this profile.
    ///
    /// # Errors
    /// Why it can't be said.
    fn has(&self, profile: &str) -> Result<bool, String>;

    /// Loads the default profile unless it is there.
    ///
    /// # Errors
    /// Why it can't be loaded.
    fn load_default(&self) -> Result<(), String>;
}

/// Why a pod can't run on a host at all, if it can't.
pub(crate) fn refused_by_app_armor(pod: &Pod, is_enabled: bool) -> Option<String> {
    (!is_enabled && needs_app_armor(pod)).then(|| format!("Cannot enforce AppArmor: {NOT_ENABLED}"))
}

/// The profile of a container's program; none if it is held to none.
///
/// # Errors
/// Why it can't be had.
pub(super) fn profile(
    asked: Option<AskedProfile<'_>>,
    is_privileged: bool,
    host: &dyn AppArmor,
) -> Result<Option<String>, String> {
    let default = || host.load_default().map(|()| Some(DEFAULT.to_owned()));
    match asked {
        None | Some(AskedProfile::Unconfined) if !host.is_enabled() => Ok(None),
        _ if !host.is_enabled() => Err(format!("Cannot enforce AppArmor: {NOT_ENABLED}")),
        Some(AskedProfile::Unconfined) => Ok(None),
        // In containerd's words. A privileged container is held to what it names, and to nothing else.
        Some(AskedProfile::Localhost(name)) => match host.has(name)? {
            true => Ok(Some(name.to_owned())),
            false => Err(format!(
                "apparmor profile not found {name}: load it on this host (apparmor_parser -r FILE)"
            )),
        },
        _ if is_privileged => Ok(None),
        Some(AskedProfile::RuntimeDefault) => default(),
        // Nobody asked for it: a host that lacks what loads it runs its containers all the same.
        None => Ok(default().unwrap_or_default()),
    }
}

/// The names in the kernel's list of profiles: one a line, and how it is held to.
pub(super) fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        is_enabled: bool,
        has_parser: bool,
    }

    impl AppArmor for Host {
        fn is_enabled(&self) -> bool {
            self.is_enabled
        }

        fn has(&self, profile: &str) -> Result<bool, String> {
            Ok(names("docker-default (enforce)\nmy web (x) (complain)\n:ns://other (enforce)\n")
                .any(|name| name == profile))
        }

        fn load_default(&self) -> Result<(), String> {
            if self.has_parser { Ok(()) } else { Err("there is no parser".into()) }
        }
    }

    #[test]
    fn what_is_asked_for_is_had_or_refused() {
        use AskedProfile::{Localhost, RuntimeDefault, Unconfined};
        let full = Host { is_enabled: true, has_parser: true };
        let bare = Host { has_parser: false, ..full };
        let none = Host { is_enabled: false, has_parser: true };
        let (default, missing) = (Ok(Some(DEFAULT)), "apparmor profile not found mine");
        for (asked, is_privileged, host, told) in [
            (None, false, &full, default),
            (None, true, &full, Ok(None)),
            (None, false, &bare, Ok(None)),
            (None, false, &none, Ok(None)),
            (Some(RuntimeDefault), false, &full, default),
            (Some(RuntimeDefault), true, &full, Ok(None)),
            (Some(RuntimeDefault), false, &bare, Err("there is no parser")),
            (Some(RuntimeDefault), false, &none, Err("Cannot enforce AppArmor: AppArmor is not enabled")),
            (Some(Unconfined), false, &full, Ok(None)),
            (Some(Unconfined), false, &none, Ok(None)),
            (Some(Localhost("docker-default")), false, &bare, Ok(Some("docker-default"))),
            (Some(Localhost("my web (x)")), true, &full, Ok(Some("my web (x)"))),
            (Some(Localhost("mine")), true, &full, Err(missing)),
            (
                Some(Localhost("docker-default")),
                false,
                &none,
                Err("Cannot enforce AppArmor: AppArmor is not"),
            ),
        ] {
            let given = profile(asked, is_privileged, host);
            match (&given, told) {
                (Ok(given), Ok(told)) => assert_eq!(given.as_deref(), told, "{asked:?}"),
                (Err(given), Err(told)) => assert!(given.starts_with(told), "{asked:?}: {given}"),
                _ => panic!("{asked:?}: {given:?}, not {told:?}"),
            }
        }
    }

    #[test]
    fn only_who_asks_for_a_profile_is_refused_where_there_are_none() {
        let pod = |kind: &str| -> Pod {
            let profile = serde_json::json!({"appArmorProfile": {"type": kind}});
            serde_json::from_value(
                serde_json::json!({"spec": {"containers": [], "securityContext": profile}}),
            )
            .unwrap()
        };
        let why = Some("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
        assert_eq!(refused_by_app_armor(&pod("RuntimeDefault"), false), why);
        assert_eq!(refused_by_app_armor(&pod("RuntimeDefault"), true), None);
        assert_eq!(refused_by_app_armor(&pod("Unconfined"), false), None);
    }
}
