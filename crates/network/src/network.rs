//! A host's network: everything put together.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::IpNet;
use membership::{Hosts, LeasePage};
use store::Store;
use tasks::SpawnIn;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info_span;

use crate::address_keeper::Keeper;
use crate::announce::{AddressKind, Announcer, Entry, Stands};
use crate::dial::Dialer;
use crate::fenced::{CutOff, Fence};
use crate::follow::follow;
use crate::held_addresses::{self, LoadBalancing};
use crate::host_ports::{HostPort, HostPorts, Taken};
use crate::keeper::{self, Others, Wanted};
use crate::neighbours;
use crate::netlink::Netlink;
use crate::on_link::OnLink;
use crate::pod_links::PodLinks;
use crate::proxy::{ListenAt, Proxy};
use crate::virtual_address::{self, Company, Holder};
use crate::{Error, Protocol, Scope, Services};

/// How this host is connected with the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It has a network namespace (or a machine) for itself.
    Namespaces {
        /// The link to the other hosts, such as `eth0`.
        link: String,
    },
    /// It shares the machine's loopback network with the others.
    Loopback {
        /// Where the switch listens for announcements.
        switch: SocketAddr,
    },
}

/// A host's place in the cluster's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostNetwork {
    /// Its address.
    pub address: IpAddr,
    /// The addresses of its pods.
    pub pods: IpNet,
}

/// An address of a service that each host answers for by itself, such as the cluster's DNS: whatever dies, a caller never
/// depends on another host. The proxy leaves it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// By which protocol.
    pub protocol: Protocol,
    /// The address.
    pub address: SocketAddr,
    /// Where this host listens for it, if that isn't the address itself: on loopback, where the switch has that.
    pub at: SocketAddr,
}

/// What the network needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// This host's name.
    pub name: String,
    /// How it is connected.
    pub mode: Mode,
    /// All hosts, this one included, as they come and go. The entry of this host counts at the start.
    pub hosts: watch::Receiver<Arc<BTreeMap<String, HostNetwork>>>,
    /// The addresses of the services.
    pub services: IpNet,
    /// The addresses of all hosts' pods: to them pods speak in their own name, to everybody else in their host's.
    pub cluster: IpNet,
    /// Addresses of services that this host answers for by itself.
    pub answered: Vec<Answered>,
    /// The API's virtual address and port.
    pub virtual_address: SocketAddr,
    /// Where this host says until when its lease holds, and until when it stands for the API.
    pub page: LeasePage,
    /// How this host finds out, as the leader, that it is cut off; nothing where leadership isn't for the members to give.
    pub company: Option<Company>,
    /// This program, by which it starts the keeper of the addresses on its link; none where nobody keeps them but this process.
    pub program: Option<PathBuf>,
    /// What it takes to hold addresses of Services of type LoadBalancer; nothing where there are none.
    pub load_balancing: Option<LoadBalancing>,
    /// What it takes to drop what fenced hosts send; nothing where that isn't to be. On loopback it can't be.
    pub cut_off: Option<CutOff>,
    /// How many connections the proxy carries at once; each takes two open files.
    pub most_connections: usize,
}

/// The running network of this host; ends when it is dropped. [`stop`](Network::stop) ends it in order.
#[derive(Debug)]
pub struct Network {
    own: HostNetwork,
    dialer: Arc<Dialer>,
    /// The links of pods with networks of their own, or why pods have none.
    pods: Result<PodLinks, String>,
    host_ports: HostPorts,
    taken: Taken,
    stop: watch::Sender<bool>,
    /// The one that holds addresses of services, and what asks it to give them up.
    addresses: Addresses,
    /// These end by themselves once they are asked to stop.
    ending: Mutex<JoinSet<()>>,
    /// These are cut off.
    _running: JoinSet<()>,
}

