//! Programs in pods speak to the API as their pod's service account, with what is mounted for them.

use std::process::Command;

use crate::harness::Cluster;
use crate::kubectl::{Kubectl, is_installed};

const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the pods do: each ends its log with a line that says so.
fn manifest() -> String {
    let curl = format!(
        r#"cd {FOLDER}
        ask() {{ curl -s --cacert ca.crt -H "Authorization: Bearer $(cat token)" "$@"; }}
        api=https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat namespace)
        ask $api/configmaps/greeting
        echo secrets: $(ask -o /dev/null -w '%{{http_code}}' $api/secrets)
        echo others: $(ask -o /dev/null -w '%{{http_code}}' ${{api%/*}}/default/configmaps)
        echo nobody: $(curl -s --cacert ca.crt -o /dev/null -w '%{{http_code}}' $api/configmaps)
        echo mode: $(stat -L -c %a token), user: $(stat -L -c %u token) of $(id -u)
        echo that is all; exec sleep 1000"#
    );
    let python = "from kubernetes import client, config; config.load_incluster_config(); \
                  api = client.CoreV1Api(); \
                  print('python:', api.read_namespaced_config_map('greeting', 'shop').data['text'], flush=True)";
    let without = format!("ls {FOLDER} || echo nothing is mounted; echo that is all; exec sleep 1000");
    let pod = |name: &str, account: &str, more: &str, command: &str| {
        let command: Vec<String> = command.lines().map(|line| format!("          {}", line.trim())).collect();
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             runtimeClassName: host\n  serviceAccountName: {account}\n  terminationGracePeriodSeconds: 0\n{more}  \
             containers:\n  - name: main\n    command:\n    - sh\n    - -c\n    - |\n{}\n",
            command.join("\n")
        )
    };
    let user = "  securityContext: {runAsUser: 65534, runAsGroup: 65534}\n";
    let as_root = nix::unistd::geteuid().is_root();
    let has = |module: &str| {
        let asked = Command::new("/usr/bin/python3").args(["-c", &format!("import {module}")]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot, namespace: shop}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: silent, namespace: shop}\n\
         automountServiceAccountToken: false\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: greeting, namespace: shop}\ndata: {text: hello}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n\
         metadata: {name: robot, namespace: shop}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\n\
         subjects: [{kind: ServiceAccount, name: robot, namespace: shop}]\n"
        .to_owned();
    text += &pod("curl", "robot", "", &curl);
    text += &pod("opts-out", "robot", "  automountServiceAccountToken: false\n", &without);
    text += &pod("silent", "silent", "", &without);
    if as_root {
        text += &pod("user", "robot", user, &curl);
    }
    if has("kubernetes") {
        let command = format!("/usr/bin/python3 -c \"{python}\"; echo that is all; exec sleep 1000");
        text += &pod("python", "robot", "", &command);
    }
    text
}

#[tokio::test]
async fn a_pod_asks_the_api_as_its_account_and_gets_what_that_may() {
    if !is_installed() || !testing::has("curl") || !testing::has_namespaces() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let file = cluster.dir().join("shop.yaml");
    let manifest = manifest();
    std::fs::write(&file, &manifest).unwrap();
    kubectl.says(&format!("create -f {}", file.display()), &["namespace/shop created"]);
    let log = |pod: &str| kubectl.says_soon(&format!("logs -n shop {pod}"), "that is all");

    let said = log("curl");
    for word in [r#""text":"hello""#, "secrets: 403", "others: 403", "nobody: 401", "mode: 600"] {
        assert!(said.replace(": \"", ":\"").contains(word), "{word}: {said}");
    }
    for pod in ["opts-out", "silent"] {
        let said = log(pod);
        assert!(said.contains("nothing is mounted"), "{pod}: {said}");
    }
    if manifest.contains("name: user,") {
        let said = log("user");
        for word in ["secrets: 403", "mode: 600, user: 65534 of 65534"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    if manifest.contains("name: python,") {
        let said = log("python");
        assert!(said.contains("python: hello"), "{said}");
    }
}
