//! `holdfast up`: a cluster on this machine, in the foreground or behind it. `holdfast down` ends it.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use local::{Addresses, Cluster, Disks, Folder, Front, Options, Running};
use serde_json::Value;

use crate::datastore::DatastoreArgs;
use crate::end::End;
use crate::ground::{self, ForwardedPorts, Ground, NetChoice, Wish};
use crate::log::LogFormat;
use crate::restarts::{self, Restarts};
use crate::tell::{count, quoted, say, show};
use crate::without::Without;

/// Arguments of `holdfast up`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast up\n  holdfast up -d\n  holdfast up --nodes 1 --dir /tmp/one --port 0"
)]
pub struct Args {
    /// Return once all hosts are Ready, and let the cluster run until `holdfast down`
    #[arg(short, long)]
    detach: bool,
    /// How many hosts [default: those the folder has, or 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=store::MOST_PEERS as u64))]
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
    /// An archive of container images for each host (docker save, OCI); may be given several times
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Mirrors, authorities and registries without TLS, as YAML (docs/images.md) [default: as before]
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
    /// A folder of manifests whose pods each host runs by itself (docs/static-pods.md) [default: as before]
    #[arg(long, value_name = "DIR")]
    static_pods: Option<PathBuf>,
    /// containerd or CRI-O, such as unix:///run/containerd/containerd.sock (docs/containers.md) [default: as before, or our own]
    #[arg(long, value_name = "ADDRESS")]
    runtime: Option<cri::Endpoint>,
    /// The form of the hosts' logs
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    without: Without,
    #[command(flatten)]
    datastore: DatastoreArgs,
}

const PREFIX: &str = "/holdfast";

/// Runs the cluster until it is asked to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    let dir = crate::dir_or_default(args.dir)?;
    if args.detach
        && let Some(running) = running_on(&dir)?
    {
        return runs_already(&dir, &running);
    }
    let front = args.detach.then(local::split_off).transpose()?;
    local::stand_guard()?;
    let ports = ForwardedPorts { api: args.port, etcd: args.etcd_port };
    let datastore = args.datastore.datastore(PREFIX)?;
    let nodes = args.nodes.map(|n| n as usize);
    // Hosts read it, wherever they run; mistakes in it are reported here.
    let registries = args.registries.map(|path| -> anyhow::Result<PathBuf> {
        crate::host_images::registries(&path)?;
        Ok(path.canonicalize()?)
    });
    let registries = registries.transpose()?;
    let static_pods = args.static_pods.map(|path| manifests(&path)).transpose()?;
    let runtime = args.runtime.map(|endpoint| endpoint.to_string());
    let (net, ports) = (args.net, Some(ports));
    let wish = Wish { nodes, net, ports, datastore, registries, static_pods, runtime, passes: false };
    let ground = Ground::prepare(&dir, wish)?;
    let hosts = Addresses::hosts(ground.folder.record().nodes);
    let configs: Vec<PathBuf> = hosts.map(|(_, name)| ground.folder.config_file(&name)).collect();
    crate::image::bring(&args.image, &configs)?;
    let arguments = [args.log_format.host_arguments(), args.without.host_arguments()].concat();
    ground::runtime()?.block_on(serve(ground, arguments, front))
}

/// A folder of manifests as hosts find it, wherever they run.
fn manifests(path: &Path) -> anyhow::Result<PathBuf> {
    let failed = || format!("{} is no folder for static pods", path.display());
    let path = path.canonicalize().with_context(failed)?;
    anyhow::ensure!(path.is_dir(), failed());
    Ok(path)
}

/// The launcher that runs on a folder, if one does.
fn running_on(dir: &Path) -> anyhow::Result<Option<Running>> {
    Running::on(dir).with_context(|| format!("can't see who runs in {}", dir.display()))
}

/// Says so, and how it is reached: whatever else was asked for.
fn runs_already(dir: &Path, running: &Running) -> anyhow::Result<()> {
    let (pid, at) = (running.pid(), dir.display());
    say!(
        "a cluster runs in {at} already (process {pid}), as it was started; end it with: {}",
        down_line(dir)
    );
    show(&export_line(&dir.join("kubeconfig")))
}

/// What to type to use the cluster.
fn export_line(kubeconfig: &Path) -> String {
    format!("export KUBECONFIG={}\n", quoted(kubeconfig))
}

/// What to type to end a cluster that runs in the background.
fn down_line(dir: &Path) -> String {
    let is_usual =
        crate::default_dir().and_then(|usual| usual.canonicalize().ok()) == dir.canonicalize().ok();
    if is_usual { "holdfast down".to_owned() } else { format!("holdfast down --dir {}", quoted(dir)) }
}

