//! What the cluster's state lies in: the hosts' own store, or an etcd.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use config::HostConfig;
use pki::{ClientAuth, Identity, Trust};
use store::{Embedded, Store};

use crate::{datastore, host};

/// The engine of a host.
#[derive(Clone)]
pub enum Engine {
    /// This host is a member of the cluster's own store.
    Embedded(Arc<Embedded>),
    /// An etcd.
    Etcd(Arc<etcd::Engine>),
}

impl Engine {
    /// Starts it; `peers` are the members of the hosts' own store, `beats` what is heard of them beside it.
    pub async fn start(
        config: &HostConfig,
        identity: &Identity,
        trust: &Trust,
        peers: BTreeMap<String, SocketAddr>,
        beats: store::Beats,
    ) -> anyhow::Result<Engine> {
        if let Some(datastore) = &config.datastore {
            let config = datastore::config(datastore, &config.name, &config.cluster_id)?;
            return Ok(Engine::Etcd(etcd::Engine::start(config).await?));
        }
        let mut store_config = store::Config::new(
            &config.name,
            &config.cluster_id,
            peers,
            host::store_dir(config),
            identity.server_config(trust, ClientAuth::Hosts, &[])?,
            identity.client_config(trust, &[])?,
        )?;
        store_config.beats = Some(beats);
        if config.begun_file.exists() {
            store_config.start = store::Start::Join;
        }
        let store = Embedded::start(store_config).await?;
        begun(&config.begun_file)?;
        Ok(Engine::Embedded(store))
    }

    /// The store itself.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Engine::Embedded(store) => store.clone(),
            Engine::Etcd(store) => store.clone(),
        }
    }

    /// Ends in peace: another host leads at once, if this one did.
    pub async fn shutdown(&self) {
        match self {
            Engine::Embedded(store) => store.shutdown().await,
            Engine::Etcd(store) => store.shutdown().await,
        }
    }

    /// Waits until the engine can't go on, and says why.
    pub async fn failed(&self) -> anyhow::Error {
        match self {
            // A disk that fails ends the process by itself.
            Engine::Embedded(store) => {
                store.removed().await;
                anyhow::anyhow!(
                    "this host's store was removed from the cluster: move its folder (data/store) away, and it \
                     joins the others anew"
                )
            }
            Engine::Etcd(store) => store.failed().await.into(),
        }
    }
}

/// Notes, beside the store's folder and to last longer, that the store has taken part.
fn begun(file: &Path) -> anyhow::Result<()> {
    let note = || -> io::Result<()> {
        File::create(file)?.sync_all()?;
        file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    if file.exists() {
        return Ok(());
    }
    note().with_context(|| format!("can't write {}", file.display()))
}
