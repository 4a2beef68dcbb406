//! The main job, as a user runs it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{Cluster, HOLDFAST, lock_loopback, text};

#[test]
fn a_drill_in_namespaces_measures_every_clock_and_leaves_nothing() {
    if !testing::has_namespaces() {
        return;
    }
    // Enough for a leader that decoded them all when it won to lose its office over it.
    let report = check_drill("netns", &["--preload", "1500"]);
    assert_eq!(report["runs"][0]["elections_won"], 1, "{report}");
}

#[test]
fn a_drill_on_loopback_measures_every_clock_and_leaves_nothing() {
    let _lock = lock_loopback();
    let report = check_drill("loopback", &["--preload", "25"]);
    assert_eq!(report["cluster"]["preloaded_pods"], 25);
    assert_eq!(report["cluster"]["runtime"], "host");
    assert!(report["summary"]["new_leader_peak_bytes"]["max"].is_u64(), "{report}");
    let shares = report["runs"][0]["distribution"].as_array().unwrap();
    let answered = |share: &Value, when: &str| share[when].as_u64() > Some(0);
    assert_eq!(shares.iter().filter(|share| answered(share, "before")).count(), 3, "{shares:?}");
    let is_new = |share: &&Value| !answered(share, "before") && answered(share, "after");
    assert_eq!(shares.iter().filter(is_new).count(), 1, "{shares:?}");
}

#[test]
fn a_stateful_pod_of_a_host_without_power_answers_elsewhere_and_never_twice() {
    if !testing::has_namespaces() {
        return;
    }
    let report = check_drill("netns", &["--workload", "statefulset"]);
    let run = &report["runs"][0];
    for clock in ["fenced_ms", "stateful_answered_ms"] {
        assert!(run[clock].as_u64() > Some(0), "{clock}: {run}");
        assert!(report["summary"][clock]["p50"].is_u64(), "{clock}: {report}");
    }
    assert!(run["stateful_answered_ms"].as_u64() > run["fenced_ms"].as_u64(), "{run}");
    for count in ["double_runs", "double_holders", "needless_replacements"] {
        assert_eq!(report["summary"][count], 0, "{count}: {report}");
    }
    for seen in ["failed_on_survivors", "spread"] {
        assert!(report["summary"][seen].is_number(), "{seen}: {report}");
    }
}

/// Holds one run of a fault, with a StatefulSet, that costs nothing which no fault may cost, but for so many questions for the API's address
/// that two hosts may answer.
fn check_fault(args: &[&str], held_twice: u64) -> Option<Value> {
    if !testing::has_namespaces() {
        return None;
    }
    let (output, report) = hold("netns", &[args, &["--workload", "statefulset"]].concat());
    let printed = text(&output);
    let twice = report["summary"]["double_holders"].as_u64().unwrap();
    assert!(twice <= held_twice && output.status.success() == (twice == 0), "{printed}");
    let run = &report["runs"][0];
    for shown in [&report, run] {
        assert_eq!(shown["fault"], args[1].split(':').next().unwrap(), "{report}");
    }
    for clock in ["api", "service"] {
        assert!(run[clock]["asked"].as_u64() > Some(20), "{clock} was hardly asked: {run}");
        assert!(run[clock]["outage_ms"].is_u64(), "{clock} never came back: {run}");
    }
    for clock in ["ready_ms", "as_declared_ms"] {
        assert!(run["rejoin"][clock].is_u64(), "{clock}: {run}");
    }
    for count in ["double_runs", "needless_replacements"] {
        assert_eq!(report["summary"][count], 0, "{count}: {printed}");
    }
    Some(report)
}

fn tells(report: &Value, what: &str) -> bool {
    report["runs"][0]["timeline"].as_array().unwrap().iter().any(|line| line["what"] == what)
}

