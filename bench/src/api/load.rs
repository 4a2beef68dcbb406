//! The loads: what many clients do at once, and how long each request took.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::client::Client;
use super::hosts::Hosts;
use crate::store::Histogram;

const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
/// What a watcher finds the number of a change by.
const NUMBER: &[u8] = b"\"bench-number\":\"";

/// What came of a load.
#[derive(Default)]
pub struct Outcome {
    /// How long the requests took.
    pub times: Histogram,
    /// How long all of them took together.
    pub seconds: f64,
}

/// One kind of request.
#[derive(Debug, Clone, Copy)]
pub enum Request {
    /// Makes the pod of that number.
    Create,
    /// Reads it.
    Get,
    /// Changes a label of it.
    Patch,
}

/// A pod as people have them: one container with ports, variables, resources and a probe.
fn pod(number: usize) -> String {
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"pod-{number}","labels":{{"app":"bench","tier":"t{}"}}}},"spec":{{"containers":[{{"name":"main","image":"registry.example.com/team/app:1.2.3","ports":[{{"name":"http","containerPort":8080}}],"env":[{{"name":"MODE","value":"production"}},{{"name":"POD","valueFrom":{{"fieldRef":{{"fieldPath":"metadata.name"}}}}}}],"resources":{{"requests":{{"cpu":"100m","memory":"64Mi"}},"limits":{{"memory":"128Mi"}}}},"readinessProbe":{{"httpGet":{{"path":"/healthz","port":"http"}}}}}}]}}}}"#,
        number % 10
    )
}

impl Request {
    async fn send(self, client: &mut Client, number: usize) -> anyhow::Result<()> {
        match self {
            Request::Create => client.ask("POST", PODS, JSON, &pod(number)).await,
            Request::Get => client.ask("GET", &format!("{PODS}/pod-{number}"), JSON, "").await,
            Request::Patch => {
                let patch = format!(r#"{{"metadata":{{"labels":{{"turn":"t{number}"}}}}}}"#);
                client.ask("PATCH", &format!("{PODS}/pod-{number}"), MERGE, &patch).await
            }
        }
        .map(|_| ())
    }
}

async fn connected(hosts: &Hosts, clients: usize) -> anyhow::Result<Vec<Client>> {
    let mut connected = Vec::with_capacity(clients);
    for n in 0..clients {
        connected.push(connected_to(hosts, n).await?);
    }
    Ok(connected)
}

/// The client of that number: they are spread evenly over the hosts.
async fn connected_to(hosts: &Hosts, number: usize) -> anyhow::Result<Client> {
    Client::connect(hosts.addresses[number % hosts.addresses.len()], &hosts.tls).await
}

/// Makes the account that pods run as: no controllers run here that would.
pub async fn account(hosts: &Hosts) -> anyhow::Result<()> {
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let account = r#"{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"default"}}"#;
    let mut clients = connected(hosts, 1).await?;
    for client in &mut clients {
        client.ask("POST", path, JSON, account).await?;
    }
    Ok(())
}

/// Sends a request for each number, by `clients` clients that each send the next one when they have the answer.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn closed(
    hosts: &Hosts,
    clients: usize,
    numbers: std::ops::Range<usize>,
    request: Request,
) -> anyhow::Result<Outcome> {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let (clients, end) = (connected(hosts, clients).await?, numbers.end);
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let next = next.clone();
        tasks.spawn(async move {
            let mut times = Histogram::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return anyhow::Ok(times);
                }
                let sent = Instant::now();
                request.send(&mut client, number).await?;
                times.record(sent.elapsed().as_nanos() as u64);
            }
        });
    }
    let mut outcome = Outcome::default();
    while let Some(times) = tasks.join_next().await {
        outcome.times.merge(&times??);
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Sends `per_second` requests a second, whatever the answers: half reads, a quarter changes, a quarter new pods.
/// A request counts from when it was due.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn open(
    hosts: &Hosts,
    clients: usize,
    per_second: usize,
    seconds: usize,
    pods: usize,
) -> anyhow::Result<Outcome> {
    let clients = connected(hosts, clients).await?;
    let between = Duration::from_secs_f64(clients.len() as f64 / per_second as f64);
    let each = per_second * seconds / clients.len();
    let (count, started) = (clients.len(), Instant::now());
    let mut tasks = JoinSet::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        tasks.spawn(async move {
            tokio::time::sleep(between * n as u32 / count as u32).await;
            let mut due = interval(between);
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut times = Histogram::default();
            for turn in 0..each {
                let due = due.tick().await;
                let number = (n * 7919 + turn * 104_729) % pods;
                match turn % 4 {
                    0 | 2 => Request::Get.send(&mut client, number).await?,
                    1 => Request::Patch.send(&mut client, number).await?,
                    _ => Request::Create.send(&mut client, pods + turn * count + n).await?,
                }
                times.record(due.elapsed().as_nanos() as u64);
            }
            anyhow::Ok(times)
        });
    }
    let mut outcome = Outcome::default();
    while let Some(times) = tasks.join_next().await {
        outcome.times.merge(&times??);
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Lists all pods this many times; the answers are the outcome and the size of one list in bytes.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn list(hosts: &Hosts, times: usize) -> anyhow::Result<(Outcome, usize)> {
    let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    let (mut outcome, mut size, started) = (Outcome::default(), 0, Instant::now());
    for _ in 0..times {
        let sent = Instant::now();
        size = client.ask("GET", PODS, JSON, "").await?;
        outcome.times.record(sent.elapsed().as_nanos() as u64);
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    Ok((outcome, size))
}

/// `watchers` watchers see `changes` changes; a time is from a change's request to its event at one watcher.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn fan_out(hosts: &Hosts, watchers: usize, changes: usize) -> anyhow::Result<Outcome> {
    let path = "/api/v1/namespaces/default/configmaps";
    let mut tasks = JoinSet::new();
    let sent: Arc<Vec<std::sync::OnceLock<Instant>>> =
        Arc::new((0..changes).map(|_| std::sync::OnceLock::new()).collect());
    for n in 0..watchers {
        // One after the other: a client that connects and asks for nothing for long is hung up on.
        let mut client = connected_to(hosts, n).await?;
        client.watch(&format!("{path}?watch=1&timeoutSeconds=600")).await?;
        let sent = sent.clone();
        tasks.spawn(async move {
            let (mut times, mut seen) = (Histogram::default(), 0);
            while seen < changes {
                let chunk = client.chunk().await?;
                anyhow::ensure!(!chunk.is_empty(), "a watch ended");
                for event in chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let Some(number) = number_in(event) else { continue };
                    let sent =
                        sent.get(number).and_then(|sent| sent.get()).context("an event of no change")?;
                    times.record(sent.elapsed().as_nanos() as u64);
                    seen += 1;
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut writer = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    let started = Instant::now();
    for (number, sent) in sent.iter().enumerate() {
        sent.get_or_init(Instant::now);
        let body = format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"change-{number}"}},"data":{{"bench-number":"{number}","text":"{}"}}}}"#,
            "x".repeat(500)
        );
        writer.ask("POST", path, JSON, &body).await?;
    }
    let mut outcome = Outcome::default();
    while let Some(times) = tasks.join_next().await {
        outcome.times.merge(&times??);
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    Ok(outcome)
}

fn number_in(event: &[u8]) -> Option<usize> {
    let at = event.windows(NUMBER.len()).position(|window| window == NUMBER)? + NUMBER.len();
    let digits = &event[at..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
