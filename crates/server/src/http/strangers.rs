//! Connections of clients that haven't shown yet who they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections of strangers, by a number that grows: the oldest comes first.
///
/// There are never more than `most`, nor more than `a_peer` of one address: one more ends the oldest. So a client that
/// opens connections and leaves them idle only ends its own; one that makes haste is known before it is the oldest.
#[derive(Debug)]
pub(super) struct Strangers {
    most: usize,
    a_peer: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    all: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    peers: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Strangers {
    pub(super) fn new(most: usize, a_peer: usize) -> Self {
        Strangers { most: most.max(1), a_peer: a_peer.max(1), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, from an address; `end` is notified if it has to go.
    pub(super) fn add(&self, number: u64, peer: IpAddr, end: Arc<Notify>) {
        let peer = peer.to_canonical();
        let mut inner = self.lock();
        inner.all.insert(number, (peer, end));
        inner.peers.entry(peer).or_default().insert(number);
        let of_peer = &inner.peers[&peer];
        if of_peer.len() > self.a_peer {
            let oldest = of_peer.first().copied();
            inner.end(oldest);
        }
        if inner.all.len() > self.most {
            inner.end_oldest();
        }
    }

    /// One has gone, or is no stranger any more.
    pub(super) fn remove(&self, number: u64) {
        self.lock().remove(number);
    }

    /// Ends the oldest: somebody needs what it takes up.
    pub(super) fn end_oldest(&self) {
        self.lock().end_oldest();
    }
}

impl Inner {
    fn end_oldest(&mut self) {
        let oldest = self.all.keys().next().copied();
        self.end(oldest);
    }

    fn end(&mut self, number: Option<u64>) {
        if let Some(end) = number.and_then(|number| self.remove(number)) {
            end.notify_one();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (peer, end) = self.all.remove(&number)?;
        if let Some(numbers) = self.peers.get_mut(&peer) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.peers.remove(&peer);
            }
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Which of these were told to end, first come first.
    fn ended(ends: &[Arc<Notify>]) -> Vec<usize> {
        let told = ends.iter().enumerate().filter(|(_, end)| end.notified().now_or_never().is_some());
        told.map(|(number, _)| number).collect()
    }

    fn add(strangers: &Strangers, peers: &[&str]) -> Vec<Arc<Notify>> {
        let add = |(number, peer): (usize, &&str)| {
            let end = Arc::new(Notify::new());
            strangers.add(number as u64, peer.parse().unwrap(), end.clone());
            end
        };
        peers.iter().enumerate().map(add).collect()
    }

    #[test]
    fn one_more_ends_the_oldest_of_its_address_and_then_of_all() {
        let strangers = Strangers::new(4, 2);
        let ends = add(&strangers, &["10.0.0.1", "10.0.0.2", "10.0.0.1", "::ffff:10.0.0.1"]);
        assert_eq!(ended(&ends), [0], "three of one address");
        let more = add(&Strangers::new(3, 2), &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
        assert_eq!(ended(&more), [0, 1], "five of all");
    }

    #[test]
    fn who_is_known_is_not_ended_and_leaves_its_place() {
        let strangers = Strangers::new(2, 2);
        let ends = add(&strangers, &["10.0.0.1", "10.0.0.1"]);
        strangers.remove(0);
        let third = Arc::new(Notify::new());
        strangers.add(2, "10.0.0.1".parse().unwrap(), third.clone());
        assert!(ended(&ends).is_empty());
        strangers.end_oldest();
        assert_eq!(ended(&ends), [1]);
        strangers.remove(2);
        strangers.end_oldest();
        assert!(ended(&[third]).is_empty());
        assert!(strangers.lock().peers.is_empty(), "nothing is left of them");
    }
}
