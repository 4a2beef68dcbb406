//! Volumes of claims in a whole cluster: made where the pod runs, kept for the next one, gone with their claim.

use crate::harness::{Cluster, wait_for};
use crate::kubectl::{Kubectl, is_installed};

const MANIFEST: &str = r#"apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ledger}
spec:
  serviceName: ledgers
  selector: {matchLabels: {app: ledger}}
  template:
    metadata: {labels: {app: ledger}}
    spec:
      runtimeClassName: host
      terminationGracePeriodSeconds: 1
      containers:
      - name: writer
        command: [sh, -c, 'echo run >> "$HOLDFAST_VOLUME_DATA/runs"; echo "runs: $(grep -c run "$HOLDFAST_VOLUME_DATA/runs")"; exec sleep 1000']
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: lost}
spec:
  runtimeClassName: host
  containers: [{name: c, command: [sleep, "1000"]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: nowhere}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: nowhere}
spec:
  storageClassName: missing
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
"#;

#[tokio::test]
async fn a_stateful_pod_finds_what_the_last_one_wrote() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    kubectl.says_soon("get storageclass", "local-path (default)");
    let file = cluster.dir().join("volumes.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    kubectl.says(&format!("apply -f {}", file.display()), &["statefulset.apps/ledger created"]);
    kubectl.says("rollout status statefulset/ledger --timeout=60s", &["complete"]);
    kubectl.says("get pvc data-ledger-0", &["Bound", "pvc-", "1Mi", "RWO", "local-path"]);
    kubectl.says_soon("logs ledger-0", "runs: 1");
    let host = kubectl.says("get pod ledger-0 -o jsonpath={.spec.nodeName}", &[]);
    let volume = kubectl.says("get pvc data-ledger-0 -o jsonpath={.spec.volumeName}", &[]);
    let path = kubectl.says(&format!("get pv {volume} -o jsonpath={{.spec.local.path}}"), &["volumes/pvc-"]);
    let path = std::path::PathBuf::from(path);
    assert_eq!(std::fs::read_to_string(path.join("runs")).unwrap(), "run\n");

    kubectl.says("delete pod ledger-0 --wait=true", &["deleted"]);
    kubectl.says("rollout status statefulset/ledger --timeout=60s", &["complete"]);
    kubectl.says_soon("logs ledger-0", "runs: 2");
    assert_eq!(
        kubectl.says("get pod ledger-0 -o jsonpath={.spec.nodeName}", &[]),
        host,
        "where its volume is"
    );

    // The others wait, and say for what.
    kubectl.says_soon("get events", "storageclass.storage.k8s.io \"missing\" not found");
    kubectl.says_soon("describe pod lost", "FailedScheduling");
    kubectl.says("get pod lost", &["Pending"]);

    kubectl.says("delete statefulset/ledger pvc/data-ledger-0 --wait=true", &["deleted"]);
    wait_for("the volume's end", async || {
        let left = kubectl.says("get pv -o name", &[]);
        (!left.contains("pvc-")).then_some(())
    })
    .await;
    assert!(!path.exists(), "{} is still there", path.display());
}
