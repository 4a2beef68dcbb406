//! Names that are not the cluster's: asked of others' servers, once however many ask, and remembered.

mod exchange;
mod servers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug_span;

use crate::cache::{Cache, Known, Question};
use crate::message::Reply;
use crate::metrics::Metrics;
use exchange::Failure;
pub(crate) use exchange::answer_in;
use servers::Servers;

/// How long one server has to answer, the first time that it is asked and the second time. Who answers at all mostly does so in
/// a tenth of this.
const PATIENCE: [Duration; 2] = [Duration::from_millis(750), Duration::from_millis(1500)];
/// After this nobody waits any more: callers ask again after 5 s (resolv.conf(5), `timeout`).
const ALL: Duration = Duration::from_secs(4);
/// A caller waits this long for a new answer if there is a stale one (RFC 8767, section 5).
const FOR_STALE: Duration = Duration::from_millis(1800);
/// How many questions are asked at once; each has an open file.
const MOST: usize = 512;

/// Asks others.
#[derive(Debug)]
pub(crate) struct Upstream {
    servers: Mutex<Servers>,
    cache: Mutex<Cache>,
    /// The questions that are being asked: who comes later waits for the same answer.
    asking: Mutex<HashMap<Question, watch::Receiver<Option<Landed>>>>,
    metrics: Arc<Metrics>,
}

/// How asking ended: with an answer, or nobody has one.
type Landed = Option<Arc<Reply>>;

impl Upstream {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Upstream { servers: Mutex::default(), cache: Mutex::default(), asking: Mutex::default(), metrics }
    }

    /// From now on these servers are asked.
    pub fn set(&self, servers: &[SocketAddr]) {
        lock(&self.servers).set(servers);
    }

    /// How many answers are kept.
    pub fn kept(&self) -> usize {
        lock(&self.cache).len()
    }

    /// The answer to a question, from memory or from others; SERVFAIL if nobody has one.
    pub async fn answer(self: &Arc<Self>, question: Question) -> Reply {
        let known = lock(&self.cache).get(&question, now());
        match known {
            Known::Fresh(reply) => {
                self.metrics.hit(reply.code);
                reply
            }
            Known::Stale(reply, false) => {
                self.metrics.stale();
                reply
            }
            Known::Stale(reply, true) => {
                let landed = timeout(FOR_STALE, self.ask(question)).await;
                match landed.ok().flatten() {
                    Some(new) => (*new).clone(),
                    None => {
                        self.metrics.stale();
                        reply
                    }
                }
            }
            Known::Nothing => {
                self.metrics.missed();
                let landed = self.ask(question).await;
                landed.map_or_else(|| Reply::of(ResponseCode::ServFail), |reply| (*reply).clone())
            }
        }
    }

    /// Asks, or waits with those who ask already. The question is asked to its end also when nobody waits any more.
    async fn ask(self: &Arc<Self>, question: Question) -> Landed {
        let mut landing = {
            let mut asking = lock(&self.asking);
            match asking.get(&question) {
                Some(landing) => landing.clone(),
                None if asking.len() >= MOST => {
                    tracing::debug!("too many questions to others at once: one more is refused");
                    return None;
                }
                None => {
                    let (sender, landing) = watch::channel(None);
                    asking.insert(question.clone(), landing.clone());
                    let this = self.clone();
                    let span = debug_span!("ask others", name = %question.name, kind = %question.kind);
                    tasks::spawn(span, async move {
                        let landed = this.ask_servers(&question).await;
                        lock(&this.asking).remove(&question);
                        sender.send_replace(Some(landed));
                    });
                    landing
                }
            }
        };
        // Without an end the task was cut off, with the program.
        landing.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone().flatten())
    }

    async fn ask_servers(&self, question: &Question) -> Landed {
        let asked = timeout(ALL, self.ask_in_turn(question)).await.ok().flatten();
        let mut cache = lock(&self.cache);
        match asked {
            Some((reply, size)) => {
                cache.put(question.clone(), &reply, size, now());
                Some(Arc::new(reply))
            }
            None => {
                cache.failed(question.clone(), now());
                None
            }
        }
    }

    /// Asks one server after the other, and those that were silent once more: a datagram may have been lost.
    async fn ask_in_turn(&self, question: &Question) -> Option<(Reply, usize)> {
        let mut left = lock(&self.servers).order(now());
        for patience in PATIENCE {
            for server in std::mem::take(&mut left) {
                let began = now();
                let answer = exchange::ask(server, question, patience).await;
                self.metrics.asked(now().saturating_duration_since(began), answer.is_ok());
                let error = match answer {
                    Ok(answer) => {
                        lock(&self.servers).answered(server);
                        return Some(answer);
                    }
                    Err(error) => error,
                };
                tracing::debug!(%server, %error, "a server has no answer");
                match error {
                    // It is there: it only can't answer this.
                    Failure::Refused(_) | Failure::Nonsense => lock(&self.servers).answered(server),
                    Failure::Silent | Failure::Io(_) => {
                        lock(&self.servers).failed(server, now());
                        left.push(server);
                    }
                }
            }
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(clippy::disallowed_methods, reason = "a driver: the clock of the cache and the servers")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
