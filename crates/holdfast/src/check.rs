//! `holdfast check`: whether this machine can be a host, and how the host on it does that is one.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use ::check::{Grade, Report, Wish};
use client::Kubeconfig;

use crate::tell::show;

/// Arguments of `holdfast check`.
#[derive(clap::Args)]
pub struct Args {
    /// Check a machine before there is a host on it: ports must be free, and no other host is asked
    #[arg(long)]
    pre: bool,
    /// The host's configuration [with --pre: the defaults where none is named]
    #[arg(long, value_name = "FILE", required_unless_present = "pre")]
    config: Option<PathBuf>,
    /// An administrator's kubeconfig: leases and all Nodes are seen with it. Only the hosts of the configuration are asked, not the server in it
    #[arg(long, value_name = "FILE", conflicts_with = "pre")]
    kubeconfig: Option<PathBuf>,
    /// The form of the report
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line for each finding, for people
    #[default]
    Text,
    /// An object with all findings
    Json,
}

/// Looks, and says what was found. A fault makes the command fail; warnings don't.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { pre, config, kubeconfig, output } = args;
    let administrator = kubeconfig.as_deref().map(Kubeconfig::load).transpose()?;
    let report = Report::make(&Wish { pre, config, administrator }).await;
    match output {
        Output::Json => show(&report.json())?,
        // https://no-color.org
        Output::Text => {
            let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            show(&report.text(is_wanted && io::stdout().is_terminal()))?;
        }
    }
    Ok(if report.count(Grade::Fault) > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
