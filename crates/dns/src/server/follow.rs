//! What the answers come from, followed as it changes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use membership::Hosts;
use store::{KeyRange, Store};
use tokio::sync::watch;

use crate::records::kinds;
use crate::resolv_conf::ResolvConf;
use crate::resolver::Resolver;

/// How often the host's resolv.conf is looked at: a few hundred bytes.
const EVERY: Duration = Duration::from_secs(5);
/// The port of DNS.
const PORT: u16 = 53;

/// Follows the objects and who is silent, until the store ends.
pub(super) async fn store(
    store: Arc<dyn Store>,
    mut hosts: watch::Receiver<Arc<Hosts>>,
    resolver: Arc<Resolver>,
) {
    loop {
        match follow_history(&store, &mut hosts, &resolver).await {
            // The history was cut past what was seen: start from the newest state again.
            store::Error::Compacted { .. } => {}
            error => return tracing::debug!(%error, "names are no longer followed"),
        }
    }
}

async fn follow_history(
    store: &Arc<dyn Store>,
    hosts: &mut watch::Receiver<Arc<Hosts>>,
    resolver: &Resolver,
) -> store::Error {
    // What was said before it was listened to.
    hosts.mark_changed();
    let state = store.snapshot();
    let from = state.revision().next();
    let watch = |prefix: String| store.watch(KeyRange::prefix(prefix), from);
    let [namespaces, services, slices, pods] = kinds().map(watch);
    let (mut namespaces, mut services, mut slices, mut pods) = match (namespaces, services, slices, pods) {
        (Ok(namespaces), Ok(services), Ok(slices), Ok(pods)) => (namespaces, services, slices, pods),
        (Err(error), ..) | (_, Err(error), ..) | (_, _, Err(error), _) | (.., Err(error)) => return error,
    };
    // Questions are answered from what was known while all is read.
    let mut anew = resolver.records().without_objects();
    anew.load(&state);
    *resolver.change_records() = anew;
    // A snapshot that is kept keeps every object that is replaced from now on.
    drop(state);
    loop {
        let events = tokio::select! {
            changed = namespaces.changes() => changed,
            changed = services.changes() => changed,
            changed = slices.changes() => changed,
            changed = pods.changes() => changed,
            changed = hosts.changed() => match changed {
                Ok(()) => {
                    let known = hosts.borrow_and_update().clone();
                    resolver.change_records().hosts(&known);
                    continue;
                }
                Err(_) => return store::Error::Closed,
            },
        };
        match events {
            Ok((events, _)) => resolver.change_records().apply(&events),
            Err(error) => return error,
        }
    }
}

/// Whom this machine asks, and whom this host.
pub(super) struct Machine {
    path: PathBuf,
    /// Whom the configuration names; with none, `path` does.
    servers: Vec<SocketAddr>,
    /// Where this host answers itself.
    own: Vec<SocketAddr>,
    known: Option<String>,
}

impl Machine {
    pub fn new(path: PathBuf, servers: Vec<SocketAddr>, own: Vec<SocketAddr>) -> Self {
        Machine { path, servers, own, known: None }
    }

    /// Looks whether the machine's resolv.conf is another one: its search domains, and whom to ask. Never itself.
    pub async fn look(&mut self, resolver: &Resolver) {
        let text = tokio::fs::read_to_string(&self.path).await.unwrap_or_default();
        if self.known.as_ref() == Some(&text) {
            return;
        }
        let conf = ResolvConf::parse(&text);
        let named = || conf.servers().map(|ip| SocketAddr::new(ip, PORT)).collect();
        let mut servers = if self.servers.is_empty() { named() } else { self.servers.clone() };
        servers.retain(|server| !self.own.contains(server));
        if servers.is_empty() {
            tracing::warn!(
                "names outside of the cluster can't be resolved: {} names no server but this one, and the configuration none \
                 (dns.upstream)",
                self.path.display()
            );
        }
        resolver.upstream().set(&servers);
        resolver.set_searches(conf.search_names().collect());
        self.known = Some(text);
    }

    /// Looks again and again.
    pub async fn follow(mut self, resolver: Arc<Resolver>) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.look(&resolver).await;
        }
    }
}
