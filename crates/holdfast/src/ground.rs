//! What a cluster on this machine stands on: its folder, its network, and a port that leads to it. All of it
//! is made while the process has one thread.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use config::Datastore;
use local::{
    Addresses, ClusterPlan, ClusterRecord, Crossing, Ferry, Folder, Forward, Island, Net, NetKind, Outside,
    Permission, SwitchAddresses,
};

use crate::datastore;
use crate::tell::{quoted, say};

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

impl NetChoice {
    /// The kind that is meant: that of the cluster which is there, or the best that the machine allows. To be asked
    /// while the process has one thread.
    pub fn kind(self, record: Option<&ClusterRecord>) -> anyhow::Result<NetKind> {
        Ok(match (self, record) {
            (NetChoice::Netns, _) => NetKind::Netns,
            (NetChoice::Loopback, _) => NetKind::Loopback,
            (NetChoice::Auto, Some(record)) => record.net,
            (NetChoice::Auto, None) => match Island::permission()? {
                Permission::Granted => NetKind::Netns,
                Permission::Refused(why) => {
                    say!("no network namespaces here ({why}): the hosts live on loopback");
                    NetKind::Loopback
                }
            },
        })
    }
}

/// ForwardedPorts of this machine's own loopback that lead into a cluster.
#[derive(Debug, Clone, Copy)]
pub struct ForwardedPorts {
    /// The API's; 0 takes a free one.
    pub api: u16,
    /// That of etcd's API; none takes 2379, or a free one where somebody else has that.
    pub etcd: Option<u16>,
}

/// The ports, bound.
pub struct Doors {
    pub api: TcpListener,
    pub etcd: TcpListener,
}

/// The folder, the network and the ports.
pub struct Ground {
    /// The cluster's folder.
    pub folder: Folder,
    /// The hosts' network. In namespaces, this process is in it.
    pub net: Net,
    /// To be passed on into the cluster.
    pub doors: Option<Doors>,
    /// The ways of the hosts to the etcd outside that their state lies in.
    pub crossings: Vec<Crossing>,
    /// Removes the cluster from its etcd, once it is asked to.
    pub removal: Option<Outside>,
}

/// What a cluster is asked to stand on.
pub struct Wish {
    /// How many hosts; none for those that the folder has, or three.
    pub nodes: Option<usize>,
    /// The hosts' network.
    pub net: NetChoice,
    /// ForwardedPorts that lead into the cluster.
    pub ports: Option<ForwardedPorts>,
    /// The etcd that the cluster's state lies in; none for that which the folder knows, or the hosts' own store.
    pub datastore: Option<Datastore>,
    /// The file that tells the hosts about registries of images; none for what the folder knows.
    pub registries: Option<PathBuf>,
    /// The folder with the manifests of the pods that each host runs by itself; none for what the folder knows.
    pub static_pods: Option<PathBuf>,
    /// The runtime of others that runs the hosts' containers; none for what the folder knows.
    pub runtime: Option<String>,
    /// Whether the cluster is to be removed from its etcd in the end.
    pub passes: bool,
}

