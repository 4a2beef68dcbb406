//! Tasks and threads that say what they do and for whom: each runs in a span of `tracing`, so that what it logs is named.
//!
//! Nothing else in the house starts a task or a thread, which `tests/everywhere.rs` sees to. Spans are of level info. Those of
//! work that comes thousands of times a second, one a write, are of level debug: they cost nothing unless they are asked for
//! (`RUST_LOG=debug`).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let peer = "10.73.0.2:6443";
//! let answer = tasks::spawn(tracing::info_span!("connection", peer), async {
//!     // In the log: `INFO connection{peer="10.73.0.2:6443"}: …: hello`.
//!     tracing::info!("hello");
//!     42
//! });
//! assert_eq!(answer.await.unwrap(), 42);
//! # }
//! ```

use std::{io, thread};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{Instrument, Span};

/// Starts a task on the caller's runtime.
pub fn spawn<T: Send + 'static>(span: Span, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task.instrument(span))
}

/// Starts a task on another runtime.
pub fn spawn_on<T: Send + 'static>(
    runtime: &Handle,
    span: Span,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    runtime.spawn(task.instrument(span))
}

/// Does work that may block on a thread of the runtime's that is there for such.
pub fn blocking<T: Send + 'static>(span: Span, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

/// Starts a thread, under a name that the system shows (of which Linux keeps 15 bytes).
///
/// # Errors
/// If the system gives no thread.
pub fn thread<T: Send + 'static>(
    name: &str,
    span: Span,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || span.in_scope(work))
}

/// Tasks that end with their set.
pub trait SpawnIn<T> {
    /// Starts a task of the set on the caller's runtime.
    fn spawn_in(&mut self, span: Span, task: impl Future<Output = T> + Send + 'static) -> AbortHandle;

    /// Starts a task of the set on another runtime.
    fn spawn_in_on(
        &mut self,
        span: Span,
        task: impl Future<Output = T> + Send + 'static,
        runtime: &Handle,
    ) -> AbortHandle;
}

impl<T: Send + 'static> SpawnIn<T> for JoinSet<T> {
    fn spawn_in(&mut self, span: Span, task: impl Future<Output = T> + Send + 'static) -> AbortHandle {
        self.spawn(task.instrument(span))
    }

    fn spawn_in_on(
        &mut self,
        span: Span,
        task: impl Future<Output = T> + Send + 'static,
        runtime: &Handle,
    ) -> AbortHandle {
        self.spawn_on(task.instrument(span), runtime)
    }
}
