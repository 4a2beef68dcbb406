//! Connections whose callers are not known yet. There is room for a few; when it is full, the one
//! that comes next pushes out the oldest of the address that has most of them. So nobody keeps others out: a handshake
//! of somebody who may ask takes milliseconds.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// The room.
#[derive(Debug, Clone)]
pub(super) struct Strangers(Arc<Mutex<Room>>);

#[derive(Debug)]
struct Room {
    most: usize,
    next: u64,
    /// By age.
    inside: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// One inside; dropped, it has left.
#[derive(Debug)]
pub(super) struct Stranger {
    room: Strangers,
    number: u64,
    pushed_out: oneshot::Receiver<()>,
}

impl Strangers {
    pub(super) fn new(most: usize) -> Self {
        Strangers(Arc::new(Mutex::new(Room { most, next: 0, inside: BTreeMap::new() })))
    }

    /// Lets one in, and pushes another one out if there is no room.
    pub(super) fn enter(&self, from: IpAddr) -> Stranger {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while room.inside.len() >= room.most {
            let Some(number) = room.one_too_many() else { break };
            if let Some((_, told)) = room.inside.remove(&number) {
                let _ = told.send(());
            }
        }
        let number = room.next;
        room.next += 1;
        let (tell, pushed_out) = oneshot::channel();
        room.inside.insert(number, (from, tell));
        Stranger { room: self.clone(), number, pushed_out }
    }
}

impl Room {
    /// The oldest of the address that has most.
    fn one_too_many(&self) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.inside.values().for_each(|(from, _)| *counts.entry(*from).or_default() += 1);
        let most = counts.values().max()?;
        self.inside.iter().find(|(_, (from, _))| counts.get(from) == Some(most)).map(|(number, _)| *number)
    }
}

impl Stranger {
    /// Waits until it is pushed out.
    pub(super) async fn must_leave(mut self) {
        let _ = (&mut self.pushed_out).await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.room.0.lock().unwrap_or_else(PoisonError::into_inner).inside.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_of_the_most_numerous_makes_room() {
        let strangers = Strangers::new(3);
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let lonely = strangers.enter(address(1));
        let first = strangers.enter(address(2));
        let second = strangers.enter(address(2));
        let third = strangers.enter(address(2));
        assert!(first.must_leave().now_or_never().is_some());
        drop(second);
        let fourth = strangers.enter(address(2));
        assert_eq!(strangers.0.lock().unwrap().inside.len(), 3, "who left makes room too");
        for stays in [lonely, third, fourth] {
            assert!(stays.must_leave().now_or_never().is_none());
        }
        assert!(strangers.0.lock().unwrap().inside.is_empty());
    }
}
