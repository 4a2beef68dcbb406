//! Pods that the hosts of `up` run because of a folder of manifests.

use crate::harness::{Cluster, HOLDFAST};
use crate::kubectl::Kubectl;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: collector}
spec:
  runtimeClassName: host
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    command: [sh, -c, "echo collects; exec sleep 1000"]
"#;

#[tokio::test]
async fn each_host_runs_the_pods_of_the_folder_that_up_names() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("collector.yaml"), MANIFEST).unwrap();
    let named = folder.display().to_string();
    let cluster = Cluster::start_with(temporary.path(), 1, "auto", &["--static-pods", &named]);
    cluster.wait_until_ready(1).await;
    let holdfast = Kubectl(&cluster, HOLDFAST);
    holdfast.says_soon("get pods", "collector-n1");
    holdfast.says_soon("get pods", "1/1");
    holdfast.says("logs collector-n1", &["collects"]);
    std::fs::remove_file(folder.join("collector.yaml")).unwrap();
    holdfast.says_soon("get pods", "No resources found");
}
