//! The start: whose keys these are, and what they hold.

use bytes::Bytes;
use store::Revision;

use super::Config;
use super::config::EngineError;
use super::keys::Keys;
use super::mirror::{Mirror, number};
use super::refusal::is_compacted;
use super::translate::revision;
use crate::numbers::{from_etcd, to_etcd};
use crate::proto::{
    Compare, CompareResult, CompareTarget, CompareTargetUnion, PutRequest, RangeRequest, RequestOp,
    RequestOpRequest, ResponseOpResponse, StatusRequest, TxnRequest,
};
use crate::{Client, Status};

/// Keys of one page: of usual objects a few MB, which etcd sends as one message.
const PAGE: i64 = 1000;
const OLDEST: (u32, u32) = (3, 4);

/// What stands under the prefix.
#[derive(Debug, Clone, Copy)]
pub struct Claimed {
    /// Where history begins.
    pub history: Revision,
    /// etcd's newest revision.
    pub newest: Revision,
    /// Which etcd it is.
    pub etcd: u64,
}

/// What stands under the prefix; none where nothing does. It must be this cluster's.
pub async fn look(client: &Client, config: &Config, keys: &Keys) -> Result<Option<Claimed>, EngineError> {
    let of = |status: Status| EngineError::of(status, &config.prefix);
    let status = client.status(StatusRequest {}).await.map_err(of)?;
    if is_too_old(&status.version) {
        return Err(EngineError::TooOld(status.version));
    }
    let range = |key: Bytes| RequestOpRequest::Range(RangeRequest { key, ..RangeRequest::default() });
    let question = txn(Vec::new(), vec![range(keys.cluster()), range(keys.compacted())]);
    let answer = client.txn(question).await.map_err(of)?;
    let newest = revision(answer.header.as_ref());
    let etcd = answer.header.as_ref().map_or(0, |header| header.cluster_id);
    let mut found = answer.responses.into_iter().map(|response| match response.response {
        Some(ResponseOpResponse::Range(range)) => range.kvs.into_iter().next(),
        _ => None,
    });
    let Some(cluster) = found.next().flatten() else { return Ok(None) };
    if cluster.value != config.cluster_id.as_bytes() {
        return Err(EngineError::OtherCluster {
            prefix: config.prefix.clone(),
            found: String::from_utf8_lossy(&cluster.value).into_owned(),
            ours: config.cluster_id.clone(),
        });
    }
    let compacted = found.next().flatten().map_or(Revision::ZERO, |kv| Revision(number(&kv.value)));
    Ok(Some(Claimed { history: compacted.max(from_etcd(cluster.create_revision)), newest, etcd }))
}

/// Makes sure that the keys under the prefix are this cluster's: they are made its own where there is nothing.
pub async fn claim(client: &Client, config: &Config, keys: &Keys) -> Result<Claimed, EngineError> {
    loop {
        if let Some(claimed) = look(client, config, keys).await? {
            return Ok(claimed);
        }
        let absent = Compare {
            key: keys.cluster(),
            range_end: Bytes::new(),
            result: CompareResult::Equal as i32,
            target: CompareTarget::Create as i32,
            target_union: Some(CompareTargetUnion::CreateRevision(0)),
        };
        let id = config.cluster_id.clone().into();
        let put = PutRequest { key: keys.cluster(), value: id, ..PutRequest::default() };
        // Another member may be first: the loop looks again in either case.
        let put = txn(vec![absent], vec![RequestOpRequest::Put(put)]);
        client.txn(put).await.map_err(|status| EngineError::of(status, &config.prefix))?;
    }
}

fn txn(compare: Vec<Compare>, success: Vec<RequestOpRequest>) -> TxnRequest {
    let success = success.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    TxnRequest { compare, success, failure: Vec::new() }
}

/// Reads everything as of the revision where history begins, so that a watch from there on tells the history;
/// where etcd itself remembers less, as of now.
pub async fn load(client: &Client, config: &Config, keys: &Keys) -> Result<Mirror, EngineError> {
    loop {
        let claimed = claim(client, config, keys).await?;
        let mut tried = read(client, keys, claimed.history).await;
        if let Err(status) = &tried
            && is_compacted(status)
        {
            tried = read(client, keys, claimed.newest).await;
        }
        match tried {
            Ok(mirror) => return Ok(mirror),
            // It was compacted meanwhile: there is a newer beginning.
            Err(status) if is_compacted(&status) => {}
            Err(status) => return Err(EngineError::of(status, &config.prefix)),
        }
    }
}

async fn read(client: &Client, keys: &Keys, revision: Revision) -> Result<Mirror, Status> {
    let (mut key, range_end) = keys.all();
    let mut kvs = Vec::new();
    loop {
        let question = RangeRequest {
            key,
            range_end: range_end.clone(),
            limit: PAGE,
            revision: to_etcd(revision),
            ..RangeRequest::default()
        };
        let page = client.range(question).await?;
        kvs.extend(page.kvs);
        match kvs.last() {
            Some(last) if page.more => key = [&last.key[..], b"\0"].concat().into(),
            _ => return Ok(Mirror::loaded(keys.clone(), revision, kvs)),
        }
    }
}

/// Whether a version like `3.3.10` is one that can't be used. What can't be read is given the benefit of the doubt.
fn is_too_old(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_3_4_are_too_old() {
        for old in ["3.3.10", "2.3.8", "3.3.0-rc.1"] {
            assert!(is_too_old(old), "{old}");
        }
        for good in ["3.4.0", "3.4.23", "3.6.1+git", "3.10.0", "4.0.0", "not provided"] {
            assert!(!is_too_old(good), "{good}");
        }
    }
}
