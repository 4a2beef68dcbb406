//! The containers that a runtime of others has for this host, and how they end: the CRI is asked, since it tells nothing by itself.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cri::Client;
use cri::messages::{ContainerState, ContainerStatus, Texts};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tracing::info_span;

use crate::container::{LARGEST_FILE, LogProgress, set_aside};
use crate::runtime::{Begun, Exit, Streams, Which};

/// How often it is asked whether containers ended (the kubelet's PLEG: once a second).
const EVERY: Duration = Duration::from_millis(500);
/// After how many such questions the sizes of logs are looked at.
const LOGS: u32 = 20;
/// How often a log that somebody follows is looked at.
const FOLLOW: Duration = Duration::from_millis(200);

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(Exit),
    /// Nobody knows: its runtime hasn't it any more.
    Lost,
}

/// One life of a container.
#[derive(Debug)]
pub(super) struct Life {
    /// What the runtime calls it.
    pub id: String,
    pub begun: Begun,
    /// Its log's file.
    pub log: PathBuf,
    pub streams: Streams,
    pub end: watch::Sender<Option<Ended>>,
}

impl Life {
    pub(super) fn new(id: String, begun: Begun, log: PathBuf, streams: Streams, end: Option<Ended>) -> Self {
        Life { id, begun, log, streams, end: watch::Sender::new(end) }
    }

    fn runs(&self) -> bool {
        self.end.borrow().is_none()
    }
}

/// A time as the CRI has it; the begin of all times for none.
pub(super) fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

/// How a container ended, by its status.
pub(super) fn ended(status: &ContainerStatus) -> Option<Ended> {
    let is_over = status.state == ContainerState::Exited as i32;
    is_over.then(|| Ended::Exit(Exit { code: status.exit_code, signal: 0, at: time(status.finished_at) }))
}

/// Those of one host.
#[derive(Debug)]
pub(super) struct Lives {
    client: Client,
    labels: Texts,
    all: Mutex<HashMap<Which, Arc<Life>>>,
    /// Something has begun.
    begun: Notify,
    /// Held while the runtime is asked.
    asking: tokio::sync::Mutex<()>,
}

impl Lives {
    /// Those that have these labels, followed from now on.
    pub(super) fn follow(client: Client, labels: Texts) -> Arc<Self> {
        let lives = Arc::new(Lives {
            client,
            labels,
            all: Mutex::default(),
            begun: Notify::new(),
            asking: tokio::sync::Mutex::default(),
        });
        tasks::spawn(info_span!("follow containers"), watch_over(Arc::downgrade(&lives)));
        lives
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Which, Arc<Life>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, which: &Which) -> Option<Arc<Life>> {
        self.all().get(which).cloned()
    }

    /// One that has begun. Former lives of its container are forgotten, but for the last.
    pub(super) fn begin(&self, which: Which, life: Life) {
        let mut all = self.all();
        all.retain(|known, life| {
            let is_former = (&known.uid, &known.container) == (&which.uid, &which.container)
                && known.attempt.saturating_add(1) < which.attempt;
            !is_former || life.runs()
        });
        all.insert(which, Arc::new(life));
        drop(all);
        self.begun.notify_one();
    }

    /// What the runtime calls a container of a pod that runs.
    pub(super) fn running(&self, uid: &str, container: &str) -> Option<String> {
        let all = self.all();
        let mut fitting = all
            .iter()
            .filter(|(which, life)| which.uid == uid && which.container == container && life.runs());
        fitting.next().map(|(_, life)| life.id.clone())
    }

    /// Those that run.
    pub(super) fn list(&self) -> Vec<(Which, Arc<Life>)> {
        let all = self.all();
        all.iter()
            .filter(|(_, life)| life.runs())
            .map(|(which, life)| (which.clone(), life.clone()))
            .collect()
    }

    /// Nothing of a pod is there any more.
    pub(super) fn forget(&self, uid: &str) {
        self.all().retain(|which, life| {
            if which.uid == uid && life.runs() {
                life.end.send_replace(Some(Ended::Lost));
            }
            which.uid != uid
        });
    }

