//! `kubectl create job` and Jobs with indexes, on hosts that run them.

use crate::harness::Cluster;
use crate::kubectl::{Kubectl, is_installed};

const MANIFEST: &str = r#"apiVersion: batch/v1
kind: Job
metadata: {name: squares}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  template:
    spec:
      runtimeClassName: host
      restartPolicy: Never
      containers:
      - name: c
        command: ["/bin/sh", "-c", "echo square $((JOB_COMPLETION_INDEX * JOB_COMPLETION_INDEX))"]
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    spec:
      runtimeClassName: host
      restartPolicy: Never
      containers:
      - name: c
        command: ["/bin/sh", "-c", "exit 3"]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: often}
spec:
  schedule: "@every 1s"
  jobTemplate:
    spec:
      template:
        spec:
          runtimeClassName: host
          restartPolicy: Never
          containers:
          - name: c
            command: ["/bin/true"]
"#;

#[tokio::test]
async fn jobs_run_to_their_ends() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let created = ["job.batch/squares created", "job.batch/broken created", "cronjob.batch/often created"];
    kubectl.applies(MANIFEST, &created);
    kubectl.says("wait --for=condition=complete job/squares --timeout=60s", &["condition met"]);
    kubectl.says("get job squares", &["Complete", "3/3"]);
    kubectl.says("get job squares -o jsonpath={.status.completedIndexes}", &["0-2"]);
    kubectl.says("logs -l job-name=squares", &["square 0", "square 1", "square 4"]);
    kubectl.says("wait --for=condition=failed job/broken --timeout=60s", &["condition met"]);
    kubectl.says("describe job broken", &["BackoffLimitExceeded", "Pods Statuses", "1 Failed"]);
    kubectl.says("delete job squares broken", &["deleted"]);
    kubectl.says_soon("get pods -l job-name=squares -o name", "");
    kubectl.says(
        "wait --for=jsonpath={.status.lastSuccessfulTime} cronjob/often --timeout=120s",
        &["condition met"],
    );
}
