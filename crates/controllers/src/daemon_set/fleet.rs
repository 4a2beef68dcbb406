//! All hosts with the pods of one DaemonSet on them, and which pods are made and deleted so that each has its one
//! (`manage` and `podsShouldBeOnNode` of `pkg/controller/daemon`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use machinery::Object;
use objects::{Occurrence, Pod};
use serde_json::{Value, json};

use super::failures::Failures;
use super::placement::{Eligibility, bound_to, tolerations};
use crate::history::POD_LABEL;
use crate::kept::{DaemonSet, DaemonSetSpec, Node};
use crate::plan::{Note, Plan};
use crate::share::resolve;
use crate::view::View;
use crate::{pod_writes, pods};

/// The most pods that one reconciliation makes, and deletes; the next one goes on: upstream's `BurstReplicas` of DaemonSets.
const BURST: usize = 250;
/// How often the template changed, as the API counts it.
const GENERATION: &str = "deprecated.daemonset.template.generation";
/// The label of a pod with that number.
const GENERATION_LABEL: &str = "pod-template-generation";

/// One host.
pub(super) struct Host<'a> {
    pub name: &'a str,
    pub eligibility: Eligibility,
    /// The set's pods on it and on their way to it, oldest first.
    pub pods: Vec<&'a Arc<Pod>>,
}

/// All hosts, and one set's pods on them.
pub(super) struct Fleet<'a> {
    pub set: &'a DaemonSet,
    pub spec: &'a DaemonSetSpec,
    pub now: Timestamp,
    pub hosts: Vec<Host<'a>>,
    /// Pods on their way to hosts that aren't there.
    lost: Vec<&'a Arc<Pod>>,
    hash: String,
}

/// Which pods are made and deleted.
#[derive(Default)]
pub(super) struct Changes<'a> {
    /// The hosts that get one.
    pub on: Vec<&'a str>,
    /// The pods that go, with the Event about it beside that of the deletion.
    pub gone: Vec<(&'a Arc<Pod>, Option<Occurrence>)>,
}

impl Changes<'_> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.on.is_empty() && self.gone.is_empty()
    }
}

