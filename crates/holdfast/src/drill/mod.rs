//! `holdfast drill`: a cluster on this machine, or one elsewhere; a fault of a host; every clock measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use drill::{Fault, Target};
use local::{Addresses, Cluster, Component, Disks, Front, Options, OwnDisks};
use tempfile::TempDir;

use crate::datastore::DatastoreArgs;
use crate::end::End;
use crate::ground::{self, ForwardedPorts, Ground, NetChoice, Wish};
use crate::log::LogFormat;
use crate::own_image;
use crate::site::LocalSite;
use crate::tell::{Stderr, quoted, say, show};
use crate::up::{logs, wait_until_ready};

use self::elsewhere::{Commands, Elsewhere, Means};
use self::faults::FaultArgs;

mod elsewhere;
mod faults;

const NODES: usize = 3;
/// The size of a disk that can be filled, in bytes: of memory, as far as there is something on it.
const DISK: u64 = 512 << 20;

/// What a drill does to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// A host is broken, the leader's power cut unless --fault and --target say otherwise, and every clock measured
    #[value(name = "power-cut", alias = "fault")]
    Fault,
    /// With a host off: 6, 12 and 3 replicas, a new template, a pod deleted; failed requests are counted
    Rollout,
}

/// What runs the drill's own workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Runtime {
    /// Processes of the hosts
    Host,
    /// Containers, of an image of this program that each host gets; for root alone
    Oci,
}

/// Arguments of `holdfast drill`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast drill\n  holdfast drill --runs 20 --json report.json\n  holdfast drill --fault pause --pause 3s\n  holdfast drill --fault partition --target follower\n  holdfast drill --fault slow-disk --stall 200ms --lasts 10m\n  holdfast drill --fault full-disk\n  holdfast drill --fault component:shim\n  holdfast drill --for 2h\n  holdfast drill --rolling-restart\n  holdfast drill --kubeconfig FILE --workload app.yaml --cut 'ssh {node} ...' --restore '...'\n  holdfast drill --preload 10000\n  holdfast drill --scenario rollout\n  holdfast drill --workload app.yaml --keep\n  holdfast drill --workload statefulset --runs 10\n  holdfast drill --runtime oci"
)]
pub struct Args {
    /// What to do to the cluster
    #[arg(long, value_enum, default_value_t = Scenario::Fault)]
    scenario: Scenario,
    #[command(flatten)]
    faults: FaultArgs,
    /// How many pods to put into the cluster first, with their owners: they only lie in the store
    #[arg(long, value_name = "PODS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100_000))]
    preload: u64,
    /// How many requests a second each clock sends, whether earlier ones were answered or not
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rps: u32,
    /// How long to wait after a fault until everything answers again, and how long for the cluster to come to rest [default: 1m, elsewhere 10m]
    #[arg(long, value_name = "TIME", value_parser = faults::long)]
    limit: Option<Duration>,
    /// Where to write all that was measured, as JSON; - for the standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to write a page for a browser with the picture of it; of no rollout
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Fixes what is chosen at random [default: chosen at random]
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the cluster running and print its kubeconfig
    #[arg(long)]
    keep: bool,
    /// A manifest of your own: a Deployment and the Service in front of it; or `statefulset`, which runs a StatefulSet beside the drill's own
    #[arg(long, value_name = "FILE|statefulset")]
    workload: Option<PathBuf>,
    /// What runs the pods of the drill's own workload [default: host]
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
    /// The network between the hosts
    #[arg(long, value_enum, default_value_t = NetChoice::Auto)]
    net: NetChoice,
    /// A cluster that runs elsewhere, of any Kubernetes: its hosts are cut and restored by commands, or by fence agents
    #[arg(long, value_name = "FILE", requires = "Commands", conflicts_with_all = ["net", "runtime", "datastore", "fault", "rolling_restart"])]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    commands: Commands,
    #[command(flatten)]
    datastore: DatastoreArgs,
}

