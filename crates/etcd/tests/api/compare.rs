//! One script of requests, whose answers are compared word by word.

use std::collections::BTreeSet;
use std::fmt::Debug;

use etcd::proto::*;
use etcd::{Client, Status, WatchCall};

use crate::servers::{self, Running};

#[tokio::test]
async fn a_store_answers_as_etcd_does() {
    let memory = answers(&servers::memory().await).await;
    let embedded = answers(&servers::embedded().await).await;
    same(&embedded[..memory.len()], &memory);
    if let Some(peer) = servers::peer().await {
        same(&embedded, &answers(&peer).await);
    }
}

fn same(ours: &[String], theirs: &[String]) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

struct Script {
    client: Client,
    lines: Vec<String>,
    lease: i64,
}

impl Script {
    /// Notes an answer without what has to differ: the server's numbers, and those it gave to leases.
    fn note<A: Debug>(&mut self, what: &str, answer: Result<A, Status>) -> Option<A> {
        let mut text = match &answer {
            Ok(answer) => format!("{what}: {answer:?}"),
            Err(refused) => format!("{what}: {refused}"),
        };
        for field in ["cluster_id: ", "member_id: ", "raft_term: "] {
            let parts: Vec<&str> = text.split(field).collect();
            let without = |part: &&str| part.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
            let rest: Vec<String> = parts[1..].iter().map(without).collect();
            text = std::iter::once(parts[0].to_owned()).chain(rest).collect::<Vec<_>>().join(field);
        }
        let lease = self.lease;
        for (field, end) in [("lease: ", " "), (" id: ", ","), (" id: ", " ")] {
            text = text.replace(&format!("{field}{lease}{end}"), &format!("{field}LEASE{end}"));
        }
        self.lines.push(text);
        answer.ok()
    }

    async fn put(&mut self, request: PutRequest) {
        let answer = self.client.put(request.clone()).await;
        self.note(&format!("put {:?}", request.key), answer);
    }

    async fn range(&mut self, what: &str, request: RangeRequest) {
        let answer = self.client.range(request).await;
        self.note(what, answer);
    }

    async fn txn(&mut self, what: &str, request: TxnRequest) {
        let answer = self.client.txn(request).await;
        self.note(what, answer);
    }
}

pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..Default::default() }
}

pub fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), prev_kv: true }
}

pub fn op(request: RequestOpRequest) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub fn compare(
    key: &str,
    target: CompareTarget,
    how: CompareResult,
    with: Option<CompareTargetUnion>,
) -> Compare {
    Compare {
        key: key.to_owned().into(),
        target: target.into(),
        result: how.into(),
        target_union: with,
        ..Default::default()
    }
}

pub fn create(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(WatchRequestRequestUnion::Create(request)) }
}

async fn answers(server: &Running) -> Vec<String> {
    let mut script = Script { client: server.client(), lines: Vec::new(), lease: i64::MIN };
    writes(&mut script).await;
    reads(&mut script).await;
    transactions(&mut script).await;
    leases(&mut script).await;
    refusals(&mut script).await;
    watches(&mut script).await;
    compaction(&mut script).await;
    members(&mut script, server).await;
    script.lines
}

async fn writes(script: &mut Script) {
    for (key, value) in [("/a", "1"), ("/b", "9"), ("/c", "5"), ("/a", "2"), ("/d/1", "x"), ("/d/2", "y")] {
        script.put(put(key, value)).await;
    }
    script.put(PutRequest { prev_kv: true, ..put("/a", "3") }).await;
    script.put(PutRequest { prev_kv: true, ..put("/new", "") }).await;
    script.put(PutRequest { ignore_value: true, prev_kv: true, ..put("/a", "") }).await;
    script.put(PutRequest { ignore_lease: true, ..put("/a", "4") }).await;
    let client = script.client.clone();
    for request in [delete("/d/", "/d0"), delete("/d/", "/d0"), delete("/new", ""), delete("/z", "/a")] {
        let answer = client.delete_range(DeleteRangeRequest { prev_kv: true, ..request }).await;
        script.note("delete", answer);
    }
    script.put(put("/d/1", "again")).await;
}

