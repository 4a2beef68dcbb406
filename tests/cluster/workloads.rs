//! DaemonSets and StatefulSets in a whole cluster, with `kubectl rollout`.

use crate::harness::{Cluster, web_template};
use crate::kubectl::{Kubectl, is_installed};

fn manifest() -> String {
    let (agent, db) = (web_template("agent"), web_template("db"));
    format!(
        r#"apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
{agent}---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  replicas: 2
  serviceName: dbs
  selector: {{matchLabels: {{app: db}}}}
{db}"#
    )
}

#[tokio::test]
async fn daemons_and_stateful_pods_are_rolled_out_and_back() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let file = cluster.dir().join("workloads.yaml");
    std::fs::write(&file, manifest()).unwrap();
    kubectl.says(
        &format!("apply -f {}", file.display()),
        &["daemonset.apps/agent created", "statefulset.apps/db created"],
    );
    let rolled = |what: &str| {
        let said = kubectl.says(&format!("rollout status {what} --timeout=120s"), &[]);
        assert!(said.contains("successfully rolled out") || said.contains("complete"), "{said}");
    };
    for what in ["daemonset/agent", "statefulset/db"] {
        rolled(what);
        let template = r#"{"spec":{"template":{"metadata":{"annotations":{"v":"2"}}}}}"#;
        kubectl.says(&format!("patch {what} -p {template}"), &["patched"]);
        rolled(what);
        kubectl.says(&format!("rollout history {what}"), &["REVISION", "1", "2"]);
        kubectl.says(&format!("rollout history {what} --revision=2"), &["Pod Template", "v: 2"]);
        kubectl.says(&format!("rollout undo {what}"), &["rolled back"]);
        rolled(what);
        let template = kubectl.says(&format!("get {what} -o jsonpath={{.spec.template.metadata}}"), &[]);
        assert!(!template.contains("\"v\""), "undo took the annotation away: {template}");
        kubectl.says(&format!("rollout history {what}"), &["2", "3"]);
        kubectl.says(&format!("rollout restart {what}"), &["restarted"]);
        rolled(what);
    }
    let places = "get pods -l app=agent -o jsonpath={.items[*].spec.nodeName}";
    let mut places: Vec<String> = kubectl.says(places, &[]).split_whitespace().map(str::to_owned).collect();
    places.sort();
    assert_eq!(places, ["n1", "n2", "n3"]);
    kubectl.says("get pods -l app=db -o name", &["pod/db-0", "pod/db-1"]);
    kubectl.says("get daemonset agent", &["DESIRED", "3"]);
    kubectl.says("get statefulset db", &["READY", "2/2"]);
    kubectl.says(
        "describe statefulset db",
        &["SuccessfulCreate", "create Pod db-0 in StatefulSet db successful"],
    );
    kubectl.says("get controllerrevisions", &["daemonset.apps/agent", "statefulset.apps/db"]);
    kubectl.says("scale statefulset/db --replicas=3", &["scaled"]);
    kubectl.says_soon("get statefulset db", "3/3");
    kubectl.says("delete daemonset/agent statefulset/db --wait=true", &["deleted"]);
    kubectl.says_soon("get pods", "No resources found");
}
