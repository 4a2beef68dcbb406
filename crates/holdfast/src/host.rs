//! `holdfast host`: one host. Puts the parts together: store, API, controllers, scheduler, agent, network.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use config::{HostConfig, NetConfig};
use membership::lease::Terms;
use membership::{HeartbeatDriver, LeasePage};
use network::{Answered, HostNetwork, LoadBalancing, Network, VirtualRouters, Withheld};
use node::Agent;
use objects::AddressPool;
use pki::{Authority, ClientAuth, HeartbeatKey, TokenKey, Trust};
use server::Server;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info_span;

use crate::audit::{self, Audit};
use crate::certificates::Certificates;
use crate::end::End;
use crate::engine::Engine;
use crate::eviction::eviction;
use crate::fences::Fences;
use crate::files;
use crate::foreign_images::foreign_runtime;
use crate::host_images::{HostImages, registries_of};
use crate::install;
use crate::leases;
use crate::listeners::Listeners;
use crate::log::{LogFormat, log_to};
use crate::measures::{encryption_metrics, names_metrics, placing_metrics, queue_metrics};
use crate::names::Names;
use crate::overview;
use crate::peers::{self, Followers, Peers};
use crate::profiles::profiles;
use crate::reach::Reach;
use crate::revoked;
use crate::sealing::Encryption;
use crate::service_manager::ServiceManager;
use crate::store_door;
use crate::threads;
use crate::timeline;
use crate::token_webhook;
use crate::virtual_routers;
use crate::watchdog;
use crate::without::{Part, Without};

/// Connections that the service proxy carries at once, where there are files for them: their buffers are 160 MB if all are
/// stuck (`network`'s `tcp`).
const MOST_CONNECTIONS: usize = 10_000;

/// Arguments of `holdfast host`.
#[derive(clap::Args)]
pub struct Args {
    /// The host's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The form of the log
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    without: Without,
}

/// Runs the host until it is asked to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    let config = HostConfig::load(&args.config)?;
    log_to(&config, args.log_format)?;
    for warning in config.check().warnings {
        tracing::warn!("{}: {warning}", args.config.display());
    }
    link_program(&config)?;
    // Two threads carry a host of a small machine; more would cost memory for each.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(config, &args))
}

async fn serve(config: HostConfig, args: &Args) -> anyhow::Result<()> {
    let mut end = End::new()?;
    // What an upgrade asks for, as of nginx and HAProxy (docs/upgrade.md).
    let mut leave = signal(SignalKind::user_defined2())?;
    tracing::info!(target: timeline::TARGET, what = "host-started");
    let manager = Arc::new(ServiceManager::of_environment());
    let status = format!("{} answers at {}", config.name, config.listen(config.ports.api));
    // The signals are taken before this: what asks the host to end while it starts is heard once it has started.
    let certificates = Certificates::load(&config, &args.config)?;
    let encryption =
        config.encryption_file.as_deref().map_or_else(|| Ok(Encryption::none()), Encryption::load)?;
    let host = tokio::select! {
        host = start(config, &args.without, certificates, &manager, encryption.clone()) => host?,
        // A newcomer that can't open what the members send it doesn't become one, and would start for ever.
        error = encryption.failed() => return Err(error),
    };
    manager.ready(&status).await;
    let (pods, outcome) = tokio::select! {
        () = end.asked() => (Pods::EndInOrder, Ok(())),
        _ = leave.recv() => (Pods::Stay, Ok(())),
        error = host.engine.failed() => (Pods::End, Err(error)),
        error = host.encryption.failed() => (Pods::Stay, Err(error)),
    };
    manager.stopping();
    // Who asks twice doesn't want to wait.
    host.stop(pods, end.asked()).await;
    outcome
}

/// What becomes of a host's pods when its process ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pods {
    /// They end first, in the order of the configuration, and say so in the API.
    EndInOrder,
    /// They end first, and at once: nothing can be said of them any more.
    End,
    /// They stay, with their shims, for the host's next process.
    Stay,
}

/// Where a host's store keeps its data.
pub fn store_dir(config: &HostConfig) -> PathBuf {
    store_dir_in(&config.data_dir)
}

/// Where it does in a folder that is a host's data.
pub fn store_dir_in(data: &Path) -> PathBuf {
    data.join("store")
}

/// All parts of a host, running.
struct Host {
    agent: Agent,
    network: Arc<Network>,
    routers: Arc<Option<VirtualRouters>>,
    server: Arc<Server>,
    engine: Engine,
    etcd: Option<JoinHandle<()>>,
    audit: Option<Audit>,
    encryption: Arc<Encryption>,
    listening: Arc<Listeners>,
    _membership: HeartbeatDriver,
}

