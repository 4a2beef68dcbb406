//! What is on its way to clients: answers and events that they haven't read. A client that doesn't read costs a bounded
//! share of memory.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use machinery::Status;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::response::too_many;
use super::{Body, Connection, Limits};
use crate::clock::Edge;

/// An answer goes out in pieces of this many bytes: hyper takes up to 16 at a time for a connection, and what it hasn't
/// taken is ours to count.
const PIECE: usize = 32 << 10;
/// How many times shorter patience is where room is short: two seconds of thirty, which a client that reads at all needs
/// for no piece.
const HASTE: u32 = 15;
/// The longest that an answer waits for room before its client has to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How often clients that don't read are looked for: twice within the shortest patience.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All that is on its way to clients.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The most bytes that may be on their way.
    most: usize,
    /// How long a client may read nothing.
    patience: Duration,
    edge: Arc<dyn Edge>,
    start: Instant,
    bytes: AtomicUsize,
    held: Mutex<HashMap<u64, Weak<Held>>>,
    last: AtomicU64,
    /// Something was read, or given up.
    freed: Notify,
    /// There is too much, or somebody waits for room.
    short: Notify,
    /// How many wait for room.
    wanting: AtomicUsize,
}

/// One answer or watch that is on its way.
#[derive(Debug)]
struct Held {
    outgoing: Arc<Outgoing>,
    number: u64,
    bytes: AtomicUsize,
    /// When its client last read something, or something first waited for it: in ms since the start.
    progress: AtomicU64,
    connection: Option<Connection>,
}

/// The share of one answer or watch. Its bytes count until their memory is given back.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Held>);

