//! `cargo run --release -p fuzz -- [TARGET...] --seconds N`: fuzzes until the time is over, or an input fails.

use std::time::Duration;

use clap::Parser;
use fuzz::{Calls, Corpus, Failure, Requests, Tally, run, run_growing, targets};

/// Fuzzes what parses bytes from outside.
#[derive(Parser)]
struct Arguments {
    /// The targets; all of them if none is named. `requests` are whole requests to a server,
    /// `etcd` calls of etcd's API.
    targets: Vec<String>,
    /// How long each of them.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[allow(clippy::disallowed_methods, reason = "the time to run is real time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let corpus = Corpus::load()?;
    let time = Duration::from_secs(arguments.seconds);
    let is_wanted = |name: &str| arguments.targets.is_empty() || arguments.targets.iter().any(|t| t == name);
    for target in targets().iter().filter(|target| is_wanted(target.name)) {
        let begin = now();
        let outcome = run(target, &corpus, arguments.seed, |_| begin.elapsed() < time / 2);
        tell(target.name, outcome)?;
        let begin = now();
        let outcome = run_growing(target, &corpus, arguments.seed, |_| begin.elapsed() < time / 2);
        tell(&format!("{}, growing", target.name), outcome)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if is_wanted("requests") {
        for growing in [false, true] {
            let outcome = runtime.block_on(requests(&corpus, arguments.seed, time / 2, growing))?;
            tell(if growing { "requests, growing" } else { "requests" }, outcome)?;
        }
    }
    if is_wanted("etcd") {
        tell("etcd", runtime.block_on(calls(arguments.seed, time))?)?;
    }
    Ok(())
}

async fn requests(
    corpus: &Corpus,
    first: u64,
    time: Duration,
    growing: bool,
) -> anyhow::Result<Result<Tally, Box<Failure>>> {
    let begin = now();
    let mut tally = Tally::default();
    while begin.elapsed() < time {
        // A store that isn't full of what came before.
        let requests = Requests::new().await?;
        for _ in 0..500 {
            let (sent, seed) = (now(), first + tally.inputs);
            let answered = match growing {
                true => requests.send_growing(corpus, seed).await,
                false => requests.send(corpus, seed).await,
            };
            if let Err(failure) = answered {
                return Ok(Err(failure));
            }
            tally.inputs += 1;
            tally.longest = tally.longest.max(sent.elapsed());
            if begin.elapsed() >= time {
                break;
            }
        }
    }
    Ok(Ok(tally))
}

async fn calls(first: u64, time: Duration) -> anyhow::Result<Result<Tally, Box<Failure>>> {
    let begin = now();
    let mut tally = Tally::default();
    while begin.elapsed() < time {
        let calls = Calls::new().await?;
        for _ in 0..2000 {
            let sent = now();
            if let Err(failure) = calls.send(first + tally.inputs).await {
                return Ok(Err(failure));
            }
            tally.inputs += 1;
            tally.longest = tally.longest.max(sent.elapsed());
        }
    }
    Ok(Ok(tally))
}

fn tell(name: &str, outcome: Result<Tally, Box<Failure>>) -> anyhow::Result<()> {
    match outcome {
        Ok(tally) => {
            println!(
                "{name}: {} inputs, the longest took {:?}, at most {} bytes allocated for one",
                tally.inputs, tally.longest, tally.heaviest
            );
            Ok(())
        }
        Err(failure) => {
            let file = format!("{}-{}", failure.target, failure.seed);
            let path = std::env::temp_dir().join(file);
            std::fs::write(&path, &failure.input)?;
            anyhow::bail!(
                "{name}: seed {}: {}\nthe input is in {}",
                failure.seed,
                failure.what,
                path.display()
            )
        }
    }
}