    /// Asks how those are that run. A runtime that doesn't answer says nothing about them.
    pub(super) async fn look(&self) -> Result<(), cri::Failure> {
        let _asking = self.asking.lock().await;
        // Before the question: what begins meanwhile is missing in the answer.
        let running = self.list();
        if running.is_empty() {
            return Ok(());
        }
        let there = self.client.containers(self.labels.clone()).await?;
        for (_, life) in running {
            match there.iter().find(|container| container.id == life.id) {
                Some(container) if container.state == ContainerState::Exited as i32 => {
                    match self.client.container_status(&life.id).await {
                        Ok(status) => {
                            if let Some(end) = ended(&status) {
                                life.end.send_replace(Some(end));
                            }
                        }
                        Err(failure) if failure.is_missing() => {
                            life.end.send_replace(Some(Ended::Lost));
                        }
                        Err(failure) => return Err(failure),
                    }
                }
                // Its runtime lost sight of it: the next life begins with what may be left of this one killed.
                Some(container) if container.state == ContainerState::Unknown as i32 => {
                    life.end.send_replace(Some(Ended::Lost));
                }
                Some(_) => {}
                None => _ = life.end.send_replace(Some(Ended::Lost)),
            }
        }
        Ok(())
    }

    /// Sets logs aside that have become large, and has the runtime begin new files.
    async fn turn_logs(&self) {
        for (which, life) in self.list() {
            let log = life.log.clone();
            let turned =
                tasks::blocking(info_span!("look at a log", container = which.container), move || turn(&log));
            if let Ok(Ok(true)) = turned.await
                && let Err(failure) = self.client.reopen_log(&life.id).await
            {
                tracing::warn!(uid = which.uid, container = which.container, %failure, "a log goes on in its old file");
            }
        }
    }
}

fn turn(log: &Path) -> io::Result<bool> {
    let is_large = fs::symlink_metadata(log)?.len() >= LARGEST_FILE;
    if is_large {
        set_aside(log);
    }
    Ok(is_large)
}

async fn watch_over(lives: Weak<Lives>) {
    let (mut count, mut is_away) = (0_u32, false);
    loop {
        // Weak: this ends when the runtime is dropped.
        let Some(here) = lives.upgrade() else { return };
        if here.list().is_empty() {
            tokio::select! {
                () = here.begun.notified() => {}
                () = tokio::time::sleep(EVERY * LOGS) => {}
            }
            continue;
        }
        let looked = here.look().await;
        if let (Err(failure), false) = (&looked, is_away) {
            tracing::warn!(%failure, "the containers' runtime doesn't say how they are");
        }
        is_away = looked.is_err();
        count = count.wrapping_add(1);
        if count % LOGS == 0 {
            here.turn_logs().await;
        }
        drop(here);
        tokio::time::sleep(EVERY).await;
    }
}

/// Follows how far the log of a life is, for as long as somebody listens.
pub(super) async fn follow_log(life: Option<Arc<Life>>, tell: watch::Sender<LogProgress>) {
    let mut seen = LogProgress::default();
    let Some(life) = life else {
        tell.send_replace(LogProgress { ended: true, ..seen });
        return;
    };
    let mut last = None;
    while !seen.ended {
        // Before the file is looked at: what is written after that is the last.
        let ended = !life.runs();
        let log = life.log.clone();
        let size = tasks::blocking(info_span!("look at a log"), move || {
            use std::os::unix::fs::MetadataExt;
            fs::symlink_metadata(log).ok().map(|about| (about.ino(), about.len()))
        });
        let size = size.await.ok().flatten();
        if size != last || ended {
            last = size;
            seen = LogProgress { writes: seen.writes + 1, ended };
            tell.send_replace(seen);
        }
        let mut end = life.end.subscribe();
        tokio::select! {
            () = tokio::time::sleep(FOLLOW) => {}
            _ = end.wait_for(Option::is_some), if !ended => {}
            () = tell.closed() => return,
        }
    }
}
