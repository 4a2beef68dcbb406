//! Transactions, and puts and deletions as transactions of one step.

use bytes::Bytes;
use prost::Message;
use store::{Compare, Condition, LeaseId, Op, OpResult, Revision, State, Store, Txn};

use super::range::{check as check_range, key_value, keys, range, select};
use super::refusal;
use crate::numbers::{asked_for, signed, to_etcd};
use crate::proto::{
    self, CompareResult, CompareTarget, CompareTargetUnion, DeleteRangeResponse, PutRequest, PutResponse,
    RequestOp, RequestOpRequest, ResponseHeader, ResponseOp, ResponseOpResponse, TxnRequest,
};
use crate::{Code, Status};

/// etcd's limit for a request in bytes.
const MOST_BYTES: usize = 3 << 19;
/// How often a change is tried anew because somebody changed what it had read.
const TRIES: usize = 100;

/// What a transaction did.
pub struct Outcome {
    pub revision: Revision,
    pub succeeded: bool,
    pub responses: Vec<ResponseOp>,
}

/// Checks a transaction and carries it out.
pub async fn execute(store: &dyn Store, request: &TxnRequest) -> Result<Outcome, Status> {
    check(request)?;
    let keeps = |op: &RequestOp| matches!(&op.request, Some(RequestOpRequest::Put(put)) if put.ignore_value || put.ignore_lease);
    if request.success.iter().chain(&request.failure).any(keeps) {
        return execute_keeping(store, request).await;
    }
    check_revisions(&store.snapshot(), request)?;
    let branch = |ops: &[RequestOp]| ops.iter().map(|op| step(op, None)).collect::<Result<_, _>>();
    let txn = Txn {
        conditions: conditions(request)?,
        success: branch(&request.success)?,
        failure: branch(&request.failure)?,
    };
    let response = store.txn(txn).await.map_err(refusal::by_store)?;
    let ops = if response.succeeded { &request.success } else { &request.failure };
    let responses = responses(store, ops, response.revision, response.results)?;
    Ok(Outcome { revision: response.revision, succeeded: response.succeeded, responses })
}

/// Carries out puts that keep a key's value or lease. The store's own steps say both, so the branch is decided
/// and filled in here, and done on condition that nobody changed the keys meanwhile.
async fn execute_keeping(store: &dyn Store, request: &TxnRequest) -> Result<Outcome, Status> {
    let conditions = conditions(request)?;
    for _ in 0..TRIES {
        let state = store.read().await.map_err(refusal::by_store)?;
        check_revisions(&state, request)?;
        let question = Txn { conditions: conditions.clone(), ..Txn::default() };
        let succeeded = State::clone(&state).apply(&question).map_err(refusal::by_store)?.succeeded;
        let ops = if succeeded { &request.success } else { &request.failure };
        let compared = request.compare.iter().map(|compare| &compare.key);
        let put = ops.iter().filter_map(|op| match &op.request {
            Some(RequestOpRequest::Put(put)) => Some(&put.key),
            _ => None,
        });
        let unchanged = |key: &Bytes| {
            let revision = state.get(key).map_or(Revision::ZERO, |kv| kv.mod_revision);
            Condition::ModRevision(key.clone(), Compare::Equal, revision)
        };
        let txn = Txn {
            conditions: compared.chain(put).map(unchanged).collect(),
            success: ops.iter().map(|op| step(op, Some(&state))).collect::<Result<_, _>>()?,
            failure: Vec::new(),
        };
        let response = store.txn(txn).await.map_err(refusal::by_store)?;
        if response.succeeded {
            let responses = responses(store, ops, response.revision, response.results)?;
            return Ok(Outcome { revision: response.revision, succeeded, responses });
        }
    }
    Err(Status::new(Code::Aborted, "the keys change too fast to keep what they hold; try again"))
}