#[test]
fn the_program_of_a_leader_is_killed() {
    let Some(report) = check_fault(&["--fault", "process-kill"], 0) else { return };
    assert!(report["runs"][0]["replacement"]["answered_ms"].as_u64() > Some(0), "{report}");
    for what in ["process-kill", "election-won", "process-start", "store-caught-up"] {
        assert!(tells(&report, what), "{what}: {report}");
    }
}

#[test]
fn the_program_of_a_leader_is_stopped_for_a_while() {
    let Some(report) = check_fault(&["--fault", "pause", "--pause", "2s"], 0) else { return };
    assert_eq!(report["pause_ms"], 2000);
    for what in ["pause", "election-won", "resume", "as-declared"] {
        assert!(tells(&report, what), "{what}: {report}");
    }
}

#[test]
fn a_leader_is_cut_off_from_the_others() {
    // It learns of it from the others' silence, and they elect another one meanwhile.
    let Some(report) = check_fault(&["--fault", "partition"], 5) else { return };
    assert!(report["runs"][0]["replacement"]["answered_ms"].as_u64() > Some(0), "{report}");
    for count in ["stale_answers", "minority_writes"] {
        assert_eq!(report["summary"][count], 0, "{count}: {report}");
    }
    for what in
        ["partition", "host-silent", "election-won", "node-not-ready", "partition-healed", "node-ready"]
    {
        assert!(tells(&report, what), "{what}: {report}");
    }
}

#[test]
fn a_followers_lost_packets_cost_no_pod() {
    let args = ["--fault", "packet-loss", "--target", "follower", "--loss", "5", "--lasts", "3s"];
    let Some(report) = check_fault(&args, 0) else { return };
    assert!(tells(&report, "packet-loss-over") && report["percent"] == 5, "{report}");
}

#[test]
fn a_leaders_disk_that_stalls_costs_no_pod() {
    if !testing::has_seccomp() {
        return;
    }
    let args = ["--fault", "slow-disk", "--stall", "200ms", "--lasts", "5s"];
    let Some(report) = check_fault(&args, 0) else { return };
    assert_eq!((&report["stall_ms"], &report["lasts_ms"]), (&200.into(), &5000.into()), "{report}");
    assert!(tells(&report, "slow-disk") && tells(&report, "slow-disk-over"), "{report}");
    let writes = &report["runs"][0]["writes"];
    assert!(writes["asked"].as_u64() > Some(20) && writes["outage_ms"].is_u64(), "{report}");
}

#[test]
fn a_leaders_disk_is_full_for_a_while() {
    let Some(report) = check_fault(&["--fault", "full-disk", "--lasts", "5s"], 0) else { return };
    assert_eq!(report["lasts_ms"], 5000, "{report}");
    let writes = &report["runs"][0]["writes"];
    assert!(
        writes["outage_ms"].as_u64().is_some_and(|away| away < 5000),
        "another one leads by then: {report}"
    );
    for what in ["full-disk", "full-disk-over", "as-declared"] {
        assert!(tells(&report, what), "{what}: {report}");
    }
}

/// Kills all processes of one kind that the leader has beside its program: no pod is replaced for that.
fn check_component(name: &str) {
    let fault = format!("component:{name}");
    let Some(report) = check_fault(&["--fault", &fault], 0) else { return };
    assert_eq!(report["component"], name, "{report}");
    assert!(tells(&report, "component-killed") && tells(&report, "as-declared"), "{report}");
}

#[test]
fn the_keeper_of_a_leaders_addresses_is_killed() {
    check_component("address-keeper");
}

#[test]
fn the_shims_of_a_leaders_pods_are_killed() {
    check_component("shim");
}

#[test]
fn the_keepers_of_a_leaders_pods_are_killed() {
    check_component("pod-keeper");
}

