//! People's kubeconfigs by `holdfast user`: made, held to what their groups may do, and taken back on every host.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Cluster, HOLDFAST, text, wait_for};

/// Runs the program with a kubeconfig; whether it succeeded, and what it said.
fn run(kubeconfig: &Path, args: &[&str]) -> (bool, String) {
    let mut command = std::process::Command::new(HOLDFAST);
    let output = command.args(args).arg("--kubeconfig").arg(kubeconfig).output().unwrap();
    (output.status.success(), text(&output))
}

#[tokio::test]
async fn a_user_gets_a_kubeconfig_and_it_is_taken_back_on_every_host() {
    let cluster = Cluster::up().await;
    let (admin, janes) = (cluster.kubeconfig(), cluster.dir().join("jane.kubeconfig"));
    let add =
        ["user", "add", "jane", "--group", "devs,ops", "--for", "30d", "--file", janes.to_str().unwrap()];
    let (added, said) = run(&admin, &add);
    assert!(added && said.contains("jane"), "{said}");
    assert_eq!(std::fs::metadata(&janes).unwrap().permissions().mode() & 0o777, 0o600);
    let (again, said) = run(&admin, &add);
    assert!(!again && said.contains("is there already"), "{said}");

    let (may, said) = run(&janes, &["get", "pods"]);
    assert!(!may && said.contains("Forbidden"), "{said}");
    let binding = cluster.dir().join("binding.yaml");
    let subject = "subjects: [{kind: Group, name: ops, apiGroup: rbac.authorization.k8s.io}]\n";
    let role = "roleRef: {kind: ClusterRole, name: view, apiGroup: rbac.authorization.k8s.io}\n";
    let head = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: ops}\n";
    std::fs::write(&binding, format!("{head}{subject}{role}")).unwrap();
    let (bound, said) = run(&admin, &["apply", "-f", binding.to_str().unwrap()]);
    assert!(bound, "{said}");
    wait_for("the right of her second group", || async { run(&janes, &["get", "pods"]).0.then_some(()) })
        .await;
    let (listed, said) = run(&admin, &["user", "ls"]);
    assert!(listed && said.contains("jane") && said.contains("valid"), "{said}");
    let (left, said) = run(&admin, &["get", "csr"]);
    assert!(left && !said.contains("holdfast-user"), "nothing is left of the request: {said}");

    let (revoked, said) = run(&admin, &["user", "revoke", "jane"]);
    assert!(revoked, "{said}");
    // The launcher's port leads to the host that leads; her kubeconfig works nowhere once another one leads either.
    for host in ["n1", "n2", "n3"] {
        wait_for("the revocation", || async {
            let (may, said) = run(&janes, &["get", "pods"]);
            (!may && said.contains("Unauthorized")).then_some(())
        })
        .await;
        cluster.signal_host(host, libc::SIGKILL);
        wait_for("the cluster to answer", || async { run(&admin, &["get", "nodes"]).0.then_some(()) }).await;
    }
    let (listed, said) = run(&admin, &["user", "ls", "-o", "json"]);
    assert!(listed && said.contains("\"revoked\""), "{said}");
    std::fs::remove_file(&janes).unwrap();
    let (anew, said) = run(&admin, &add);
    assert!(!anew && said.contains("was taken back"), "{said}");
    for wrong in ["kubernetes-admin", "system:node:n1"] {
        let (revoked, said) = run(&admin, &["user", "revoke", wrong]);
        assert!(!revoked && said.contains(wrong), "{said}");
    }
    let (added, said) = run(&admin, &["user", "add", "kubernetes-admin"]);
    assert!(!added && said.contains("take another name"), "{said}");
    let (master, said) = run(&admin, &["user", "add", "jack", "--group", "system:masters"]);
    assert!(!master && said.contains("system:masters"), "{said}");
}
