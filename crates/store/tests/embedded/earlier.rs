//! A member's folder that an earlier version of the program wrote (see `tests/cluster/fixtures`).

use std::process::Command;

use store::{Embedded, Revision, Store};

use crate::harness::{configs, keys, put};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cluster/fixtures/da6c5fb.tar.gz");
const CLUSTER: &str = "e2e72fb5-d4f3-4df1-9d1a-346b1e9c4ddc";
/// What it wrote last, and at which revision.
const WROTE: [(&str, u64); 5] = [
    ("/registry/core/configmaps/shop/settings", 76),
    ("/registry/core/secrets/shop/password", 38),
    ("/registry/coordination.k8s.io/leases/shop/turn", 39),
    ("/registry/apps/deployments/shop/web", 54),
    ("/registry/shop.example.com/crates/shop/one", 55),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_version_wrote_is_there_at_its_revisions_and_goes_on() {
    if !testing::has("tar") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unpacked =
        Command::new("tar").arg("-xzf").arg(FIXTURE).arg("-C").arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    let mut config = configs(folder.path(), 1).remove(0);
    config.cluster_id = CLUSTER.to_owned();
    config.data_dir = folder.path().join("cluster/n1/data/store");
    let mut before = 0;
    for round in 0..2 {
        let store = Embedded::start(config.clone()).await.unwrap();
        let state = store.read().await.unwrap();
        for (key, revision) in WROTE {
            let kv = state.get(key.as_bytes()).unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(kv.mod_revision, Revision(revision), "{key}");
        }
        if round == 0 {
            before = state.len();
        }
        assert_eq!(keys(&store).len(), before + round * 100, "what was written since is there, too");
        let writes = (0..100).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, &format!("later/{round}/{n}")).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap();
        }
        let now = store.read().await.unwrap();
        assert!(now.revision().0 >= state.revision().0 + 100, "revisions go on");
        store.shutdown().await;
    }
}
