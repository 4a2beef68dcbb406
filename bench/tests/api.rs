//! A small run of the measurement of the API: that it measures, not how fast.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

#[test]
fn one_host_and_three_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("api.json");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["api", "--pods", "100", "--clients", "4", "--watchers", "6", "--seconds", "1", "--json"])
        .arg(&json)
        .arg("--dir")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for hosts in ["1 hosts", "3 hosts"] {
        for load in ["create", "get", "patch", "list", "1000 a second", "watch"] {
            let figures = &numbers[hosts][load];
            assert!(figures["per_s"].as_f64().unwrap() > 0.0, "{hosts}, {load}: {figures}");
            assert!(figures["p99_ms"].as_f64() >= figures["p50_ms"].as_f64(), "{hosts}, {load}: {figures}");
        }
        assert!(numbers[hosts]["with pods"]["resident_mb"].as_f64().unwrap() > 1.0);
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "the hosts' folders are gone, the numbers alone are left");
}
