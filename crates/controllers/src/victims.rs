//! Which pods a ReplicaSet gives up first: `ActivePodsWithRanks` of `pkg/controller/controller_utils.go`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use objects::{DELETION_COST, Pod};

use crate::pods;

/// The `count` pods that are missed least; `per_node` says how many related pods each node has.
pub(crate) fn choose<'a>(
    mut pods: Vec<&'a Arc<Pod>>,
    per_node: &HashMap<String, usize>,
    count: usize,
    now: Timestamp,
) -> Vec<&'a Arc<Pod>> {
    // Only those that go are put in order.
    if count < pods.len() {
        pods.select_nth_unstable_by(count, |a, b| order(a, b, per_node, now));
        pods.truncate(count);
    }
    pods.sort_by(|a, b| order(a, b, per_node, now));
    pods
}

fn order(a: &Pod, b: &Pod, per_node: &HashMap<String, usize>, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| pod.node().is_some();
    let phase = |pod: &Pod| match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let rank = |pod: &Pod| pod.node().and_then(|node| per_node.get(node)).copied().unwrap_or(0);
    let since = |pod: &Pod| age(pods::ready_since(pod), now);
    let created = |pod: &Pod| age(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank(b).cmp(&rank(a)))
        .then_with(|| since(a).cmp(&since(b)))
        .then_with(|| pods::restarts(b).cmp(&pods::restarts(a)))
        .then_with(|| created(a).cmp(&created(b)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(DELETION_COST)?.parse().ok()).unwrap_or(0)
}

/// The logarithm of an age in seconds: pods of about the same age are ordered by their uid, so that a
/// scale-down does not always hit the newest host (KEP-2185).
fn age(since: Option<Timestamp>, now: Timestamp) -> i64 {
    let Some(since) = since else { return -1 };
    let seconds = now.duration_since(since).as_secs();
    if seconds <= 0 { 0 } else { i64::from(seconds.ilog2()) + 1 }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, status: Value, node: Option<&str>, annotations: Value) -> Arc<Pod> {
        let value = json!({
            "metadata": {"name": name, "uid": name, "annotations": annotations},
            "spec": {"containers": [], "nodeName": node},
            "status": status,
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn running(since: &str, restarts: i32) -> Value {
        json!({
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts}],
        })
    }

    #[test]
    fn pods_that_are_missed_least_go_first() {
        let old = running("2026-01-01T00:00:00Z", 0);
        let expected = [
            pod("unassigned", json!({"phase": "Pending"}), None, Value::Null),
            pod("pending", json!({"phase": "Pending"}), Some("n1"), Value::Null),
            pod("not-ready", json!({"phase": "Running"}), Some("n1"), Value::Null),
            pod("cheap", old.clone(), Some("n3"), json!({(DELETION_COST): "-5"})),
            pod("doubled", old.clone(), Some("n1"), Value::Null),
            pod("young", running("2026-01-01T23:59:50Z", 0), Some("n2"), Value::Null),
            pod("restarted", running("2026-01-01T00:00:00Z", 9), Some("n2"), Value::Null),
            pod("steady", old, Some("n2"), Value::Null),
        ];
        let per_node = HashMap::from([("n1".to_owned(), 2), ("n2".to_owned(), 1), ("n3".to_owned(), 1)]);
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let shuffled: Vec<_> = expected.iter().rev().collect();
        for count in 0..expected.len() {
            let chosen = choose(shuffled.clone(), &per_node, count, now);
            assert!(chosen.iter().zip(&expected).all(|(a, b)| Arc::ptr_eq(a, b)), "{count}");
            assert_eq!(chosen.len(), count);
        }
        let chosen = choose(shuffled, &per_node, expected.len(), now);
        let names = |pods: &mut dyn Iterator<Item = &Arc<Pod>>| -> Vec<String> {
            pods.filter_map(|pod| pod.metadata.name.clone()).collect()
        };
        assert_eq!(names(&mut chosen.into_iter()), names(&mut expected.iter()));
    }
}
