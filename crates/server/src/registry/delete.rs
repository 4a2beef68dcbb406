//! Deleting an object: preconditions, grace, finalizers, and what is left to the collector of garbage.
//!
//! Follows `BeforeDelete` and `Store.Delete` of `k8s.io/apiserver/pkg/registry`.

use access::UserInfo;
use jiff::{SignedDuration, Timestamp};
use machinery::{Cause, Object, Status};
use objects::{Named, Propagation, rfc3339};
use serde::Deserialize;
use serde_json::{Value, json};

use super::attempts::{freshness_of, settled};
use super::create::{ATTEMPTS, too_busy};
use super::read::Freshness;
use super::update::is_finished;
use super::{Registry, Written, definition, namespace};
use crate::admission::{self, AdmissionRequest, Claims, Operation, Outcome, Refused};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// A pod's grace if its spec says none.
const POD_GRACE_SECONDS: i64 = 30;

/// `DeleteOptions` of meta/v1.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) dry_run: bool,
}

/// What a delete came to.
#[derive(Debug)]
pub(crate) struct Deleted {
    /// The object as it is now, or was when it went.
    pub(crate) object: Object,
    /// Whether it is gone.
    pub(crate) gone: bool,
}

impl DeleteOptions {
    /// Reads the options of a body.
    pub(crate) fn parse(&mut self, body: &Value) -> Result<(), Status> {
        let kind = body.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            return Err(Status::bad_request(format!(
                "the body of a delete must be DeleteOptions, not {kind}"
            )));
        }
        let given: Given = serde_json::from_value(body.clone()).map_err(|error| {
            Status::bad_request(format!("the body of a delete is no DeleteOptions: {error}"))
        })?;
        if given.dry_run.iter().flatten().any(|dry| dry != "All") {
            let dry = serde_json::json!(given.dry_run);
            return Err(invalid(Cause::not_supported("dryRun", &dry, &["All"])));
        }
        self.grace_seconds = given.grace_period_seconds.or(self.grace_seconds);
        if let Some(policy) = given.propagation_policy {
            self.propagation = Some(propagation(&policy)?);
        }
        if let Some(orphan) = given.orphan_dependents {
            self.orphan_dependents(orphan)?;
        }
        let preconditions = given.preconditions.unwrap_or_default();
        (self.uid, self.resource_version) = (preconditions.uid, preconditions.resource_version);
        self.dry_run |= given.dry_run.is_some_and(|list| !list.is_empty());
        Ok(())
    }

    /// The options as they are sent.
    fn to_value(&self) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace_seconds {
            value["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(uid) = &self.uid {
            value["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = &self.resource_version {
            value["preconditions"]["resourceVersion"] = json!(version);
        }
        if let Some(propagation) = self.propagation {
            value["propagationPolicy"] = json!(format!("{propagation:?}"));
        }
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        value
    }

    /// The old form of a propagation policy, which can't go with one.
    pub(crate) fn orphan_dependents(&mut self, orphan: bool) -> Result<(), Status> {
        if self.propagation.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid(Cause::invalid("propagationPolicy", &orphan.into(), why)));
        }
        self.propagation = Some(if orphan { Propagation::Orphan } else { Propagation::Background });
        Ok(())
    }
}

/// `DeleteOptions` as they are sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    grace_period_seconds: Option<i64>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<Preconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

fn invalid(cause: Cause) -> Status {
    Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause])
}

/// The propagation policy of that name.
pub(crate) fn propagation(policy: &str) -> Result<Propagation, Status> {
    match policy {
        "Orphan" => Ok(Propagation::Orphan),
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        other => {
            let cause = Cause {
                reason: "FieldValueNotSupported".into(),
                message: format!(
                    "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                ),
                field: "propagationPolicy".into(),
            };
            Err(invalid(cause))
        }
    }
}

/// What a delete makes of an object.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It goes now.
    Remove(Object),
    /// It stays until finalizers and grace are over.
    Keep(Object),
    /// Nothing changes: it is going already.
    Unchanged,
}

impl Registry {
    /// Deletes an object, or marks it so.
    pub(crate) async fn delete(
        &self,
        who: &UserInfo,
        named: &Named<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        for attempt in 0..ATTEMPTS {
            let freshness = freshness_of(attempt);
            if let Some(answer) = settled(self.try_delete(who, named, options, freshness).await, freshness) {
                return answer;
            }
        }
        Err(too_busy())
    }

