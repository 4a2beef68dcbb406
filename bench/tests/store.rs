//! The measurement of the store as a whole: real processes, a short time, no peer.
#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::process::Command;

use serde_json::Value;

fn measure(cases: &[&str]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("numbers.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["store", "--rounds", "1", "--seconds", "0.1", "--dir"]).arg(dir.path());
    command.arg("--json").arg(&json);
    cases.iter().for_each(|case| {
        command.args(["--case", case]);
    });
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["numbers.json"], "the members' folders are removed");
    numbers["cases"].as_array().unwrap().clone()
}

#[test]
fn every_kind_of_load_gets_work_done() {
    let names = ["put-1", "put-64", "get-linearizable", "get-stale", "range-1000", "watch-1000"];
    let cases = measure(&names);
    assert_eq!(cases.iter().map(|case| case["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    for case in &cases {
        let figure = |name: &str| case["ours"][name].as_f64().unwrap_or_else(|| panic!("{name} in {case}"));
        assert!(figure("per_s") > 0.0 && figure("p50_ms") > 0.0, "{case}");
        assert!(figure("p50_ms") <= figure("p99_ms"), "{case}");
        assert!(case["peer"].is_null() && case["ratio"].is_null(), "nothing was beside it: {case}");
    }
    let per_s = |n: usize| cases[n]["ours"]["per_s"].as_f64().unwrap();
    assert!(per_s(3) > per_s(1), "reading a state in memory costs less than a disk's sync: {cases:?}");
}

#[test]
fn an_unknown_case_is_refused() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bench")).args(["store", "--case", "put-2"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("put-64"), "it names the cases that exist");
}
