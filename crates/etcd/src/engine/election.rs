//! Who leads: the host whose candidate's key is the oldest, as in etcd's own recipe for elections, for as long
//! as it knows by its own clock that nobody else can.
//!
//! A leader's word to etcd is a keep-alive and a linearizable read of its own key. When both were answered, then
//! at some moment after they were sent the lease was fresh at the one member that may end it: it can't run out
//! before its time to live has passed since then. A leader stops some time before that, by its own clock, and
//! never begins again with the same lease: it becomes a candidate anew, behind the others.

use std::time::Duration;

use store::{Leadership, LeaseId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::keys::Keys;
use super::mirror::Candidate;
use crate::proto::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest};
use crate::{Client, Code, Status};

/// The time to live that is asked for, in seconds. etcd makes it as long as one and a half of its election
/// timeouts at least: two seconds with its defaults.
const TTL: i64 = 1;
/// Between two words to etcd.
const BEAT: Duration = Duration::from_millis(250);
/// How long the first word may take; each that fails doubles it, so that a slow etcd is not deserted for ever.
const FIRST_PATIENCE: Duration = Duration::from_millis(500);
/// Where the doubling ends: with a longer one, an etcd that is well again would wait for its host.
const LAST_PATIENCE: Duration = Duration::from_secs(4);
/// The pause after a refused word; members of etcd refuse at once while they elect a leader of their own.
const RETRY: Duration = Duration::from_millis(50);

/// Follows leadership for one host, and wants it.
pub struct Election {
    pub voice: Voice,
    pub name: String,
    pub head: watch::Receiver<Option<Candidate>>,
    pub leadership: watch::Sender<Leadership>,
    /// Set when this host gives leadership up for good.
    pub leave: watch::Receiver<bool>,
}

/// How a host speaks to etcd about its candidacy.
#[derive(Clone)]
pub struct Voice {
    pub client: Client,
    pub keys: Keys,
}

/// A lease with its end, as this host knows it.
struct Held {
    lease: LeaseId,
    /// How long a word to etcd is good for.
    good_for: Duration,
    until: Instant,
}

/// How a candidacy ended.
enum End {
    /// The lease may have run out.
    Lapsed,
    Leave,
}

