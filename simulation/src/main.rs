//! Runs seeds and says what their worlds saw. The first one that fails ends it, with the word to replay it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use simulation::{Failure, Mistake, Report, Seed, real, run, running};

#[derive(Parser)]
#[command(about = "Runs Holdfast's parts under a seed, with faults, and checks what they promise")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// The store: consensus, log, snapshots, state, sessions, leases and watches
    Store(Args),
    /// The store as three real processes, under real faults, for minutes
    Real(real::Args),
    /// One of those processes; started by the others
    #[command(hide = true)]
    Member {
        /// What it is to know
        setup: PathBuf,
    },
}

#[derive(clap::Args)]
struct Args {
    /// How many seeds to run [default: 1 with --seed, else 1000]
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed; alone, it is replayed and its faults are written to standard error
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// Makes a mistake on purpose, to see that it is found
    #[arg(long = "break", value_parser = mistake)]
    mistake: Option<Mistake>,
}

fn mistake(name: &str) -> Result<Mistake, String> {
    let names: Vec<_> = Mistake::ALL.iter().map(|(name, _)| *name).collect();
    let found = Mistake::ALL.iter().find(|(known, _)| *known == name);
    found.map(|(_, mistake)| *mistake).ok_or(format!("there are {}", names.join(", ")))
}

fn main() -> anyhow::Result<ExitCode> {
    let args = match Cli::parse().part {
        Part::Store(args) => args,
        Part::Real(args) => return real::run(&args),
        Part::Member { setup } => return real::member(&setup),
    };
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(seed) = running() {
            eprintln!("seed {seed} panics; {}", replay(seed));
        }
        before(panic);
    }));
    store(&args)
}

fn replay(seed: u64) -> String {
    format!("replay it with: cargo run --release -p simulation -- store --seed {seed}")
}

#[allow(clippy::disallowed_methods)] // How long it took is for people; nothing follows from it.
fn store(args: &Args) -> anyhow::Result<ExitCode> {
    let first = args.seed.unwrap_or(0);
    let seeds = args.seeds.unwrap_or(if args.seed.is_some() { 1 } else { 1000 });
    let begin = Instant::now();
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let results: Mutex<Vec<(u64, Report, Option<Failure>)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= seeds || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let (report, failure) = run(Seed { seed, mistake: args.mistake, aloud: seeds == 1 });
                    failed.fetch_or(failure.is_some(), Ordering::Relaxed);
                    if let Ok(mut results) = results.lock() {
                        results.push((seed, report, failure));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    results.sort_by_key(|(seed, _, _)| *seed);
    let mut sum = Report::default();
    for (_, report, _) in &results {
        sum.add(report);
    }
    let took = begin.elapsed().as_secs_f64();
    let failure = results.iter().find_map(|(seed, _, failure)| Some((*seed, failure.as_ref()?)));
    println!("{} seeds from {first} in {took:.1} s\n{sum}", results.len());
    if let Some(path) = &args.json {
        let mut json = sum.json();
        json["seeds"] = results.len().into();
        json["first_seed"] = first.into();
        json["seconds"] = took.into();
        json["failed"] = failure.as_ref().map_or(
            serde_json::Value::Null,
            |(seed, failure)| serde_json::json!({"seed": seed, "check": failure.check, "what": failure.what}),
        );
        std::fs::write(path, format!("{json:#}\n"))
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    if let Some((seed, failure)) = failure {
        println!("seed {seed} failed: {failure}\n{}", replay(seed));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
