//! Clients that mean no good, each kind for a bounded time against a host of the bench's own on loopback: what it costs the host,
//! and the others meanwhile.

mod bodies;
mod connections;
mod others;
mod unread;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use self::others::Others;
use crate::api::hosts::Hosts;
use crate::process::{forget_peak, peak_mb, resident_mb};

/// Arguments of `bench hostile`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// Which cases to run (may be given more than once) [default: all]
    #[arg(long = "case")]
    cases: Vec<String>,
    /// How much is done: 1 is what the documentation tells of
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How many files the host may open
    #[arg(long, default_value_t = 6000)]
    files: u64,
    /// Where the host keeps its data: a folder on a disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// No case takes longer.
const LONGEST: Duration = Duration::from_secs(120);
const CASES: [&str; 8] = [
    "nested-yaml",
    "many-elements",
    "many-defaults",
    "idle",
    "slow-headers",
    "unread-watches",
    "unread-lists",
    "rewriting",
];

/// What a case tells.
type Figures = Vec<(&'static str, f64)>;

/// Runs the cases and prints what they cost.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(wrong) = args.cases.iter().find(|case| !CASES.contains(&case.as_str())) {
        anyhow::bail!("there is no case {wrong:?}: {}", CASES.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut numbers = Map::new();
    for case in CASES.into_iter().filter(|case| args.cases.is_empty() || args.cases.iter().any(|c| c == case))
    {
        let figures = runtime.block_on(measure(args, case)).with_context(|| format!("case {case}"))?;
        let text: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {value:.1}")).collect();
        println!("{case:<15} {}", text.join("  "));
        let figures = figures.into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
        numbers.insert(case.to_owned(), Value::Object(figures.collect()));
        if let Some(path) = &args.json {
            std::fs::write(path, serde_json::to_string_pretty(&numbers)?)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    Ok(())
}

/// One case against a host that nobody else has troubled.
async fn measure(args: &Args, case: &str) -> anyhow::Result<Figures> {
    let backend = TcpListener::bind("127.0.0.1:0").await?;
    let address = backend.local_addr()?;
    let behind = tokio::spawn(serve(backend));
    let hosts = Hosts::start_with(1, &args.dir, args.files, Some(address))?;
    let scaled = |count: usize| ((count as f64 * args.scale) as usize).max(1);
    let host = hosts.first();
    let before = resident_mb(host)?;
    forget_peak(host)?;
    let others = Others::start(&hosts).await?;
    let work = async {
        match case {
            "nested-yaml" => bodies::nested_yaml(&hosts, scaled(8)).await,
            "many-elements" => bodies::many_elements(&hosts, scaled(2)).await,
            "many-defaults" => bodies::many_defaults(&hosts, scaled(2)).await,
            "idle" => connections::idle(&hosts, scaled(3000)).await,
            "slow-headers" => connections::slow_headers(&hosts, scaled(300)).await,
            "unread-watches" => unread::watches(&hosts, scaled(300), scaled(1000)).await,
            "unread-lists" => unread::lists(&hosts, scaled(40)).await,
            _ => bodies::rewriting(&hosts, scaled(400)).await,
        }
    };
    let mut figures = tokio::time::timeout(LONGEST, work).await.context("it took too long")??;
    figures.extend([("before_mb", before), ("peak_mb", peak_mb(host)?), ("after_mb", resident_mb(host)?)]);
    figures.extend(others.end().await?);
    behind.abort();
    Ok(figures)
}

/// What stands behind services: it answers each connection once.
async fn serve(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                .await;
        });
    }
}