fn check(request: &TxnRequest) -> Result<(), Status> {
    let (success, failure) = (&request.success, &request.failure);
    if request.compare.len().max(success.len()).max(failure.len()) > Txn::MOST_OPS {
        return Err(refusal::too_many_ops());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(refusal::empty_key());
    }
    for op in success.iter().chain(failure) {
        match &op.request {
            Some(RequestOpRequest::Range(range)) => check_range(range)?,
            Some(RequestOpRequest::Put(put)) => check_put(put)?,
            Some(RequestOpRequest::DeleteRange(delete)) if delete.key.is_empty() => {
                return Err(refusal::empty_key());
            }
            Some(RequestOpRequest::DeleteRange(_)) | None => {}
            Some(RequestOpRequest::Txn(_)) => {
                return Err(refusal::unimplemented("a transaction within a transaction isn't supported"));
            }
        }
    }
    check_duplicates(success)?;
    check_duplicates(failure)?;
    // As etcd does, only what changes something is weighed.
    let reads = |op: &RequestOp| matches!(op.request, Some(RequestOpRequest::Range(_)));
    if !success.iter().chain(failure).all(reads) && request.encoded_len() > MOST_BYTES {
        return Err(refusal::too_large());
    }
    Ok(())
}

fn check_put(put: &PutRequest) -> Result<(), Status> {
    if put.key.is_empty() {
        Err(refusal::empty_key())
    } else if put.ignore_value && !put.value.is_empty() {
        Err(refusal::value_provided())
    } else if put.ignore_lease && put.lease != 0 {
        Err(refusal::lease_provided())
    } else {
        Ok(())
    }
}

/// A branch may put a key once, and not both put and delete it.
fn check_duplicates(ops: &[RequestOp]) -> Result<(), Status> {
    let mut put: Vec<&Bytes> = Vec::new();
    let mut deleted = Vec::new();
    for op in ops {
        match &op.request {
            Some(RequestOpRequest::Put(request)) => put.push(&request.key),
            Some(RequestOpRequest::DeleteRange(delete)) => {
                deleted.push(keys(delete.key.clone(), delete.range_end.clone()));
            }
            _ => {}
        }
    }
    put.sort();
    let twice = put.windows(2).any(|pair| pair[0] == pair[1]);
    if twice || put.iter().any(|key| deleted.iter().any(|range| range.contains(key))) {
        return Err(refusal::duplicate_key());
    }
    Ok(())
}

/// Old revisions that a read asks for must be there before anything is done.
fn check_revisions(state: &State, request: &TxnRequest) -> Result<(), Status> {
    for op in request.success.iter().chain(&request.failure) {
        if let Some(RequestOpRequest::Range(read)) = &op.request
            && let Some(revision) = asked_for(read.revision)
        {
            state.at(revision).map_err(refusal::by_store)?;
        }
    }
    Ok(())
}

fn conditions(request: &TxnRequest) -> Result<Vec<Condition>, Status> {
    request.compare.iter().map(condition).collect()
}

fn condition(compare: &proto::Compare) -> Result<Condition, Status> {
    if !compare.range_end.is_empty() {
        return Err(refusal::unimplemented("a comparison of a range of keys isn't supported"));
    }
    let key = compare.key.clone();
    let how = match compare.result() {
        CompareResult::Equal => Compare::Equal,
        CompareResult::Greater => Compare::Greater,
        CompareResult::Less => Compare::Less,
        CompareResult::NotEqual => Compare::NotEqual,
    };
    // As in etcd, a value that is missing or of another target counts as that target's zero.
    let with = compare.target_union.as_ref();
    Ok(match compare.target() {
        CompareTarget::Version => match with {
            Some(CompareTargetUnion::Version(with)) => {
                against(*with, how, |how, with| Condition::Version(key, how, with))
            }
            _ => Condition::Version(key, how, 0),
        },
        CompareTarget::Create => match with {
            Some(CompareTargetUnion::CreateRevision(with)) => {
                against(*with, how, |how, with| Condition::CreateRevision(key, how, Revision(with)))
            }
            _ => Condition::CreateRevision(key, how, Revision::ZERO),
        },
        CompareTarget::Mod => match with {
            Some(CompareTargetUnion::ModRevision(with)) => {
                against(*with, how, |how, with| Condition::ModRevision(key, how, Revision(with)))
            }
            _ => Condition::ModRevision(key, how, Revision::ZERO),
        },
        CompareTarget::Value => match with {
            Some(CompareTargetUnion::Value(with)) => Condition::Value(key, how, with.clone()),
            _ => Condition::Value(key, how, Bytes::new()),
        },
        CompareTarget::Lease => match with {
            Some(CompareTargetUnion::Lease(with)) => Condition::Lease(key, how, LeaseId(*with)),
            _ => Condition::Lease(key, how, LeaseId::NONE),
        },
    })
}