impl Ground {
    /// Opens or makes the folder `dir` of a cluster, binds the ports of 127.0.0.1, and enters the hosts' network.
    /// The etcd that the cluster's state lies in, where it has one, must answer.
    pub fn prepare(dir: &Path, wish: Wish) -> anyhow::Result<Ground> {
        let Wish { nodes, net: choice, ports, datastore, registries, static_pods, runtime, passes } = wish;
        let record = Folder::record_in(dir)?;
        let kind = choice.kind(record.as_ref())?;
        let mut plan =
            ClusterPlan::new(nodes.or(record.as_ref().map(|record| record.nodes)).unwrap_or(3), kind);
        if let Some(record) = &record {
            plan.id.clone_from(&record.id);
        }
        let etcd = datastore.clone().or(record.and_then(|record| record.datastore));
        plan.datastore = datastore;
        plan.registries = registries;
        plan.static_pods = static_pods;
        plan.runtime = runtime;
        let mut ferries = Vec::new();
        if let Some(etcd) = &etcd {
            check(etcd, &plan.id)?;
            if kind == NetKind::Netns {
                for endpoint in &etcd.endpoints {
                    let (host, port) = datastore::place(endpoint)?;
                    ferries.push(Ferry::launch(&host, port)?);
                }
            }
        }
        let removal = etcd.as_ref().filter(|_| passes).map(|etcd| removal(etcd, &plan.id)).transpose()?;
        // Before the folder is made: a port in use leaves nothing behind.
        let doors = ports.map(ForwardedPorts::bind).transpose()?;
        let folder = Folder::open_or_make(dir, plan)?;
        let net = match kind {
            NetKind::Netns => Net::Netns(Island::enter()?),
            NetKind::Loopback => Net::Loopback(SwitchAddresses::default()),
        };
        let places = folder.addresses().datastore(ferries.len());
        let crossings = places.into_iter().zip(ferries).map(|(at, ferry)| Crossing::bind(at, ferry));
        let crossings = crossings.collect::<Result<_, _>>().context("can't prepare the way to etcd")?;
        Ok(Ground { folder, net, doors, crossings, removal })
    }
}

/// Tries the etcd out, by a child: this process must have one thread still.
fn check(etcd: &Datastore, cluster: &str) -> anyhow::Result<()> {
    let config = datastore::config(etcd, "launcher", cluster)?;
    let complaint = Outside::prepare(|| said(etcd::Engine::check(&config)))?.run()?;
    anyhow::ensure!(complaint.is_empty(), complaint);
    Ok(())
}

/// Prepares to remove a cluster from its etcd.
fn removal(etcd: &Datastore, cluster: &str) -> anyhow::Result<Outside> {
    let config = datastore::config(etcd, "launcher", cluster)?;
    Ok(Outside::prepare(|| said(etcd::Engine::remove(&config)))?)
}

/// What went wrong; nothing if nothing did.
fn said(work: impl Future<Output = Result<(), etcd::EngineError>>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map(|runtime| runtime.block_on(work));
    match outcome {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Opens the hosts' ways to the etcd outside; they close when the answer is dropped.
pub fn open(crossings: Vec<Crossing>) -> std::io::Result<Vec<Forward>> {
    crossings.into_iter().map(Crossing::open).collect()
}

/// The ways into a cluster; they close when this is dropped.
pub struct Ways {
    /// To the API.
    pub api: Forward,
    /// To the store, by etcd's API, of whichever host answers.
    pub etcd: Forward,
}

impl Doors {
    /// Passes on what comes.
    pub fn open(self, folder: &Folder) -> std::io::Result<Ways> {
        let addresses = folder.addresses();
        let hosts = addresses.peers(folder.record().nodes).into_values();
        let stores = hosts.map(|host| (host, Addresses::ETCD_PORT).into()).collect();
        let api = local::forward(self.api, vec![addresses.api()])?;
        Ok(Ways { api, etcd: local::forward(self.etcd, stores)? })
    }
}

impl Ways {
    /// The command line with which etcdctl gets in; none where the state lies in an etcd of its own.
    pub fn etcdctl(&self, folder: &Folder) -> Option<String> {
        if folder.record().datastore.is_some() {
            return None;
        }
        let file = |name: &str| quoted(folder.pki().join(name));
        Some(format!(
            "ETCDCTL_API=3 etcdctl --endpoints=https://{} --cacert={} --cert={} --key={}",
            self.etcd.address(),
            file("ca.crt"),
            file("admin.crt"),
            file("admin.key"),
        ))
    }
}

impl ForwardedPorts {
    fn bind(self) -> anyhow::Result<Doors> {
        let api = bind(self.api, "--port")?;
        let etcd = match self.etcd {
            Some(port) => bind(port, "--etcd-port")?,
            None => bind(Addresses::ETCD_PORT, "--etcd-port").or_else(|_| bind(0, "--etcd-port"))?,
        };
        Ok(Doors { api, etcd })
    }
}

fn bind(port: u16, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!(
                "port {port} of 127.0.0.1 is in use; give another with {option}, or 0 for a free one"
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