    async fn try_delete(
        &self,
        who: &UserInfo,
        named: &Named<'_>,
        options: &DeleteOptions,
        freshness: Freshness,
    ) -> Result<Option<Deleted>, Refused> {
        let state = self.state(freshness).await?;
        let kv = state.get(named.key().as_bytes()).ok_or_else(|| named.not_found())?;
        let old = self.converter.load(named.resource, kv).await?;
        let request = AdmissionRequest {
            who,
            named: *named,
            subresource: "",
            operation: Operation::Delete,
            dry_run: options.dry_run,
            options: options.to_value(),
            state: &state,
            edge: &*self.edge,
        };
        admission::on_change(&request, &old)?;
        namespace::check_delete(named)?;
        check_preconditions(named, options, &old)?;
        self.authorizer().check_revocation(&state, who, named)?;
        let mut claims = Claims::default();
        self.admission.validate(&request, Outcome { new: None, old: Some(&old) }, &mut claims).await?;
        let mut options = options.clone();
        // As upstream's `shouldOrphanDependents`: a policy that is asked for wins over the finalizers, and these over
        // the default.
        let leaves = named.resource.orphans_by_default();
        if options.propagation.is_none() && leaves && !old.finalizers().contains(&FOREGROUND) {
            options.propagation = Some(Propagation::Orphan);
        }
        let (object, gone) = match decide(&old, &options, self.edge.second()) {
            Fate::Unchanged => {
                // Nothing is written, so no transaction would find out that this state is old.
                let deleted = Deleted { object: old, gone: false };
                return Ok((freshness != Freshness::Any).then_some(deleted));
            }
            Fate::Keep(object) => (object, false),
            Fate::Remove(object) => (object, true),
        };
        if options.dry_run {
            return Ok(Some(Deleted { object, gone }));
        }
        if !gone {
            let written = self.put(named, kv.mod_revision, object, claims).await?;
            let deleted = |written: Written| written.into_object().map(|object| Deleted { object, gone });
            return Ok(written.map(deleted).transpose()?);
        }
        claims.add(admission::release(named.resource, &old));
        let removed = self.remove(named, kv.mod_revision, claims).await?;
        Ok(removed.map(|_| Deleted { object, gone }))
    }
}

fn check_preconditions(named: &Named<'_>, options: &DeleteOptions, object: &Object) -> Result<(), Status> {
    if let Some(uid) = &options.uid
        && uid != object.uid()
    {
        let why = format!("UID in precondition: {uid}, UID in object meta: {}", object.uid());
        return Err(named.precondition_failed(&why));
    }
    if let Some(version) = &options.resource_version
        && version != object.resource_version()
    {
        let why = format!(
            "ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            object.resource_version()
        );
        return Err(named.precondition_failed(&why));
    }
    Ok(())
}

/// What deleting `old` at `now` makes of it.
fn decide(old: &Object, options: &DeleteOptions, now: Timestamp) -> Fate {
    let mut object = old.clone();
    if definition::is(old) && old.deletion_timestamp().is_none() {
        definition::terminate(&mut object, &rfc3339(now));
        return Fate::Keep(object);
    }
    set_finalizers(&mut object, options.propagation);
    let going = old.deletion_timestamp().is_some();

    if old.kind() == "Pod" {
        if going {
            shorten(&mut object, options.grace_seconds);
        } else {
            let grace = pod_grace(old, options.grace_seconds);
            mark(&mut object, now, grace);
        }
    } else if old.kind() == "Namespace" {
        if !going {
            object.set_meta("deletionTimestamp", rfc3339(now));
            namespace::terminate(&mut object);
        }
    } else if !object.finalizers().is_empty() && !going {
        mark(&mut object, now, 0);
    }

    let waits =
        !object.finalizers().is_empty() || (object.deletion_timestamp().is_some() && !is_finished(&object));
    if !waits {
        Fate::Remove(object)
    } else if object == *old {
        Fate::Unchanged
    } else {
        Fate::Keep(object)
    }
}

/// The finalizers that leave dependents to the collector of garbage, as the policy asks; without one, as
/// they are.
fn set_finalizers(object: &mut Object, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<String> = object
        .finalizers()
        .into_iter()
        .filter(|f| !matches!(*f, ORPHAN | FOREGROUND))
        .map(str::to_owned)
        .collect();
    match propagation {
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        object.remove_meta("finalizers");
    } else {
        object.set_meta("finalizers", finalizers);
    }
}

