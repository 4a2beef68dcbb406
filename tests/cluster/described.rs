//! What `kubectl` shows of each kind that a controller keeps, in a whole cluster: `describe`, `autoscale`, `top`, `wait`, and what
//! `rollout` does beside rolling.

use crate::harness::Cluster;
use crate::kubectl::{Kubectl, is_installed};

const MANIFEST: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: host
      containers:
      - {name: c, command: [sleep, "1000"], resources: {requests: {cpu: 100m}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 3, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: rc}
spec:
  replicas: 1
  selector: {app: rc}
  template:
    metadata: {labels: {app: rc}}
    spec:
      runtimeClassName: host
      containers:
      - {name: c, command: [sleep, "1000"], resources: {requests: {cpu: 100m}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: done}
spec:
  template:
    spec: {runtimeClassName: host, restartPolicy: Never, containers: [{name: c, command: ["true"]}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    spec: {runtimeClassName: host, restartPolicy: Never, containers: [{name: c, command: ["/no/such"]}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: nowhere}
spec:
  template:
    spec:
      runtimeClassName: host
      restartPolicy: Never
      nodeSelector: {disk: none}
      containers: [{name: c, command: ["true"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: yearly}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      template:
        spec: {runtimeClassName: host, restartPolicy: Never, containers: [{name: c, command: ["true"]}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: lost}
spec: {storageClassName: none, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttributesClass
metadata: {name: gold}
driverName: disks.example.org
parameters: {iops: "100"}
"#;

#[tokio::test]
async fn each_kind_shows_what_it_shows_elsewhere() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    kubectl.applies(MANIFEST, &["deployment.apps/web created"]);
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);

    for (what, refused) in [("done", "complete"), ("broken", "failed")] {
        let wait = format!("wait --for=condition={refused} job/{what} --timeout=60s");
        kubectl.says(&wait, &["condition met"]);
    }
    kubectl.says("wait --for=jsonpath={.status.readyReplicas}=1 rc/rc --timeout=60s", &["condition met"]);
    for (what, words) in [
        ("deployment web", &["3 available", "MinimumReplicasAvailable", "from 0 to 3"][..]),
        ("replicaset", &["Controlled By:  Deployment/web", "3 Running", "Created pod: web-"]),
        ("rc rc", &["1 current / 1 desired", "Created pod: rc-"]),
        ("job done", &["1 Succeeded / 0 Failed", "Completed", "Job completed"]),
        ("job broken", &["1 Failed", "BackoffLimitExceeded"]),
        ("job nowhere", &["1 Active (0 Ready)", "Created pod: nowhere-"]),
        (
            "pod -l job-name=nowhere",
            &["FailedScheduling", "3 node(s) didn't match Pod's node affinity/selector"],
        ),
        ("cronjob yearly", &["0 0 1 1 *", "Last Schedule Time:  <unset>"]),
        ("pdb web", &["Allowed disruptions:  0", "Current:              3"]),
        ("pvc lost", &["Pending", "ProvisioningFailed", "storageclass.storage.k8s.io \"none\" not found"]),
        ("storageclass local-path", &["IsDefaultClass:        Yes", "WaitForFirstConsumer"]),
        ("node n1", &["Kubelet Version:", "KubeletReady", "Allocated resources:"]),
    ] {
        let said = kubectl.says_soon(&format!("describe {what}"), words[words.len() - 1]);
        for word in words {
            assert!(said.contains(word), "describe {what} doesn't say {word:?}: {said}");
        }
    }

    for (what, reference) in [("deployment web", "Deployment/web"), ("rc rc", "ReplicationController/rc")] {
        kubectl.says(&format!("autoscale {what} --cpu-percent=50 --min=1 --max=4"), &["autoscaled"]);
        let name = what.split_whitespace().last().unwrap();
        let said = kubectl.says_soon(&format!("describe hpa {name}"), "ValidMetricFound");
        assert!(said.contains(reference) && said.contains("AbleToScale"), "{said}");
    }
    kubectl.says_soon("top nodes", "n3");
    kubectl.says_soon("top pods --containers", "web-");

    kubectl.says("delete hpa web", &["deleted"]);
    kubectl.says("rollout pause deployment/web", &["paused"]);
    kubectl.says("set env deployment/web v=2", &["env updated"]);
    kubectl.says("rollout resume deployment/web", &["resumed"]);
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.says("rollout undo deployment/web --to-revision=1", &["rolled back"]);
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.says("rollout history deployment/web", &["2", "3"]);
    kubectl.fails("scale deployment/web --current-replicas=7 --replicas=1", &["Expected replicas to be 7"]);
    kubectl.says("scale rc/rc --replicas=0", &["scaled"]);
    kubectl.says("wait --for=delete pod -l app=rc --timeout=60s", &[]);

    // It has a finalizer, which goes with its last use.
    kubectl.says("delete volumeattributesclass gold --timeout=30s", &["deleted"]);
    kubectl.fails("get volumeattributesclass gold", &["NotFound"]);
}
