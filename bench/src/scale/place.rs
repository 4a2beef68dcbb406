//! Pods wait, the scheduler starts, and each gets its place.

use std::time::Instant;

use super::Case;
use super::requests::{Events, PODS, post_all};
use crate::api::host::SCHEDULER;
use crate::api::hosts::Hosts;

/// Apps whose pods keep apart.
const APPS: usize = 20;

/// How many pods a second were placed, from the scheduler's start to the last pod's event at a watcher.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn measure(hosts: &mut Hosts, case: Case, pods: usize) -> anyhow::Result<f64> {
    post_all(hosts, PODS, pods, move |number| pod(case, number)).await?;
    let path = format!("{PODS}?watch=1&timeoutSeconds=600&fieldSelector=spec.nodeName!=");
    let mut events = Events::of(hosts, &path).await?;
    let started = Instant::now();
    hosts.start_part(SCHEDULER)?;
    let mut placed = 0;
    while placed < pods {
        // A pod comes into what the selector means when it is placed, and nothing else happens to it here.
        placed += events.next().await?.len();
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
