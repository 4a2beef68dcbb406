//! The law of a DaemonSet's rolling update, whatever the order in which everybody acts: without a surge no host ever has two
//! pods, and no more hosts than may are without one that serves; with one every host always has a pod that serves, and no
//! more hosts than may have two.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::daemon_sets::{by_host, daemons, set_image};
use crate::dice::Dice;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

/// How many pods each host has that nobody is deleting, and how many of them serve.
fn counts(cluster: &Cluster) -> BTreeMap<String, (usize, usize)> {
    let mut hosts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for pod in cluster.list::<Pod>().iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let affinity = json!(pod.spec.as_ref().unwrap().affinity);
        let bound = affinity.pointer(
            "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0",
        );
        let host = hosts.entry(bound.unwrap().as_str().unwrap().to_owned()).or_default();
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let serves = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        *host = (host.0 + 1, host.1 + usize::from(serves));
    }
    hosts
}

async fn roll(hosts: usize, limit: usize, surges: bool, seed: u64) {
    let names: Vec<String> = (0..hosts).map(|n| format!("n{n}")).collect();
    let mut cluster = Cluster::new(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (surge, missing) = if surges { (limit, 0) } else { (0, limit) };
    let rolling = json!({"maxSurge": surge, "maxUnavailable": missing});
    daemons(
        &cluster,
        json!({"type": "RollingUpdate", "rollingUpdate": rolling}),
        Value::Object(Default::default()),
    )
    .await;
    cluster.settle().await;
    let mut dice = Dice(seed);
    set_image(&cluster, "agent:2").await;
    let mut updates = 1;
    for step in 0..3000 {
        let due = cluster.due();
        // A second update in the middle of the first is no excuse.
        if updates == 1 && step == 20 {
            set_image(&cluster, "agent:3").await;
            updates = 2;
        }
        let moved = dice.step(&mut cluster, &due).await;
        let counts = counts(&cluster);
        let doubled = counts.values().filter(|(all, _)| *all > 1).count();
        let serving = counts.values().filter(|(_, serving)| *serving > 0).count();
        assert!(counts.values().all(|(all, _)| *all <= 2), "step {step}: {counts:?}");
        assert!(doubled <= surge, "step {step}: {counts:?}, at most {surge} hosts may have two");
        assert!(
            serving + missing >= hosts,
            "step {step}: {counts:?}, at most {missing} hosts may be without"
        );
        if !moved && due.is_empty() && updates == 2 {
            break;
        }
    }
    cluster.settle().await;
    let expected: BTreeMap<_, _> = names.into_iter().map(|name| (name, vec!["agent:3".to_owned()])).collect();
    assert_eq!(by_host(&cluster), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn a_rolling_update_of_daemons_keeps_within_its_limits(
        hosts in 1usize..6,
        limit in 1usize..4,
        surges in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(roll(hosts, limit, surges, seed));
    }
}
