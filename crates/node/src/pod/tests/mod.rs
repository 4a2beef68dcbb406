//! Decisions as tables: what happens to a pod, and what the agent does and says of it.

mod ends;
mod resize;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::clock::{Now, rfc3339};

fn at(seconds: u64) -> Now {
    let wall = Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap();
    Now { elapsed: Duration::from_secs(seconds), wall }
}

/// A pod on the table.
struct Table {
    pod: Pod,
    stored: Value,
    record: PodRecord,
}

impl Table {
    fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec});
        let pod = serde_json::from_value(pod).unwrap();
        Table { pod, stored: json!({}), record: PodRecord::new(at(0)) }
    }

    /// What is done at a time, in short words.
    fn step(&mut self, seconds: u64) -> Vec<String> {
        let decision = decide(&self.pod, &mut self.record, at(seconds));
        let word = |action: Action| match action {
            Action::Prepare => "prepare".into(),
            Action::Start { container, attempt } => format!("start {container} {attempt}"),
            Action::PreStop { container, .. } => format!("hook {container}"),
            Action::Signal { container, kill, .. } => {
                format!("{} {container}", if kill { "kill" } else { "term" })
            }
            Action::Resize(_) => "resize".into(),
            Action::Finish(then) => format!("finish {then:?}"),
            Action::Event { reason, .. } => format!("event {reason}"),
        };
        decision.actions.into_iter().map(word).collect()
    }

    fn prepared(&mut self) {
        assert_eq!(self.step(0), ["prepare"]);
        self.record.prepared(Ok("127.1.1.1".parse().unwrap()), at(0));
    }

    fn started(&mut self, name: &str, attempt: u32, seconds: u64) {
        self.record.started("id", name, attempt, Ok((false, false)), at(seconds));
    }

    fn exited(&mut self, name: &str, attempt: u32, code: i32, seconds: u64) {
        let outcome = ContainerEnd { code, ..ContainerEnd::default() };
        self.record.exited("id", name, attempt, outcome, at(seconds));
    }

    fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_timestamp = Some(at(0).wall.into());
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    fn said(&self, seconds: u64) -> Value {
        status(&self.pod, &self.stored, &self.record, "127.0.0.1".parse().unwrap(), at(seconds))
    }

    fn phase(&self) -> String {
        self.said(0)["phase"].as_str().unwrap().to_owned()
    }
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "m"}]})
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_restart_policy_decides_what_follows_an_exit() {
    for (policy, code, next, phase) in [
        ("Always", 0, vec!["start m 1"], "Running"),
        ("Always", 1, vec!["start m 1"], "Running"),
        ("OnFailure", 0, vec![], "Succeeded"),
        ("OnFailure", 1, vec!["start m 1"], "Running"),
        ("Never", 0, vec![], "Succeeded"),
        ("Never", 1, vec![], "Failed"),
    ] {
        let mut table = Table::new(one(policy));
        table.prepared();
        assert_eq!(table.step(0), ["start m 0"]);
        assert_eq!(table.phase(), "Pending");
        table.started("m", 0, 0);
        assert_eq!((table.step(1), table.phase()), (vec![], "Running".into()));
        table.exited("m", 0, code, 2);
        assert_eq!(table.phase(), phase, "{policy} {code}");
        assert_eq!(table.step(2), next, "{policy} {code}");
    }
}

#[test]
fn restarts_wait_longer_and_longer() {
    let mut table = Table::new(one("Always"));
    table.prepared();
    let (mut now, mut starts) = (0, Vec::new());
    for attempt in 0..5 {
        while !table.step(now).contains(&format!("start m {attempt}")) {
            now += 1;
        }
        starts.push(now);
        table.started("m", attempt, now);
        table.exited("m", attempt, 1, now);
    }
    assert_eq!(starts, [0, 0, 10, 30, 70]);
    assert_eq!(table.step(now), ["event BackOff"]);
    let said = table.said(now);
    let main = &said["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(main["restartCount"], 4);
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 1);
    assert!(main["state"]["waiting"]["message"].as_str().unwrap().starts_with("back-off 80s restarting"));
}

