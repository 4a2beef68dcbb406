//! Evicting a pod: a delete that its disruption budget has to allow.
//!
//! Follows `pkg/registry/core/pod/storage/eviction.go` upstream.

use access::UserInfo;
use machinery::{Cause, LabelSelector, Object, Resource, Status};
use objects::{Named, load};
use serde_json::{Map, Value, json};
use store::{KeyRange, State};

use super::create::{ATTEMPTS, too_busy};
use super::read::Freshness;
use super::{DeleteOptions, Recorded, Registry, Update};
use crate::admission::{self, AdmissionRequest, Operation};

/// Seconds after which an eviction is worth another try.
/// Both numbers are upstream's (`MaxDisruptedPodSize` is the other one).
const RETRY_SECONDS: u32 = 10;
/// The most evicted pods that may be on their way out at once.
const MOST_DISRUPTED: usize = 2000;

impl Registry {
    /// Deletes a pod if its disruption budget allows that, and counts it there.
    pub(crate) async fn evict(
        &self,
        who: &UserInfo,
        pod: &Named<'_>,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let budgets = api::resource("policy", "v1", "poddisruptionbudgets")
            .ok_or_else(|| Status::internal("disruption budgets are not served"))?;
        for _ in 0..ATTEMPTS {
            let state = self.state(Freshness::Newest).await?;
            let found = load(state.get(pod.key().as_bytes()).ok_or_else(|| pod.not_found())?)?;
            admission::on_eviction(who, pod, &found)?;
            self.ask_about_eviction(who, pod, options, &state).await?;
            // The budget is changed first. If the delete fails then, the pod counts as gone for two minutes too many;
            // the other way round, two evictions at the same time could both go through.
            if let Some(budget) = budget_of(&state, budgets, &found)?
                && let Allowance::Counts(counted) = judge(&found, &budget, &self.edge.time())?
            {
                let named = Named { resource: budgets, namespace: pod.namespace, name: budget.name() };
                let recorded = Recorded::Update("kube-apiserver");
                let change = Update { who, named, subresource: "status", dry_run: options.dry_run, recorded };
                match self.change(&change, &|_| Ok(counted.clone())).await {
                    Ok(_) => {}
                    // Somebody else was faster: what the budget says now counts.
                    Err(status) if status.code == 409 => continue,
                    Err(status) => return Err(status),
                }
            }
            if !options.dry_run {
                // Before the delete (upstream: `addConditionAndDeletePod`): a pod that goes at once has no status
                // afterwards.
                self.tell_why(who, pod).await?;
            }
            return self.delete(who, pod, options).await.map(|_| ());
        }
        Err(too_busy())
    }

    /// Asks the webhooks and policies that judge evictions.
    async fn ask_about_eviction(
        &self,
        who: &UserInfo,
        pod: &Named<'_>,
        options: &DeleteOptions,
        state: &State,
    ) -> Result<(), Status> {
        let mut eviction = Object(Map::new());
        eviction.0.insert("kind".into(), json!("Eviction"));
        eviction.0.insert("apiVersion".into(), json!("policy/v1"));
        eviction.0.insert("metadata".into(), json!({"name": pod.name, "namespace": pod.namespace}));
        let request = AdmissionRequest {
            who,
            named: *pod,
            subresource: "eviction",
            operation: Operation::Create,
            dry_run: options.dry_run,
            options: Recorded::Already.options("CreateOptions", options.dry_run),
            state,
            edge: &*self.edge,
        };
        self.admission.validate_action(&request, &eviction).await
    }

    /// Says in a pod's status that it is evicted.
    async fn tell_why(&self, who: &UserInfo, pod: &Named<'_>) -> Result<(), Status> {
        let change =
            Update { who, named: *pod, subresource: "status", dry_run: false, recorded: Recorded::Already };
        let told = |pod: &Object| Ok(disrupted(pod, &self.edge.time()));
        self.change(&change, &told).await.map(|_| ())
    }
}

