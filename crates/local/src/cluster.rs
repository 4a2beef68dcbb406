//! The cluster: hosts that start, lose their power, come back and stop.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime};

use futures::future::{join_all, select_all};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::debug_span;

use crate::addresses::{Addresses, NetKind};
use crate::component::Component;
use crate::disks::Disks;
use crate::folder::Folder;
use crate::island::Island;
use crate::power::{Power, Running};
use crate::process::{HostProcess, Starter};
use crate::stall::{self, Syncs};
use crate::switch::{Switch, SwitchAddresses};
use crate::who_has::WhoHas;
use crate::{link, process, switch, tree};

mod faults;

/// How long hosts may take to stop before they are killed.
const STOPPING: Duration = Duration::from_secs(3);
/// How often a host that stops is looked at, so that what it leaves behind is known.
const LOOK: Duration = Duration::from_millis(20);

/// Why the cluster can't do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such host.
    #[error("there is no host {0}")]
    NoHost(String),
    /// The host is off.
    #[error("host {0} is off")]
    Off(String),
    /// The host is on.
    #[error("host {0} is on")]
    On(String),
    /// Hosts have no links.
    #[error("on loopback hosts have no links of their own; use --net netns")]
    NoLinks,
    /// The folder's cluster was made for another network.
    #[error("the cluster's folder was made for --net {0}")]
    OtherNet(NetKind),
    /// No disk of this cluster can stall.
    #[error("the hosts' disks can't stall: the cluster was started without that")]
    NoStalls,
    /// Syncs can't be held up.
    #[error(
        "can't have the hosts' disks stall: {0}; that needs Linux 5.5 or newer, with filters of system calls (CONFIG_SECCOMP_FILTER)"
    )]
    Stall(std::io::Error),
    /// A process that isn't there can't be killed.
    #[error("no {} runs on host {host}: {}", .component.name(), .component.whereabouts())]
    NoComponent {
        /// The host.
        host: String,
        /// Of which kind.
        component: Component,
    },
    /// No disk of this cluster can be filled.
    #[error("the hosts have no disks of their own that could be filled")]
    NoOwnDisks,
    /// A disk can't be filled, or emptied.
    #[error("can't fill or empty the disk of host {host}: {why}")]
    Fill {
        /// The host.
        host: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// The switch.
    #[error(transparent)]
    Switch(#[from] switch::Error),
    /// A link.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// A host's process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The processes of a host.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// What the system said.
    #[error("can't run a cluster: {0}")]
    System(std::io::Error),
}

impl From<std::io::Error> for Error {
    fn from(why: std::io::Error) -> Self {
        Error::System(why)
    }
}

/// The network between the hosts.
#[derive(Debug)]
pub enum Net {
    /// Namespaces, links and a bridge, in an island that this process has entered.
    Netns(Island),
    /// Loopback, with a switch at these addresses.
    Loopback(SwitchAddresses),
}

impl Net {
    /// Which kind it is.
    pub fn kind(&self) -> NetKind {
        match self {
            Self::Netns(_) => NetKind::Netns,
            Self::Loopback(_) => NetKind::Loopback,
        }
    }
}

/// What a cluster is started with.
#[derive(Debug)]
pub struct Options {
    /// The cluster's folder.
    pub folder: Folder,
    /// The program that each host runs.
    pub program: PathBuf,
    /// Its arguments; `--config FILE` is added.
    pub arguments: Vec<OsString>,
    /// The network.
    pub net: Net,
    /// The disks.
    pub disks: Disks,
}

/// When a cut took effect, on both kinds of clock: not before this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// For measuring in this process.
    pub instant: Instant,
    /// For comparing with what hosts write down.
    pub wall: SystemTime,
}

impl Cut {
    #[allow(clippy::disallowed_methods)] // A driver: a cut happens now.
    fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}

enum Wires {
    Netns(link::Bridge, Island),
    Loopback(#[allow(dead_code, reason = "held: the switch runs until it is dropped")] Switch),
}

struct Host {
    number: u8,
    /// Stays when the host's process ends by itself: the machine is still there, with pods on it.
    namespace: Option<link::HostNamespace>,
    power: Power,
    /// Where its disk can stall: what it is started from then, and what answers its syncs.
    stalling: Option<(Starter, Syncs)>,
}

/// A running cluster. Dropped without [`Cluster::stop`], it kills everything on its hosts.
pub struct Cluster {
    folder: Folder,
    program: PathBuf,
    arguments: Vec<OsString>,
    wires: Wires,
    hosts: BTreeMap<String, Host>,
    starter: Starter,
    /// Held: what is mounted goes with it, after all that runs there.
    disks: Disks,
}

impl Cluster {
    /// Starts the network and then all hosts. Returns when the hosts' processes run, not when they are ready.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let Options { folder, program, arguments, net, disks } = options;
        if folder.record().net != net.kind() {
            return Err(Error::OtherNet(folder.record().net));
        }
        let wires = match net {
            Net::Netns(island) => Wires::Netns(link::Bridge::build(&island).await?, island),
            Net::Loopback(addresses) => Wires::Loopback(Switch::start(addresses).await?),
        };
        let host = |(number, name): (u8, String)| -> Result<_, Error> {
            let stalling = match disks {
                Disks::Common | Disks::Own(_) => None,
                Disks::Stalling => Some(stalling().map_err(Error::Stall)?),
            };
            Ok((name, Host { number, namespace: None, power: Power::Off, stalling }))
        };
        let hosts = Addresses::hosts(folder.record().nodes).map(host).collect::<Result<_, _>>()?;
        let mut cluster = Self { folder, program, arguments, wires, hosts, starter: Starter::new()?, disks };
        for name in cluster.hosts() {
            cluster.power_on(&name).await?;
        }
        Ok(cluster)
    }