impl Host {
    /// Stops in the order in which nobody notices: virtual routers while all behind their addresses still answers, then pods, then
    /// requests at the API's address, leadership before the connections.
    async fn stop(self, pods: Pods, hurry: impl Future<Output = ()>) {
        // Callers come by another host before anything here ends.
        self.network.give_up_addresses().await;
        if let Some(routers) = &*self.routers {
            routers.stop().await;
        }
        match pods {
            Pods::EndInOrder => self.agent.shutdown_in_order(hurry).await,
            Pods::End => self.agent.shutdown().await,
            Pods::Stay => self.agent.leave().await,
        }
        if let Some(etcd) = self.etcd {
            etcd.abort();
        }
        let callers = self.listening.withhold().await;
        self.engine.shutdown().await;
        self.network.stop().await;
        if let Some(Err(error)) = callers.map(Withheld::pass_on) {
            tracing::warn!(%error, "who called the API meanwhile will have to call again");
        }
        self.server.close();
        if let Some(audit) = self.audit {
            audit.finish().await;
        }
    }
}

async fn start(
    config: HostConfig,
    without: &Without,
    certificates: Certificates,
    manager: &Arc<ServiceManager>,
    encryption: Arc<Encryption>,
) -> anyhow::Result<Host> {
    let (ports, timeouts) = (config.ports, config.timeouts);
    let foreign = config.runtime.as_deref();
    let foreign = foreign.map(|address| foreign_runtime(address, node_dir(&config))).transpose()?;
    // Before anything listens: what a pod of a former life left running may hold one of the ports.
    let page = node::end_former_pods(
        &node_dir(&config),
        &[ports.api, ports.store, ports.agent].map(|port| config.listen(port)),
        foreign.as_ref().map(|foreign| &foreign.endpoint),
    )
    .await;
    let pool = AddressPool::new(config.load_balancer_ranges());
    if let NetConfig::Netns { link } = &config.net {
        // Before this host is heard.
        network::give_up_former(link, &pool, config.virtual_address).await?;
    }
    let registries = registries_of(&config)?;
    let audit = config.audit.as_ref().map(audit::start).transpose()?;

    let identity = certificates.own.clone();
    let trust = Trust::load(&config.pki_dir)?;
    let heartbeat_key = HeartbeatKey::load(&config.pki_dir)?;
    let revoked = revoked::load(&config)?;

    let urgent = threads::urgent()?;
    let beats = membership::Options {
        name: config.name.clone(),
        listen: config.listen(ports.heartbeats),
        peers: config.peers_at(ports.heartbeats),
        key: *heartbeat_key.expose(),
        interval: timeouts.heartbeats.every,
        silent_after: timeouts.heartbeats.silent_after,
        // Those of the last process go on; those of the configuration are only what the cluster began with, and by these a host that is
        // cut off could count on itself alone.
        members: BTreeSet::new(),
        terms: Terms { lease: timeouts.lease.held_for, fence: timeouts.lease.fenced_after },
        epoch: leases::first_epoch(),
        memory: Some(config.data_dir.join("leases.json")),
        page,
    };
    fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("can't make the folder {}", config.data_dir.display()))?;
    let epoch = watch::Sender::new(None);
    let (membership, engine) = tasks::spawn_on(&urgent, info_span!("store"), {
        let (config, identity, trust, revoked) =
            (config.clone(), identity.clone(), trust.clone(), revoked.clone());
        let encryption = encryption.clone();
        let (others, addresses) = (Handle::current(), epoch.subscribe());
        async move {
            let membership = HeartbeatDriver::start(beats)?;
            // Before the store is open: the lease of the last process may end meanwhile.
            tasks::spawn_on(
                &others,
                info_span!("begin epochs"),
                leases::begin_epochs(membership.lease(), membership.left(), node_dir(&config), addresses),
            );
            let last_heard = membership.last_heard();
            let beats = store::Beats::new(move |member| last_heard.of(member));
            let engine = Engine::start(&config, &identity, &trust, &revoked, beats, encryption).await?;
            anyhow::Ok((membership, engine))
        }
    })
    .await??;
    encryption.check()?;
    let store = engine.store();

    // Users who brought an etcd ask that one.
    let etcd = match &engine {
        Engine::Embedded(embedded) => {
            // It resumes no session: nobody would look again whether the certificate is over.
            let tls = identity.agent_config(&trust, &revoked, &[])?;
            Some(store_door::open(&config, tls, embedded.clone()))
        }
        Engine::Etcd(_) => None,
    };

    let signer = Arc::new(Authority::load_for_requests(&config.pki_dir)?);
    // The holder of a certificate by request is a user of the API, and nobody to the store and to the other hosts.
    let users = trust.and(&signer.trust()?)?;
    let peers = Peers::new(config.clone(), engine.members(&config), &store.snapshot());
    let pod_cidr = peers.own_pods();
    let followers =
        Followers::new(membership.peers(), membership.members(), membership.known(), &peers, pod_cidr);
    let (networks, hosts) = (followers.networks.subscribe(), followers.members.subscribe());
    let reach = Arc::new(Reach::new(followers.targets.subscribe()));
    let (members, members_seen) = watch::channel(engine.members(&config));
    tasks::spawn(info_span!("follow members"), engine.clone().follow_members(config.clone(), members));
    tasks::spawn(
        info_span!("follow hosts"),
        peers::follow(peers, pod_cidr, store.clone(), members_seen, followers),
    );
    let services: server::ServiceRange = config.service_cidr.try_into()?;
    let names = Names::listen(&config, services.dns());
    let fences = Fences::start(&config, membership.lease_page())?;
    let load = watch::Sender::default();
    let placing = Arc::new(scheduler::Metrics::default());
    let mut metrics = vec![
        queue_metrics(load.subscribe()),
        placing_metrics(placing.clone()),
        names_metrics(names.metrics.clone()),
        leases::metrics(&membership),
        fences.metrics(),
    ];
    metrics.extend(audit.as_ref().map(Audit::metrics));
    metrics.push(encryption_metrics(encryption.clone()));
    let server = Server::new(server::Options {
        store: store.clone(),
        services,
        backends: reach.clone(),
        kubelet_client_tls: identity.peer_config(&users, &revoked, &[b"http/1.1"])?,
        front_proxy: Some(server::FrontProxy {
            identity: certificates.front_proxy.clone(),
            trust: trust.clone(),
            // Servers of aggregated APIs ask the API who the others are.
            clients: trust.clone(),
        }),
        authority: Some(server::ClusterAuthority { trust: trust.clone(), hosts, revoked: revoked.clone() }),
        limits: server::Limits::of_files(files::most()),
        tokens: server::Tokens::new(TokenKey::load(&config.pki_dir)?, trust.pem()),
        metrics,
        audit: audit.as_ref().map(Audit::auditor),
        edge: Arc::new(server::SystemEdge),
    });
    install::open_door(&server, &config, &engine, membership.hosts());
    token_webhook::ask(&server, config.token_webhook.as_ref())?;
    overview::show(&server, &config, &engine, &membership, &certificates)?;
    // With the authority, which those who want to join know only by its hash.
    let shown = identity.showing(&trust);
    let tls = shown.server_config(&users, ClientAuth::Optional, &[b"h2", b"http/1.1"])?;
    let listening = Arc::new(Listeners::open(&config, &server, &tls)?);

    let network = tasks::spawn_on(&urgent, info_span!("network"), {
        let (config, store, hosts) = (config.clone(), store.clone(), membership.hosts());
        let (listening, carrying) = (listening.clone(), Handle::current());
        let mut options = network_options(&config, networks, names.answered.clone(), membership.lease_page());
        options.load_balancing = Some(LoadBalancing {
            pool: pool.clone(),
            lease: membership.lease(),
            process: leases::first_epoch(),
            writer: server.writer(),
            epoch,
        });
        options.cut_off = Some(leases::cut_off(&config, &membership));
        options.company = leases::company(&config, &membership);
        async move {
            let before_release = move || listening.hang_up();
            anyhow::Ok(Network::start(options, store, hosts, before_release, &carrying).await?)
        }
    })
    .await??;
    let network = Arc::new(network);
    let routers = Arc::new(virtual_routers::start(&config, &urgent).await?);
    tasks::spawn_on(
        &urgent,
        info_span!("watchdog"),
        watchdog::watch(
            Handle::current(),
            engine.clone(),
            network.clone(),
            routers.clone(),
            timeouts.watchdog,
            manager.clone(),
        ),
    );
    reach.set(network.clone())?;

    let off = fences.run_agents(&config, &membership, store.clone(), server.writer());
    let pods = objects::Pool::default();
    let is_partial = without.has(Part::Controllers);
    if is_partial {
        tracing::info!("what kube-controller-manager does is left to it");
    }
    let controlling = controllers::Options {
        part: if is_partial { controllers::Part::Own } else { controllers::Part::All },
        store: store.clone(),
        writer: server.writer(),
        asker: server.clone(),
        silence: membership.silence(),
        ended: leases::ended(membership.ended(), off),
        grace: timeouts.nodes.not_ready_after,
        fenced_after: timeouts.lease.fenced_after,
        api_port: ports.api,
        addresses: pool,
        pods: pods.clone(),
        root_certificate: trust.pem().into(),
        signer: Some(signer),
        load,
    };
    threads::apart("controllers", || controllers::run(controlling))?;
    let scheduling = scheduler::Options {
        store: store.clone(),
        writer: server.writer(),
        silence: membership.silence(),
        pods,
        profiles: profiles(&config.scheduling)?,
        metrics: placing,
    };
    if without.has(Part::Scheduler) {
        tracing::info!("the placing of pods is left to another program");
    } else {
        threads::apart("scheduler", || scheduler::run(scheduling))?;
    }
    let cluster_dns = names.for_pods.clone();
    names.answer(store.clone(), membership.hosts())?;
    let agent = Agent::start(node::Options {
        name: config.name.clone(),
        address: config.address,
        pod_cidr,
        heartbeats: ports.heartbeats,
        data_dir: node_dir(&config),
        // This very program, also after its file was replaced.
        program: "/proc/self/exe".into(),
        programs: programs_dir(&config),
        cgroups: node::cgroup_roots(),
        eviction: eviction(&config.eviction),
        shutdown: shutdown(&config.shutdown),
        static_pods: config.static_pods.clone(),
        foreign,
        images: HostImages::open(&config, registries).map_err(|why| format!("{why:#}")),
        store: store.clone(),
        writer: server.writer(),
        addresses: reach.clone(),
        service_host: services.first().into(),
        service_port: 443,
        cluster_dns,
        tls: identity.agent_config(&trust, &revoked, &[b"http/1.1"])?,
        listen: config.listen(ports.agent),
        lease: Some(node::HostLease {
            state: membership.lease(),
            page: membership.lease_page(),
            members: membership.members().subscribe(),
            grades: fences.grades,
        }),
    })?;
    let revoked_file = revoked::file(&config);
    tasks::spawn(
        info_span!("keep revoked keys"),
        revoked::keep(revoked_file, revoked, server.revocation_changes()),
    );
    tasks::spawn(info_span!("bootstrap"), {
        let (server, engine, key) = (server.clone(), engine.clone(), identity.current().key_hash()?);
        async move {
            install::note_host(&engine, &config, pod_cidr, key).await;
            let made = server.bootstrap().await;
            install::bring_first_token(&config.pki_dir, &*server.writer()).await;
            made
        }
    });
    tasks::spawn(info_span!("renew certificates"), certificates.keep());
    tasks::spawn(info_span!("aggregated APIs"), server.clone().aggregate());
    tasks::spawn(info_span!("follow revocations"), {
        let server = server.clone();
        async move { server.keep_revocations().await }
    });
    tasks::spawn(info_span!("keep definitions"), {
        let server = server.clone();
        async move { server.keep_definitions().await }
    });
    Ok(Host {
        agent,
        network,
        routers,
        server,
        engine,
        etcd,
        audit,
        encryption,
        listening,
        _membership: membership,
    })
}

