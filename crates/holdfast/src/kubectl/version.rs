//! `version`: of this program, and of the server that it asks.

use std::path::PathBuf;

use super::{client, put};

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this program's: no server is asked
    #[arg(long)]
    pub client: bool,
    /// The kubeconfig file [default: $KUBECONFIG, else that of a cluster started here, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Prints the versions.
pub async fn version(args: Args) -> anyhow::Result<()> {
    put(&format!("Client Version: holdfast v{}\n", env!("CARGO_PKG_VERSION")))?;
    if args.client {
        return Ok(());
    }
    let answer = client(args.kubeconfig.as_deref())?.get("/version").await?;
    put(&format!("Server Version: {}\n", answer["gitVersion"].as_str().unwrap_or("unknown")))
}
