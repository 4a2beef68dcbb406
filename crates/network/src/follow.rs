//! Feeds a backend with what the store and the heartbeats say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use membership::Hosts;
use objects::Kind;
use store::{KeyRange, Revision, Store, Watcher};
use tokio::sync::{mpsc, watch};

use crate::backend::{Outcome, ServiceBackend};
use crate::dropped::{Dropped, News};
use crate::{Directory, HostNetwork, ServiceChange, Targets};

/// After this time a backend tries again what was refused.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows until the store ends, as seen from the host `own`. `more` are changes that no store has.
pub(crate) async fn follow(
    own: &str,
    store: Arc<dyn Store>,
    hosts: watch::Receiver<Arc<Hosts>>,
    networks: watch::Receiver<Arc<BTreeMap<String, HostNetwork>>>,
    more: mpsc::UnboundedReceiver<ServiceChange>,
    backend: impl ServiceBackend,
) {
    let directory = Directory::new(own, Targets::default());
    let own = objects::key(Node::GROUP, Node::PLURAL, "", own);
    let mut follower =
        Follower { own, store, hosts, networks, more, directory, dropped: Dropped::default(), backend };
    loop {
        match follower.follow_history().await {
            // Other hosts are other targets, or the history was cut past what was seen: start from the newest state again.
            Ok(()) | Err(store::Error::Compacted { .. }) => {}
            Err(error) => return tracing::debug!(%error, "services are no longer followed"),
        }
    }
}

struct Follower<B> {
    /// The key of this host's Node.
    own: String,
    store: Arc<dyn Store>,
    hosts: watch::Receiver<Arc<Hosts>>,
    networks: watch::Receiver<Arc<BTreeMap<String, HostNetwork>>>,
    more: mpsc::UnboundedReceiver<ServiceChange>,
    directory: Directory,
    dropped: Dropped,
    backend: B,
}

impl<B: ServiceBackend> Follower<B> {
    fn watch<T: Kind>(&self, from: Revision) -> Result<Watcher, store::Error> {
        self.store.watch(KeyRange::prefix(objects::kind_prefix(T::GROUP, T::PLURAL)), from)
    }

    /// Follows until there are other hosts.
    async fn follow_history(&mut self) -> Result<(), store::Error> {
        self.directory.aim(Targets::new(&self.networks.borrow_and_update()));
        let state = self.store.snapshot();
        let from = state.revision().next();
        let (mut services, mut slices) = (self.watch::<Service>(from)?, self.watch::<EndpointSlice>(from)?);
        let mut node = self.store.watch(KeyRange::key(self.own.clone()), from)?;
        self.directory.load(&state);
        // A snapshot that is kept keeps every object that is replaced from now on.
        drop(state);
        let mut more = Vec::new();
        loop {
            self.directory.hosts(&self.hosts.borrow_and_update());
            let mut changes = self.directory.changes();
            changes.append(&mut more);
            let outcome = self.backend.apply(&changes).await;
            tell(self.dropped.update(&self.directory));
            let again = async {
                match outcome {
                    Outcome::Left => tokio::time::sleep(AGAIN).await,
                    Outcome::Done => std::future::pending().await,
                }
            };
            let events = tokio::select! {
                changed = services.changes() => changed?.0,
                changed = slices.changes() => changed?.0,
                changed = node.changes() => changed?.0,
                changed = self.hosts.changed() => match changed {
                    Ok(()) => Vec::new(),
                    Err(_) => return Err(store::Error::Closed),
                },
                Ok(()) = self.networks.changed() => return Ok(()),
                Some(change) = self.more.recv() => {
                    more.push(change);
                    Vec::new()
                }
                () = again => Vec::new(),
            };
            events.iter().for_each(|event| self.directory.apply(event));
        }
    }
}

fn tell(news: Vec<News>) {
    for news in news {
        match news {
            News::Dropped { host, count } => {
                tracing::info!(target: "timeline", what = "endpoints-dropped", subject = %host, count);
            }
            News::Restored { host, count } => {
                tracing::info!(target: "timeline", what = "endpoints-restored", subject = %host, count);
            }
        }
    }
}

#[cfg(test)]
mod tests;
