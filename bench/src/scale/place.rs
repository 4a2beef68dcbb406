//! Pods wait, the scheduler starts, and each gets its place.

use std::time::Instant;

use anyhow::ensure;

use super::Case;
use super::requests::{PODS, post_all};
use crate::api::client::Client;
use crate::api::host::SCHEDULER;
use crate::api::hosts::Hosts;

/// Apps whose pods keep apart.
const APPS: usize = 20;

/// How many pods a second were placed, from the scheduler's start to the last pod's event at a watcher.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn measure(hosts: &mut Hosts, case: Case, pods: usize) -> anyhow::Result<f64> {
    post_all(hosts, PODS, pods, move |number| pod(case, number)).await?;
    let mut watcher = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    watcher.watch(&format!("{PODS}?watch=1&timeoutSeconds=600&fieldSelector=spec.nodeName!=")).await?;
    let started = Instant::now();
    hosts.start_part(SCHEDULER)?;
    let mut placed = 0;
    while placed < pods {
        let chunk = watcher.chunk().await?;
        ensure!(!chunk.is_empty(), "the watch ended with {placed} of {pods} pods placed");
        // A pod comes into what the selector means when it is placed, and nothing else happens to it here.
        placed += chunk.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(pods as f64 / started.elapsed().as_secs_f64())
}

fn pod(case: Case, number: usize) -> String {
    let app = match case {
        Case::PlaceAntiAffinity => format!("app-{}", number % APPS),
        _ => "app".to_owned(),
    };
    let selector = format!(r#""labelSelector":{{"matchLabels":{{"app":"{app}"}}}}"#);
    let rules = match case {
        Case::PlaceAntiAffinity => format!(
            r#""affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{selector},"topologyKey":"kubernetes.io/hostname"}}]}}}},"#
        ),
        Case::PlaceSpread => format!(
            r#""topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule",{selector}}}],"#
        ),
        _ => String::new(),
    };
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"pod-{number}","labels":{{"app":"{app}"}}}},"spec":{{{rules}"containers":[{{"name":"main","image":"registry.example.com/team/app:1.2.3","resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}}}}}}]}}}}"#
    )
}
