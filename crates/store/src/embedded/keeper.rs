//! The thread that keeps the log on disk, so that a slow disk never keeps the core from answering.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::info_span;

use super::core::Input;
use super::disk::{Disk, is_sealed, may_be_tried_again};
use super::driver::Event;
use super::folder;
use super::image::{Image, PIECE};
use super::log::{self, Log, Persist};
use crate::{Error, Metrics};

/// What is to be done on the disk.
pub enum Task {
    /// Append, and tell when it is durable.
    Persist(Vec<Persist>),
    /// Write a snapshot, and tell when it is durable.
    Save(Image),
    /// Delete what is not needed any more.
    Forget(u64),
    /// Note that the member was removed from the cluster.
    Retire,
}

/// How often the room on the disk is looked at, and a write that found none is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread owns.
pub struct Keeper {
    pub log: Log,
    pub disk: Arc<dyn Disk>,
    pub folder: String,
    pub reserve: u64,
    pub metrics: Arc<Metrics>,
    pub tasks: Receiver<Task>,
    pub events: Sender<Event>,
}

/// Ends the process: what it knows about its own disk is not true any more, and going on could lose what was
/// acknowledged. The next start reads what is really there.
pub fn fatal(problem: &str) -> ! {
    tracing::error!("the store ends this process: {problem}");
    eprintln!("holdfast: the store ends this process: {problem}");
    std::process::abort()
}

impl Keeper {
    /// Runs until the core's thread has ended and all that it asked for is done.
    #[allow(clippy::disallowed_methods)] // Looks at the disk once a second.
    pub fn run(mut self) {
        let mut roomy = true;
        let mut steps: Vec<Persist> = Vec::new();
        let mut saving: Option<JoinHandle<()>> = None;
        let mut next_look = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next_look {
                next_look = now + LOOK;
                self.look(&mut roomy);
                self.persist(&mut steps, &mut roomy);
            }
            let first = match self.tasks.recv_timeout(next_look.saturating_duration_since(now)) {
                Ok(task) => task,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Whatever waits goes to the disk with one sync.
            let stuck = !steps.is_empty();
            let mut forget = None;
            for task in std::iter::once(first).chain(self.tasks.try_iter()) {
                match task {
                    Task::Persist(more) => steps.extend(more),
                    Task::Save(image) => saving = Some(self.save(image)),
                    Task::Forget(index) => forget = Some(index),
                    Task::Retire => self.retire(),
                }
            }
            if !stuck {
                self.persist(&mut steps, &mut roomy);
            }
            if let Some(index) = forget
                && let Err(problem) = self.log.forget(index)
            {
                tracing::warn!(%problem, "an old segment of the log could not be deleted");
            }
        }
        if let Some(thread) = saving {
            // It has nothing to say: its own end is all there is to wait for.
            let _ = thread.join();
        }
    }

    #[allow(clippy::disallowed_methods)] // Measures how long the disk takes.
    fn persist(&mut self, steps: &mut Vec<Persist>, roomy: &mut bool) {
        let Some(number) = steps.last().map(|step| step.number) else { return };
        let begun = Instant::now();
        match self.log.append(steps) {
            Ok(()) => {
                self.metrics.sync.observe(begun.elapsed());
                steps.clear();
                self.tell(Input::Persisted(number));
            }
            Err(problem) if may_be_tried_again(&problem) => {
                if std::mem::replace(roomy, false) {
                    self.tell(Input::Space(Err(self.refusal(&problem))));
                }
            }
            Err(problem) => {
                fatal(&format!("its log in {} can't be written: {problem}", self.folder));
            }
        }
    }

    /// The error for callers while the disk takes nothing.
    fn refusal(&self, problem: &io::Error) -> Error {
        if is_sealed(problem) {
            Error::Sealed { folder: self.folder.clone(), why: problem.to_string() }
        } else {
            Error::NoSpace(self.folder.clone())
        }
    }

    /// Looks whether there is room, and tells when that changes.
    fn look(&self, roomy: &mut bool) {
        let room = match self.disk.free_space() {
            Ok(free) if free >= self.reserve => Ok(()),
            Ok(_) => Err(Error::NoSpace(self.folder.clone())),
            Err(problem) if is_sealed(&problem) => Err(self.refusal(&problem)),
            Err(problem) => {
                tracing::warn!(%problem, "the room on the store's disk can't be found out");
                return;
            }
        };
        if room.is_ok() != *roomy {
            *roomy = room.is_ok();
            match &room {
                Ok(()) => tracing::info!(folder = self.folder, "the disk takes changes again"),
                Err(problem) => tracing::warn!(folder = self.folder, %problem, "changes are refused"),
            }
            self.tell(Input::Space(room));
        }
    }

    /// Writes a snapshot beside the log, on a thread of its own: it may take long.
    #[allow(clippy::disallowed_methods)] // Measures how long the disk takes.
    fn save(&self, image: Image) -> JoinHandle<()> {
        let (disk, events, folder) = (self.disk.clone(), self.events.clone(), self.folder.clone());
        let metrics = self.metrics.clone();
        let saving = tasks::thread("store-snapshot", info_span!("snapshot"), move || {
            let (index, begun) = (image.index, Instant::now());
            let saved = match log::save(&*disk, image, PIECE) {
                Ok(bytes) => {
                    metrics.snapshot_saved.observe(begun.elapsed());
                    metrics.snapshot_bytes.store(bytes, Ordering::Relaxed);
                    Some(index)
                }
                Err(problem) if may_be_tried_again(&problem) => {
                    metrics.snapshots_failed.increase();
                    None
                }
                Err(problem) => fatal(&format!("a snapshot in {folder} can't be written: {problem}")),
            };
            // A driver that has ended needs no word.
            let _ = events.send(Event::Disk(Input::SnapshotSaved(saved)));
        });
        saving
            .unwrap_or_else(|problem| fatal(&format!("there is no thread to write a snapshot on: {problem}")))
    }

    fn retire(&self) {
        // Without the note the others say it again at the next start.
        if let Err(problem) = folder::retire(&*self.disk) {
            tracing::warn!(%problem, "it can't be noted that this member was removed");
        }
    }

    fn tell(&self, input: Input) {
        // A driver that has ended needs no word.
        let _ = self.events.send(Event::Disk(input));
    }
}
