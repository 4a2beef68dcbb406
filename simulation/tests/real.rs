//! Real faults for some seconds, and checks that a member's lies are found. Which faults there are depends on what
//! this machine allows; each that is left out is reported in one line.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::process::{Command, Output};

fn real(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_simulation")).arg("real").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}{}", String::from_utf8_lossy(&output.stderr));
    for why in said.lines().filter_map(|line| line.strip_prefix("skipped: ")) {
        testing::skip(if why.starts_with("links") { "netns" } else { "mounts" }, why);
    }
    output
}

#[test]
fn what_was_acknowledged_is_there_after_real_faults() {
    let dir = tempfile::tempdir().unwrap();
    let (numbers, members) = (dir.path().join("numbers.json"), dir.path().join("members"));
    std::fs::create_dir(&members).unwrap();
    let output =
        real(&["--minutes", "0.2", "--json", numbers.to_str().unwrap(), "--dir", members.to_str().unwrap()]);
    assert!(output.status.success());
    let numbers: serde_json::Value = serde_json::from_slice(&std::fs::read(numbers).unwrap()).unwrap();
    assert_eq!(numbers["failed"], serde_json::Value::Null);
    assert!(numbers["acknowledged"].as_u64().unwrap() > 0, "{numbers}");
    assert!(!numbers["faults"].as_object().unwrap().is_empty(), "{numbers}");
    assert_eq!(std::fs::read_dir(&members).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn an_acknowledgement_without_a_write_is_found() {
    let dir = tempfile::tempdir().unwrap();
    // It ends when the lie is found. A member lies once in a number of writes that its process counts: one that is only stopped
    // comes to that number however slow the machine is, one that is killed begins anew.
    let dir = dir.path().to_str().unwrap();
    let output = real(&["--minutes", "3", "--fault", "stop", "--break", "ack-without-write", "--dir", dir]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("failed: stale read") || said.contains("failed: lost write"), "{said}");
}
