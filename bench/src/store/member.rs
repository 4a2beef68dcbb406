//! A process that loads one member, which runs in it or beside it; or one that is a member and is loaded by another.
//! Its orders are lines of JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pki::{ClientAuth, Identity, Trust};
use serde::{Deserialize, Serialize};
use store::{Config, Embedded};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::client::Source;
use super::load::{self, Share, Yield};

const CLUSTER: &str = "bench";

/// What the process is for: its first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// The member's name.
    pub name: String,
    /// Where the certificates lie.
    pub pki: PathBuf,
    /// Which side.
    pub side: Side,
}

/// Which side a member belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Side {
    /// Our store, run by this process.
    Ours {
        /// All members.
        peers: BTreeMap<String, SocketAddr>,
        /// Where its data lies.
        data: PathBuf,
    },
    /// Our store, run by this process and served by etcd's API.
    Door {
        /// All members.
        peers: BTreeMap<String, SocketAddr>,
        /// Where its data lies.
        data: PathBuf,
        /// Where it answers.
        listen: SocketAddr,
    },
    /// What speaks etcd's API and is run by another process: etcd, or our store behind its door.
    Etcd {
        /// Where it answers.
        endpoint: String,
    },
}

/// The orders that it gets after that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Write keys: see [`load::fill`].
    Fill {
        /// The first one.
        from: usize,
        /// Up to this one.
        until: usize,
        /// How many clients write.
        clients: usize,
    },
    /// Do a share of a load.
    Run(Share),
    /// Say whether the member leads.
    Leads,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Report {
    /// It is done.
    Done,
    /// What came of a share.
    Yield(Yield),
    /// Whether the member leads.
    Leads(bool),
    /// It failed.
    Failed(String),
}

/// Runs until its input ends.
#[tokio::main]
pub async fn run() -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let setup: Setup = serde_json::from_str(&lines.next_line().await?.context("no setup was given")?)?;
    let source = source(&setup).await?;
    let mut out = tokio::io::stdout();
    let mut report = ready(&source).await;
    loop {
        let mut line = serde_json::to_string(&report)?;
        line.push('\n');
        out.write_all(line.as_bytes()).await?;
        out.flush().await?;
        let Some(line) = lines.next_line().await? else { return Ok(()) };
        report = obey(&source, serde_json::from_str(&line)?).await;
    }
}

async fn source(Setup { name, pki, side }: &Setup) -> anyhow::Result<Source> {
    match side {
        Side::Ours { peers, data } => Ok(Source::Ours(start(name, pki, peers, data).await?)),
        Side::Door { peers, data, listen } => {
            let store = start(name, pki, peers, data).await?;
            let config =
                Identity::load(pki, name)?.server_config(&Trust::load(pki)?, ClientAuth::Required, &[])?;
            let tls = etcd::Tls { config, admits: |_| true };
            let identity = etcd::ServedCluster { cluster: CLUSTER.into(), client_port: listen.port() };
            let listener = TcpListener::bind(listen).await?;
            tokio::spawn(etcd::serve(listener, Some(tls), store.clone(), store.clone(), identity));
            Ok(Source::Ours(store))
        }
        Side::Etcd { endpoint } => {
            Ok(Source::Etcd { endpoint: endpoint.clone(), pki: pki.clone(), name: name.clone() })
        }
    }
}

async fn start(
    name: &str,
    pki: &Path,
    peers: &BTreeMap<String, SocketAddr>,
    data: &Path,
) -> anyhow::Result<Arc<Embedded>> {
    let (identity, trust) = (Identity::load(pki, name)?, Trust::load(pki)?);
    let server = identity.server_config(&trust, ClientAuth::Required, &[])?;
    let client = identity.client_config(&trust, &[])?;
    let config = Config::new(name, CLUSTER, peers.clone(), data, server, client)?;
    Ok(Embedded::start(config).await?)
}

/// Waits until the member takes writes.
async fn ready(source: &Source) -> Report {
    const TRIES: usize = 300;
    let mut last = String::new();
    for _ in 0..TRIES {
        match try_put(source).await {
            Ok(()) => return Report::Done,
            Err(problem) => last = format!("{problem:#}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Report::Failed(format!("the member takes no writes: {last}"))
}

async fn try_put(source: &Source) -> anyhow::Result<()> {
    source.open().await?.put("/registry/bench/ready".into(), "x".into()).await
}

async fn obey(source: &Source, order: Order) -> Report {
    let done = match order {
        Order::Fill { from, until, clients } => {
            load::fill(source, from, until, clients).await.map(|()| Report::Done)
        }
        Order::Run(share) => load::run(source, &share).await.map(Report::Yield),
        Order::Leads => async { Ok(Report::Leads(source.open().await?.leads().await?)) }.await,
    };
    done.unwrap_or_else(|problem: anyhow::Error| Report::Failed(format!("{problem:#}")))
}