#[test]
fn news_of_an_earlier_life_changes_nothing() {
    let mut table = Table::new(one("Always"));
    table.prepared();
    table.step(0);
    table.started("m", 0, 0);
    table.exited("m", 0, 1, 1);
    assert_eq!(table.step(1), ["start m 1"]);
    table.started("m", 1, 1);
    table.exited("m", 0, 1, 2);
    table.record.probed("m", 0, ProbeKind::Liveness, false, Duration::ZERO, at(2));
    assert_eq!((table.step(2), table.phase()), (vec![], "Running".into()));
}

#[test]
fn init_containers_and_sidecars_start_in_order_and_end_in_order() {
    let mut table = Table::new(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "a"}, {"name": "side", "restartPolicy": "Always"}, {"name": "b"}],
        "containers": [{"name": "m"}],
    }));
    table.prepared();
    assert_eq!(table.step(0), ["start a 0"]);
    table.started("a", 0, 0);
    assert_eq!(table.step(1), NOTHING);
    table.exited("a", 0, 0, 1);
    assert_eq!(table.step(1), ["start side 0"]);
    table.record.started("id", "side", 0, Ok((true, false)), at(1));
    assert_eq!(table.step(2), NOTHING, "its startup probe has not passed");
    table.record.probed("side", 0, ProbeKind::Startup, true, Duration::ZERO, at(2));
    assert_eq!(table.step(2), ["start b 0"]);
    table.started("b", 0, 2);
    table.exited("side", 0, 1, 3);
    assert_eq!(table.step(3), ["start side 1"], "a sidecar restarts whatever the pod's policy");
    table.started("side", 1, 3);
    table.exited("b", 0, 0, 3);
    assert_eq!(table.step(3), ["start m 0"]);
    table.started("m", 0, 3);
    assert_eq!(table.phase(), "Running");
    table.exited("m", 0, 0, 4);
    assert_eq!(table.step(4), ["event Killing", "term side"], "the work is done");
    assert_eq!(table.phase(), "Succeeded");
}

#[test]
fn a_sidecar_that_ended_with_its_pod_is_over() {
    for code in [0, 143] {
        let mut table = Table::new(json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "m"}],
        }));
        table.prepared();
        table.step(0);
        table.started("side", 0, 0);
        table.step(0);
        table.started("m", 0, 0);
        table.exited("m", 0, 0, 1);
        table.step(1);
        table.exited("side", 0, code, 2);
        assert_eq!(table.step(2), NOTHING, "it is not started again");
        let side = table.said(2)["initContainerStatuses"][0].clone();
        assert_eq!(side["state"]["terminated"]["exitCode"], code, "{side}");
        assert_eq!((table.phase(), &side["lastState"]), ("Succeeded".into(), &json!({})));
    }
}

#[test]
fn a_containers_own_rules_restart_it() {
    let rule = |operator: &str, values: Value| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": values}}]);
    for (rules, code, again) in [
        (rule("In", json!([42])), 42, true),
        (rule("In", json!([42])), 5, false),
        (rule("NotIn", json!([42])), 5, true),
        (rule("NotIn", json!([42])), 42, false),
        (rule("In", json!([0])), 0, true),
    ] {
        let main = json!({"name": "m", "restartPolicy": "Never", "restartPolicyRules": rules});
        let mut table = Table::new(json!({"restartPolicy": "Never", "containers": [main]}));
        table.prepared();
        table.step(0);
        table.started("m", 0, 0);
        table.exited("m", 0, code, 1);
        let next: &[&str] = if again { &["start m 1"] } else { &[] };
        assert_eq!(table.step(1), next, "{rules} {code}");
    }
    let init =
        json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rule("In", json!([0, 7]))});
    for (code, next) in [(0, "start m 0"), (7, "start a 1")] {
        let mut table = Table::new(
            json!({"restartPolicy": "Never", "initContainers": [init], "containers": [{"name": "m"}]}),
        );
        table.prepared();
        table.step(0);
        table.started("a", 0, 0);
        table.exited("a", 0, code, 1);
        assert_eq!(table.step(1), [next], "an init container that did its work is done");
    }
}