/// The pod with the condition that says why it goes.
fn disrupted(pod: &Object, now: &str) -> Object {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
    });
    let mut pod = pod.clone();
    if let Value::Object(status) = pod.0.entry("status").or_insert_with(|| json!({}))
        && let Value::Array(conditions) = status.entry("conditions").or_insert_with(|| json!([]))
    {
        match conditions.iter_mut().find(|known| known["type"] == condition["type"]) {
            Some(known) if known["status"] == "True" => {}
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    pod
}

/// The budget that a pod counts for; none for pods that run no more, or not yet.
fn budget_of(state: &State, budgets: &Resource, pod: &Object) -> Result<Option<Object>, Status> {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    if pod.deletion_timestamp().is_some() || matches!(phase, "Succeeded" | "Failed" | "Pending") {
        return Ok(None);
    }
    let prefix = objects::namespace_prefix(budgets.group, budgets.plural, pod.namespace());
    let all = state.range(&KeyRange::prefix(prefix)).filter_map(|kv| load(kv).ok());
    let mut of_pod = all.filter(|budget| {
        let selector = budget.pointer("/spec/selector").and_then(LabelSelector::from_value);
        selector.is_some_and(|selector| selector.matches(pod))
    });
    let budget = of_pod.next();
    if of_pod.next().is_some() {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(500, "", why));
    }
    Ok(budget)
}

/// What a budget says to an eviction that it doesn't forbid.
#[derive(Debug, PartialEq)]
enum Allowance {
    /// The pod counts for nothing.
    Free,
    /// The budget, with the pod counted.
    Counts(Object),
}

fn judge(pod: &Object, budget: &Object, now: &str) -> Result<Allowance, Status> {
    let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    if !is_ready(pod) {
        let always = budget.pointer("/spec/unhealthyPodEvictionPolicy") == Some(&json!("AlwaysAllow"));
        let wanted = number("/status/desiredHealthy");
        if always || (wanted > 0 && number("/status/currentHealthy") >= wanted) {
            return Ok(Allowance::Free);
        }
    }
    let allowed = number("/status/disruptionsAllowed");
    let generation = budget.meta("generation").and_then(Value::as_i64).unwrap_or_default();
    let name = budget.name();
    if number("/status/observedGeneration") < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(why, RETRY_SECONDS));
    }
    let forbidden = |why: &str| Status::forbidden("policy", "poddisruptionbudgets", name, why);
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object);
    if disrupted.is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        return Err(forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let (wanted, healthy) = (number("/status/desiredHealthy"), number("/status/currentHealthy"));
        let why =
            format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently");
        return Err(refused(why, 0));
    }
    let mut budget = budget.clone();
    if let Some(Value::Object(status)) = budget.0.get_mut("status") {
        status.insert("disruptionsAllowed".into(), (allowed - 1).into());
        if let Value::Object(pods) = status.entry("disruptedPods").or_insert_with(|| json!({})) {
            pods.insert(pod.name().to_owned(), now.into());
        }
    }
    Ok(Allowance::Counts(budget))
}

fn is_ready(pod: &Object) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// 429: not now.
fn refused(why: String, retry_seconds: u32) -> Status {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::new(429, "TooManyRequests", message).about("", "", "");
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() });
        details.retry_after_seconds = retry_seconds;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: &str) -> Object {
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
        Object::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn budget(allowed: i64, healthy: i64, observed: i64) -> Object {
        let status = json!({"disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": 2,
            "observedGeneration": observed});
        Object::from_value(json!({"metadata": {"name": "b", "generation": 1}, "spec": {}, "status": status}))
            .unwrap()
    }

    fn code(verdict: Result<Allowance, Status>) -> (u16, u32) {
        let status = verdict.unwrap_err();
        (status.code, status.details.unwrap().retry_after_seconds)
    }

    #[test]
    fn a_budget_counts_what_it_allows_and_refuses_the_rest() {
        let Allowance::Counts(counted) = judge(&pod("True"), &budget(1, 3, 1), "now").unwrap() else {
            panic!()
        };
        assert_eq!(counted.pointer("/status/disruptionsAllowed"), Some(&json!(0)));
        assert_eq!(counted.pointer("/status/disruptedPods/p"), Some(&json!("now")));
        assert_eq!(code(judge(&pod("True"), &budget(0, 2, 1), "now")), (429, 0));
        assert_eq!(code(judge(&pod("True"), &budget(1, 3, 0), "now")), (429, 10), "not yet looked at");
        assert_eq!(code(judge(&pod("True"), &budget(-1, 3, 1), "now")), (403, 0));
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_where_enough_others_are() {
        assert_eq!(judge(&pod("False"), &budget(0, 2, 1), "now"), Ok(Allowance::Free));
        assert_eq!(code(judge(&pod("False"), &budget(0, 1, 1), "now")), (429, 0));
        let mut always = budget(0, 0, 0);
        always.0.insert("spec".into(), json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}));
        assert_eq!(judge(&pod("False"), &always, "now"), Ok(Allowance::Free));
    }
}
