//! How this host and the others are, for those who ask its API (`holdfast status`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::check::{CertificateSays, ClusterSays, HOST_PATH, HostAnswer, HostSays, LeaseSays, MemberSays};
use client::{Client, Kubeconfig};
use config::HostConfig;
use futures::future::{BoxFuture, join, join_all};
use membership::{HeartbeatDriver, Hosts, Lease, LeasePage};
use pki::{Authority, FRONT_PROXY, Identity, Trust};
use serde_json::Value;
use server::{Overview, Server};
use tokio::sync::watch;

use crate::engine::Engine;

/// How long a host may take to come up with all that was written when it was asked: a commit takes milliseconds, an election a quarter
/// of a second.
const CATCH_UP: Duration = Duration::from_millis(500);
/// How long another host may take to answer, with that.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Shows it from now on.
pub fn show(
    server: &Server,
    config: &HostConfig,
    engine: &Engine,
    membership: &HeartbeatDriver,
) -> anyhow::Result<()> {
    let (folder, name) = (&config.pki_dir, &config.name);
    let (identity, trust) = (Identity::load(folder, name)?, Trust::load(folder)?);
    let front_proxy = Identity::load(folder, FRONT_PROXY)?;
    let signer = Authority::load_for_requests(folder)?;
    let own = format!("{name}.crt");
    let certificates = [
        ("ca.crt", trust.pem()),
        ("requests-ca.crt", signer.certificate_pem()),
        (&own, identity.certificate_pem()),
        ("front-proxy-client.crt", front_proxy.certificate_pem()),
    ];
    server.show(Arc::new(HostsOverview {
        config: config.clone(),
        engine: engine.clone(),
        lease: membership.lease(),
        page: membership.lease_page(),
        hosts: membership.hosts(),
        peers: membership.peers(),
        identity: Kubeconfig {
            origin: folder.display().to_string(),
            certificate_authority: trust.pem().into(),
            client_certificate: Some(identity.certificate_pem().into()),
            client_key: Some(identity.key_pem().expose().as_bytes().into()),
            ..Kubeconfig::anonymous("")
        },
        certificates: certificates.into_iter().filter_map(|(file, pem)| end(file, pem)).collect(),
    }));
    Ok(())
}

fn end(file: &str, pem: &str) -> Option<CertificateSays> {
    Some(CertificateSays { file: file.to_owned(), until: pki::valid_until(pem)?.try_into().ok()? })
}

struct HostsOverview {
    config: HostConfig,
    engine: Engine,
    lease: watch::Receiver<Lease>,
    page: LeasePage,
    hosts: watch::Receiver<Arc<Hosts>>,
    /// The other hosts, and where they hear heartbeats.
    peers: watch::Sender<BTreeMap<String, SocketAddr>>,
    /// Who this host is to the others.
    identity: Kubeconfig,
    certificates: Vec<CertificateSays>,
}

impl Overview for HostsOverview {
    fn host(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { serde_json::to_value(self.own().await).unwrap_or_default() })
    }

    fn cluster(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { serde_json::to_value(self.all().await).unwrap_or_default() })
    }
}

impl HostsOverview {
    #[allow(clippy::disallowed_methods, reason = "the program: it measures")]
    async fn own(&self) -> HostSays {
        let store = self.engine.store();
        let leadership = store.leadership().borrow().clone();
        // Before it comes up with the others: that is what it is behind by.
        let revision = store.snapshot().revision().0;
        let asked = Instant::now();
        let caught_up = matches!(tokio::time::timeout(CATCH_UP, store.read()).await, Ok(Ok(_)));
        let epoch = match *self.lease.borrow() {
            Lease::Awaited(epoch) | Lease::Held(epoch) | Lease::Over(epoch) => epoch,
        };
        HostSays {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leader: leadership.leader,
            leads: leadership.is_me,
            revision,
            caught_up_ms: caught_up.then(|| asked.elapsed().as_secs_f64() * 1000.0),
            lease: LeaseSays { seconds: self.page.remaining().as_secs_f64(), epoch },
            certificates: self.certificates.clone(),
        }
    }

    /// All at once: there are no more of them than hosts whose heartbeats this one hears.
    async fn all(&self) -> ClusterSays {
        let me = &self.config.name;
        let peers = self.peers.borrow().clone();
        let others = peers.into_iter().filter(|(name, _)| name != me);
        let others = join_all(others.map(|(name, at)| async move {
            let answer = self.ask(&name, at).await;
            (name, answer)
        }));
        let (own, others) = join(self.own(), others).await;
        let mut hosts: BTreeMap<String, HostAnswer> = others.into_iter().collect();
        hosts.insert(me.clone(), HostAnswer::Says(Box::new(own)));
        let members = match &self.engine {
            Engine::Embedded(store) => Some(store.members().into_iter().map(member).collect()),
            Engine::Etcd(_) => None,
        };
        ClusterSays { asked: me.clone(), hosts, members, virtual_api: self.config.virtual_api() }
    }

    /// Asks another host, unless it is silent.
    async fn ask(&self, name: &str, at: SocketAddr) -> HostAnswer {
        if let Some(seconds) = self.silent_for(name) {
            return HostAnswer::Silent(seconds);
        }
        let api = SocketAddr::new(at.ip(), self.config.ports.api);
        let asked = async {
            let client = Client::new(&self.identity.with_server(format!("https://{api}")))?;
            client.with_timeout(PATIENCE).get(HOST_PATH).await
        };
        let says = match asked.await {
            Ok(answer) => serde_json::from_value(answer).map_err(|why| why.to_string()),
            Err(error) if matches!(error.code(), Some(403 | 404)) => {
                Err("it runs an older version, which doesn't know the question".to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        says.map_or_else(HostAnswer::Fails, HostAnswer::Says)
    }

    #[allow(clippy::disallowed_methods, reason = "the program: it has been silent until now")]
    fn silent_for(&self, name: &str) -> Option<f64> {
        let since = self.hosts.borrow().silence().get(name).copied()?;
        Some(Instant::now().saturating_duration_since(since).as_secs_f64())
    }
}

fn member(member: store::Member) -> MemberSays {
    MemberSays {
        name: member.name,
        address: member.address.ip(),
        is_learner: member.is_learner,
        has_joined: member.has_joined,
    }
}
