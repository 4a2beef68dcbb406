//! Transactions in etcd's words, and its answers in ours.

use std::sync::Arc;

use bytes::Bytes;
use store::{Compare, Condition, Error, KeyValue, LeaseId, Op, OpResult, Revision, Txn, TxnResponse};

use super::keys::{Keys, Purpose};
use crate::numbers::{from_etcd, signed, to_etcd, unsigned};
use crate::proto::{
    self, CompareResult, CompareTarget, CompareTargetUnion, DeleteRangeRequest, PutRequest, RangeRequest,
    RequestOp, RequestOpRequest, ResponseOp, ResponseOpResponse, TxnRequest,
};

/// A transaction as etcd takes it.
pub fn request(keys: &Keys, txn: &Txn) -> TxnRequest {
    let branch = |ops: &[Op]| ops.iter().map(|op| step(keys, op)).collect();
    TxnRequest {
        compare: txn.conditions.iter().map(|condition| compare(keys, condition)).collect(),
        success: branch(&txn.success),
        failure: branch(&txn.failure),
    }
}

fn compare(keys: &Keys, condition: &Condition) -> proto::Compare {
    let (key, how, target, union) = match condition {
        Condition::ModRevision(key, how, with) => {
            (key, how, CompareTarget::Mod, CompareTargetUnion::ModRevision(to_etcd(*with)))
        }
        Condition::CreateRevision(key, how, with) => {
            (key, how, CompareTarget::Create, CompareTargetUnion::CreateRevision(to_etcd(*with)))
        }
        Condition::Version(key, how, with) => {
            (key, how, CompareTarget::Version, CompareTargetUnion::Version(signed(*with)))
        }
        Condition::Value(key, how, with) => {
            (key, how, CompareTarget::Value, CompareTargetUnion::Value(with.clone()))
        }
        Condition::Lease(key, how, with) => {
            (key, how, CompareTarget::Lease, CompareTargetUnion::Lease(with.0))
        }
    };
    let result = match how {
        Compare::Equal => CompareResult::Equal,
        Compare::NotEqual => CompareResult::NotEqual,
        Compare::Greater => CompareResult::Greater,
        Compare::Less => CompareResult::Less,
    };
    proto::Compare {
        key: keys.state(key),
        range_end: Bytes::new(),
        result: result as i32,
        target: target as i32,
        target_union: Some(union),
    }
}

fn step(keys: &Keys, op: &Op) -> RequestOp {
    // A range without keys has no name in etcd: nothing is asked about a key that is there.
    let nothing = || RangeRequest { key: keys.cluster(), count_only: true, ..RangeRequest::default() };
    let request = match op {
        Op::Put { key, value, lease } => RequestOpRequest::Put(PutRequest {
            key: keys.state(key),
            value: value.clone(),
            lease: lease.0,
            prev_kv: true,
            ..PutRequest::default()
        }),
        Op::Delete(range) => match keys.range(range) {
            Some((key, range_end)) => {
                RequestOpRequest::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv: true })
            }
            None => RequestOpRequest::Range(nothing()),
        },
        Op::Range(range) => RequestOpRequest::Range(match keys.range(range) {
            Some((key, range_end)) => RangeRequest { key, range_end, ..RangeRequest::default() },
            None => nothing(),
        }),
    };
    RequestOp { request: Some(request) }
}

/// What etcd answered to a transaction.
pub fn response(keys: &Keys, txn: &Txn, answer: proto::TxnResponse) -> Result<TxnResponse, Error> {
    let ops = if answer.succeeded { &txn.success } else { &txn.failure };
    if ops.len() != answer.responses.len() {
        return Err(Error::Invalid("etcd answered another number of steps than it was asked".into()));
    }
    let results = ops.iter().zip(answer.responses).map(|(op, done)| result(keys, op, done));
    Ok(TxnResponse {
        revision: revision(answer.header.as_ref()),
        succeeded: answer.succeeded,
        results: results.collect::<Result<_, _>>()?,
    })
}

fn result(keys: &Keys, op: &Op, done: ResponseOp) -> Result<OpResult, Error> {
    let all = |kvs: Vec<proto::KeyValue>| kvs.iter().filter_map(|kv| own(keys, kv)).map(Arc::new).collect();
    Ok(match (op, done.response) {
        (Op::Put { .. }, Some(ResponseOpResponse::Put(put))) => {
            OpResult::Put(put.prev_kv.and_then(|kv| own(keys, &kv)).map(Arc::new))
        }
        (Op::Delete(_), Some(ResponseOpResponse::DeleteRange(deleted))) => {
            OpResult::Deleted(all(deleted.prev_kvs))
        }
        (Op::Delete(_), Some(ResponseOpResponse::Range(_))) => OpResult::Deleted(Vec::new()),
        (Op::Range(_), Some(ResponseOpResponse::Range(found))) => OpResult::Range(all(found.kvs)),
        _ => return Err(Error::Invalid("etcd answered another step than it was asked".into())),
    })
}

/// A key of the store as the store knows it, in memory of its own.
pub fn own(keys: &Keys, kv: &proto::KeyValue) -> Option<KeyValue> {
    let Purpose::State(key) = keys.purpose(&kv.key) else { return None };
    Some(KeyValue {
        key,
        value: Bytes::copy_from_slice(&kv.value).into(),
        create_revision: from_etcd(kv.create_revision),
        mod_revision: from_etcd(kv.mod_revision),
        version: unsigned(kv.version),
        lease: LeaseId(kv.lease),
    })
}

/// The revision that an answer was given at.
pub fn revision(header: Option<&proto::ResponseHeader>) -> Revision {
    header.map_or(Revision::ZERO, |header| from_etcd(header.revision))
}
