//! A secret that a person types: the terminal doesn't show it.

use nix::sys::termios::{LocalFlags, SetArg};
use tracing::info_span;

use crate::end::End;
use crate::terminal::Changed;

/// What shells make of a program that Ctrl-C ended.
const STOPPED: i32 = 130;

/// Reads from the terminal what it doesn't show. Who is asked to end meanwhile leaves it as it was.
pub(super) async fn unseen<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let mut end = End::new()?;
    let unseen = Changed::by(SetArg::TCSAFLUSH, |now| {
        now.local_flags.remove(LocalFlags::ECHO);
        // That it was taken, the new line tells.
        now.local_flags.insert(LocalFlags::ECHONL);
    })?;
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: nothing interrupts it but the end of the program.
    tasks::thread("typed", info_span!("read what is typed"), move || drop(tell.send(read())))?;
    tokio::select! {
        read = told => Ok(read?),
        () = end.asked() => {
            drop(unseen);
            std::process::exit(STOPPED)
        }
    }
}