impl Outgoing {
    /// With the room and the patience that the limits say.
    pub(crate) fn new(limits: &Limits, edge: Arc<dyn Edge>) -> Arc<Self> {
        Arc::new(Outgoing {
            most: limits.unread_bytes,
            patience: limits.unread_for,
            start: edge.instant(),
            edge,
            bytes: AtomicUsize::new(0),
            held: Mutex::default(),
            last: AtomicU64::new(0),
            freed: Notify::new(),
            short: Notify::new(),
            wanting: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        let passed = self.edge.instant().saturating_duration_since(self.start);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    /// A share of nothing yet, of a client on a connection.
    pub(crate) fn share(self: &Arc<Self>, connection: Option<Connection>) -> Share {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let held = Arc::new(Held {
            outgoing: self.clone(),
            number,
            bytes: AtomicUsize::new(0),
            progress: AtomicU64::new(self.now()),
            connection,
        });
        self.lock().insert(number, Arc::downgrade(&held));
        Share(held)
    }

    /// A share of this many bytes, once there is room for them: for what is large and isn't made yet.
    ///
    /// # Errors
    /// 429 where there is none for long.
    pub(crate) async fn room(
        self: &Arc<Self>,
        bytes: usize,
        connection: Option<Connection>,
    ) -> Result<Share, Status> {
        // However large, it goes out if it is alone.
        let bytes = bytes.min(self.most);
        let share = self.share(connection);
        let taken = async {
            let _wanting = Wanting::new(&self.wanting);
            loop {
                let freed = self.freed.notified();
                let mut freed = std::pin::pin!(freed);
                // From now on nothing is missed.
                freed.as_mut().enable();
                let fits = |known: usize| (known + bytes <= self.most).then_some(known + bytes);
                if self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok() {
                    share.0.bytes.fetch_add(bytes, Ordering::AcqRel);
                    return;
                }
                self.short.notify_one();
                freed.await;
            }
        };
        match timeout(LONGEST_WAIT, taken).await {
            Ok(()) => Ok(share),
            Err(_) => {
                let message = "Too much waits to be read from this host, please try again later";
                Err(too_many(message))
            }
        }
    }

    /// Ends connections whose clients don't read, for as long as the server lives.
    pub(crate) async fn watch_over(outgoing: Weak<Self>) {
        while let Some(outgoing) = outgoing.upgrade() {
            // It wakes at once where room is short. An answer that waits for room says so each time that it finds none:
            // hence the rest below.
            let _ = timeout(LOOK_EVERY, outgoing.short.notified()).await;
            outgoing.end_idle();
            sleep(LOOK_EVERY / 10).await;
        }
    }

    /// Ends the connections of clients that have read nothing for too long; where room is short, of those that have waited
    /// longest.
    fn end_idle(&self) {
        if self.bytes.load(Ordering::Acquire) == 0 {
            return;
        }
        let now = self.now();
        let idle =
            |held: &Held| Duration::from_millis(now.saturating_sub(held.progress.load(Ordering::Acquire)));
        let mut waiting: Vec<Arc<Held>> = self.lock().values().filter_map(Weak::upgrade).collect();
        waiting.retain(|held| held.bytes.load(Ordering::Acquire) > 0);
        waiting.sort_by_key(|held| std::cmp::Reverse(idle(held)));
        let mut left = self.bytes.load(Ordering::Acquire);
        let is_wanted = self.wanting.load(Ordering::Acquire) > 0;
        for held in waiting {
            let is_short = left > self.most || is_wanted && left > self.most / 2;
            let patience = match (is_short, left > 2 * self.most) {
                (_, true) => Duration::ZERO,
                (true, _) => self.patience / HASTE,
                (false, _) => self.patience,
            };
            if idle(&held) < patience {
                return;
            }
            left = left.saturating_sub(held.bytes.load(Ordering::Acquire));
            tracing::debug!(
                bytes = held.bytes.load(Ordering::Relaxed),
                "a client doesn't read what it asked for"
            );
            if let Some(connection) = &held.connection {
                connection.cut();
            }
        }
    }

    /// The answer as it goes out: counted, piece by piece.
    pub(crate) fn counted(
        self: &Arc<Self>,
        response: Response<Body>,
        connection: Option<&Connection>,
    ) -> Response<Body> {
        let Some(connection) = connection else { return response };
        let (mut head, body) = response.into_parts();
        let share = head.extensions.remove::<Share>();
        let size = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
        let Some(size) = size.filter(|size| *size > 0) else { return Response::from_parts(head, body) };
        let share = share.unwrap_or_else(|| self.share(Some(connection.clone())));
        share.set(size);
        Response::from_parts(
            head,
            Counted { share, source: Some(body), rest: Bytes::new(), size }.boxed_unsync(),
        )
    }
}

/// One that waits for room, until this is dropped.
struct Wanting<'a>(&'a AtomicUsize);

impl<'a> Wanting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Wanting(count)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Held {
    fn add(&self, bytes: usize) {
        if self.bytes.fetch_add(bytes, Ordering::AcqRel) == 0 {
            self.read_some();
        }
        if self.outgoing.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > self.outgoing.most {
            self.outgoing.short.notify_one();
        }
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.outgoing.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.read_some();
        self.outgoing.freed.notify_waiters();
    }

    fn read_some(&self) {
        self.progress.store(self.outgoing.now(), Ordering::Release);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.outgoing.lock().remove(&self.number);
        self.give_back(self.bytes.load(Ordering::Acquire));
    }
}

impl Share {
    /// Makes it this many bytes from now on.
    pub(crate) fn set(&self, bytes: usize) {
        match self.0.bytes.load(Ordering::Acquire) {
            before if before < bytes => self.0.add(bytes - before),
            before => self.0.give_back(before - bytes),
        }
    }

    /// This many more bytes wait for its client.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.add(bytes);
    }

    /// Takes bytes off the count.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.give_back(bytes);
    }

    /// Bytes that count until their memory is given back, in pieces as they go out.
    pub(crate) fn pieces(&self, bytes: Bytes) -> Pieces {
        self.0.add(bytes.len());
        Pieces(self.owned(bytes))
    }

    fn owned(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Waiting { share: self.clone(), bytes })
    }
}

/// Bytes that somebody still has to read.
struct Waiting {
    share: Share,
    bytes: Bytes,
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.share.0.give_back(self.bytes.len());
    }
}

/// What is left of bytes that go out piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Bytes);

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let next = self.0.split_to(self.0.len().min(PIECE));
        (!next.is_empty()).then_some(next)
    }
}

/// An answer whose size is known.
struct Counted {
    share: Share,
    source: Option<Body>,
    rest: Bytes,
    size: usize,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        loop {
            this.share.0.read_some();
            if !this.rest.is_empty() {
                let piece = this.rest.split_to(this.rest.len().min(PIECE));
                this.size = this.size.saturating_sub(piece.len());
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(source) = &mut this.source else { return Poll::Ready(None) };
            match std::task::ready!(Pin::new(source).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    // It was counted as soon as it was made.
                    Ok(data) => this.rest = this.share.owned(data),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.source = None,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size as u64)
    }
}
