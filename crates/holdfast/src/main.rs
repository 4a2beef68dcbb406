//! Holdfast: a highly available Kubernetes in one program.

// `tell` writes what nobody may hear.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod ask;
mod audit;
mod backup;
mod certificates;
mod certs;
mod check;
mod completion;
mod configuration;
mod datastore;
mod drill;
mod end;
mod engine;
mod eviction;
mod fence_agents;
mod fences;
mod files;
mod foreign_images;
mod ground;
mod host;
mod host_images;
mod host_process;
mod image;
mod install;
mod kubectl;
mod leases;
mod listeners;
mod log;
mod measures;
mod names;
mod nodes;
mod overview;
mod own_image;
mod peers;
mod predict;
mod profiles;
mod reach;
mod reset;
mod restarts;
mod restore;
mod revoked;
mod sealing;
mod service_manager;
mod site;
mod status;
mod store_door;
mod tell;
mod terminal;
mod threads;
mod timeline;
mod token_webhook;
mod unit;
mod up;
mod upgrade;
mod user;
mod virtual_routers;
mod watchdog;
mod web;
mod without;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::error::{ContextKind, ContextValue};
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
    /// Tell from a cluster's configuration what a power cut will do to it, and what is wrong with it
    Predict(predict::Args),
    /// Make this machine the first host of a new cluster
    Init(install::InitArgs),
    /// Make this machine a host of a cluster that runs
    Join(install::JoinArgs),
    /// Make this machine no host any more: remove what `init`, `join` and the host made on it
    Reset(reset::Args),
    /// Put another version of the program in the place of this host's, whose pods run on
    Upgrade(upgrade::Args),
    /// Make, show and revoke the tokens by which machines join
    Token(install::TokenArgs),
    /// Give people kubeconfigs of their own, show who has one, and take them back
    User(user::Args),
    /// Run a cluster on this machine until Ctrl-C, or in the background
    Up(up::Args),
    /// End the cluster that `up` runs on this machine; its data stay
    Down(up::DownArgs),
    /// Show objects, as kubectl does
    Get(kubectl::GetArgs),
    /// Show all that objects say, in words, and what happened to them
    Describe(kubectl::DescribeArgs),
    /// Bring the objects of a manifest into the cluster, as kubectl does
    Apply(kubectl::ApplyArgs),
    /// Delete objects, as kubectl does
    Delete(kubectl::DeleteArgs),
    /// Show what a pod wrote, as kubectl does
    Logs(kubectl::LogsArgs),
    /// Run a command beside a container of a pod, as kubectl does; its exit code is the command's
    Exec(kubectl::ExecArgs),
    /// Set how many replicas there are, as kubectl does
    Scale(kubectl::ScaleArgs),
    /// Show the versions of this program and of the server
    Version(kubectl::VersionArgs),
    /// Write the whole state of a cluster to a file
    Backup(backup::Args),
    /// Make a new cluster of what a backup holds
    Restore(restore::Args),
    /// Show, bring and remove the images of containers that hosts have
    Image(image::Args),
    /// Check whether this machine can be a host, or how its host and the others do: exit code 1 if something is at fault
    Check(check::Args),
    /// Show how a cluster does and what would break it: exit code 1 if something isn't well
    Status(status::Args),
    /// Show every certificate of this host, when it ends and who renews it: exit code 1 if something isn't well
    Certs(certs::Args),
    /// Tell what a host's configuration says by default
    Config(configuration::Args),
    /// Print the script by which a shell completes this program's command lines
    Completion(completion::CompletionArgs),
    /// Print this program's manual page, or write those of all commands
    Man(completion::ManArgs),
    /// Print the unit by which systemd runs this machine's host
    Unit(unit::Args),
    /// Run the host whose configuration this is, as `init` and `join` write it
    Host(host::Args),
    /// Answer with the pod's name
    #[command(hide = true)]
    Web(web::Args),
}

