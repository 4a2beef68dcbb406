//! What a pod's requests and limits mean to the kernel, as the kubelet has it (`pkg/kubelet/cm/helpers_linux.go`,
//! `kuberuntime_container_linux.go`): without I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::container::quantity::in_units;

/// The period in which a quota of processor time is given, in microseconds.
const PERIOD: u64 = 100_000;
/// The least quota that the kernel takes.
const LEAST_QUOTA: u64 = 1_000;
/// The least and the most shares of cgroup v1, in which requests are counted first.
const SHARES: (u64, u64) = (2, 262_144);

/// Values for files of a cgroup, by the files' names.
pub(super) type Values = Vec<(&'static str, String)>;

/// What of the machine a pod, or a container of it, asks for. Processors are counted in thousandths, memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// Requested processor time.
    pub cpu_request: u64,
    /// Requested memory.
    pub memory_request: u64,
    /// The most processor time, if there is a limit.
    pub cpu: Option<u64>,
    /// The most memory, if there is a limit.
    pub memory: Option<u64>,
}

/// What a container asks for.
pub(crate) fn of_container(container: &Container) -> Amounts {
    Amounts::of(container.resources.as_ref())
}

/// What all of a pod's containers ask for together. A limit is there if each of them has one, or if the pod as a whole
/// names it (KEP-2837).
pub(crate) fn of_pod(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let amounts = |container: &Container| Amounts::of(container.resources.as_ref());
    let mut all = spec.containers.iter().map(amounts).fold(Amounts::none(), Amounts::and);
    let (mut sidecars, mut peak) = (Amounts::none(), Amounts::none());
    for init in spec.init_containers.iter().flatten() {
        let now = sidecars.and(amounts(init));
        peak = peak.or(now);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = now;
        }
    }
    all = all.and(sidecars).or(peak);
    let whole = spec.resources.as_ref();
    let requested = |name, unit| whole.and_then(|whole| amount(whole.requests.as_ref(), name, unit));
    all.cpu_request = requested("cpu", "1m").unwrap_or(all.cpu_request);
    all.memory_request = requested("memory", "1").unwrap_or(all.memory_request);
    all.cpu = whole.and_then(|whole| amount(whole.limits.as_ref(), "cpu", "1m")).or(all.cpu);
    all.memory = whole.and_then(|whole| amount(whole.limits.as_ref(), "memory", "1")).or(all.memory);
    let over = spec.overhead.as_ref();
    let add = |limit: &mut Option<u64>, over: Option<u64>| {
        *limit = limit.map(|limit| limit.saturating_add(over.unwrap_or(0)));
    };
    let (cpu, memory) = (amount(over, "cpu", "1m"), amount(over, "memory", "1"));
    all.cpu_request = all.cpu_request.saturating_add(cpu.unwrap_or(0));
    all.memory_request = all.memory_request.saturating_add(memory.unwrap_or(0));
    add(&mut all.cpu, cpu);
    add(&mut all.memory, memory);
    all
}

fn amount(of: Option<&BTreeMap<String, Quantity>>, name: &str, unit: &str) -> Option<u64> {
    let value = in_units(&of?.get(name)?.0, unit)?;
    // Zero is no limit, and requests nothing.
    u64::try_from(value).ok().filter(|value| *value > 0)
}

impl Amounts {
    /// Of nobody at all: whose limits add up to nothing, which is a limit.
    fn none() -> Self {
        Amounts { cpu: Some(0), memory: Some(0), ..Amounts::default() }
    }

    /// What is asked for in these words. Who names a limit alone requests as much.
    pub(crate) fn of(resources: Option<&ResourceRequirements>) -> Self {
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let (cpu, memory) = (amount(limits, "cpu", "1m"), amount(limits, "memory", "1"));
        let request = |name, unit, limit| match requests.is_some_and(|requests| requests.contains_key(name)) {
            true => amount(requests, name, unit),
            false => limit,
        };
        Amounts {
            cpu_request: request("cpu", "1m", cpu).unwrap_or(0),
            memory_request: request("memory", "1", memory).unwrap_or(0),
            cpu,
            memory,
        }
    }

    /// Both at the same time.
    fn and(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        Amounts {
            cpu_request: self.cpu_request.saturating_add(other.cpu_request),
            memory_request: self.memory_request.saturating_add(other.memory_request),
            cpu: sum(self.cpu, other.cpu),
            memory: sum(self.memory, other.memory),
        }
    }

    /// One after the other: of each the larger.
    pub(crate) fn or(self, other: Self) -> Self {
        let most = |a: Option<u64>, b: Option<u64>| Some(a?.max(b?));
        Amounts {
            cpu_request: self.cpu_request.max(other.cpu_request),
            memory_request: self.memory_request.max(other.memory_request),
            cpu: most(self.cpu, other.cpu),
            memory: most(self.memory, other.memory),
        }
    }

