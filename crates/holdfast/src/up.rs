//! `holdfast up`: a cluster on this machine, in the foreground.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use local::{Cluster, Options};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::datastore::DatastoreArgs;
use crate::ground::{self, Ground, NetChoice, Ports, Wish};
use crate::restarts::{self, Restarts};

/// Arguments of `holdfast up`.
#[derive(clap::Args)]
pub struct Args {
    /// How many hosts [default: those the folder has, or 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: Option<u64>,
    /// Where the cluster keeps its data [default: ~/.local/state/holdfast]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The network between the hosts
    #[arg(long, value_enum, default_value_t = NetChoice::Auto)]
    net: NetChoice,
    /// The port of 127.0.0.1 on which the API is reached; 0 takes a free one
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// The port of 127.0.0.1 on which etcdctl reaches the store; 0 takes a free one [default: 2379, or a free one]
    #[arg(long)]
    etcd_port: Option<u16>,
    #[command(flatten)]
    datastore: DatastoreArgs,
}

const PREFIX: &str = "/holdfast";

/// Runs the cluster until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    local::stand_guard()?;
    let dir = args.dir.unwrap_or_else(crate::default_dir);
    let ports = Ports { api: args.port, etcd: args.etcd_port };
    let datastore = args.datastore.datastore(PREFIX)?;
    let nodes = args.nodes.map(|n| n as usize);
    let wish = Wish { nodes, net: args.net, ports: Some(ports), datastore, passes: false };
    let ground = Ground::prepare(&dir, wish)?;
    ground::runtime()?.block_on(serve(ground))
}

async fn serve(ground: Ground) -> anyhow::Result<()> {
    let mut end = End::new()?;
    let started = now();
    let addresses = ground.folder.addresses();
    let nodes = ground.folder.record().nodes;
    let ways = ground.doors.context("up was given no ports")?.open(&ground.folder)?;
    let etcdctl = ways.etcdctl(&ground.folder);
    let kubeconfig = ground.folder.write_kubeconfig(&format!("https://{}", ways.api.address()))?;
    let net = ground.net.kind();
    eprintln!(
        "{nodes} host{} in {} (--net {net})",
        if nodes == 1 { "" } else { "s" },
        ground.folder.path().display()
    );
    if let Some(etcd) = &ground.folder.record().datastore {
        eprintln!("their state lies in etcd at {}, under {}/", etcd.endpoints.join(","), etcd.prefix);
    }
    let _ways_to_etcd = ground::open(ground.crossings)?;
    let options = Options {
        folder: ground.folder,
        program: ground::program()?,
        arguments: vec!["host".into()],
        net: ground.net,
    };
    let mut cluster = Cluster::start(options).await?;

    let config = client::Kubeconfig::load(&kubeconfig)?;
    let asker = client::Client::new(&config.with_server(format!("https://{}", addresses.api())))?;
    let logs = logs(&cluster);
    let ready = Cell::new(false);
    let outcome = tokio::select! {
        () = end.asked() => Ok(()),
        outcome = keep_running(&mut cluster, &ready) => outcome,
        () = async {
            wait_until_ready(&asker, nodes, &logs).await;
            ready.set(true);
            eprintln!("{nodes} of {nodes} nodes are Ready after {:.1} s; Ctrl-C stops the cluster", started.elapsed().as_secs_f64());
            if let Some(etcdctl) = etcdctl {
                eprintln!("the store is reached with: {etcdctl}");
            }
            println!("export KUBECONFIG={}", kubeconfig.display());
            std::future::pending().await
        } => Ok(()),
    };
    eprintln!("stopping");
    cluster.stop().await?;
    outcome
}

/// Starts hosts again that end by themselves. One that can't run is an error until all of them were `ready`: from
/// then on the others are worth more than an end, and it is tried again from time to time.
async fn keep_running(cluster: &mut Cluster, ready: &Cell<bool>) -> anyhow::Result<()> {
    let mut restarts = Restarts::default();
    for host in cluster.hosts() {
        restarts.started(&host, now());
    }
    loop {
        let due = restarts.due();
        let is_due = async {
            match due {
                Some((when, host)) => {
                    tokio::time::sleep_until(when.into()).await;
                    host
                }
                None => std::future::pending().await,
            }
        };
        let (name, status) = tokio::select! {
            ended = cluster.host_ended() => ended,
            host = is_due => {
                restarts.started(&host, now());
                cluster.power_on(&host).await?;
                continue;
            }
        };
        let last = cluster.folder().last_log_line(&name).unwrap_or_default();
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        match restarts.ended(&name, now()) {
            None => eprintln!("host {name} ended ({how}): {last}; it is started again"),
            Some(times) => {
                let log = cluster.folder().log(&name);
                let what = format!("host {name} can't run ({how}): {last}; see {}", log.display());
                anyhow::ensure!(ready.get(), what);
                if times == restarts::TRIES {
                    eprintln!("{what}; it is tried again from time to time");
                }
            }
        }
    }
}

/// Asks until `nodes` nodes are Ready. From time to time it says what the hosts complain of in their `logs`.
pub async fn wait_until_ready(client: &client::Client, nodes: usize, logs: &[PathBuf]) {
    const BETWEEN: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(5);
    let client = client.with_timeout(Duration::from_secs(1));
    let mut said = now();
    loop {
        let list = client.get("/api/v1/nodes").await.unwrap_or_default();
        let ready =
            list["items"].as_array().map_or(0, |items| items.iter().filter(|node| is_ready(node)).count());
        if ready >= nodes {
            return;
        }
        if said.elapsed() > PATIENCE {
            said = now();
            eprintln!("{ready} of {nodes} nodes are Ready");
            for log in logs {
                if let Some(complaint) = last_complaint(log) {
                    eprintln!("  {}: {complaint}", log.display());
                }
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// The last warning or error in a host's log.
fn last_complaint(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let is_complaint = |line: &&str| [" WARN ", " ERROR ", "error: "].iter().any(|word| line.contains(word));
    text.lines().rev().find(is_complaint).map(str::to_owned)
}

/// The files to which the hosts of a cluster write what they have to say.
pub fn logs(cluster: &Cluster) -> Vec<PathBuf> {
    cluster.hosts().iter().map(|name| cluster.folder().log(name)).collect()
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The signals that ask a program to end.
pub struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    /// From now on these signals end nothing by themselves.
    pub fn new() -> std::io::Result<Self> {
        Ok(End { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one of them.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a launcher says how long things took")]
fn now() -> Instant {
    Instant::now()
}
