//! A process that is one host's API: the store's member and the server over it, as `holdfast host` puts them
//! together. Controllers and scheduler start when they are asked for; there is no agent.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use pki::{ClientAuth, Identity, Trust};
use serde::{Deserialize, Serialize};
use server::{Backends, Limits, Options, Server};
use store::{Config, Embedded, Store};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The line that starts the scheduler.
pub const SCHEDULER: &str = "scheduler";
/// The line that starts the controllers.
pub const CONTROLLERS: &str = "controllers";

/// The setup that the process gets: its one line of input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// The member's name.
    pub name: String,
    /// Where the certificates lie.
    pub pki: PathBuf,
    /// All members of the store.
    pub peers: BTreeMap<String, SocketAddr>,
    /// Where its data lies.
    pub data: PathBuf,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// What stands behind every service; nothing if there is none.
    pub backend: Option<SocketAddr>,
    /// How many files it may have open.
    pub files: u64,
}

/// The same address behind every service.
struct Behind(Option<SocketAddr>);

impl Backends for Behind {
    fn connect<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<TcpStream, io::Error>> {
        Box::pin(async { TcpStream::connect(self.0.ok_or(io::ErrorKind::NotConnected)?).await })
    }

    fn is_silent(&self, _: &str) -> bool {
        false
    }

    fn allows(&self, _: std::net::IpAddr) -> bool {
        false
    }
}

/// Runs until its input ends.
#[tokio::main]
pub async fn run() -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let setup: Setup = serde_json::from_str(&lines.next_line().await?.context("no setup was given")?)?;
    let (identity, trust) = (Identity::load(&setup.pki, &setup.name)?, Trust::load(&setup.pki)?);
    let store = Embedded::start(Config::new(
        &setup.name,
        "bench",
        setup.peers,
        setup.data,
        identity.server_config(&trust, ClientAuth::Required, &[])?,
        identity.client_config(&trust, &[])?,
    )?)
    .await?;
    let server = Server::new(Options {
        store: store.clone(),
        services: "10.96.0.0/16".parse()?,
        backends: Arc::new(Behind(setup.backend)),
        kubelet_client_tls: identity.client_config(&trust, &[])?,
        front_proxy: None,
        authority: None,
        limits: Limits::of_files(setup.files),
        tokens: server::Tokens::new(pki::TokenKey::create()?, trust.pem()),
        metrics: Vec::new(),
        audit: None,
        edge: Arc::new(server::SystemEdge),
    });
    let tls = identity.server_config(&trust, ClientAuth::Optional, &[b"h2", b"http/1.1"])?;
    let _listening = server.listen(setup.listen, tls)?;
    server.bootstrap().await?;
    tokio::spawn({
        let server = server.clone();
        async move { server.keep_definitions().await }
    });
    wait_for_default_namespace(&*store).await?;
    let mut out = tokio::io::stdout();
    out.write_all(b"ready\n").await?;
    out.flush().await?;
    // Parts that would change what others measure start when a measurement asks for them.
    let pods = objects::Pool::default();
    let (_beats, silence) = watch::channel(BTreeMap::new());
    while let Some(part) = lines.next_line().await? {
        let (store, writer) = (store.clone() as Arc<dyn Store>, server.writer());
        match part.as_str() {
            SCHEDULER => apart(scheduler::run(scheduler::Options {
                store,
                writer,
                silence: silence.clone(),
                pods: pods.clone(),
                profiles: scheduler::Profiles::default(),
                metrics: Default::default(),
            }))?,
            CONTROLLERS => apart(controllers::run(controllers::Options {
                part: controllers::Part::All,
                store,
                writer,
                asker: server.clone(),
                silence: silence.clone(),
                pods: pods.clone(),
                ended: watch::channel(Default::default()).1,
                grace: controllers::GRACE,
                fenced_after: controllers::FENCED_AFTER,
                api_port: 6443,
                addresses: objects::AddressPool::default(),
                root_certificate: trust.pem().into(),
                signer: None,
                load: watch::Sender::default(),
            }))?,
            other => anyhow::bail!("there is no part {other:?}"),
        }
    }
    Ok(())
}

/// Runs a part on a thread of its own, as a host does.
fn apart(part: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().spawn(move || runtime.block_on(part))?;
    Ok(())
}

async fn wait_for_default_namespace(store: &dyn Store) -> anyhow::Result<()> {
    const TRIES: usize = 600;
    for _ in 0..TRIES {
        if store.snapshot().get(b"/registry/core/namespaces/default").is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("there is no namespace `default`")
}
