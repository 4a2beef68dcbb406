//! etcdctl, with the line that `up` prints.

use std::process::{Command, Output};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};

use crate::harness::{Cluster, text, wait_for};

/// Runs the line that `up` printed, with a command.
fn etcdctl(line: &str, command: &str) -> Output {
    Command::new("sh").args(["-c", &format!("{line} {command}")]).output().unwrap()
}

#[tokio::test]
async fn etcdctl_reads_watches_and_writes_the_clusters_store() {
    if !testing::has("etcdctl") {
        return;
    }
    let cluster = Cluster::up().await;
    let line = wait_for("etcdctl's line", || async {
        let log = cluster.log();
        Some(log[log.find("ETCDCTL_API=3")?..].lines().next()?.to_owned())
    })
    .await;
    let ask = |command: &str| {
        let output = etcdctl(&line, command);
        assert!(output.status.success(), "{command}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };

    let maps = Api::<ConfigMap>::namespaced(cluster.client().await.unwrap(), "default");
    let metadata = ObjectMeta { name: Some("seen".into()), ..ObjectMeta::default() };
    let map = ConfigMap { metadata, ..ConfigMap::default() };
    let made = maps.create(&PostParams::default(), &map).await.unwrap();
    let revision = made.metadata.resource_version.unwrap();
    let key = "/registry/core/configmaps/default/seen";
    assert!(ask(&format!("get {key} -w fields")).contains(&format!("\"ModRevision\" : {revision}")));
    assert_eq!(ask("member list").lines().count(), 3);
    assert!(ask("endpoint status").contains("3.4.0"));
    ask("put /elsewhere/1 value");
    assert_eq!(ask("get /elsewhere --prefix --print-value-only"), "value\n");
    assert_eq!(ask("del /elsewhere --prefix"), "1\n");
    assert!(etcdctl(&line, "endpoint health").status.success());

    // A host's own certificate is good for its peers, and for nothing here.
    let host = cluster.folder().join("n1/pki");
    let as_host = line.replace("/pki/admin.", "/n1/pki/n1.");
    assert!(host.join("n1.key").exists());
    let refused = etcdctl(&as_host, "get /registry/core/secrets --prefix");
    assert!(!refused.status.success() && text(&refused).contains("permission denied"), "{}", text(&refused));
}
