//! What the cluster's state lies in: the hosts' own store, or an etcd.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use config::HostConfig;
use pki::{LiveIdentity, RevokedKeys, Trust};
use store::{Embedded, Member, Sealing, StartError, Store};
use tokio::sync::watch;

use crate::peers::Members;
use crate::sealing::Encryption;
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
    /// Starts it; `beats` is what is heard of the members of the hosts' own store beside it, `encryption` what that keeps values by.
    pub async fn start(
        config: &HostConfig,
        identity: &LiveIdentity,
        trust: &Trust,
        revoked: &RevokedKeys,
        beats: store::Beats,
        encryption: Arc<Encryption>,
    ) -> anyhow::Result<Engine> {
        if let Some(datastore) = &config.datastore {
            let config = datastore::config(datastore, &config.name, &config.cluster_id)?;
            return Ok(Engine::Etcd(etcd::Engine::start(config).await?));
        }
        let mut store_config = store::Config::new(
            &config.name,
            &config.cluster_id,
            config.peers_at(config.ports.store),
            host::store_dir(config),
            identity.members_config(trust, revoked)?,
            identity.peer_config(trust, revoked, &[])?,
        )?;
        store_config.timing = timing(&config.timeouts.store);
        store_config.beats = Some(beats);
        store_config.sealing = Sealing::by(encryption);
        // An empty folder on a host that has taken part is a lost disk. As a founder it could vote again in terms in
        // which it has voted; it joins as somebody new instead.
        if config.begun_file.exists() {
            store_config.start = store::Start::Join;
        }
        let store = Embedded::start(store_config).await.map_err(|why| told(why, config))?;
        // Not earlier: a first start that failed would pass for a lost disk, and the members would wait for each
        // other.
        begun(&config.begun_file)?;
        Ok(Engine::Embedded(store))
    }

    /// The members of the hosts' own store; where the state lies in an etcd, those that the configuration names.
    pub fn members(&self, config: &HostConfig) -> Members {
        match self {
            Engine::Embedded(store) => by_name(&store.members(), config),
            Engine::Etcd(_) => config.peers.clone(),
        }
    }

    /// Shows who the members are, as that changes, for as long as the store runs.
    pub async fn follow_members(self, config: HostConfig, shown: watch::Sender<Members>) {
        let Engine::Embedded(store) = self else { return };
        let mut known = Vec::new();
        loop {
            known = store.next_members(&known).await;
            shown.send_replace(by_name(&known, &config));
        }
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

/// Says what to do about a store whose data is gone.
fn told(why: StartError, config: &HostConfig) -> anyhow::Error {
    let StartError::Alone(folder) = why else { return why.into() };
    anyhow::anyhow!(
        "{} says that this host has taken part in its cluster, but its store's folder {} is empty, and its configuration \
         names no other host that could give it the data; it begins no second cluster. Mount the disk of {} if it isn't \
         mounted. If the data is lost, move the folders of its configuration and of its data away, and let the machine join the \
         cluster's other hosts (`holdfast join`), or begin a new cluster where there are none (`holdfast init`)",
        config.begun_file.display(),
        folder.display(),
        config.data_dir.display(),
    )
}

/// Those that are there, not those that were added and have not come yet. A member that has only just joined knows of none:
/// until it does, they are those of its configuration.
fn by_name(members: &[Member], config: &HostConfig) -> Members {
    if members.is_empty() {
        return config.peers.clone();
    }
    let joined = members.iter().filter(|member| member.has_joined && !member.name.is_empty());
    joined.map(|member| (member.name.clone(), member.address.ip())).collect()
}

/// The store's clocks.
pub fn timing(timeouts: &config::StoreTimeouts) -> store::Timing {
    store::Timing {
        tick: timeouts.tick,
        heartbeat: timeouts.heartbeat,
        election_min: timeouts.election_min,
        election_max: timeouts.election_max,
        request_timeout: timeouts.request,
        disk_stall: timeouts.disk_stall,
        connect_timeout: timeouts.connect,
        reconnect: timeouts.reconnect,
        silence: timeouts.silence,
    }
}

/// Notes, where it lasts longer than the store's folder, that the store has taken part.
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
