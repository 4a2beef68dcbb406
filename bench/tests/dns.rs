//! A small run of the measurement of DNS: that it measures, and that all answers are right, not how fast.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

#[test]
fn every_case_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("dns.json");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["dns", "--services", "20", "--callers", "4", "--seconds", "1", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let cases = numbers["cases"].as_array().unwrap();
    let names: Vec<_> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["service", "headless", "nothing"]);
    for case in cases {
        let ours = &case["ours"];
        assert!(ours["per_s"].as_f64().unwrap() > 0.0, "{case}");
        assert_eq!(ours["lost"], 0, "{case}");
    }
}