fn main() -> ExitCode {
    // A pod's shim is this program, and none of what follows.
    if let Some(ended) = node::run_shim() {
        return ended;
    }
    // Nor is the network plugin of a runtime of others.
    if let Some(ended) = node::run_cni_plugin() {
        return ended;
    }
    if let Some(ended) = network::run_address_keeper() {
        return ended;
    }
    if let Some(ended) = fencing::run_watchdog_keeper::<fencing::SystemDevice>() {
        return ended;
    }
    files::allow_all();
    let cli = Cli::try_parse().unwrap_or_else(|error| without_misleading_tips(error).exit());
    let result = match cli.command {
        Command::Drill(args) => drill::run(args),
        Command::Predict(args) => match predict::run(args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Init(args) => on_one_thread(install::init(args)),
        Command::Join(args) => on_one_thread(install::join(args)),
        Command::Reset(args) => on_one_thread(reset::reset(args)),
        Command::Upgrade(args) => on_one_thread(upgrade::upgrade(args)),
        Command::Token(args) => on_one_thread(install::token(args)),
        Command::User(args) => on_one_thread(user::user(args)),
        Command::Up(args) => up::run(args),
        Command::Down(args) => on_one_thread(up::down(args)),
        Command::Get(args) => on_one_thread(kubectl::get(args)),
        Command::Describe(args) => on_one_thread(kubectl::describe(args)),
        Command::Apply(args) => on_one_thread(kubectl::apply(args)),
        Command::Delete(args) => on_one_thread(kubectl::delete(args)),
        Command::Logs(args) => on_one_thread(kubectl::logs(args)),
        Command::Exec(args) => match on_one_thread(kubectl::exec(args)) {
            Ok(ended) => return ended,
            Err(error) => Err(error),
        },
        Command::Scale(args) => on_one_thread(kubectl::scale(args)),
        Command::Version(args) => on_one_thread(kubectl::version(args)),
        Command::Backup(args) => on_one_thread(backup::run(args)),
        Command::Restore(args) => restore::run(args),
        Command::Image(args) => on_one_thread(image::run(args)),
        Command::Check(args) => match on_one_thread(check::run(args)) {
            Ok(ended) => return ended,
            Err(error) => Err(error),
        },
        Command::Status(args) => match on_one_thread(status::run(args)) {
            Ok(ended) => return ended,
            Err(error) => Err(error),
        },
        Command::Certs(args) => match certs::run(&args) {
            Ok(ended) => return ended,
            Err(error) => Err(error),
        },
        Command::Config(args) => configuration::run(&args),
        Command::Completion(args) => completion::completion(&args),
        Command::Man(args) => completion::man(&args),
        Command::Unit(args) => unit::run(&args),
        Command::Host(args) => host::run(args),
        Command::Web(args) => on_one_thread(web::run(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::say!("{}", kubectl::complaint(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error without the tip to pass a misspelt option as a value: nothing that these commands take begins with a dash.
fn without_misleading_tips(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(mut tips)) = error.remove(ContextKind::Suggested) {
        tips.retain(|tip| !tip.to_string().contains("as a value"));
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    error
}

/// Runs `work` where everything happens in turn: enough for a client, and small.
fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Where `up` keeps a cluster, and the client finds its kubeconfig, unless told otherwise: the XDG Base
/// Directory Specification's place for state. None where this user has no home.
fn default_dir() -> Option<PathBuf> {
    let absolute = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    Some(absolute("XDG_STATE_HOME").or_else(home)?.join("holdfast"))
}

/// The folder that is named, or the usual one.
fn dir_or_default(dir: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    dir.or_else(default_dir).context("there is no HOME to keep the cluster in; say where with --dir DIR")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Words as a person, a script or a mistake would put them.
    const ODD: [&str; 24] = [
        "",
        " ",
        "-",
        "--",
        "---",
        "=",
        "--=",
        "-h",
        "--help",
        "--version",
        "0",
        "-1",
        "99999999999999999999",
        "1e9",
        "\u{0}",
        "\u{202e}",
        "é",
        "a b",
        "'",
        "\"",
        "/dev/full",
        "../..",
        "--net=",
        "--nodes=-0",
    ];

    #[test]
    fn any_command_line_is_taken_or_refused_and_ends_with_0_or_2() {
        let mut words: Vec<String> = ODD.map(str::to_owned).to_vec();
        words.push("x".repeat(100_000));
        for command in Cli::command().get_subcommands() {
            words.push(command.get_name().to_owned());
            for argument in command.get_arguments() {
                words.extend(argument.get_long().map(|long| format!("--{long}")));
                words.extend(argument.get_short().map(|short| format!("-{short}")));
                words.extend(argument.get_possible_values().iter().map(|value| value.get_name().to_owned()));
            }
        }
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..5000 {
            let count = rng.random_range(0..7);
            let mut line = vec!["holdfast".to_owned()];
            line.extend((0..count).map(|_| words[rng.random_range(0..words.len())].clone()));
            if let Err(error) = Cli::try_parse_from(&line) {
                let error = without_misleading_tips(error);
                assert!([0, 2].contains(&error.exit_code()), "{line:?}");
                assert!(!error.to_string().is_empty(), "{line:?}");
            }
        }
    }

    #[test]
    fn the_command_line_is_made_as_it_should_be() {
        Cli::command().debug_assert();
    }
}
