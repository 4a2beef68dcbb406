//! The agent's connection to one shim: many questions at once, each with its own answer.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use membership::LeasePage;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info_span;

use super::bond::{Bond, is_marked};
use crate::shim::wire::{Answer, Ask, Inbox, Outbox, SOCKET, Told, VERSION, encode};
use crate::shim::{KEEPER, SHIM};

/// An answer with the files that came along.
pub(super) type Reply = (Answer, Vec<OwnedFd>);

type Waiting = HashMap<u64, oneshot::Sender<Reply>>;

/// A connection to a shim. Dropped, it ends, and with it the commands that were begun through it.
#[derive(Debug)]
pub(super) struct Link {
    pid: Option<i32>,
    bond: Option<Bond>,
    /// Whether that process is its keeper.
    is_kept: bool,
    /// Set once it is gone, and all that it left behind.
    pub(super) is_cleared: AtomicBool,
    outgoing: mpsc::UnboundedSender<(Vec<u8>, Vec<OwnedFd>)>,
    /// None once the connection is over.
    waiting: Arc<Mutex<Option<Waiting>>>,
    next: AtomicU64,
    over: watch::Receiver<bool>,
}

/// The socket of the shim whose pod has this folder: by a handle of the folder, since the path of a socket must be short.
pub(super) fn socket_in(folder: &Path) -> io::Result<(File, PathBuf)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok((folder, path))
}

/// Whether a process is the shim of the pod with this folder. Those of older versions are known by the process that made their sockets.
fn is_shim(pid: i32, folder: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    words.next() == Some(SHIM.as_bytes()) && words.next() == Some(folder.as_os_str().as_encoded_bytes())
}

/// Kills the shims of the pods with these folders. Their keepers, if they have any, go on: they kill what a shim leaves behind.
pub(super) fn kill_shims(folders: &[PathBuf]) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let is_keeper = || {
            let name = std::fs::read(entry.path().join("comm")).unwrap_or_default();
            name.trim_ascii_end() == KEEPER.to_bytes()
        };
        if folders.iter().any(|folder| is_shim(pid, folder)) && !is_keeper() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Link {
    /// Connects to the shim whose pod has this folder, and hears what it holds; nothing of one that speaks otherwise, or says nothing within
    /// `patience`. Its process is known to who has just started it: it may not have said itself yet that it listens (`shim`).
    ///
    /// # Errors
    /// If there is none, or somebody else is in its place.
    pub(super) async fn open(
        folder: &Path,
        pid: Option<i32>,
        patience: Duration,
    ) -> io::Result<(Arc<Self>, Option<Vec<Told>>)> {
        let (_folder, path) = socket_in(folder)?;
        let stream = UnixStream::connect(path).await?;
        let who = stream.peer_cred()?;
        if who.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::other("the shim's socket is another user's"));
        }
        let (outgoing, messages) = mpsc::unbounded_channel();
        let (ends, over) = watch::channel(false);
        let waiting: Arc<Mutex<Option<Waiting>>> = Arc::new(Mutex::new(Some(HashMap::new())));
        let answers = waiting.clone();
        tasks::spawn(info_span!("shim connection", pid = who.pid()), async move {
            let error = carry(stream, messages, &answers).await;
            tracing::debug!(?error, "the connection to a shim is over");
            // First that it is over: who gets no answer may ask for another shim at once.
            ends.send_replace(true);
            *lock(&answers) = None;
        });
        let pid = pid.or_else(|| who.pid().filter(|pid| is_shim(*pid, folder)));
        let mut link = Link {
            pid,
            bond: None,
            is_kept: is_marked(folder),
            is_cleared: AtomicBool::default(),
            outgoing,
            waiting,
            next: AtomicU64::new(0),
            over,
        };
        let answer = tokio::time::timeout(patience, link.ask(&Ask::Hello, Vec::new())).await;
        let told = match answer {
            Ok(Some((Answer::Hello { version: VERSION, lives, lease: None }, _))) => Some(lives),
            Ok(Some((Answer::Hello { version: VERSION, lives, lease: Some(epoch) }, mut files))) => {
                // Without its page it must not pass for one that goes on without the lease.
                let page = files.pop().and_then(|file| LeasePage::of(file).ok());
                link.bond = page.map(|page| Bond { epoch, page });
                link.bond.is_some().then_some(lives)
            }
            Ok(None) => return Err(io::ErrorKind::ConnectionReset.into()),
            Ok(Some(_)) | Err(_) => None,
        };
        Ok((Arc::new(link), told))
    }

    /// Whether the shim is gone.
    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits until the shim is gone.
    pub(super) async fn over(&self) {
        // If the sender is gone, so is the connection.
        let _ = self.over.clone().wait_for(|over| *over).await;
    }

    /// Asks without waiting for the answer; the question's number.
    pub(super) fn send(&self, ask: &Ask, files: Vec<OwnedFd>) -> (u64, oneshot::Receiver<Reply>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        // A question that can't be asked has no answer.
        if let (Some(waiting), Ok(bytes)) = (lock(&self.waiting).as_mut(), encode(number, ask)) {
            waiting.insert(number, tell);
            let _ = self.outgoing.send((bytes, files));
        }
        (number, answer)
    }

    /// Asks; None if the shim is gone.
    pub(super) async fn ask(&self, ask: &Ask, files: Vec<OwnedFd>) -> Option<Reply> {
        self.send(ask, files).1.await.ok()
    }

    /// By which lease of the host the shim holds its pod, if by one.
    pub(super) fn bond(&self) -> Option<&Bond> {
        self.bond.as_ref()
    }

    /// Kills the shim, and so its containers.
    pub(super) fn kill(&self) {
        // A keeper kills all of its pod when it is asked to end; killed itself, it could only ask the shim.
        let signal = if self.is_kept { Signal::SIGTERM } else { Signal::SIGKILL };
        if let Some(pid) = self.pid.filter(|_| !self.is_over()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

fn lock(waiting: &Mutex<Option<Waiting>>) -> MutexGuard<'_, Option<Waiting>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries messages both ways until the connection ends, and says why it did; None if nobody wants it any more.
async fn carry(
    stream: UnixStream,
    mut messages: mpsc::UnboundedReceiver<(Vec<u8>, Vec<OwnedFd>)>,
    waiting: &Mutex<Option<Waiting>>,
) -> Option<io::Error> {
    let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
    let socket = stream.as_raw_fd();
    loop {
        let interest =
            if outbox.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = tokio::select! {
            message = messages.recv() => {
                let (bytes, files) = message?;
                outbox.push(bytes, files);
                // Most are taken at once.
                match stream.try_io(Interest::WRITABLE, || outbox.flush(socket)) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Some(error),
                    _ => continue,
                }
            }
            ready = stream.ready(interest) => match ready {
                Ok(ready) => ready,
                Err(error) => return Some(error),
            },
        };
        if ready.is_writable() {
            match stream.try_io(Interest::WRITABLE, || outbox.flush(socket)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Some(error),
                _ => {}
            }
        }
        while ready.is_readable() {
            let (bytes, files) = match stream.try_io(Interest::READABLE, || inbox.next(socket)) {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Some(error),
            };
            let (number, answer): (u64, Answer) = match serde_json::from_slice(&bytes) {
                Ok(message) => message,
                Err(error) => return Some(error.into()),
            };
            if let Some(tell) = lock(waiting).as_mut().and_then(|waiting| waiting.remove(&number)) {
                // The asker may be gone.
                let _ = tell.send((answer, files));
            }
        }
    }
}
