//! The agent as one thing: what it needs, how it starts, how it ends.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use membership::{Lease, LeasePage};
use objects::{Recorder, Reporter, Writer};
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info_span;

use crate::addresses::{Addresses, PodAddresses, PodRange};
use crate::clock::Clock;
use crate::container::cgroup::{self, Cgroups};
use crate::csi_volumes::{CsiVolumes, NodeVolumes};
use crate::eviction::{Eviction, Pressures, hold_host, hold_storage};
use crate::foreign::{ForeignRuntime, Offer, end_former, keep, noted};
use crate::host::{Isolation, Powers};
use crate::image_garbage::collect_images;
use crate::images::Images;
use crate::manifests::{StaticPods, follow_manifests};
use crate::node::{Epochs, NodeIdentity, keep_registered, read_machine};
use crate::oci;
use crate::pods::{
    Desk, Folders, LiveContainers, PodHost, Residents, StaticBook, StaticRecords, Stop, TokenBook, UserRanges,
};
use crate::removed_volumes::remove_folders;
use crate::runtime::Runtime;
use crate::runtimes::Runtimes;
use crate::server;
use crate::shims::{ShimRuntime, end_all, end_of_bound, end_strays};
use crate::stats::{Rates, StorageBook};

/// What the agent of a host needs.
pub struct Options {
    /// The host's name.
    pub name: String,
    /// The host's address.
    pub address: IpAddr,
    /// The addresses of its pods, such as `10.244.1.0/24`.
    pub pod_cidr: IpNet,
    /// The port on which the host hears heartbeats, for the others to know: its Node says so ([`HEARTBEATS`](objects::HEARTBEATS)).
    pub heartbeats: u16,
    /// Where pods, logs and the agent's own files lie; made if it is missing.
    pub data_dir: PathBuf,
    /// What is executed as a pod's shim: a program that calls [`run_shim`](crate::run_shim) first of all.
    pub program: PathBuf,
    /// The folder that comes first on the pods' PATH; missing is fine.
    pub programs: PathBuf,
    /// The cgroups that pods' cgroups are made in, one a hierarchy, usually [`cgroup_roots`](crate::cgroup_roots). Without one,
    /// or where none can be made, pods run without.
    pub cgroups: Vec<PathBuf>,
    /// This host's images, or why it has none and so runs no containers.
    pub images: Result<Arc<dyn Images>, String>,
    /// The runtime of others that runs the pods which name no class of ours, if the host has one.
    pub foreign: Option<Foreign>,
    /// When pods are evicted.
    pub eviction: Eviction,
    /// In which order pods end as the host shuts down, and within which time. With none, all have two seconds together.
    pub shutdown: Vec<ShutdownGroup>,
    /// The folder with the manifests of the pods that the host runs by itself, if there are any.
    pub static_pods: Option<PathBuf>,
    /// Where objects are read.
    pub store: Arc<dyn Store>,
    /// Where changes are asked for.
    pub writer: Arc<dyn Writer>,
    /// Makes pods' addresses work.
    pub addresses: Arc<dyn PodAddresses>,
    /// The API's address as pods see it (`KUBERNETES_SERVICE_HOST`).
    pub service_host: IpAddr,
    /// The API's port as pods see it (`KUBERNETES_SERVICE_PORT`).
    pub service_port: u16,
    /// The addresses of the cluster's DNS as pods see it; none where this host has none.
    pub cluster_dns: Vec<IpAddr>,
    /// The host's certificate, and the authority that its callers' certificates are checked against.
    pub tls: Arc<rustls::ServerConfig>,
    /// Where the agent's own API listens, usually port 10250.
    pub listen: SocketAddr,
    /// This host's lease, with which pods stop that must not run twice. Without one they go on, and the host promises nothing.
    pub lease: Option<HostLease>,
}

/// The pods from a priority on, up to that of the next group: as the host shuts down they end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownGroup {
    /// The lowest priority of its pods. Pods below that of every group go with the lowest.
    pub priority: i32,
    /// How long they have, however long each of them asks for.
    pub grace: Duration,
}

/// A runtime of others.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// Where it listens.
    pub endpoint: cri::Endpoint,
    /// Its images.
    pub images: Arc<dyn Images>,
}