/// Holds the drill.
#[allow(clippy::disallowed_methods, reason = "a drill without a seed draws one, and says which")]
pub fn run(args: Args) -> anyhow::Result<()> {
    // A file of that name is `./statefulset`.
    let own = match args.workload.as_deref() {
        None => Some(drill::DEFAULT_WORKLOAD),
        Some(path) => (path == Path::new("statefulset")).then_some(drill::STATEFUL_WORKLOAD),
    };
    let in_containers = args.runtime == Some(Runtime::Oci);
    let workload = match (own, &args.workload) {
        (Some(own), _) if in_containers => Some(drill::in_containers(own, own_image::NAME)),
        (Some(_), None) => None,
        (Some(own), Some(_)) => Some(own.to_owned()),
        (None, _) if args.runtime.is_some() => {
            anyhow::bail!("a workload of your own says itself what runs its pods: leave --runtime out")
        }
        (None, path) => {
            let path = path.as_deref().unwrap_or(Path::new(""));
            let read = fs::read_to_string(path);
            Some(read.with_context(|| format!("can't read the workload {}", path.display()))?)
        }
    };
    if args.scenario == Scenario::Rollout {
        anyhow::ensure!(
            args.html.is_none(),
            "--html shows no rollout: leave --scenario rollout or --html out"
        );
        let why = "a rollout switches a host off that doesn't lead, and knows no other fault: leave that or --scenario rollout out";
        anyhow::ensure!(args.faults.are_untouched(), why);
    }
    let fault = args.faults.fault()?;
    let of_pods_kept = Fault::Component { component: Component::PodKeeper.name() };
    anyhow::ensure!(
        fault != of_pods_kept || own != Some(drill::DEFAULT_WORKLOAD),
        "only pods that must not run twice have a keeper: add --workload statefulset, or take such a workload of yours"
    );
    let every = Duration::from_secs(1) / args.rps;
    let mut options = drill::Options {
        fault,
        target: args.faults.target(),
        runs: args.faults.runs(NODES),
        time: args.faults.time(),
        every,
        preload: args.preload as usize,
        seed: args.seed.unwrap_or_else(rand::random),
        workload,
        keep: args.keep,
        ..drill::Options::default()
    };
    if let Some(limit) = args.limit {
        (options.limit, options.patience) = (limit, limit);
    }
    let findings = Findings { json: args.json, html: args.html };
    findings.prepare()?;
    if let (Some(kubeconfig), Some(means)) = (&args.kubeconfig, args.commands.means()?) {
        anyhow::ensure!(
            options.target != Target::Vip,
            "nothing says who holds an address of that cluster: name a host"
        );
        if args.limit.is_none() {
            // Kubernetes replaces a pod of a lost host after more than five minutes.
            let limit = Duration::from_secs(600);
            (options.limit, options.patience) = (limit, limit);
        }
        options.fault = Fault::Command;
        let runs = |nodes| args.faults.runs(nodes);
        local::stand_guard()?;
        let held = hold_elsewhere(kubeconfig, means, args.scenario, options, runs, findings);
        return ground::runtime()?.block_on(held);
    }
    anyhow::ensure!(
        options.target != Target::Worker,
        "every host of a drill's cluster is a member of its control plane: take follower"
    );
    let front = args.keep.then(local::split_off).transpose()?;
    local::stand_guard()?;
    let temporary = tempfile::Builder::new().prefix("holdfast-drill-").tempdir()?;
    let ports = args.keep.then_some(ForwardedPorts { api: 0, etcd: Some(0) });
    // Of its own: an etcd may hold clusters that somebody needs.
    let prefix = format!("/holdfast-drill-{:016x}", rand::random::<u64>());
    let datastore = args.datastore.datastore(&prefix)?;
    let wish = Wish {
        nodes: Some(NODES),
        net: args.net,
        ports,
        datastore,
        registries: None,
        static_pods: None,
        runtime: None,
        passes: true,
    };
    let ground = Ground::prepare(temporary.path(), wish)?;
    // Before anything lies there.
    let disks = match fault {
        Fault::SlowDisk { .. } => Disks::Stalling,
        Fault::FullDisk { .. } => Disks::Own(OwnDisks::mount(&ground.folder, DISK)?),
        _ => Disks::Common,
    };
    if in_containers {
        let image = tempfile::tempdir_in(temporary.path())?;
        own_image::make(image.path(), &ground::program()?)?;
        let hosts = Addresses::hosts(NODES);
        let configs: Vec<PathBuf> = hosts.map(|(_, name)| ground.folder.config_file(&name)).collect();
        crate::image::bring(&[image.path().to_owned()], &configs)?;
    }
    // Only what somebody else has written is asked as its owner asks it.
    options.kubeconfig_file = own.is_none().then(|| ground.folder.path().join("kubeconfig"));
    let ground = (temporary, ground, disks);
    ground::runtime()?.block_on(hold(ground, args.scenario, &options, findings, front))
}

/// Holds the drill in a cluster that is there already.
async fn hold_elsewhere(
    kubeconfig: &Path,
    means: Means,
    scenario: Scenario,
    mut options: drill::Options,
    runs: impl Fn(usize) -> usize,
    findings: Findings,
) -> anyhow::Result<()> {
    let mut end = End::new()?;
    let config = client::Kubeconfig::load(kubeconfig)?;
    let site = Elsewhere::find(client::Client::new(&config)?, means).await?;
    options.runs = runs(drill::Site::hosts(&site).len());
    let outcome = tokio::select! {
        () = end.asked() => Err(anyhow::anyhow!("the drill was interrupted")),
        report = measure(&site, &config, scenario, &options) => report,
    };
    let restored = site.restore_all().await.context("a host stays cut");
    outcome.and_then(|report| findings.tell(&report)).and(restored)
}

