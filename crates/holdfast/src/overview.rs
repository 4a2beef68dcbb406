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
use pki::{Authority, Trust};
use serde_json::Value;
use server::{Overview, Server};
use tokio::sync::watch;

use crate::certificates::Certificates;
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
    certificates: &Certificates,
) -> anyhow::Result<()> {
    let (trust, signer) = (Trust::load(&config.pki_dir)?, Authority::load_for_requests(&config.pki_dir)?);
    let authorities = [("ca.crt", trust.pem()), ("requests-ca.crt", signer.certificate_pem())];
    server.show(Arc::new(HostsOverview {
        config: config.clone(),
        engine: engine.clone(),
        lease: membership.lease(),
        page: membership.lease_page(),
        hosts: membership.hosts(),
        peers: membership.peers(),
        authorities: authorities.into_iter().filter_map(|(file, pem)| end(file, pem)).collect(),
        trust,
        certificates: certificates.clone(),
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
    /// Who vouches for the others.
    trust: Trust,
    authorities: Vec<CertificateSays>,
    /// Who this host is to the others.
    certificates: Certificates,
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
            certificates: self.ends(),
        }
    }

    /// When the certificates end that it uses, and those that it believes.
    fn ends(&self) -> Vec<CertificateSays> {
        let (own, front_proxy) = (self.certificates.own.current(), self.certificates.front_proxy.current());
        let name = format!("{}.crt", self.config.name);
        let used = [(name.as_str(), &own), ("front-proxy-client.crt", &front_proxy)];
        let used = used.into_iter().filter_map(|(file, identity)| end(file, identity.certificate_pem()));
        self.authorities.iter().cloned().chain(used).collect()
    }

    /// What this host shows to a server as it asks.
    fn as_host(&self, server: String) -> Kubeconfig {
        let identity = self.certificates.own.current();
        Kubeconfig {
            origin: self.config.pki_dir.display().to_string(),
            certificate_authority: self.trust.pem().into(),
            client_certificate: Some(identity.certificate_pem().into()),
            client_key: Some(identity.key_pem().expose().as_bytes().into()),
            ..Kubeconfig::anonymous(server)
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
            let client = Client::new(&self.as_host(format!("https://{api}")))?;
            client.with_timeout(PATIENCE).get(HOST_PATH).await
        };
        let says = match asked.await {
            Ok(answer) => serde_json::from_value(answer).map_err(|why| why.to_string()),
            Err(error) if matches!(error.code(), Some(403 | 404)) => {
                Err("it runs an older version, which doesn't know the question".to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        match (says, self.silent_for(name)) {
            (Ok(says), _) => HostAnswer::Says(says),
            // It became silent while it was asked: it had just lost its power.
            (Err(_), Some(seconds)) => HostAnswer::Silent(seconds),
            (Err(why), None) => HostAnswer::Fails(why),
        }
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
