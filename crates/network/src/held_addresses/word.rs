//! What a host's Node says of the addresses that it takes, so that it is asked to hold no others.

use std::sync::Arc;
use std::time::Duration;

use objects::{AddressPool, TAKES_ADDRESSES, TypedRef, Write, Writer};
use serde_json::{Value, json};
use store::{KeyRange, State, Store};
use tokio::time::{sleep, timeout};

/// What was refused is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a write may take.
const WRITE: Duration = Duration::from_secs(5);

/// Who says it.
#[derive(Clone)]
pub(super) struct Word {
    pub host: String,
    pub store: Arc<dyn Store>,
    pub writer: Arc<dyn Writer>,
}

impl Word {
    /// Has the Node say it for as long as this runs: as soon as there is a Node, and again where somebody has it say something else.
    pub async fn keep(self, pool: AddressPool) {
        loop {
            match self.follow(&pool).await {
                // The history was cut past what was seen.
                store::Error::Compacted { .. } => {}
                error => {
                    tracing::debug!(%error, "the Node is no longer followed");
                    return;
                }
            }
        }
    }

    async fn follow(&self, pool: &AddressPool) -> store::Error {
        let state = self.store.snapshot();
        let node = KeyRange::key(self.key());
        let mut changes = match self.store.watch(node, state.revision().next()) {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        loop {
            if self.said(&self.store.snapshot()).is_some_and(|said| said != pool.to_string())
                && !self.say(pool).await
            {
                sleep(AGAIN).await;
                continue;
            }
            if let Err(error) = changes.changes().await {
                return error;
            }
        }
    }

    fn key(&self) -> String {
        objects::key("", "nodes", "", &self.host)
    }

    /// What the Node says; nothing without a Node. One that says nothing says no pool.
    fn said(&self, state: &State) -> Option<String> {
        let kv = state.get(self.key().as_bytes())?;
        let node: Value = serde_json::from_slice(&kv.value.bytes()).unwrap_or_default();
        let said = &node["metadata"]["annotations"][TAKES_ADDRESSES];
        Some(said.as_str().unwrap_or("-").to_owned())
    }

    /// Has it say this now. False if that was refused, or took too long.
    pub async fn say(&self, pool: &AddressPool) -> bool {
        let subject = TypedRef {
            api_version: "v1".into(),
            kind: "Node".into(),
            namespace: String::new(),
            name: self.host.clone(),
        };
        let patch = json!({"metadata": {"annotations": {TAKES_ADDRESSES: pool.to_string()}}});
        let user = format!("system:node:{}", self.host);
        let write = self.writer.write(&user, Write::Merge { subject, subresource: "", patch });
        match timeout(WRITE, write).await {
            Ok(Ok(_)) => true,
            Ok(Err(status)) => {
                tracing::debug!(%status, "the Node doesn't say which addresses this host takes");
                false
            }
            Err(_) => false,
        }
    }
}
