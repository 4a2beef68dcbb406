//! Pseudo-terminals: the side of one that its process doesn't see.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How large a terminal is, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// Something whose size its user says.
pub(crate) trait Resize: Send + Sync {
    /// Changes its size; its processes are notified.
    ///
    /// # Errors
    /// If the process that has it refuses.
    fn resize(&self, to: Size) -> io::Result<()>;
}

/// A terminal: what its processes print is read, what is written they read. At most one task reads and one
/// writes at a time.
#[derive(Debug, Clone)]
pub(crate) struct Terminal(Arc<AsyncFd<OwnedFd>>);

/// Makes a terminal: the side that nobody waits at, and the one that becomes a process' streams.
///
/// # Errors
/// If the system has no terminal left.
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    // Not inherited by processes that other threads make meanwhile: they would hold it open.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
    let path = ptsname_r(&master)?;
    let inside = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok((master.into(), inside.into()))
}

impl Terminal {
    /// Makes a terminal, and opens the side that becomes a process' streams; called within a tokio runtime.
    ///
    /// # Errors
    /// If the system has no terminal left.
    pub(crate) fn open() -> io::Result<(Self, OwnedFd)> {
        let (master, inside) = open_terminal()?;
        Ok((Self::of(master)?, inside))
    }

    /// The terminal of which somebody else made this side; called within a tokio runtime.
    ///
    /// # Errors
    /// If the runtime can't wait for it.
    pub(crate) fn of(master: OwnedFd) -> io::Result<Self> {
        // SAFETY: `master` owns its descriptor, always answers the same one, and closes it only when dropped.
        let master = unsafe { AsyncFd::register(master) }?;
        Ok(Terminal(Arc::new(master)))
    }
}

impl Resize for Terminal {
    fn resize(&self, to: Size) -> io::Result<()> {
        let size = libc::winsize { ws_row: to.rows, ws_col: to.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open for as long as `self` lives, and the call only reads `size`.
        let result = unsafe { libc::ioctl(self.0.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let read = guard.try_io(|inner| {
                let read = nix::unistd::read(inner.get_ref(), into.initialize_unfilled());
                // The kernel's way of saying that nobody has the other side open any more.
                if read == Err(Errno::EIO) { Ok(0) } else { read.map_err(io::Error::from) }
            });
            match read {
                Ok(read) => {
                    into.advance(read?);
                    return Poll::Ready(Ok(()));
                }
                Err(_not_ready) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            let written =
                guard.try_io(|inner| nix::unistd::write(inner.get_ref(), bytes).map_err(io::Error::from));
            if let Ok(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Leaves the terminal open: it is one for reading too.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
