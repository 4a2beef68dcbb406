//! What runs a pod, by the handler of its RuntimeClass.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use objects::Reader;
use store::State;

use super::PodHost;

/// The runtimes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    /// Processes of the host.
    Host,
    /// Containers with a root of their own.
    Oci,
}

impl Handler {
    /// The pod's: `oci` if it names no class.
    ///
    /// # Errors
    /// Why there is none on this host.
    pub(super) fn of(pod: &Pod, state: &State) -> Result<Self, String> {
        let name = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            return Ok(Handler::Oci);
        }
        let class = Reader::<RuntimeClass>::get(state, "", name);
        // The class `host` may be gone while pods of it run.
        match class.as_ref().map_or(name, |class| class.handler.as_str()) {
            "host" => Ok(Handler::Host),
            "oci" if class.is_some() => Ok(Handler::Oci),
            _ => Err(format!(
                "RuntimeClass {name:?} has no runtime on this host: hosts have the handlers \"oci\" (as pods without \
                 a class) and \"host\""
            )),
        }
    }
}

/// Why this host won't run the pod, if it won't.
pub(super) fn refusal(host: &PodHost, pod: &Pod, state: &State) -> Option<String> {
    match Handler::of(pod, state) {
        Ok(Handler::Host) => None,
        Ok(Handler::Oci) => host.containers.as_ref().err().map(|why| {
            format!(
                "this host runs no containers: {why}. Processes of the host run without (spec.runtimeClassName: host)"
            )
        }),
        Err(why) => Some(why),
    }
}
