//! What a change uses of the quotas of its namespace: counted in the very transaction that makes it, so that no
//! quota is ever exceeded, however many requests come at once and wherever.
//!
//! A quota's `status.used` is what was counted. A change that adds to it writes it on the condition that no other
//! change did meanwhile; the controller recounts what was freed on the same condition. A quota that is new, or limits
//! something new, has nothing counted yet: then the state itself is counted. So that nothing slips in beside a
//! quota that its maker has not seen yet, every create depends on a mark that changes with the quotas.
//!
//! Words follow `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use api::{Amounts, Quotable, quota_hard};
use bytes::Bytes;
use jiff::Timestamp;
use machinery::{Object, Quantity, Status};
use objects::{encode, load, quota_usage};
use serde_json::json;
use store::{Compare, Condition, KeyRange, Op, Revision, State};
use tokio::sync::{Mutex, MutexGuard};

use super::Claims;
use super::request::{AdmissionRequest, Operation, Outcome};

/// Turns for changes that wait to be counted, by namespace: without them, many that try at once mostly fail.
///
/// Only a matter of speed: the conditions of the transaction keep the quota, with other members' writers as well. So it
/// does no harm that namespaces share a place, or that a turn counts on one member only.
#[derive(Debug, Default)]
pub(crate) struct Turns([Mutex<()>; 16]);

impl Turns {
    /// Waits for one's turn in a namespace.
    pub(crate) async fn wait(&self, namespace: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let place = hasher.finish() as usize % self.0.len();
        self.0[place].lock().await
    }
}

fn mark(namespace: &str) -> Bytes {
    Bytes::from(format!("/allocations/quotas/{namespace}"))
}

/// Forgets a namespace that goes.
pub(super) fn release(namespace: &str) -> Claims {
    let mut claims = Claims::default();
    claims.ops.push(Op::Delete(KeyRange::key(mark(namespace))));
    claims
}

/// Whether a namespace has a quota.
pub(crate) fn is_limited(namespace: &str, state: &State) -> bool {
    let prefix = objects::namespace_prefix("", "resourcequotas", namespace);
    !namespace.is_empty() && state.range(&KeyRange::prefix(prefix)).next().is_some()
}

/// Counts what a change uses; 403 if a quota has no room for it.
pub(super) fn charge(
    request: &AdmissionRequest<'_>,
    outcome: Outcome<'_>,
    claims: &mut Claims,
) -> Result<(), Status> {
    let Outcome { new: Some(new), old } = outcome else { return Ok(()) };
    let (named, state) = (&request.named, request.state);
    if named.namespace.is_empty() || !is_counted(request, old) {
        return Ok(());
    }
    let is_quota = named.resource.group.is_empty() && named.resource.plural == "resourcequotas";
    if is_quota {
        claims.ops.push(Op::put(mark(named.namespace), Bytes::from_static(b"1")));
    }
    let seen = state.get(&mark(named.namespace)).map_or(Revision::ZERO, |kv| kv.mod_revision);
    claims.conditions.push(Condition::ModRevision(mark(named.namespace), Compare::Equal, seen));
    let prefix = objects::namespace_prefix("", "resourcequotas", named.namespace);
    let now = request.edge.second();
    for kv in state.range(&KeyRange::prefix(prefix)) {
        if is_quota && kv.key == named.key().as_bytes() {
            continue;
        }
        let quota = load(kv)?;
        if let Some(counted) = count(request, &quota, new, old, now)? {
            claims.conditions.push(Condition::ModRevision(kv.key.clone(), Compare::Equal, kv.mod_revision));
            claims.ops.push(Op::put(kv.key.clone(), encode(&counted)?));
        }
    }
    Ok(())
}

/// Whether a change may use more than before: all that is new, and what grows.
fn is_counted(request: &AdmissionRequest<'_>, old: Option<&Object>) -> bool {
    let resource = request.named.resource;
    match (request.operation, old) {
        (Operation::Create, _) => true,
        (Operation::Update, Some(_)) => matches!(
            (resource.group, resource.plural, request.subresource),
            ("", "pods", "resize") | ("", "services" | "persistentvolumeclaims" | "resourcequotas", "")
        ),
        _ => false,
    }
}

/// The quota with the change counted; nothing if the change is nothing to it.
fn count(
    request: &AdmissionRequest<'_>,
    quota: &Object,
    new: &Object,
    old: Option<&Object>,
    now: Timestamp,
) -> Result<Option<Object>, Status> {
    let resource = request.named.resource;
    let of = |object| Quotable { group: resource.group, plural: resource.plural, object };
    let hard = quota_hard(quota);
    if !of(new).is_in_scope(quota) {
        return Ok(None);
    }
    let before =
        old.filter(|old| of(old).is_in_scope(quota)).map(|old| of(old).usage(now)).unwrap_or_default();
    let mut more = Amounts::default();
    let usage = of(new).usage(now);
    for (name, amount) in usage.iter().filter(|(name, _)| hard.get(name).is_some()) {
        let more_of = *amount - before.get(name).copied().unwrap_or_default();
        if more_of > Quantity::default() {
            more.set(name, more_of);
        }
    }
    if request.operation == Operation::Create
        && let Some(missing) = of(new).missing(&hard)
    {
        return Err(request.named.forbidden(&format!("failed quota: {}: {missing}", quota.name())));
    }
    if more.is_empty() {
        return Ok(None);
    }
    let mut used = counted(quota, &hard, request.state, now);
    let mut exceeded = BTreeSet::new();
    for (name, amount) in more.iter() {
        let sum = used.get(name).copied().unwrap_or_default() + *amount;
        if hard.get(name).is_some_and(|most| sum > *most) {
            exceeded.insert(name.to_owned());
        }
    }
    if !exceeded.is_empty() {
        let told = |amounts: &Amounts| -> String {
            let entry = |name: &String| format!("{name}={}", amounts.get(name).copied().unwrap_or_default());
            exceeded.iter().map(entry).collect::<Vec<_>>().join(",")
        };
        let why = format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            quota.name(),
            told(&more),
            told(&used),
            told(&hard)
        );
        return Err(request.named.forbidden(&why));
    }
    used.add_all(&more);
    let mut quota = quota.clone();
    quota.0.insert("status".into(), json!({"hard": hard.to_value(), "used": used.to_value()}));
    Ok(Some(quota))
}

/// What is used of a quota: what was counted, and where nothing was, what there is.
fn counted(quota: &Object, hard: &Amounts, state: &State, now: Timestamp) -> Amounts {
    let mut used = quota.pointer("/status/used").map(Amounts::of).unwrap_or_default();
    used.retain(|name, _| hard.get(name).is_some());
    let mut missing = hard.clone();
    missing.retain(|name, _| used.get(name).is_none());
    if !missing.is_empty() {
        used.add_all(&quota_usage(quota, &missing, state, now));
    }
    used
}