async fn reads(script: &mut Script) {
    let all = || range("/", "0");
    let table = [
        ("one", range("/a", "")),
        ("none", range("/nobody", "")),
        ("all", all()),
        ("from", range("/b", "\0")),
        ("everything", range("\0", "\0")),
        ("backwards", range("/c", "/a")),
        ("limit", RangeRequest { limit: 2, ..all() }),
        ("limit of all", RangeRequest { limit: 4, ..all() }),
        ("keys only", RangeRequest { keys_only: true, ..all() }),
        ("count", RangeRequest { count_only: true, ..all() }),
        ("old", RangeRequest { revision: 3, ..all() }),
        ("old and gone", RangeRequest { revision: 9, ..all() }),
        ("now", RangeRequest { revision: 13, serializable: true, ..all() }),
        ("future", RangeRequest { revision: 99, ..all() }),
        ("min mod", RangeRequest { min_mod_revision: 4, ..all() }),
        ("max mod", RangeRequest { max_mod_revision: 4, limit: 1, ..all() }),
        ("create", RangeRequest { min_create_revision: 3, max_create_revision: 4, ..all() }),
        ("no key", range("", "")),
    ];
    for (what, request) in table {
        script.range(what, request).await;
    }
    let targets =
        [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
    for target in targets {
        for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
            let sorted = RangeRequest { sort_target: target.into(), sort_order: order.into(), ..all() };
            // Versions repeat, and etcd's order among equals is open: only /a's differs.
            let limit = if target == SortTarget::Version { 1 } else { 3 };
            if target != SortTarget::Version || order == SortOrder::Descend {
                script.range(&format!("{target:?} {order:?}"), RangeRequest { limit, ..sorted }).await;
            }
        }
    }
}

async fn transactions(script: &mut Script) {
    use CompareTargetUnion as With;
    let targets = [
        (CompareTarget::Version, vec![With::Version(-1), With::Version(0), With::Version(5)]),
        (CompareTarget::Create, vec![With::CreateRevision(0), With::CreateRevision(2)]),
        (CompareTarget::Mod, vec![With::ModRevision(-7), With::ModRevision(0), With::ModRevision(11)]),
        (CompareTarget::Value, vec![With::Value("4".into()), With::Value("".into())]),
        (CompareTarget::Lease, vec![With::Lease(0), With::Lease(-1)]),
    ];
    for key in ["/a", "/nobody"] {
        for (target, withs) in &targets {
            for with in withs.iter().cloned().map(Some).chain([None]) {
                for how in [
                    CompareResult::Equal,
                    CompareResult::NotEqual,
                    CompareResult::Greater,
                    CompareResult::Less,
                ] {
                    let what = format!("compare {key} {how:?} {with:?}");
                    let compare = vec![compare(key, *target, how, with.clone())];
                    script.txn(&what, TxnRequest { compare, ..Default::default() }).await;
                }
            }
        }
    }
    let read = |request| op(RequestOpRequest::Range(request));
    let write = |request| op(RequestOpRequest::Put(request));
    let forget = |request| op(RequestOpRequest::DeleteRange(request));
    let exists = compare("/a", CompareTarget::Version, CompareResult::Greater, Some(With::Version(0)));
    let missing = compare("/a", CompareTarget::Version, CompareResult::Equal, Some(With::Version(0)));
    let branches = TxnRequest {
        compare: vec![exists],
        success: vec![
            write(PutRequest { prev_kv: true, ..put("/t", "1") }),
            read(range("/t", "")),
            forget(delete("/d/", "/d0")),
            read(RangeRequest { limit: 1, keys_only: true, ..range("/", "0") }),
            read(RangeRequest { revision: 4, ..range("/", "0") }),
        ],
        failure: vec![write(put("/not", "this"))],
    };
    script.txn("success", branches.clone()).await;
    script.txn("failure", TxnRequest { compare: vec![missing.clone()], ..branches.clone() }).await;
    let keep = PutRequest { ignore_value: true, prev_kv: true, ..put("/t", "") };
    script.txn("keep", TxnRequest { success: vec![write(keep)], ..Default::default() }).await;
    let keep = PutRequest { ignore_value: true, ..put("/nobody", "") };
    script.txn("keep nothing", TxnRequest { success: vec![write(keep)], ..Default::default() }).await;
    script.txn("nothing", TxnRequest::default()).await;
    script.txn("read", TxnRequest { success: vec![read(range("/", "0"))], ..Default::default() }).await;

    let refused = |success| TxnRequest { success, ..Default::default() };
    script.txn("twice", refused(vec![write(put("/x", "1")), write(put("/x", "2"))])).await;
    script.txn("put, deleted", refused(vec![write(put("/x", "1")), forget(delete("/", "0"))])).await;
    script.txn("deleted, put", refused(vec![forget(delete("/x", "")), write(put("/x", "1"))])).await;
    script.txn("deleted twice", refused(vec![forget(delete("/x", "")), forget(delete("/", "/b"))])).await;
    script.txn("future", refused(vec![read(RangeRequest { revision: 99, ..range("/", "") })])).await;
    script.txn("no key", refused(vec![write(put("", "1"))])).await;
    script.txn("no key to delete", refused(vec![forget(delete("", ""))])).await;
    script.txn("no key to read", refused(vec![read(range("", ""))])).await;
    script
        .txn("no key to compare", TxnRequest { compare: vec![Compare::default()], ..Default::default() })
        .await;
    let puts = |count| (0..count).map(|n| write(put(&format!("/many/{n}"), "v"))).collect();
    script.txn("128", refused(puts(128))).await;
    script.txn("129", refused(puts(129))).await;
    script.txn("129 compares", TxnRequest { compare: vec![missing; 129], ..Default::default() }).await;
}

