//! How a program that keeps hosts running is asked to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a program to end.
pub struct End {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal went away. None where that is not to end the program: it was started by `nohup` or the like.
    hang_up: Option<Signal>,
}

impl End {
    /// From now on these signals end nothing by themselves.
    pub fn new() -> std::io::Result<Self> {
        Ok(End {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for one of them.
    pub async fn asked(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hang_up => {}
        }
    }
}

fn ignores_hang_up() -> bool {
    // SAFETY: all zeroes are a valid sigaction, as it consists of numbers, a set of bits and pointers.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action nothing is changed; the call writes the struct that it is given.
    let asked = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut now) };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}
