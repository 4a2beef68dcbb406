//! What runs a pod, by the handler of its RuntimeClass.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use objects::Reader;
use store::State;

use super::PodHost;
use super::closing;
use super::entry::{Entry, evicted};
use super::resizing::{all_take, takes};
use crate::eviction::{self, Pressures, is_critical};
use crate::pod::{Failure, is_over};

/// The runtimes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    /// Processes of the host.
    Host,
    /// Containers with a root of their own.
    Oci,
    /// Those of a runtime of others, where the host has one.
    Foreign,
}

impl Handler {
    /// The pod's. If it names no class: `oci`, unless the host has a runtime of others.
    ///
    /// # Errors
    /// Why there is none on this host.
    fn of(pod: &Pod, state: &State, has_foreign: bool) -> Result<Self, String> {
        let name = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            return Ok(if has_foreign { Handler::Foreign } else { Handler::Oci });
        }
        let class = Reader::<RuntimeClass>::get(state, "", name);
        // The class `host` may be gone while pods of it run.
        match class.as_ref().map_or(name, |class| class.handler.as_str()) {
            "host" => Ok(Handler::Host),
            "oci" if class.is_some() => Ok(Handler::Oci),
            // That one knows its handlers, and refuses others.
            _ if has_foreign && class.is_some() => Ok(Handler::Foreign),
            _ => Err(format!(
                "RuntimeClass {name:?} has no runtime on this host: hosts have the handlers \"oci\" (as pods without \
                 a class) and \"host\""
            )),
        }
    }
}

impl PodHost {
    /// What runs a pod on this host.
    ///
    /// # Errors
    /// Why nothing does.
    pub(super) fn handler(&self, pod: &Pod, state: &State) -> Result<Handler, String> {
        Handler::of(pod, state, self.foreign_images.is_some())
    }

    /// What the runtime of others calls the handler of a pod; empty for its own choice.
    pub(super) fn foreign_handler(&self, pod: &Pod) -> String {
        let name = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
        let class = Reader::<RuntimeClass>::get(&self.store.snapshot(), "", name);
        class.map(|class| class.handler).filter(|handler| handler != CRI).unwrap_or_default()
    }
}

/// The handler of a RuntimeClass for the runtime of others, whichever of its own handlers it takes.
const CRI: &str = "cri";

/// Why this host won't run the pod, if it won't.
pub(super) fn refusal(host: &PodHost, pod: &Pod, state: &State) -> Option<String> {
    match host.handler(pod, state) {
        Ok(Handler::Host | Handler::Foreign) => None,
        Ok(Handler::Oci) => host.containers.as_ref().err().map(|why| {
            format!(
                "this host runs no containers: {why}. Processes of the host run without (spec.runtimeClassName: host)"
            )
        }),
        Err(why) => Some(why),
    }
}

/// The taint of a host that is short of memory.
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// Has a pod fail at once that asks for what it may not have, or comes to a host which is short of something, in the kubelet's words
/// (`managerImpl.Admit`). Those of the system may come to such a host.
pub(super) fn admit(host: &PodHost, entry: &mut Entry, others: &HashMap<String, Entry>) {
    let pressures = *host.pressures.borrow();
    if is_over(&entry.pod) || entry.pod.metadata.deletion_timestamp.is_some() {
        return;
    }
    if *host.closing.borrow() {
        let failure = closing::refused();
        host.tell(&entry.pod, None, true, failure.reason, failure.message.clone());
        entry.record.failed = Some(failure);
        return;
    }
    if let Some(failure) = host.rejection(&entry.pod).or_else(|| too_much(host, entry, others)) {
        host.tell(&entry.pod, None, true, failure.reason, failure.message.clone());
        let message = format!("Pod was rejected: {}", failure.message);
        entry.record.failed = Some(Failure { message, ..failure });
        return;
    }
    if !refuses(pressures, &entry.pod) {
        return;
    }
    let message = format!("The node had condition: [{}]. ", pressures.names().join(" "));
    evicted(host, entry, eviction::evicted(message, false), Duration::ZERO, host.clock.now());
}

