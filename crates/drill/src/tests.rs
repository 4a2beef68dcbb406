//! Whole drills against a cluster in this process, with outages as long as the test says.

use crate::fake_cluster::{FakeCluster, FakeSite, Script};
use crate::{Error, Fault, Options, Report, STATEFUL_WORKLOAD, Target, Way, rollout, run};
use std::sync::Arc;
use std::time::Duration;

const SILENT: Duration = Duration::from_millis(300);
const STARTING: Duration = Duration::from_millis(150);

fn script() -> Script {
    let (lives_on, holders, hasty) = (Duration::ZERO, 1, false);
    Script {
        silent: SILENT,
        starting: STARTING,
        own_addresses: true,
        healthy: true,
        lives_on,
        holders,
        hasty,
        has_worker: false,
    }
}

fn options() -> Options {
    // Less quiet than a user's drill, so that a test is over sooner.
    Options { seed: 1, quiet: Duration::from_millis(400), before: Duration::ZERO, ..Options::default() }
}

async fn drilled(script: Script, options: Options) -> (Result<Report, Error>, String) {
    let cluster = FakeCluster::start(script).await;
    drilled_on(&cluster, options).await
}

async fn drilled_on(cluster: &Arc<FakeCluster>, options: Options) -> (Result<Report, Error>, String) {
    let mut progress = Vec::new();
    let report = run(&FakeSite(cluster.clone()), &cluster.kubeconfig, &options, &mut progress).await;
    (report, String::from_utf8(progress).unwrap())
}

/// The measured clocks are no shorter than what was done to the cluster, and the asks tell of it.
fn is_honest(report: &Report) {
    for run in &report.runs {
        let (silent, starting) = (SILENT.as_millis() as u64, STARTING.as_millis() as u64);
        for clock in [run.api, run.service] {
            assert!(clock.outage_ms.unwrap() >= silent, "{clock:?}");
            assert!(clock.failed > 0 && clock.failed < clock.asked, "{clock:?}");
        }
        assert!(run.replacement.answered_ms.unwrap() >= silent + starting, "{:?}", run.replacement);
        assert!(run.rejoin.ready_ms.is_some());
        assert_eq!(run.was, ["leader", "vip", "worker"]);
    }
}

