//! `logs`: what a container said.

use client::{Discovery, with_query};
use std::io::Write;

use super::Connection;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast logs web-5fcbc4fd74-tkkfw\n  holdfast logs deployment/web --tail 20 -f"
)]
pub struct Args {
    /// The pod: NAME, or TYPE/NAME of what has pods, such as deployment/web
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The container, where the pod has several
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
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
    let (client, namespace) = args.connection.open()?;
    let discovery = Discovery::ask(&client).await?;
    let name = super::pods_of::pod(&client, &discovery, &namespace, &args.pod).await?;
    let flags = [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)];
    let numbers = [("tailLines", args.tail), ("sinceSeconds", args.since_seconds)];
    let numbers = numbers.map(|(field, number)| (field, number.map(|n| n.to_string())));
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| (*flag, "true")));
    query.extend(numbers.iter().filter_map(|(field, number)| Some((*field, number.as_deref()?))));
    query.extend(args.container.as_deref().map(|container| ("container", container)));
    let path = discovery.find("pods")?.path(Some(&namespace), Some(&name));
    let mut stream = client.stream(&with_query(&format!("{path}/log"), &query), Some("*/*")).await?;
    while let Some(chunk) = stream.chunk().await? {
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(&chunk).and_then(|()| out.flush()) {
            // A reader that has gone away has heard enough.
            return if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
    }
    Ok(())
}