async fn leases(script: &mut Script) {
    let client = script.client.clone();
    let granted = client.lease_grant(LeaseGrantRequest { ttl: 600, id: 0 }).await.unwrap();
    script.lease = granted.id;
    script.note("grant", Ok(granted));
    let id = script.lease;
    script.put(PutRequest { lease: id, ..put("/leased/1", "a") }).await;
    script.put(PutRequest { lease: id, ..put("/leased/2", "b") }).await;
    script.put(PutRequest { ignore_lease: true, ..put("/leased/2", "c") }).await;
    script.range("leased", range("/leased/", "/leased0")).await;
    let mut told = client.lease_time_to_live(LeaseTimeToLiveRequest { id, keys: true }).await.unwrap();
    assert!((590..=600).contains(&told.ttl), "{told:?}");
    // etcd's order of these is open.
    told.keys.sort();
    script.note("time to live", Ok(LeaseTimeToLiveResponse { ttl: 600, ..told }));
    script.note("leases", client.leases(LeaseLeasesRequest {}).await);
    script.note("keep alive", client.lease_keep_alive(id).await);
    script.note("keep nothing alive", client.lease_keep_alive(77).await);
    let nobody = LeaseTimeToLiveRequest { id: 77, keys: false };
    script.note("time of nothing", client.lease_time_to_live(nobody).await);
    script.put(PutRequest { lease: 77, ..put("/leased/3", "a") }).await;
    let again = LeaseGrantRequest { ttl: 5, id };
    script.note("grant again", client.lease_grant(again).await);
    script.note("too long", client.lease_grant(LeaseGrantRequest { ttl: 9_000_000_001, id: 0 }).await);
    script.note("revoke", client.lease_revoke(LeaseRevokeRequest { id }).await);
    script.note("revoke again", client.lease_revoke(LeaseRevokeRequest { id }).await);
    script.range("leased", range("/leased/", "/leased0")).await;
    for id in [1234, i64::MAX, -5, 1234] {
        script.note("chosen", client.lease_grant(LeaseGrantRequest { ttl: 600, id }).await);
    }
    script.put(PutRequest { lease: 1234, ..put("/leased/4", "a") }).await;
    for id in [1234, i64::MAX, -5, 1234] {
        script.note("revoke chosen", client.lease_revoke(LeaseRevokeRequest { id }).await);
    }
    let short = client.lease_grant(LeaseGrantRequest { ttl: -5, id: 0 }).await.unwrap();
    script.lines.push(format!("shortest: {}", short.ttl));
    client.lease_revoke(LeaseRevokeRequest { id: short.id }).await.unwrap();
}

async fn refusals(script: &mut Script) {
    script.put(put("", "v")).await;
    script.put(PutRequest { ignore_value: true, ..put("/a", "v") }).await;
    script.put(PutRequest { ignore_lease: true, lease: 5, ..put("/a", "v") }).await;
    script.put(PutRequest { ignore_lease: true, ..put("/nobody", "v") }).await;
    script.put(put("/large", &"x".repeat((3 << 19) + 1))).await;
    let client = script.client.clone();
    script.note("delete nothing", client.delete_range(delete("", "")).await);
    script.note(
        "too large to read",
        client.put(put("/large", &"x".repeat(3 << 20))).await.map_err(|mut e| {
            // etcd's own messages say how much they are longer than ours.
            e.message.truncate(38);
            e
        }),
    );
    script.range("nothing changed", range("/", "0")).await;
}

/// Notes the events until the one that changes `last`.
async fn note_events(script: &mut Script, what: &str, watch: &mut WatchCall, last: &str) {
    loop {
        let response = watch.next().await.unwrap().unwrap();
        for event in response.events {
            let ends = event.kv.as_ref().unwrap().key == last;
            script.note(what, Ok(event));
            if ends {
                return;
            }
        }
    }
}