impl Network {
    /// Makes the addresses this host's own, and starts to proxy and to follow leadership. The API should listen
    /// already: the leader is reachable from here on. `before_release` is called before the virtual address
    /// is given up, while its connections can still be ended: nothing can be sent from it afterwards. The proxy
    /// carries its connections on the runtime `carrying`; the addresses are looked after on the caller's, which
    /// should be one that nothing delays.
    ///
    /// # Errors
    /// [`Error`] if the kernel refuses or the options don't fit.
    pub async fn start(
        options: Options,
        store: Arc<dyn Store>,
        hosts: watch::Receiver<Arc<Hosts>>,
        before_release: impl Fn() + Send + 'static,
        carrying: &Handle,
    ) -> Result<Network, Error> {
        let known = options.hosts.borrow().get(&options.name).copied();
        let own = known.ok_or_else(|| Error::UnknownHost(options.name.clone()))?;
        let stop = watch::Sender::new(false);
        let (mut ending, mut running) = (JoinSet::new(), JoinSet::new());
        let held = watch::Sender::new(BTreeSet::new());
        let mut keeper = None;
        let (place, addresses, holder, pods) = match &options.mode {
            Mode::Namespaces { link } => {
                let netlink = Netlink::open()?;
                let wanted = wanted(&options, own);
                wanted.put(&netlink).await?;
                ask_in_the_own_name(link);
                // A wrong name is an error now; later the link may go and come again.
                netlink.link(link).await?;
                let (counter, changes) = watch::channel(0);
                running.spawn_in(info_span!("listen to the kernel"), keeper::listen(counter));
                let others = Others { own: options.name.clone(), hosts: options.hosts.clone() };
                running.spawn_in(
                    info_span!("keep routes"),
                    keeper::keep(Netlink::open()?, wanted, others, changes.clone()),
                );
                running.spawn_in(
                    info_span!("ask neighbours anew"),
                    neighbours::ask_anew(Netlink::open()?, link.clone(), changes.clone()),
                );
                if let Some(cut_off) = options.cut_off.clone() {
                    let (own, hosts) = (options.name.clone(), options.hosts.clone());
                    let fence = Fence { own, hosts, cut_off, networks: [options.cluster, options.services] };
                    ending.spawn_in_on(
                        info_span!("cut fenced hosts off"),
                        fence.keep(stop.subscribe()),
                        carrying,
                    );
                }
                let address = options.virtual_address.ip();
                let pods = PodLinks::open(own.pods, options.cluster, link).await;
                match &pods {
                    // Nftables are asked within the call, and may be held up by others who change them.
                    Ok(links) => {
                        running.spawn_in_on(info_span!("keep rules about pods"), links.keep(), carrying);
                    }
                    Err(why) => {
                        tracing::warn!(%why, "pods have no networks of their own here: they share the host's");
                    }
                }
                let pods = pods.map_err(|error| error.to_string());
                keeper = options
                    .program
                    .clone()
                    .map(|program| Keeper::new(program, link.clone(), options.page.clone()));
                if let Some(keeper) = keeper.clone() {
                    // A process is made by others than those that nothing may delay.
                    running.spawn_in_on(info_span!("keep a keeper of addresses"), keeper.run(), carrying);
                }
                let addresses = OnLink::new(Netlink::open()?, link.clone(), changes.clone());
                let on = OnLink::new(netlink, link.clone(), changes);
                let holder = Holder::Link { on, address, keeper: keeper.clone() };
                (ListenAt::There, held_addresses::Place::Link(addresses), holder, pods)
            }
            Mode::Loopback { switch } => {
                let (services, services_seen) = watch::channel(Vec::new());
                let (announced, announced_seen) = watch::channel(None);
                let stands = Stands {
                    services: services_seen,
                    virtual_address: announced_seen,
                    held: held.subscribe(),
                    lease: options.page.clone(),
                };
                let announcer = Announcer::new(&options.name, own.address, *switch, stands).await?;
                ending.spawn_in(info_span!("announce"), announcer.run(stop.subscribe()));
                let entry = Entry {
                    kind: AddressKind::Vip,
                    address: options.virtual_address.ip(),
                    port: options.virtual_address.port(),
                    protocol: Protocol::Tcp,
                    target: SocketAddr::new(own.address, options.virtual_address.port()),
                };
                let pods = Err("on loopback all hosts of a cluster share the machine's network".to_owned());
                let holder = Holder::Switch { entry, announced };
                (ListenAt::Here(services), held_addresses::Place::Switch, holder, pods)
            }
        };
        let company = options.company.clone();
        ending.spawn_in(
            info_span!("virtual address"),
            virtual_address::follow(
                holder,
                options.page.leading(),
                before_release,
                asking(store.clone()),
                move || company.as_ref().map_or(Some(Duration::MAX), Company::lasts),
                store.leadership(),
                stop.subscribe(),
            ),
        );
        let dialer = Arc::new(Dialer::new(&options.name));
        let (answered, most) = (options.answered.clone(), options.most_connections);
        let balancing = options.load_balancing.clone();
        let pool = balancing.as_ref().map(|balancing| balancing.pool.clone()).unwrap_or_default();
        let proxy = Proxy::new(own.address, place, (answered, pool.clone()), dialer.clone(), most);
        let addresses = Addresses::start(balancing.map(|balancing| held_addresses::Driver {
            host: options.name.clone(),
            options: balancing,
            page: options.page.clone(),
            place: addresses,
            keeper,
            store: store.clone(),
            dialer: dialer.clone(),
            held,
            hosts: hosts.clone(),
        }));
        let (own_name, networks) = (options.name.clone(), options.hosts.clone());
        let (host_ports, changes) = HostPorts::new(own.address);
        let taken = Taken {
            services: options.services,
            pods: options.cluster,
            virtual_address: options.virtual_address.ip(),
            balanced: pool,
        };
        running.spawn_in_on(
            info_span!("follow services"),
            async move { follow(&own_name, store, hosts, networks, changes, proxy).await },
            carrying,
        );
        let ending = Mutex::new(ending);
        Ok(Network { own, dialer, pods, host_ports, taken, stop, addresses, ending, _running: running })
    }

