//! A store as etcd's server: each of its methods, by path.

mod keys;
mod lease;
mod maintenance;
mod members;
mod range;
mod refusal;
mod txn;
mod watch;

use std::sync::Arc;

use futures::future::BoxFuture;
use grpc::Messages;
use store::{Member, Revision, State, Store};
use tokio::net::TcpListener;

use self::lease::LeaseClocks;
pub use self::members::Members;
use crate::numbers::to_etcd;
use crate::proto::ResponseHeader;
use crate::transport::{self, Answer, Router, Tls, answer_stream, answer_unary, refused};
use crate::{Code, Status};

/// Which cluster a store is, for those who ask by etcd's API.
#[derive(Debug, Clone)]
pub struct ServedCluster {
    /// The cluster's name; etcd's number of it is made from this.
    pub cluster: String,
    /// The port on which every member serves etcd's API.
    pub client_port: u16,
}

/// Serves etcd's API (v3, as of etcd 3.4) on a listener until it is dropped. With `tls`, all connections
/// are encrypted, and who isn't admitted hears `PERMISSION_DENIED`; without, everybody is heard.
///
/// What it can't do is refused with `UNIMPLEMENTED` and a reason: users and roles, transactions within
/// transactions, comparisons of ranges, and another address for a member.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    store: Arc<dyn Store>,
    members: Arc<dyn Members>,
    identity: ServedCluster,
) {
    let server = Server {
        store,
        cluster_id: number(&identity.cluster),
        identity,
        members,
        leases: LeaseClocks::default(),
    };
    transport::serve(listener, tls, Arc::new(server)).await;
}

/// A store with what etcd's API says besides.
struct Server {
    store: Arc<dyn Store>,
    identity: ServedCluster,
    members: Arc<dyn Members>,
    cluster_id: u64,
    leases: LeaseClocks,
}

/// The cluster's name as the number that etcd has in its place: FNV-1a, never 0, which stands for nobody.
fn number(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

impl Server {
    fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.number_of(|member| member.is_me),
            revision: to_etcd(revision),
            raft_term: self.store.leadership().borrow().term,
        })
    }

    /// The newest state, or at least the one known here.
    async fn state(&self, linearizable: bool) -> Result<Arc<State>, Status> {
        if linearizable {
            self.store.read().await.map_err(refusal::by_store)
        } else {
            Ok(self.store.snapshot())
        }
    }

    /// What comes with an answer that is about no certain state.
    fn now(&self) -> Option<ResponseHeader> {
        self.header(self.store.snapshot().revision())
    }

    /// The number of the member that is meant; 0 stands for nobody.
    fn number_of(&self, meant: impl Fn(&Member) -> bool) -> u64 {
        self.members.members().iter().find(|member| meant(member)).map_or(0, |member| member.id.0)
    }
}

impl Router for Server {
    fn call(self: Arc<Self>, path: String, question: Messages) -> BoxFuture<'static, Answer> {
        let s = self;
        Box::pin(async move {
            match path.strip_prefix("/etcdserverpb.").unwrap_or_default() {
                "KV/Range" => answer_unary(question, |q| s.range_beside(q)).await,
                "KV/Put" => answer_unary(question, |q| s.put(q)).await,
                "KV/DeleteRange" => answer_unary(question, |q| s.delete_range(q)).await,
                "KV/Txn" => answer_unary(question, |q| s.txn(q)).await,
                "KV/Compact" => answer_unary(question, |q| s.compact(q)).await,
                "Watch/Watch" => answer_stream(|answers| watch::watch(s, question, answers)),
                "Lease/LeaseGrant" => answer_unary(question, |q| s.grant(q)).await,
                "Lease/LeaseRevoke" => answer_unary(question, |q| s.revoke(q)).await,
                "Lease/LeaseKeepAlive" => answer_stream(|answers| lease::keep_alive(s, question, answers)),
                "Lease/LeaseTimeToLive" => answer_unary(question, |q| s.time_to_live(q)).await,
                "Lease/LeaseLeases" => answer_unary(question, |q| s.leases(q)).await,
                "Cluster/MemberAdd" => answer_unary(question, |q| s.member_add(q)).await,
                "Cluster/MemberRemove" => answer_unary(question, |q| s.member_remove(q)).await,
                "Cluster/MemberPromote" => answer_unary(question, |q| s.member_promote(q)).await,
                "Cluster/MemberList" => answer_unary(question, |q| s.member_list(q)).await,
                "Cluster/MemberUpdate" => refused(refusal::unimplemented(
                    "a member's address can't be changed: remove it, and add it with another",
                )),
                "Maintenance/Status" => answer_unary(question, |q| s.status(q)).await,
                "Maintenance/Alarm" => answer_unary(question, |q| s.alarm(q)).await,
                "Maintenance/Defragment" => answer_unary(question, |q| s.defragment(q)).await,
                "Maintenance/Hash" => answer_unary(question, |q| s.hash(q)).await,
                "Maintenance/HashKV" => answer_unary(question, |q| s.hash_kv(q)).await,
                "Maintenance/Snapshot" => {
                    answer_stream(|answers| maintenance::snapshot(s, question, answers))
                }
                _ => refused(Status::new(Code::Unimplemented, format!("{path} isn't supported here"))),
            }
        })
    }
}
