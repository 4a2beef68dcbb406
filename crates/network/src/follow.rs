//! Keeps [`Services`] as the store and the heartbeats say.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use membership::Hosts;
use objects::{Kind, Table};
use store::{KeyRange, State, Store, Watcher};
use tokio::sync::watch;

use crate::dropped::{Dropped, News};
use crate::{Services, Targets};

/// One kind's objects and the changes to come.
struct Followed<T> {
    table: Table<T>,
    watcher: Watcher,
}

impl<T: Kind> Followed<T> {
    fn start(store: &dyn Store, state: &State) -> Result<Self, store::Error> {
        let range = KeyRange::prefix(objects::kind_prefix(T::GROUP, T::PLURAL));
        let watcher = store.watch(range, state.revision() + 1)?;
        Ok(Followed { table: Table::load(state), watcher })
    }

    async fn changes(&mut self) -> Result<(), store::Error> {
        let (events, _) = self.watcher.changes().await?;
        for event in &events {
            self.table.apply(event);
        }
        Ok(())
    }
}

/// Follows until the store ends.
pub(crate) async fn follow(
    store: Arc<dyn Store>,
    hosts: watch::Receiver<Arc<Hosts>>,
    targets: Targets,
    services: watch::Sender<Arc<Services>>,
) {
    let mut dropped = Dropped::default();
    loop {
        match follow_history(&*store, hosts.clone(), &targets, &services, &mut dropped).await {
            // The history was cut past what was seen: start from the newest state again.
            Err(store::Error::Compacted { .. }) => {}
            Err(error) => return tracing::debug!(%error, "services are no longer followed"),
            Ok(()) => return,
        }
    }
}

async fn follow_history(
    store: &dyn Store,
    mut hosts: watch::Receiver<Arc<Hosts>>,
    targets: &Targets,
    services: &watch::Sender<Arc<Services>>,
    dropped: &mut Dropped,
) -> Result<(), store::Error> {
    let state = store.snapshot();
    let mut objects = Followed::<Service>::start(store, &state)?;
    let mut slices = Followed::<EndpointSlice>::start(store, &state)?;
    drop(state);
    loop {
        let now = Services::new(objects.table.iter(), slices.table.iter(), targets);
        services.send_if_modified(|known| {
            let changed = **known != now;
            if changed {
                *known = Arc::new(now);
            }
            changed
        });
        loop {
            tell(dropped.update(&services.borrow(), &hosts.borrow_and_update()));
            tokio::select! {
                changed = objects.changes() => { changed?; break; }
                changed = slices.changes() => { changed?; break; }
                changed = hosts.changed() => if changed.is_err() { return Ok(()) },
            }
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