/// Seconds that a pod gets: none if nothing of it can be running.
fn pod_grace(pod: &Object, asked: Option<i64>) -> i64 {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
    if text("/spec/nodeName").is_empty() || matches!(text("/status/phase"), "Failed" | "Succeeded") {
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    // Another pod of a StatefulSet takes over the name at once: without force, a deletion waits for the host's word.
    let own = own.map(|grace| if grace == 0 && is_stateful(pod) { 1 } else { grace });
    match asked.or(own).unwrap_or(POD_GRACE_SECONDS) {
        // As in `BeforeDelete`: the least that still lets a pod end by itself.
        grace if grace < 0 => 1,
        grace => grace,
    }
}

fn is_stateful(pod: &Object) -> bool {
    let owners = pod.meta("ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|owner| owner["controller"] == true && owner["kind"] == "StatefulSet")
}

/// Marks an object as being deleted, to be gone after `grace` seconds.
fn mark(object: &mut Object, now: Timestamp, grace: i64) {
    let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    object.set_meta("deletionTimestamp", rfc3339(at));
    object.set_meta("deletionGracePeriodSeconds", grace);
    if let Some(generation) = object.meta("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
        object.set_meta("generation", generation + 1);
    }
}

/// An object that is being deleted can only go sooner.
fn shorten(object: &mut Object, asked: Option<i64>) {
    let Some(current) = object.meta("deletionGracePeriodSeconds").and_then(Value::as_i64) else { return };
    let Some(asked) = asked.map(|grace| if grace < 0 { 1 } else { grace }).filter(|grace| *grace < current)
    else {
        return;
    };
    let at = object.deletion_timestamp().and_then(|text| text.parse::<Timestamp>().ok());
    if let Some(at) = at.and_then(|at| at.checked_sub(SignedDuration::from_secs(current - asked)).ok()) {
        object.set_meta("deletionTimestamp", rfc3339(at));
    }
    object.set_meta("deletionGracePeriodSeconds", asked);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str, grace: Option<i64>) -> Object {
        let mut metadata = json!({"name": "p", "generation": 1});
        if let Some(grace) = grace {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:30Z");
            metadata["deletionGracePeriodSeconds"] = json!(grace);
        }
        let value = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata,
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}});
        Object::from_value(value).unwrap()
    }

    fn seconds(grace: i64) -> DeleteOptions {
        DeleteOptions { grace_seconds: Some(grace), ..DeleteOptions::default() }
    }

    #[test]
    fn a_pod_of_a_stateful_set_is_forgotten_without_its_hosts_word_only_by_force() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (owner, waits) in [("StatefulSet", true), ("ReplicaSet", false)] {
            let mut pod = pod("n1", None);
            pod.set_meta("ownerReferences", json!([{"kind": owner, "controller": true}]));
            pod.0["spec"]["terminationGracePeriodSeconds"] = json!(0);
            let verdict = decide(&pod, &DeleteOptions::default(), now);
            assert_eq!(matches!(verdict, Fate::Keep(_)), waits, "{owner}: {verdict:?}");
            assert!(matches!(decide(&pod, &seconds(0), now), Fate::Remove(_)));
        }
    }

    #[test]
    fn a_pod_stays_for_its_grace_and_can_only_go_sooner() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let kept = |verdict| match verdict {
            Fate::Keep(object) => (
                object.deletion_timestamp().unwrap().to_owned(),
                object.meta("deletionGracePeriodSeconds").cloned().unwrap(),
            ),
            other => panic!("{other:?}"),
        };
        let options = DeleteOptions::default();
        assert!(matches!(decide(&pod("", None), &options, now), Fate::Remove(_)), "not bound");
        assert_eq!(kept(decide(&pod("n1", None), &options, now)), ("2026-01-01T00:00:30Z".into(), json!(30)));
        assert_eq!(
            kept(decide(&pod("n1", None), &seconds(5), now)),
            ("2026-01-01T00:00:05Z".into(), json!(5))
        );
        assert_eq!(decide(&pod("n1", Some(30)), &options, now), Fate::Unchanged);
        assert_eq!(decide(&pod("n1", Some(30)), &seconds(60), now), Fate::Unchanged);
        assert_eq!(
            kept(decide(&pod("n1", Some(30)), &seconds(10), now)),
            ("2026-01-01T00:00:10Z".into(), json!(10))
        );
        assert!(matches!(decide(&pod("n1", Some(30)), &seconds(0), now), Fate::Remove(_)));
    }

    #[test]
    fn a_namespace_stays_until_its_own_finalizers_are_gone() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut namespace = Object::from_value(json!({"kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}}))
        .unwrap();
        let options = DeleteOptions::default();
        let Fate::Keep(kept) = decide(&namespace, &options, now) else { panic!() };
        assert_eq!(kept.pointer("/status/phase"), Some(&json!("Terminating")));
        assert_eq!(decide(&kept, &options, now), Fate::Unchanged);
        namespace.0.insert("spec".into(), json!({}));
        assert!(matches!(decide(&namespace, &options, now), Fate::Remove(_)));
    }
}
