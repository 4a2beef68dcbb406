//! From an image that is there to a container's first process, and what a pod takes while it idles: of the whole program, beside
//! containerd and runc. The first process of each container says by itself that it is there.

mod first_words;
mod image;
mod ours;
mod peer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use serde_json::{Value, json};

use self::first_words::FirstWords;
use self::ours::Ours;
use self::peer::Peer;
use crate::process::{cpu_seconds, proportional_mb, resident_mb};

/// Arguments of `bench pods`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// How many pods start one after the other
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// How many pods start at once
    #[arg(long, default_value_t = 100)]
    burst: usize,
    /// How many seconds all of them idle before their memory is looked at; in the second half it counts what that takes of a processor
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measures ours alone, also where containerd is installed
    #[arg(long)]
    alone: bool,
    /// Where both keep their data: a folder on a disk that overlayfs may lie on
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// How many of a burst are asked for at the same time.
const AT_ONCE: usize = 16;

/// Who runs containers.
trait Runner {
    /// Asks for a container of that name, which speaks up at `place` inside.
    async fn start(&self, name: &str) -> anyhow::Result<()>;

    /// The process that runs all the time.
    fn daemon(&self) -> anyhow::Result<u32>;

    /// The processes that hold one pod each.
    fn shims(&self) -> anyhow::Result<Vec<u32>>;
}

/// What one side took.
struct Figures {
    /// From the question to the first process, in milliseconds, sorted.
    starts: Vec<f64>,
    /// The seconds of the burst.
    burst: f64,
    /// The part of the memory that a shim has, and all that it has, in megabytes.
    shim: (f64, f64),
    /// What the process that runs all the time grew by, for each pod.
    grown: f64,
    /// How much of a processor it takes while all pods idle, in percent.
    idle: f64,
}

/// Runs the measurement and prints it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "containers want root: run this as root");
    ensure!(
        args.rounds > 0 && args.burst > 0 && args.rounds + args.burst < 250,
        "there must be pods, fewer than 250 in all: a host takes no more"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::Builder::new().prefix("bench-pods-").tempdir_in(&args.dir)?;
    let archive = image::make(dir.path())?;
    println!(
        "{:<12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "", "p50 ms", "p99 ms", "burst s", "shim MB", "pod MB", "idle %"
    );
    let ours = runtime.block_on(async {
        let words = FirstWords::listen(&dir.path().join("ours-up"))?;
        let ours = Ours::start(dir.path(), &archive, words.folder()).await?;
        measure(&ours, words, args).await
    })?;
    tell("ours", &ours);
    let installed = peer::installed();
    if installed.is_none() && !args.alone {
        eprintln!("no peer is installed: `apt-get install containerd runc`");
    }
    let peer = match installed.filter(|_| !args.alone) {
        Some(name) => {
            let figures = runtime.block_on(async {
                let words = FirstWords::listen(&dir.path().join("peer-up"))?;
                let peer = Peer::start(dir.path(), &archive, words.folder()).await?;
                measure(&peer, words, args).await
            })?;
            tell("containerd", &figures);
            Some((name, figures))
        }
        None => None,
    };
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&json!({"cases": cases(&ours, peer, args)}))?)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// All of one side. The first container is not counted: it finds caches empty.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
async fn measure(runner: &impl Runner, mut words: FirstWords, args: &Args) -> anyhow::Result<Figures> {
    runner.start("first").await?;
    words.until(1).await?;
    let (daemon, shims) = (runner.daemon()?, runner.shims()?.len());
    let before = proportional_mb(daemon)?;
    let mut starts = Vec::new();
    for round in 0..args.rounds {
        let begun = Instant::now();
        runner.start(&format!("round-{round}")).await?;
        words.until(1).await?;
        starts.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    starts.sort_by(f64::total_cmp);
    let begun = Instant::now();
    let names: Vec<String> = (0..args.burst).map(|number| format!("burst-{number}")).collect();
    let mut asked = futures::stream::iter(&names).map(|name| runner.start(name)).buffer_unordered(AT_ONCE);
    while let Some(done) = asked.next().await {
        done?;
    }
    drop(asked);
    words.until(args.burst).await?;
    let burst = begun.elapsed().as_secs_f64();
    let half = Duration::from_secs(args.seconds) / 2;
    tokio::time::sleep(half).await;
    let (idles, spent) = (Instant::now(), cpu_seconds(daemon)?);
    tokio::time::sleep(half).await;
    let idle = (cpu_seconds(daemon)? - spent) / idles.elapsed().as_secs_f64() * 100.0;
    let (all, pods) = (runner.shims()?, args.rounds + args.burst);
    ensure!(all.len() == pods + shims, "{} shims hold {} pods", all.len(), pods + shims);
    let mean = |of: fn(u32) -> anyhow::Result<f64>| -> anyhow::Result<f64> {
        let each = all.iter().map(|pid| of(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(each.iter().sum::<f64>() / each.len() as f64)
    };
    Ok(Figures {
        starts,
        burst,
        shim: (mean(proportional_mb)?, mean(resident_mb)?),
        grown: (proportional_mb(daemon)? - before) / pods as f64,
        idle,
    })
}

impl Figures {
    /// By nearest rank.
    fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.starts.len() * percent).div_ceil(100).max(1);
        self.starts.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// What a pod takes beside its own processes. A process that gave memory back meanwhile takes nothing away from that.
    fn pod(&self) -> f64 {
        self.shim.0 + self.grown.max(0.0)
    }
}

fn tell(who: &str, figures: &Figures) {
    println!(
        "{who:<12} {:>10.1} {:>10.1} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
        figures.percentile(50),
        figures.percentile(99),
        figures.burst,
        figures.shim.0,
        figures.pod(),
        figures.idle
    );
}

/// The cases, as programs read them. Ratios say how many times better ours is.
fn cases(ours: &Figures, peer: Option<(String, Figures)>, args: &Args) -> Vec<Value> {
    type Told = fn(&Figures) -> Value;
    type Counts = fn(&Figures) -> f64;
    let all: [(String, Told, Counts); 4] = [
        (
            "start".into(),
            |figures| json!({"p50_ms": figures.percentile(50), "p99_ms": figures.percentile(99)}),
            |figures| figures.percentile(50),
        ),
        (
            format!("start-{}", args.burst),
            |figures| json!({"seconds": figures.burst}),
            |figures| figures.burst,
        ),
        (
            "memory-per-pod".into(),
            |figures| {
                let (part, resident) = figures.shim;
                json!({"mb": figures.pod(), "shim_pss_mb": part, "shim_rss_mb": resident, "daemon_mb": figures.grown})
            },
            Figures::pod,
        ),
        ("idle".into(), |figures| json!({"cpu_percent": figures.idle}), |figures| figures.idle),
    ];
    let case = |(name, told, counts): (String, Told, Counts)| {
        let mut case = json!({"name": name, "ours": told(ours)});
        if let Some((who, peer)) = &peer {
            case["peer"] = told(peer);
            case["peer_name"] = json!(who);
            case["ratio"] = json!(counts(peer) / counts(ours));
        }
        case
    };
    all.into_iter().map(case).collect()
}
