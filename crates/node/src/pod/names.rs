//! The parts of a pod that every module asks for.

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

/// The id of one life of a container.
pub(crate) fn container_id(uid: &str, container: &str, attempt: u32) -> String {
    format!("host://{uid}/{container}/{attempt}")
}

/// Whether an init container is a sidecar: one that keeps running (KEP-753).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Init containers, then the others.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    init.iter().chain(spec.map(|s| s.containers.as_slice()).unwrap_or_default())
}

/// One container of the pod.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|c| c.name == name)
}
