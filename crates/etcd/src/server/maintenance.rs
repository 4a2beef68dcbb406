//! etcd's service `Maintenance`.

use std::sync::Arc;

use grpc::Messages;
use store::{BackupFile, KeyRange, State};

use super::{Server, refusal};
use crate::Status;
use crate::numbers::{asked_for, signed, to_etcd};
use crate::proto::{
    AlarmAction, AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, HashKvRequest,
    HashKvResponse, HashRequest, HashResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use crate::transport::Answers;

/// The version of etcd whose API this is: clients choose by it what they ask for.
const API_VERSION: &str = "3.4.0";
/// A message's worth of a snapshot: clients take 4 MiB at most, and a key may be a third of that.
const BLOB_BYTES: usize = 32 * 1024;

impl Server {
    pub async fn status(&self, _: StatusRequest) -> Result<StatusResponse, Status> {
        let state = self.store.snapshot();
        let raft_term = self.store.leadership().borrow().term;
        let all = KeyRange::prefix("");
        let size = signed(state.range(&all).map(|kv| (kv.key.len() + kv.value.len()) as u64).sum());
        let revision = state.revision();
        Ok(StatusResponse {
            header: self.header(revision),
            version: API_VERSION.into(),
            db_size: size,
            db_size_in_use: size,
            leader: self.number_of(|member| member.is_leader),
            is_learner: self.members.members().iter().any(|member| member.is_me && member.is_learner),
            // The engine keeps its log's places to itself; the revision grows with them.
            raft_index: revision.0,
            raft_applied_index: revision.0,
            raft_term,
            ..StatusResponse::default()
        })
    }

    pub async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        if request.action() == AlarmAction::Activate {
            return Err(refusal::unimplemented("alarms can't be raised by hand"));
        }
        Ok(AlarmResponse { header: self.now(), alarms: Vec::new() })
    }

    /// There is nothing to do: the log is cut by itself.
    pub async fn defragment(&self, _: DefragmentRequest) -> Result<DefragmentResponse, Status> {
        Ok(DefragmentResponse { header: self.now() })
    }

    pub async fn hash(&self, _: HashRequest) -> Result<HashResponse, Status> {
        let state = self.store.snapshot();
        Ok(HashResponse { header: self.header(state.revision()), hash: hash(&state) })
    }

    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Status> {
        let state = self.store.snapshot();
        let revision = asked_for(request.revision).unwrap_or(state.revision());
        let hash = hash(&state.at(revision).map_err(refusal::by_store)?);
        let compact_revision = to_etcd(state.compacted());
        let header = self.header(state.revision());
        Ok(HashKvResponse { header, hash, compact_revision, hash_revision: to_etcd(revision) })
    }
}

/// The same on all members at the same revision.
fn hash(state: &State) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for kv in state.range(&KeyRange::prefix("")) {
        for bytes in [kv.key.clone(), kv.value.bytes()] {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
        }
        for number in [kv.create_revision.0, kv.mod_revision.0, kv.version, kv.lease.0.cast_unsigned()] {
            hasher.update(&number.to_le_bytes());
        }
    }
    hasher.finalize()
}

/// Sends the state as a file, in pieces.
pub async fn snapshot(server: Arc<Server>, mut question: Messages, answers: Answers) -> Result<(), Status> {
    question.next::<SnapshotRequest>().await?;
    let state = server.store.read().await.map_err(refusal::by_store)?;
    let header = server.header(state.revision());
    let mut file = BackupFile::new(state);
    while let Some(mut piece) = file.next() {
        while !piece.is_empty() {
            let blob = piece.split_to(piece.len().min(BLOB_BYTES));
            let remaining_bytes = file.left() + piece.len() as u64;
            let response =
                SnapshotResponse { header: header.clone(), remaining_bytes, blob, version: String::new() };
            answers.send(&response).await?;
        }
    }
    Ok(())
}
