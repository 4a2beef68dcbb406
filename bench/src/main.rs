//! Measurements of the whole program, one subcommand a question. Each prints a table to stdout and, with
//! `--json FILE`, writes its numbers.

mod api;
mod cluster;
mod dns;
mod hostile;
mod pods;
mod process;
mod scale;
mod store;
mod up;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Measures Holdfast")]
struct Cli {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand)]
enum Question {
    /// How fast three hosts are ready, and what they take when idle
    Cluster(cluster::Args),
    /// How fast the API is, and what it takes
    Api(api::Args),
    /// How fast names are answered for, beside another DNS server
    Dns(dns::Args),
    /// What clients that mean no good cost a host, and the others
    Hostile(hostile::Args),
    /// How fast a container starts, and what a pod takes, beside containerd and runc
    Pods(pods::Args),
    /// How fast pods are placed and replaced with thousands of hosts
    Scale(scale::Args),
    /// How fast the store is, beside etcd
    Store(store::Args),
    /// Loads one member of a store; started by the others
    #[command(hide = true)]
    Member,
    /// Serves the API of one host; started by the others
    #[command(hide = true)]
    ApiHost,
    /// Answers for names as one host; started by the others
    #[command(hide = true)]
    DnsHost(dns::host::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().question {
        Question::Cluster(args) => cluster::run(&args),
        Question::Api(args) => api::run(&args),
        Question::Dns(args) => dns::run(&args),
        Question::DnsHost(args) => dns::host::run(&args),
        Question::Hostile(args) => hostile::run(&args),
        Question::Pods(args) => pods::run(&args),
        Question::Scale(args) => scale::run(&args),
        Question::ApiHost => api::host::run(),
        Question::Store(args) => store::run(&args),
        Question::Member => store::member::run(),
    }
}

/// The program, built beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("holdfast");
    anyhow::ensure!(
        program.exists(),
        "{} is not there: build it first with `cargo build --release`",
        program.display()
    );
    Ok(program)
}
