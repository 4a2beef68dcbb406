//! One member's share of the load.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::KeyRange;
use tokio::task::JoinSet;

use super::client::{Client, Seen, Source};
use super::histogram::Histogram;

/// How long a value is.
pub const VALUE_BYTES: usize = 1024;
/// Keys that writers change, each writer its own.
const KEYS_PER_WRITER: usize = 100;
/// Keys that are watched.
pub const WATCHED_KEYS: usize = 100;
/// After an error, the request is tried again so soon.
const RETRY: Duration = Duration::from_millis(5);

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Write a key of one's own.
    Put,
    /// Read a key that was filled, as new as any acknowledged write.
    Get,
    /// Read a key that was filled, as the member knows it.
    GetStale,
    /// Read that many keys that were filled.
    Range(usize),
    /// Write the watched keys while this many watchers of this member follow.
    Watch(usize),
}

/// What to do, for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Share {
    /// What clients do.
    pub work: Work,
    /// How many of them.
    pub clients: usize,
    /// The number of the first one, so that no two in the cluster are the same.
    pub first_client: usize,
    /// How many keys were filled.
    pub filled: usize,
    /// How long nothing is counted at first.
    pub warm_up: Duration,
    /// How long it is counted.
    pub counted: Duration,
    /// Whether requests may fail: they are sent again then.
    pub retry: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Yield {
    /// What was counted, with its time.
    pub histogram: Histogram,
    /// The longest time in which no request succeeded, in milliseconds.
    pub longest_stop_ms: f64,
}

/// The key of a number that [`fill`] wrote.
pub fn key(number: usize) -> Bytes {
    format!("/registry/bench/filled/{number:06}").into()
}

fn watched_key(number: usize) -> Bytes {
    format!("/registry/bench/watched/{:03}", number % WATCHED_KEYS).into()
}

/// A value that begins with the time. The rest is drawn from it: ours keeps values that are alike as what differs, and etcd's
/// would gain nothing by that.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn stamped_value() -> Bytes {
    let mut drawn = unix_nanoseconds();
    let mut value = Vec::with_capacity(VALUE_BYTES);
    while value.len() < VALUE_BYTES {
        value.extend_from_slice(&drawn.to_le_bytes());
        // Steele and Vigna, "Computationally easy, spectrally good multipliers": the multiplier of an LCG of 64 bits.
        drawn = drawn.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1).rotate_left(17);
    }
    value.truncate(VALUE_BYTES);
    value.into()
}

#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock, which all members share")]
fn unix_nanoseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

