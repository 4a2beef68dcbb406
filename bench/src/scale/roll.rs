//! One Deployment from nothing to all of its replicas, and from one template to the next.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::hollow::Hollow;
use super::requests::JSON;
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
    let hollow = Hollow::start(hosts).await?;
    let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    let mut watcher = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    watcher.watch(&format!("{DEPLOYMENTS}?watch=1&timeoutSeconds=600")).await?;
    let body = format!(
        r#"{{"kind":"Deployment","apiVersion":"apps/v1","metadata":{{"name":"web"}},"spec":{{"replicas":{replicas},"selector":{{"matchLabels":{{"app":"web"}}}},"template":{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{{"containers":[{{"name":"main","image":"registry.example.com/team/app:1","resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}}}}}}]}}}}}}}}"#
    );
    let out = timed(&mut watcher, replicas, 1, client.ask("POST", DEPLOYMENTS, JSON, &body)).await?;
    let patch = r#"{"spec":{"template":{"metadata":{"labels":{"version":"2"}}}}}"#;
    let over =
        timed(&mut watcher, replicas, 2, client.ask("PATCH", &format!("{DEPLOYMENTS}/web"), MERGE, patch))
            .await?;
    hollow.end().await?;
    Ok((out, over))
}

/// The seconds from a request until all replicas are of the newest template and available, and no others are left.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
async fn timed(
    watcher: &mut Client,
    replicas: usize,
    generation: u64,
    request: impl Future<Output = anyhow::Result<usize>>,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    request.await?;
    let done = async {
        loop {
            let chunk = watcher.chunk().await?;
            ensure!(!chunk.is_empty(), "the watch of the Deployment ended");
            for line in chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let Event { object: Deployment { metadata, status } } = serde_json::from_slice(line)?;
                if metadata.generation == generation
                    && status.observed_generation == generation
                    && [status.replicas, status.updated_replicas, status.available_replicas] == [replicas; 3]
                {
                    return anyhow::Ok(());
                }
            }
        }
    };
    tokio::time::timeout(LONGEST, done).await.context("the rollout didn't end")??;
    Ok(started.elapsed().as_secs_f64())
}
