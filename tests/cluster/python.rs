//! The official Python client against a cluster: create, watch, patch, apply, pages, leader election, exec,
//! port-forward (the steps stand in `python.py`).

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Cluster, text};

/// A Python that has the client; Debian's packages are the system's alone.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let mut command = Command::new(python);
        command.args(["-c", "import kubernetes.leaderelection, kubernetes.stream"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has)
}

#[tokio::test]
async fn the_python_client_does_what_it_does_elsewhere() {
    let Some(python) = python() else {
        return testing::skip("python", "the Python client (python3-kubernetes) is not installed");
    };
    let cluster = Cluster::up().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/python.py");
    let output = cluster.run(python, &[script.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
}
