//! A client of etcd's API: each method that this project needs.

use std::sync::Arc;

use grpc::{Messages, Questions};
use http::Uri;
use prost::Message;
use rustls::ClientConfig;

use crate::Status;
use crate::proto::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DefragmentRequest,
    DefragmentResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest, HashKvResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, MemberListRequest, MemberListResponse, MemberRemoveRequest,
    MemberRemoveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, SnapshotRequest,
    SnapshotResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use crate::transport::{Channel, Endpoint};

/// A client of an etcd: the same state behind several endpoints, one of which is spoken to as long as it answers.
/// Cheap to share; calls run side by side on one connection.
#[derive(Debug, Clone)]
pub struct Client(Arc<Channel>);

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident($question:ident) -> $answer:ident: $path:literal;)*) => {
        impl Client {
            $($(#[$doc])*
            ///
            /// # Errors
            /// What the server refused, or why it could not be asked.
            pub async fn $name(&self, question: $question) -> Result<$answer, Status> {
                self.0.unary(concat!("/etcdserverpb.", $path), &question).await
            })*
        }
    };
}

unary! {
    /// Reads keys.
    range(RangeRequest) -> RangeResponse: "KV/Range";
    /// Writes a key.
    put(PutRequest) -> PutResponse: "KV/Put";
    /// Deletes keys.
    delete_range(DeleteRangeRequest) -> DeleteRangeResponse: "KV/DeleteRange";
    /// Compares, then does one or the other.
    txn(TxnRequest) -> TxnResponse: "KV/Txn";
    /// Forgets history.
    compact(CompactionRequest) -> CompactionResponse: "KV/Compact";
    /// Makes a lease.
    lease_grant(LeaseGrantRequest) -> LeaseGrantResponse: "Lease/LeaseGrant";
    /// Ends a lease.
    lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse: "Lease/LeaseRevoke";
    /// Asks how long a lease lives.
    lease_time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse: "Lease/LeaseTimeToLive";
    /// Lists the leases.
    leases(LeaseLeasesRequest) -> LeaseLeasesResponse: "Lease/LeaseLeases";
    /// Lists the members.
    members(MemberListRequest) -> MemberListResponse: "Cluster/MemberList";
    /// Removes a member.
    member_remove(MemberRemoveRequest) -> MemberRemoveResponse: "Cluster/MemberRemove";
    /// Asks how a member is.
    status(StatusRequest) -> StatusResponse: "Maintenance/Status";
    /// Asks for alarms, or ends them.
    alarm(AlarmRequest) -> AlarmResponse: "Maintenance/Alarm";
    /// Gives the disk back what isn't needed.
    defragment(DefragmentRequest) -> DefragmentResponse: "Maintenance/Defragment";
    /// Asks for a hash of the keys at a revision.
    hash_kv(HashKvRequest) -> HashKvResponse: "Maintenance/HashKV";
}

impl Client {
    /// Of servers like `https://host:2379`; `tls` is for those with `https`. Connects when it is first asked.
    pub fn new(endpoints: Vec<Uri>, tls: Option<Arc<ClientConfig>>) -> Self {
        Client::of(endpoints.into_iter().map(Endpoint::from).collect(), tls)
    }

    /// Of servers that may be reached elsewhere than their names say.
    pub fn of(endpoints: Vec<Endpoint>, tls: Option<Arc<ClientConfig>>) -> Self {
        Client(Arc::new(Channel::new(endpoints, tls)))
    }

    /// Connects, if there is no connection yet. The answer is the connection's number.
    ///
    /// # Errors
    /// Why no endpoint could be connected to: nothing was asked of any.
    pub async fn connected(&self) -> Result<u64, Status> {
        self.0.connected().await
    }

    /// Begins a stream of watches with its first request.
    ///
    /// # Errors
    /// Why the server could not be asked.
    pub async fn watch(&self, first: &WatchRequest) -> Result<WatchCall, Status> {
        let (questions, answers) = self.0.stream("/etcdserverpb.Watch/Watch", first).await?;
        Ok(WatchCall { questions, answers })
    }

    /// Keeps a lease alive once.
    ///
    /// # Errors
    /// Why the server could not be asked.
    pub async fn lease_keep_alive(&self, lease: i64) -> Result<LeaseKeepAliveResponse, Status> {
        self.0.unary("/etcdserverpb.Lease/LeaseKeepAlive", &LeaseKeepAliveRequest { id: lease }).await
    }

    /// Fetches the server's state as a file.
    ///
    /// # Errors
    /// What the server refused, or why it could not be asked.
    pub async fn snapshot(&self) -> Result<Vec<u8>, Status> {
        let path = "/etcdserverpb.Maintenance/Snapshot";
        let mut pieces = self.0.server_stream(path, &SnapshotRequest {}).await?;
        let mut file = Vec::new();
        while let Some(SnapshotResponse { blob, .. }) = pieces.next().await? {
            file.extend_from_slice(&blob);
        }
        Ok(file)
    }

    /// Speaks to the next endpoint from now on: this one, though connected, is of no use. Calls that it didn't
    /// answer fail, and streams of watches break.
    pub async fn move_on(&self) {
        self.0.move_on().await;
    }

    /// As [`move_on`](Self::move_on), if the connection is still the one of this number.
    pub async fn leave(&self, connection: u64) {
        self.0.leave(connection).await;
    }

    /// A call of one message by its path, for methods that have no function here.
    ///
    /// # Errors
    /// What the server refused, or why it could not be asked.
    pub async fn call<A: Message + Default>(&self, path: &str, question: &impl Message) -> Result<A, Status> {
        self.0.unary(path, question).await
    }
}

/// A stream of watches. Dropping it ends them.
#[derive(Debug)]
pub struct WatchCall {
    questions: Questions,
    answers: Messages,
}

impl WatchCall {
    /// Asks for one more watch, for the end of one, or for progress.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn send(&self, request: &WatchRequest) -> Result<(), Status> {
        self.questions.send(request).await
    }

    /// The next response; none at the end. Nothing is lost where the caller stops waiting.
    ///
    /// # Errors
    /// Why the stream broke.
    pub async fn next(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.answers.next().await
    }
}
