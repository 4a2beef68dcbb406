//! HorizontalPodAutoscalers: as many pods as metrics ask for.
//!
//! Follows `pkg/controller/podautoscaler`. A look has two parts, since metrics are asked for: first the questions, and once
//! there are answers, the decision. What rules look back on is remembered while this member leads, as upstream's is.

mod metrics;
mod pace;
mod replicas;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use machinery::{LabelSelector, Object, Quantity};
use objects::{Change, Occurrence, Pod, TypedRef, Write};
use serde_json::{Map, Value, json};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::key::Key;
use crate::notes::Notes;
use crate::plan::{Action, Note, Plan, difference, merge_this};
use crate::scale;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;
use metrics::{Proposal, Situation, propose, questions};
use pace::Said;
use replicas::{Member, TOLERANCE, Tolerances};

pub use metrics::Answers;
pub use pace::Pace;

/// So often metrics are looked at (`--horizontal-pod-autoscaler-sync-period`).
const PERIOD: Duration = Duration::from_secs(15);

/// Scales what autoscalers target.
pub(crate) struct Autoscalers;

impl Controller for Autoscalers {
    fn name(&self) -> &'static str {
        "autoscaler"
    }

    fn component(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<HorizontalPodAutoscaler>();
        watches.table::<Pod>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<HorizontalPodAutoscaler>().iter());
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        // Its own status says nothing new; metrics are looked at when it is time.
        if let Some(Change { old, new, .. }) = change.of::<HorizontalPodAutoscaler>()
            && old.as_ref().map(|old| &old.spec) != new.as_ref().map(|new| &new.spec)
        {
            due.changed::<HorizontalPodAutoscaler>(change);
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let Some(autoscaler) = view.table::<HorizontalPodAutoscaler>().get(key.namespace(), key.name())
        else {
            return Plan { notes: Some(Notes::Nothing), ..Plan::default() };
        };
        let spec = &autoscaler.spec;
        let mut look = Look {
            view,
            autoscaler,
            spec,
            notes: moment.notes.and_then(Notes::pace).cloned().unwrap_or_default(),
            conditions: conditions(autoscaler),
            moment,
            plan: Plan::default(),
        };
        look.take();
        look.plan.notes = Some(Notes::Pace(look.notes));
        look.plan
    }
}

/// The target of an autoscaler.
struct Target {
    subject: TypedRef,
    /// What it asks for.
    wanted: i32,
    /// What it has.
    there: i32,
    /// What its pods are found by.
    selector: String,
    /// The version of it that was looked at.
    version: String,
}

/// One look at an autoscaler.
struct Look<'a> {
    view: &'a View,
    autoscaler: &'a HorizontalPodAutoscaler,
    spec: &'a HorizontalPodAutoscalerSpec,
    notes: Pace,
    conditions: Vec<Value>,
    moment: &'a Moment<'a>,
    plan: Plan,
}

