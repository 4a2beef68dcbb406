//! A small run of the measurement of pods: that it measures, not how fast.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

#[test]
fn pods_start_and_take_memory() {
    if !nix::unistd::geteuid().is_root() {
        testing::skip("root", "only root runs containers");
        return;
    }
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("holdfast");
    if !testing::has("busybox") || !testing::has(&program.display().to_string()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("pods.json");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["pods", "--rounds", "2", "--burst", "3", "--seconds", "1", "--alone", "--dir"])
        .arg(folder.path())
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let cases = numbers["cases"].as_array().unwrap();
    let names: Vec<_> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["start", "start-3", "memory-per-pod", "idle"]);
    for (case, figure) in cases.iter().zip(["p50_ms", "seconds", "shim_pss_mb"]) {
        assert!(case["ours"][figure].as_f64().unwrap() > 0.0, "{case}");
    }
    assert!(cases[3]["ours"]["cpu_percent"].as_f64().unwrap() >= 0.0, "{numbers}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the numbers are left");
}
