//! A DaemonSet's status: how many hosts are meant, and how many have what (`updateDaemonSetStatus`).

use serde_json::{Value, json};

use super::fleet::Fleet;
use crate::plan::{Plan, difference, merge};
use crate::pods;

/// Writes the status if it changed; `collisions` is how often names of others' revisions were met, if that changed.
pub(super) fn report(fleet: &Fleet<'_>, stored: &Value, collisions: Option<i32>, plan: &mut Plan) {
    let (mut meant, mut current, mut misplaced) = (0, 0, 0);
    let (mut updated, mut ready, mut available) = (0, 0, 0);
    for host in &fleet.hosts {
        let oldest = host.pods.first();
        if !host.eligibility.starts {
            misplaced += usize::from(oldest.is_some());
            continue;
        }
        meant += 1;
        let Some(pod) = oldest else { continue };
        current += 1;
        updated += usize::from(fleet.is_updated(pod));
        ready += usize::from(pods::is_ready(pod));
        available += usize::from(fleet.is_available(pod));
    }
    let all = fleet.hosts.iter().flat_map(|host| &host.pods);
    let waits = all.filter_map(|pod| pods::available_in(pod, fleet.minimum(), fleet.now));
    waits.filter(|wait| !wait.is_zero()).min().into_iter().for_each(|wait| plan.again(wait));
    let number = |n: usize| if n == 0 { Value::Null } else { n.into() };
    let mut wanted = json!({
        "observedGeneration": fleet.set.metadata.generation,
        "desiredNumberScheduled": meant,
        "currentNumberScheduled": current,
        "numberMisscheduled": misplaced,
        "numberReady": ready,
        "updatedNumberScheduled": number(updated),
        "numberAvailable": number(available),
        "numberUnavailable": number(meant - available),
    });
    if let Some(collisions) = collisions {
        wanted["collisionCount"] = collisions.into();
    }
    let patch = wanted.as_object().and_then(|wanted| difference(stored.get("status"), wanted));
    if let Some(patch) = patch {
        plan.write(merge(fleet.set, "status", json!({"status": patch})));
    }
}
