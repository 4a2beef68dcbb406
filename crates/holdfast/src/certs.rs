//! `holdfast certs`: every certificate of this host, until when, and what there is to do.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::check::Certificates;
use config::HostConfig;

use crate::check::{Output, unusable};
use crate::tell::{is_coloured, show};

/// Arguments of `holdfast certs`.
#[derive(clap::Args)]
#[command(
    after_help = "The exit code is 0 where all is well, 1 where something isn't, and 2 where there is nothing to look at.\n\nExamples:\n  holdfast certs\n  holdfast certs -o json | jq '.certificates[].until'"
)]
pub struct Args {
    /// The host's configuration, beside which the administrator's kubeconfig lies
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/config.yaml")]
    config: PathBuf,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Looks, and shows what was found.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = match HostConfig::load(&args.config) {
        Ok(config) => config,
        Err(error) => return unusable(&error.into(), args.output),
    };
    // Who may not look would hear that everything is broken.
    if let Err(why) = fs::read_dir(&config.pki_dir)
        && why.kind() == ErrorKind::PermissionDenied
    {
        let what = format!("can't look into {}, which is root's: ask as root", config.pki_dir.display());
        return unusable(&anyhow::Error::from(why).context(what), args.output);
    }
    let folder = args.config.parent().unwrap_or(Path::new(""));
    let found = Certificates::look(&config, &crate::install::kubeconfig_in(folder));
    match args.output {
        Output::Text => show(&found.text(is_coloured()))?,
        Output::Json => show(&format!("{:#}\n", found.json()))?,
    }
    Ok(if found.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