/// In which order the configuration has pods end, as the agent takes it.
fn shutdown(said: &config::Shutdown) -> Vec<node::ShutdownGroup> {
    let groups = said.groups().into_iter();
    groups.map(|group| node::ShutdownGroup { priority: group.priority, grace: group.grace_period }).collect()
}

fn network_options(
    config: &HostConfig,
    networks: watch::Receiver<Arc<BTreeMap<String, HostNetwork>>>,
    answered: Vec<Answered>,
    page: LeasePage,
) -> network::Options {
    network::Options {
        name: config.name.clone(),
        mode: match &config.net {
            NetConfig::Netns { link } => network::Mode::Namespaces { link: link.clone() },
            NetConfig::Loopback { switch } => network::Mode::Loopback { switch: *switch },
        },
        hosts: networks,
        services: config.service_cidr,
        cluster: config.cluster_cidr,
        answered,
        virtual_address: config.virtual_api(),
        page,
        // This very program, also after its file was replaced.
        program: Some("/proc/self/exe".into()),
        company: None,
        load_balancing: None,
        cut_off: None,
        most_connections: files::connections_of_services(MOST_CONNECTIONS, files::most()),
    }
}

/// Where the agent keeps its pods.
pub fn node_dir(config: &HostConfig) -> PathBuf {
    config.data_dir.join("node")
}

/// The folder that comes first on the pods' PATH.
fn programs_dir(config: &HostConfig) -> PathBuf {
    config.data_dir.join("bin")
}

/// Pods run this very program as `holdfast`, wherever it lies and whatever its file is called.
fn link_program(config: &HostConfig) -> anyhow::Result<()> {
    let folder = programs_dir(config);
    let link = folder.join("holdfast");
    let made = fs::create_dir_all(&folder).and_then(|()| match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::os::unix::fs::symlink(crate::ground::program().map_err(io::Error::other)?, &link),
    });
    made.with_context(|| format!("can't make {}", link.display()))
}
