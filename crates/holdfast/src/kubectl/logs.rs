//! `logs`: what a container said.

use client::with_query;
use std::io::Write;

use super::pods_of::OfPod;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast logs web-5fcbc4fd74-tkkfw\n  holdfast logs deployment/web --tail 20 -f"
)]
pub struct Args {
    /// Of which pod.
    #[command(flatten)]
    pub of: OfPod,
    /// Go on as the log grows
    #[arg(short, long)]
    pub follow: bool,
    /// Only this many of the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// The log of the container's life before its last restart
    #[arg(short, long)]
    pub previous: bool,
    /// With the time of each line
    #[arg(long)]
    pub timestamps: bool,
    /// Only lines of the last seconds
    #[arg(long, value_name = "SECONDS")]
    pub since_seconds: Option<u64>,
}

/// Prints a container's log.
pub async fn logs(args: Args) -> anyhow::Result<()> {
    let (client, pod) = args.of.find().await?;
    let flags = [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)];
    let numbers = [("tailLines", args.tail), ("sinceSeconds", args.since_seconds)];
    let numbers = numbers.map(|(field, number)| (field, number.map(|n| n.to_string())));
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| (*flag, "true")));
    query.extend(numbers.iter().filter_map(|(field, number)| Some((*field, number.as_deref()?))));
    query.extend(args.of.container());
    let mut stream = client.stream(&with_query(&format!("{pod}/log"), &query), Some("*/*")).await?;
    while let Some(chunk) = stream.chunk().await? {
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(&chunk).and_then(|()| out.flush()) {
            // A reader that has gone away has heard enough.
            return if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
    }
    Ok(())
}
