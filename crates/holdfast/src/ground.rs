//! What a cluster on this machine stands on: its folder, its network, and a port that leads to it. All of it
//! is made while the process has one thread.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use local::{Folder, Island, Net, NetKind, Permission, SwitchAddresses};

/// The kind of network, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetChoice {
    /// Namespaces where this machine allows them, else loopback
    Auto,
    /// Each host in a network namespace of its own
    Netns,
    /// All hosts on this machine's loopback addresses
    Loopback,
}

/// The folder, the network and the port.
pub struct Ground {
    /// The cluster's folder.
    pub folder: Folder,
    /// The hosts' network. In namespaces, this process is in it.
    pub net: Net,
    /// A port of the machine's own loopback, to be passed on to the API.
    pub door: Option<TcpListener>,
}

impl Ground {
    /// Opens or makes the folder `dir` of a cluster of `nodes` hosts (those it has, or three), binds `port`
    /// of 127.0.0.1 if one is asked for, and enters the hosts' network.
    pub fn prepare(
        dir: &Path,
        nodes: Option<usize>,
        choice: NetChoice,
        port: Option<u16>,
    ) -> anyhow::Result<Ground> {
        let record = Folder::record_in(dir)?;
        let kind = match (choice, &record) {
            (NetChoice::Netns, _) => NetKind::Netns,
            (NetChoice::Loopback, _) => NetKind::Loopback,
            (NetChoice::Auto, Some(record)) => record.net,
            (NetChoice::Auto, None) => match Island::permission()? {
                Permission::Granted => NetKind::Netns,
                Permission::Refused(why) => {
                    eprintln!("no network namespaces here ({why}): the hosts live on loopback");
                    NetKind::Loopback
                }
            },
        };
        let nodes = nodes.or(record.map(|record| record.nodes)).unwrap_or(3);
        let folder = Folder::open_or_create(dir, nodes, kind)?;
        let door = port.map(bind).transpose()?;
        let net = match kind {
            NetKind::Netns => Net::Netns(Island::enter()?),
            NetKind::Loopback => Net::Loopback(SwitchAddresses::default()),
        };
        Ok(Ground { folder, net, door })
    }
}

fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "port {port} of 127.0.0.1 is in use; give another with --port, or 0 for a free one"
            )
        }
        _ => anyhow::Error::new(error).context(format!("can't listen on port {port} of 127.0.0.1")),
    })
}

/// This program, for the hosts to run.
pub fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("can't find this program's own file")
}

/// The runtime of a launcher: what it does is wait and pass bytes on.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
