//! `holdfast drill`: a cluster on this machine, one power cut, every clock measured.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use local::{Cluster, Front, Options};
use tempfile::TempDir;

use crate::datastore::DatastoreArgs;
use crate::ground::{self, Ground, NetChoice, Ports, Wish};
use crate::site::LocalSite;
use crate::up::{End, logs, wait_until_ready};

const NODES: usize = 3;

/// Arguments of `holdfast drill`.
#[derive(clap::Args)]
pub struct Args {
    /// How often to cut the leader's power
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    runs: u64,
    /// How many pods to put into the cluster first, with their owners: they only lie in the store
    #[arg(long, value_name = "PODS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100_000))]
    preload: u64,
    /// Where to write all that was measured, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fixes what is chosen at random [default: chosen at random]
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the cluster running and print its kubeconfig
    #[arg(long)]
    keep: bool,
    /// A manifest of your own: a Deployment and the Service in front of it
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// The network between the hosts
    #[arg(long, value_enum, default_value_t = NetChoice::Auto)]
    net: NetChoice,
    #[command(flatten)]
    datastore: DatastoreArgs,
}

/// Holds the drill.
#[allow(clippy::disallowed_methods, reason = "a drill without a seed draws one, and says which")]
pub fn run(args: Args) -> anyhow::Result<()> {
    let workload = args.workload.as_ref().map(|path| {
        fs::read_to_string(path).with_context(|| format!("can't read the workload {}", path.display()))
    });
    let workload = workload.transpose()?;
    if let Some(path) = &args.json {
        // Now, so that no measurement is lost to a path that can't be written.
        fs::File::create(path).with_context(|| format!("can't write {}", path.display()))?;
    }
    let front = args.keep.then(local::split_off).transpose()?;
    local::stand_guard()?;
    let temporary = tempfile::Builder::new().prefix("holdfast-drill-").tempdir()?;
    let ports = args.keep.then_some(Ports { api: 0, etcd: Some(0) });
    // Of its own: an etcd may hold clusters that somebody needs.
    let prefix = format!("/holdfast-drill-{:016x}", rand::random::<u64>());
    let datastore = args.datastore.datastore(&prefix)?;
    let wish = Wish { nodes: Some(NODES), net: args.net, ports, datastore, passes: true };
    let ground = Ground::prepare(temporary.path(), wish)?;
    let options = drill::Options {
        runs: args.runs as usize,
        preload: args.preload as usize,
        seed: args.seed.unwrap_or_else(rand::random),
        workload,
        kubeconfig_file: Some(ground.folder.path().join("kubeconfig")),
        keep: args.keep,
        ..drill::Options::default()
    };
    ground::runtime()?.block_on(hold(ground, &options, args.json, front, temporary))
}

async fn hold(
    ground: Ground,
    options: &drill::Options,
    json: Option<PathBuf>,
    front: Option<Front>,
    temporary: TempDir,
) -> anyhow::Result<()> {
    let mut end = End::new()?;
    let api = ground.folder.addresses().api();
    let kubeconfig = ground.folder.write_kubeconfig(&format!("https://{api}"))?;
    eprintln!("{NODES} hosts start (--net {}, --seed {})", ground.net.kind(), options.seed);
    let start = Options {
        folder: ground.folder,
        program: ground::program()?,
        arguments: vec!["host".into()],
        net: ground.net,
    };
    let _ways_to_etcd = ground::open(ground.crossings)?;
    let cluster = Cluster::start(start).await?;
    let logs = logs(&cluster);
    let site = LocalSite::new(cluster);
    let config = client::Kubeconfig::load(&kubeconfig)?;
    let outcome = tokio::select! {
        () = end.asked() => Err(anyhow::anyhow!("the drill was interrupted")),
        report = async {
            let asker = client::Client::new(&config)?;
            tokio::time::timeout(options.patience, wait_until_ready(&asker, NODES, &logs))
                .await
                .map_err(|_| anyhow::anyhow!("the hosts did not come up within {:?}", options.patience))?;
            Ok(drill::run(&site, &config, options, &mut io::stderr()).await?)
        } => report,
    };
    let cluster = site.into_cluster();
    let outcome = outcome.and_then(|report| tell(&report, json.as_deref()));
    if outcome.is_ok()
        && let Some(front) = front
    {
        let ways = ground.doors.context("no ports were bound for the cluster")?.open(cluster.folder())?;
        let kubeconfig = cluster.folder().write_kubeconfig(&format!("https://{}", ways.api.address()))?;
        println!("The cluster is left running. Its kubeconfig: {}", kubeconfig.display());
        if let Some(etcdctl) = ways.etcdctl(cluster.folder()) {
            println!("Its store: {etcdctl}");
        }
        println!("Stop it and remove it with: kill {}", std::process::id());
        io::stdout().flush()?;
        front.release(0)?;
        end.asked().await;
    }
    cluster.stop().await?;
    if let Some(removal) = ground.removal {
        let complaint = removal.run()?;
        anyhow::ensure!(complaint.is_empty(), "can't remove the drill's keys from etcd: {complaint}");
    }
    temporary.close().context("can't remove the drill's folder")?;
    outcome
}

fn tell(report: &drill::Report, json: Option<&std::path::Path>) -> anyhow::Result<()> {
    if let Some(path) = json {
        fs::write(path, report.to_json()?).with_context(|| format!("can't write {}", path.display()))?;
    }
    report.print(&mut io::stdout())?;
    anyhow::ensure!(
        report.is_recovered(),
        "the cluster did not recover in every run; the table shows what stayed away"
    );
    Ok(())
}
