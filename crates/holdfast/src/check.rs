//! `holdfast check`: whether this machine can be a host, and how the host on it does that is one.

use std::path::PathBuf;
use std::process::ExitCode;

use ::check::{Grade, Report, Wish};
use client::Kubeconfig;

use crate::end::End;
use crate::tell::{is_coloured, say, show};

/// The exit code where nothing was looked at since the arguments can't be: that of a command line that can't be, too. 1 is a fault.
const UNUSABLE: u8 = 2;
/// The exit code of one that was stopped before the end: what shells make of Ctrl-C (128 and the signal's number).
const STOPPED: u8 = 130;

/// Arguments of `holdfast check`.
#[derive(clap::Args)]
#[command(
    // What is said of a bare `holdfast check`: a machine has no configuration before it is a host.
    override_usage = "holdfast check --pre [--config FILE]\n       holdfast check --config FILE [--kubeconfig FILE]",
    after_help = "The exit code is 0 without a fault, 1 with one, and 2 where the arguments can't be.\n\nExamples:\n  holdfast check --pre                      # before there is a host: by the defaults\n  holdfast check --pre --config n1.yaml     # the same, for what the host's configuration says\n  holdfast check --config n1.yaml           # the host that runs, and the others"
)]
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
pub enum Output {
    /// A line for each finding, for people
    #[default]
    Text,
    /// An object with all findings
    Json,
}

/// Looks, and says what was found. A fault makes the command fail; warnings don't.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { pre, config, kubeconfig, output } = args;
    let administrator = match kubeconfig.as_deref().map(Kubeconfig::load).transpose() {
        Ok(administrator) => administrator,
        Err(error) => return unusable(&error.into(), output),
    };
    // What is written to measure the disk goes with the work on it.
    let mut end = End::new()?;
    let wish = Wish { pre, config, administrator };
    let report = tokio::select! {
        report = Report::make(&wish) => report,
        () = end.asked() => return Ok(ExitCode::from(STOPPED)),
    };
    match output {
        Output::Json => show(&report.json())?,
        Output::Text => show(&report.text(is_coloured()))?,
    }
    Ok(if report.count(Grade::Fault) > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Says why nothing was looked at: to people, and to programs as an object, as they expect one.
pub fn unusable(why: &anyhow::Error, output: Output) -> anyhow::Result<ExitCode> {
    say!("error: {why:#}");
    if output == Output::Json {
        show(&format!("{:#}\n", serde_json::json!({ "error": format!("{why:#}") })))?;
    }
    Ok(ExitCode::from(UNUSABLE))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_bare_check_leads_to_a_machine_without_a_configuration() {
        let refused = crate::Cli::try_parse_from(["holdfast", "check"]).err().unwrap();
        assert!(refused.to_string().contains("holdfast check --pre"), "{refused}");
        assert_eq!(i32::from(UNUSABLE), refused.exit_code());
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cant_be_read_is_no_fault_of_the_machine() {
        let kubeconfig = Some("/nowhere/kubeconfig".into());
        let args =
            Args { pre: false, config: Some("/nowhere/n1.yaml".into()), kubeconfig, output: Output::Json };
        let ended = run(args).await.unwrap();
        assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(2)));
    }
}