    /// The values of a cgroup of version 2.
    pub(super) fn v2(self) -> Values {
        let none = || "max".to_owned();
        vec![
            ("cpu.weight", weight(self.cpu_request).to_string()),
            ("cpu.max", format!("{} {PERIOD}", self.quota().unwrap_or_else(none))),
            ("memory.max", self.most_memory().unwrap_or_else(none)),
        ]
    }

    /// The values of cgroups of version 1, in whichever hierarchies they are.
    pub(super) fn v1(self) -> Values {
        let none = || "-1".to_owned();
        vec![
            ("cpu.shares", shares(self.cpu_request).to_string()),
            ("cpu.cfs_period_us", PERIOD.to_string()),
            ("cpu.cfs_quota_us", self.quota().unwrap_or_else(none)),
            ("memory.limit_in_bytes", self.most_memory().unwrap_or_else(none)),
        ]
    }

    /// The most time in a period, in microseconds.
    fn quota(self) -> Option<String> {
        let quota = |milli: u64| (milli.saturating_mul(PERIOD) / 1000).max(LEAST_QUOTA);
        self.cpu.filter(|milli| *milli > 0).map(|milli| quota(milli).to_string())
    }

    fn most_memory(self) -> Option<String> {
        self.memory.filter(|bytes| *bytes > 0).map(|bytes| bytes.to_string())
    }
}

/// A request of thousandths of a processor as shares of cgroup v1.
fn shares(milli: u64) -> u64 {
    let (least, most) = SHARES;
    (milli.saturating_mul(1024) / 1000).clamp(least, most)
}

/// A request of thousandths of a processor as a weight of cgroup v2 (1 to 10,000), by way of the shares of v1 (KEP-2254).
fn weight(milli: u64) -> u64 {
    let (least, most) = SHARES;
    1 + (shares(milli) - least) * 9999 / (most - least)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn one(resources: Value) -> Values {
        let container = json!({"name": "main", "resources": resources});
        of_container(&serde_json::from_value(container).unwrap()).v2()
    }

    fn texts(values: &Values) -> [&str; 3] {
        ["cpu.weight", "cpu.max", "memory.max"]
            .map(|name| values.iter().find(|(known, _)| *known == name).unwrap().1.as_str())
    }

    #[test]
    fn a_container_gets_what_the_kubelet_gives_it() {
        for (resources, values) in [
            (json!({}), ["1", "max 100000", "max"]),
            (json!({"requests": {"cpu": "100m", "memory": "64Mi"}}), ["4", "max 100000", "max"]),
            (json!({"requests": {"cpu": "1"}}), ["39", "max 100000", "max"]),
            (json!({"requests": {"cpu": "300"}}), ["10000", "max 100000", "max"]),
            (
                json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "1m", "memory": "1"}}),
                ["1", "1000 100000", "1"],
            ),
            (json!({"limits": {"cpu": "1500m", "memory": "64Mi"}}), ["59", "150000 100000", "67108864"]),
            (
                json!({"requests": {"cpu": "0"}, "limits": {"cpu": "2", "memory": "0"}}),
                ["1", "200000 100000", "max"],
            ),
            (
                json!({"limits": {"cpu": "no number", "memory": "99999999999999999999999Pi"}}),
                ["1", "max 100000", "max"],
            ),
        ] {
            assert_eq!(texts(&one(resources.clone())), values, "{resources}");
        }
    }

    #[test]
    fn version_1_has_it_in_its_own_words() {
        let amounts = Amounts { cpu_request: 250, memory_request: 1, cpu: Some(500), memory: Some(64 << 20) };
        let texts = |amounts: Amounts| amounts.v1().into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(texts(amounts), ["256", "100000", "50000", "67108864"]);
        assert_eq!(texts(Amounts::default()), ["2", "100000", "-1", "-1"]);
    }

    #[test]
    fn a_pod_gets_what_its_containers_take_at_the_most() {
        let takes = |cpu: &str, memory: &str| json!({"name": "x", "resources": {"limits": {"cpu": cpu, "memory": memory}}});
        let sidecar = |cpu: &str, memory: &str| {
            let mut container = takes(cpu, memory);
            container["restartPolicy"] = "Always".into();
            container
        };
        for (spec, values) in [
            (
                json!({"containers": [takes("1", "1Mi"), takes("500m", "2Mi")]}),
                ["59", "150000 100000", "3145728"],
            ),
            (json!({"containers": [takes("1", "1Mi"), {"name": "free"}]}), ["39", "max 100000", "max"]),
            // The first init container takes more than all that comes later; the sidecar runs beside both.
            (
                json!({"containers": [takes("1", "1")],
                    "initContainers": [sidecar("1", "2"), takes("3", "1")]}),
                ["157", "400000 100000", "3"],
            ),
            (
                json!({"containers": [takes("1", "100")], "overhead": {"cpu": "1", "memory": "20"}}),
                ["79", "200000 100000", "120"],
            ),
            (
                json!({"containers": [{"name": "a"}],
                    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "5"}}}),
                ["39", "200000 100000", "5"],
            ),
        ] {
            assert_eq!(texts(&of_pod(&pod(spec.clone())).v2()), values, "{spec}");
        }
    }
}
