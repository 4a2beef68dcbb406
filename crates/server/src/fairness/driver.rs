//! Requests at the gate: they run, wait for their turn, or are refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::Status;
use http::{HeaderValue, Response};
use store::State;
use tokio::sync::oneshot;

use super::classes::{self, Classes, Schema};
use super::gate::{Gate, Refusal, Seat, Started, Verdict};
use super::metrics::Counts;
use super::queues::Ticket;
use crate::authorize::Wanted;
use crate::clock;
use crate::followed::Followed;
use crate::http::{Body, Identity, response};

/// The longest that a request waits for a seat, and the part of its time that it waits at most (as upstream).
const LONGEST_WAIT: Duration = Duration::from_secs(15);
const PART_OF_TIME: u32 = 4;
/// When a client that was refused may come again, in seconds.
const AGAIN_IN: u32 = 1;

/// Classes requests and lets them in.
pub(crate) struct Fairness {
    classes: Followed<Classes>,
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) gate: Gate,
    pub(super) counts: Counts,
    waiting: HashMap<Ticket, oneshot::Sender<Seat>>,
}

/// What class a request is of.
pub(crate) struct Class {
    schema: Arc<str>,
    level: Arc<str>,
    flow: u64,
    exempt: bool,
    uids: [HeaderValue; 2],
}

impl Class {
    /// Whether its requests run at once, always.
    pub(crate) fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// Tells the client the class (upstream's headers).
    pub(crate) fn mark(&self, response: &mut Response<Body>) {
        let names = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];
        for (name, uid) in names.into_iter().zip(&self.uids) {
            response.headers_mut().insert(name, uid.clone());
        }
    }
}

/// Seats that a request holds; dropping this gives them back.
pub(crate) struct Admitted {
    fairness: Arc<Fairness>,
    seat: Seat,
    level: Arc<str>,
    schema: Arc<str>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut inner = self.fairness.lock();
        inner.counts.of(&self.level, &self.schema).running -= 1;
        inner.give_back(&self.seat);
    }
}

/// A request in a queue; dropping this takes it out.
struct InQueue<'a> {
    fairness: &'a Arc<Fairness>,
    class: &'a Class,
    ticket: Ticket,
    since: Instant,
    turn: oneshot::Receiver<Seat>,
    /// How it ended, if not by its turn.
    refusal: Refusal,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        let now = clock::instant();
        let mut inner = self.fairness.lock();
        if inner.waiting.remove(&self.ticket).is_none() {
            // Its turn came; a seat that it didn't take is given back.
            if let Ok(seat) = self.turn.try_recv() {
                inner.counts.of(&self.class.level, &self.class.schema).waiting -= 1;
                inner.give_back(&seat);
            }
            return;
        }
        let counts = inner.counts.of(&self.class.level, &self.class.schema);
        counts.waiting -= 1;
        counts.refused(self.refusal);
        counts.waited(now.saturating_duration_since(self.since), false);
        let started = inner.gate.give_up(self.ticket, now).unwrap_or_default();
        inner.hand_out(started);
    }
}

impl Inner {
    fn give_back(&mut self, seat: &Seat) {
        let started = self.gate.end(seat, clock::instant());
        self.hand_out(started);
    }

    /// Tells those whose turn it is.
    fn hand_out(&mut self, started: Started) {
        for (ticket, seat) in started {
            if let Some(turn) = self.waiting.remove(&ticket) {
                // A request that goes away meanwhile still has its end of the channel and gives the seat back there.
                let _ = turn.send(seat);
            }
        }
    }
}

impl Fairness {
    /// A gate with this number of seats, for the classes of a state.
    pub(crate) fn new(seats: u32, state: &State) -> Arc<Self> {
        let classes = Followed::new(classes::PREFIX, Classes::of, state);
        let gate = Gate::new(seats, &classes.get(state, |_| {}).levels);
        Arc::new(Fairness {
            classes,
            inner: Mutex::new(Inner { gate, counts: Counts::default(), waiting: HashMap::new() }),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The class of what somebody wants, by the schemas in `state`.
    pub(crate) fn class(&self, state: &State, who: &Identity, wanted: &Wanted<'_>) -> Class {
        let classes = self.classes.get(state, |classes| {
            let mut inner = self.lock();
            let started = inner.gate.reconfigure(&classes.levels, clock::instant());
            inner.hand_out(started);
        });
        let (schema, flow): (&Schema, u64) = classes.class(who, wanted);
        let level = &classes.levels[schema.level];
        Class {
            schema: schema.name.clone(),
            level: level.name.clone(),
            flow,
            exempt: level.exempt,
            uids: [schema.uid.clone(), level.uid.clone()],
        }
    }

    /// Lets in a request that needs this many seats and may last for `time`: at once, or when its turn comes.
    ///
    /// # Errors
    /// 429 where too many wait already, or its turn didn't come in time.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        class: &Class,
        seats: u32,
        time: Duration,
    ) -> Result<Admitted, Status> {
        let admitted = |seat| {
            let (level, schema) = (class.level.clone(), class.schema.clone());
            Admitted { fairness: self.clone(), seat, level, schema }
        };
        let now = clock::instant();
        let mut queued = {
            let mut inner = self.lock();
            let verdict = inner.gate.arrive(&class.level, class.flow, seats, now);
            let counts = inner.counts.of(&class.level, &class.schema);
            match verdict {
                Verdict::Runs(seat) => {
                    counts.started(Duration::ZERO);
                    return Ok(admitted(seat));
                }
                Verdict::Refused(refusal) => {
                    counts.refused(refusal);
                    return Err(too_many(class, refusal));
                }
                Verdict::Waits(ticket) => {
                    counts.waiting += 1;
                    let (sender, turn) = oneshot::channel();
                    inner.waiting.insert(ticket, sender);
                    let refusal = Refusal::Cancelled;
                    InQueue { fairness: self, class, ticket, since: now, turn, refusal }
                }
            }
        };
        let patience = (time / PART_OF_TIME).min(LONGEST_WAIT);
        if let Ok(Ok(seat)) = tokio::time::timeout(patience, &mut queued.turn).await {
            let waited = clock::instant().saturating_duration_since(now);
            let mut inner = self.lock();
            let counts = inner.counts.of(&class.level, &class.schema);
            counts.waiting -= 1;
            counts.started(waited);
            drop(inner);
            return Ok(admitted(seat));
        }
        queued.refusal = Refusal::TimeOut;
        Err(too_many(class, Refusal::TimeOut))
    }
}

/// 429: come again later.
fn too_many(class: &Class, refusal: Refusal) -> Status {
    let message = format!(
        "Too many requests, please try again later: those of priority level {:?} ({})",
        class.level,
        refusal.name()
    );
    response::too_many(message, AGAIN_IN)
}
