//! `holdfast status`: how a cluster does, and what would break it.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use ::check::Status;
use client::Kubeconfig;

use crate::check::{Output, unusable};
use crate::kubectl::{KubeconfigArg, put};
use crate::tell::{is_coloured, say};

/// How often it is looked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Arguments of `holdfast status`.
#[derive(clap::Args)]
#[command(
    after_help = "The exit code is 0 where all is well, 1 where something isn't, and 2 where nobody can be asked.\n\nExamples:\n  holdfast status\n  holdfast status --watch\n  holdfast status -o json | jq '.findings[].what'"
)]
pub struct Args {
    /// Look again every two seconds, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// The form of the answer; with --watch, JSON is a line each time
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    cluster: KubeconfigArg,
}

/// Asks, and shows what was found.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { watch, output, cluster } = args;
    let servers = match servers(&cluster) {
        Ok(servers) => servers,
        Err(error) => return unusable(&error, output),
    };
    loop {
        let status = Status::ask(&servers).await;
        if !watch {
            return match status {
                Ok(status) => {
                    put(&match output {
                        Output::Text => status.text(is_coloured()),
                        Output::Json => format!("{:#}\n", status.json()),
                    })?;
                    Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
                }
                Err(error) => unusable(&error.into(), output),
            };
        }
        match (status, output) {
            (Ok(status), Output::Text) => put(&frame(&status.text(is_coloured())))?,
            (Ok(status), Output::Json) => put(&format!("{}\n", status.json()))?,
            (Err(error), Output::Json) => {
                put(&format!("{}\n", serde_json::json!({ "error": error.to_string() })))?;
            }
            // It may be asked again soon: an election takes a moment.
            (Err(error), Output::Text) => say!("{}", frame(&format!("error: {error}"))),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What is written in the place of what was there before, on a terminal; elsewhere each time below the other.
fn frame(text: &str) -> String {
    match std::io::stdout().is_terminal() {
        // Home, each line to its end, and all that is below (ECMA-48, CUP, EL and ED).
        true => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
        false => format!("{text}\n"),
    }
}

/// The kubeconfig's server; then, on a host that was installed, that host and the others of its configuration: where no majority is
/// left, nobody holds the address that the kubeconfig names.
fn servers(cluster: &KubeconfigArg) -> anyhow::Result<Vec<Kubeconfig>> {
    let path = cluster.path()?;
    let first = Kubeconfig::load(&path)?;
    let beside =
        crate::install::apis_beside(&path).into_iter().map(|api| first.with_server(format!("https://{api}")));
    let beside: Vec<Kubeconfig> = beside.filter(|other| other.server != first.server).collect();
    Ok(std::iter::once(first).chain(beside).collect())
}