/// What an agent knows of its host's lease.
#[derive(Debug, Clone)]
pub struct HostLease {
    /// What it is worth.
    pub state: watch::Receiver<Lease>,
    /// Until when it holds, for the pods' keepers.
    pub page: LeasePage,
    /// The members whose word on leases counts.
    pub members: watch::Receiver<Arc<BTreeSet<String>>>,
    /// What stops those pods once it is over, as the Node says it.
    pub grades: watch::Receiver<Vec<objects::Grade>>,
}

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pods' range of addresses makes no sense.
    #[error(
        "{0} is not a range of IPv4 addresses of /8 to /28 for the host's pods: write it like 10.244.1.0/24"
    )]
    PodCidr(IpNet),
    /// The data folder can't be used.
    #[error("can't make the agent's folder {}: {why}; make it writable for this user or name another", path.display())]
    Data {
        /// Which folder.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The agent's address can't be listened on.
    #[error("the agent can't listen on {address}: {why}; end what uses that port or choose another")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        why: std::io::Error,
    },
    /// The agent's own open files can't be listed.
    #[error("can't keep the agent's open files from its pods: {0}; is /proc mounted?")]
    Files(std::io::Error),
}

/// Ends what a former life of the host's agent left running and no shim holds, and returns once all of it is dead.
/// `data_dir` is [`Options::data_dir`]. Also what is in a runtime of others that the host had, and has no more: `runtime` is
/// the one that it has. A host does this before it listens anywhere: a leftover may hold one of its ports.
/// Pods whose shims live are left in peace, unless one of the addresses that the host `needs` is taken. Answers the page that says until when the
/// host's lease holds, if pods run by that: its heartbeats go on with it ([`membership::Options::page`]).
pub async fn end_former_pods(
    data_dir: &Path,
    needs: &[SocketAddr],
    runtime: Option<&cri::Endpoint>,
) -> Option<LeasePage> {
    // Folders are known to processes by their real paths. Without one there was no former life.
    let data = data_dir.canonicalize().ok()?;
    let folders = Folders::new(data);
    end_former(&folders.foreign(), runtime).await;
    end_strays(folders.pods(), needs).await
}

/// Ends all pods of a host that runs no more and isn't to run again, also those in a runtime of others, and removes their cgroups: by its
/// [`Options::data_dir`], [`Options::cgroups`] and [`Options::name`]. The runtimes of others in which some may run on, as these didn't end them.
pub async fn end_all_pods(data_dir: &Path, roots: &[PathBuf], name: &str) -> Vec<String> {
    let Ok(data) = data_dir.canonicalize() else { return Vec::new() };
    let folders = Folders::new(data.clone());
    end_former(&folders.foreign(), None).await;
    end_all(folders.pods()).await;
    // Where there are none, nothing was made.
    let all = [cgroups(roots, name, &data), foreign_cgroups(roots, name, &data)];
    for cgroups in all.into_iter().flatten().map(Arc::new) {
        for uid in cgroups.pods() {
            cgroups.remove_with_others(&uid).await;
        }
        cgroups.close();
    }
    cgroup::remove_ours(roots);
    noted(&folders.foreign())
}

/// Returns once nothing is left of the pods that stop with this host's lease, which is over: then the next epoch may begin. `data_dir` is
/// [`Options::data_dir`].
pub async fn end_of_leased_pods(data_dir: &Path) {
    if let Ok(data) = data_dir.canonicalize() {
        end_of_bound(Folders::new(data).pods()).await;
    }
}

/// The folder of all pods' folders, on which each pod that stops with the host's lease holds a shared lock (flock(2)) as long as anything of it runs.
/// `data_dir` is [`Options::data_dir`].
pub fn pods_dir(data_dir: &Path) -> PathBuf {
    Folders::new(data_dir.to_owned()).pods()
}

/// A running agent. It ends with its pods by [`shutdown`](Agent::shutdown), or first of all in order by
/// [`shutdown_in_order`](Agent::shutdown_in_order), without them by [`leave`](Agent::leave). When it is dropped without any of
/// these, its pods go on too.
#[derive(Debug)]
pub struct Agent {
    stop: watch::Sender<Stop>,
    desk: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
    listening: SocketAddr,
}

