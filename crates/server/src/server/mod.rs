//! The server: its parts, and what the program does with it.

mod listener;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use access::{Authorizer, ClusterAuthority, Revocations, ShownCertificate, Tokens, UserInfo};
use audit::Auditor;
use fairness::Fairness;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use machinery::{Object, Status};
use objects::{Asker, Question, Writer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use serde_json::Value;
use store::Store;
use tokio::sync::watch;
use tracing::info_span;

use crate::admission::ServiceRange;
use crate::aggregation::{Aggregation, FrontProxy};
use crate::backend::{Backends, Relay};
use crate::bootstrap;
use crate::clock::Edge;
use crate::definitions;
use crate::http::connection::Places;
use crate::http::outgoing::Outgoing;
use crate::http::response::full;
use crate::http::{Body, Limits};
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::requests::{Door, Measure, Observers, Overview, Requests, TokenReviewer};

pub use listener::Listening;

/// What a server is made of.
pub struct Options {
    /// Where the objects are.
    pub store: Arc<dyn Store>,
    /// The addresses that services get.
    pub services: ServiceRange,
    /// The way to the pods behind services.
    pub backends: Arc<dyn Backends>,
    /// How the server presents itself to the hosts' agents (and whom it believes), for logs.
    pub kubelet_client_tls: Arc<ClientConfig>,
    /// How the server presents itself to the servers of aggregated APIs; without it, they learn no user's name.
    pub front_proxy: Option<FrontProxy>,
    /// The cluster's own authority; without, every certificate that a listener lets in may name anybody.
    pub authority: Option<ClusterAuthority>,
    /// What a client may use up.
    pub limits: Limits,
    /// What tokens of service accounts are made with.
    pub tokens: Tokens,
    /// What other parts of the process measure, for `/metrics`.
    pub metrics: Vec<Measure>,
    /// The audit; none without a policy.
    pub audit: Option<Arc<Auditor>>,
    /// The clock and the source of randomness: [`SystemEdge`](crate::SystemEdge), or a simulation's.
    pub edge: Arc<dyn Edge>,
}

/// The API. Made once a process; it serves nobody from outside until it [listens](Server::listen).
pub struct Server {
    registry: Arc<Registry>,
    aggregation: Arc<Aggregation>,
    requests: Requests,
    authority: Option<ClusterAuthority>,
    revocations: Revocations,
    limits: Limits,
    places: Arc<Places>,
    outgoing: Arc<Outgoing>,
    closing: watch::Sender<bool>,
}

impl Server {
    /// A server over a store.
    pub fn new(options: Options) -> Arc<Self> {
        let Options {
            store,
            services,
            backends,
            kubelet_client_tls,
            front_proxy,
            authority,
            limits,
            tokens,
            metrics,
            audit,
            edge,
        } = options;
        let revoked = authority.as_ref().map(|authority| authority.revoked.clone()).unwrap_or_default();
        let revocations = Revocations::new(revoked, &store.snapshot());
        let (places, outgoing) = (Places::new(&limits), Outgoing::new(&limits, edge.clone()));
        let clock = edge.clone();
        let fairness = Fairness::new(limits.seats, &store.snapshot(), Arc::new(move || clock.instant()));
        let closing = watch::Sender::new(false);
        let relay = Relay::new(backends.clone(), closing.subscribe());
        let authorizer = Authorizer::new(bootstrap::node_rules());
        let registry = Arc::new(Registry::new(store, services, backends, tokens, authorizer, edge));
        let proxy = Arc::new(Proxy::new(registry.clone(), relay.clone(), kubelet_client_tls));
        let aggregation = Arc::new(Aggregation::new(registry.clone(), relay, front_proxy));
        let requests = Requests::new(
            registry.clone(),
            fairness,
            aggregation.clone(),
            proxy,
            outgoing.clone(),
            closing.subscribe(),
            Observers { measures: metrics, audit },
        );
        Arc::new(Server {
            registry,
            aggregation,
            requests,
            authority,
            revocations,
            limits,
            places,
            outgoing,
            closing,
        })
    }

    /// The write path for the parts of this process.
    pub fn writer(&self) -> Arc<dyn Writer> {
        self.requests.writer()
    }

    /// Answers one request of `who` (nobody if there was no certificate): all that the server does, without
    /// sockets and TLS.
    pub async fn handle(&self, request: Request<Body>, who: Option<UserInfo>) -> Response<Body> {
        self.requests.handle(request, who).await
    }

    /// Lets `door` answer requests for `path`, of at most `largest` bytes, also of those whom nobody knows. There is one door at
    /// most: what is opened later is nobody's.
    pub fn open_door(&self, path: &'static str, largest: usize, door: Arc<dyn Door>) {
        self.requests.open_door(path, largest, door);
    }

    /// Shows at `/holdfast/status` how the hosts are, to those who may read that path, and at `/holdfast/status/host` how this one is,
    /// to the other hosts too. There is one overview at most: what is shown later isn't seen.
    pub fn show(&self, overview: Arc<dyn Overview>) {
        self.requests.show(overview);
    }

    /// Asks `reviewer` whose tokens are that the cluster didn't make, and takes its answers for true for `kept_for`. There is one at
    /// most: who is named later is asked nothing.
    pub fn review_tokens_by(&self, reviewer: Arc<dyn TokenReviewer>, kept_for: Duration) {
        self.requests.review_tokens_by(reviewer, kept_for);
    }

    /// Makes the default objects, those that are missing: namespaces, the services `kubernetes` and `kube-dns`, the runtime
    /// class `host`, roles and their bindings, priority classes and levels, flow schemas, API services. May be
    /// called again at any time, and anywhere at once.
    ///
    /// # Errors
    /// If the store has no leader yet, or doesn't answer.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        let mut objects = bootstrap::objects(self.registry.services(), &self.registry.edge().time());
        objects.extend(self.aggregation.config_map().and_then(Object::from_value));
        self.registry.ensure(objects).await?;
        // In a cluster of before there was this service another one may have its address: all else goes on.
        let dns = bootstrap::dns_service(self.registry.services());
        match self.registry.ensure(dns.into_iter().collect()).await {
            Err(status) if status.code == 422 => {
                tracing::warn!(why = status.message, "there is no service kube-system/kube-dns");
                Ok(())
            }
            made => made,
        }
    }

    /// Looks after CustomResourceDefinitions whenever this member leads: names and conditions in their status, the
    /// APIServices of their groups, and the end of their objects when they are deleted. Runs until the store ends.
    pub async fn keep_definitions(&self) {
        definitions::keep(&self.registry).await;
    }

    /// Keeps what is known of aggregated APIs up to date, for as long as it is polled.
    pub async fn aggregate(self: Arc<Self>) {
        self.aggregation.keep(self.closing.subscribe()).await;
    }

    /// Follows which certificates are taken back, for as long as it is polled: so that counts also where nobody asks the API.
    pub async fn keep_revocations(&self) {
        self.revocations.keep(&**self.registry.store()).await;
    }

    /// Follows that a certificate is taken back.
    pub fn revocation_changes(&self) -> watch::Receiver<()> {
        self.revocations.changes()
    }

    /// Serves on one more address, until the answer is dropped. `tls` must ask clients for certificates and
    /// verify them against the cluster's authority; a client without one is let in as nobody and gets 401.
    ///
    /// # Errors
    /// If the address can't be bound.
    pub fn listen(
        self: &Arc<Self>,
        address: SocketAddr,
        tls: Arc<ServerConfig>,
    ) -> Result<Listening, io::Error> {
        self.listen_on(TcpListener::bind(address)?, tls)
    }

    /// Like [`listen`](Server::listen), with a listener that was bound before, for example to an address that
    /// this host holds only at times.
    ///
    /// # Errors
    /// If the listener can't be used.
    pub fn listen_on(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
    ) -> Result<Listening, io::Error> {
        let listening = listener::listen(self.clone(), listener, tls)?;
        if self.requests.listens_at(listening.address()) {
            tasks::spawn(
                info_span!("watch over answers"),
                Outgoing::watch_over(Arc::downgrade(&self.outgoing)),
            );
        }
        Ok(listening)
    }

    /// Ends all watches, so that connections can close; for the end of the process.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// What a certificate that was let in says; nothing if it names one that it may not speak for.
    fn shown_by(&self, certificate: &CertificateDer<'_>, now: Timestamp) -> Option<ShownCertificate> {
        let shown = ShownCertificate::of(certificate)?;
        let believed =
            self.authority.as_ref().is_none_or(|authority| authority.believes(certificate, &shown.who, now));
        if !believed {
            tracing::warn!(
                user = shown.who.user,
                "a certificate of the requests' authority names a part of the cluster"
            );
        }
        believed.then_some(shown)
    }

    /// For whom a certificate speaks now: nobody once it is over, or was taken back.
    fn speaks_for<'a>(&self, shown: &'a ShownCertificate) -> Option<&'a UserInfo> {
        (!shown.is_over(self.registry.edge().second()) && !self.is_revoked(shown)).then_some(&shown.who)
    }

    fn is_revoked(&self, shown: &ShownCertificate) -> bool {
        self.revocations.has(&self.registry.store().snapshot(), shown)
    }
}

/// The longest answer that a part of this process reads.
const LONGEST_ANSWER: usize = 64 << 20;
/// What stands in a path as it is.
const IN_PATHS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'~');

impl Asker for Server {
    fn ask<'a>(&'a self, user: &'a str, question: &'a Question) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move {
            let request =
                Request::get(address_of(question)).header("accept", "application/json").body(full(""));
            let request = request.map_err(|error| Status::bad_request(error.to_string()))?;
            let namespace = user.split(':').nth(2).unwrap_or_default();
            let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            let answer = self.handle(request, Some(UserInfo::new(user, groups))).await;
            let code = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| Status::internal(format!("the answer broke off: {error}")))?;
            let value: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
            match code {
                200..300 => Ok(value),
                code => {
                    let message = value["message"].as_str().unwrap_or("the server answered no Status");
                    Err(Status::new(code, "", message))
                }
            }
        })
    }
}

/// Path and query as a request has them.
fn address_of(question: &Question) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(&question.query);
    format!("{}?{}", utf8_percent_encode(&question.path, IN_PATHS), query.finish())
}
