//! The parts of a pod that every module asks for.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, Pod};

/// The pod's uid, or nothing.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `namespace/name`.
pub(crate) fn subject(pod: &Pod) -> String {
    let of = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}/{}", of(&pod.metadata.namespace), of(&pod.metadata.name))
}

/// The longest host name that Linux takes.
const LONGEST_HOSTNAME: usize = 63;

/// The host name that the pod names whatever else it says (KEP-4762). The API lets it have 64 characters, which Linux takes.
fn overridden(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.hostname_override.as_deref().filter(|name| !name.is_empty())
}

/// The host name of the pod's processes: `spec.hostnameOverride`, `spec.hostname`, or its own name, cut off where Linux does.
pub(crate) fn hostname(pod: &Pod) -> String {
    if let Some(name) = overridden(pod) {
        return name.to_owned();
    }
    let asked = pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let name = asked.or(pod.metadata.name.as_deref()).unwrap_or_default();
    name[..name.floor_char_boundary(LONGEST_HOSTNAME)].trim_end_matches(['-', '.']).to_owned()
}

/// What makes the pod's host name a full one, if it is under a subdomain.
pub(crate) fn domain(pod: &Pod) -> Option<String> {
    if overridden(pod).is_some() {
        return None;
    }
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{subdomain}.{namespace}.svc.{}", dns::DOMAIN))
}

/// The id of one life of a container.
pub(crate) fn container_id(uid: &str, container: &str, attempt: u32) -> String {
    format!("host://{uid}/{container}/{attempt}")
}

/// Whether an init container is a sidecar: one that keeps running (KEP-753).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Init containers, then the others, then those that somebody added to look inside.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = Cow<'_, Container>> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let mains = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    init.iter().chain(mains).map(Cow::Borrowed).chain(ephemeral_containers(pod).map(Cow::Owned))
}

/// The containers that were added to look inside (`ephemeralContainers`), as containers that never restart.
pub(crate) fn ephemeral_containers(pod: &Pod) -> impl Iterator<Item = Container> {
    let list = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    list.cloned().map(|added| Container {
        args: added.args,
        command: added.command,
        env: added.env,
        env_from: added.env_from,
        image: added.image,
        image_pull_policy: added.image_pull_policy,
        name: added.name,
        restart_policy: Some("Never".into()),
        security_context: added.security_context,
        stdin: added.stdin,
        stdin_once: added.stdin_once,
        termination_message_path: added.termination_message_path,
        termination_message_policy: added.termination_message_policy,
        tty: added.tty,
        volume_devices: added.volume_devices,
        volume_mounts: added.volume_mounts,
        working_dir: added.working_dir,
        // The API allows them no more than that.
        ..Container::default()
    })
}

/// The container whose processes one that was added to look inside wants to see (`targetContainerName`), if each has its own: else it
/// sees them anyway.
pub(crate) fn target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let added = spec.ephemeral_containers.iter().flatten().find(|added| added.name == name)?;
    let is_wanted = [spec.share_process_namespace, spec.host_pid].iter().all(|shares| *shares != Some(true));
    added.target_container_name.as_deref().filter(|target| is_wanted && !target.is_empty())
}

/// One container of the pod.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    all_containers(pod).find(|c| c.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_added_later_has_a_target_and_only_where_processes_are_not_shared_anyway() {
        let of = |more: serde_json::Value, name: &str| {
            let mut spec = serde_json::json!({"containers": [{"name": "main"}], "ephemeralContainers": [{"name": "none"},
                {"name": "empty", "targetContainerName": ""}, {"name": "debug", "targetContainerName": "main"}]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let pod = serde_json::from_value(serde_json::json!({"spec": spec})).unwrap();
            target(&pod, name).map(str::to_owned)
        };
        assert_eq!(of(serde_json::json!({}), "debug").as_deref(), Some("main"));
        for name in ["main", "none", "empty"] {
            assert_eq!(of(serde_json::json!({}), name), None, "{name}");
        }
        for shared in ["shareProcessNamespace", "hostPID"] {
            assert_eq!(of(serde_json::json!({shared: true}), "debug"), None, "{shared}");
            assert!(of(serde_json::json!({shared: false}), "debug").is_some(), "{shared}");
        }
    }

    #[test]
    fn a_host_name_that_is_named_comes_before_all_others() {
        let pod = |spec: serde_json::Value| {
            serde_json::from_value(
                serde_json::json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec}),
            )
            .unwrap()
        };
        let mut spec = serde_json::json!({"containers": [], "hostname": "web", "subdomain": "webs"});
        let named: Pod = pod(spec.clone());
        assert_eq!(
            (hostname(&named), domain(&named)),
            ("web".into(), Some("webs.d.svc.cluster.local".into()))
        );
        spec["hostnameOverride"] = "db.example.org".into();
        let named: Pod = pod(spec);
        assert_eq!((hostname(&named), domain(&named)), ("db.example.org".into(), None));
    }

    #[test]
    fn a_host_name_is_never_longer_than_linux_takes() {
        let of = |name: &str| {
            hostname(&serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap())
        };
        assert_eq!(of("web-0"), "web-0");
        assert_eq!(of(&"x".repeat(70)), "x".repeat(63));
        assert_eq!(of(&format!("{}-.-y", "x".repeat(60))), "x".repeat(60));
    }
}
