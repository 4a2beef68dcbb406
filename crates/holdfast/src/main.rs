//! Holdfast: a highly available Kubernetes in one program.

mod backup;
mod datastore;
mod drill;
mod engine;
mod files;
mod ground;
mod host;
mod kubectl;
mod restarts;
mod restore;
mod site;
mod store_door;
mod threads;
mod timeline;
mod up;
mod watchdog;
mod web;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "holdfast", version, about = "A highly available Kubernetes in one program")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine, cut the power of its leader, and show where the time went
    Drill(drill::Args),
    /// Run a cluster on this machine until Ctrl-C
    Up(up::Args),
    /// Show objects, as kubectl does
    Get(kubectl::GetArgs),
    /// Bring the objects of a manifest into the cluster, as kubectl does
    Apply(kubectl::ApplyArgs),
    /// Delete objects, as kubectl does
    Delete(kubectl::DeleteArgs),
    /// Show what a pod wrote, as kubectl does
    Logs(kubectl::LogsArgs),
    /// Set how many replicas there are, as kubectl does
    Scale(kubectl::ScaleArgs),
    /// Write the whole state of a cluster to a file
    Backup(backup::Args),
    /// Make a new cluster of what a backup holds
    Restore(restore::Args),
    /// Run one host
    #[command(hide = true)]
    Host(host::Args),
    /// Answer with the pod's name
    #[command(hide = true)]
    Web(web::Args),
}

fn main() -> ExitCode {
    files::allow_all();
    let result = match Cli::parse().command {
        Command::Drill(args) => drill::run(args),
        Command::Up(args) => up::run(args),
        Command::Get(args) => on_one_thread(kubectl::get(args)),
        Command::Apply(args) => on_one_thread(kubectl::apply(args)),
        Command::Delete(args) => on_one_thread(kubectl::delete(args)),
        Command::Logs(args) => on_one_thread(kubectl::logs(args)),
        Command::Scale(args) => on_one_thread(kubectl::scale(args)),
        Command::Backup(args) => on_one_thread(backup::run(args)),
        Command::Restore(args) => restore::run(args),
        Command::Host(args) => host::run(args),
        Command::Web(args) => on_one_thread(web::run(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", kubectl::complaint(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` where everything happens in turn: enough for a client, and small.
fn on_one_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Where `up` keeps a cluster, and the client finds its kubeconfig, unless told otherwise: the XDG Base
/// Directory Specification's place for state.
fn default_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    state.or_else(home).unwrap_or_else(std::env::temp_dir).join("holdfast")
}