/// Why the host hasn't got what a pod asks for beside the others, in the kubelet's words (`lifecycle.NewPredicateAdmitHandler`). The scheduler
/// sees to that for pods that it places; this is for those that name their node. What is critical is let in.
fn too_much(host: &PodHost, entry: &Entry, others: &HashMap<String, Entry>) -> Option<Failure> {
    if is_critical(&entry.pod) {
        return None;
    }
    // Of what is gone, over or failed the scheduler may have given the room away already.
    let leaves = |one: &&Entry| one.gone || one.released || one.record.failed.is_some() || is_over(&one.pod);
    let (wants, used) = (takes(entry), all_take(others.values().filter(|one| !leaves(one))));
    let cpu = ("cpu", "OutOfcpu", wants.cpu_request, used.0, host.capacity.0);
    let memory = ("memory", "OutOfmemory", wants.memory_request, used.1, host.capacity.1);
    let lacks = |(_, _, wants, used, capacity): &(_, _, u64, u64, u64)| {
        *wants > 0 && wants.saturating_add(*used) > *capacity
    };
    let (name, reason, wants, used, capacity) = [cpu, memory].into_iter().find(lacks)?;
    let amounts = format!("{name}, requested: {wants}, used: {used}, capacity: {capacity}");
    let message = format!("Node didn't have enough resource: {amounts}");
    Some(Failure { reason, message, is_disruption: false })
}

fn refuses(pressures: Pressures, pod: &Pod) -> bool {
    if pressures == Pressures::default() || is_critical(pod) {
        return false;
    }
    if pressures != (Pressures { memory: true, ..Pressures::default() }) {
        return true;
    }
    // Who asked for memory may come where memory alone is short, and who says that it bears that.
    let class = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    let mut tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    class == Some("BestEffort")
        && !tolerations.any(|one| {
            let key = one.key.as_deref().unwrap_or_default();
            let is_of_all = key.is_empty() && one.operator.as_deref() == Some("Exists");
            let effect = one.effect.as_deref().unwrap_or_default();
            (is_of_all || key == MEMORY_PRESSURE) && matches!(effect, "" | "NoSchedule")
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_goes_to_the_runtime_of_others_unless_its_class_is_one_of_ours() {
        let mut state = State::default();
        for name in ["host", "oci", "kata"] {
            let class = json!({"metadata": {"name": name}, "handler": name});
            let key = objects::key("node.k8s.io", "runtimeclasses", "", name);
            state.apply(&store::Txn::put(key, class.to_string())).unwrap();
        }
        let of = |class: Option<&str>, has_foreign| {
            let pod = json!({"spec": {"containers": [], "runtimeClassName": class}});
            Handler::of(&serde_json::from_value(pod).unwrap(), &state, has_foreign)
        };
        assert_eq!((of(None, false), of(None, true)), (Ok(Handler::Oci), Ok(Handler::Foreign)));
        assert_eq!((of(Some("oci"), true), of(Some("host"), true)), (Ok(Handler::Oci), Ok(Handler::Host)));
        assert_eq!(of(Some("kata"), true), Ok(Handler::Foreign));
        assert!(of(Some("kata"), false).is_err() && of(Some("none"), true).is_err());
    }

    #[test]
    fn a_host_that_is_short_of_something_takes_only_whom_it_must() {
        let pod = |class: &str, spec: Value| -> Pod {
            let mut pod = json!({"spec": {"containers": []}, "status": {"qosClass": class}});
            pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            serde_json::from_value(pod).unwrap()
        };
        let none = Pressures::default();
        let (memory, disk) = (Pressures { memory: true, ..none }, Pressures { disk: true, ..none });
        let both = Pressures { memory: true, ..disk };
        let plain = pod("BestEffort", json!({}));
        let tolerates =
            json!({"tolerations": [{"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"}]});
        assert!(!refuses(none, &plain) && refuses(memory, &plain) && refuses(disk, &plain));
        for pod in [pod("Burstable", json!({})), pod("BestEffort", tolerates)] {
            assert!(!refuses(memory, &pod) && refuses(disk, &pod) && refuses(both, &pod), "{pod:?}");
        }
        let critical = pod("BestEffort", json!({"priority": 2_000_001_000}));
        assert!(!refuses(both, &critical));
    }
}