    /// The names of the hosts.
    pub fn hosts(&self) -> Vec<String> {
        self.hosts.keys().cloned().collect()
    }

    /// The cluster's folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Whether a host is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.hosts.get(name).is_some_and(|host| matches!(host.power, Power::On(_)))
    }

    fn host(&mut self, name: &str) -> Result<&mut Host, Error> {
        self.hosts.get_mut(name).ok_or_else(|| Error::NoHost(name.into()))
    }

    /// The process of a host that is on, which is off for this cluster from now on.
    fn take_running(&mut self, name: &str) -> Result<Running, Error> {
        let host = self.host(name)?;
        match host.power.take() {
            Power::On(running) => Ok(running),
            other => {
                host.power = other;
                Err(Error::Off(name.into()))
            }
        }
    }

    /// Cuts a host's power, as a pulled plug does: it falls silent, and no FIN or RST gives it away. In
    /// namespaces the link goes down, then everything on the host is killed; on loopback everything on it is
    /// frozen until [`Cluster::bury`].
    pub async fn cut(&mut self, name: &str) -> Result<Cut, Error> {
        let running = self.take_running(name)?;
        let host = self.host(name)?;
        let number = host.number;
        host.namespace = None;
        let cut = Cut::now();
        match &self.wires {
            Wires::Netns(bridge, _) => {
                // Killed whether the link went down or not: half a cut would leave a host running that counts as
                // off. And in this order: the kernel of a host whose processes die first closes their connections,
                // which gives the death away.
                let is_down = bridge.cut(number).await;
                end(running).await?;
                is_down?;
                bridge.unplug(number).await?;
            }
            Wires::Loopback(_) => {
                let (running, frozen) = on_a_thread(move || {
                    let frozen = tree::freeze(&running.roots());
                    (running, frozen)
                })
                .await?;
                // Also if some of it didn't freeze: `bury` must find all of it.
                self.host(name)?.power = Power::Frozen(running);
                frozen?;
            }
        }
        Ok(cut)
    }

    /// Kills what a cut left frozen. Where nothing is, there is nothing to do.
    pub async fn bury(&mut self, name: &str) -> Result<(), Error> {
        let host = self.host(name)?;
        match host.power.take() {
            Power::Frozen(running) => end(running).await,
            other => {
                host.power = other;
                Ok(())
            }
        }
    }

    /// Switches a host on: a new process, with the same folder and the same hardware address.
    pub async fn power_on(&mut self, name: &str) -> Result<(), Error> {
        self.bury(name).await?;
        let host = self.host(name)?;
        let number = host.number;
        if matches!(host.power, Power::On(_)) {
            return Err(Error::On(name.into()));
        }
        let kept = host.namespace.take();
        let namespace = match (&self.wires, kept) {
            (Wires::Netns(..), Some(kept)) => Some(kept),
            (Wires::Netns(bridge, _), None) => Some(bridge.plug(number).await?),
            (Wires::Loopback(_), _) => None,
        };
        let folder = real(&self.folder.host(name));
        let mut arguments = self.arguments.clone();
        arguments.extend(["--config".into(), self.folder.config_file(name).into()]);
        let stalling = self.hosts.get(name).and_then(|host| host.stalling.as_ref());
        let child = stalling
            .map_or(&self.starter, |(starter, _)| starter)
            .start(HostProcess {
                name: name.into(),
                program: self.program.clone(),
                arguments,
                log: self.folder.log(name),
                namespace: namespace.as_ref().map(link::HostNamespace::handle).transpose()?,
            })
            .await?;
        let network = namespace.as_ref().map(link::HostNamespace::inode).transpose()?;
        let host = self.host(name)?;
        host.namespace = namespace;
        host.power = Power::On(Running { child, folder, network });
        Ok(())
    }

    /// Asks the hosts who has an address; nothing on loopback, where the switch alone knows, and knows one.
    ///
    /// # Errors
    /// No socket for that.
    pub fn who_has(&self) -> std::io::Result<Option<WhoHas>> {
        match &self.wires {
            Wires::Netns(bridge, _) => bridge.who_has().map(Some),
            Wires::Loopback(_) => Ok(None),
        }
    }

    /// Waits until a host's process ends by itself, and says which it was. The host is off then; its pods may
    /// live on and are found again when it is switched on. Waits forever while no host is on.
    pub async fn host_ended(&mut self) -> (String, std::io::Result<ExitStatus>) {
        let waits: Vec<_> = self
            .hosts
            .iter_mut()
            .filter_map(|(name, host)| match &mut host.power {
                Power::On(running) => Some(Box::pin(async move { (name.clone(), running.ended().await) })),
                _ => None,
            })
            .collect();
        if waits.is_empty() {
            std::future::pending::<()>().await;
        }
        let ((name, status), _, _) = select_all(waits).await;
        if let Some(host) = self.hosts.get_mut(&name) {
            host.power = Power::Off;
        }
        (name, status)
    }

    /// The number of a host's own process, while it is there.
    pub fn pid(&self, name: &str) -> Option<i32> {
        self.hosts.get(name)?.power.running()?.pid()
    }

    /// The resident memory of a host's own process, in bytes; its pods don't count.
    pub fn resident_memory(&self, name: &str) -> Option<u64> {
        tree::resident_memory(self.pid(name)?)
    }

    /// The most that a host's own process has held in memory since it began or since [`Cluster::forget_peaks`], in
    /// bytes.
    pub fn peak_memory(&self, name: &str) -> Option<u64> {
        tree::peak_memory(self.pid(name)?)
    }

    /// From now on [`Cluster::peak_memory`] counts anew. Where the system refuses, it goes on counting.
    pub fn forget_peaks(&self) {
        for pid in self.hosts.keys().filter_map(|name| self.pid(name)) {
            if let Err(error) = tree::forget_peak(pid) {
                tracing::debug!(%error, pid, "the most memory that a host has held stays that of its whole life");
            }
        }
    }

    /// The time that a host's own process has spent on a processor; its pods don't count.
    pub fn processor_time(&self, name: &str) -> Option<Duration> {
        tree::processor_time(self.pid(name)?)
    }

    /// Stops all hosts: asks them to, waits for up to three seconds, kills what is left, and removes the links.
    pub async fn stop(mut self) -> Result<(), Error> {
        let stopping = self.hosts.values_mut().filter_map(|host| match host.power.take() {
            Power::Off => None,
            Power::Frozen(running) => Some((running, false)),
            Power::On(running) => Some((running, true)),
        });
        let stopped = join_all(stopping.map(|(running, gently)| async move {
            if gently { stop(running, STOPPING).await } else { end(running).await }
        }))
        .await;
        // A host that ended by itself left its pods behind.
        let folder = real(self.folder.path());
        on_a_thread(move || tree::kill_all(&tree::shims(&folder))).await??;
        if let Wires::Netns(bridge, _) = &self.wires {
            for host in self.hosts.values() {
                bridge.unplug(host.number).await?;
            }
        }
        stopped.into_iter().collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in self.hosts.values_mut() {
            if let Some(running) = host.power.running()
                && let Err(error) = running.kill()
            {
                tracing::warn!(%error, "something is left of a host");
            }
        }
        if let Err(error) = tree::kill_all(&tree::shims(&real(self.folder.path()))) {
            tracing::warn!(%error, "pods are left of a host");
        }
    }
}

