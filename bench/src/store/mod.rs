//! The store beside etcd: the same keys, values and numbers of clients, three members each on this machine, every
//! member a process of its own with its disk synced and its connections encrypted. Ours is measured twice: called
//! within its members' processes, and through its gRPC door by the very client that etcd gets. Each case is measured in
//! turns, each time with new members, and the median of the rounds counts.

mod budget;
mod cases;
mod client;
mod etcd;
mod histogram;
mod load;
pub mod member;
mod members;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Map, Value, json};

use self::budget::Cost;
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
    /// How often each case is measured at most; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many seconds the whole run may take: each case gets its share, with fewer rounds where it must
    #[arg(long, default_value_t = 540.0)]
    seconds: f64,
    /// How many seconds of each measurement count at most
    #[arg(long, default_value_t = 4.0)]
    counted: f64,
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

/// One side of the comparison, with what was measured.
type Side = (Whose, Figures);

/// Runs the measurements and prints them.
#[allow(clippy::disallowed_methods, reason = "the run ends in time")]
pub fn run(args: &Args) -> anyhow::Result<()> {
    let seconds =
        |name, value| Duration::try_from_secs_f64(value).with_context(|| format!("{name} must be a time"));
    let end = Instant::now() + seconds("--seconds", args.seconds)?;
    let longest = seconds("--counted", args.counted)?;
    let peer = args.peer.and_then(|Peer::Etcd| version());
    if args.peer.is_some() && peer.is_none() {
        println!("etcd is not installed (Debian: etcd-server): the store is measured alone");
    }
    println!("ours: the clients call the store within its members' processes, as an API server does");
    println!("door: they speak gRPC to it from three other processes, by the same client as to the peer");
    let mut sides = vec![Whose::Ours, Whose::Door];
    if let Some(version) = &peer {
        println!("peer: {version} with its defaults");
        sides.push(Whose::Etcd);
    }
    if on_memory(&args.dir) {
        println!(
            "{} is in memory, not on a disk: syncs cost nothing, take another --dir",
            args.dir.display()
        );
    }
    let chosen: Vec<&Case> = CASES
        .iter()
        .filter(|c| args.cases.is_empty() || args.cases.iter().any(|name| name == c.name))
        .collect();
    let costs: Vec<Cost> = chosen
        .iter()
        .map(|case| case.cost())
        .map(|cost| Cost { rounds: cost.rounds.min(args.rounds.max(1)), ..cost })
        .collect();
    let (mut cases, mut left_out) = (Vec::new(), Vec::new());
    for (n, case) in chosen.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        if left < costs[n].shortest(sides.len()) {
            println!("{:<17} left out: its time is up, take more --seconds", case.name);
            left_out.push(case.name);
        } else {
            let share = budget::share(left, &costs[n..], sides.len(), longest);
            let times = budget::times(share, costs[n], sides.len(), longest);
            let measured = in_turns(case, &args.dir, &sides, times, costs[n].rounds, share)?;
            print(case, &measured);
            cases.push(told(case, &measured));
        }
        if let Some(path) = &args.json {
            // After each case: a run that is ended early has its numbers so far.
            let numbers = json!({"cases": cases, "left_out": left_out});
            std::fs::write(path, serde_json::to_string_pretty(&numbers)?)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
    }
    Ok(())
}

/// All sides, one after the other in each round. A further round begins only where there is time for one.
#[allow(clippy::disallowed_methods, reason = "the run ends in time")]
fn in_turns(
    case: &Case,
    dir: &Path,
    sides: &[Whose],
    times: Times,
    rounds: usize,
    share: Duration,
) -> anyhow::Result<Vec<Side>> {
    let mut measured = vec![Vec::new(); sides.len()];
    let (begun, mut longest_round) = (Instant::now(), Duration::ZERO);
    for round in 1..=rounds {
        let round_begun = Instant::now();
        if round > 1 && begun.elapsed() + longest_round > share {
            break;
        }
        for (whose, figures) in sides.iter().zip(&mut measured) {
            eprintln!("{}: round {round} of {rounds}, {whose:?}", case.name);
            let of = || format!("{} of {whose:?}", case.name);
            figures.push(case.measure(*whose, times, dir).with_context(of)?);
        }
        longest_round = longest_round.max(round_begun.elapsed());
    }
    Ok(sides.iter().zip(&measured).map(|(whose, rounds)| (*whose, medians(rounds))).collect())
}

/// Each side's row, with how many times better than the peer's it is.
fn print(case: &Case, measured: &[Side]) {
    println!("{:<17} {}", case.name, case.about);
    for (whose, figures) in measured {
        let side = match whose {
            Whose::Ours => "ours",
            Whose::Door => "door",
            Whose::Etcd => "peer",
        };
        let row: Vec<String> =
            figures.iter().map(|(name, value)| format!("{name} {}", rounded(*value))).collect();
        let ratio = ratio_of(measured, *whose).map(|ratio| format!("{} times", rounded(ratio)));
        println!("{:>17} {:<44} {}", side, row.join("  "), ratio.unwrap_or_default());
    }
}

/// A case's numbers as JSON.
fn told(case: &Case, measured: &[Side]) -> Value {
    let figures =
        |of: Whose| measured.iter().find(|(whose, _)| *whose == of).map(|(_, figures)| object(figures));
    json!({
        "name": case.name,
        "ours": figures(Whose::Ours),
        "door": figures(Whose::Door),
        "peer": figures(Whose::Etcd),
        "ratio": ratio_of(measured, Whose::Ours),
        "door_ratio": ratio_of(measured, Whose::Door),
    })
}

/// How many times better than the peer's one of our sides is; none for the peer itself, or without one.
fn ratio_of(measured: &[Side], of: Whose) -> Option<f64> {
    let figures = |of: Whose| measured.iter().find(|(whose, _)| *whose == of).map(|(_, figures)| figures);
    if of == Whose::Etcd { None } else { ratio(figures(of)?, figures(Whose::Etcd)?) }
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
