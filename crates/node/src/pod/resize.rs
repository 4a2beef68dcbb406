//! Resizing a pod in place (KEP-1287): what its containers were given, what its spec asks for, and what is done about the difference.
//!
//! The host first gives a pod what its spec asks for (its allocation), if it has that much; then what runs is brought to it. The words
//! and their rules are the kubelet's (`pkg/kubelet/allocation`, `kuberuntime_manager.go`).

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decide::{Action, Decision, spec_grace};
use super::record::{PodRecord, Stage, Stop, StopStep};
use crate::clock::Now;
use crate::container::cgroup::{self, Amounts};

/// How long after an attempt that failed what runs is tried again to be brought to what was given.
const RETRY: Duration = Duration::from_secs(2);

/// What a host gave a pod, in the words of its spec.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    /// The pod as a whole, where it says so itself.
    whole: Option<ResourceRequirements>,
    /// Its containers by name.
    containers: BTreeMap<String, ResourceRequirements>,
}

impl Allocation {
    /// What a pod's spec asks for.
    pub(crate) fn of(pod: &Pod) -> Self {
        let asks =
            |container: &Container| (container.name.clone(), container.resources.clone().unwrap_or_default());
        Allocation {
            whole: pod.spec.as_ref().and_then(|spec| spec.resources.clone()),
            containers: resizable(pod).map(asks).collect(),
        }
    }

    /// What the pod's status says that its containers have; where it says nothing, what its spec asks for.
    pub(crate) fn told(pod: &Pod) -> Self {
        let mut told = Allocation::of(pod);
        let status = pod.status.as_ref();
        let lists = status
            .map(|status| [&status.init_container_statuses, &status.container_statuses])
            .into_iter()
            .flatten()
            .flat_map(|list| list.iter().flatten());
        for (name, resources) in lists.filter_map(|one| Some((&one.name, one.resources.as_ref()?))) {
            if let Some(known) = told.containers.get_mut(name) {
                known.clone_from(resources);
            }
        }
        if let Some(resources) = status.and_then(|status| status.resources.clone()) {
            told.whole = Some(resources);
        }
        told
    }

    /// Makes the spec ask for this.
    pub(crate) fn put_into(&self, pod: &mut Pod) {
        let Some(spec) = &mut pod.spec else { return };
        spec.resources.clone_from(&self.whole);
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(given) = self.containers.get(&container.name) {
                container.resources = Some(given.clone());
            }
        }
    }
}

/// How far a pod's resize is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resize {
    /// Why the pod has less than its spec asks for, if it has.
    pub pending: Option<Pending>,
    /// Set until what runs has what it was given.
    pub progress: Option<Progress>,
    /// What holds all of the pod's containers together, as it was said last.
    pub given: Option<Amounts>,
}

/// A resize that the host can't do now, or ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The pod's generation that was looked at.
    pub generation: Option<i64>,
    /// Whether it asks for more than the host has with no other pod on it.
    pub is_infeasible: bool,
    /// For people.
    pub message: String,
}

impl Pending {
    /// In the API's word.
    pub(crate) fn reason(&self) -> &'static str {
        if self.is_infeasible { "Infeasible" } else { "Deferred" }
    }

    /// The reason of the Event about it.
    pub(crate) fn event_reason(&self) -> &'static str {
        if self.is_infeasible { "ResizeInfeasible" } else { "ResizeDeferred" }
    }
}

/// A resize that the host is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The pod's generation that it was given.
    pub generation: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// Whether an attempt is under way.
    is_asked: bool,
    /// Whether what the pod was given is on the disk.
    is_kept: bool,
    /// When the next attempt may begin.
    retry: Duration,
}

/// What a container is brought to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub container: String,
    pub attempt: u32,
    pub from: Amounts,
    pub to: Amounts,
    given: ResourceRequirements,
}

