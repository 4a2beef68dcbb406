//! Hears that something in a folder came, went, was replaced or written (inotify(7)). What it is, the one who waits looks up: so nothing that the
//! kernel says is read, and no event can be lost.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::io::unix::AsyncFd;

const CHANGES: u32 = libc::IN_CREATE
    | libc::IN_CLOSE_WRITE
    | libc::IN_DELETE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF;

/// A folder that is watched.
#[derive(Debug)]
pub struct FolderWatch(AsyncFd<std::fs::File>);

impl FolderWatch {
    /// Watches a folder from now on.
    ///
    /// # Errors
    /// If it isn't there, or the system gives no watch.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let path = CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: a call with flags alone; its answer is checked before it becomes a descriptor.
        let descriptor = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor has just been made, and is nobody else's.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // SAFETY: the descriptor is open, and the path lives through the call.
        let watch = unsafe { libc::inotify_add_watch(descriptor.as_raw_fd(), path.as_ptr(), CHANGES) };
        if watch < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it stays open, and the same, as long as the watch has it.
        let watched = unsafe { AsyncFd::register(std::fs::File::from(descriptor)) }?;
        Ok(FolderWatch(watched))
    }

    /// Waits for a change since the last one that was heard of.
    ///
    /// # Errors
    /// If nothing can be heard any more.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            let read = ready.try_io(|file| {
                let mut heard = false;
                let mut events = [0; 4096];
                loop {
                    match file.get_mut().read(&mut events) {
                        Ok(0) => return Ok(heard),
                        Ok(_) => heard = true,
                        // Until it would block, or no later event would wake.
                        Err(why) if why.kind() == io::ErrorKind::WouldBlock && heard => return Ok(true),
                        Err(why) => return Err(why),
                    }
                }
            });
            match read {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Err(why)) => return Err(why),
                Err(_would_block) => {}
            }
        }
    }
}
