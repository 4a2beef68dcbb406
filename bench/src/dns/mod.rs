//! How fast names are answered for, beside a DNS server of others: over UDP on loopback, by many callers with a socket each.

mod cluster;
pub mod host;
mod load;
mod peer;

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Map, Value, json};

use self::cluster::CASES;
use self::host::Host;
use self::load::Load;
use self::peer::Peer;

/// Arguments of `dns`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// How many services the cluster has
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// How many callers ask at once
    #[arg(long, default_value_t = 128)]
    callers: usize,
    /// How many seconds each case takes
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The peer; without it, the first of these that is installed
    #[arg(long)]
    peer: Option<peer::Kind>,
}

/// Runs the measurements and prints them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        (1..=60_000).contains(&args.services) && args.callers > 0 && args.seconds > 0,
        "there must be services (60,000 at most), callers and time"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let load = Load { services: args.services, callers: args.callers, seconds: args.seconds };
    let kind = args.peer.or_else(peer::installed);
    if kind.is_none() {
        eprintln!("no peer is installed: `apt-get install unbound` or `dnsmasq-base`");
    }
    println!(
        "{:10} {:8} {:>10} {:>12} {:>8} {:>8} {:>8}",
        "case", "who", "answers/s", "per core", "p50 ms", "p99 ms", "RSS MB"
    );
    let mut cases = Vec::new();
    for case in CASES {
        let host = Host::start(args.services)?;
        let ours = runtime.block_on(load.measure(case, host.address(), host.pid()))?;
        drop(host);
        tell(case.name, "ours", &ours);
        let mut entry =
            Map::from_iter([("name".to_owned(), json!(case.name)), ("ours".to_owned(), ours.clone())]);
        if let Some(kind) = kind {
            let peer = Peer::start(kind, args.services)?;
            let theirs = runtime.block_on(load.measure(case, peer.address(), peer.pid()))?;
            tell(case.name, kind.name(), &theirs);
            let of = |figures: &Value| figures["per_core_s"].as_f64().unwrap_or(f64::NAN);
            entry.insert("ratio".into(), json!(of(&ours) / of(&theirs)));
            entry.insert("peer".into(), theirs);
            entry.insert("peer_name".into(), json!(kind.name()));
        }
        cases.push(Value::Object(entry));
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&json!({"cases": cases}))?)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn tell(case: &str, who: &str, figures: &Value) {
    let number = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    println!(
        "{case:10} {who:8} {:10.0} {:12.0} {:8.3} {:8.3} {:8.1}",
        number("per_s"),
        number("per_core_s"),
        number("p50_ms"),
        number("p99_ms"),
        number("resident_mb")
    );
}
