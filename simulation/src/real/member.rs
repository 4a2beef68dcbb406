//! A member as a process of its own: it embeds the store, as any program can, and does what clients ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use pki::{ClientAuth, Identity, Trust};
use serde::{Deserialize, Serialize};
use store::{Config, Embedded, Error, Event, KeyRange, Op, Revision, State, Store, Txn};
use tokio::net::{UnixListener, UnixStream};

use super::lie::Lie;
use super::protocol::{Answer, Ask, Dump, Entry, Line};

/// The setup that the process gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// The member's name.
    pub name: String,
    /// All members.
    pub peers: BTreeMap<String, SocketAddr>,
    /// Where the certificates lie.
    pub pki: PathBuf,
    /// Where the data lies.
    pub data: PathBuf,
    /// Where clients connect.
    pub socket: PathBuf,
    /// With less than this free on the disk, changes are refused.
    pub reserve: u64,
    /// A lie to tell now and then.
    pub lie: Option<Lie>,
}

/// One answer in this many is a lie, where there are lies at all.
const LIE_EVERY: u64 = 50;

struct Member {
    store: Arc<Embedded>,
    lie: Option<Lie>,
    changes: AtomicU64,
}

/// Runs a member until it is killed.
pub fn run(setup: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(setup).with_context(|| format!("can't read {}", setup.display()))?;
    let setup: Setup = serde_json::from_slice(&text)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve(setup))
}

async fn serve(setup: Setup) -> anyhow::Result<()> {
    let Setup { name, peers, pki, data, socket, reserve, lie } = setup;
    let (identity, trust) = (Identity::load(&pki, &name)?, Trust::load(&pki)?);
    let server = identity.server_config(&trust, ClientAuth::Required, &[])?;
    let client = identity.client_config(&trust, &[])?;
    let mut config = Config::new(name, "real-faults", peers, data, server, client)?;
    config.limits.disk_reserve = reserve;
    // Small ones, so that segments and snapshots come and go.
    config.limits.snapshot_bytes = 512 << 10;
    config.limits.trailing_bytes = 128 << 10;
    let store = Embedded::start(config).await?;
    let member = Arc::new(Member { store, lie, changes: AtomicU64::new(0) });
    if socket.exists() {
        std::fs::remove_file(&socket)?;
    }
    let listener = UnixListener::bind(&socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let member = member.clone();
        tokio::spawn(async move {
            // A client that hangs up, or a connection that breaks, is nobody's trouble.
            let _ = member.attend(stream).await;
        });
    }
}

impl Member {
    async fn attend(&self, stream: UnixStream) -> anyhow::Result<()> {
        let mut line = Line::new(stream);
        while let Some(ask) = line.hear().await? {
            let answer = match ask {
                Ask::Put { key, value } => self.put(key, value).await,
                Ask::Delete(prefix) => self.change(Op::Delete(KeyRange::prefix(prefix))).await,
                Ask::Read(key) => match self.store.read().await {
                    Ok(state) => value(&state, &key),
                    Err(problem) => Answer::Failed(problem.to_string()),
                },
                Ask::Peek(key) => value(&self.store.snapshot(), &key),
                Ask::Dump => match self.store.read().await {
                    Ok(state) => Answer::Dump(dump(&state)),
                    Err(problem) => Answer::Failed(problem.to_string()),
                },
                Ask::Leads => Answer::Leads(self.store.leadership().borrow().is_me),
                Ask::Watch(from) => return self.watch(&mut line, from).await,
            };
            line.say(&answer).await?;
        }
        Ok(())
    }

    /// Whether the next change is one to lie about.
    fn lies(&self, lie: Lie) -> bool {
        self.lie == Some(lie) && self.changes.fetch_add(1, Ordering::Relaxed) % LIE_EVERY == LIE_EVERY - 1
    }

    async fn put(&self, key: String, value: String) -> Answer {
        if self.lies(Lie::AckWithoutWrite) {
            return Answer::Done(self.store.snapshot().revision().next());
        }
        let op = Op::put(key, value);
        if self.lies(Lie::WriteTwice) {
            self.change(op.clone()).await;
        }
        self.change(op).await
    }

    async fn change(&self, op: Op) -> Answer {
        match self.store.txn(Txn { success: vec![op], ..Txn::default() }).await {
            Ok(response) => Answer::Done(response.revision),
            Err(problem @ (Error::NoSpace(_) | Error::Sealed { .. })) => Answer::NoRoom(problem.to_string()),
            Err(problem) => Answer::Failed(problem.to_string()),
        }
    }

    async fn watch(&self, line: &mut Line, from: Revision) -> anyhow::Result<()> {
        let mut watcher = match self.store.watch(KeyRange::prefix("/"), from) {
            Ok(watcher) => watcher,
            Err(problem) => return line.say(&Answer::Failed(problem.to_string())).await,
        };
        loop {
            let events = match watcher.changes().await {
                Ok((events, _)) => events,
                Err(problem) => return line.say(&Answer::Failed(problem.to_string())).await,
            };
            for event in events {
                if self.lies(Lie::SkippedEvent) {
                    continue;
                }
                let is_put = matches!(event, Event::Put { .. });
                let key = String::from_utf8_lossy(event.key()).into_owned();
                line.say(&Answer::Event { revision: event.revision(), key, is_put }).await?;
            }
        }
    }
}

fn value(state: &State, key: &str) -> Answer {
    Answer::Value(state.get(key.as_bytes()).map(|kv| crc32fast::hash(&kv.value.bytes())))
}

fn dump(state: &State) -> Dump {
    let entries = state.range(&KeyRange::prefix("/")).map(|kv| Entry {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        checksum: crc32fast::hash(&kv.value.bytes()),
    });
    Dump { revision: state.revision(), entries: entries.collect() }
}