#[tokio::test]
async fn a_cluster_elsewhere_is_broken_by_commands() {
    let cluster = Cluster::up().await;
    let host = format!("{}/{{node}}/config", cluster.folder().display());
    // The pattern must not find the shell that looks for it.
    let each = |signal: &str| {
        format!(
            "for p in /proc/[0-9]*; do if tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q ' host .*{host}[.]json'; \
             then kill -{signal} ${{p#/proc/}}; fi; done"
        )
    };
    let report = cluster.dir().join("report.json");
    let output = Command::new(HOLDFAST)
        .args(["drill", "--target", "n3", "--limit", "60s", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .args(["--cut", &each("STOP"), "--restore", &each("CONT"), "--json"])
        .arg(&report)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let run = &report["runs"][0];
    assert_eq!((&report["fault"], &run["target"]), (&"command".into(), &"n3".into()));
    assert!(run["replacement"]["answered_ms"].as_u64() > Some(0), "{run}");
    assert!(run["rejoin"]["ready_ms"].is_u64() && run["rejoin"]["as_declared_ms"].is_u64(), "{run}");
    assert!(run["double_holders"].is_null() && report["summary"]["unseen"]["double_holders"].is_string());
}

#[test]
fn faults_that_cannot_be_had_are_refused() {
    for (args, why) in [
        (&["--fault", "component:scheduler"][..], "it has address-keeper, shim, pod-keeper"),
        (&["--fault", "component:pod-keeper"], "add --workload statefulset"),
        (&["--target", "worker"], "take follower"),
        (&["--scenario", "rollout", "--fault", "pause"], "knows no other fault"),
        (&["--cut", "true {node}"], "--kubeconfig"),
        (&["--fence-agents", "agents.yaml"], "--kubeconfig"),
        (&["--kubeconfig", "admin.conf"], "--fence-agents"),
    ] {
        let output = Command::new(HOLDFAST).arg("drill").args(args).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success() && text(&output).contains(why), "{args:?}: {}", text(&output));
    }
}

#[test]
fn a_drill_runs_its_pods_as_containers() {
    if !nix::unistd::geteuid().is_root() {
        testing::skip("root", "only root runs containers");
        return;
    }
    if !testing::has_namespaces() {
        return;
    }
    let report = check_drill("netns", &["--runtime", "oci"]);
    assert_eq!(report["cluster"]["runtime"], "oci", "{report}");
}

/// The user's own workload, with nothing but `runtimeClassName: host` added.
const TEST_SERVICE: &str = include_str!("test-service.yaml");

#[test]
fn a_drill_asks_the_users_own_workload() {
    for program in ["python3", "bash"] {
        if !testing::has(program) {
            return;
        }
    }
    if !testing::has_namespaces() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("test-service.yaml");
    std::fs::write(&manifest, TEST_SERVICE).unwrap();
    let report = check_drill("netns", &["--workload", manifest.to_str().unwrap()]);
    if testing::has("kubectl") {
        let proxied = &report["runs"][0]["kubectl_proxy"];
        assert!(proxied["asked"].as_u64() > Some(0), "kubectl proxy was not asked: {proxied}");
    }
}

#[test]
fn a_rollout_while_a_host_is_off_fails_no_request() {
    let (net, _lock) = match testing::allows_namespaces() {
        true => ("netns", None),
        false => ("loopback", Some(lock_loopback())),
    };
    // A host that was late for want of a processor, on a machine with much else to do, is another test's affair: it falls silent, or
    // loses its office, or a request at it takes more than a second.
    let is_undisturbed = |report: &Value| {
        let (off, timeline) = (&report["runs"][0]["off"], report["runs"][0]["timeline"].as_array().unwrap());
        timeline.iter().all(|line| {
            line["what"] != "vip-released"
                && line["what"] != "election-won"
                && (line["what"] != "host-silent" || line["subject"] == *off)
        })
    };
    let runs = (0..4).map(|_| hold(net, &["--scenario", "rollout"]));
    let mut undisturbed = runs.filter(|(_, report)| is_undisturbed(report)).take(2);
    let (mut output, mut report) = undisturbed.next().expect("one leader leads on");
    if report["summary"]["failed"] != 0 {
        (output, report) = undisturbed.next().expect("one leader leads on");
    }
    assert!(output.status.success(), "{}", text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(report["summary"]["failed"], 0, "{printed}");
    assert!(report["summary"]["asked"].as_u64() > Some(500), "{printed}");
    let steps = report["runs"][0]["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["what"].as_str()).collect();
    let order =
        ["power-off", "scale-to-6", "scale-to-12", "scale-to-3", "new-template", "delete-a-pod", "power-on"];
    assert_eq!(names, order);
    for step in steps {
        assert!(step["took_ms"].is_u64(), "{step}");
        assert!(step["service"]["asked"].as_u64() > Some(5), "{step}");
    }
    assert!(printed.contains("scale to 12"), "{printed}");
}

pub fn check_drill(net: &str, args: &[&str]) -> Value {
    let (report, printed) = drill(net, args);
    let run = &report["runs"][0];
    assert_eq!(run["fault"], "power-off");
    for role in ["leader", "vip", "worker"] {
        assert!(run["was"].as_array().unwrap().contains(&role.into()), "{run}");
    }
    for clock in ["api", "service"] {
        assert!(run[clock]["asked"].as_u64() > Some(20), "{clock} was hardly asked: {run}");
        assert!(run[clock]["outage_ms"].is_u64(), "{clock} never came back: {run}");
    }
    assert!(run["elections_won"].as_u64() >= Some(1), "{run}");
    let bytes = |which: &str| run["memory"][which].as_u64().unwrap_or_default();
    assert!(bytes("leader_before_bytes") > 1_000_000, "{run}");
    assert!(bytes("new_leader_peak_bytes") >= bytes("new_leader_before_bytes") / 2, "{run}");
    assert!(run["replacement"]["answered_ms"].as_u64() > Some(0), "{run}");
    assert!(run["rejoin"]["ready_ms"].as_u64() > Some(0), "{run}");
    let happened: Vec<&str> =
        run["timeline"].as_array().unwrap().iter().filter_map(|line| line["what"].as_str()).collect();
    for what in [
        "last-heartbeat",
        "endpoints-dropped",
        "election-won",
        "vip-moved",
        "node-not-ready",
        "pod-created",
        "pod-placed",
        "pod-started",
        "pod-ready",
        "endpoint-added",
        "store-caught-up",
        "node-ready",
    ] {
        assert!(happened.contains(&what), "{what} is missing in the timeline: {happened:?}");
    }
    assert!(report["summary"]["api_outage_ms"]["p50"].is_u64());
    assert!(printed.contains("election-won") || printed.contains("election"), "{printed}");
    report
}

/// Holds a drill in which nothing goes wrong. Returns its report, and what it printed.
fn drill(net: &str, args: &[&str]) -> (Value, String) {
    let (output, report) = hold(net, args);
    assert!(output.status.success(), "{}", text(&output));
    (report, String::from_utf8(output.stdout).unwrap())
}

/// Holds a drill, which leaves nothing. Returns how it ended, and its report.
fn hold(net: &str, args: &[&str]) -> (Output, Value) {
    let temporary = tempfile::tempdir().unwrap();
    let json = temporary.path().join("report.json");
    let output = Command::new(HOLDFAST)
        .args(["drill", "--net", net, "--seed", "1", "--json"])
        .arg(&json)
        .args(args)
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&std::fs::read(&json).unwrap());
    let report: Value = report.unwrap_or_else(|_| panic!("no report: {}", text(&output)));
    assert_eq!(report["cluster"]["net"], net);
    assert_eq!(report["cluster"]["nodes"], 3);
    leaves_nothing(temporary.path(), &json);
    (output, report)
}

fn leaves_nothing(temporary: &Path, json: &Path) {
    let left: Vec<_> = std::fs::read_dir(temporary)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path != json && path.extension().is_none_or(|e| e != "yaml"))
        .collect();
    assert!(left.is_empty(), "files are left: {left:?}");
    let marker = temporary.to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        assert!(!command.contains(marker), "a process is left: {command}");
    }
}
