//! The law of a StatefulSet: whatever fails, falls silent and comes back in whatever order, no two pods of one name ever run;
//! but for what a person says of a host: that its Node is deleted, or that it is out of service.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::agents::Agents;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::stateful_sets::{change, names, set_image, stateful, staying};
use k8s_openapi::api::core::v1::Pod;
use objects::Delete;
use proptest::prelude::*;
use serde_json::{Value, json};

const HOSTS: [&str; 3] = ["n1", "n2", "n3"];

async fn live(policy: &str, grace: i64, seed: u64) {
    let mut cluster = Cluster::new(&HOSTS).await;
    cluster.serving = false;
    let spec =
        json!({"terminationGracePeriodSeconds": grace, "containers": [{"name": "db", "image": "db:1"}]});
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": spec});
    stateful(&cluster, json!({"replicas": 3, "podManagementPolicy": policy, "template": template})).await;
    let (mut agents, mut dice) = (Agents::default(), Dice(seed));
    let mut image = 1;
    for step in 0..400 {
        let host = HOSTS[dice.below(HOSTS.len())];
        match dice.below(24) {
            0 => cluster.silence(host),
            1 | 2 if cluster.silence.contains_key(host) => cluster.hear(host).await,
            3 => cluster.pass(Duration::from_secs(u64::try_from(dice.below(100)).unwrap())),
            4 => change(&cluster, json!({"replicas": dice.below(5)})).await,
            5 => {
                image += 1;
                set_image(&cluster, &format!("db:{image}")).await;
            }
            6 => {
                let taints = if dice.below(2) == 0 {
                    json!([{"key": "bad", "effect": "NoExecute"}])
                } else {
                    Value::Null
                };
                cluster.patch("v1", "Node", "", host, "", json!({"spec": {"taints": taints}})).await.unwrap();
            }
            7 => {
                if let Some(pod) = names(&cluster).first() {
                    cluster.delete("v1", "Pod", "default", pod, Delete::default()).await;
                }
            }
            8..14 if !cluster.silence.contains_key(host) => drop(agents.act(&mut cluster, host).await),
            14 | 15 => drop(cluster.place().await),
            _ => {
                let due = cluster.due();
                if !due.is_empty() {
                    cluster.reconcile(due[dice.below(due.len())].clone()).await;
                }
            }
        }
        let counts = agents.processes();
        assert!(counts.values().all(|count| *count <= 1), "step {step}: {counts:?}");
    }
    // And once all is well again, everything runs.
    for host in HOSTS {
        cluster.hear(host).await;
        cluster.patch("v1", "Node", "", host, "", json!({"spec": {"taints": null}})).await.unwrap();
    }
    change(&cluster, json!({"replicas": 3})).await;
    for _ in 0..20 {
        cluster.pass(Duration::from_secs(60));
        cluster.settle().await;
        for host in HOSTS {
            agents.act(&mut cluster, host).await;
        }
    }
    assert_eq!(
        agents.processes(),
        ["default/db-0", "default/db-1", "default/db-2"].map(|name| (name, 1)).into()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_two_pods_of_one_name_ever_run(parallel in any::<bool>(), grace in 0i64..2, seed in any::<u64>()) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(policy, grace, seed));
    }
}

#[tokio::test]
async fn a_pod_of_a_silent_host_stays_until_somebody_knows_that_it_ended() {
    for ends in ["heard", "deleted", "out of service"] {
        let mut cluster = Cluster::new(&["n1", "n2"]).await;
        stateful(&cluster, json!({"replicas": 2})).await;
        cluster.settle().await;
        let pod = staying(&cluster)[1].clone();
        let host = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
        cluster.silence(&host);
        for _ in 0..3 {
            cluster.pass(Duration::from_secs(1200));
            cluster.settle().await;
        }
        assert_eq!(staying(&cluster)[1].metadata.uid, pod.metadata.uid);
        let told = cluster.told("db-1", "NodeNotReady");
        assert_eq!(told.len(), 1, "once: {told:?}");
        assert!(told[0].contains(&host) && told[0].contains("out-of-service"), "{told:?}");
        // Nor does it help to delete it: nobody says that it ended.
        cluster.delete("v1", "Pod", "default", "db-1", Delete::default()).await;
        cluster.settle().await;
        assert_eq!((names(&cluster), cluster.list::<Pod>().len()), (vec!["db-0".to_owned()], 2));
        match ends {
            "heard" => cluster.hear(&host).await,
            "deleted" => {
                cluster.delete("v1", "Node", "", &host, Delete::default()).await;
                cluster.settle().await;
                assert_eq!(names(&cluster), ["db-0"], "the node may be registering anew");
                cluster.pass(Duration::from_secs(41));
            }
            _ => {
                let node: k8s_openapi::api::core::v1::Node = cluster.get("", &host).unwrap();
                let mut taints = json!(node.spec.unwrap().taints.unwrap());
                let taint = json!({"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"});
                taints.as_array_mut().unwrap().push(taint);
                cluster
                    .patch("v1", "Node", "", &host, "", json!({"spec": {"taints": taints}}))
                    .await
                    .unwrap();
            }
        }
        cluster.settle().await;
        assert_eq!(names(&cluster), ["db-0", "db-1"], "{ends}");
        assert_ne!(staying(&cluster)[1].metadata.uid, pod.metadata.uid);
    }
}