/// Arguments of `holdfast down`.
#[derive(clap::Args)]
pub struct DownArgs {
    /// The cluster's folder [default: ~/.local/state/holdfast]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Ends the cluster that runs in a folder, however it was started, and waits until nothing of it is left but its data.
pub async fn down(args: DownArgs) -> anyhow::Result<()> {
    /// Pods get up to 30 s by themselves.
    const PATIENCE: Duration = Duration::from_secs(90);
    const BETWEEN: Duration = Duration::from_millis(50);
    let dir = crate::dir_or_default(args.dir)?;
    let at = dir.display();
    let record = Folder::record_in(&dir)?;
    let Some(running) = running_on(&dir)? else {
        anyhow::ensure!(record.is_some(), "there is no cluster in {at}; say with --dir where it is");
        say!("no cluster runs in {at}");
        return Ok(());
    };
    let pid = running.pid();
    running.ask_to_end().with_context(|| format!("can't end the cluster in {at} (process {pid})"))?;
    let ended = tokio::time::timeout(PATIENCE, async {
        while !running.has_ended() {
            tokio::time::sleep(BETWEEN).await;
        }
    });
    ended.await.map_err(|_| {
        anyhow::anyhow!(
            "the cluster in {at} (process {pid}) doesn't end within {} s; `kill -9 {pid}` ends it as a power cut would",
            PATIENCE.as_secs()
        )
    })?;
    say!("the cluster in {at} has ended; its data stay");
    Ok(())
}

async fn serve(ground: Ground, arguments: Vec<OsString>, front: Option<Front>) -> anyhow::Result<()> {
    let mut end = End::new()?;
    let started = now();
    let addresses = ground.folder.addresses();
    let nodes = ground.folder.record().nodes;
    let ways = ground.doors.context("up was given no ports")?.open(&ground.folder)?;
    let etcdctl = ways.etcdctl(&ground.folder);
    let kubeconfig = ground.folder.write_kubeconfig(&format!("https://{}", ways.api.address()))?;
    let net = ground.net.kind();
    say!("{} in {} (--net {net})", count(nodes, "host"), ground.folder.path().display());
    // With an etcd outside, it is the etcd's members that count.
    if let (None, Some(worth)) = (&ground.folder.record().datastore, worth(nodes)) {
        say!("{worth}");
    }
    if let Some(etcd) = &ground.folder.record().datastore {
        say!("their state lies in etcd at {}, under {}/", etcd.endpoints.join(","), etcd.prefix);
    }
    let _ways_to_etcd = ground::open(ground.crossings)?;
    let stops = match &front {
        Some(_) => format!("{} stops the cluster", down_line(ground.folder.path())),
        None => "Ctrl-C stops the cluster".to_owned(),
    };
    let log = front.as_ref().map(|_| log_in(&ground.folder)).transpose()?;
    let (folder, net, disks) = (ground.folder, ground.net, Disks::Common);
    let options = Options { folder, program: ground::program()?, arguments, net, disks };
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
            say!("{nodes} of {} Ready after {:.1} s; {stops}", are(nodes), started.elapsed().as_secs_f64());
            if let Some(etcdctl) = etcdctl {
                say!("the store is reached with: {etcdctl}");
            }
            // The hosts run, whether anybody reads this or not.
            if let Err(error) = show(&export_line(&kubeconfig)) {
                say!("{error:#}");
            }
            if let Some((front, log)) = front.zip(log)
                && let Err(error) = front.release_to(0, &log)
            {
                say!("{error:#}");
            }
            std::future::pending().await
        } => Ok(()),
    };
    say!("stopping");
    cluster.stop().await?;
    outcome
}

/// Where a cluster in the background says what it would say on a terminal.
fn log_in(folder: &Folder) -> anyhow::Result<File> {
    let path = folder.path().join("up.log");
    let log = File::options().create(true).append(true).mode(0o600).open(&path);
    log.with_context(|| format!("can't write {}", path.display()))
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
            None => say!("host {name} ended ({how}): {last}; it is started again"),
            Some(times) => {
                let log = cluster.folder().log(&name);
                let what = format!("host {name} can't run ({how}): {last}; see {}", log.display());
                anyhow::ensure!(ready.get(), what);
                if times == restarts::TRIES {
                    say!("{what}; it is tried again from time to time");
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
        // The first command of most people is about the namespace `default`, which the leader makes meanwhile.
        if ready >= nodes && client.get("/api/v1/namespaces/default").await.is_ok() {
            return;
        }
        if said.elapsed() > PATIENCE {
            said = now();
            say!("{ready} of {} Ready", are(nodes));
            for log in logs {
                if let Some(complaint) = last_complaint(log) {
                    say!("  {}: {complaint}", log.display());
                }
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// What an even number of hosts is worth: a majority of 4 is 3, so that they bear one loss, as 3 do.
fn worth(nodes: usize) -> Option<String> {
    let borne = |nodes: usize| match (nodes - 1) / 2 {
        0 => "no loss".into(),
        losses => format!("the loss of {losses}"),
    };
    let is_even = nodes > 0 && nodes.is_multiple_of(2);
    is_even.then(|| format!("{nodes} hosts bear {}, as {} would", borne(nodes), count(nodes - 1, "host")))
}

fn are(nodes: usize) -> String {
    format!("{} {}", count(nodes, "node"), if nodes == 1 { "is" } else { "are" })
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

#[allow(clippy::disallowed_methods, reason = "a launcher says how long things took")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_numbers_are_worth_no_more() {
        let said: Vec<Option<String>> = (1..=6).map(worth).collect();
        assert_eq!(said[1].as_deref(), Some("2 hosts bear no loss, as 1 host would"));
        assert_eq!(said[3].as_deref(), Some("4 hosts bear the loss of 1, as 3 hosts would"));
        assert_eq!(said[5].as_deref(), Some("6 hosts bear the loss of 2, as 5 hosts would"));
        assert!([0, 2, 4].iter().all(|&odd| said[odd].is_none()));
    }
}