/// A thread to start a host from whose syncs wait for an answer, and what answers them.
fn stalling() -> std::io::Result<(Starter, Syncs)> {
    let (starter, listener) = Starter::after(stall::ask_before_syncs)?;
    Ok((starter, Syncs::answered(listener)?))
}

/// As processes know a folder.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// Kills everything on a host and waits for its process.
async fn end(running: Running) -> Result<(), Error> {
    let (mut running, killed) = on_a_thread(move || {
        let killed = running.kill();
        (running, killed)
    })
    .await?;
    killed?;
    running.ended().await?;
    Ok(())
}

/// Asks a host to stop, and kills what is left of it in the end: pods outlive a host's process.
async fn stop(mut running: Running, patience: Duration) -> Result<(), Error> {
    let key = |process: tree::Process| ((process.pid, process.started), process);
    // Looked at before the host is asked, as it may be gone at once.
    let mut known: BTreeMap<(i32, u64), tree::Process> = running.tree().into_iter().map(key).collect();
    let mut looks = tokio::time::interval(LOOK);
    let asked = running.pid().map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
    let deadline = tokio::time::sleep(patience);
    let mut deadline = std::pin::pin!(deadline);
    while asked == Some(Ok(())) {
        known.extend(running.tree().into_iter().map(key));
        tokio::select! {
            _ = running.child.wait() => break,
            _ = looks.tick() => {}
            () = &mut deadline => break,
        }
    }
    let roots = running.roots();
    let left: Vec<tree::Process> = known.into_values().collect();
    on_a_thread(move || {
        tree::kill_these(&left)?;
        tree::kill_all(&roots)
    })
    .await??;
    running.ended().await?;
    Ok(())
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tasks::blocking(debug_span!("processes"), work)
        .await
        .map_err(|error| Error::System(std::io::Error::other(error)))
}
