//! Work that takes long, beside the threads that answer everybody: large bodies, large objects, long lists.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;

use futures::future::BoxFuture;
use machinery::Status;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task::block_in_place;

use super::response::too_many;

/// What is larger than this many bytes is worked on beside the others. Decoding, defaulting, validating and encoding an
/// object takes some 50 to 100 ns a byte, so anything smaller keeps one of the threads that answer everybody for less
/// than 7 ms: a fifth of the time between two heartbeats. Handing work over takes some 20 µs.
pub(crate) const LARGE: usize = 64 << 10;
/// All bodies and objects of large changes that are worked on at the same time, in bytes: ten of the largest. A value takes some
/// thirty times its JSON while it is looked at, so they may cost up to a gigabyte.
const MOST: usize = 32 << 20;
/// Room is given out in pieces of this many bytes.
const PIECE: usize = 1 << 10;

/// The room and the turns for what takes long. A request that goes away gives back what it had or waited for.
#[derive(Debug)]
pub(crate) struct Beside {
    /// For bodies that still arrive, and for changes: a slow sender takes none from requests whose body is here.
    arriving: Arc<Semaphore>,
    room: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

impl Default for Beside {
    fn default() -> Self {
        // As many as there are processors have a turn: more would only take longer, each of them.
        let turns = available_parallelism().map_or(2, |n| n.get().max(2));
        Beside {
            arriving: Arc::new(Semaphore::new(MOST / PIECE)),
            room: Arc::new(Semaphore::new(MOST / PIECE)),
            changes: Arc::new(Semaphore::new(turns)),
            reads: Arc::new(Semaphore::new(turns)),
        }
    }
}

impl Beside {
    /// Room for a change of this many bytes, until it is dropped; small ones need none.
    ///
    /// # Errors
    /// 429 where there is none.
    pub(crate) fn room(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if bytes <= LARGE {
            return Ok(None);
        }
        let room = self.room.clone().try_acquire_many_owned(pieces(bytes));
        room.map(Some)
            .map_err(|_| too_many("Too many large requests at the same time, please try again later"))
    }

    /// Waits for room for a body of this many bytes that still arrives.
    pub(crate) async fn room_to_arrive(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.arriving.clone().acquire_many_owned(pieces(bytes)).await.ok()
    }

    /// A large change, worked on when it is its turn.
    pub(crate) fn change<F: Future>(&self, work: F) -> Turns<F> {
        Turns::new(self.changes.clone(), work)
    }

    /// A long read, worked on when it is its turn.
    pub(crate) fn read<F: Future>(&self, work: F) -> Turns<F> {
        Turns::new(self.reads.clone(), work)
    }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.min(MOST).div_ceil(PIECE)).unwrap_or(u32::MAX)
}

type Turn = Result<OwnedSemaphorePermit, AcquireError>;

/// A future that goes on only when it is its turn, and then on a thread that nobody else waits for. While it waits itself, for
/// the store or a webhook, others have their turn.
pub(crate) struct Turns<F> {
    turns: Arc<Semaphore>,
    waiting: Option<BoxFuture<'static, Turn>>,
    work: Pin<Box<F>>,
}

impl<F: Future> Turns<F> {
    fn new(turns: Arc<Semaphore>, work: F) -> Self {
        Turns { turns, waiting: None, work: Box::pin(work) }
    }
}

impl<F: Future> Future for Turns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(this.turns.clone().acquire_owned()));
        let _turn = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        off_thread(|| this.work.as_mut().poll(cx))
    }
}

/// Does something after this thread has left its other tasks to another one.
fn off_thread<T>(work: impl FnOnce() -> T) -> T {
    let has_others =
        Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if has_others { block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_are_answered_while_something_takes_long() {
        let (beside, meet) = (Beside::default(), Arc::new(Barrier::new(2)));
        let other = meet.clone();
        // The only thread can't leave the barrier before another task comes to it.
        let long = beside.change(async move { meet.wait() });
        let long = tokio::spawn(long);
        tokio::spawn(async move { other.wait() }).await.unwrap();
        long.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_leaves_its_turn_to_others_and_no_more_than_the_turns_work_at_once() {
        let beside = Beside { changes: Arc::new(Semaphore::new(1)), ..Beside::default() };
        let told = Notify::new();
        let mut first = beside.change(async { told.notified().await });
        assert!((&mut first).now_or_never().is_none());
        assert_eq!(beside.changes.available_permits(), 1, "it waits for something else");
        let held = beside.changes.clone().acquire_owned().await.unwrap();
        let ran = AtomicUsize::new(0);
        let mut second = beside.change(async { ran.fetch_add(1, Ordering::Relaxed) });
        told.notify_one();
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        assert_eq!(ran.load(Ordering::Relaxed), 0);
        // Work that goes away leaves the queue.
        drop(first);
        drop(held);
        second.await;
        assert_eq!(beside.changes.available_permits(), 1);
    }

    #[test]
    fn large_changes_have_room_until_it_is_full() {
        let beside = Beside::default();
        assert!(beside.room(LARGE).unwrap().is_none(), "small ones need none");
        let most: Vec<_> = (0..10).map(|_| beside.room(3 << 20).unwrap()).collect();
        let refused = beside.room(3 << 20).unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert!(beside.room(LARGE).unwrap().is_none());
        drop(most);
        assert!(beside.room(usize::MAX).is_ok(), "however large, if it is alone");
    }
}
