//! The containers that run, for those who come to them from outside: to see their output, write their input, or
//! run a command beside them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::host::{Command, Source, Terminal};

/// How long a container waits for one who watches it to take its output. After that it goes on without them.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many pieces of output may lie ready for one who watches.
const AHEAD: usize = 16;

/// The containers that run, by pod uid and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<ByName>>);

type ByName = HashMap<(String, String), Arc<Live>>;

impl Running {
    /// A container that runs.
    pub(crate) fn get(&self, uid: &str, container: &str) -> Option<Arc<Live>> {
        self.lock().get(&(uid.to_owned(), container.to_owned())).cloned()
    }

    /// How many containers run, of how many pods.
    pub(crate) fn count(&self) -> (usize, usize) {
        let all = self.lock();
        let pods: std::collections::HashSet<&String> = all.keys().map(|(uid, _)| uid).collect();
        (all.len(), pods.len())
    }

    /// Lists a container for as long as what is answered lives.
    pub(super) fn begin(&self, uid: &str, container: &str, live: Live) -> Listed {
        let (key, live) = ((uid.to_owned(), container.to_owned()), Arc::new(live));
        self.lock().insert(key.clone(), live.clone());
        Listed { running: self.clone(), key, live }
    }

    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A container among those that run. Dropped, it counts as ended.
#[derive(Debug)]
pub(super) struct Listed {
    running: Running,
    key: (String, String),
    live: Arc<Live>,
}

impl Listed {
    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The container ended: waits until the commands that ran beside it are dead too.
    pub(super) async fn end(&self) {
        self.live.guests.send_modify(|guests| guests.ended = true);
        let _ = self.live.guests.subscribe().wait_for(|guests| guests.count == 0).await;
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut all = self.running.lock();
        if all.get(&self.key).is_some_and(|live| Arc::ptr_eq(live, &self.live)) {
            all.remove(&self.key);
        }
        self.live.guests.send_modify(|guests| guests.ended = true);
        self.live.output.close();
    }
}

#[derive(Debug, Default)]
struct Guests {
    count: usize,
    ended: bool,
}

/// A container that runs, or ran a moment ago.
#[derive(Debug)]
pub(crate) struct Live {
    /// How commands are run beside it; its own is in there.
    pub(crate) command: Command,
    /// What it prints.
    pub(crate) output: Output,
    /// What it reads.
    pub(crate) input: Input,
    /// Its terminal, if it has one.
    pub(crate) terminal: Option<Terminal>,
    guests: watch::Sender<Guests>,
}

impl Live {
    pub(super) fn new(command: Command, input: Input, terminal: Option<Terminal>) -> Self {
        let guests = watch::Sender::new(Guests::default());
        Live { command, output: Output::default(), input, terminal, guests }
    }

    /// Whoever runs something beside the container is its guest: its end waits for theirs. None if it ended.
    pub(crate) fn guest(self: &Arc<Self>) -> Option<Guest> {
        let welcome = self.guests.send_if_modified(|guests| {
            guests.count += usize::from(!guests.ended);
            !guests.ended
        });
        welcome.then(|| Guest(self.clone()))
    }
}

/// A command beside a container.
#[derive(Debug)]
pub(crate) struct Guest(Arc<Live>);

impl Guest {
    /// The container.
    pub(crate) fn live(&self) -> &Live {
        &self.0
    }

    /// Waits for the container's end.
    pub(crate) async fn ended(&self) {
        let _ = self.0.guests.subscribe().wait_for(|guests| guests.ended).await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.send_modify(|guests| guests.count -= 1);
    }
}

/// A piece of output.
pub(crate) type Piece = (Source, Bytes);

/// What a container prints, for those who watch it.
#[derive(Debug, Default)]
pub(crate) struct Output(Mutex<Watchers>);

#[derive(Debug, Default)]
struct Watchers {
    list: Vec<mpsc::Sender<Piece>>,
    closed: bool,
}

impl Output {
    /// Everything that is printed from now on. It ends when the container does, or when nobody takes it for long.
    pub(crate) fn watch(&self) -> mpsc::Receiver<Piece> {
        let (send, pieces) = mpsc::channel(AHEAD);
        let mut watchers = self.lock();
        if !watchers.closed {
            watchers.list.push(send);
        }
        pieces
    }

    /// Passes on a piece to all who watch, at their pace.
    pub(super) async fn pass(&self, source: Source, piece: Option<Bytes>) {
        let Some(piece) = piece else { return };
        let watchers = self.lock().list.clone();
        for watcher in watchers {
            if watcher.send_timeout((source, piece.clone()), PATIENCE).await.is_err() {
                self.lock().list.retain(|known| !known.same_channel(&watcher));
            }
        }
    }

    /// The piece as one to pass on; none if nobody watches.
    pub(super) fn piece(&self, bytes: &[u8]) -> Option<Bytes> {
        (!self.lock().list.is_empty()).then(|| Bytes::copy_from_slice(bytes))
    }

    /// Nothing more will be printed.
    pub(super) fn close(&self) {
        *self.lock() = Watchers { list: Vec::new(), closed: true };
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// What a container reads; nothing if it asked for no input.
pub(crate) struct Input {
    writer: tokio::sync::Mutex<Option<Writer>>,
    /// Whether it ends with the first who wrote (`stdinOnce`).
    once: bool,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("once", &self.once).finish_non_exhaustive()
    }
}

impl Input {
    pub(super) fn new(writer: Option<Writer>, once: bool) -> Self {
        Input { writer: tokio::sync::Mutex::new(writer), once }
    }

    /// Writes; answers false if it reads no more.
    pub(crate) async fn write(&self, bytes: &[u8]) -> bool {
        let mut writer = self.writer.lock().await;
        match writer.as_mut() {
            Some(writer) => writer.write_all(bytes).await.is_ok() && writer.flush().await.is_ok(),
            None => false,
        }
    }

    /// Somebody who wrote has ended.
    pub(crate) async fn left(&self) {
        if self.once {
            *self.writer.lock().await = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live::new(Command::default(), Input::new(None, false), None)
    }

    #[tokio::test]
    async fn a_container_ends_after_its_guests_and_takes_no_more() {
        let running = Running::default();
        let listed = running.begin("uid", "main", live());
        let live = running.get("uid", "main").unwrap();
        let guest = live.guest().unwrap();
        let mut end = Box::pin(listed.end());
        assert!(futures::poll!(&mut end).is_pending());
        guest.ended().await;
        assert!(live.guest().is_none());
        assert!(futures::poll!(&mut end).is_pending());
        drop(guest);
        end.await;
        drop(listed);
        assert!(running.get("uid", "main").is_none());
        assert_eq!(live.output.watch().recv().await, None, "nothing comes from what ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_does_not_wait_for_long_for_those_who_watch() {
        let output = Output::default();
        assert_eq!(output.piece(b"x"), None);
        let mut slow = output.watch();
        for _ in 0..=AHEAD {
            output.pass(Source::Stdout, output.piece(b"x")).await;
        }
        assert_eq!(output.piece(b"x"), None, "nobody is left");
        let mut seen = 0;
        while slow.recv().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, AHEAD);
    }
}
