//! A large cluster: thousands of hollow hosts beside the real ones. How fast its pods are placed, rolled out and replaced,
//! with everything on this machine: hosts, hollow hosts, and those who watch.

mod hollow;
mod place;
mod requests;
mod roll;

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::api::hosts::Hosts;

/// Arguments of `bench scale`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// Which cases to run (may be given more than once) [default: all]
    #[arg(long = "case")]
    cases: Vec<String>,
    /// How many hollow hosts
    #[arg(long, default_value_t = 5000)]
    nodes: usize,
    /// How many pods
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// How many real hosts: members of the store, of which one leads
    #[arg(long, default_value_t = 1)]
    hosts: usize,
    /// For how many seconds to measure idleness
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Where the hosts keep their data: a folder on a disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// What is measured. Names end with the number of hollow hosts or pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// Pods that ask for processor and memory.
    PlaceBasic,
    /// Pods of twenty apps, no two of one app on a host.
    PlaceAntiAffinity,
    /// Pods of one app, spread over zones.
    PlaceSpread,
    /// One Deployment from nothing to all of its replicas ready, and then from one template to the next.
    Rollout,
    /// What the real host does when nothing happens but the hollow hosts' signs of life.
    Idle,
}

const CASES: [(Case, &str); 5] = [
    (Case::PlaceBasic, "place-basic"),
    (Case::PlaceAntiAffinity, "place-anti-affinity"),
    (Case::PlaceSpread, "place-spread"),
    (Case::Rollout, "rollout"),
    (Case::Idle, "idle"),
];

/// Runs the cases and prints what they took.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(wrong) = args.cases.iter().find(|name| !CASES.iter().any(|(_, known)| known == name)) {
        let known: Vec<&str> = CASES.iter().map(|(_, name)| *name).collect();
        anyhow::bail!("there is no case {wrong:?}: {}", known.join(", "));
    }
    anyhow::ensure!(args.hosts > 0 && args.nodes > 0 && args.pods > 0, "there must be hosts, nodes and pods");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows: Vec<Value> = Vec::new();
    for (case, name) in CASES {
        if !args.cases.is_empty() && !args.cases.iter().any(|asked| asked == name) {
            continue;
        }
        for row in runtime.block_on(measure(args, case, name)).with_context(|| format!("case {name}"))? {
            print(&row);
            rows.push(Value::Object(row));
        }
        if let Some(path) = &args.json {
            std::fs::write(path, serde_json::to_string_pretty(&json!({"cases": rows}))?)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    Ok(())
}

/// One case on hosts of its own.
async fn measure(args: &Args, case: Case, name: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut hosts = Hosts::start(args.hosts, &args.dir)?;
    crate::api::load::account(&hosts).await?;
    requests::register(&mut hosts, args.nodes).await?;
    match case {
        Case::PlaceBasic | Case::PlaceAntiAffinity | Case::PlaceSpread => {
            let pods = place::measure(&mut hosts, case, args.pods).await?;
            let mut row = row(&format!("{name}-{}", args.nodes), &[("per_s", pods)]);
            memory(&mut row, &hosts)?;
            Ok(vec![row])
        }
        Case::Rollout => {
            let (out, over) = roll::measure(&mut hosts, args.pods).await?;
            let mut replaced = row(&format!("replace-{}", args.pods), &[("seconds", over)]);
            memory(&mut replaced, &hosts)?;
            Ok(vec![row(&format!("rollout-{}", args.pods), &[("seconds", out)]), replaced])
        }
        Case::Idle => {
            let percent = hollow::idle(&mut hosts, args.nodes, args.seconds).await?;
            let mut row = row(&format!("{name}-{}", args.nodes), &[("core_percent", percent)]);
            memory(&mut row, &hosts)?;
            Ok(vec![row])
        }
    }
}

fn row(name: &str, figures: &[(&str, f64)]) -> Map<String, Value> {
    let mut row = Map::from_iter([("name".to_owned(), Value::from(name))]);
    row.extend(figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    row
}

/// The largest memory of a real host, with what the case left in it.
fn memory(row: &mut Map<String, Value>, hosts: &Hosts) -> anyhow::Result<()> {
    row.insert("resident_mb".to_owned(), json!(hosts.resident_mb()?));
    Ok(())
}

fn print(row: &Map<String, Value>) {
    let figures = row.iter().filter_map(|(name, value)| Some(format!("{name} {:.1}", value.as_f64()?)));
    let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
    println!("{name:<26} {}", figures.collect::<Vec<_>>().join("  "));
}