/// What is to be done for a resize: the allocation is kept first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Resizing {
    /// The pod's generation that it was given.
    pub generation: Option<i64>,
    /// Of the pod as a whole: what it has, and what it is brought to.
    pub pod: (Amounts, Amounts),
    /// The containers that take it without a restart.
    pub containers: Vec<Change>,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Resized {
    /// Whether the allocation is on the disk.
    pub is_kept: bool,
    /// How many of the containers were brought to what they were given.
    pub containers: usize,
    /// What the pod as a whole has now, if that is known.
    pub pod: Option<Amounts>,
    /// Why not all was done.
    pub error: Option<String>,
}

/// The containers that can be resized: not those that somebody added to look inside.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    init.iter().chain(spec.map(|spec| spec.containers.as_slice()).unwrap_or_default())
}

/// Why a host of this `capacity` (processors in thousandths, memory) can't give a pod what it wants beside what it `has` already and what
/// `others` have; nothing if it can. What doesn't grow always fits.
pub(crate) fn judge(
    wants: Amounts,
    has: Amounts,
    others: (u64, u64),
    capacity: (u64, u64),
    generation: Option<i64>,
) -> Option<Pending> {
    let cpu = ("cpu", wants.cpu_request, has.cpu_request, others.0, capacity.0);
    let memory = ("memory", wants.memory_request, has.memory_request, others.1, capacity.1);
    let refused = |is_infeasible, message| Some(Pending { generation, is_infeasible, message });
    for (name, wants, has, _, capacity) in [memory, cpu] {
        if wants > has && wants > capacity {
            let amounts = format!("{name}, requested: {wants}, capacity: {capacity}");
            return refused(true, format!("Node didn't have enough capacity: {amounts}"));
        }
    }
    for (name, wants, has, used, capacity) in [cpu, memory] {
        if wants > has && wants.saturating_add(used) > capacity {
            let amounts = format!("{name}, requested: {wants}, used: {used}, capacity: {capacity}");
            return refused(false, format!("Node didn't have enough resource: {amounts}"));
        }
    }
    None
}

/// What an Event says of a resize.
pub(crate) fn message(what: &str, pod: &Pod, generation: Option<i64>, error: Option<&str>) -> String {
    let list = |containers: &[Container]| -> Vec<Value> {
        let one =
            |c: &Container| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()});
        containers.iter().map(one).collect()
    };
    let spec = pod.spec.as_ref();
    let mut told = serde_json::Map::new();
    if let Some(init) = spec.and_then(|spec| spec.init_containers.as_deref()).filter(|list| !list.is_empty())
    {
        told.insert("initContainers".into(), list(init).into());
    }
    told.insert("containers".into(), spec.map(|spec| list(&spec.containers)).unwrap_or_default().into());
    told.insert("generation".into(), generation.unwrap_or(0).into());
    if let Some(error) = error {
        told.insert("error".into(), error.into());
    }
    format!("{what}: {}", Value::Object(told))
}

/// Whether a container is to be restarted for this, as its `resizePolicy` says. A request of memory changes nothing that it sees.
fn must_restart(spec: &Container, from: Amounts, to: Amounts) -> bool {
    let restarts = |resource: &str| {
        let mut policies = spec.resize_policy.iter().flatten();
        policies.any(|one| one.resource_name == resource && one.restart_policy == "RestartContainer")
    };
    let cpu = |amounts: Amounts| (amounts.cpu, amounts.cpu_request);
    (restarts("cpu") && cpu(from) != cpu(to)) || (restarts("memory") && from.memory != to.memory)
}

