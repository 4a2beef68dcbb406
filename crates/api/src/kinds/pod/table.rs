//! The table of pods: `printPod` of `pkg/printers/internalversion` upstream.

use machinery::rules::{Column, age};
use machinery::{Object, time};
use serde_json::{Value, json};

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Name"),
    Column::text("Ready"),
    Column::text("Status"),
    Column::text("Restarts"),
    Column::text("Age"),
    Column::wide("IP"),
    Column::wide("Node"),
    Column::wide("Nominated Node"),
    Column::wide("Readiness Gates"),
];

pub(super) fn cells(object: &Object, now: i64) -> Vec<Value> {
    let summary = Summary::of(object);
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, time::age(Some(time), now))
        }
        _ => summary.restarts.to_string(),
    };
    let or_none = |pointer: &str| {
        let text = object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        Value::from(text.unwrap_or("<none>"))
    };
    vec![
        json!(object.name()),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(object, now),
        or_none("/status/podIP"),
        or_none("/spec/nodeName"),
        or_none("/status/nominatedNodeName"),
        gates(object).into(),
    ]
}

#[derive(Default)]
struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<&'a str>,
}

impl<'a> Summary<'a> {
    fn of(object: &'a Object) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (phase, why) = (text("/status/phase"), text("/status/reason"));
        let mut summary =
            Summary { reason: if why.is_empty() { phase } else { why }.to_owned(), ..Summary::default() };
        if conditions(object).any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
            summary.reason = "SchedulingGated".to_owned();
        }
        let sidecars: Vec<&str> = list(object, "/spec/initContainers")
            .filter(|container| container["restartPolicy"] == "Always")
            .filter_map(|container| container["name"].as_str())
            .collect();
        summary.total = list(object, "/spec/containers").count() + sidecars.len();
        let initializing = summary.add_init_containers(object, &sidecars);
        if !initializing {
            summary.add_containers(object);
        }
        if object.deletion_timestamp().is_some() {
            if why == "NodeLost" {
                summary.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Counts the init containers; whether they are still at work. When they are done, only the sidecars'
    /// restarts count.
    fn add_init_containers(&mut self, object: &'a Object, sidecars: &[&str]) -> bool {
        let mut of_sidecars = (0, None);
        let mut initializing = false;
        for (index, status) in list(object, "/status/initContainerStatuses").enumerate() {
            let sidecar = status["name"].as_str().is_some_and(|name| sidecars.contains(&name));
            self.add_restarts(status);
            if sidecar {
                let mut alone =
                    Summary { restarts: of_sidecars.0, last_restart: of_sidecars.1, ..Summary::default() };
                alone.add_restarts(status);
                of_sidecars = (alone.restarts, alone.last_restart);
            }
            let (waiting, ended) = (&status["state"]["waiting"], &status["state"]["terminated"]);
            if ended["exitCode"] == 0 {
                continue;
            }
            if sidecar && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waits = waiting["reason"].as_str().filter(|why| !why.is_empty() && *why != "PodInitializing");
            self.reason = match (ended.is_object(), waits) {
                (true, _) => format!("Init:{}", end_reason(ended)),
                (false, Some(why)) => format!("Init:{why}"),
                (false, None) => format!("Init:{index}/{}", list(object, "/spec/initContainers").count()),
            };
            initializing = true;
            break;
        }
        let initialized = conditions(object).any(|c| c["type"] == "Initialized" && c["status"] == "True");
        if !initializing || initialized {
            (self.restarts, self.last_restart) = of_sidecars;
            return false;
        }
        true
    }

    fn add_containers(&mut self, object: &'a Object) {
        let mut running = false;
        let statuses: Vec<&Value> = list(object, "/status/containerStatuses").collect();
        for status in statuses.into_iter().rev() {
            self.add_restarts(status);
            let (waiting, ended) = (&status["state"]["waiting"], &status["state"]["terminated"]);
            if let Some(why) = waiting["reason"].as_str().filter(|why| !why.is_empty()) {
                self.reason = why.to_owned();
            } else if ended.is_object() {
                self.reason = end_reason(ended);
            } else if status["ready"] == true && status["state"]["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = conditions(object).any(|c| c["type"] == "Ready" && c["status"] == "True");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn add_restarts(&mut self, status: &'a Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or_default();
        // Times are written alike, so their order is that of their text.
        let ended = status["lastState"]["terminated"]["finishedAt"].as_str();
        self.last_restart = self.last_restart.max(ended);
    }
}

fn end_reason(ended: &Value) -> String {
    match (ended["reason"].as_str().unwrap_or_default(), ended["signal"].as_i64().unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn gates(object: &Object) -> String {
    let gates: Vec<&Value> = list(object, "/spec/readinessGates").collect();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| {
        conditions(object).any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    });
    format!("{}/{}", open.count(), gates.len())
}

fn conditions(object: &Object) -> impl Iterator<Item = &Value> {
    list(object, "/status/conditions")
}

fn list<'a>(object: &'a Object, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pod: Value) -> Vec<Value> {
        cells(&Object::from_value(pod).unwrap(), 1_800_000_000)[1..4].to_vec()
    }

    #[test]
    fn status_and_restarts_read_as_kubectl_shows_them() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        let running =
            |ready: bool| json!({"name": "a", "ready": ready, "restartCount": 0, "state": {"running": {}}});
        let crash = json!({"name": "b", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2027-01-15T07:59:50Z"}}});
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}, "restartCount": 1});
        for (pod, cells) in [
            (json!({"status": {"phase": "Pending"}}), ["0/2", "Pending", "0"]),
            (
                json!({"status": {"phase": "Running", "containerStatuses": [running(true), running(true)]}}),
                ["2/2", "Running", "0"],
            ),
            (
                json!({"status": {"phase": "Running", "initContainerStatuses": [done], "containerStatuses": [running(true), crash]}}),
                ["1/2", "CrashLoopBackOff", "3 (10s ago)"],
            ),
            (
                json!({"status": {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}}),
                ["0/2", "Init:0/1", "0"],
            ),
            (
                json!({"status": {"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 7}}}]}}),
                ["0/2", "Init:ExitCode:7", "2"],
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2027-01-15T07:59:50Z"}, "status": {"phase": "Running", "containerStatuses": [running(true)]}}),
                ["1/2", "Terminating", "0"],
            ),
            (json!({"status": {"phase": "Failed", "reason": "Evicted"}}), ["0/2", "Evicted", "0"]),
            (
                json!({"status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}}),
                ["0/2", "Completed", "0"],
            ),
        ] {
            let mut pod = pod;
            pod["spec"] = spec.clone();
            assert_eq!(row(pod.clone()), cells.map(Value::from), "{pod}");
        }
    }
}