/// Writes the keys with the numbers of `from` and every third one after it, below `until`.
pub async fn fill(source: &Source, from: usize, until: usize, clients: usize) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for (n, client) in source.clients(clients).await?.into_iter().enumerate() {
        tasks.spawn(async move {
            for number in (from..until).step_by(3).skip(n).step_by(clients) {
                client.put(key(number), stamped_value()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// What all clients of this member share.
struct Window {
    begin: Instant,
    end: Instant,
    begin_unix: u64,
    end_unix: u64,
    /// The last success, and the longest time between two.
    flow: Mutex<(Instant, Duration)>,
}

impl Window {
    fn succeeded(&self, at: Instant) {
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, longest) = *flow;
        *flow = (last.max(at), longest.max(at.saturating_duration_since(last)));
    }
}

/// Does a share of the work.
#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub async fn run(source: &Source, share: &Share) -> anyhow::Result<Yield> {
    let clients = source.clients(share.clients).await?;
    if share.filled > 0 {
        // Once this is answered, the member knows all that was filled at the others.
        source.open().await?.get(key(0), false).await?;
    }
    let watched: Vec<Bytes> = match share.work {
        Work::Watch(watchers) => (0..watchers).map(watched_key).collect(),
        _ => Vec::new(),
    };
    // Watchers count by the clock that writers stamp their values with.
    let (warm_up, counted) = (share.warm_up, share.counted);
    let seen_by_all = Arc::new(Mutex::new((Histogram::default(), 0_u64, 0_u64)));
    let watching = {
        let all = seen_by_all.clone();
        source
            .watch(&watched, || {
                let all = all.clone();
                let seen: Box<dyn Seen> = Box::new(move |value: &[u8]| {
                    let now = unix_nanoseconds();
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    let written = value.first_chunk().map_or(now, |first| u64::from_le_bytes(*first));
                    let (histogram, begin, end) = &mut *all;
                    if (*begin..*end).contains(&now) {
                        histogram.record(now.saturating_sub(written));
                    }
                });
                seen
            })
            .await?
    };
    let start = Instant::now();
    let begin_unix = unix_nanoseconds() + warm_up.as_nanos() as u64;
    let window = Arc::new(Window {
        begin: start + warm_up,
        end: start + warm_up + counted,
        begin_unix,
        end_unix: begin_unix + counted.as_nanos() as u64,
        flow: Mutex::new((start, Duration::ZERO)),
    });
    {
        let mut all = seen_by_all.lock().unwrap_or_else(PoisonError::into_inner);
        (all.1, all.2) = (window.begin_unix, window.end_unix);
    }
    let mut tasks = JoinSet::new();
    for (n, client) in clients.into_iter().enumerate() {
        tasks.spawn(one_client(client, share.first_client + n, share.clone(), window.clone()));
    }
    let mut yielded = Yield::default();
    while let Some(ended) = tasks.join_next().await {
        yielded.histogram.merge(&ended??);
    }
    drop(watching);
    if matches!(share.work, Work::Watch(_)) {
        yielded.histogram = seen_by_all.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
    }
    window.succeeded(Instant::now().min(window.end));
    let flow = window.flow.lock().unwrap_or_else(PoisonError::into_inner);
    yielded.longest_stop_ms = flow.1.as_secs_f64() * 1e3;
    Ok(yielded)
}

#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
async fn one_client(
    client: Client,
    number: usize,
    share: Share,
    window: Arc<Window>,
) -> anyhow::Result<Histogram> {
    /// A call that never waits must leave the thread to others now and then.
    const TURN: u64 = 64;
    let mut histogram = Histogram::default();
    let mut out = Vec::new();
    // Each client its own sequence of keys; the factor is a prime, so that every key has its turn.
    let mut turn = number as u64 * 7919;
    loop {
        turn += 1;
        if turn.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        if begun >= window.end {
            return Ok(histogram);
        }
        while let Err(problem) = request(&client, number, turn, &share, &mut out).await {
            if !share.retry {
                return Err(problem);
            }
            tokio::time::sleep(RETRY).await;
            if Instant::now() >= window.end + Duration::from_secs(10) {
                return Err(problem.context("the request failed again and again"));
            }
        }
        let done = Instant::now();
        if share.retry {
            window.succeeded(done.min(window.end));
        }
        // Where a leader is lost, the longest request is asked for, even if it ends late.
        if done >= window.begin && (done < window.end || share.retry) {
            histogram.record((done - begun).as_nanos() as u64);
        }
    }
}

async fn request(
    client: &Client,
    number: usize,
    turn: u64,
    share: &Share,
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let filled = share.filled.max(1);
    let place = (turn as usize).wrapping_mul(7919) % filled;
    match share.work {
        Work::Put => {
            let key = format!("/registry/bench/put/{number:04}/{:03}", turn as usize % KEYS_PER_WRITER);
            client.put(key.into(), stamped_value()).await
        }
        Work::Get | Work::GetStale => {
            let value = client.get(key(place), share.work == Work::GetStale).await?;
            anyhow::ensure!(value.len() == VALUE_BYTES, "a value of {} bytes", value.len());
            Ok(())
        }
        Work::Range(count) => {
            let first = place % (filled + 1).saturating_sub(count).max(1);
            let range = KeyRange { start: key(first), end: Some(key(first + count)) };
            let found = client.range(&range, out).await.context("a range failed")?;
            anyhow::ensure!(found == count, "{found} keys instead of {count}");
            Ok(())
        }
        Work::Watch(_) => client.put(watched_key(turn as usize), stamped_value()).await,
    }
}
