//! The host's threads, by what may wait for what.
//!
//! The store's consensus, the heartbeats and the virtual address must never wait for other work of this process: a
//! leader that is late by 150 ms is taken for dead. They have threads of their own, ahead of all others where the
//! machine lets us. Controllers and the scheduler have a thread each, so that what they work out delays no answer of
//! the API; they are behind all others. Names are answered for on one more, so that many questions delay no answer of the
//! API, nor it theirs.

use std::io;

use tokio::runtime::{Builder, Handle};
use tracing::info_span;

/// How far ahead of other work the urgent threads are (`nice`, see setpriority(2)): as far as the kernel's own
/// threads for interrupts would be at their default. It needs CAP_SYS_NICE; without, all threads of the host
/// are alike.
const AHEAD: i32 = -15;
/// How far behind the threads are that nobody waits for within milliseconds. Enough that a burst of controllers'
/// work leaves most of a busy processor to the API, and not so much that pods are replaced late.
const BEHIND: i32 = 3;

/// A runtime of one thread, ahead of all others, for what must not be late. It lasts as long as the process. Threads
/// that its tasks start inherit its priority: so do the store's and the heartbeats'.
///
/// # Errors
/// If the system gives no thread.
pub fn urgent() -> io::Result<Handle> {
    lasting(Builder::new_multi_thread().thread_name("urgent").on_thread_start(|| {
        if let Err(error) = be_nice(AHEAD) {
            tracing::debug!(%error, "consensus and heartbeats are not ahead of other programs' work");
        }
    }))
}

/// A runtime of one thread, level with those that answer the API. It lasts as long as the process.
///
/// # Errors
/// If the system gives no thread.
pub fn level(name: &str) -> io::Result<Handle> {
    lasting(Builder::new_multi_thread().thread_name(name))
}

fn lasting(builder: &mut Builder) -> io::Result<Handle> {
    let runtime = builder.worker_threads(1).enable_all().build()?;
    let handle = runtime.handle().clone();
    // Dropped, it would end its tasks.
    std::mem::forget(runtime);
    Ok(handle)
}

/// Runs `work` on a thread of its own, level with those that answer the API, until it ends.
///
/// # Errors
/// If the system gives no thread.
pub fn beside<W>(name: &str, work: impl FnOnce() -> W + Send + 'static) -> io::Result<()>
where
    W: Future<Output = ()>,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    tasks::thread(name, info_span!("thread", thread = name), move || runtime.block_on(work()))?;
    Ok(())
}

/// Runs `work` on a thread of its own, behind the others, until it ends.
///
/// # Errors
/// If the system gives no thread.
pub fn apart<W>(name: &str, work: impl FnOnce() -> W + Send + 'static) -> io::Result<()>
where
    W: Future<Output = ()>,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    tasks::thread(name, info_span!("thread", thread = name), move || {
        if let Err(error) = be_nice(BEHIND) {
            tracing::debug!(%error, "this thread is not behind the others");
        }
        runtime.block_on(work());
    })?;
    Ok(())
}

/// Sets the calling thread's priority: on Linux it is a thread's, not a process' (setpriority(2), "C library/kernel
/// differences").
fn be_nice(nice: i32) -> io::Result<()> {
    // SAFETY: the call takes no pointers; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
