//! Values that are sealed wherever they lie.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use store::{BackupFile, Compare, Condition, SEALED, Sealer, Sealing, Store, Txn};

use crate::harness::Cluster;

/// Turns the bits of values below `/secret/` around.
struct Turned;

impl Sealer for Turned {
    fn covers(&self, key: &[u8]) -> bool {
        key.starts_with(b"/secret/")
    }

    fn seal(&self, _: &[u8], value: &[u8]) -> Vec<u8> {
        [SEALED, &value.iter().map(|byte| !byte).collect::<Vec<u8>>()].concat()
    }

    fn open(&self, _: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        Some(sealed.strip_prefix(SEALED)?.iter().map(|byte| !byte).collect())
    }
}

/// Whether a file in a folder, or below it, has these bytes.
fn lies_in(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return lies_in(&path, bytes);
        }
        fs::read(path).unwrap().windows(bytes.len()).any(|part| part == bytes)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_value_lies_open_in_memory_alone() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    cluster.crash(0);
    cluster.configs[0].sealing = Sealing::by(Arc::new(Turned));
    cluster.restart(0).await;
    cluster.leader().await;
    let member = cluster.members[0].clone().unwrap();
    member.txn(Txn::put("/secret/a", "the word")).await.unwrap();
    member.txn(Txn::put("/open/a", "the sign")).await.unwrap();
    let compared = Condition::Value("/secret/a".into(), Compare::Equal, "the word".into());
    let txn = Txn { conditions: vec![compared], ..Txn::put("/open/b", "") };
    assert!(member.txn(txn).await.is_err(), "what it is compared with would lie in the log");

    let state = member.read().await.unwrap();
    assert_eq!(state.get(b"/secret/a").unwrap().value.bytes(), "the word");
    let backup: Vec<u8> = BackupFile::new(state).flatten().collect();
    let has = |word: &[u8]| backup.windows(word.len()).any(|part| part == word);
    assert!(has(b"the sign") && !has(b"the word"));
    let folder = cluster.folder.path();
    assert!(lies_in(folder, b"the sign") && !lies_in(folder, b"the word"));

    drop(member);
    cluster.crash(0);
    cluster.restart(0).await;
    cluster.leader().await;
    let member = cluster.members[0].clone().unwrap();
    let state = member.read().await.unwrap();
    assert_eq!(state.get(b"/secret/a").unwrap().value.bytes(), "the word", "read from the log");
}
