//! Disruption budgets: how many of the pods that each covers may go now.
//!
//! Follows `pkg/controller/disruption`: which pods count, against what a share is reckoned, and how long a pod whose
//! eviction was allowed is taken for gone.

mod scale;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::Object;
use objects::{DISRUPTION_TARGET, Occurrence, Pod, Write, disruption_target, merge_pod_status};
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::graph::Vertex;
use crate::index::{By, Labelled, Owner, with_labels};
use crate::kept::{Deployment, ReplicaSet};
use crate::key::Key;
use crate::plan::{Action, Note, Plan};
use crate::pods;
use crate::selectors::{Labels, Selector, Selectors, Selects};
use crate::share::resolve;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// How long a pod whose eviction was allowed counts as gone although nobody has deleted it yet: upstream's `DeletionTimeout`.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// How long until the next look where the scale of a controller can't be found out.
const RETRY: Duration = Duration::from_secs(60);
/// How long a budget's next change waits after it was reckoned, for each pod that it covers.
const PAUSE: Duration = Duration::from_micros(10);
const ALLOWED: &str = "DisruptionAllowed";

/// Reckons how many of the pods that each budget covers may go.
pub(crate) struct Budgets;

impl Controller for Budgets {
    fn name(&self) -> &'static str {
        "disruption-budget"
    }

    fn component(&self) -> &'static str {
        "controllermanager"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<PodDisruptionBudget>();
        watches.table::<Deployment>();
        watches.index::<By<Labelled<Pod>>>();
        watches.index::<Selectors<Budgets>>();
        watches.index::<By<Owner<Pod>>>();
        watches.index::<By<Owner<ReplicaSet>>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<PodDisruptionBudget>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<PodDisruptionBudget>(change);
        for pod in change.of::<Pod>().into_iter().flat_map(both) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            due.objects(covering(view, namespace, pod.metadata.labels.as_deref()));
        }
        change.owned().latest().into_iter().for_each(|owner| scaled(view, owner, due));
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name(), moment.now.wall)
    }
}

/// Takes back that a pod is to go, once nobody has made it go in time.
pub(crate) struct DisruptedPods;

impl Controller for DisruptedPods {
    fn name(&self) -> &'static str {
        "disrupted-pod"
    }

    fn component(&self) -> &'static str {
        "controllermanager"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Pod>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Pod>().iter().filter(|pod| is_to_go(pod)));
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        let pod = change.of::<Pod>().and_then(|change| change.new.as_ref());
        due.objects(pod.filter(|pod| is_to_go(pod)));
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile_pod(view, key.namespace(), key.name(), moment.now.wall)
    }
}

impl Selects for Budgets {
    type Of = PodDisruptionBudget;

    fn selector(budget: &PodDisruptionBudget) -> Option<Selector<'_>> {
        budget.spec.as_ref()?.selector.as_ref().map(Selector::Full)
    }
}

/// The budgets that cover pods with these labels.
fn covering<'a>(
    view: &'a View,
    namespace: &'a str,
    labels: Option<&'a Labels>,
) -> impl Iterator<Item = &'a Arc<PodDisruptionBudget>> {
    view.index::<Selectors<Budgets>>().into_iter().flat_map(move |index| index.of(namespace, labels))
}

/// The budgets that cover the pods of something whose number of pods may have changed are due.
fn scaled(view: &View, owner: &Vertex, due: &mut Due<'_>) {
    // The pods of one template have the same labels.
    let sets = view.by::<Owner<ReplicaSet>>(owner.uid.as_str()).filter_map(|set| set.metadata.uid.as_deref());
    for pod in sets.chain([owner.uid.as_str()]).filter_map(|uid| view.by::<Owner<Pod>>(uid).next()) {
        due.objects(covering(view, &owner.namespace, pod.metadata.labels.as_deref()));
    }
}

/// Brings the status of one budget up to date.
fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(budget) = view.table::<PodDisruptionBudget>().get(namespace, name) else { return plan };
    let covered: Vec<&Pod> = match Budgets::required(budget) {
        Some(required) => with_labels::<Labelled<Pod>>(view, namespace, required)
            .map(AsRef::as_ref)
            .filter(|pod: &&Pod| Budgets::selects(budget, pod.metadata.labels.as_deref()))
            .collect(),
        None => Vec::new(),
    };
    plan.pause = PAUSE * u32::try_from(covered.len()).unwrap_or(u32::MAX);
    let old = budget.status.clone().unwrap_or_default();
    let mut told = Vec::new();
    let status = match expected(view, budget, &covered) {
        Ok(expected) => {
            told.extend(expected.remark(budget, &covered));
            let (disrupted, late) = still_disrupted(&old, &covered, now, &mut plan);
            told.extend(late.into_iter().map(|pod| not_deleted(pod, budget)));
            judge(&expected, &covered, disrupted, budget, now)
        }
        Err(why) => {
            plan.again(RETRY);
            let what = format!("Failed to calculate the number of expected pods: {why}");
            told.push(Occurrence::of(budget.as_ref(), true, "CalculateExpectedPodCountFailed", what));
            closed(&old, &why, now)
        }
    };
    if status != old
        && let Some(mut object) = view.json(budget.as_ref()).and_then(Object::from_value)
    {
        // Only if nobody allowed an eviction meanwhile.
        object.set_meta("resourceVersion", budget.metadata.resource_version.clone().unwrap_or_default());
        object.0.insert("status".into(), json!(status));
        let action = Action::from(Write::UpdateStatus(object));
        plan.actions.push(told.into_iter().fold(action, |action, told| action.telling(Note::Event(told))));
    }
    plan
}