    /// A connection to the next live endpoint of a Service's port, given by name or number (or empty, if there
    /// is but one). Another one is tried when one doesn't connect.
    ///
    /// # Errors
    /// `NotFound` without such a port, else why the last endpoint could not be reached.
    pub async fn connect(&self, namespace: &str, service: &str, port: &str) -> io::Result<TcpStream> {
        let found = self.services().borrow().find(namespace, service, port).map(|port| port.id.clone());
        let Some(id) = found else {
            let text = format!("service {namespace}/{service} has no port {port:?}");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        };
        let (stream, _) = self.dialer.connect(&id, Scope::Internal, None).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Whether a node's host is silent.
    pub fn is_silent(&self, node: &str) -> bool {
        self.dialer.is_silent(node)
    }

    /// Follows the services with their endpoints, on hosts silent or not.
    pub fn services(&self) -> watch::Receiver<Services> {
        self.dialer.services()
    }

    /// Whether pods can have networks of their own on this host.
    ///
    /// # Errors
    /// Why they can't: then they share the host's.
    pub fn pod_networks(&self) -> Result<(), String> {
        self.pods.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// Whether ports at this address of the host may lead to its pods.
    ///
    /// # Errors
    /// [`Error::NotForHostPorts`] if not.
    pub fn check_host_ip(&self, address: IpAddr) -> Result<(), Error> {
        self.taken.check(address)
    }

    /// Readies an address for a pod. All addresses of this host's pods are its own from the start (one local
    /// route, in a namespace; all of 127.0.0.0/8, on loopback), so that a pod that shares the host's network can bind it
    /// and callers of a pod that is gone are refused at once instead of waiting; what is left is to see that it is one of them.
    ///
    /// # Errors
    /// [`Error::ForeignAddress`] if it isn't.
    pub async fn add_pod_address(&self, address: IpAddr) -> Result<(), Error> {
        self.check_pod_address(address)
    }

    /// Connects the network namespace of a pod, which gets that address, where pods have networks of their own; and passes on
    /// what comes to these ports of the host.
    ///
    /// # Errors
    /// [`Error::ForeignAddress`], or what the kernel refused.
    pub async fn connect_pod(
        &self,
        address: IpAddr,
        namespace: OwnedFd,
        ports: Vec<HostPort>,
    ) -> Result<(), Error> {
        match &self.pods {
            Ok(links) => links.connect(address, namespace).await?,
            Err(why) => return Err(Error::Namespace(io::Error::other(why.clone()))),
        }
        self.host_ports.set(address, ports);
        Ok(())
    }

    /// A pod no longer needs its address: its links and ports of the host go, if it has any. The address stays local, and refuses callers since
    /// nobody listens on it.
    ///
    /// # Errors
    /// [`Error::ForeignAddress`] if it isn't one of this host's pods, or what the kernel refused.
    pub async fn remove_pod_address(&self, address: IpAddr) -> Result<(), Error> {
        self.check_pod_address(address)?;
        self.host_ports.set(address, Vec::new());
        match &self.pods {
            Ok(links) => links.remove(address).await,
            Err(_) => Ok(()),
        }
    }

    fn check_pod_address(&self, address: IpAddr) -> Result<(), Error> {
        if self.own.pods.contains(&address) {
            return Ok(());
        }
        Err(Error::ForeignAddress { address, network: self.own.pods })
    }

    /// Gives the addresses of services up, says so, and returns when that is done: before the store ends, and while the threads that carry
    /// connections still answer. Others take them then, and don't wait for the end of this host's lease.
    pub async fn give_up_addresses(&self) {
        self.addresses.stop().await;
    }

    /// Gives the virtual address up, takes announcements back, and returns when that is done.
    pub async fn stop(&self) {
        self.addresses.stop().await;
        self.stop.send_replace(true);
        let mut ending = std::mem::take(&mut *self.ending.lock().unwrap_or_else(PoisonError::into_inner));
        while ending.join_next().await.is_some() {}
    }
}

/// The task that holds addresses of services.
#[derive(Debug)]
struct Addresses {
    stop: watch::Sender<bool>,
    task: Mutex<JoinSet<()>>,
}

impl Addresses {
    fn start(driver: Option<held_addresses::Driver>) -> Self {
        let (stop, mut task) = (watch::Sender::new(false), JoinSet::new());
        if let Some(driver) = driver {
            task.spawn_in(info_span!("addresses of services"), driver.run(stop.subscribe()));
        }
        Addresses { stop, task: Mutex::new(task) }
    }

    async fn stop(&self) {
        self.stop.send_replace(true);
        let mut task = std::mem::take(&mut *self.task.lock().unwrap_or_else(PoisonError::into_inner));
        while task.join_next().await.is_some() {}
    }
}

/// Keeps the kernel from asking for neighbours in the name of the virtual address (`arp_announce` 2, see Linux'
/// ip-sysctl): a neighbour that hears such a question believes that the address is where it came from. A host
/// that lost the address without knowing, because it paused, would draw callers back to itself.
fn ask_in_the_own_name(link: &str) {
    let file = format!("/proc/sys/net/ipv4/conf/{link}/arp_announce");
    if let Err(error) = std::fs::write(&file, "2") {
        tracing::warn!(%file, %error, "neighbours may be slow to notice when the virtual address moves");
    }
}

/// Asks a majority of the store's members: what was known here of who leads is true once that is answered.
fn asking(store: Arc<dyn Store>) -> impl Fn() -> BoxFuture<'static, bool> + Send {
    move || {
        let store = store.clone();
        Box::pin(async move { store.read().await.is_ok() })
    }
}

/// Pods and services are local to this host; those of the others are routed to theirs.
fn wanted(options: &Options, own: HostNetwork) -> Wanted {
    let routes = keeper::routes(&options.hosts.borrow(), &options.name);
    Wanted { local: vec![own.pods, options.services], routes }
}