impl Election {
    /// Stands until it is asked to leave; then nobody waits for this host's lease to run out.
    pub async fn run(mut self) {
        let mut patience = FIRST_PATIENCE;
        loop {
            self.show(None);
            let mut leave = self.leave.clone();
            let held = tokio::select! {
                biased;
                () = told(&mut leave) => return,
                held = self.stand(patience) => held,
            };
            let held = match held {
                Ok(held) => held,
                Err(status) => {
                    tracing::debug!(%status, "can't stand for election");
                    patience = (patience * 2).min(LAST_PATIENCE);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            patience = FIRST_PATIENCE;
            let lease = held.lease;
            let end = self.hold(held).await;
            self.show(None);
            // The next leader need not wait for the lease's end. Where etcd can't be asked, it ends by itself.
            let revoked = self.voice.client.lease_revoke(LeaseRevokeRequest { id: lease.0 });
            let _ = tokio::time::timeout(FIRST_PATIENCE, revoked).await;
            if matches!(end, End::Leave) {
                return;
            }
        }
    }

    /// Takes a lease and becomes a candidate.
    async fn stand(&self, patience: Duration) -> Result<Held, Status> {
        let sent = now();
        let Voice { client, keys } = &self.voice;
        let stand = async {
            let granted = client.lease_grant(LeaseGrantRequest { ttl: TTL, id: 0 }).await?;
            let put = PutRequest {
                key: keys.candidate(LeaseId(granted.id)),
                value: self.name.clone().into(),
                lease: granted.id,
                ..PutRequest::default()
            };
            client.put(put).await?;
            // A tenth is left for clocks that don't run alike, and for what stops with leadership to stop.
            let good_for = Duration::from_secs(granted.ttl.max(1).unsigned_abs()) * 9 / 10;
            Ok(Held { lease: LeaseId(granted.id), good_for, until: sent + good_for })
        };
        self.voice.in_time(patience, stand).await
    }

    /// Keeps the lease alive, and says who leads meanwhile.
    async fn hold(&mut self, mut held: Held) -> End {
        let voice = self.voice.clone();
        let mut patience = FIRST_PATIENCE;
        let mut next = Box::pin(voice.word(held.lease, BEAT, patience));
        loop {
            self.show(Some(&held));
            let mut leave = self.leave.clone();
            tokio::select! {
                // In this order: a word that comes together with the lease's end must not prolong it.
                biased;
                () = told(&mut leave) => return End::Leave,
                () = tokio::time::sleep_until(held.until) => return End::Lapsed,
                changed = self.head.changed() => if changed.is_err() { return End::Leave },
                (sent, word) = &mut next => {
                    let pause = match word {
                        // What comes after the end comes too late: somebody else may lead.
                        _ if now() >= held.until => return End::Lapsed,
                        Ok(true) => {
                            held.until = sent + held.good_for;
                            patience = FIRST_PATIENCE;
                            BEAT
                        }
                        Ok(false) => return End::Lapsed,
                        Err(status) => {
                            tracing::debug!(%status, "etcd didn't hear that this host is alive");
                            patience = (patience * 2).min(LAST_PATIENCE);
                            RETRY
                        }
                    };
                    next = Box::pin(voice.word(held.lease, pause, patience));
                }
            }
        }
    }

    /// Shows who leads: this host only while it surely does, nobody while etcd isn't heard.
    fn show(&mut self, held: Option<&Held>) {
        let head = self.head.borrow_and_update().clone();
        let shown = match (held, head) {
            (Some(held), Some(head)) if now() < held.until => {
                Leadership { is_me: head.lease == held.lease, leader: Some(head.name), term: head.since.0 }
            }
            (_, head) => Leadership { leader: None, term: head.map_or(0, |head| head.since.0), is_me: false },
        };
        self.leadership.send_if_modified(|known| {
            let changed = *known != shown;
            if shown.is_me && !known.is_me {
                let (subject, term) = (&self.name, shown.term);
                tracing::info!(target: "timeline", what = "election-won", subject, term);
            }
            if changed {
                *known = shown;
            }
            changed
        });
    }
}

impl Voice {
    /// Says after a pause that this host is alive; the answer is when it was said, and whether it is a candidate
    /// still.
    async fn word(
        &self,
        lease: LeaseId,
        pause: Duration,
        patience: Duration,
    ) -> (Instant, Result<bool, Status>) {
        tokio::time::sleep(pause).await;
        let sent = now();
        let key = self.keys.candidate(lease);
        let question = RangeRequest { key, count_only: true, ..RangeRequest::default() };
        let said = async {
            let (kept, found) =
                tokio::try_join!(self.client.lease_keep_alive(lease.0), self.client.range(question))?;
            Ok(kept.ttl > 0 && found.count > 0)
        };
        (sent, self.in_time(patience, said).await)
    }

    /// What etcd doesn't do in time, or refuses, another of its members may do.
    async fn in_time<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let connection = self.client.connected().await?;
        let late = |_| Status::new(Code::DeadlineExceeded, "etcd takes too long");
        let done = tokio::time::timeout(patience, work).await.map_err(late).flatten();
        if done.is_err() {
            self.client.leave(connection).await;
        }
        done
    }
}

/// Waits for the word to leave, or until nobody is left to give it.
async fn told(leave: &mut watch::Receiver<bool>) {
    let _ = leave.wait_for(|leave| *leave).await;
}

#[allow(clippy::disallowed_methods, reason = "the driver of leadership: here it gets its time")]
fn now() -> Instant {
    Instant::now()
}
