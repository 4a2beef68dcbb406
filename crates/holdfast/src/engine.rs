//! What the cluster's state lies in: the hosts' own store, or an etcd.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use local::HostConfig;
use pki::{ClientAuth, Identity, Trust};
use store::{Embedded, Store};

use crate::{datastore, host};

/// The engine of a host.
pub enum Engine {
    /// This host is a member of the cluster's own store.
    Embedded(Arc<Embedded>),
    /// An etcd.
    Etcd(Arc<etcd::Engine>),
}

impl Engine {
    /// Starts it; `peers` are the members of the hosts' own store.
    pub async fn start(
        config: &HostConfig,
        identity: &Identity,
        trust: &Trust,
        peers: BTreeMap<String, SocketAddr>,
    ) -> anyhow::Result<Engine> {
        if let Some(datastore) = &config.datastore {
            let config = datastore::config(datastore, &config.name, &config.cluster_id)?;
            return Ok(Engine::Etcd(etcd::Engine::start(config).await?));
        }
        let config = store::Config::new(
            &config.name,
            &config.cluster_id,
            peers,
            host::store_dir(config),
            identity.server_config(trust, ClientAuth::Required, &[])?,
            identity.client_config(trust, &[])?,
        )?;
        Ok(Engine::Embedded(Embedded::start(config).await?))
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
            // It ends the process by itself.
            Engine::Embedded(_) => std::future::pending().await,
            Engine::Etcd(store) => store.failed().await.into(),
        }
    }
}
