//! etcd's service `KV`.

use std::sync::Arc;

use store::Revision;
use tasks::SpawnIn;
use tokio::task::JoinSet;
use tracing::debug_span;

use super::{Server, range, refusal, txn};
use crate::numbers::from_etcd;
use crate::proto::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, RequestOpRequest, ResponseOp, ResponseOpResponse, TxnRequest,
    TxnResponse,
};
use crate::{Code, Status};

impl Server {
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        range::check(&request)?;
        let state = self.state(!request.serializable).await?;
        let response = range::range(&state, &request)?;
        Ok(RangeResponse { header: self.header(state.revision()), ..response })
    }

    /// [`range`](Self::range); where it may have many keys, in a task of its own: the connection's other calls go on meanwhile.
    pub async fn range_beside(self: Arc<Self>, request: RangeRequest) -> Result<RangeResponse, Status> {
        if request.range_end.is_empty() {
            return self.range(request).await;
        }
        let mut beside = JoinSet::new();
        beside.spawn_in(debug_span!("range"), async move { self.range(request).await });
        let ended = beside.join_next().await.and_then(Result::ok);
        ended.unwrap_or_else(|| Err(Status::new(Code::Internal, "the range ended unexpectedly")))
    }

    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        let (revision, response) = self.one(RequestOpRequest::Put(request)).await?;
        match response {
            Some(ResponseOpResponse::Put(put)) => Ok(PutResponse { header: self.header(revision), ..put }),
            _ => Err(unexpected()),
        }
    }

    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        let (revision, response) = self.one(RequestOpRequest::DeleteRange(request)).await?;
        match response {
            Some(ResponseOpResponse::DeleteRange(deleted)) => {
                Ok(DeleteRangeResponse { header: self.header(revision), ..deleted })
            }
            _ => Err(unexpected()),
        }
    }

    /// Carries out a transaction of one step.
    async fn one(&self, op: RequestOpRequest) -> Result<(Revision, Option<ResponseOpResponse>), Status> {
        let success = vec![RequestOp { request: Some(op) }];
        let request = TxnRequest { success, ..TxnRequest::default() };
        let mut outcome = txn::execute(&*self.store, &request).await?;
        let response = outcome.responses.pop().and_then(|ResponseOp { response }| response);
        Ok((outcome.revision, response))
    }

    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let outcome = txn::execute(&*self.store, &request).await?;
        let header = self.header(outcome.revision);
        Ok(TxnResponse { header, succeeded: outcome.succeeded, responses: outcome.responses })
    }

    pub async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        let state = self.store.read().await.map_err(refusal::by_store)?;
        let revision = from_etcd(request.revision);
        if revision <= state.compacted() {
            return Err(refusal::compacted());
        }
        if revision > state.revision() {
            return Err(refusal::future_revision());
        }
        self.store.compact(revision).await.map_err(refusal::by_store)?;
        Ok(CompactionResponse { header: self.now() })
    }
}

fn unexpected() -> Status {
    Status::new(Code::Internal, "the store answered another step than it was asked")
}