/// How many pods there should be, how many of them have to serve, and which nobody keeps at a number.
#[derive(Debug, PartialEq)]
struct Expected<'a> {
    pods: i32,
    serving: i32,
    unmanaged: Vec<&'a str>,
}

fn expected<'a>(
    view: &View,
    budget: &PodDisruptionBudget,
    covered: &[&'a Pod],
) -> Result<Expected<'a>, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    match (&spec.max_unavailable, &spec.min_available) {
        (most @ Some(_), _) => {
            let scale = scale::of(view, covered)?;
            let serving = (scale.pods - resolve(most.as_ref(), scale.pods, true)).max(0);
            Ok(Expected { serving, ..scale })
        }
        (None, Some(IntOrString::Int(least))) => {
            let pods = i32::try_from(covered.len()).unwrap_or(i32::MAX);
            Ok(Expected { pods, serving: *least, unmanaged: Vec::new() })
        }
        (None, least @ Some(_)) => {
            let scale = scale::of(view, covered)?;
            Ok(Expected { serving: resolve(least.as_ref(), scale.pods, true), ..scale })
        }
        (None, None) => Ok(Expected { pods: 0, serving: 0, unmanaged: Vec::new() }),
    }
}

impl Expected<'_> {
    fn remark(&self, budget: &PodDisruptionBudget, covered: &[&Pod]) -> Option<Occurrence> {
        if covered.is_empty() {
            return Some(Occurrence::of(budget, false, "NoPods", "No matching pods found".to_owned()));
        }
        let what = format!(
            "Pods selected by this PodDisruptionBudget were found to be unmanaged: {}. A share of them can't be \
             reckoned; set .spec.minAvailable to a number.",
            self.unmanaged.join(", ")
        );
        (!self.unmanaged.is_empty()).then(|| Occurrence::of(budget, true, "UnmanagedPods", what))
    }
}

/// The pods whose eviction was allowed and that are still to be deleted; those that should have been long ago.
fn still_disrupted<'a>(
    old: &PodDisruptionBudgetStatus,
    covered: &[&'a Pod],
    now: Timestamp,
    plan: &mut Plan,
) -> (BTreeMap<String, Time>, Vec<&'a Pod>) {
    let (mut kept, mut late) = (BTreeMap::new(), Vec::new());
    let Some(disrupted) = &old.disrupted_pods else { return (kept, late) };
    for pod in covered.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(since) = disrupted.get(name) else { continue };
        match left(since.0, now) {
            Some(left) => {
                plan.again(left);
                kept.insert(name.to_owned(), since.clone());
            }
            None => late.push(*pod),
        }
    }
    (kept, late)
}

/// How much of the time to delete a pod is left; nothing once it is over.
fn left(since: Timestamp, now: Timestamp) -> Option<Duration> {
    let gone = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    DELETION_TIMEOUT.checked_sub(gone).filter(|left| !left.is_zero())
}

fn not_deleted(pod: &Pod, budget: &PodDisruptionBudget) -> Occurrence {
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    let what = format!("Pod was expected by PDB {name} to be deleted but it wasn't");
    Occurrence::of(pod, true, "NotDeleted", what)
}

fn judge(
    expected: &Expected<'_>,
    covered: &[&Pod],
    disrupted: BTreeMap<String, Time>,
    budget: &PodDisruptionBudget,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let serves = |pod: &&&Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pod.metadata.deletion_timestamp.is_none() && !disrupted.contains_key(name) && pods::is_ready(pod)
    };
    let serving = i32::try_from(covered.iter().filter(serves).count()).unwrap_or(i32::MAX);
    // A budget that covered nothing a moment ago must not let the first pods go that nobody has counted yet.
    let allowed = if expected.pods > 0 { serving.saturating_sub(expected.serving).max(0) } else { 0 };
    let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    let old = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let generation = budget.metadata.generation;
    PodDisruptionBudgetStatus {
        conditions: Some(with_condition(old, allowed > 0, reason, "", generation, now)),
        current_healthy: Some(serving),
        desired_healthy: Some(expected.serving),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected.pods),
        observed_generation: generation,
    }
}

