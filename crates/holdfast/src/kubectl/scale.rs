//! `scale`: how many replicas.

use anyhow::bail;
use client::{Content, Discovery};
use serde_json::json;

use super::target::targets;
use super::{Connection, put};

/// Arguments of `scale`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  holdfast scale deployment/web --replicas 5")]
pub struct Args {
    /// What: TYPE NAME or TYPE/NAME
    #[arg(required = true, value_name = "TYPE/NAME")]
    pub what: Vec<String>,
    /// How many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(0..))]
    pub replicas: i32,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Sets the number of replicas.
pub async fn scale(args: Args) -> anyhow::Result<()> {
    let (client, namespace) = args.connection.open()?;
    let discovery = Discovery::ask(&client).await?;
    for target in targets(&args.what, &discovery)? {
        if target.names.is_empty() {
            bail!("say which: {}/NAME", target.resource.singular);
        }
        for name in &target.names {
            let path = format!("{}/scale", target.resource.path(Some(&namespace), Some(name)));
            let patch = json!({"spec": {"replicas": args.replicas}});
            client.patch(&path, Content::MergePatch, &patch).await?;
            put(&format!("{}/{name} scaled\n", target.resource.typed()))?;
        }
    }
    Ok(())
}