/// Brings what runs of a pod to what its spec asks for, which is what it was given.
pub(super) fn follow(pod: &Pod, record: &mut PodRecord, now: Now, decision: &mut Decision) {
    let Some(mut progress) = record.resize.progress.clone().filter(|p| !p.is_asked && !record.stopping)
    else {
        return;
    };
    let (mut changes, mut waits) = (Vec::new(), false);
    for spec in resizable(pod) {
        let Some(container) = record.containers.get_mut(&spec.name) else { continue };
        let wanted = spec.resources.clone().unwrap_or_default();
        let running = match &mut container.stage {
            Stage::Running(running) => running,
            // It was made with what it was given, or with what it had before.
            Stage::Starting => {
                waits = true;
                continue;
            }
            _ => continue,
        };
        if container.given == wanted {
            continue;
        }
        let (from, to) = (Amounts::of(Some(&container.given)), Amounts::of(Some(&wanted)));
        if running.stop.is_some() {
            waits = true;
        } else if must_restart(spec, from, to) {
            waits = true;
            running.is_resized = true;
            running.stop = Some(Stop { deadline: now.elapsed + spec_grace(pod), step: StopStep::None });
            let message = format!("Container {} resize requires restart", spec.name);
            decision.event(false, "Killing", message, Some(&spec.name));
        } else {
            let (container, attempt) = (spec.name.clone(), container.restarts);
            changes.push(Change { container, attempt, from, to, given: wanted });
        }
    }
    let whole = cgroup::of_pod(pod);
    let from = record.resize.given.unwrap_or(whole);
    // Until the last one has ended that has more, the pod as a whole only grows.
    let to = if waits { from.or(whole) } else { whole };
    if progress.is_kept && changes.is_empty() && from == to {
        if !waits {
            record.resize.progress = None;
            let told = message("Pod resize completed", pod, progress.generation, None);
            decision.event(false, "ResizeCompleted", told, None);
        }
        return;
    }
    if progress.retry > now.elapsed {
        decision.wake_at(progress.retry);
    } else {
        progress.is_asked = true;
        let resizing = Resizing { generation: progress.generation, pod: (from, to), containers: changes };
        decision.actions.push(Action::Resize(resizing));
    }
    record.resize.progress = Some(progress);
}

impl PodRecord {
    /// The host has given the pod what its spec asks for in this generation.
    pub(crate) fn allocated(&mut self, generation: Option<i64>) {
        let is_asked = self.resize.progress.as_ref().is_some_and(|progress| progress.is_asked);
        self.resize.pending = None;
        self.resize.progress =
            Some(Progress { generation, error: None, is_asked, is_kept: false, retry: Duration::ZERO });
    }

    /// An attempt is over; what an Event is to tell of it.
    pub(crate) fn resized(&mut self, resizing: Resizing, done: Resized, now: Now) -> Option<String> {
        for Change { container, attempt, given, .. } in resizing.containers.into_iter().take(done.containers)
        {
            if let Some(known) = self.containers.get_mut(&container).filter(|c| c.restarts == attempt) {
                known.given = given;
            }
        }
        self.resize.given = done.pod.or(self.resize.given);
        let progress = self.resize.progress.as_mut()?;
        progress.is_asked = false;
        if progress.generation != resizing.generation {
            // It was given something else meanwhile: that is another attempt's.
            return None;
        }
        progress.is_kept |= done.is_kept;
        if done.error.is_some() {
            progress.retry = now.elapsed + RETRY;
        }
        // Told once, and again if it is another one. What fails is still what failed until it doesn't.
        let before = std::mem::replace(&mut progress.error, done.error);
        progress.error.clone().filter(|error| before.as_ref() != Some(error))
    }

    /// What was taken over of a pod has what its status says that it has, and is brought to what the pod was given.
    pub(crate) fn resume_resize(&mut self, pod: &Pod) {
        let mut has = Allocation::of(pod);
        if let Some(told) = pod.status.as_ref().and_then(|status| status.resources.clone()) {
            has.whole = Some(told);
        }
        for (name, container) in &self.containers {
            if let (Some(known), Stage::Running(_)) = (has.containers.get_mut(name), &container.stage) {
                known.clone_from(&container.given);
            }
        }
        let mut as_it_is = pod.clone();
        has.put_into(&mut as_it_is);
        let (given, wanted) = (cgroup::of_pod(&as_it_is), cgroup::of_pod(pod));
        self.resize.given = Some(given);
        if has != Allocation::of(pod) || given != wanted {
            self.allocated(pod.metadata.generation);
        }
    }
}
