//! The register of hosts in the store: read, changed as it was seen, and kept by each host about itself.

use std::time::Duration;

use bytes::Bytes;
use config::HostConfig;
use install::{Entry, REGISTER_KEY, Register};
use ipnet::IpNet;
use jiff::Timestamp;
use pki::KeyHash;
use server::RevocationList;
use store::{Compare, Condition, Op, Revision, State, Store, Txn};

use crate::engine::Engine;

/// Between two tries: the store elects a leader in less.
const PAUSE: Duration = Duration::from_millis(500);

/// The register as it was at some time.
pub(super) struct Seen {
    pub(super) register: Register,
    revision: Revision,
}

impl Seen {
    pub(super) fn in_state(state: &State) -> Self {
        let kv = state.get(REGISTER_KEY.as_bytes());
        let value = kv.map(|kv| kv.value.bytes());
        Seen {
            register: Register::read(value.as_deref()),
            revision: kv.map_or(Revision::ZERO, |kv| kv.mod_revision),
        }
    }

    /// Puts another in its place, unless somebody else did meanwhile. Whether it was put.
    pub(super) async fn replace(&self, store: &dyn Store, register: &Register) -> Result<bool, store::Error> {
        let key = Bytes::from_static(REGISTER_KEY.as_bytes());
        let txn = Txn {
            conditions: vec![Condition::ModRevision(key, Compare::Equal, self.revision)],
            success: vec![Op::put(REGISTER_KEY, register.text())],
            failure: Vec::new(),
        };
        Ok(store.txn(txn).await?.succeeded)
    }
}

/// Notes in the register who this host is, once the store can be written: its name is then this machine's, and its range nobody
/// else's.
pub async fn note_host(engine: &Engine, config: &HostConfig, pod_cidr: IpNet, key: KeyHash) {
    // Where the state lies in an etcd nobody joins.
    if config.datastore.is_some() {
        return;
    }
    let store = engine.store();
    while let Err(error) = note(&*store, config, pod_cidr, key).await {
        tracing::debug!(%error, "this host isn't noted among the hosts yet");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn note(
    store: &dyn Store,
    config: &HostConfig,
    pod_cidr: IpNet,
    key: KeyHash,
) -> Result<(), store::Error> {
    loop {
        let state = store.read().await?;
        if RevocationList::of(&state).has_key(key) {
            tracing::error!(
                "the key of this machine was taken back: another machine has the name {} now; never start this one again",
                config.name
            );
            return Ok(());
        }
        let seen = Seen::in_state(&state);
        let (mut register, name) = (seen.register.clone(), &config.name);
        if register.0.get(name).is_some_and(|known| known.key != key.to_string()) {
            tracing::warn!(
                "{name} was another machine's name, or this one's key was made anew; if that machine is still there, never start it again"
            );
        }
        let host = Entry { address: config.address, pod_cidr, since: now(), key: key.to_string() };
        let is_there = |name: &str| state.get(objects::key("", "nodes", "", name).as_bytes()).is_some();
        let is_new = match register.note(name, host, is_there) {
            Ok(is_new) => is_new,
            Err(overlap) => {
                tracing::error!("{overlap}");
                return Ok(());
            }
        };
        if !is_new || seen.replace(store, &register).await? {
            return Ok(());
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the program: a host is noted now")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use store::Memory;

    use super::*;

    #[tokio::test]
    async fn a_host_is_noted_beside_those_that_were_let_in() {
        let store = Memory::default();
        let folder = tempfile::tempdir().unwrap();
        let folder = local::Folder::open_or_create(folder.path(), 1, local::NetKind::Netns).unwrap();
        let config = HostConfig::load(&folder.config_file("n1")).unwrap();
        let noted = || Seen::in_state(&store.snapshot());
        let other = Entry {
            address: [10, 73, 0, 2].into(),
            pod_cidr: "10.244.2.0/24".parse().unwrap(),
            since: now(),
            key: "sha256:2".into(),
        };
        let first = noted();
        let with_other = Register([("n2".to_owned(), other)].into());
        assert!(first.replace(&store, &with_other).await.unwrap());
        assert!(
            !first.replace(&store, &Register::default()).await.unwrap(),
            "that was seen before the other"
        );
        let key = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse::<KeyHash>().unwrap();
        note(&store, &config, config.pod_cidr, key("1")).await.unwrap();
        let known = noted();
        assert_eq!(known.register.0.keys().collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!(known.register.0["n1"].pod_cidr, config.pod_cidr);
        note(&store, &config, config.pod_cidr, key("1")).await.unwrap();
        assert_eq!(noted().revision, known.revision, "nothing is new");
        note(&store, &config, config.pod_cidr, key("3")).await.unwrap();
        assert_eq!(noted().register.0["n1"].key, key("3").to_string());

        // A machine that was replaced takes its name back from nobody.
        let mut list = RevocationList::object();
        list["data"] = RevocationList::of_key(&key("1").to_string(), "n1", now())["data"].take();
        let at = objects::key("", "configmaps", RevocationList::NAMESPACE, RevocationList::NAME);
        store.txn(Txn::put(at, list.to_string())).await.unwrap();
        note(&store, &config, config.pod_cidr, key("1")).await.unwrap();
        assert_eq!(noted().register.0["n1"].key, key("3").to_string());
    }
}
