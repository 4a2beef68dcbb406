//! The same few operations against either side.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use store::{Embedded, KeyRange, Revision, Store, Txn};
use tokio::task::JoinSet;

use super::etcd::Connection;

/// How many clients of etcd's API share a connection, as in etcd's own benchmarks (1,000 clients, 100 connections).
const CLIENTS_PER_CONNECTION: usize = 10;
/// How many watchers share a stream: an API server has one stream for all watchers of a kind.
const WATCHERS_PER_STREAM: usize = 100;

/// How a client reaches its member.
#[derive(Clone)]
pub enum Client {
    /// A call within the member's process.
    Ours(Arc<Embedded>),
    /// gRPC over TLS.
    Etcd(Connection),
}

/// What a watcher does with each value that it sees; one copy for each group of watchers.
pub trait Seen: FnMut(&[u8]) + Send + 'static {}

impl<F: FnMut(&[u8]) + Send + 'static> Seen for F {}

impl Client {
    /// Writes a key.
    pub async fn put(&self, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        match self {
            Client::Ours(store) => drop(store.txn(Txn::put(key, value)).await?),
            Client::Etcd(connection) => connection.put(key, value).await?,
        }
        Ok(())
    }

    /// Reads a key that is there.
    pub async fn get(&self, key: Bytes, stale: bool) -> anyhow::Result<Bytes> {
        let value = match self {
            Client::Ours(store) => {
                let state = if stale { store.snapshot() } else { store.read().await? };
                state.get(&key).map(|kv| kv.value.bytes())
            }
            Client::Etcd(connection) => {
                connection.range(key, None, stale).await?.kvs.pop().map(|kv| kv.value)
            }
        };
        value.context("a key that was written is not there")
    }

    /// Reads a range as it is now and copies it to `out`, as a server that answers with it does.
    pub async fn range(&self, range: &KeyRange, out: &mut Vec<u8>) -> anyhow::Result<usize> {
        out.clear();
        let mut count = 0;
        let mut copy = |key: &[u8], value: &[u8]| {
            out.extend_from_slice(key);
            out.extend_from_slice(value);
            count += 1;
        };
        match self {
            Client::Ours(store) => {
                store.read().await?.range(range).for_each(|kv| copy(&kv.key, &kv.value.bytes()));
            }
            Client::Etcd(connection) => {
                let answer = connection.range(range.start.clone(), range.end.clone(), false).await?;
                answer.kvs.iter().for_each(|kv| copy(&kv.key, &kv.value));
            }
        }
        Ok(count)
    }

    /// Whether the member leads.
    pub async fn leads(&self) -> anyhow::Result<bool> {
        match self {
            Client::Ours(store) => Ok(store.leadership().borrow().is_me),
            Client::Etcd(connection) => Ok(connection.leads().await?),
        }
    }
}

/// Where clients come from.
pub enum Source {
    /// Our member, which is in this process.
    Ours(Arc<Embedded>),
    /// A member behind etcd's API, in another process.
    Etcd {
        /// Where it answers.
        endpoint: String,
        /// Where the certificates lie.
        pki: std::path::PathBuf,
        /// Whose certificate to show.
        name: String,
    },
}

impl Source {
    /// One more way to the member.
    pub async fn open(&self) -> anyhow::Result<Client> {
        match self {
            Source::Ours(store) => Ok(Client::Ours(store.clone())),
            Source::Etcd { endpoint, pki, name } => {
                Ok(Client::Etcd(Connection::open(endpoint, Path::new(pki), name).await?))
            }
        }
    }

    /// This many clients, with the connections that they share.
    pub async fn clients(&self, count: usize) -> anyhow::Result<Vec<Client>> {
        let mut ways = Vec::new();
        for _ in 0..count.div_ceil(CLIENTS_PER_CONNECTION) {
            ways.push(self.open().await?);
        }
        Ok((0..count).map(|n| ways[n % ways.len()].clone()).collect())
    }

    /// Starts one watcher for each key; returns once all are there. They end with the answer.
    pub async fn watch(
        &self,
        keys: &[Bytes],
        mut seen: impl FnMut() -> Box<dyn Seen>,
    ) -> anyhow::Result<JoinSet<()>> {
        let mut watchers = JoinSet::new();
        match self {
            Source::Ours(store) => {
                for key in keys {
                    let mut watcher = store.watch(KeyRange::key(key.clone()), Revision::ZERO)?;
                    let mut seen = seen();
                    watchers.spawn(async move {
                        while let Ok((events, _)) = watcher.changes().await {
                            for event in events {
                                if let store::Event::Put { current, .. } = event {
                                    seen(&current.value.bytes());
                                }
                            }
                        }
                    });
                }
            }
            Source::Etcd { .. } => {
                for keys in keys.chunks(WATCHERS_PER_STREAM) {
                    let Client::Etcd(connection) = self.open().await? else { continue };
                    let mut stream = connection.watch(keys.to_vec()).await?;
                    let mut created = 0;
                    while created < keys.len() {
                        let answer = stream.message().await?.context("the watch ended")?;
                        anyhow::ensure!(!answer.canceled, "a watcher was refused");
                        created += usize::from(answer.created);
                    }
                    let mut seen = seen();
                    watchers.spawn(async move {
                        while let Ok(Some(answer)) = stream.message().await {
                            for kv in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
                                seen(&kv.value);
                            }
                        }
                    });
                }
            }
        }
        Ok(watchers)
    }
}