impl<'a> Fleet<'a> {
    pub fn new(
        view: &'a View,
        set: &'a DaemonSet,
        spec: &'a DaemonSetSpec,
        pods: &[&'a Arc<Pod>],
        hash: String,
        now: Timestamp,
    ) -> Self {
        let mut on: HashMap<&str, Vec<&Arc<Pod>>> = HashMap::new();
        // One that has ended and is being deleted is nobody's any more.
        for pod in
            pods.iter().filter(|pod| !pods::is_finished(pod) || pod.metadata.deletion_timestamp.is_none())
        {
            if let Some(host) = host_of(pod) {
                on.entry(host).or_default().push(pod);
            }
        }
        let placement = &spec.template.placement;
        let borne = tolerations(placement);
        let hosts = view.table::<Node>().iter().map(|node| {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let mut pods = on.remove(name).unwrap_or_default();
            pods.sort_by_cached_key(|pod| {
                let metadata = &pod.metadata;
                (pod.node().is_none(), metadata.creation_timestamp.clone(), metadata.name.clone())
            });
            Host { name, eligibility: Eligibility::of(placement, &borne, node), pods }
        });
        let hosts = hosts.collect();
        let lost = on.into_values().flatten();
        let lost =
            lost.filter(|pod| pod.node().is_none() && pod.metadata.deletion_timestamp.is_none()).collect();
        Fleet { set, spec, now, hosts, lost, hash }
    }

    /// Whether a pod has the current template.
    pub fn is_updated(&self, pod: &Pod) -> bool {
        let label = |name: &str| pod.metadata.labels.as_deref().and_then(|labels| labels.get(name));
        label(POD_LABEL) == Some(&self.hash)
            || self.generation().is_some_and(|generation| label(GENERATION_LABEL) == Some(generation))
    }

    /// Whether a pod has served for as long as the set asks for.
    pub fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.minimum(), self.now)
    }

    pub fn minimum(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0))
    }

    /// How many hosts may have a pod beside their old one, and how many may be without one, while pods are updated.
    pub fn limits(&self) -> (usize, usize) {
        let meant = self.hosts.iter().filter(|host| host.eligibility.starts).count();
        let meant = i32::try_from(meant).unwrap_or(i32::MAX);
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let of = |value| usize::try_from(resolve(value, meant, true)).unwrap_or(0);
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, |value| of(Some(value)));
        let missing = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let missing = missing.map_or(1, |value| of(Some(value)));
        // Both zero would mean that nothing may ever happen.
        if meant > 0 && surge == 0 && missing == 0 { (0, 1) } else { (surge, missing) }
    }

    /// The pods by which each host that is meant has one, and the others none.
    pub fn manage(&self, view: &View, plan: &mut Plan) -> Changes<'a> {
        let surges = self.limits().0 > 0;
        let mut changes = Changes::default();
        for host in &self.hosts {
            match host.eligibility {
                Eligibility { starts: true, .. } if host.pods.is_empty() => changes.on.push(host.name),
                Eligibility { stays: true, .. } => self.keep_one(view, host, surges, &mut changes, plan),
                Eligibility { stays: false, .. } => {
                    changes.gone.extend(staying(&host.pods).map(|pod| (pod, None)))
                }
            }
        }
        changes.gone.extend(self.lost.iter().map(|pod| (*pod, None)));
        changes
    }

    fn keep_one(
        &self,
        view: &View,
        host: &Host<'a>,
        surges: bool,
        changes: &mut Changes<'a>,
        plan: &mut Plan,
    ) {
        let mut running = Vec::new();
        for pod in staying(&host.pods) {
            match pods::phase(pod) {
                "Failed" => {
                    let left =
                        view.index::<Failures>().map_or(Duration::ZERO, |kept| kept.left(pod, self.now));
                    if left.is_zero() {
                        let told = self.ended(host, pod, "failed", "kill");
                        changes
                            .gone
                            .push((pod, Some(Occurrence::of(self.set, true, "FailedDaemonPod", told))));
                    } else {
                        plan.again(left);
                    }
                }
                "Succeeded" => {
                    let told = self.ended(host, pod, "succeeded", "delete");
                    changes
                        .gone
                        .push((pod, Some(Occurrence::of(self.set, false, "SucceededDaemonPod", told))));
                }
                _ => running.push(pod),
            }
        }
        if !surges {
            let kept = best(&running);
            changes.gone.extend(running.into_iter().filter(|pod| !is(kept, pod)).map(|pod| (pod, None)));
            return;
        }
        if running.is_empty() && host.eligibility.starts {
            changes.on.push(host.name);
        }
        // One of the current template and another one may be there together: while that one serves and the first doesn't
        // yet.
        let (new, old): (Vec<_>, Vec<_>) = running.iter().copied().partition(|pod| self.is_updated(pod));
        let (new, mut old) = (best(&new), best(&old));
        if let (Some(next), Some(last)) = (new, old)
            && (!pods::is_ready(last) || self.is_available(next))
        {
            old = None;
        }
        let gone = running.into_iter().filter(|pod| !is(new, pod) && !is(old, pod));
        changes.gone.extend(gone.map(|pod| (pod, None)));
    }

    fn ended(&self, host: &Host<'_>, pod: &Pod, how: &str, what: &str) -> String {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        format!("Found {how} daemon pod {namespace}/{name} on node {}, will try to {what} it", host.name)
    }

    /// Makes and deletes pods.
    pub fn write(&self, changes: Changes<'_>, stored: &Value, plan: &mut Plan) {
        for (pod, told) in changes.gone.into_iter().take(BURST) {
            let mut action = pod_writes::deletion(self.set, pod);
            action.done.extend(told.map(Note::Event));
            plan.actions.push(action);
        }
        let Some(pod) = (!changes.on.is_empty()).then(|| self.new_pod(stored)).flatten() else { return };
        for host in changes.on.into_iter().take(BURST) {
            let mut pod = pod.clone();
            pod["spec"]["affinity"] = bound_to(pod["spec"].get("affinity"), host);
            plan.actions.extend(Object::from_value(pod).map(|pod| pod_writes::creation(self.set, pod)));
        }
    }

    /// A pod of the template, for any host.
    fn new_pod(&self, stored: &Value) -> Option<Value> {
        let generate_name = format!("{}-", self.set.metadata.name.as_deref()?);
        let mut pod = pod_writes::from_template(self.set, stored.pointer("/spec/template")?, &generate_name)?;
        pod["spec"]["tolerations"] = json!(tolerations(&self.spec.template.placement));
        if !pod["metadata"]["labels"].is_object() {
            pod["metadata"]["labels"] = json!({});
        }
        pod["metadata"]["labels"][POD_LABEL] = self.hash.as_str().into();
        if let Some(generation) = self.generation() {
            pod["metadata"]["labels"][GENERATION_LABEL] = generation.as_str().into();
        }
        Some(pod)
    }

    fn generation(&self) -> Option<&String> {
        self.set.metadata.annotations.as_ref()?.get(GENERATION)
    }
}

/// The one that stays where there are too many: the oldest that serves, or else the oldest. (Upstream keeps the oldest,
/// though another may be the one that serves.)
fn best<'a>(pods: &[&'a Arc<Pod>]) -> Option<&'a Arc<Pod>> {
    pods.iter().find(|pod| pods::is_ready(pod)).or(pods.first()).copied()
}

fn is(one: Option<&Arc<Pod>>, other: &Arc<Pod>) -> bool {
    one.is_some_and(|one| Arc::ptr_eq(one, other))
}

/// Those that nobody is deleting.
pub(super) fn staying<'a>(pods: &[&'a Arc<Pod>]) -> impl Iterator<Item = &'a Arc<Pod>> {
    pods.iter().copied().filter(|pod| pod.metadata.deletion_timestamp.is_none())
}

/// The host that a pod is on, or that it is bound to by its affinity.
fn host_of(pod: &Pod) -> Option<&str> {
    let bound = || {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        match names.next()?.values.as_deref() {
            Some([name]) => Some(name.as_str()),
            _ => None,
        }
    };
    pod.node().or_else(bound)
}
