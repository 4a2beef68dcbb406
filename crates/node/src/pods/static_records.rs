//! What the host knows of its static pods from one agent to the next: how often their containers were started, and whether they are done.
//!
//! Of other pods their objects say so. Mirrors don't count: who may write the status of pods could say there that one is done.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tracing::info_span;

use crate::own_file::{remove, replace};

/// What is kept of a status. A phase is kept only once nothing is to run any more.
const FIELDS: [&str; 4] = ["startTime", "podIP", "initContainerStatuses", "containerStatuses"];

/// The records of static pods by uid, a file each.
#[derive(Debug)]
pub(crate) struct StaticRecords {
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Value>>,
    /// Whose turn it is to write.
    turn: tokio::sync::Mutex<()>,
}

impl StaticRecords {
    /// Reads what former agents kept. What can't be read is as if it weren't there: its pod begins anew.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(uid) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            match fs::read(entry.path()).and_then(|text| Ok(serde_json::from_slice(&text)?)) {
                Ok(record) => _ = known.insert(uid.to_owned(), record),
                Err(error) => tracing::warn!(uid, %error, "what is known of a static pod can't be read"),
            }
        }
        StaticRecords { folder, known: Mutex::new(known), turn: tokio::sync::Mutex::default() }
    }

    /// What is known of a pod, as parts of a status.
    pub(super) fn get(&self, uid: &str) -> Option<Value> {
        self.lock().get(uid).cloned()
    }

    /// The pods of which something is known.
    pub(super) fn uids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Sets what is known; [`write`](Self::write) keeps it.
    pub(super) fn set(&self, uid: &str, record: Value) {
        self.lock().insert(uid.to_owned(), record);
    }

    /// The pod is gone: [`write`](Self::write) forgets it.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Brings the disk to what is known of a pod by then, so the last of several writes is right whichever comes first.
    pub(super) async fn write(&self, uid: &str) {
        let _turn = self.turn.lock().await;
        let (file, record) = (self.folder.join(format!("{uid}.json")), self.get(uid));
        let work = tasks::blocking(info_span!("write a static pod's record", uid), move || match record {
            Some(record) => replace(&file, record.to_string().as_bytes()),
            None => remove(&file),
        });
        if let Err(error) = work.await.map_err(io::Error::other).flatten() {
            tracing::warn!(uid, %error, "what is known of a static pod can't be kept: the next agent won't know it");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be known of a pod with this status, which ended `by_itself` if it ended. One that its host ended is run again by the next
/// agent.
pub(super) fn record_of(status: &Value, by_itself: bool) -> Value {
    let is_over = by_itself && matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
    let fields = FIELDS.into_iter().chain(is_over.then_some("phase"));
    let kept = fields.filter_map(|field| Some((field.to_owned(), status.get(field)?.clone())));
    Value::Object(kept.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_known_outlives_the_agent_until_the_pod_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("static-pods");
        let records = StaticRecords::open(path.clone());
        records.set("a", json!({"phase": "Failed"}));
        records.set("b", json!({}));
        records.write("b").await;
        // Whichever comes first.
        records.set("a", json!({"phase": "Succeeded"}));
        tokio::join!(records.write("a"), records.write("a"));
        fs::write(path.join("c.json"), "{").unwrap();
        let again = StaticRecords::open(path.clone());
        assert_eq!(
            (again.uids(), again.get("a")),
            (vec!["a".into(), "b".into()], Some(json!({"phase": "Succeeded"})))
        );
        again.forget("a");
        again.write("a").await;
        again.write("a").await;
        assert_eq!(StaticRecords::open(path).uids(), ["b"]);
    }

    #[test]
    fn only_what_ended_by_itself_is_over() {
        let status = json!({"phase": "Succeeded", "podIP": "10.0.0.1", "conditions": []});
        assert_eq!(record_of(&status, true), json!({"phase": "Succeeded", "podIP": "10.0.0.1"}));
        assert_eq!(record_of(&status, false), json!({"podIP": "10.0.0.1"}));
        assert_eq!(record_of(&json!({"phase": "Running"}), true), json!({}));
    }
}
