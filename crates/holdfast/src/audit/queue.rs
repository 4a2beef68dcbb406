//! Events on their way out of the requests' way: bounded in number and bytes. What finds no room is counted, and lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use audit::Sink;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};

/// The most events that wait: upstream's default (`--audit-webhook-batch-buffer-size`).
const MOST: usize = 10_000;
/// The most bytes that wait: room for the largest event there can be, and for all of them with their usual kilobyte.
const MOST_BYTES: usize = 64 << 20;

/// The end of a queue where events come in.
pub struct Queue {
    name: &'static str,
    sender: mpsc::Sender<Bytes>,
    /// Whether the host ends.
    ends: watch::Sender<bool>,
    counts: Arc<Counts>,
}

/// The end of a queue where they are taken out.
pub struct Outlet {
    name: &'static str,
    receiver: mpsc::Receiver<Bytes>,
    ends: watch::Receiver<bool>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Those that aren't done with, also while they are being written.
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    lost: AtomicU64,
    /// Whether the last one was lost: it is said once, and not for each.
    is_losing: AtomicBool,
    emptied: Notify,
}

impl Counts {
    fn leave(&self, events: usize, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.waiting.fetch_sub(events, Ordering::AcqRel) == events {
            self.emptied.notify_waiters();
        }
    }

    fn lose(&self, name: &str, events: usize, why: &dyn std::fmt::Display) {
        self.lost.fetch_add(events as u64, Ordering::Relaxed);
        if !self.is_losing.swap(true, Ordering::Relaxed) {
            tracing::warn!(to = name, %why, "audit events are lost");
        }
    }
}

impl Queue {
    /// A queue under the name that upstream has for what it leads to.
    pub fn new(name: &'static str) -> (Arc<Self>, Outlet) {
        let (sender, receiver) = mpsc::channel(MOST);
        let (ends, end) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let queue = Queue { name, sender, ends, counts: counts.clone() };
        (Arc::new(queue), Outlet { name, receiver, ends: end, counts })
    }

    /// From now on what waits goes out at once: the host ends.
    pub fn hurry(&self) {
        self.ends.send_replace(true);
    }

    /// What it leads to.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many events were lost.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// How many events aren't done with.
    pub fn waiting(&self) -> usize {
        self.counts.waiting.load(Ordering::Acquire)
    }

    /// Waits until none is.
    pub async fn emptied(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.counts.emptied.notified());
            // From now on nothing is missed.
            emptied.as_mut().enable();
            if self.waiting() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Sink for Queue {
    fn take(&self, event: &Bytes) {
        let size = event.len();
        let fits = |bytes: usize| (bytes + size <= MOST_BYTES).then_some(bytes + size);
        if self.counts.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_err() {
            self.counts.lose(self.name, 1, &"too many bytes wait to be written");
            return;
        }
        self.counts.waiting.fetch_add(1, Ordering::AcqRel);
        if self.sender.try_send(event.clone()).is_err() {
            self.counts.leave(1, size);
            self.counts.lose(self.name, 1, &"too many events wait to be written");
        }
    }
}

impl Outlet {
    /// Waits for events, and appends at most `most` of those that are there; none at the queue's end.
    pub async fn next(&mut self, events: &mut Vec<Bytes>, most: usize) -> usize {
        self.receiver.recv_many(events, most).await
    }

    /// The same for a thread that nothing else runs on.
    pub fn next_blocking(&mut self, events: &mut Vec<Bytes>, most: usize) -> usize {
        self.receiver.blocking_recv_many(events, most)
    }

    /// Waits until there is no more time to wait for further events; for ever, if the queue ends before.
    pub fn hurried(&self) -> impl Future<Output = ()> + use<> {
        let mut ends = self.ends.clone();
        async move {
            let is_gone = ends.wait_for(|ends| *ends).await.is_err();
            if is_gone {
                std::future::pending::<()>().await;
            }
        }
    }

    /// These have gone where they should.
    pub fn written(&self, events: &[Bytes]) {
        self.counts.is_losing.store(false, Ordering::Relaxed);
        self.leave(events);
    }

    /// These have not, and won't.
    pub fn lost(&self, events: &[Bytes], why: &dyn std::fmt::Display) {
        self.counts.lose(self.name, events.len(), why);
        self.leave(events);
    }

    fn leave(&self, events: &[Bytes]) {
        self.counts.leave(events.len(), events.iter().map(Bytes::len).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_what_is_done_with_makes_room() {
        let (queue, mut outlet) = Queue::new("log");
        for _ in 0..MOST + 3 {
            queue.take(&Bytes::from_static(b"{}"));
        }
        assert_eq!((queue.waiting(), queue.lost()), (MOST, 3));
        let mut events = Vec::new();
        assert_eq!(outlet.next(&mut events, 10).await, 10);
        outlet.written(&events);
        assert_eq!(queue.waiting(), MOST - 10);
        let large = Bytes::from(vec![b' '; MOST_BYTES / 2 + 1]);
        queue.take(&large);
        queue.take(&large);
        assert_eq!((queue.waiting(), queue.lost()), (MOST - 9, 4), "two of these are too many bytes");

        let emptied = tokio::time::timeout(std::time::Duration::from_secs(60), queue.emptied());
        let drained = async {
            while queue.waiting() > 0 {
                events.clear();
                outlet.next(&mut events, MOST).await;
                outlet.lost(&events, &"for a test");
            }
        };
        let (emptied, ()) = tokio::join!(emptied, drained);
        assert!(emptied.is_ok());
        assert_eq!((queue.waiting(), queue.lost()), (0, MOST as u64 - 9 + 4));
    }
}
