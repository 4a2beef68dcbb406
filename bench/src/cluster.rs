//! A cluster of three hosts on this machine: from `up` to three ready nodes, and what an idle host takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::process::{cpu_seconds, resident_mb};
use crate::up::Up;

/// Arguments of `bench cluster`.
#[derive(clap::Args)]
pub struct Args {
    /// How often to start a cluster
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How many seconds of idleness to measure in each run
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The kind of network, as for `holdfast up`
    #[arg(long, default_value = "auto")]
    net: String,
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What one run showed.
struct Run {
    ready_ms: f64,
    resident_mb: Vec<f64>,
    core_percent: Vec<f64>,
}

/// Runs the measurement and prints it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = crate::program()?;
    let size_mb = std::fs::metadata(&program)?.len() as f64 / 1e6;
    let mut runs = Vec::new();
    for n in 1..=args.runs {
        eprintln!("run {n} of {}", args.runs);
        runs.push(one_run(&program, args)?);
    }
    let figures = [
        ("up_to_ready_ms", runs.iter().map(|r| r.ready_ms).collect::<Vec<_>>()),
        ("idle_host_resident_mb", runs.iter().flat_map(|r| r.resident_mb.clone()).collect()),
        ("idle_host_core_percent", runs.iter().flat_map(|r| r.core_percent.clone()).collect()),
        ("program_mb", vec![size_mb]),
    ];
    println!("{:<24} {:>10} {:>10} {:>10}", "", "min", "median", "max");
    let mut numbers = serde_json::Map::new();
    for (name, values) in figures {
        let figure = spread(values);
        println!("{name:<24} {:>10.1} {:>10.1} {:>10.1}", figure[0], figure[1], figure[2]);
        numbers.insert(name.into(), json!({"min": figure[0], "median": figure[1], "max": figure[2]}));
    }
    if let Some(path) = &args.json {
        std::fs::write(path, Value::Object(numbers).to_string())
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values.first().copied(), values.last().copied());
    [
        first.unwrap_or(f64::NAN),
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
        last.unwrap_or(f64::NAN),
    ]
}

#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn one_run(program: &Path, args: &Args) -> anyhow::Result<Run> {
    let dir = tempfile::tempdir()?;
    let started = Instant::now();
    let up = Up::start(program, dir.path(), &["--net", &args.net])?;
    let ready_ms = loop {
        if ready_nodes(program, &up) == 3 {
            break started.elapsed().as_secs_f64() * 1e3;
        }
        if started.elapsed() > Duration::from_secs(60) {
            bail!("no three ready nodes: {}", up.log());
        }
        std::thread::yield_now();
    };
    let hosts = up.hosts()?;
    anyhow::ensure!(hosts.len() == 3, "found {} host processes instead of 3", hosts.len());
    idle(Duration::from_secs(5));
    let before = hosts.iter().map(|pid| cpu_seconds(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let measured = Instant::now();
    idle(Duration::from_secs(args.seconds));
    let seconds = measured.elapsed().as_secs_f64();
    let mut core_percent = Vec::new();
    for (pid, before) in hosts.iter().zip(before) {
        core_percent.push((cpu_seconds(*pid)? - before) / seconds * 100.0);
    }
    let resident_mb = hosts.iter().map(|pid| resident_mb(*pid)).collect::<anyhow::Result<_>>()?;
    Ok(Run { ready_ms, resident_mb, core_percent })
}

#[allow(clippy::disallowed_methods, reason = "idleness is what is measured")]
fn idle(time: Duration) {
    std::thread::sleep(time);
}

fn ready_nodes(program: &Path, up: &Up) -> usize {
    let output = Command::new(program)
        .args(["get", "nodes", "--kubeconfig"])
        .arg(up.kubeconfig())
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some("Ready"))
        .count()
}