async fn measure(
    site: &dyn drill::Site,
    config: &client::Kubeconfig,
    scenario: Scenario,
    options: &drill::Options,
) -> anyhow::Result<Report> {
    Ok(match scenario {
        Scenario::Fault => Report::Fault(Box::new(drill::run(site, config, options, &mut Stderr).await?)),
        Scenario::Rollout => Report::Rollout(drill::rollout(site, config, options, &mut Stderr).await?),
    })
}

async fn hold(
    // The last goes first: what is mounted in the folder keeps it from being removed.
    (temporary, ground, disks): (TempDir, Ground, Disks),
    scenario: Scenario,
    options: &drill::Options,
    findings: Findings,
    front: Option<Front>,
) -> anyhow::Result<()> {
    let mut end = End::new()?;
    let api = ground.folder.addresses().api();
    let kubeconfig = ground.folder.write_kubeconfig(&format!("https://{api}"))?;
    say!("{NODES} hosts start (--net {}, --seed {})", ground.net.kind(), options.seed);
    let start = Options {
        folder: ground.folder,
        program: ground::program()?,
        arguments: LogFormat::default().host_arguments(),
        net: ground.net,
        disks,
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
            measure(&site, &config, scenario, options).await
        } => report,
    };
    let cluster = site.into_cluster();
    let outcome = outcome.and_then(|report| findings.tell(&report));
    if outcome.is_ok()
        && let Some(front) = front
    {
        let ways = ground.doors.context("no ports were bound for the cluster")?.open(cluster.folder())?;
        let kubeconfig = cluster.folder().write_kubeconfig(&format!("https://{}", ways.api.address()))?;
        let mut words = format!("The cluster is left running. Its kubeconfig: {}\n", quoted(&kubeconfig));
        if let Some(etcdctl) = ways.etcdctl(cluster.folder()) {
            words += &format!("Its store: {etcdctl}\n");
        }
        words += &format!("Stop it and remove it with: kill {}\n", std::process::id());
        if let Err(error) = findings.say(&words) {
            say!("{error:#}");
        }
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

/// What a drill found out.
enum Report {
    Fault(Box<drill::Report>),
    Rollout(drill::RolloutReport),
}

impl Report {
    fn print(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Report::Fault(report) => report.print(out),
            Report::Rollout(report) => report.print(out),
        }
    }

    fn to_json(&self) -> serde_json::Result<String> {
        match self {
            Report::Fault(report) => report.to_json(),
            Report::Rollout(report) => report.to_json(),
        }
    }

    /// Why the drill went wrong, if it did.
    fn failure(&self) -> Option<String> {
        match self {
            Report::Fault(report) => report.failure(),
            Report::Rollout(report) => report.failure(),
        }
    }
}

/// Where a drill's findings go: the report to stdout, unless the JSON goes there.
struct Findings {
    json: Option<PathBuf>,
    html: Option<PathBuf>,
}

impl Findings {
    fn has_stdout(&self) -> bool {
        self.json.as_deref() != Some(Path::new("-"))
    }

    /// Makes sure, before anything is measured, that no measurement is lost to a path that can't be written.
    fn prepare(&self) -> anyhow::Result<()> {
        for path in self.json.iter().filter(|_| self.has_stdout()).chain(&self.html) {
            fs::File::create(path).with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(())
    }

    /// Words for people.
    fn say(&self, words: &str) -> anyhow::Result<()> {
        if self.has_stdout() {
            return show(words);
        }
        say!("{}", words.trim_end());
        Ok(())
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        let mut words = Vec::new();
        report.print(&mut words)?;
        // Both are tried, whatever becomes of the other.
        let said = self.say(&String::from_utf8_lossy(&words));
        let written = match &self.json {
            Some(path) if self.has_stdout() => {
                fs::write(path, report.to_json()?).with_context(|| format!("can't write {}", path.display()))
            }
            Some(_) => show(&report.to_json()?),
            None => Ok(()),
        };
        let drawn = match (&self.html, report) {
            (Some(path), Report::Fault(report)) => {
                fs::write(path, report.to_html()).with_context(|| format!("can't write {}", path.display()))
            }
            _ => Ok(()),
        };
        said.and(written).and(drawn)?;
        match report.failure() {
            Some(why) => anyhow::bail!(why),
            None => Ok(()),
        }
    }
}
