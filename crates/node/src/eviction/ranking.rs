//! Whose turn it is: the kubelet's order (`pkg/kubelet/eviction/helpers.go`, `rankMemoryPressure` and its siblings).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::signals::Signal;
use crate::container::in_units;
use crate::pod::is_sidecar;

/// From this priority on a pod is the system's own (`SystemCriticalPriority`).
const CRITICAL: i32 = 2_000_000_000;

/// What a pod uses, and what it asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Consumption {
    pub priority: i32,
    /// Of memory in bytes: used, and requested.
    pub memory: (u64, u64),
    /// Of the disk in bytes: used, and requested.
    pub disk: (u64, u64),
    pub inodes: u64,
    pub processes: u64,
    /// Whether it has more on the disk than was looked at: then nobody knows how much.
    pub is_unseen: bool,
}

/// Who goes before whom: the smaller key is first. Where the disk is short, those of which nobody can see how much they take; those that use more than they asked for, then those of lower priority, then those
/// that use the most beyond what they asked for.
pub(crate) fn turn(signal: Signal, pod: &Consumption) -> impl Ord + use<> {
    let beyond = |(used, asked): (u64, u64)| (used <= asked, i128::from(used) - i128::from(asked));
    let (is_within, most) = match signal {
        Signal::Memory => beyond(pod.memory),
        Signal::Nodefs | Signal::Imagefs => beyond(pod.disk),
        // Nobody can ask for these.
        Signal::NodefsInodes | Signal::ImagefsInodes => (pod.inodes == 0, i128::from(pod.inodes)),
        Signal::Pid => (false, i128::from(pod.processes)),
    };
    (!(signal.is_disk() && pod.is_unseen), is_within, pod.priority, Reverse(most))
}

/// Whether a pod is never evicted.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    priority(pod) >= CRITICAL
}

pub(crate) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

type Amounts = BTreeMap<String, Quantity>;

fn amount(of: Option<&Amounts>, name: &str) -> Option<u64> {
    u64::try_from(in_units(&of?.get(name)?.0, "1")?).ok()
}

/// What a pod asked for (`resource.PodRequests`): its containers together, or its init containers at most.
pub(crate) fn requested(pod: &Pod, name: &str) -> u64 {
    summed(pod, name, |resources| resources.requests.as_ref()).unwrap_or(0)
}

/// What a pod may take (`resource.PodLimits`): of the containers that have a limit.
pub(crate) fn limited(pod: &Pod, name: &str) -> Option<u64> {
    summed(pod, name, |resources| resources.limits.as_ref())
}

fn summed(pod: &Pod, name: &str, part: impl Fn(&ResourceRequirements) -> Option<&Amounts>) -> Option<u64> {
    let spec = pod.spec.as_ref()?;
    let of = |resources: Option<&ResourceRequirements>| amount(resources.and_then(&part), name);
    let add = |sum: Option<u64>, more: Option<u64>| match (sum, more) {
        (None, more) => more,
        (sum, None) => sum,
        (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
    };
    let mut all = spec.containers.iter().map(|one| of(one.resources.as_ref())).fold(None, add);
    let (mut sidecars, mut peak) = (None, None);
    for init in spec.init_containers.iter().flatten() {
        let own = of(init.resources.as_ref());
        peak = peak.max(add(sidecars, own));
        if is_sidecar(init) {
            sidecars = add(sidecars, own);
        }
    }
    all = add(all, sidecars).max(peak);
    let all = of(spec.resources.as_ref()).or(all);
    all.map(|all| all.saturating_add(amount(spec.overhead.as_ref(), name).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(signal: Signal, pods: &[(&'static str, Consumption)]) -> Vec<&'static str> {
        let mut pods = pods.to_vec();
        pods.sort_by_key(|(_, pod)| turn(signal, pod));
        pods.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn who_uses_more_than_was_asked_for_goes_first_then_lower_priority_then_the_larger() {
        let memory =
            |priority, used, asked| Consumption { priority, memory: (used, asked), ..Consumption::default() };
        let pods = [
            ("within, small", memory(0, 10, 100)),
            ("within, large", memory(0, 90, 100)),
            ("within, low", memory(-1, 5, 100)),
            ("beyond, high", memory(1000, 500, 100)),
            ("beyond, most", memory(5, 200, 0)),
            ("beyond, little", memory(5, 300, 250)),
        ];
        assert_eq!(
            order(Signal::Memory, &pods),
            [
                "beyond, most",
                "beyond, little",
                "beyond, high",
                "within, low",
                "within, large",
                "within, small"
            ]
        );
    }

    #[test]
    fn who_has_more_on_the_disk_than_is_looked_at_goes_first_where_that_is_short() {
        let of = |is_unseen, used| Consumption {
            is_unseen,
            disk: (used, 0),
            memory: (used, 0),
            priority: is_unseen.into(),
            ..Consumption::default()
        };
        let pods = [("seen", of(false, 100)), ("unseen", of(true, 1))];
        for signal in [Signal::Nodefs, Signal::NodefsInodes, Signal::Imagefs, Signal::ImagefsInodes] {
            assert_eq!(order(signal, &pods), ["unseen", "seen"], "{signal:?}");
        }
        assert_eq!(order(Signal::Memory, &pods), ["seen", "unseen"]);
    }

    #[test]
    fn nobody_asks_for_processes_and_inodes() {
        let of = |priority, processes, inodes| Consumption {
            priority,
            processes,
            inodes,
            ..Consumption::default()
        };
        let pods =
            [("few", of(0, 2, 9)), ("many", of(0, 50, 3)), ("high", of(7, 99, 99)), ("none", of(0, 1, 0))];
        assert_eq!(order(Signal::Pid, &pods), ["many", "few", "none", "high"]);
        assert_eq!(order(Signal::NodefsInodes, &pods), ["few", "many", "high", "none"]);
    }

    #[test]
    fn a_pod_asks_for_what_its_containers_do() {
        let with =
            |name: &str, memory: &str| json!({"name": name, "resources": {"requests": {"memory": memory}}});
        let mut sidecar = with("s", "4");
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({"spec": {"containers": [with("a", "10"), with("b", "20"), {"name": "c"}],
            "initContainers": [sidecar, with("i", "40")], "overhead": {"memory": "1"}}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(requested(&pod, "memory"), 45, "the init container, beside the sidecar");
        assert_eq!((requested(&pod, "ephemeral-storage"), limited(&pod, "ephemeral-storage")), (0, None));
        let limits = json!({"limits": {"ephemeral-storage": "7"}});
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": limits}, {"name": "b"}], "priority": CRITICAL}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(limited(&pod, "ephemeral-storage"), Some(7), "of those that have one");
        assert!(is_critical(&pod));
    }
}