#[tokio::test]
async fn two_cuts_with_the_survivors_asked() {
    let (report, progress) = drilled(script(), Options { runs: 2, ..options() }).await;
    let report = report.unwrap();
    is_honest(&report);
    let targets: Vec<&str> = report.runs.iter().map(|r| r.target.as_str()).collect();
    assert_eq!(targets, ["n1", "n2"], "the second cut is of the host that leads then");
    for run in &report.runs {
        let survivors = run.survivors.unwrap();
        assert_eq!((survivors.failed, survivors.outage_ms), (0, Some(0)), "the survivors were never silent");
        let told: Vec<&str> = run.timeline.iter().map(|e| e.what.as_str()).collect();
        let place = |what| told.iter().position(|t| *t == what).unwrap_or_else(|| panic!("{what}: {told:?}"));
        let order =
            ["power-off", "election-won", "pod-created", "pod-ready", "replacement-answers", "power-on"];
        assert!(order.windows(2).all(|w| place(w[0]) < place(w[1])), "{told:?}");
        for what in ["last-heartbeat", "host-silent", "node-not-ready", "endpoint-added", "node-ready"] {
            place(what);
        }
        let lost = run.distribution.iter().filter(|share| share.before > 0 && share.after == 0);
        assert!(lost.map(|share| &share.host).eq([&run.target]), "{:?}", run.distribution);
        let new = run.distribution.iter().filter(|share| share.before == 0 && share.after > 0);
        assert_eq!((new.count(), run.distribution.len()), (1, 4), "{:?}", run.distribution);
    }
    assert!(progress.contains("won the election"), "{progress}");
    let mut text = Vec::new();
    report.print(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for words in [
        "The slowest, run",
        "which led, held the virtual address and ran a pod\n",
        "surviving hosts",
        "p99",
        "after power on",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    for pointer in [
        "/cluster/nodes",
        "/runs/0/api/outage_ms",
        "/runs/0/replacement/answered_ms",
        "/runs/1/rejoin/ready_ms",
        "/runs/1/timeline/0/at_ms",
        "/summary/api_outage_ms/p50",
        "/summary/replacement_answered_ms/max",
    ] {
        assert!(json.pointer(pointer).is_some_and(serde_json::Value::is_number), "{pointer}: {json}");
    }
    assert!(report.is_recovered());
}

#[tokio::test]
async fn a_full_cluster_is_filled_once_and_emptied() {
    let cluster = FakeCluster::start(script()).await;
    let is_preloaded = |path: &str| path.contains("-load-") && path.contains("/pods/");
    let (report, progress) =
        drilled_on(&cluster, Options { preload: 25, runs: 2, keep: true, ..options() }).await;
    let report = report.unwrap();
    is_honest(&report);
    let pods = cluster.found(is_preloaded);
    assert_eq!((pods.len(), report.cluster.preloaded_pods), (25, 25), "once, for both runs");
    assert!(progress.contains("preloading 25 pods of 3 Deployments in 1 namespace"), "{progress}");
    for run in &report.runs {
        assert_eq!(run.elections_won, Some(1));
        let memory = run.memory.as_ref().unwrap();
        assert_ne!(memory.new_leader, run.target);
        assert_eq!((memory.new_leader_before_bytes, memory.new_leader_peak_bytes), (30_000_000, 40_000_000));
    }
    assert_eq!(report.summary.elections_won.unwrap().max, Some(1));
}

#[tokio::test]
async fn what_was_preloaded_goes_also_after_an_error() {
    let cluster = FakeCluster::start(Script { healthy: false, ..script() }).await;
    let patience = Duration::from_millis(300);
    let (report, _) = drilled_on(&cluster, Options { preload: 5, patience, ..options() }).await;
    report.unwrap_err();
    let is_namespace = |path: &str| path.starts_with("/api/v1/namespaces/") && path.split('/').count() == 5;
    assert_eq!(cluster.found(is_namespace), [], "the namespaces are deleted, with all in them");
}

fn stateful() -> Options {
    Options { workload: Some(STATEFUL_WORKLOAD.into()), ..options() }
}

#[tokio::test]
async fn a_stateful_pod_is_fenced_and_answers_elsewhere() {
    let (report, progress) = drilled(script(), stateful()).await;
    let report = report.unwrap();
    is_honest(&report);
    let safety = &report.runs[0].safety;
    let silent = SILENT.as_millis() as u64;
    assert!(safety.fenced_ms.unwrap() >= silent, "{safety:?}");
    assert!(safety.stateful_answered_ms.unwrap() >= safety.fenced_ms.unwrap(), "{safety:?}");
    assert_eq!(safety.stateful_pod.as_deref(), Some("db-0"), "which ran on n1");
    assert_eq!(safety.counts.all(), [Some(0), Some(0), Some(0), Some(0), None, None], "{safety:?}");
    assert!(safety.spread.unwrap() >= 1.0, "{safety:?}");
    assert!(safety.unseen.is_empty(), "nobody was cut off, so there is no minority to see: {safety:?}");
    assert!(progress.contains("and the StatefulSet db"), "{progress}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    for pointer in [
        "/runs/0/stateful_answered_ms",
        "/runs/0/fenced_ms",
        "/summary/stateful_answered_ms/p99",
        "/summary/fenced_ms/max",
        "/summary/double_runs",
        "/summary/double_holders",
        "/summary/needless_replacements",
        "/summary/failed_on_survivors",
        "/summary/spread",
    ] {
        assert!(json.pointer(pointer).is_some_and(serde_json::Value::is_number), "{pointer}: {json}");
    }
    let told: Vec<&str> = report.runs[0].timeline.iter().map(|e| e.what.as_str()).collect();
    assert!(told.contains(&"node-fenced") && told.contains(&"stateful-answers"), "{told:?}");
    assert_eq!(report.failure(), None);
}

#[tokio::test]
async fn a_pod_that_is_replaced_before_it_has_ended_is_caught() {
    let script = Script { lives_on: SILENT + Duration::from_millis(500), holders: 2, ..script() };
    let (report, _) = drilled(script, stateful()).await;
    let report = report.unwrap();
    let counts = report.summary.safety.counts;
    assert_eq!((counts.double_runs, counts.double_holders), (Some(1), Some(1)));
    let failure = report.failure().unwrap();
    assert!(
        failure.starts_with("run 1: stateful identities that ran on two hosts at once: 1; run 1: "),
        "{failure}"
    );
    let mut text = Vec::new();
    report.print(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("ran twice at once                  1"), "{text}");
}

#[tokio::test]
async fn what_a_workload_lacks_is_not_seen() {
    let (report, _) = drilled(Script { holders: 0, own_addresses: false, ..script() }, options()).await;
    let report = report.unwrap();
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    for name in ["stateful_answered_ms", "double_runs", "double_holders", "failed_on_survivors"] {
        assert!(json["summary"][name].is_null() && json["runs"][0][name].is_null(), "{name}: {json}");
        assert!(json["summary"]["unseen"][name].is_string(), "{name}: {json}");
    }
    assert!(report.is_recovered() && report.failure().is_none());
}

#[tokio::test]
async fn through_the_virtual_address_alone() {
    let script = Script { own_addresses: false, ..script() };
    let (report, _) = drilled(script, options()).await;
    let report = report.unwrap();
    is_honest(&report);
    assert_eq!(report.runs[0].survivors, None);
}

#[tokio::test]
async fn a_cluster_that_does_not_come_to_rest_is_an_error() {
    let script = Script { healthy: false, ..script() };
    let (report, _) = drilled(script, Options { patience: Duration::from_millis(300), ..options() }).await;
    let error = report.unwrap_err().to_string();
    assert!(error.contains("not steady") && error.contains("0 of 3 replicas ready"), "{error}");
    assert!(
        error.contains("the pods web-001 (on n1), web-002 (on n2), web-003 (on n3) are not Ready"),
        "{error}"
    );
}

#[tokio::test]
async fn a_cluster_that_stays_away_is_a_result() {
    let script = Script { silent: Duration::from_secs(3600), ..script() };
    let limit = Duration::from_millis(1500);
    let (report, _) =
        drilled(script, Options { limit, patience: Duration::from_secs(1), keep: true, ..options() }).await;
    let report = report.unwrap();
    let run = &report.runs[0];
    assert_eq!((run.api.outage_ms, run.replacement.answered_ms), (None, None));
    assert!(run.api.failed > 0);
    assert!(!report.is_recovered());
}

#[tokio::test]
async fn two_rollouts_with_a_host_off() {
    let cluster = FakeCluster::start(script()).await;
    let mut progress = Vec::new();
    let options = Options { runs: 2, ..options() };
    let site = FakeSite(cluster.clone());
    let report = rollout(&site, &cluster.kubeconfig, &options, &mut progress).await.unwrap();
    assert_eq!(report.failure(), None);
    assert!(report.summary.asked > 100, "{:?}", report.summary);
    for run in &report.runs {
        assert_ne!(run.off, "n1", "the host that leads stays on");
        let steps: Vec<&str> = run.steps.iter().map(|step| step.what.as_str()).collect();
        let order = [
            "power-off",
            "scale-to-6",
            "scale-to-12",
            "scale-to-3",
            "new-template",
            "delete-a-pod",
            "power-on",
        ];
        assert_eq!(steps, order);
        for step in &run.steps {
            assert!(step.service.asked > 0 && step.survivors.unwrap().asked > 0, "{step:?}");
        }
        let away = (SILENT + STARTING).as_millis() as u64;
        assert!(run.steps[0].took_ms.unwrap() >= away, "not before the spare serves: {:?}", run.steps[0]);
        let told: Vec<&str> = run.timeline.iter().map(|entry| entry.what.as_str()).collect();
        for what in
            order.iter().chain(&["as-declared", "node-not-ready", "pod-created", "pod-deleted", "node-ready"])
        {
            assert!(told.contains(what), "{what}: {told:?}");
        }
    }
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    for pointer in ["/version", "/runs/1/steps/3/took_ms", "/runs/0/steps/0/service/asked", "/summary/failed"]
    {
        assert!(json.pointer(pointer).is_some_and(serde_json::Value::is_number), "{pointer}: {json}");
    }
    let progress = String::from_utf8(progress).unwrap();
    assert!(progress.contains("scale to 12") && progress.contains("all is as declared"), "{progress}");
}

#[tokio::test]
async fn a_step_that_comes_to_nothing_is_a_result() {
    let cluster = FakeCluster::start(Script { silent: Duration::from_secs(3600), ..script() }).await;
    let mut progress = Vec::new();
    let options = Options { limit: Duration::from_millis(300), ..options() };
    let site = FakeSite(cluster.clone());
    let report = rollout(&site, &cluster.kubeconfig, &options, &mut progress).await.unwrap();
    let why = report.failure().unwrap();
    assert!(why.starts_with("\"power off\" never came to what was declared: "), "{why}");
    assert!(why.contains("still looks Ready"), "{why}");
}

#[tokio::test]
async fn a_fault_that_lasts_is_measured_as_a_power_cut_is() {
    for fault in [Fault::ProcessKill, Fault::Partition, Fault::OneWay { way: Way::To }] {
        let cluster = FakeCluster::start(script()).await;
        let (report, progress) = drilled_on(&cluster, Options { fault, ..options() }).await;
        let report = report.unwrap();
        is_honest(&report);
        let counts = report.summary.safety.counts;
        if fault == Fault::Partition {
            // The pretend host takes what it is asked, cut off or not, and knows what all others know.
            assert_eq!(counts.stale_answers, Some(0));
            assert!(counts.minority_writes > Some(0), "{counts:?}");
            let failure = report.failure().unwrap();
            assert!(failure.contains("writes that the minority took: "), "{failure}");
        } else {
            assert_eq!((counts.stale_answers, counts.minority_writes), (None, None));
            assert_eq!(report.failure(), None);
        }
        assert_eq!(*cluster.done.lock().unwrap(), [format!("{} n1", fault.name()), "healed n1".into()]);
        let told: Vec<&str> = report.runs[0].timeline.iter().map(|e| e.what.as_str()).collect();
        assert_eq!(told.iter().filter(|what| **what == fault.mended()).count(), 1, "{told:?}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!((&json["fault"], &json["runs"][0]["fault"]), (&fault.name().into(), &fault.name().into()));
        assert_eq!(json["target"], "leader");
        assert!(json["runs"][0]["rejoin"]["as_declared_ms"].is_u64(), "{json}");
        assert!(progress.contains(&fault.announced()), "{progress}");
        let (mut text, page) = (Vec::new(), report.to_html());
        report.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for shown in [&text, &page] {
            let words = fault.words();
            assert!(shown.contains(&words[1..]) && shown.contains("after its end"), "{words}: {shown}");
        }
    }
}

#[tokio::test]
async fn a_fault_that_passes_by_ends_in_its_time_and_needs_no_new_pod() {
    let (lasts, period) = (Duration::from_millis(900), Duration::from_millis(400));
    for (fault, acts) in [
        (Fault::Pause { time: Duration::from_millis(700) }, vec!["pause n1", "healed n1"]),
        (Fault::PacketLoss { percent: 5, lasts }, vec!["packet-loss n1", "healed n1"]),
        (Fault::SlowDisk { stall: period, lasts }, vec!["slow-disk n1", "healed n1"]),
        (Fault::Component { component: "shim" }, vec!["component n1", "healed n1"]),
        (Fault::FullDisk { lasts }, vec!["full-disk n1", "healed n1"]),
        (Fault::Flap { period, lasts }, vec!["flap n1", "healed n1", "flap n1", "healed n1"]),
        (Fault::Restart, vec!["restart n1", "healed n1"]),
    ] {
        let cluster = FakeCluster::start(script()).await;
        let (report, _) = drilled_on(&cluster, Options { fault, ..options() }).await;
        let report = report.unwrap();
        assert_eq!(*cluster.done.lock().unwrap(), acts, "{fault:?}");
        let run = &report.runs[0];
        assert!(run.api.outage_ms.unwrap() >= SILENT.as_millis() as u64, "{fault:?}: {:?}", run.api);
        assert_eq!((run.replacement.answered_ms, run.rejoin.ready_ms), (None, Some(0)), "{fault:?}");
        assert_eq!(run.safety.counts.needless_replacements, Some(0), "{fault:?}");
        assert!(report.is_recovered(), "{fault:?}: {run:?}");
        assert_eq!(run.writes.is_some(), fault.is_of_disk(), "{fault:?}");
        assert_eq!(report.summary.writes_outage_ms.is_some(), fault.is_of_disk(), "{fault:?}");
        if let Some(writes) = run.writes {
            assert!(writes.failed > 0 && writes.asked > writes.failed, "{writes:?}");
            assert!(writes.outage_ms.unwrap() >= SILENT.as_millis() as u64, "{writes:?}");
        }
        let at = |what: &str| run.timeline.iter().rfind(|e| e.what == what).map(|e| e.at_ms).unwrap();
        let (last, least) = (fault.changes().last().unwrap().0, at(fault.mended()));
        assert!(least >= last.as_millis() as i64, "{fault:?}: {least}");
        // The fake loses its leader in each of them, which a planned restart must not cost anybody anything.
        match fault {
            Fault::Restart => assert!(report.failure().unwrap().contains("though the restart was planned")),
            _ => assert_eq!(report.failure(), None, "{fault:?}"),
        }
        assert!(!report.to_html().contains(">new pod<"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_pod_that_a_short_fault_costs_is_counted() {
    let cluster = FakeCluster::start(Script { hasty: true, ..script() }).await;
    let fault = Fault::Pause { time: Duration::from_millis(600) };
    let (report, _) = drilled_on(&cluster, Options { fault, ..options() }).await;
    let report = report.unwrap();
    assert_eq!(report.summary.safety.counts.needless_replacements, Some(1));
    assert!(report.failure().unwrap().contains("replaced without need: 1"), "{:?}", report.failure());
}

#[tokio::test]
async fn each_host_has_its_turn_until_the_time_is_up() {
    let fault = Fault::Pause { time: Duration::from_millis(10) };
    let (report, _) = drilled(script(), Options { fault, target: Target::Each, runs: 4, ..options() }).await;
    let report = report.unwrap();
    let targets: Vec<&str> = report.runs.iter().map(|run| run.target.as_str()).collect();
    assert_eq!(targets, ["n1", "n2", "n3", "n1"]);
    assert!(report.runs[0].was.contains(&"leader") && !report.runs[3].was.contains(&"leader"));
    let with_asks = report.runs.iter().filter(|run| !run.asks.api.is_empty()).count();
    assert_eq!(with_asks, 1, "only of the slowest, which the page shows");
    let time = Some(Duration::from_millis(1));
    let options = Options { fault, target: Target::Follower, runs: 7, time, ..options() };
    let (report, progress) = drilled(script(), options).await;
    let report = report.unwrap();
    assert_eq!((report.runs.len(), report.runs[0].was.as_slice()), (1, &["worker"][..]), "begun in time");
    assert!(progress.contains("run 1\n"), "{progress}");
}

#[tokio::test]
async fn requests_are_sent_as_often_as_they_are_to_be() {
    let fault = Fault::Pause { time: Duration::from_millis(500) };
    let options = Options { fault, every: Duration::from_millis(10), ..options() };
    let (report, _) = drilled(script(), options).await;
    let report = report.unwrap();
    let run = &report.runs[0];
    // 500 ms of the fault and 400 ms of quiet; nobody waits for the answers that don't come.
    assert!(run.api.asked as u64 + run.unsent_asks >= 80, "{:?}, {} not sent", run.api, run.unsent_asks);
    assert!(run.api.failed >= 10 || run.unsent_asks > 0, "{:?}", run.api);
}

#[tokio::test]
async fn a_worker_is_drawn_where_there_is_one() {
    let fault = Fault::Pause { time: Duration::from_millis(10) };
    let options = || Options { fault, target: Target::Worker, ..options() };
    let (report, _) = drilled(Script { has_worker: true, ..script() }, options()).await;
    let report = report.unwrap();
    assert_eq!((report.runs[0].target.as_str(), report.runs[0].was.as_slice()), ("n3", &["worker"][..]));
    assert!(report.to_json().unwrap().contains("\"target\": \"worker\""));
    let (report, _) = drilled(script(), options()).await;
    assert!(report.unwrap_err().to_string().contains("every host is a member of the control plane"));
}

#[tokio::test]
async fn what_was_measured_outlives_a_run_that_cannot_be_held() {
    let cluster = FakeCluster::start(script()).await;
    let fault = Fault::Pause { time: Duration::from_millis(10) };
    let gone = cluster.clone();
    let leaves = async {
        while gone.done.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        gone.remove("/api/v1/nodes/n3");
    };
    let options = Options { fault, runs: 2, patience: Duration::from_millis(1500), ..options() };
    let ((report, _), ()) = tokio::join!(drilled_on(&cluster, options), leaves);
    let report = report.unwrap();
    assert_eq!(report.runs.len(), 1);
    let why = report.failure().unwrap();
    assert!(why.contains("run 2 could not be held") && why.contains("the node n3 is missing"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_had_is_refused() {
    let (report, _) = drilled(script(), Options { fault: Fault::Command, ..options() }).await;
    assert_eq!(report.unwrap_err().to_string(), "command can't be had here: there is no command");
    let target = Target::Node("n9".into());
    let (report, _) = drilled(script(), Options { target, ..options() }).await;
    assert_eq!(report.unwrap_err().to_string(), "there is no host n9; the hosts are n1, n2, n3");
}
