//! Quotas: what is used of each, told anew where something was freed.
//!
//! What is added counts in the transaction that adds it, so a quota says too much for a moment but never too little.
//! Follows `pkg/controller/resourcequota`.

mod usage;

use std::time::Duration;

use api::Amounts;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use machinery::Object;
use objects::{Change, Pod, Write};
use serde_json::{Value, json};

use self::usage::Usage;
use crate::controller::{Controller, Due, Moment, Urgency, latest};
use crate::graph::Vertex;
use crate::key::Key;
use crate::plan::Plan;
use crate::pods;
use crate::tables::Watches;
use crate::touched::{Owned, Touched};
use crate::view::View;

/// How long after something was freed it is counted anew: objects that go together are counted together.
pub const PAUSE: Duration = Duration::from_millis(300);

/// Counts what is used of quotas.
pub(crate) struct Quotas;

impl Controller for Quotas {
    fn name(&self) -> &'static str {
        "resource-quota"
    }

    fn component(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<ResourceQuota>();
        watches.table::<Pod>();
        watches.account::<Usage>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<ResourceQuota>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let quota = change.of::<ResourceQuota>().filter(|change| is_news(change));
        due.objects(quota.and_then(latest));
        if let Some(Change { old: Some(old), new: Some(new), .. }) = change.of::<Pod>()
            && (pods::is_finished(new) && !pods::is_finished(old)
                || new.metadata.deletion_timestamp != old.metadata.deletion_timestamp)
        {
            recount(view, new.metadata.namespace.as_deref().unwrap_or_default(), due);
        }
        // What is gone, and what may be less, is free again.
        let shrinks = |node: &Vertex| matches!(&*node.kind, "Service" | "PersistentVolumeClaim");
        let Owned { old, new } = change.owned();
        if let Some(old) = old.as_ref().filter(|old| new.is_none() || shrinks(old)) {
            recount(view, &old.namespace, due);
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name(), moment.now.wall)
    }
}

/// The quotas of a namespace are counted anew, soon.
fn recount(view: &View, namespace: &str, due: &mut Due<'_>) {
    if namespace.is_empty() {
        return;
    }
    for quota in view.table::<ResourceQuota>().in_namespace(namespace) {
        due.later(namespace, quota.metadata.name.as_deref().unwrap_or_default(), PAUSE);
    }
}

/// Counts what is used of one quota.
fn reconcile(view: &View, namespace: &str, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(typed) = view.table::<ResourceQuota>().get(namespace, name) else { return plan };
    let Some(mut quota) = view.json(typed.as_ref()).and_then(Object::from_value) else { return plan };
    let Some(tally) = view.account::<Usage>().and_then(|usage| usage.of(namespace, name)) else {
        return plan;
    };
    if let Some(end) = tally.next_end(now) {
        // A pod that doesn't end in its time frees what it had without a word.
        plan.again(now.duration_until(end).unsigned_abs());
    }
    let (hard, used) = (tally.hard().to_value(), tally.used(view.state(), now));
    let is_told = |told: &Value| told["hard"] == hard && Amounts::of(&told["used"]) == used;
    if !quota.0.get("status").is_some_and(is_told) {
        // Only if nobody counted something more meanwhile.
        quota.set_meta("resourceVersion", typed.metadata.resource_version.clone().unwrap_or_default());
        quota.0.insert("status".into(), json!({"hard": hard, "used": used.to_value()}));
        plan.write(Write::UpdateStatus(quota));
    }
    plan
}

/// Whether a quota has something new to count: all else that is added was counted by what added it.
fn is_news(change: &Change<ResourceQuota>) -> bool {
    let Some(new) = &change.new else { return false };
    change.old.as_ref().is_none_or(|old| old.spec != new.spec)
        || new.spec.as_ref().and_then(|spec| spec.hard.as_ref())
            != new.status.as_ref().and_then(|status| status.hard.as_ref())
}
