//! What webhooks converted lately, so that many clients of one object don't ask for it many times: neither one
//! after the other nor all at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use machinery::Status;
use store::Revision;
use tokio::sync::watch;

/// The most that is kept: bytes of objects, and the number of them. Eight pages of a list fit, of
/// 500 objects as kubectl asks for them and of 1 KB each.
const MOST_BYTES: usize = 4 * 1024 * 1024;
const MOST: usize = 4096;

/// What makes conversions differ: the definition's revision, the version, and the stored value's key and revision.
pub(super) type Key = (Revision, &'static str, Bytes, Revision);

/// What a conversion under way will come to: nothing yet, or why it failed.
type Outcome = Option<Status>;

/// Conversions that were done lately, and those that are under way.
#[derive(Debug, Default)]
pub(super) struct Converted(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Key, Bytes>,
    /// The oldest first.
    order: VecDeque<Key>,
    bytes: usize,
    asked: HashMap<Key, watch::Receiver<Outcome>>,
}

/// What is known of a conversion.
pub(super) enum Found {
    /// It is done: the value.
    Kept(Bytes),
    /// Somebody else asks for it.
    Asked(watch::Receiver<Outcome>),
    /// Nobody asks for it but the claim that this came from.
    Mine,
}

/// What one task asks for. Tasks that wait for it learn of its end, however it ends.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    converted: &'a Converted,
    keys: Vec<Key>,
    outcome: watch::Sender<Outcome>,
}

impl Converted {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim of nothing yet.
    pub(super) fn claim(&self) -> Claim<'_> {
        Claim { converted: self, keys: Vec::new(), outcome: watch::Sender::new(None) }
    }
}

impl Claim<'_> {
    /// Takes a conversion on, unless another request did.
    pub(super) fn take(&mut self, key: Key) -> Found {
        let mut inner = self.converted.inner();
        if let Some(value) = inner.kept.get(&key) {
            return Found::Kept(value.clone());
        }
        if let Some(asked) = inner.asked.get(&key) {
            return Found::Asked(asked.clone());
        }
        inner.asked.insert(key.clone(), self.outcome.subscribe());
        self.keys.push(key);
        Found::Mine
    }

    /// Keeps what came out.
    pub(super) fn keep(&self, key: Key, value: Bytes) {
        let mut inner = self.converted.inner();
        inner.bytes += value.len();
        if let Some(before) = inner.kept.insert(key.clone(), value) {
            inner.bytes -= before.len();
        } else {
            inner.order.push_back(key);
        }
        while inner.bytes > MOST_BYTES || inner.order.len() > MOST {
            let Some(oldest) = inner.order.pop_front() else { break };
            let gone = inner.kept.remove(&oldest).map_or(0, |value| value.len());
            inner.bytes -= gone;
        }
    }

    /// Gives the requests that wait the reason why there is nothing.
    pub(super) fn fail(&self, status: &Status) {
        self.outcome.send_replace(Some(status.clone()));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut inner = self.converted.inner();
        for key in &self.keys {
            inner.asked.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> Key {
        (Revision(1), "v1", Bytes::from_static(name.as_bytes()), Revision(7))
    }

    #[tokio::test]
    async fn one_asks_and_others_wait_for_it() {
        let converted = Converted::default();
        let mut first = converted.claim();
        assert!(matches!(first.take(key("a")), Found::Mine));
        let mut second = converted.claim();
        let Found::Asked(mut asked) = second.take(key("a")) else { panic!() };
        assert!(matches!(second.take(key("b")), Found::Mine));
        first.keep(key("a"), Bytes::from_static(b"x"));
        drop(first);
        assert!(asked.wait_for(Option::is_some).await.is_err(), "it ended without a failure");
        assert!(matches!(second.take(key("a")), Found::Kept(value) if value == "x"));
        // A claim that fails says so, and one that gives up leaves the question to the next.
        let mut third = converted.claim();
        let Found::Asked(mut asked) = third.take(key("b")) else { panic!() };
        second.fail(&Status::internal("no"));
        drop(second);
        assert!(asked.wait_for(Option::is_some).await.is_ok());
        assert!(matches!(third.take(key("b")), Found::Mine));
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let converted = Converted::default();
        let claim = converted.claim();
        let large = Bytes::from(vec![0; MOST_BYTES / 4]);
        for revision in 0..9 {
            claim.keep((Revision(1), "v1", Bytes::new(), Revision(revision)), large.clone());
        }
        for revision in 0..2 * MOST as u64 {
            claim.keep((Revision(2), "v1", Bytes::new(), Revision(revision)), Bytes::new());
        }
        let inner = converted.inner();
        assert!(inner.kept.len() == inner.order.len() && inner.kept.len() <= MOST);
        assert_eq!(inner.bytes, inner.kept.values().map(Bytes::len).sum::<usize>());
        assert!(inner.bytes <= MOST_BYTES);
    }
}