impl Look<'_> {
    fn take(&mut self) {
        let now = self.moment.now.instant;
        let Some(answers) = self.moment.answers else {
            let since = self.notes.asked.map(|asked| now.saturating_duration_since(asked));
            let left = since.and_then(|since| PERIOD.checked_sub(since)).filter(|left| !left.is_zero());
            if let Some(left) = left {
                // What changed is looked at with the next metrics.
                return self.plan.again(left);
            }
            self.notes.asked = Some(now);
            self.plan.again(PERIOD);
            let target = self.target();
            let asks = target.as_ref().is_ok_and(|target| self.is_between(target));
            if asks && let Ok(target) = target {
                self.plan.ask = questions(self.view, self.autoscaler, &target.selector);
            }
            if self.plan.ask.is_empty() {
                self.decide(&Answers::new());
            }
            return;
        };
        let left = self.notes.asked.and_then(|asked| (asked + PERIOD).checked_duration_since(now));
        self.plan.again(left.unwrap_or(PERIOD));
        self.decide(answers);
    }

    fn least(&self) -> i32 {
        self.spec.min_replicas.unwrap_or(1)
    }

    /// Whether metrics decide about a target.
    fn is_between(&self, target: &Target) -> bool {
        let off = target.wanted == 0 && self.least() != 0;
        !off && target.wanted <= self.spec.max_replicas && target.wanted >= self.least()
    }

    fn target(&self) -> Result<Target, String> {
        let subject = subject_of(self.autoscaler);
        let scale: Object = scale::of(self.view, &subject)?;
        let number = |path: &str| {
            let number = scale.pointer(path).and_then(Value::as_i64).unwrap_or(0);
            i32::try_from(number).unwrap_or(i32::MAX)
        };
        let selector =
            scale.pointer("/status/selector").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (wanted, there) = (number("/spec/replicas"), number("/status/replicas"));
        let version = scale.resource_version().to_owned();
        Ok(Target { subject, wanted, there, selector, version })
    }

    fn decide(&mut self, answers: &Answers) {
        let target = match self.target() {
            Ok(target) => target,
            Err(why) => {
                self.tell("FailedGetScale", why.clone());
                let why = format!("the HPA controller was unable to get the target's current scale: {why}");
                self.say("AbleToScale", false, "FailedGetScale", why);
                return self.write(None, None, None);
            }
        };
        self.able((
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        ));
        let (current, now) = (target.wanted, self.moment.now.instant);
        self.notes.begin(current, now);
        let (least, most) = (self.least(), self.spec.max_replicas);
        if current == 0 && least != 0 {
            let why = "scaling is disabled since the replica count of the target is zero";
            self.say("ScalingActive", false, "ScalingDisabled", why.into());
            return self.write(Some((0, 0)), Some(Vec::new()), None);
        }
        let (wanted, reason, statuses) = if current > most {
            (most, "Current number of replicas above Spec.MaxReplicas".to_owned(), Vec::new())
        } else if current < least {
            (least, "Current number of replicas below Spec.MinReplicas".to_owned(), Vec::new())
        } else {
            let Some((highest, name, statuses)) = self.by_metrics(&target, answers) else {
                return self.write(Some((current, self.last_wanted())), None, None);
            };
            let behavior = self.spec.behavior.as_ref();
            let paced = self.notes.pace(behavior, (current, highest), (least, most), now);
            self.able(paced.able);
            let (limited, why, message) = paced.limited;
            self.say("ScalingLimited", limited, why, message.into());
            let reason = match highest.cmp(&current) {
                std::cmp::Ordering::Less => "All metrics below target".to_owned(),
                _ => format!("{name} above target"),
            };
            (paced.replicas, reason, statuses)
        };
        if wanted == current {
            return self.write(Some((current, current)), Some(statuses), None);
        }
        self.rescale(&target, wanted, &reason, statuses);
    }

    /// The highest number that a metric asks for, its name, and the metrics' statuses; nothing if too little is known.
    fn by_metrics(&mut self, target: &Target, answers: &Answers) -> Option<(i32, String, Vec<Value>)> {
        let members = self.members(target)?;
        let rules = |rules: Option<&HPAScalingRules>| {
            let own = rules.and_then(|rules| Quantity::parse(&rules.tolerance.as_ref()?.0).ok());
            own.map_or(TOLERANCE, |own| own.milli() as f64 / 1000.0)
        };
        let behavior = self.spec.behavior.as_ref();
        let tolerances = Tolerances {
            down: rules(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: rules(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        };
        let situation = Situation {
            view: self.view,
            namespace: &target.subject.namespace,
            selector: &target.selector,
            members: &members,
            current: target.wanted,
            there: target.there,
            tolerances,
            now: self.moment.now.wall,
        };
        let specs = self.spec.metrics.as_deref().unwrap_or_default();
        let mut statuses = Vec::new();
        let (mut highest, mut faults): (Option<(i32, String)>, Vec<metrics::Fault>) = (None, Vec::new());
        for spec in specs {
            match propose(&situation, spec, answers) {
                Ok(Proposal { replicas, name, status }) => {
                    statuses.push(status);
                    if highest.as_ref().is_none_or(|(most, _)| replicas > *most) {
                        highest = Some((replicas, name));
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        for fault in &faults {
            self.tell(fault.reason, fault.why.clone());
        }
        let fewer = highest.as_ref().is_none_or(|(most, _)| *most < target.wanted);
        if let Some(first) = faults.first().filter(|_| fewer) {
            let why = format!("the HPA was unable to compute the replica count: {}", first.why);
            self.say("ScalingActive", false, first.reason, why);
            let (failed, all) = (faults.len(), specs.len());
            let told =
                format!("invalid metrics ({failed} invalid out of {all}), first error is: {}", first.what);
            self.tell("FailedComputeMetricsReplicas", told);
            return None;
        }
        let (highest, name) = highest?;
        let found = format!("the HPA was able to successfully calculate a replica count from {name}");
        self.say("ScalingActive", true, "ValidMetricFound", found);
        Some((highest, name, statuses))
    }

    /// The pods that are scaled; nothing if nobody can say which they are.
    fn members(&mut self, target: &Target) -> Option<Vec<Member>> {
        let selector = match LabelSelector::parse(&target.selector) {
            _ if target.selector.is_empty() => {
                self.tell("SelectorRequired", "selector is required".into());
                let why = "the HPA target's scale is missing a selector";
                self.say("ScalingActive", false, "InvalidSelector", why.into());
                return None;
            }
            Ok(selector) => selector,
            Err(status) => {
                let why = format!(
                    "couldn't convert selector into a corresponding internal selector object: {status}"
                );
                self.tell("InvalidSelector", why.clone());
                self.say("ScalingActive", false, "InvalidSelector", why);
                return None;
            }
        };
        let namespace = &target.subject.namespace;
        let is_meant = |selector: &LabelSelector, pod: &Pod| {
            selector.matches_labels(|name| pod.metadata.labels.as_ref()?.get(name).map(String::as_str))
        };
        let pods: Vec<_> =
            self.view.table::<Pod>().in_namespace(namespace).filter(|pod| is_meant(&selector, pod)).collect();
        let own = self.autoscaler.metadata.name.as_deref().unwrap_or_default();
        let others = self.view.table::<HorizontalPodAutoscaler>().in_namespace(namespace).filter(|other| {
            let text = (other.metadata.name.as_deref() != Some(own))
                .then(|| selector_of(self.view, other))
                .flatten();
            let selector =
                text.filter(|text| !text.is_empty()).and_then(|text| LabelSelector::parse(&text).ok());
            selector.is_some_and(|selector| pods.iter().any(|pod| is_meant(&selector, pod)))
        });
        let mut names: Vec<&str> = others.filter_map(|other| other.metadata.name.as_deref()).collect();
        if !names.is_empty() {
            names.push(own);
            names.sort_unstable();
            let names: Vec<String> = names.iter().map(|name| format!("{{{namespace} {name}}}")).collect();
            let why = format!(
                "pods by selector {} are controlled by multiple HPAs: [{}]",
                target.selector,
                names.join(" ")
            );
            self.tell("AmbiguousSelector", why.clone());
            self.say("ScalingActive", false, "AmbiguousSelector", why);
            return None;
        }
        Some(pods.into_iter().filter_map(|pod| self.view.json(pod.as_ref()).map(Member::of)).collect())
    }

    fn rescale(&mut self, target: &Target, wanted: i32, reason: &str, statuses: Vec<Value>) {
        let current = target.wanted;
        // Somebody may scale it at the same time, to nothing say.
        let patch = json!({"metadata": {"resourceVersion": target.version}, "spec": {"replicas": wanted}});
        let write = Write::Merge { subject: target.subject.clone(), subresource: "scale", patch };
        let told = |warning, name, message| Occurrence::of(self.autoscaler, warning, name, message);
        let done = told(false, "SuccessfulRescale", format!("New size: {wanted}; reason: {reason}"));
        let refused =
            told(true, "FailedRescale", format!("New size: {wanted}; reason: {reason}; error: {{}}"));
        let mut action = Action::from(write).telling(Note::Event(done));
        action.refused = Some(refused);
        let before = self.conditions.clone();
        let why = "the HPA controller was unable to update the target scale: {}";
        self.say("AbleToScale", false, "FailedUpdateScale", why.into());
        let failed = std::mem::replace(&mut self.conditions, before);
        let before = self.autoscaler.status.as_ref();
        let status = json!({"status": {
            "conditions": failed, "desiredReplicas": self.last_wanted(),
            "lastScaleTime": before.and_then(|status| status.last_scale_time.clone()),
        }});
        action.otherwise = Some(crate::plan::merge(self.autoscaler, "status", status));
        self.plan.actions.push(action);
        if self.spec.behavior.is_some() {
            self.notes.changes(current, wanted, self.moment.now.instant);
        }
        let done = format!("the HPA controller was able to update the target scale to {wanted}");
        self.say("AbleToScale", true, "SucceededRescale", done);
        self.write(Some((current, wanted)), Some(statuses), Some(self.moment.now.wall));
    }

    fn last_wanted(&self) -> i32 {
        self.autoscaler.status.as_ref().map_or(0, |status| status.desired_replicas)
    }

    fn able(&mut self, (status, reason, message): Said) {
        self.say("AbleToScale", status, reason, message.into());
    }

    /// Sets a condition; its time is that of its last change between True and False.
    fn say(&mut self, kind: &str, status: bool, reason: &str, message: String) {
        let status = if status { "True" } else { "False" };
        let known = self.conditions.iter().position(|condition| condition["type"] == kind);
        let at = known.unwrap_or_else(|| {
            self.conditions.push(json!({"type": kind}));
            self.conditions.len() - 1
        });
        let condition = &mut self.conditions[at];
        if condition["status"] != status {
            condition["lastTransitionTime"] = json!(Time(self.moment.now.wall));
        }
        condition["status"] = status.into();
        condition["reason"] = reason.into();
        condition["message"] = message.into();
    }

    /// A Warning.
    fn tell(&mut self, reason: &'static str, message: String) {
        self.plan.told.push(Occurrence::of(self.autoscaler, true, reason, message));
    }

    /// Writes the status, if it is another one; without numbers or metrics, those stay as they were.
    fn write(
        &mut self,
        replicas: Option<(i32, i32)>,
        metrics: Option<Vec<Value>>,
        scaled: Option<Timestamp>,
    ) {
        let Some(stored) = self.view.json(self.autoscaler) else { return };
        let mut wanted = Map::new();
        if let Some((current, desired)) = replicas {
            wanted.insert("currentReplicas".into(), current.into());
            wanted.insert("desiredReplicas".into(), desired.into());
        }
        if let Some(metrics) = metrics {
            wanted.insert(
                "currentMetrics".into(),
                if metrics.is_empty() { Value::Null } else { metrics.into() },
            );
        }
        if let Some(scaled) = scaled {
            wanted.insert("lastScaleTime".into(), json!(Time(scaled)));
        }
        wanted.insert("conditions".into(), self.conditions.clone().into());
        if let Some(patch) = difference(stored.get("status"), &wanted) {
            self.plan.write(merge_this(self.autoscaler, "status", json!({"status": patch})));
        }
    }
}

/// What an autoscaler scales.
fn subject_of(autoscaler: &HorizontalPodAutoscaler) -> TypedRef {
    let reference = &autoscaler.spec.scale_target_ref;
    TypedRef {
        api_version: reference.api_version.clone().unwrap_or_else(|| "v1".into()),
        kind: reference.kind.clone(),
        namespace: autoscaler.metadata.namespace.clone().unwrap_or_default(),
        name: reference.name.clone(),
    }
}

fn selector_of(view: &View, autoscaler: &HorizontalPodAutoscaler) -> Option<String> {
    let scale = scale::of(view, &subject_of(autoscaler)).ok()?;
    scale.pointer("/status/selector").and_then(Value::as_str).map(str::to_owned)
}

fn conditions(autoscaler: &HorizontalPodAutoscaler) -> Vec<Value> {
    let known = autoscaler.status.iter().flat_map(|status| status.conditions.iter().flatten());
    known.map(|condition| json!(condition)).collect()
}