/// A comparison with etcd's signed number. Ours have no sign: all are greater than one below zero.
fn against(with: i64, how: Compare, condition: impl FnOnce(Compare, u64) -> Condition) -> Condition {
    match u64::try_from(with) {
        Ok(with) => condition(how, with),
        Err(_) if matches!(how, Compare::Greater | Compare::NotEqual) => {
            condition(Compare::NotEqual, u64::MAX)
        }
        Err(_) => condition(Compare::Less, 0),
    }
}

/// A step as the store takes it; `kept` is the state whose values and leases are kept where a put says so.
fn step(op: &RequestOp, kept: Option<&State>) -> Result<Op, Status> {
    Ok(match &op.request {
        Some(RequestOpRequest::Put(put)) => {
            let mut change = (put.value.clone(), LeaseId(put.lease));
            if put.ignore_value || put.ignore_lease {
                let kv = kept.and_then(|state| state.get(&put.key)).ok_or_else(refusal::key_not_found)?;
                if put.ignore_value {
                    change.0 = kv.value.bytes();
                }
                if put.ignore_lease {
                    change.1 = kv.lease;
                }
            }
            Op::Put { key: put.key.clone(), value: change.0, lease: change.1 }
        }
        Some(RequestOpRequest::DeleteRange(delete)) => {
            Op::Delete(keys(delete.key.clone(), delete.range_end.clone()))
        }
        Some(RequestOpRequest::Range(read)) => Op::Range(keys(read.key.clone(), read.range_end.clone())),
        Some(RequestOpRequest::Txn(_)) | None => {
            return Err(Status::new(Code::InvalidArgument, "a step of the transaction asks for nothing"));
        }
    })
}

fn responses(
    store: &dyn Store,
    ops: &[RequestOp],
    revision: Revision,
    results: Vec<OpResult>,
) -> Result<Vec<ResponseOp>, Status> {
    // As in etcd, each step tells the revision that it left: the transaction's own only after a first change.
    let changes = |result: &OpResult| match result {
        OpResult::Put(_) => true,
        OpResult::Deleted(previous) => !previous.is_empty(),
        OpResult::Range(_) => false,
    };
    let mut seen = if results.iter().any(changes) { revision.previous() } else { revision };
    let response = |(op, result): (&RequestOp, OpResult)| -> Result<ResponseOp, Status> {
        if changes(&result) {
            seen = revision;
        }
        let header = Some(ResponseHeader { revision: to_etcd(seen), ..ResponseHeader::default() });
        let response = match (&op.request, result) {
            (Some(RequestOpRequest::Put(put)), OpResult::Put(previous)) => {
                let prev_kv = previous.filter(|_| put.prev_kv).map(|kv| key_value(&kv));
                ResponseOpResponse::Put(PutResponse { header, prev_kv })
            }
            (Some(RequestOpRequest::DeleteRange(delete)), OpResult::Deleted(previous)) => {
                let prev_kvs = previous.iter().filter(|_| delete.prev_kv).map(|kv| key_value(kv)).collect();
                let deleted = signed(previous.len() as u64);
                ResponseOpResponse::DeleteRange(DeleteRangeResponse { header, deleted, prev_kvs })
            }
            (Some(RequestOpRequest::Range(read)), OpResult::Range(found)) => {
                let mut response = if asked_for(read.revision).is_some() {
                    range(&store.snapshot(), read)?
                } else {
                    select(read, found.iter())
                };
                response.header = header;
                ResponseOpResponse::Range(response)
            }
            _ => {
                return Err(Status::new(Code::Internal, "the store answered another step than it was asked"));
            }
        };
        Ok(ResponseOp { response: Some(response) })
    };
    ops.iter().zip(results).map(response).collect()
}
