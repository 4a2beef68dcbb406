//! Ranges of keys: which keys a request means, and what of them it wants to see.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use store::{KeyRange, Revision, State};

use super::refusal;
use crate::Status;
use crate::numbers::{asked_for, signed, to_etcd};
use crate::proto::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};

/// The keys that `key` and `range_end` mean together.
pub fn keys(key: Bytes, range_end: Bytes) -> KeyRange {
    match &range_end[..] {
        [] => KeyRange::key(key),
        [0] => KeyRange { start: key, end: None },
        _ => KeyRange { start: key, end: Some(range_end) },
    }
}

/// A key as etcd says it.
pub fn key_value(kv: &store::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key.clone(),
        create_revision: to_etcd(kv.create_revision),
        mod_revision: to_etcd(kv.mod_revision),
        version: signed(kv.version),
        value: kv.value.bytes(),
        lease: kv.lease.0,
    }
}

/// What is wrong with a request in itself.
pub fn check(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(refusal::empty_key()) } else { Ok(()) }
}

/// Answers from a state, or from the older one that the request asks for.
pub fn range(state: &State, request: &RangeRequest) -> Result<RangeResponse, Status> {
    let keys = keys(request.key.clone(), request.range_end.clone());
    match asked_for(request.revision) {
        Some(revision) => Ok(select(request, state.at(revision).map_err(refusal::by_store)?.range(&keys))),
        None => Ok(select(request, state.range(&keys))),
    }
}

/// Sorts, limits and strips the keys found, in etcd's order of doing so: the count is of all keys, a limit
/// comes before the filters only where nothing is filtered or sorted.
pub fn select<'a>(
    request: &RangeRequest,
    found: impl Iterator<Item = &'a Arc<store::KeyValue>>,
) -> RangeResponse {
    if request.count_only {
        return RangeResponse { count: signed(found.count() as u64), ..RangeResponse::default() };
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let filters = [
        (request.min_mod_revision, request.max_mod_revision),
        (request.min_create_revision, request.max_create_revision),
    ];
    let sorted = request.sort_order() != SortOrder::None || filters.iter().any(|filter| *filter != (0, 0));
    let fetched = if sorted { usize::MAX } else { limit.saturating_add(1) };
    let mut count = 0;
    let mut kvs = Vec::new();
    for kv in found {
        count += 1;
        if kvs.len() < fetched {
            kvs.push(kv);
        }
    }
    let within = |revision: Revision, (min, max): (i64, i64)| {
        let revision = to_etcd(revision);
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    kvs.retain(|kv| within(kv.mod_revision, filters[0]) && within(kv.create_revision, filters[1]));
    sort(&mut kvs, request);
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    let shown = |kv: &Arc<store::KeyValue>| {
        let kv = key_value(kv);
        if request.keys_only { KeyValue { value: Bytes::new(), ..kv } } else { kv }
    };
    RangeResponse { header: None, kvs: kvs.into_iter().map(shown).collect(), more, count }
}

fn sort(kvs: &mut [&Arc<store::KeyValue>], request: &RangeRequest) {
    fn by<K: Ord>(kvs: &mut [&Arc<store::KeyValue>], descending: bool, key: impl Fn(&store::KeyValue) -> K) {
        if descending {
            kvs.sort_by_key(|kv| Reverse(key(kv)));
        } else {
            kvs.sort_by_key(|kv| key(kv));
        }
    }
    let descending = request.sort_order() == SortOrder::Descend;
    match request.sort_target() {
        // They come in this order.
        SortTarget::Key if !descending => {}
        SortTarget::Key => by(kvs, descending, |kv| kv.key.clone()),
        SortTarget::Version => by(kvs, descending, |kv| kv.version),
        SortTarget::Create => by(kvs, descending, |kv| kv.create_revision),
        SortTarget::Mod => by(kvs, descending, |kv| kv.mod_revision),
        SortTarget::Value => by(kvs, descending, |kv| kv.value.bytes()),
    }
}
