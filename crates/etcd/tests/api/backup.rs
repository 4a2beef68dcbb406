//! The state as a file, and a new cluster made of it.

use etcd::Code;
use etcd::proto::*;
use store::{Backup, Revision};

use crate::compare::{create, put, range};
use crate::servers;

#[tokio::test]
async fn a_new_cluster_begins_with_what_a_file_holds() {
    let old = servers::embedded().await;
    let client = old.client();
    let lease = client.lease_grant(LeaseGrantRequest { ttl: 600, id: 0 }).await.unwrap().id;
    for n in 0..2000 {
        client.put(put(&format!("/k/{n}"), &"v".repeat(100))).await.unwrap();
    }
    client.put(PutRequest { lease, ..put("/leased", "x") }).await.unwrap();
    let before = client.range(range("/", "0")).await.unwrap();
    let backup = Backup::decode(client.snapshot().await.unwrap().into()).unwrap();
    assert_eq!((backup.revision(), backup.keys().len()), (Revision(2002), 2001));
    // What is written now is lost: its revisions must not come again.
    client.put(put("/later", "lost")).await.unwrap();

    let new = servers::embedded_with(Some(backup.into_state())).await;
    let client = new.client();
    let after = client.range(range("/", "0")).await.unwrap();
    assert_eq!(after.kvs, before.kvs, "keys, values, revisions, versions, leases");
    let revision = after.header.unwrap().revision;
    assert!(revision > 1_000_000_000);
    let old_watch = WatchCreateRequest { start_revision: 2003, ..all() };
    let mut watch = client.watch(&create(old_watch)).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().created);
    let cut_off = watch.next().await.unwrap().unwrap();
    assert!(cut_off.canceled && cut_off.compact_revision == revision);
    let past = RangeRequest { revision: 2003, ..range("/", "0") };
    assert_eq!(client.range(past).await.unwrap_err().code, Code::OutOfRange);

    assert_eq!(client.put(put("/new", "x")).await.unwrap().header.unwrap().revision, revision + 1);
    let told = client.lease_time_to_live(LeaseTimeToLiveRequest { id: lease, keys: true }).await.unwrap();
    assert_eq!((told.granted_ttl, told.keys.len()), (600, 1));
    for _ in 0..lease + 2 {
        let granted = client.lease_grant(LeaseGrantRequest { ttl: 600, id: 0 }).await.unwrap();
        assert_ne!(granted.id, lease, "a number that is taken is given to nobody");
    }
    client.lease_revoke(LeaseRevokeRequest { id: lease }).await.unwrap();
    assert_eq!(client.range(range("/leased", "")).await.unwrap().count, 0);
}

fn all() -> WatchCreateRequest {
    WatchCreateRequest { key: "/".into(), range_end: "0".into(), ..Default::default() }
}
