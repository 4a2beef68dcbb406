//! What a host that is cut off from the others still does: asked itself, at its own address, while the others go on.
//!
//! An object's resource version tells how old an answer is. A counter would not: a change that was given up may still come after the next one.

use crate::probe::TIMEOUT;
use client::{Answer, Client, Content};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tasks::SpawnIn;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::info_span;

/// How long lies between two asks of a kind, unless the last one takes longer.
const EVERY: Duration = Duration::from_millis(50);

/// The asks of a host that is cut off. Dropping it ends them.
pub(crate) struct Minority {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    /// The newest revision whose change the majority has acknowledged.
    acknowledged: u64,
    /// Answers of the minority that were older than that when they were asked for.
    stale: usize,
    /// Changes that the minority acknowledged.
    taken: usize,
}

impl Seen {
    fn written(&mut self, revision: u64) {
        self.acknowledged = self.acknowledged.max(revision);
    }

    /// Counts an answer to a question that was sent when this revision was the newest acknowledged.
    fn answered(&mut self, revision: u64, acknowledged: u64) {
        self.stale += usize::from(revision < acknowledged);
    }

    fn stale(&self) -> Result<usize, String> {
        match self.acknowledged {
            0 => Err("no change was acknowledged meanwhile, so no answer could be stale".to_owned()),
            _ => Ok(self.stale),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Minority {
    /// Begins to ask the host `alone`: to read what is changed through `others` at `read` all the time, and to change what only it is asked
    /// to change, at `own`.
    pub(crate) fn ask(others: &Client, alone: &Client, read: &str, own: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::<()>::new();
        let (client, path, found) = (others.clone(), read.to_owned(), seen.clone());
        tasks.spawn_in(info_span!("majority_writes"), async move {
            let mut ticks = ticks();
            for number in 0_u64.. {
                ticks.tick().await;
                if let Some(revision) = change(&client, &path, number).await.as_ref().and_then(revision) {
                    lock(&found).written(revision);
                }
            }
        });
        let (client, path, found) = (alone.clone(), read.to_owned(), seen.clone());
        tasks.spawn_in(info_span!("minority_reads"), async move {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                let acknowledged = lock(&found).acknowledged;
                let answer = client.fresh(&path, TIMEOUT).await.ok();
                if let Some(revision) = answer.as_ref().and_then(revision) {
                    lock(&found).answered(revision, acknowledged);
                }
            }
        });
        let (client, path, found) = (alone.clone(), own.to_owned(), seen.clone());
        tasks.spawn_in(info_span!("minority_writes"), async move {
            let mut ticks = ticks();
            for number in 0_u64.. {
                ticks.tick().await;
                let is_taken = change(&client, &path, number).await.is_some_and(|answer| answer.is_success());
                lock(&found).taken += usize::from(is_taken);
            }
        });
        Minority { seen, _tasks: tasks }
    }

    /// Ends the asks. Returns how many answers were stale, or why that isn't known, and how many changes the host took.
    pub(crate) fn end(self) -> (Result<usize, String>, usize) {
        let seen = lock(&self.seen);
        (seen.stale(), seen.taken)
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

async fn change(client: &Client, path: &str, number: u64) -> Option<Answer> {
    let patch = json!({"data": {"written": number.to_string()}});
    client.fresh_patch(path, Content::MergePatch, &patch, TIMEOUT).await.ok()
}

/// The revision of the object in a good answer.
fn revision(answer: &Answer) -> Option<u64> {
    let object: Value = answer.is_success().then(|| serde_json::from_slice(&answer.body).ok())??;
    object.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_before_the_question_makes_an_answer_stale() {
        let mut seen = Seen::default();
        assert!(seen.stale().is_err(), "nothing has changed");
        seen.written(7);
        let asked = seen.acknowledged;
        seen.written(9);
        seen.written(8);
        assert_eq!(seen.acknowledged, 9);
        seen.answered(7, asked);
        seen.answered(9, asked);
        assert_eq!(seen.stale(), Ok(0));
        seen.answered(8, seen.acknowledged);
        assert_eq!(seen.stale(), Ok(1));
    }
}
