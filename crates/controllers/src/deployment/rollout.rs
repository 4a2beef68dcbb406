//! One deployment with its ReplicaSets, and what is decided about each of them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use machinery::Object;
use objects::{Meta, Occurrence, Write};
use serde_json::{Map, Value, json};

use super::status::{NOT_CREATED, not_created};
use crate::kept::{Deployment, DeploymentSpec, ReplicaSet};
use crate::plan::{Action, Note, Plan, delete, merge};
use crate::pod_writes::owner_reference;
use crate::replicas::Replicas;
use crate::share::resolve;
use crate::template;
use crate::view::{View, controller_of};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a deployment that its sets don't inherit.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

/// A ReplicaSet and the size that is decided for it.
pub(super) struct Sized<'a> {
    pub set: &'a Arc<ReplicaSet>,
    pub replicas: i32,
    /// How many pods it has that count.
    pods: i32,
    /// How many of them serve, and for long enough.
    serving: i32,
    annotations: Map<String, Value>,
    min_ready_seconds: Option<i32>,
}

impl Sized<'_> {
    fn spec_replicas(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// How many pods serve and will go on to, at the size that the set has now: those beyond it are on
    /// their way out. Counted among the pods themselves: the set's status comes later.
    pub fn available(&self) -> i32 {
        self.serving.min(self.spec_replicas())
    }

    /// How many pods there may be of it until it has its size.
    fn at_most(&self) -> i32 {
        self.replicas.max(self.pods)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.set.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.annotation(name)?.parse().ok()
    }

    /// The size that the whole deployment had at most when this set was last sized.
    pub fn maximum_before(&self) -> Option<i64> {
        self.number(MAXIMUM)
    }

    pub fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or(0)
    }

    fn annotate(&mut self, name: &str, value: &str) {
        if self.annotation(name) == Some(value) {
            self.annotations.remove(name);
        } else {
            self.annotations.insert(name.to_owned(), value.into());
        }
    }

    fn is_changed(&self) -> bool {
        self.replicas != self.spec_replicas()
            || !self.annotations.is_empty()
            || self.min_ready_seconds.is_some()
    }
}

pub(super) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    pub stored: &'a Value,
    pub now: Timestamp,
    /// How many pods are asked for.
    pub replicas: i32,
    /// All sets, oldest first.
    pub sets: Vec<Sized<'a>>,
    /// Which of them has the current template.
    pub new: Option<usize>,
    /// The new set that this reconciliation makes.
    pub created: Option<String>,
    pub collisions: i32,
    revision: Option<i64>,
}