impl Agent {
    /// Starts the agent: registers the host, runs its pods, serves its API. Called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error`], before anything was started.
    pub fn start(options: Options) -> Result<Agent, Error> {
        let clock = Clock::start();
        let range = PodRange::of(options.pod_cidr).ok_or(Error::PodCidr(options.pod_cidr))?;
        let data = options.data_dir;
        std::fs::create_dir_all(&data).map_err(|why| Error::Data { path: data.clone(), why })?;
        // Processes get absolute paths: they change their folder.
        let data = data.canonicalize().map_err(|why| Error::Data { path: data.clone(), why })?;
        let programs = options.programs.canonicalize().unwrap_or(options.programs);
        let listen = |why| Error::Listen { address: options.listen, why };
        let listener = std::net::TcpListener::bind(options.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
        let listening = listener.local_addr().map_err(listen)?;

        let isolation = Isolation::probe();
        tracing::debug!(?isolation, "what this host can give to a process");
        let machine = read_machine(&data);
        let from = Reporter { component: "kubelet".into(), host: Some(options.name.clone()) };
        let user = format!("system:node:{}", options.name);
        let recorder = Recorder::start(options.writer.clone(), user, from);
        let folders = Folders::new(data.clone());
        let cgroups = cgroups(&options.cgroups, &options.name, &data);
        let told_cgroups = match &cgroups {
            Ok(cgroups) if cgroups.controllers().is_empty() => "without limits".to_owned(),
            Ok(cgroups) => cgroups.controllers().to_owned(),
            Err(why) => {
                tracing::warn!(why, "pods have no cgroups: nothing holds them to their limits");
                "none".to_owned()
            }
        };
        let lease = options.lease;
        let page = lease.as_ref().map(|lease| lease.page.clone());
        let plugin = options.addresses.own_networks().is_ok().then(|| options.program.clone());
        let shims = ShimRuntime::new(folders.pods(), options.program, isolation, cgroups.ok(), page);
        let shims = shims.map_err(Error::Files)?;
        let runtime: Arc<dyn Runtime> = match &options.foreign {
            Some(Foreign { endpoint, .. }) => {
                let mark = format!("{}-{}", options.name, mark(&data));
                let file = folders.foreign();
                keep(&file, endpoint, &mark).map_err(|why| Error::Data { path: file, why })?;
                let offer =
                    plugin.map(|program| Offer { program, node: mark.clone(), book: folders.foreign() });
                let own = foreign_cgroups(&options.cgroups, &options.name, &data).ok();
                let foreign =
                    ForeignRuntime::new(cri::Client::at(endpoint), mark, folders.clone(), own, offer);
                Arc::new(Runtimes { shims, foreign })
            }
            None => Arc::new(shims),
        };
        let book = Addresses::open(&folders.addresses(), range);
        let static_records = StaticRecords::open(folders.static_pods());
        let (told_pressures, pressures) = watch::channel(Pressures::default());
        let csi = Arc::new(CsiVolumes::open(
            options.name.clone(),
            folders.clone(),
            options.store.clone(),
            options.writer.clone(),
            recorder.clone(),
            clock,
        ));
        let plugins = folders.plugins_registry();
        let (tell_registered, registered) = watch::channel(None);
        let told = lease.as_ref().map(|lease| (lease.state.clone(), lease.grades.clone()));
        let epochs = told.map(|(lease, grades)| Epochs { lease, grades, registered: tell_registered });
        let host = Arc::new(PodHost {
            name: options.name.clone(),
            address: options.address,
            store: options.store.clone(),
            writer: options.writer.clone(),
            own_networks: options.addresses.own_networks(),
            network: options.addresses,
            addresses: Mutex::new(book),
            folders,
            recorder,
            clock,
            powers: Powers::read(isolation),
            containers: oci::probe().and(options.images),
            app_armor: oci::HostAppArmor::read(),
            foreign_images: options.foreign.map(|foreign| foreign.images),
            user_ranges: UserRanges::default(),
            programs: programs.clone(),
            runtime,
            lease,
            registered,
            running: LiveContainers::default(),
            residents: Residents::default(),
            static_pods: StaticBook::default(),
            static_records,
            shutdown: options.shutdown,
            closing: watch::Sender::new(false),
            tokens: TokenBook::default(),
            storage: StorageBook::default(),
            rates: Rates::default(),
            pressures: pressures.clone(),
            csi: csi.clone(),
            capacity: (machine.cpus * 1000, machine.memory_kib << 10),
            cluster_dns: options.cluster_dns,
            variables: variables(&programs, options.service_host, options.service_port),
        });
        let identity = NodeIdentity {
            name: options.name,
            address: options.address,
            pod_cidr: range.network(),
            port: listening.port(),
            heartbeats: options.heartbeats,
            cgroups: told_cgroups,
            volumes: host.folders.volumes().display().to_string(),
            handlers: handlers(&host),
            csi: NodeVolumes::default(),
            lease: None,
            grades: vec![objects::Grade::Lease],
        };
        // Those of the runtime that pods without a class have.
        let images = host.foreign_images.clone().or_else(|| host.containers.clone().ok());
        let (stop, stopped) = watch::channel(Stop::No);
        // Where there is no folder, it is known already that there are none.
        let none = options.static_pods.is_none().then(StaticPods::default);
        let (show_manifests, manifests) = watch::channel(none);
        let desk = Desk::new(host.clone(), manifests);
        let mut others = vec![
            tasks::spawn(
                info_span!("keep the Node"),
                keep_registered(
                    identity,
                    (csi.clone(), epochs),
                    data,
                    options.store,
                    options.writer,
                    (images, pressures, host.closing.subscribe()),
                    clock,
                ),
            ),
            tasks::spawn(info_span!("remove volumes"), remove_folders(host.clone())),
            tasks::spawn(info_span!("follow storage drivers"), csi::follow(plugins, csi.clone())),
            tasks::spawn(info_span!("unstage volumes"), csi.unstage_unused()),
            tasks::spawn(info_span!("look after images"), collect_images(host.clone())),
            tasks::spawn(
                info_span!("hold storage"),
                hold_storage(host.clone(), desk.reports(), options.eviction.every),
            ),
            tasks::spawn(
                info_span!("hold the host"),
                hold_host(host.clone(), options.eviction, told_pressures, desk.reports()),
            ),
            tasks::spawn(info_span!("agent server"), server::serve(listener, options.tls, host.clone())),
        ];
        if let Some(folder) = options.static_pods {
            let following = follow_manifests(host, folder, show_manifests);
            others.push(tasks::spawn(info_span!("follow manifests"), following));
        }
        let desk = tasks::spawn(info_span!("agent"), desk.run(stopped));
        Ok(Agent { stop, desk, others, listening })
    }

    /// Where the agent's API listens.
    pub fn listening(&self) -> SocketAddr {
        self.listening
    }

    /// Ends the agent: asks all processes to end, kills them after two seconds, and leaves the pods' objects
    /// as they are.
    pub async fn shutdown(mut self) {
        for task in &self.others {
            task.abort();
        }
        self.stop.send_replace(Stop::Now);
        let _ = (&mut self.desk).await;
    }

    /// Ends the agent as its host shuts down: the Node says so, no pod is taken any more, and those that there are end group by group
    /// ([`Options::shutdown`]) and say that they failed with their host. As soon as `hurry` is done the rest ends as by
    /// [`shutdown`](Agent::shutdown).
    pub async fn shutdown_in_order(mut self, hurry: impl Future<Output = ()>) {
        self.stop.send_replace(Stop::InOrder);
        tokio::select! {
            _ = &mut self.desk => self.others.iter().for_each(JoinHandle::abort),
            () = hurry => self.shutdown().await,
        }
    }

    /// Ends the agent and leaves its pods to their shims: the next agent of this host takes them over. Returns once nothing
    /// of the agent works any more.
    pub async fn leave(mut self) {
        self.desk.abort();
        self.others.iter().for_each(JoinHandle::abort);
        let _ = (&mut self.desk).await;
        for task in std::mem::take(&mut self.others) {
            let _ = task.await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.desk.abort();
        self.others.iter().for_each(JoinHandle::abort);
    }
}

/// The cgroups of this host's pods, or why there are none. Two hosts of one name may share a machine, but not a folder: its
/// path is a part of the cgroup's name.
fn cgroups(roots: &[PathBuf], name: &str, data: &Path) -> Result<Cgroups, String> {
    Cgroups::open(roots, format!("{name}-{}", mark(data)))
}

/// Those in which a runtime of others makes its own.
fn foreign_cgroups(roots: &[PathBuf], name: &str, data: &Path) -> Result<Cgroups, String> {
    Cgroups::open(roots, format!("{name}-{}-cri", mark(data)))
}

/// What tells the hosts of one name apart that share a machine.
fn mark(data: &Path) -> String {
    let of_path = ring::digest::digest(&ring::digest::SHA256, data.as_os_str().as_encoded_bytes());
    of_path.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The handlers of RuntimeClasses that this host has; the one without a name is that of pods without a class. What others a runtime of
/// others has, it says to who asks for one.
fn handlers(host: &PodHost) -> Vec<&'static str> {
    let (own, foreign) = (host.containers.is_ok(), host.foreign_images.is_some());
    let all = [("", own || foreign), ("cri", foreign), ("host", true), ("oci", own)];
    all.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
}

/// Where programs are looked for, after the agent's own folder: never on the PATH that the agent was started with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables of every container: the API's place, and a PATH.
fn variables(programs: &Path, service_host: IpAddr, service_port: u16) -> Vec<(String, String)> {
    let path = format!("{}:{PATH}", programs.display());
    let host = service_host.to_string();
    let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let url = format!("tcp://{shown}:{service_port}");
    let port = service_port.to_string();
    [
        ("PATH", &*path),
        ("KUBERNETES_SERVICE_HOST", &host),
        ("KUBERNETES_SERVICE_PORT", &port),
        ("KUBERNETES_SERVICE_PORT_HTTPS", &port),
        ("KUBERNETES_PORT", &url),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
