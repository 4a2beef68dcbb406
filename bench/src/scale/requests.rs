//! Requests by many clients at once, and the objects that they make.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use tokio::task::JoinSet;

use crate::api::client::Client;
use crate::api::host::CONTROLLERS;
use crate::api::hosts::Hosts;

pub const JSON: &str = "application/json";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
/// Clients that fill the cluster.
const CLIENTS: usize = 64;
/// The hollow hosts stand in as many zones.
const ZONES: usize = 3;

/// A watch, event by event: an event may come in several chunks, and a chunk may hold several events.
pub struct Events {
    client: Client,
    unread: Vec<u8>,
}

impl Events {
    /// Starts to watch.
    pub async fn of(hosts: &Hosts, path: &str) -> anyhow::Result<Self> {
        let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
        client.watch(path).await?;
        Ok(Events { client, unread: Vec::new() })
    }

    /// The next events, each a line of JSON; never none.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        loop {
            let chunk = self.client.chunk().await?;
            ensure!(!chunk.is_empty(), "a watch ended");
            self.unread.extend(chunk);
            let Some(end) = self.unread.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = self.unread.split_off(end + 1);
            let whole = std::mem::replace(&mut self.unread, rest);
            return Ok(whole
                .split(|byte| *byte == b'\n')
                .filter(|l| !l.is_empty())
                .map(<[u8]>::to_vec)
                .collect());
        }
    }
}

/// Posts the objects of the numbers below `count`.
pub async fn post_all(
    hosts: &Hosts,
    path: &'static str,
    count: usize,
    body: impl Fn(usize) -> String + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let (next, body) = (Arc::new(AtomicUsize::new(0)), Arc::new(body));
    let mut tasks = JoinSet::new();
    for n in 0..CLIENTS.min(count) {
        let mut client = Client::connect(hosts.addresses[n % hosts.addresses.len()], &hosts.tls).await?;
        let (next, body) = (next.clone(), body.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                client.ask("POST", path, JSON, &body(number)).await?;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// The name of a hollow host.
pub fn node_name(number: usize) -> String {
    format!("hollow-{number:05}")
}

/// Makes the nodes of hollow hosts: as large as people's machines, ready, spread over zones. Each gets a taint when it is made,
/// as upstream's do, which the controllers take away as it is ready: they run from now on.
pub async fn register(hosts: &mut Hosts, count: usize) -> anyhow::Result<()> {
    let mut events = Events::of(hosts, "/api/v1/nodes?watch=1&timeoutSeconds=600").await?;
    make_nodes(hosts, count).await?;
    hosts.start_part(CONTROLLERS)?;
    let mut ready = 0;
    while ready < count {
        let changes = events.next().await?;
        ready += changes.iter().filter(|event| event.starts_with(br#"{"type":"MODIFIED""#)).count();
    }
    Ok(())
}

async fn make_nodes(hosts: &Hosts, count: usize) -> anyhow::Result<()> {
    post_all(hosts, "/api/v1/nodes", count, |number| {
        let (name, zone) = (node_name(number), number % ZONES);
        format!(
            r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"{name}","labels":{{"kubernetes.io/hostname":"{name}","kubernetes.io/os":"linux","topology.kubernetes.io/zone":"zone-{zone}"}}}},"status":{{"capacity":{{"cpu":"32","memory":"256Gi","pods":"110"}},"allocatable":{{"cpu":"32","memory":"256Gi","pods":"110"}},"conditions":[{{"type":"Ready","status":"True","reason":"KubeletReady"}}],"addresses":[{{"type":"InternalIP","address":"10.{}.{}.{}"}}]}}}}"#,
            1 + number / 60_000,
            number / 250 % 240,
            1 + number % 250
        )
    })
    .await
}
