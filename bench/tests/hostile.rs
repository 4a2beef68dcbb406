//! A small run of the hostile clients: that every case ends by itself and tells its figures, not what they are.

#![allow(missing_docs, clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;

#[test]
fn every_case_ends_and_others_are_answered_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("hostile.json");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args([
            "hostile",
            "--scale",
            "0.02",
            "--case",
            "idle",
            "--case",
            "unread-watches",
            "--case",
            "rewriting",
        ])
        .arg("--json")
        .arg(&json)
        .arg("--dir")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for (case, figure) in [("idle", "files_most"), ("unread-watches", "with_mb"), ("rewriting", "written")] {
        assert!(numbers[case][figure].as_f64().unwrap() > 0.0, "{case}: {numbers}");
        for name in ["peak_mb", "api_p99_ms", "service_p99_ms"] {
            assert!(numbers[case][name].as_f64().unwrap() > 0.0, "{case}, {name}: {numbers}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the host's folder is gone");
}
