//! The store beside etcd: the same keys, values and numbers of clients, three members each on this machine, every
//! member a process of its own with its disk synced and its connections encrypted. Each case is measured in
//! turns, each time with new members, and the median of the rounds counts.

mod cases;
mod client;
mod etcd;
mod histogram;
mod load;
pub mod member;
mod members;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};

use self::cases::{CASES, Case, Figures, Times};
pub use self::histogram::Histogram;
use self::histogram::median;
use self::members::Whose;

/// Arguments of `bench store`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure beside it
    #[arg(long)]
    peer: Option<Peer>,
    /// Where to write the numbers
    #[arg(long)]
    json: Option<PathBuf>,
    /// How often each case is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many seconds of each measurement count
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Measure this case only (may be given more than once)
    #[arg(long = "case", value_parser = clap::builder::PossibleValuesParser::new(CASES.map(|case| case.name)))]
    cases: Vec<String>,
    /// Where the members keep their data: a folder on the disk that is to be measured
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// What can be measured beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Peer {
    /// etcd 3.4 or newer, found in PATH
    Etcd,
}

/// Runs the measurements and prints them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let seconds = Duration::try_from_secs_f64(args.seconds).context("--seconds must be a time")?;
    let times = Times { warm_up: seconds / 4, counted: seconds };
    let peer = args.peer.and_then(|Peer::Etcd| version());
    if args.peer.is_some() && peer.is_none() {
        println!("etcd is not installed (Debian: etcd-server): the store is measured alone");
    }
    println!("ours: the clients call the store within its members' processes, as an API server does");
    if let Some(version) = &peer {
        println!(
            "peer: {version} with its defaults; the clients speak gRPC to it from three other processes"
        );
    }
    if on_memory(&args.dir) {
        println!(
            "{} is in memory, not on a disk: syncs cost nothing, take another --dir",
            args.dir.display()
        );
    }
    println!("{:<17} {:>44} {:>44} {:>7}", "", "ours", if peer.is_some() { "peer" } else { "" }, "ratio");
    let mut cases = Vec::new();
    for case in CASES.iter().filter(|c| args.cases.is_empty() || args.cases.iter().any(|name| name == c.name))
    {
        let (ours, theirs) = in_turns(case, args, times, peer.is_some())?;
        let ratio = theirs.as_ref().and_then(|theirs| ratio(&ours, theirs));
        let column = |figures: &Figures| {
            figures
                .iter()
                .map(|(name, value)| format!("{name} {}", rounded(*value)))
                .collect::<Vec<_>>()
                .join("  ")
        };
        println!(
            "{:<17} {:>44} {:>44} {:>7}   {}",
            case.name,
            column(&ours),
            theirs.as_ref().map(column).unwrap_or_default(),
            ratio.map(rounded).unwrap_or_default(),
            case.about,
        );
        cases.push(json!({
            "name": case.name,
            "ours": object(&ours),
            "peer": theirs.as_ref().map(object),
            "ratio": ratio,
        }));
        if let Some(path) = &args.json {
            // After each case: a run that is ended early has its numbers so far.
            std::fs::write(path, serde_json::to_string_pretty(&json!({"cases": cases}))?)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Both sides, one after the other in each round.
fn in_turns(
    case: &Case,
    args: &Args,
    times: Times,
    with_peer: bool,
) -> anyhow::Result<(Figures, Option<Figures>)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds.max(1) {
        let measure = |whose: Whose| {
            eprintln!("{}: round {round} of {}, {whose:?}", case.name, args.rounds);
            case.measure(whose, times, &args.dir).with_context(|| format!("{} of {whose:?}", case.name))
        };
        ours.push(measure(Whose::Ours)?);
        if with_peer {
            theirs.push(measure(Whose::Etcd)?);
        }
    }
    Ok((medians(&ours), with_peer.then(|| medians(&theirs))))
}

/// The median of each figure over the rounds.
fn medians(rounds: &[Figures]) -> Figures {
    let first = rounds.first().map_or(&[][..], Vec::as_slice);
    let over_rounds =
        |n: usize| median(rounds.iter().filter_map(|figures| figures.get(n)).map(|(_, value)| *value));
    first.iter().enumerate().map(|(n, (name, _))| (*name, over_rounds(n))).collect()
}

/// How many times better ours is: more work per second, or less time or memory.
fn ratio(ours: &Figures, theirs: &Figures) -> Option<f64> {
    let ((name, ours), (_, theirs)) = (ours.first()?, theirs.first()?);
    Some(if *name == "per_s" { ours / theirs } else { theirs / ours })
}

fn object(figures: &Figures) -> Value {
    Value::Object(
        figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>(),
    )
}

/// A number as people read it: three digits that say something.
fn rounded(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The version of the etcd that is installed.
fn version() -> Option<String> {
    let output = Command::new("etcd").arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(format!("etcd {}", text.lines().next()?.rsplit(' ').next()?))
}

/// Whether a folder lies in memory.
fn on_memory(dir: &Path) -> bool {
    nix::sys::statfs::statfs(dir).is_ok_and(|stats| stats.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_its_own_median() {
        let rounds = [(3.0, 10.0), (1.0, 30.0), (2.0, 20.0)];
        let rounds = rounds.map(|(per_s, p50_ms)| vec![("per_s", per_s), ("p50_ms", p50_ms)]);
        assert_eq!(medians(&rounds), [("per_s", 2.0), ("p50_ms", 20.0)]);
        assert_eq!(medians(&[]), []);
    }

    #[test]
    fn a_ratio_above_one_says_that_ours_is_better() {
        let table = [
            ("per_s", 300.0, 100.0, 3.0),
            ("stopped_ms", 200.0, 1000.0, 5.0),
            ("resident_mb", 2.0, 1.0, 0.5),
        ];
        for (name, ours, theirs, expected) in table {
            assert_eq!(ratio(&vec![(name, ours)], &vec![(name, theirs)]), Some(expected), "{name}");
        }
        assert_eq!(ratio(&vec![], &vec![]), None);
    }
}