/// The status of a budget that can't be reckoned: nothing may go.
fn closed(old: &PodDisruptionBudgetStatus, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let conditions = old.conditions.clone().unwrap_or_default();
    let generation = old.observed_generation;
    PodDisruptionBudgetStatus {
        conditions: Some(with_condition(conditions, false, "SyncFailed", why, generation, now)),
        disruptions_allowed: Some(0),
        ..old.clone()
    }
}

fn with_condition(
    mut conditions: Vec<Condition>,
    allowed: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let status = if allowed { "True" } else { "False" };
    let known = conditions.iter().position(|condition| condition.type_ == ALLOWED);
    let since = known.map(|at| &conditions[at]).filter(|known| known.status == status);
    let condition = Condition {
        last_transition_time: since.map_or(Time(now), |known| known.last_transition_time.clone()),
        message: message.to_owned(),
        observed_generation: generation,
        reason: reason.to_owned(),
        status: status.to_owned(),
        type_: ALLOWED.to_owned(),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    conditions
}

/// Takes back that a pod is to go, once nobody has made it go in time.
fn reconcile_pod(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = view.table::<Pod>().get(namespace, name).filter(|pod| is_to_go(pod)) else { return plan };
    let Some(condition) = pod.condition(DISRUPTION_TARGET) else { return plan };
    let since = condition.last_transition_time.as_ref().map_or(now, |time| time.0);
    match left(since, now) {
        Some(left) => plan.again(left),
        None => {
            let [reason, message] = [&condition.reason, &condition.message];
            let [reason, message] = [reason, message].map(|text| text.as_deref().unwrap_or_default());
            let target = disruption_target(pod, reason, message, now);
            let target = PodCondition { status: "False".into(), ..target };
            let said = merge_pod_status(pod, json!({"conditions": [target]}), view.state());
            said.into_iter().for_each(|write| plan.write(write));
        }
    }
    plan
}

/// Whether a pod that nobody deletes says that it is about to be disrupted. What its host says of it stands.
pub fn is_to_go(pod: &Pod) -> bool {
    pods::is_active(pod)
        && pod.condition(DISRUPTION_TARGET).is_some_and(|condition| {
            condition.status == "True" && condition.reason.as_deref() != Some("TerminationByKubelet")
        })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn pod(name: &str, ready: &str, more: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "d"}, "spec": {"containers": []},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        if let Some(more) = more.as_object() {
            pod["metadata"].as_object_mut().unwrap().extend(more.clone());
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn who_goes_or_may_go_serves_no_more() {
        let pods = [
            pod("a", "True", json!({})),
            pod("b", "False", json!({})),
            pod("c", "True", json!({"deletionTimestamp": "2023-11-14T22:13:20Z"})),
            pod("d", "True", json!({})),
            pod("e", "True", json!({})),
        ];
        let covered: Vec<&Pod> = pods.iter().collect();
        let old = PodDisruptionBudgetStatus {
            disrupted_pods: Some(BTreeMap::from([
                ("c".to_owned(), Time(at(0))),
                ("d".to_owned(), Time(at(0))),
                ("e".to_owned(), Time(at(-200))),
                ("gone".to_owned(), Time(at(0))),
            ])),
            ..PodDisruptionBudgetStatus::default()
        };
        let mut plan = Plan::default();
        let (disrupted, late) = still_disrupted(&old, &covered, at(20), &mut plan);
        assert_eq!(
            disrupted.keys().collect::<Vec<_>>(),
            ["d"],
            "c is being deleted, e should long have been"
        );
        assert_eq!(late.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect::<Vec<_>>(), ["e"]);
        assert_eq!(plan.again_in, Some(Duration::from_secs(100)));

        let budget = PodDisruptionBudget::default();
        let expected = Expected { pods: 5, serving: 1, unmanaged: Vec::new() };
        let status = judge(&expected, &covered, disrupted, &budget, at(20));
        assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(2), Some(1)), "a and e serve");
    }

    #[test]
    fn nothing_may_go_of_nothing_or_where_too_few_serve() {
        let budget = PodDisruptionBudget::default();
        let one = pod("a", "True", json!({}));
        for (pods, serving) in [(0, 0), (1, 1), (3, 2)] {
            let expected = Expected { pods, serving, unmanaged: Vec::new() };
            let status = judge(&expected, &[&one], BTreeMap::new(), &budget, at(0));
            assert_eq!(status.disruptions_allowed, Some(0), "{expected:?}");
            assert_eq!(status.conditions.unwrap()[0].reason, "InsufficientPods");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_and_its_neighbours() {
        let first = with_condition(Vec::new(), true, "SufficientPods", "", Some(1), at(0));
        let mut known = first.clone();
        known.push(Condition { type_: "Other".into(), ..first[0].clone() });
        let same = with_condition(known.clone(), true, "SufficientPods", "", Some(2), at(9));
        assert_eq!((same[0].last_transition_time.0, same[0].observed_generation), (at(0), Some(2)));
        let other = with_condition(known, false, "InsufficientPods", "", Some(2), at(9));
        assert_eq!((other[0].last_transition_time.0, other[1].type_.as_str()), (at(9), "Other"));
    }
}
