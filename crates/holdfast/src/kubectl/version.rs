//! `version`: of this program, and of the server that it asks.

use super::{KubeconfigArg, put};

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this program's: no server is asked
    #[arg(long)]
    pub client: bool,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: KubeconfigArg,
}

/// Prints the versions.
pub async fn version(args: Args) -> anyhow::Result<()> {
    put(&format!("Client Version: holdfast v{}\n", env!("CARGO_PKG_VERSION")))?;
    if args.client {
        return Ok(());
    }
    let answer = args.cluster.client()?.get("/version").await?;
    put(&format!("Server Version: {}\n", answer["gitVersion"].as_str().unwrap_or("unknown")))
}
