//! The measurement of the store as a whole: real processes, a short time, no peer.
#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::process::Command;

use serde_json::Value;

fn measure(arguments: &[&str], cases: &[&str]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("numbers.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["store", "--rounds", "1", "--counted", "0.1", "--dir"]).arg(dir.path());
    command.arg("--json").arg(&json).args(arguments);
    cases.iter().for_each(|case| {
        command.args(["--case", case]);
    });
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["numbers.json"], "the members' folders are removed");
    numbers
}

#[test]
fn every_kind_of_load_gets_work_done_within_the_process_and_through_the_door() {
    let names = ["put-1", "put-64", "get-linearizable", "get-stale", "range-1000", "watch-1000"];
    let numbers = measure(&[], &names);
    let cases = numbers["cases"].as_array().unwrap();
    assert_eq!(cases.iter().map(|case| case["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    for (case, side) in cases.iter().flat_map(|case| [(case, "ours"), (case, "door")]) {
        let figure = |name: &str| case[side][name].as_f64().unwrap_or_else(|| panic!("{name} in {case}"));
        assert!(figure("per_s") > 0.0 && figure("p50_ms") > 0.0, "{case}");
        assert!(figure("p50_ms") <= figure("p99_ms"), "{case}");
        let compared = [&case["peer"], &case["ratio"], &case["door_ratio"]];
        assert!(compared.iter().all(|value| value.is_null()), "nothing was beside it: {case}");
    }
    let per_s = |n: usize, side: &str| cases[n][side]["per_s"].as_f64().unwrap();
    assert!(per_s(3, "ours") > per_s(1, "ours"), "reading memory costs less than a disk's sync: {cases:?}");
    assert!(
        per_s(3, "ours") > per_s(3, "door"),
        "a call within a process costs less than a request: {cases:?}"
    );
}

#[test]
fn a_case_for_which_no_time_is_left_is_named() {
    // Memory takes some forty seconds by estimate, a put takes seconds.
    let numbers = measure(&["--seconds", "20"], &["put-1", "memory-100000"]);
    assert_eq!(numbers["cases"][0]["name"], "put-1", "{numbers}");
    assert_eq!(numbers["left_out"], serde_json::json!(["memory-100000"]), "{numbers}");
}

#[test]
fn an_unknown_case_is_refused() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bench")).args(["store", "--case", "put-2"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("put-64"), "it names the cases that exist");
}