#[test]
fn a_pod_has_until_its_deadline() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "activeDeadlineSeconds": 10, "containers": [{"name": "m"}]});
    for policy in ["Always", "OnFailure", "Never"] {
        let mut table = Table::new(spec(policy));
        table.prepared();
        table.step(0);
        table.started("m", 0, 1);
        let decision = decide(&table.pod, &mut table.record, at(2));
        assert_eq!(decision.wake, Some(Duration::from_secs(10)));
        assert_eq!(table.step(10), ["event DeadlineExceeded", "event Killing", "term m"]);
        assert_eq!(table.phase(), "Running", "until its processes are dead");
        table.exited("m", 0, 143, 11);
        assert_eq!(table.step(11), NOTHING, "{policy}");
        let said = table.said(11);
        assert_eq!((&said["phase"], &said["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
        assert!(said["containerStatuses"][0]["state"]["terminated"].is_object());
    }

    // An agent that starts again counts on from what the object says.
    let mut table = Table::new(spec("Always"));
    let started = rfc3339(at(0).wall);
    table.pod.status = serde_json::from_value(json!({"phase": "Running", "startTime": started})).unwrap();
    table.record = resume(&table.pod, at(60));
    assert_eq!(table.step(60), ["event DeadlineExceeded"]);
    assert_eq!(table.phase(), "Failed");

    // One that can't even begin, and one that is over already.
    let mut table = Table::new(spec("Always"));
    table.record.refused = Some("no".into());
    table.step(10);
    assert_eq!(table.phase(), "Failed");
    let mut table = Table::new(spec("Never"));
    table.pod.status = serde_json::from_value(json!({"phase": "Succeeded", "startTime": started})).unwrap();
    table.record = resume(&table.pod, at(60));
    assert_eq!((table.step(60), table.phase()), (vec![], "Succeeded".into()));
}

#[test]
fn a_life_that_was_taken_for_lost_and_is_found_is_none_that_ended() {
    let mut table = Table::new(one("Always"));
    let running = |n: u32| {
        let state = json!({"running": {"startedAt": rfc3339(at(0).wall)}});
        json!([{"name": "m", "image": "i", "imageID": "", "ready": true, "restartCount": n, "state": state,
            "containerID": container_id("u", "m", n)}])
    };
    let status = json!({"phase": "Running", "containerStatuses": running(2)});
    table.pod.status = serde_json::from_value(status).unwrap();
    table.record = resume(&table.pod, at(60));
    assert!(table.record.containers["m"].last.is_some() && table.record.containers["m"].restarts == 3);
    // It was reported meanwhile.
    table.pod.status.as_mut().unwrap().container_statuses = None;
    let spec = container(&table.pod, "m").unwrap().into_owned();
    take_over(&table.pod, &spec, &mut table.record, 2, at(0).wall, at(90));
    assert!(table.record.containers["m"].last.is_none() && table.record.containers["m"].restarts == 2);
}

#[test]
fn a_container_added_later_starts_at_any_time_and_once() {
    let mut table = Table::new(json!({"restartPolicy": "Always", "initContainers": [{"name": "a"}],
        "containers": [{"name": "m"}], "ephemeralContainers": [{"name": "dbg", "image": "x"}]}));
    table.prepared();
    assert_eq!(table.step(0), ["start a 0", "start dbg 0"]);
    table.started("a", 0, 0);
    table.started("dbg", 0, 0);
    let told = table.said(0)["ephemeralContainerStatuses"][0].clone();
    assert!(told["state"]["running"].is_object() && told.get("started").is_none(), "{told}");
    table.exited("dbg", 0, 1, 1);
    assert_eq!(table.step(1), NOTHING);
    assert_eq!(table.said(1)["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
    assert_eq!(table.phase(), "Pending", "it counts for nothing");
}

#[test]
fn last_words_of_all_containers_have_twelve_kibibytes() {
    let mut table = Table::new(json!({"restartPolicy": "Never", "containers":
        (0..6).map(|n| json!({"name": format!("c{n}")})).collect::<Vec<_>>()}));
    table.prepared();
    table.step(0);
    for name in ["c0", "c1", "c2", "c3", "c4", "c5"] {
        table.started(name, 0, 0);
        let outcome = ContainerEnd { code: 1, message: "ä".repeat(2048), ..ContainerEnd::default() };
        table.record.exited("id", name, 0, outcome, at(1));
    }
    let said = table.said(1);
    let lengths = said["containerStatuses"].as_array().unwrap().iter();
    let lengths: Vec<usize> =
        lengths.map(|c| c["state"]["terminated"]["message"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [2048; 6]);
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut table = Table::new(json!({
        "restartPolicy": "Never", "initContainers": [{"name": "a"}], "containers": [{"name": "m"}],
    }));
    table.prepared();
    table.step(0);
    table.started("a", 0, 0);
    table.exited("a", 0, 1, 1);
    assert_eq!((table.step(1), table.phase()), (vec![], "Failed".into()));
    assert_eq!(table.said(1)["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
}

#[test]
fn what_is_missing_is_looked_for_again_without_counting() {
    let mut table = Table::new(one("Always"));
    assert_eq!(table.step(0), ["prepare"]);
    assert_eq!(PrepareError::Devices.event_reason(), "FailedPrepareDynamicResources");
    table.record.prepared(Err(PrepareError::Files("no volume".into())), at(0));
    assert_eq!(table.step(0), NOTHING);
    assert_eq!(table.said(0)["containerStatuses"][0]["state"]["waiting"]["message"], "no volume");
    assert_eq!(table.step(1), ["prepare"]);
    table.record.prepared(Ok("127.1.1.1".parse().unwrap()), at(1));
    assert_eq!(table.step(1), ["start m 0"]);
    table.record.started("id", "m", 0, Err(StartError::Config("no map".into())), at(1));
    assert_eq!(table.step(1), NOTHING);
    let waiting = table.said(1)["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(waiting, json!({"reason": "CreateContainerConfigError", "message": "no map"}));
    assert_eq!(table.step(2), ["start m 0"]);
    table.record.started("id", "m", 0, Err(StartError::Create("no target".into())), at(2));
    let waiting = table.said(2)["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(waiting, json!({"reason": "CreateContainerError", "message": "no target"}));
    assert_eq!((table.step(2), table.step(3)), (vec![], vec!["start m 0".to_owned()]));
}

#[test]
fn a_pod_that_ends_does_not_wait_for_what_is_brought_for_it() {
    let mut table = Table::new(one("Always"));
    table.prepared();
    assert_eq!(table.step(0), ["start m 0"]);
    table.delete(30);
    assert_eq!(table.step(1), NOTHING);
    assert!(table.record.stopping && table.record.alive(), "who brings it hears of that");
    table.record.started("id", "m", 0, Err(StartError::Ended), at(1));
    assert_eq!(table.step(1), ["finish Confirm"]);
}

#[test]
fn readiness_is_of_all_containers() {
    let mut table = Table::new(json!({"containers": [{"name": "a"}, {"name": "b"}],
        "readinessGates": [{"conditionType": "gate"}]}));
    table.prepared();
    table.step(0);
    table.started("a", 0, 0);
    table.record.started("id", "b", 0, Ok((false, true)), at(0));
    let ready = |table: &Table| {
        let said = table.said(5);
        let find = |kind: &str| {
            let all = said["conditions"].as_array().unwrap();
            all.iter().find(|c| c["type"] == kind).unwrap().clone()
        };
        (find("ContainersReady"), find("Ready"))
    };
    let (containers, _) = ready(&table);
    assert_eq!(containers["message"], "containers with unready status: [b]");
    table.record.probed("b", 0, ProbeKind::Readiness, true, Duration::ZERO, at(1));
    let (containers, pod) = ready(&table);
    assert_eq!((&containers["status"], &pod["status"]), (&json!("True"), &json!("False")));
    assert_eq!(pod["reason"], "ReadinessGatesNotReady");
    assert_eq!(pod["message"], "corresponding condition of pod readiness gate \"gate\" does not exist.");
    table.stored = json!({"conditions": [{"type": "gate", "status": "False"}]});
    let (_, pod) = ready(&table);
    assert_eq!(pod["message"], "the status of pod readiness gate \"gate\" is not \"True\", but False");
    let since = "2020-01-01T00:00:00Z";
    table.stored = json!({"conditions": [{"type": "gate", "status": "True"},
        {"type": "Ready", "status": "True", "lastTransitionTime": since}]});
    let (_, pod) = ready(&table);
    assert_eq!((&pod["status"], &pod["lastTransitionTime"]), (&json!("True"), &json!(since)));
    assert!(is_ready(&table.said(5)));
}

#[test]
fn a_former_life_counts() {
    let container = |state: Value| json!({"name": "m", "image": "", "imageID": "", "ready": false, "restartCount": 2, "state": state});
    for (policy, phase, state, next) in [
        ("Always", "Running", json!({"running": {}}), vec!["prepare"]),
        ("Never", "Running", json!({"running": {}}), vec!["prepare"]),
        ("Always", "Failed", json!({"terminated": {"exitCode": 1}}), vec![]),
        ("Never", "Succeeded", json!({"terminated": {"exitCode": 0}}), vec![]),
    ] {
        let mut table = Table::new(one(policy));
        let status = json!({"phase": phase, "containerStatuses": [container(state)]});
        table.pod.status = serde_json::from_value(status.clone()).unwrap();
        table.stored = status;
        table.record = resume(&table.pod, at(0));
        assert_eq!(table.step(0), next, "{policy} {phase}");
        if phase != "Running" {
            assert_eq!(table.phase(), phase);
            continue;
        }
        table.record.prepared(Ok("127.1.1.1".parse().unwrap()), at(0));
        let restart: &[&str] = if policy == "Always" { &["start m 3"] } else { &[] };
        assert_eq!(table.step(0), restart, "{policy}");
    }
}

#[test]
fn a_difference_makes_the_one_out_of_the_other() {
    for (from, to, patch) in [
        (json!({"a": 1}), json!({"a": 1}), None),
        (json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null}))),
        (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1, "y": 3}}), Some(json!({"a": {"y": 3}}))),
        (json!({"a": [1, 2]}), json!({"a": [2]}), Some(json!({"a": [2]}))),
        (Value::Null, json!({"a": 1}), Some(json!({"a": 1}))),
    ] {
        assert_eq!(difference(&from, &to), patch, "{from} {to}");
    }
}

#[test]
fn a_pod_says_the_epoch_that_it_stops_with_and_takes_back_what_does_not_hold() {
    let mut table = Table::new(one("Always"));
    let said = |table: &Table| {
        let status = table.said(1);
        let all = status["conditions"].as_array().unwrap().clone();
        all.into_iter().find(|condition| condition["type"] == objects::STOPS_WITH_LEASE)
    };
    table.record.goes_on = true;
    assert_eq!(said(&table), None, "nobody counts on it");
    (table.record.goes_on, table.record.stops_with) = (false, Some(7));
    let condition = said(&table).unwrap();
    assert_eq!((&condition["status"], &condition["message"]), (&json!("True"), &json!(stops_with(7))));
    table.stored = json!({"conditions": [condition]});
    (table.record.goes_on, table.record.stops_with) = (false, None);
    assert_eq!(said(&table).unwrap()["status"], "True", "while no lease is held, what was said stands");
    table.record.goes_on = true;
    let condition = said(&table).unwrap();
    let without = (&json!("False"), &json!(WITHOUT_LEASE));
    assert_eq!((&condition["status"], &condition["reason"]), without);
    (table.record.lacks_lease, table.stored) = (true, json!({}));
    assert_eq!(said(&table).unwrap()["status"], "False", "somebody may count on it");
}
