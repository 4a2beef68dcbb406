//! The law of a rolling update: whatever the order in which everybody acts, there are never more pods than
//! replicas and surge together, and never fewer that serve than replicas without those that may be missing.
#![allow(clippy::unwrap_used)]

use crate::cluster::Cluster;
use crate::dice::Dice;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

fn counts(cluster: &Cluster) -> (usize, usize) {
    let pods = cluster.list::<Pod>();
    let active = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let ready = active.clone().filter(|pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    (active.count(), ready.count())
}

fn bound(value: &Value, replicas: usize, up: bool) -> usize {
    match value {
        Value::String(text) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap();
            if up { (replicas * percent).div_ceil(100) } else { replicas * percent / 100 }
        }
        number => usize::try_from(number.as_u64().unwrap()).unwrap(),
    }
}

async fn roll(replicas: usize, surge: Value, missing: Value, seed: u64) {
    let mut cluster = Cluster::new(&["n1", "n2", "n3"]).await;
    let strategy = json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}});
    cluster.deploy("web", u32::try_from(replicas).unwrap(), strategy).await;
    cluster.settle().await;
    assert_eq!(counts(&cluster), (replicas, replicas));

    let most = replicas + bound(&surge, replicas, true);
    let mut may_miss = bound(&missing, replicas, false);
    if may_miss == 0 && most == replicas {
        may_miss = 1;
    }
    let least = replicas - may_miss.min(replicas);
    let mut dice = Dice(seed);
    cluster.set_image("web", "web:2").await;
    let mut updates = 1;
    for step in 0..3000 {
        let due = cluster.due();
        // A second update in the middle of the first is no excuse.
        if updates == 1 && step == 20 {
            cluster.set_image("web", "web:3").await;
            updates = 2;
        }
        let moved = dice.step(&mut cluster, &due).await;
        let (all, ready) = counts(&cluster);
        assert!(all <= most, "step {step}: {all} pods, at most {most} are allowed");
        assert!(ready >= least, "step {step}: {ready} pods serve, at least {least} must");
        if !moved && due.is_empty() && updates == 2 {
            break;
        }
    }
    cluster.settle().await;
    assert_eq!(counts(&cluster), (replicas, replicas));
    for pod in cluster.list::<Pod>() {
        assert_eq!(pod.spec.as_ref().unwrap().containers[0].image.as_deref(), Some("web:3"));
    }
    let sizes: usize = cluster
        .list::<ReplicaSet>()
        .iter()
        .map(|set| usize::try_from(set.spec.as_ref().unwrap().replicas.unwrap()).unwrap())
        .sum();
    assert_eq!(sizes, replicas, "old sets are empty");
}

fn share() -> impl Strategy<Value = Value> {
    prop_oneof![(0u32..4).prop_map(Value::from), (0u32..=100).prop_map(|p| Value::from(format!("{p}%")))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_rolling_update_keeps_within_its_limits(
        replicas in 1usize..8,
        surge in share(),
        missing in share(),
        seed in any::<u64>(),
    ) {
        // Both zero is refused by validation.
        let zero = |value: &Value| value == &json!(0) || value == &json!("0%");
        prop_assume!(!(zero(&surge) && zero(&missing)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(roll(replicas, surge, missing, seed));
    }
}
