//! One Deployment from nothing to all of its replicas, and from one template to the next.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;

use super::hollow::Hollow;
use super::requests::{Events, JSON};
use crate::api::client::Client;
use crate::api::host::SCHEDULER;
use crate::api::hosts::Hosts;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const MERGE: &str = "application/merge-patch+json";
/// Longer than any run should take; one that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
struct Event {
    object: Deployment,
}

#[derive(Deserialize)]
struct Deployment {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    generation: u64,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    observed_generation: u64,
    replicas: usize,
    updated_replicas: usize,
    available_replicas: usize,
}

/// How many seconds the first rollout takes, and the second one.
pub async fn measure(hosts: &mut Hosts, replicas: usize) -> anyhow::Result<(f64, f64)> {
    hosts.start_part(SCHEDULER)?;
    let mut hollow = Hollow::start(hosts).await?;
    tokio::select! {
        taken = roll(hosts, replicas) => taken,
        error = hollow.failed() => Err(error),
    }
}

async fn roll(hosts: &Hosts, replicas: usize) -> anyhow::Result<(f64, f64)> {
    let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    let mut events = Events::of(hosts, &format!("{DEPLOYMENTS}?watch=1&timeoutSeconds=600")).await?;
    let body = format!(
        r#"{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{{"name":"web"}},"spec":{{"replicas":{replicas},"selector":{{"matchLabels":{{"app":"web"}}}},"template":{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{{"containers":[{{"name":"main","image":"registry.example.com/team/app:1","resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}}}}}}]}}}}}}}}"#
    );
    let (out, generation) =
        timed(&mut events, replicas, 0, client.ask("POST", DEPLOYMENTS, JSON, &body)).await?;
    let patch = r#"{"spec":{"template":{"metadata":{"labels":{"version":"2"}}}}}"#;
    let path = format!("{DEPLOYMENTS}/web");
    let (over, _) =
        timed(&mut events, replicas, generation, client.ask("PATCH", &path, MERGE, patch)).await?;
    Ok((out, over))
}

/// The seconds from a request until all replicas are of the newest template and available, and no others are left; and the
/// Deployment's generation then. `before` is the one before the request: its own, and each annotation, makes a new one.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
async fn timed(
    events: &mut Events,
    replicas: usize,
    before: u64,
    request: impl Future<Output = anyhow::Result<usize>>,
) -> anyhow::Result<(f64, u64)> {
    let started = Instant::now();
    request.await?;
    let done = async {
        loop {
            for event in events.next().await? {
                let Event { object: Deployment { metadata, status } } = serde_json::from_slice(&event)?;
                if metadata.generation > before
                    && status.observed_generation == metadata.generation
                    && [status.replicas, status.updated_replicas, status.available_replicas] == [replicas; 3]
                {
                    return anyhow::Ok(metadata.generation);
                }
            }
        }
    };
    let generation = tokio::time::timeout(LONGEST, done).await.context("the rollout didn't end")??;
    Ok((started.elapsed().as_secs_f64(), generation))
}
