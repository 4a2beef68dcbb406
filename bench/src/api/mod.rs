//! The API under load: pods are made, read, listed, changed and watched by clients of another process, over TLS,
//! with the disk synced; one host, and three.

pub mod client;
pub mod host;
pub mod hosts;
pub mod load;

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Map, Value, json};

use self::hosts::Hosts;
use self::load::{Outcome, Request};

/// Arguments of `bench api`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// How many hosts to measure with (may be given more than once)
    #[arg(long = "hosts", default_values_t = [1, 3])]
    hosts: Vec<usize>,
    /// How many pods to make
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// By how many clients
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How many watchers see each change
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// How many seconds to send 1,000 requests each
    #[arg(long, default_value_t = 10)]
    seconds: usize,
    /// Where the hosts keep their data: a folder on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// Runs the measurements and prints them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut numbers = Map::new();
    for count in &args.hosts {
        let figures = runtime.block_on(measure(args, *count))?;
        numbers.insert(format!("{count} hosts"), Value::Object(figures));
        if let Some(path) = &args.json {
            std::fs::write(path, serde_json::to_string_pretty(&numbers)?)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    Ok(())
}

async fn measure(args: &Args, count: usize) -> anyhow::Result<Map<String, Value>> {
    anyhow::ensure!(count > 0 && args.pods > 0 && args.clients > 0, "there must be hosts, pods and clients");
    let hosts = Hosts::start(count, &args.dir)?;
    println!(
        "{count} host{}, {} pods, {} clients",
        if count == 1 { "" } else { "s" },
        args.pods,
        args.clients
    );
    let mut figures = Figures { hosts: &hosts, cpu: hosts.cpu_seconds()?, numbers: Map::new() };
    figures.note("idle", &[("resident_mb", hosts.resident_mb()?)]);

    load::account(&hosts).await?;
    let created = load::closed(&hosts, args.clients, 0..args.pods, Request::Create).await?;
    figures.outcome("create", &created)?;
    figures.note("with pods", &[("resident_mb", hosts.resident_mb()?)]);
    figures.outcome("get", &load::closed(&hosts, args.clients, 0..args.pods, Request::Get).await?)?;
    figures.outcome("patch", &load::closed(&hosts, args.clients, 0..args.pods / 2, Request::Patch).await?)?;
    let (listed, bytes) = load::list(&hosts, 20).await?;
    figures.outcome("list", &listed)?;
    figures.note("a list", &[("megabytes", bytes as f64 / 1e6)]);
    figures.outcome("1000 a second", &load::open(&hosts, 32, 1000, args.seconds, args.pods).await?)?;
    const CHANGES: usize = 100;
    let told = load::fan_out(&hosts, args.watchers, CHANGES).await?;
    figures.outcome("watch", &told)?;
    figures.note("at the end", &[("resident_mb", hosts.resident_mb()?)]);
    Ok(figures.numbers)
}

struct Figures<'a> {
    hosts: &'a Hosts,
    /// What the hosts had spent on processors before.
    cpu: f64,
    numbers: Map<String, Value>,
}

impl Figures<'_> {
    fn outcome(&mut self, name: &str, outcome: &Outcome) -> anyhow::Result<()> {
        let (before, now) = (self.cpu, self.hosts.cpu_seconds()?);
        self.cpu = now;
        let count = outcome.times.total() as f64;
        self.note(
            name,
            &[
                ("per_s", count / outcome.seconds),
                ("p50_ms", outcome.times.percentile_ms(50.0)),
                ("p99_ms", outcome.times.percentile_ms(99.0)),
                ("max_ms", outcome.times.largest_ms()),
                ("host_cpu_us_each", (now - before) * 1e6 / count),
            ],
        );
        Ok(())
    }

    fn note(&mut self, name: &str, figures: &[(&str, f64)]) {
        let text: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
        println!("  {name:<14} {}", text.join("  "));
        let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
        self.numbers.insert(name.to_owned(), Value::Object(figures.collect()));
    }
}