async fn watches(script: &mut Script) {
    let all = WatchCreateRequest { key: "/".into(), range_end: "0".into(), ..Default::default() };
    let history = WatchCreateRequest { start_revision: 1, prev_kv: true, ..all.clone() };
    let client = script.client.clone();
    let mut watch = client.watch(&create(history)).await.unwrap();
    script.note("created", watch.next().await);
    script.put(put("/end/1", "now")).await;
    note_events(script, "event", &mut watch, "/end/1").await;

    let puts = WatchCreateRequest { filters: vec![FilterType::NoPut.into()], watch_id: 7, ..all.clone() };
    let mut deletions = client.watch(&create(puts.clone())).await.unwrap();
    script.note("created", deletions.next().await);
    deletions.send(&create(puts)).await.unwrap();
    script.note("created twice", deletions.next().await);
    script.note("delete", client.delete_range(delete("/end/", "/end0")).await);
    note_events(script, "deletion", &mut deletions, "/end/1").await;
    let cancel = |watch_id| {
        let cancel = WatchCancelRequest { watch_id };
        WatchRequest { request_union: Some(WatchRequestRequestUnion::Cancel(cancel)) }
    };
    deletions.send(&cancel(7)).await.unwrap();
    script.note("canceled", deletions.next().await);

    let one = WatchCreateRequest { key: "/end/2".into(), ..Default::default() };
    let mut one = client.watch(&create(one)).await.unwrap();
    script.note("created", one.next().await);
    script.put(put("/end/22", "not this")).await;
    script.put(put("/end/2", "this")).await;
    note_events(script, "one", &mut one, "/end/2").await;
}

async fn compaction(script: &mut Script) {
    let client = script.client.clone();
    let compact = |revision| CompactionRequest { revision, physical: true };
    script.note("compact", client.compact(compact(10)).await);
    for (what, revision) in [("again", 10), ("less", 4), ("zero", 0), ("future", 1000)] {
        script.note(what, client.compact(compact(revision)).await);
    }
    script.range("compacted", RangeRequest { revision: 9, ..range("/", "0") }).await;
    script.range("oldest", RangeRequest { revision: 10, ..range("/", "0") }).await;
    let all = WatchCreateRequest { key: "/".into(), range_end: "0".into(), ..Default::default() };
    for start_revision in [5, 10, 11] {
        let from = WatchCreateRequest { start_revision, ..all.clone() };
        let mut watch = client.watch(&create(from)).await.unwrap();
        script.note("created", watch.next().await);
        if start_revision < 10 {
            // etcd tells no revision here.
            let cut_off =
                watch.next().await.map(|response| response.map(|r| WatchResponse { header: None, ..r }));
            script.note("cut off", cut_off);
        } else {
            note_events(script, "from the cut", &mut watch, "/end/2").await;
        }
    }
}

/// Changes of the members that need no second member to be there.
async fn members(script: &mut Script, server: &Running) {
    // A store of one process has no members to change.
    if server.is_alone {
        return;
    }
    let client = script.client.clone();
    let call = async |method: &str, question: MemberAddRequest| {
        client.call::<MemberAddResponse>(&format!("/etcdserverpb.Cluster/{method}"), &question).await
    };
    let add = |url: &str| MemberAddRequest { peer_urls: vec![url.to_owned()], is_learner: true };
    script.note("no such member", remove(&client, 77).await);
    script.note("promote nobody", promote(&client, 77).await);
    let me = client.members(MemberListRequest { linearizable: true }).await.unwrap().members[0].id;
    script.note("promote a voter", promote(&client, me).await);
    let added = call("MemberAdd", add("https://127.0.0.1:9")).await.unwrap();
    let learner = added.member.unwrap();
    let shown =
        |member: &Member| (member.name.clone(), member.peer_urls[0].contains(":9"), member.is_learner);
    // They stand in the order of their numbers, which etcd takes at random.
    let all = |members: &[Member]| members.iter().map(shown).collect::<BTreeSet<_>>();
    script.note("added", Ok((shown(&learner), all(&added.members))));
    let twice = call("MemberAdd", add("https://127.0.0.1:9")).await;
    // Within a second, etcd gives the same number twice and says that instead.
    script.note(
        "added twice",
        twice.map(|_| ()).map_err(|refused| Status { message: String::new(), ..refused }),
    );
    script.note("promoted too early", promote(&client, learner.id).await);
    let listed = client.members(MemberListRequest { linearizable: true }).await.unwrap().members;
    script.note("listed", Ok(all(&listed)));
    script.note("removed", remove(&client, learner.id).await);
    script.note("removed again", remove(&client, learner.id).await);
}

async fn remove(client: &Client, id: u64) -> Result<usize, Status> {
    let path = "/etcdserverpb.Cluster/MemberRemove";
    let answer = client.call::<MemberRemoveResponse>(path, &MemberRemoveRequest { id }).await;
    answer.map(|answer| answer.members.len())
}

async fn promote(client: &Client, id: u64) -> Result<usize, Status> {
    let path = "/etcdserverpb.Cluster/MemberPromote";
    let answer = client.call::<MemberPromoteResponse>(path, &MemberPromoteRequest { id }).await;
    answer.map(|answer| answer.members.len())
}
