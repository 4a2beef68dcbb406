//! A connection's socket, which two may hold with one descriptor: the task that speaks on it, and the one that may
//! have to end it.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::patience::Heard;

/// For how long there must be nothing to answer until all is answered: what was answered last is on its way then, and who had called
/// before has been heard.
const QUIET: Duration = Duration::from_millis(10);

/// The sockets of a listener's connections, each until its [`Listed`] is dropped.
#[derive(Debug, Default)]
pub(crate) struct Open {
    inner: Mutex<Inner>,
    /// How many connections begin, and how many requests are to be answered.
    under_way: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    streams: HashMap<u64, Weak<TcpStream>>,
    last: u64,
}

/// A connection that is among the open ones until this is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    open: Arc<Open>,
    number: u64,
}

/// A connection that begins, or a request that is to be answered, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Open>);

impl Open {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(self: &Arc<Self>, stream: &Arc<TcpStream>) -> Listed {
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.streams.insert(number, Arc::downgrade(stream));
        Listed { open: self.clone(), number }
    }

    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Waits until all is answered.
    pub(crate) async fn calm(&self) {
        let mut under_way = self.under_way.subscribe();
        loop {
            // Its sender is here.
            let _ = under_way.wait_for(|count| *count == 0).await;
            if timeout(QUIET, under_way.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Ends all of them before this returns.
    pub(crate) fn shut(&self) {
        for stream in self.lock().streams.values().filter_map(Weak::upgrade) {
            // One that has ended by itself needs no end.
            let _ = SockRef::from(&*stream).shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.open.lock().streams.remove(&self.number);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

/// Reads and writes a stream that others hold too. Nobody else may read or write it: readiness wakes one task.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    heard: Heard,
    _until_gone: oneshot::Sender<()>,
}

impl Socket {
    /// One that counts what it hears, and drops `until_gone` with itself: also once it has left HTTP.
    pub(crate) fn new(stream: Arc<TcpStream>, heard: Heard, until_gone: oneshot::Sender<()>) -> Self {
        Socket { stream, heard, _until_gone: until_gone }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(|bytes| self.heard.add(bytes))),
            }
        }
    }
}

impl Socket {
    fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(Shutdown::Write))
    }
}
