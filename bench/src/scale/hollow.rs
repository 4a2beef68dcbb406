//! What hollow hosts do: they say that they are there, and that each of their pods runs, or has ended.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::requests::{Events, JSON, PODS, node_name, post_all};
use crate::api::client::Client;
use crate::api::host::SCHEDULER;
use crate::api::hosts::Hosts;

const MERGE: &str = "application/merge-patch+json";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// Connections by which the hollow hosts write: all hosts of one share it.
const CONNECTIONS: usize = 32;
/// How often a kubelet renews its lease: a quarter of the default `nodeLeaseDurationSeconds`, 40.
const BEAT: Duration = Duration::from_secs(10);

/// Hollow hosts at work; they stop when dropped.
pub struct Hollow {
    tasks: JoinSet<anyhow::Result<()>>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Pod,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<String>,
}

/// What is to be said of a pod.
enum Word {
    Runs(String),
    Ended(String),
}

impl Hollow {
    /// From now on each pod that is placed runs, and each that is deleted ends, at once.
    pub async fn start(hosts: &Hosts) -> anyhow::Result<Self> {
        let (mut queues, mut tasks) = (Vec::new(), JoinSet::new());
        for n in 0..CONNECTIONS {
            let client = Client::connect(hosts.addresses[n % hosts.addresses.len()], &hosts.tls).await?;
            let (queue, words) = unbounded_channel();
            queues.push(queue);
            tasks.spawn(say(client, words));
        }
        let path = format!("{PODS}?watch=1&timeoutSeconds=600&fieldSelector=spec.nodeName!=");
        tasks.spawn(watch(Events::of(hosts, &path).await?, queues));
        Ok(Hollow { tasks })
    }

    /// Waits until something goes wrong with them.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            other => anyhow::anyhow!("a hollow host ended: {other:?}"),
        }
    }
}

async fn watch(mut events: Events, queues: Vec<UnboundedSender<Word>>) -> anyhow::Result<()> {
    loop {
        for event in events.next().await? {
            let Event { kind, object: Pod { metadata: Metadata { name, deletion_timestamp } } } =
                serde_json::from_slice(&event)?;
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            let queue = &queues[hasher.finish() as usize % queues.len()];
            // A writer that is gone tells why by its own end.
            let _ = match kind.as_str() {
                "ADDED" => queue.send(Word::Runs(name)),
                "MODIFIED" if deletion_timestamp.is_some() => queue.send(Word::Ended(name)),
                _ => Ok(()),
            };
        }
    }
}

async fn say(mut client: Client, mut words: UnboundedReceiver<Word>) -> anyhow::Result<()> {
    const RUNS: &str = r#"{"status":{"phase":"Running","podIP":"10.200.0.1","podIPs":[{"ip":"10.200.0.1"}],"startTime":"2026-01-01T00:00:00Z","conditions":[{"type":"Initialized","status":"True"},{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"ContainersReady","status":"True"},{"type":"PodScheduled","status":"True"}],"containerStatuses":[{"name":"main","ready":true,"started":true,"restartCount":0,"image":"registry.example.com/team/app:1","imageID":"","state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}}}]}}"#;
    const AT_ONCE: &str = r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}"#;
    while let Some(word) = words.recv().await {
        let (code, _) = match word {
            Word::Runs(name) => {
                client.try_ask("PATCH", &format!("{PODS}/{name}/status"), MERGE, RUNS).await?
            }
            Word::Ended(name) => client.try_ask("DELETE", &format!("{PODS}/{name}"), JSON, AT_ONCE).await?,
        };
        // A pod may be gone before its host says that it runs.
        ensure!((200..300).contains(&code) || code == 404, "the API answered a hollow host {code}");
    }
    Ok(())
}

/// The part of a core in percent that the first real host takes for the hollow hosts' signs of life.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn idle(hosts: &mut Hosts, nodes: usize, seconds: u64) -> anyhow::Result<f64> {
    post_all(hosts, LEASES, nodes, |number| {
        let name = node_name(number);
        format!(
            r#"{{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{{"name":"{name}"}},"spec":{{"holderIdentity":"{name}","leaseDurationSeconds":40,"renewTime":"2026-01-01T00:00:00.000000Z"}}}}"#
        )
    })
    .await?;
    hosts.start_part(SCHEDULER)?;
    let mut beating = JoinSet::new();
    for n in 0..CONNECTIONS {
        let client = Client::connect(hosts.addresses[n % hosts.addresses.len()], &hosts.tls).await?;
        let own: Vec<usize> = (n..nodes).step_by(CONNECTIONS).collect();
        beating.spawn(beat(client, own));
    }
    // The controllers look at everything once when they start.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, measured) = (hosts.cpu_seconds()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let spent = hosts.cpu_seconds()? - before;
    if let Some(ended) = beating.try_join_next() {
        ended??;
        anyhow::bail!("a hollow host's signs of life ended");
    }
    Ok(spent / measured.elapsed().as_secs_f64() * 100.0)
}

/// Renews the leases of some hollow hosts, each once in [`BEAT`], evenly.
async fn beat(mut client: Client, nodes: Vec<usize>) -> anyhow::Result<()> {
    let count = u32::try_from(nodes.len().max(1))?;
    let mut due = interval(BEAT / count);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_u64.. {
        for node in &nodes {
            due.tick().await;
            let patch =
                format!(r#"{{"spec":{{"renewTime":"2026-01-01T00:00:00.{:06}Z"}}}}"#, turn % 1_000_000);
            client.ask("PATCH", &format!("{LEASES}/{}", node_name(*node)), MERGE, &patch).await?;
        }
    }
    Ok(())
}
