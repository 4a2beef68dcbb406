//! Pods that are resized in place.

use serde_json::{Value, json};

use super::*;
use crate::container::cgroup::Amounts;

/// A container `m` with a limit of both, and a `resizePolicy` for memory.
fn sized(cpu: &str, memory: &str, policy: &str) -> Value {
    json!({"restartPolicy": "OnFailure", "containers": [{"name": "m", "resources": {"limits": {"cpu": cpu, "memory": memory}},
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": policy}]}]})
}

impl Table {
    /// The host has given the pod what this spec asks for.
    fn allocated(&mut self, spec: Value) {
        self.pod.spec = serde_json::from_value(spec).unwrap();
        self.record.allocated(Some(2));
    }

    /// What is asked for at a time, if anything is.
    fn resizing(&mut self, seconds: u64) -> Option<Resizing> {
        let actions = decide(&self.pod, &mut self.record, at(seconds)).actions;
        actions.into_iter().find_map(|action| match action {
            Action::Resize(resizing) => Some(resizing),
            _ => None,
        })
    }
}

#[test]
fn a_resize_is_asked_for_until_it_is_done() {
    let mut table = Table::new(sized("1", "100", "NotRequired"));
    table.prepared();
    assert_eq!(table.step(0), ["start m 0"]);
    table.started("m", 0, 0);
    assert_eq!(table.step(0), NOTHING);
    table.allocated(sized("2", "50", "NotRequired"));
    let asked = table.resizing(1).unwrap();
    assert_eq!((asked.pod.0.cpu, asked.pod.1.cpu, asked.pod.1.memory), (Some(1000), Some(2000), Some(50)));
    assert_eq!((asked.containers[0].from.memory, asked.containers[0].to.memory), (Some(100), Some(50)));
    assert_eq!(table.step(2), NOTHING, "one at a time");
    let said = table.said(2);
    assert_eq!(said["containerStatuses"][0]["resources"]["limits"]["cpu"], "1", "as it still has it");
    let failed = || Resized { is_kept: true, error: Some("no".into()), ..Resized::default() };
    assert_eq!(table.record.resized(asked.clone(), failed(), at(2)).as_deref(), Some("no"));
    let said = table.said(2);
    let told =
        said["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "PodResizeInProgress").unwrap();
    assert_eq!(
        (&told["reason"], &told["message"], &told["observedGeneration"]),
        (&json!("Error"), &json!("no"), &json!(2))
    );
    assert_eq!(table.resizing(3), None, "not at once");
    let again = table.resizing(4).unwrap();
    assert_eq!(again, asked);
    assert_eq!(table.record.resized(again.clone(), failed(), at(4)), None, "told once");
    let again = table.resizing(6).unwrap();
    let done = Resized { is_kept: true, containers: 1, pod: Some(again.pod.1), error: None };
    assert_eq!(table.record.resized(again, done, at(6)), None);
    assert_eq!(table.step(6), ["event ResizeCompleted"]);
    let said = table.said(6);
    assert_eq!(said["containerStatuses"][0]["resources"]["limits"]["cpu"], "2");
    assert!(!said["conditions"].to_string().contains("PodResize"), "{said}");
    assert_eq!(table.step(7), NOTHING);
}

#[test]
fn a_container_that_must_restart_for_it_does_whatever_its_pod_says_of_ends() {
    let mut table = Table::new(sized("1", "100", "RestartContainer"));
    table.prepared();
    table.step(0);
    table.started("m", 0, 0);
    table.allocated(sized("1", "50", "RestartContainer"));
    // The pod as a whole doesn't shrink before the container has ended.
    assert_eq!(table.step(1), ["event Killing", "resize", "term m"]);
    let kept = Resized { is_kept: true, ..Resized::default() };
    let nothing = Resizing { generation: Some(2), ..Resizing::default() };
    table.record.resized(nothing, kept, at(1));
    assert_eq!(table.step(1), NOTHING);
    table.exited("m", 0, 0, 2);
    assert_eq!(table.phase(), "Running");
    assert_eq!(table.step(2), ["start m 1"]);
    table.started("m", 1, 2);
    let asked = table.resizing(2).unwrap();
    assert_eq!((asked.pod.0.memory, asked.pod.1.memory, asked.containers.len()), (Some(100), Some(50), 0));
    let done = Resized { is_kept: true, pod: Some(asked.pod.1), ..Resized::default() };
    table.record.resized(asked, done, at(2));
    assert_eq!(table.step(2), ["event ResizeCompleted"]);
    assert_eq!(table.said(2)["containerStatuses"][0]["restartCount"], 1);
}

#[test]
fn a_host_gives_what_it_has() {
    let of =
        |cpu: u64, memory: u64| Amounts { cpu_request: cpu, memory_request: memory, ..Amounts::default() };
    let capacity = (4000, 1000);
    for (wants, has, others, reason) in [
        (of(2000, 500), of(1000, 100), (2000, 500), None),
        (of(2001, 500), of(1000, 100), (2000, 500), Some("Deferred")),
        (of(2000, 501), of(1000, 100), (2000, 500), Some("Deferred")),
        (of(4001, 1), of(1, 1), (0, 0), Some("Infeasible")),
        (of(1, 1001), of(1, 1), (4000, 1000), Some("Infeasible")),
        // What doesn't grow fits, though the host has promised more than it has.
        (of(900, 1001), of(1000, 1001), (5000, 2000), None),
    ] {
        let judged = judge(wants, has, others, capacity, Some(1));
        assert_eq!(judged.map(|pending| pending.reason()), reason, "{wants:?} {has:?} {others:?}");
    }
}
