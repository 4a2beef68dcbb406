//! Probes: asks in a steady beat, whether the earlier ones were answered or not.

use crate::instance::{Instance, Known, Signed};
use crate::{Ask, BoxFuture, Moment, clock::Clock};
use client::{Client, Content};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tasks::SpawnIn;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{debug_span, info_span};

/// How often a user asks: a fifth of the time after which a silent host is out, so that the gap is measured to that.
pub(crate) const EVERY: Duration = Duration::from_millis(50);
/// How long a user waits for an answer before it counts as none.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// One ask: no error is a good answer, of the instance that it says.
pub(crate) type AskFn = Arc<dyn Fn() -> BoxFuture<'static, Result<Option<Instance>, String>> + Send + Sync>;

/// Asks over a fresh connection; a code of 2xx is a good answer.
pub(crate) fn fresh(client: &Client, path: String) -> AskFn {
    let client = client.clone();
    Arc::new(move || {
        let (client, path) = (client.clone(), path.clone());
        Box::pin(async move {
            let answer = client.fresh(&path, TIMEOUT).await.map_err(|e| e.to_string())?;
            match answer.is_success() {
                true => Ok(Instance::read(&answer.body)),
                false => Err(format!("code {}", answer.code)),
            }
        })
    })
}

/// Changes an object over a fresh connection, each time to something else; a code of 2xx is a good answer.
pub(crate) fn write(client: &Client, path: String) -> AskFn {
    let (client, written) = (client.clone(), AtomicU64::new(0));
    Arc::new(move || {
        let (client, path) = (client.clone(), path.clone());
        let patch = json!({"data": {"written": written.fetch_add(1, Ordering::Relaxed).to_string()}});
        Box::pin(async move {
            let answer = client.fresh_patch(&path, Content::MergePatch, &patch, TIMEOUT).await;
            let answer = answer.map_err(|e| e.to_string())?;
            if answer.is_success() { Ok(None) } else { Err(format!("code {}", answer.code)) }
        })
    })
}

/// A series of asks under way. Dropping it ends it, with the asks that are out.
pub(crate) struct Series {
    recorded: Arc<Mutex<Recorded>>,
    clock: Clock,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Recorded {
    asks: Vec<Ask>,
    /// Of those with a good answer, the ones that say whose it was.
    signed: Vec<Signed>,
    known: Known,
    /// The asks that are out.
    pending: BTreeMap<u64, Moment>,
    /// Why asks failed, and how many did.
    reasons: BTreeMap<String, usize>,
    /// How many asks before one were not sent for want of time.
    unsent: Vec<(Moment, u64)>,
}

fn lock(recorded: &Mutex<Recorded>) -> MutexGuard<'_, Recorded> {
    recorded.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Series {
    pub(crate) fn start(clock: Clock, every: Duration, ask: AskFn) -> Self {
        let recorded = Arc::new(Mutex::new(Recorded::default()));
        let mut task = JoinSet::new();
        task.spawn_in(info_span!("probe"), beat(clock, every, ask, recorded.clone()));
        Series { recorded, clock, _task: task }
    }

    /// All asks that have ended, and the moment up to which every ask sent is among them.
    pub(crate) fn asks(&self) -> (Vec<Ask>, Moment) {
        let recorded = lock(&self.recorded);
        let seen_until = recorded.pending.values().min().copied().unwrap_or_else(|| self.clock.now());
        (recorded.asks.clone(), seen_until)
    }

    /// The good answers that say whose they are.
    pub(crate) fn signed(&self) -> Vec<Signed> {
        lock(&self.recorded).signed.clone()
    }

    /// How many asks were due after `since` that this machine was too busy to send.
    pub(crate) fn unsent(&self, since: Moment) -> u64 {
        lock(&self.recorded).unsent.iter().filter(|(at, _)| *at > since).map(|(_, count)| count).sum()
    }

    /// The first good answer to an ask sent after `since`.
    pub(crate) fn first_answer(&self, since: Moment) -> Option<Moment> {
        let recorded = lock(&self.recorded);
        recorded.asks.iter().filter(|a| a.ok && a.sent > since).map(|a| a.done).min()
    }

    /// The last this many asks were all answered well.
    pub(crate) fn is_well(&self, count: usize) -> bool {
        let recorded = lock(&self.recorded);
        recorded.asks.len() >= count && recorded.asks.iter().rev().take(count).all(|a| a.ok)
    }

    /// As many asks were made, and none was ever answered well.
    pub(crate) fn is_mute(&self, count: usize) -> bool {
        let recorded = lock(&self.recorded);
        recorded.asks.len() >= count && !recorded.asks.iter().any(|a| a.ok)
    }

    /// Why asks failed, the most frequent first.
    pub(crate) fn reasons(&self) -> Vec<(String, usize)> {
        let mut reasons: Vec<_> = lock(&self.recorded).reasons.clone().into_iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        reasons
    }
}

/// How many beats of a clock fall between two of them that are this far apart.
fn skipped(apart: Duration, every: Duration) -> u64 {
    let beats = (apart + every / 2).as_nanos() / every.as_nanos().max(1);
    u64::try_from(beats).unwrap_or(u64::MAX).saturating_sub(1)
}

async fn beat(clock: Clock, every: Duration, ask: AskFn, recorded: Arc<Mutex<Recorded>>) {
    let mut ticks = tokio::time::interval(every);
    // Asks that this machine had no time for would otherwise follow in a burst, which no user makes.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut out = JoinSet::new();
    let mut last = None;
    for id in 0.. {
        let due = ticks.tick().await;
        while out.try_join_next().is_some() {}
        let sent = clock.now();
        let unsent = last.replace(due).map_or(0, |last| skipped(due - last, every));
        {
            let mut recorded = lock(&recorded);
            recorded.pending.insert(id, sent);
            recorded.unsent.extend((unsent > 0).then_some((sent, unsent)));
        }
        let (answer, recorded) = (ask(), recorded.clone());
        out.spawn_in(debug_span!("ask"), async move {
            let answer = answer.await;
            let done = clock.now();
            let mut recorded = lock(&recorded);
            recorded.pending.remove(&id);
            recorded.asks.push(Ask { sent, done, ok: answer.is_ok() });
            match answer {
                Ok(by) => {
                    let by = by.and_then(|instance| recorded.known.one(instance));
                    recorded.signed.extend(by.map(|by| Signed { sent, done, by }));
                }
                Err(reason) => {
                    // Reasons are few; what a server makes up must not fill the memory.
                    let known = recorded.reasons.len() < 32 || recorded.reasons.contains_key(&reason);
                    *recorded.reasons.entry(if known { reason } else { "other".into() }).or_default() += 1;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_in_between_are_counted() {
        let ms = Duration::from_millis;
        for (apart, count) in [(50, 0), (51, 0), (74, 0), (100, 1), (149, 2), (5000, 99)] {
            assert_eq!(skipped(ms(apart), ms(50)), count, "{apart}");
        }
    }

    #[tokio::test]
    async fn what_a_busy_machine_does_not_send_is_counted() {
        let clock = Clock::start();
        let every = Duration::from_millis(10);
        let series = Series::start(clock, every, Arc::new(|| Box::pin(async { Ok(None) })));
        while !series.is_well(2) {
            tokio::task::yield_now().await;
        }
        // The one thread that there is has something else to do.
        let began = clock.now();
        while clock.now() < began + every * 20 {
            std::hint::spin_loop();
        }
        while !series.is_well(1) || series.unsent(began) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(series.unsent(began) >= 15, "{}", series.unsent(began));
        assert_eq!(series.unsent(clock.now()), 0);
    }
}
