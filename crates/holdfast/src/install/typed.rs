//! A secret that a person types: the terminal doesn't show it.

use std::io::{Stdin, stdin};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tracing::info_span;

use crate::end::End;

/// What shells make of a program that Ctrl-C ended.
const STOPPED: i32 = 130;

/// A terminal that doesn't show what is typed, until this is dropped.
struct Unseen {
    terminal: Stdin,
    before: Termios,
}

impl Unseen {
    fn new() -> nix::Result<Self> {
        let terminal = stdin();
        let before = tcgetattr(&terminal)?;
        let mut now = before.clone();
        now.local_flags.remove(LocalFlags::ECHO);
        // That it was taken, the new line tells.
        now.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &now)?;
        Ok(Unseen { terminal, before })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // Nothing is left to be done about a terminal that has gone away.
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

/// Reads from the terminal what it doesn't show. Who is asked to end meanwhile leaves it as it was.
pub(super) async fn unseen<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let mut end = End::new()?;
    let unseen = Unseen::new()?;
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