impl<'a> Rollout<'a> {
    pub fn new(
        view: &View,
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        stored: &'a Value,
        mut sets: Vec<&'a Arc<ReplicaSet>>,
        now: Timestamp,
    ) -> Self {
        sets.sort_by(|a, b| {
            let age = |set: &ReplicaSet| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone());
            age(a).cmp(&age(b))
        });
        let sets: Vec<Sized> = sets
            .into_iter()
            .map(|set| {
                let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let (pods, serving) = count(view, set, now);
                Sized { set, replicas, pods, serving, annotations: Map::new(), min_ready_seconds: None }
            })
            .collect();
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        Rollout {
            deployment,
            spec,
            stored,
            now,
            replicas: spec.replicas.unwrap_or(1).max(0),
            sets,
            new: None,
            created: None,
            collisions,
            revision: None,
        }
    }

    /// The old sets, oldest first.
    pub fn old(&self) -> impl Iterator<Item = &Sized<'a>> {
        let new = self.new;
        self.sets.iter().enumerate().filter(move |(at, _)| Some(*at) != new).map(|(_, set)| set)
    }

    pub fn old_mut(&mut self) -> impl Iterator<Item = &mut Sized<'a>> {
        let new = self.new;
        self.sets.iter_mut().enumerate().filter(move |(at, _)| Some(*at) != new).map(|(_, set)| set)
    }

    pub fn new_set(&self) -> Option<&Sized<'a>> {
        self.new.and_then(|at| self.sets.get(at))
    }

    /// The name of the set with the current template, whether it is there or about to be made.
    pub fn new_name(&self) -> &str {
        let there = self.new_set().and_then(|set| set.set.metadata.name.as_deref());
        self.created.as_deref().or(there).unwrap_or_default()
    }

    pub fn is_recreate(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    }

    pub fn is_changed(&self) -> bool {
        self.created.is_some() || self.sets.iter().any(Sized::is_changed)
    }

    /// How many pods there may be above, and how many may be missing below the size asked for.
    pub fn limits(&self) -> (i32, i32) {
        if self.is_recreate() || self.replicas == 0 {
            return (0, 0);
        }
        let rolling = self.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), self.replicas, true);
        let missing = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), self.replicas, false);
        // Both zero would mean that nothing may ever happen.
        let missing = if surge == 0 && missing == 0 { 1 } else { missing };
        (surge, missing.min(self.replicas))
    }

    /// The most pods there may be.
    pub fn maximum(&self) -> i32 {
        self.replicas.saturating_add(self.limits().0)
    }

    /// Whether the deployment was scaled since its sets were last sized.
    pub fn is_scaled(&self) -> bool {
        let active = self.sets.iter().filter(|set| set.replicas > 0);
        active.filter_map(|set| set.number(DESIRED)).any(|desired| desired != i64::from(self.replicas))
    }

    /// Whether a set alone has all pods that are asked for.
    pub fn is_saturated(&self, set: &Sized<'_>) -> bool {
        set.replicas == self.replicas
            && set.number(DESIRED) == Some(i64::from(self.replicas))
            && set.available() == self.replicas
    }

    /// Notes the size that the deployment has now on a set.
    pub fn note_size(&mut self, at: usize) {
        let (replicas, maximum) = (self.replicas.to_string(), self.maximum().to_string());
        if let Some(set) = self.sets.get_mut(at) {
            set.annotate(DESIRED, &replicas);
            set.annotate(MAXIMUM, &maximum);
        }
    }

    /// Finds the set with the current template and gives it the newest revision.
    pub fn sync_revision(&mut self) {
        let Some(wanted) = self.stored.pointer("/spec/template") else { return };
        let wanted = template::normalised(wanted);
        let hash = template::hash(&wanted, self.collisions);
        let fingerprint = self.spec.template.fingerprint;
        let is_new = |set: &Sized<'_>| {
            let same = set.set.spec.as_ref().is_some_and(|spec| spec.template.fingerprint == fingerprint);
            let label =
                set.set.metadata.labels.as_deref().and_then(|labels| labels.get(template::HASH_LABEL));
            same || label == Some(&hash)
        };
        self.new = self.sets.iter().position(is_new);
        let newest_old = self.old().map(Sized::revision).max().unwrap_or(0);
        let revision = newest_old + 1;
        let inherited = self.inherited();
        let min_ready_seconds = self.spec.min_ready_seconds.unwrap_or(0);
        let Some(at) = self.new else { return };
        let set = &mut self.sets[at];
        let previous = set.revision();
        if previous < revision {
            if previous > 0 {
                let history = set.annotation(REVISION_HISTORY).unwrap_or_default();
                let history =
                    if history.is_empty() { previous.to_string() } else { format!("{history},{previous}") };
                set.annotate(REVISION_HISTORY, &history);
            }
            set.annotate(REVISION, &revision.to_string());
        }
        for (name, value) in &inherited {
            set.annotate(name, value);
        }
        let own = set.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        set.min_ready_seconds = (own != min_ready_seconds).then_some(min_ready_seconds);
        self.revision = Some(previous.max(revision));
    }

    fn inherited(&self) -> Vec<(String, String)> {
        let annotations = self.deployment.metadata.annotations.as_deref().into_iter().flatten();
        annotations
            .filter(|(name, _)| !OWN.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Makes the ReplicaSet of the current template if there is none.
    pub fn create_new(&mut self, view: &View, plan: &mut Plan) {
        if self.new.is_some() {
            return;
        }
        let Some(wanted) = self.stored.pointer("/spec/template") else { return };
        let hash = template::hash(&template::normalised(wanted), self.collisions);
        let metadata = &self.deployment.metadata;
        let (namespace, owner) =
            (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
        let name = format!("{owner}-{hash}");
        if view.table::<ReplicaSet>().get(namespace, &name).is_some_and(|set| {
            controller_of(&set.metadata).is_none_or(|owner| Some(&owner.uid) != metadata.uid.as_ref())
        }) {
            // The name is taken by a set that is not ours: the next hash is another one.
            self.collisions = self.collisions.wrapping_add(1);
            return;
        }
        let replicas = self.room_for_new();
        let Some(set) = self.new_set_object(&name, &hash, replicas) else { return };
        let mut action = Action::from(Write::Create(set));
        if replicas > 0 {
            let told = format!("Scaled up replica set {name} from 0 to {replicas}");
            action = action.telling(Note::Event(Occurrence::of(
                self.deployment,
                false,
                "ScalingReplicaSet",
                told,
            )));
        }
        let refused = format!("Failed to create new replica set {name:?}: {{}}");
        action.otherwise = not_created(self, &refused);
        action.refused = Some(Occurrence::of(self.deployment, true, NOT_CREATED, refused));
        plan.actions.push(action);
        self.created = Some(name);
    }

    /// How many pods a new set may have (`NewRSNewReplicas`).
    pub fn room_for_new(&self) -> i32 {
        if self.is_recreate() {
            return self.replicas;
        }
        let own = self.new_set().map_or(0, |set| set.replicas);
        let all: i32 = self.sets.iter().map(Sized::at_most).fold(0, i32::saturating_add);
        let room = (self.maximum() - all).max(0).min((self.replicas - own).max(0));
        own.saturating_add(room)
    }

    fn new_set_object(&mut self, name: &str, hash: &str, replicas: i32) -> Option<Object> {
        let mut template = self.stored.pointer("/spec/template")?.clone();
        let mut selector = self.stored.pointer("/spec/selector")?.clone();
        template.as_object()?;
        if !template["metadata"].is_object() {
            template["metadata"] = json!({});
        }
        template["metadata"]["labels"][template::HASH_LABEL] = hash.into();
        selector["matchLabels"][template::HASH_LABEL] = hash.into();
        let revision = self.old().map(Sized::revision).max().unwrap_or(0) + 1;
        self.revision = Some(revision);
        let mut annotations: Map<String, Value> =
            self.inherited().into_iter().map(|(name, value)| (name, value.into())).collect();
        annotations.insert(REVISION.into(), revision.to_string().into());
        annotations.insert(DESIRED.into(), self.replicas.to_string().into());
        annotations.insert(MAXIMUM.into(), self.maximum().to_string().into());
        Object::from_value(json!({
            "kind": "ReplicaSet", "apiVersion": "apps/v1",
            "metadata": {
                "name": name,
                "namespace": self.deployment.metadata.namespace(),
                "labels": template["metadata"]["labels"],
                "annotations": annotations,
                "ownerReferences": [owner_reference(self.deployment)],
            },
            "spec": {
                "replicas": replicas,
                "minReadySeconds": self.spec.min_ready_seconds.unwrap_or(0),
                "selector": selector,
                "template": template,
            },
        }))
    }

    /// Sizes the new set, if there is one already.
    pub fn grow_new_to(&mut self, replicas: i32) {
        if let Some(at) = self.new
            && self.sets[at].replicas != replicas
        {
            self.sets[at].replicas = replicas;
            self.note_size(at);
        }
    }

    /// Scales every old set to nothing; true if all are so already.
    pub fn retire_old(&mut self) -> bool {
        let mut retired = true;
        for set in self.old_mut() {
            retired &= set.spec_replicas() == 0;
            set.replicas = 0;
        }
        retired
    }

    /// Deletes old sets beyond the history that is kept.
    pub fn clean_up(&self, plan: &mut Plan) {
        let Some(limit) = self.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok())
        else {
            return;
        };
        let mut old: Vec<_> =
            self.old().filter(|set| set.set.metadata.deletion_timestamp.is_none()).collect();
        old.sort_by_key(|set| set.revision());
        for set in old.iter().take(old.len().saturating_sub(limit)) {
            let (metadata, status) = (&set.set.metadata, set.set.status.clone().unwrap_or_default());
            let observed = status.observed_generation >= metadata.generation;
            if status.replicas == 0 && set.replicas == 0 && set.spec_replicas() == 0 && observed {
                plan.write(delete(set.set.as_ref()));
            }
        }
    }

    /// Writes what was decided about the sets, and the revision.
    pub fn write(self, plan: &mut Plan) {
        for set in self.sets.iter().filter(|set| set.is_changed()) {
            let before = set.spec_replicas();
            let mut patch = json!({});
            if !set.annotations.is_empty() {
                patch["metadata"]["annotations"] = Value::Object(set.annotations.clone());
            }
            if set.replicas != before {
                patch["spec"]["replicas"] = set.replicas.into();
            }
            if let Some(seconds) = set.min_ready_seconds {
                patch["spec"]["minReadySeconds"] = seconds.into();
            }
            let mut action = Action::from(merge(set.set.as_ref(), "", patch));
            if set.replicas != before {
                let name = set.set.metadata.name.as_deref().unwrap_or_default();
                let direction = if set.replicas > before { "up" } else { "down" };
                let told = format!("Scaled {direction} replica set {name} from {before} to {}", set.replicas);
                let told = Occurrence::of(self.deployment, false, "ScalingReplicaSet", told);
                action = action.telling(Note::Event(told));
            }
            plan.actions.push(action);
        }
        let Some(revision) = self.revision.map(|revision| revision.to_string()) else { return };
        let annotations = self.deployment.metadata.annotations.as_ref();
        if annotations.and_then(|annotations| annotations.get(REVISION)) != Some(&revision) {
            let patch = json!({"metadata": {"annotations": {(REVISION): revision}}});
            plan.write(merge(self.deployment, "", patch));
        }
    }
}

/// How many pods of a set count, and how many of them are available.
fn count(view: &View, set: &ReplicaSet, now: Timestamp) -> (i32, i32) {
    let seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let minimum = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let metadata = &set.metadata;
    let (namespace, uid) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.uid.as_deref().unwrap_or_default());
    let count = view.index::<Replicas>().map(|kept| kept.total(namespace, uid)).unwrap_or_default();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    (number(count.active), number(count.available(minimum, now).0))
}
