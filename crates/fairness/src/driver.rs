//! Requests at the gate: they run, wait for their turn, or are refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use objects::Followed;
use store::State;
use tokio::sync::oneshot;

use crate::Request;
use crate::classes::{self, Classes, FlowSchema};
use crate::gate::{Arrival, Gate, Refusal, Seat, Started};
use crate::metrics::Counts;
use crate::queues::Ticket;

/// The longest that a request waits for a seat, and the part of its time that it waits at most (as upstream).
const LONGEST_WAIT: Duration = Duration::from_secs(15);
const PART_OF_TIME: u32 = 4;

/// The clock that requests are timed by: that of the runtime, by which they also wait.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// A request that isn't let in: too many wait already, or its turn didn't come in time.
#[derive(Debug, thiserror::Error)]
#[error("those of priority level {level:?} ({})", why.name())]
pub struct Refused {
    level: Arc<str>,
    why: Refusal,
}

/// Classes requests and lets them in.
///
/// `classes` calls back under its own lock, and the answer to that locks `inner`: so nobody may ask `classes` while
/// `inner` is locked.
pub struct Fairness {
    now: Clock,
    classes: Followed<Classes>,
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) gate: Gate,
    pub(crate) counts: Counts,
    waiting: HashMap<Ticket, oneshot::Sender<Seat>>,
}

/// What class a request is of.
pub struct Class {
    schema: Arc<str>,
    level: Arc<str>,
    flow: u64,
    exempt: bool,
    uids: [Arc<str>; 2],
}

impl Class {
    /// Whether its requests run at once, always.
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// The uid of its FlowSchema.
    pub fn schema_uid(&self) -> &str {
        &self.uids[0]
    }

    /// The uid of its PriorityLevelConfiguration.
    pub fn level_uid(&self) -> &str {
        &self.uids[1]
    }

    fn refused(&self, why: Refusal) -> Refused {
        Refused { level: self.level.clone(), why }
    }
}

/// Seats that a request holds; dropping this gives them back.
pub struct Admitted {
    fairness: Arc<Fairness>,
    seat: Seat,
    level: Arc<str>,
    schema: Arc<str>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut inner = self.fairness.lock();
        inner.counts.of(&self.level, &self.schema).running -= 1;
        inner.give_back(&self.seat, self.fairness.now());
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
        let now = self.fairness.now();
        let mut inner = self.fairness.lock();
        if inner.waiting.remove(&self.ticket).is_none() {
            // Its turn came; a seat that it didn't take is given back.
            if let Ok(seat) = self.turn.try_recv() {
                inner.counts.of(&self.class.level, &self.class.schema).waiting -= 1;
                inner.give_back(&seat, now);
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
    fn give_back(&mut self, seat: &Seat, now: Instant) {
        let started = self.gate.end(seat, now);
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
    pub fn new(seats: u32, state: &State, now: Clock) -> Arc<Self> {
        let classes = Followed::new(classes::PREFIX, Classes::of, state);
        let gate = Gate::new(seats, &classes.get(state, |_| {}).levels);
        Arc::new(Fairness {
            now,
            classes,
            inner: Mutex::new(Inner { gate, counts: Counts::default(), waiting: HashMap::new() }),
        })
    }

    fn now(&self) -> Instant {
        (self.now)()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The class of a request, by the schemas in `state`.
    pub fn class(&self, state: &State, request: &Request<'_>) -> Class {
        let classes = self.classes.get(state, |classes| {
            let mut inner = self.lock();
            let started = inner.gate.reconfigure(&classes.levels, self.now());
            inner.hand_out(started);
        });
        let (schema, flow): (&FlowSchema, u64) = classes.class(request);
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
    /// Where too many wait already, or its turn didn't come in time.
    pub async fn admit(
        self: &Arc<Self>,
        class: &Class,
        seats: u32,
        time: Duration,
    ) -> Result<Admitted, Refused> {
        let admitted = |seat| {
            let (level, schema) = (class.level.clone(), class.schema.clone());
            Admitted { fairness: self.clone(), seat, level, schema }
        };
        let now = self.now();
        let mut queued = {
            let mut inner = self.lock();
            let verdict = inner.gate.arrive(&class.level, class.flow, seats, now);
            let counts = inner.counts.of(&class.level, &class.schema);
            match verdict {
                Arrival::Runs(seat) => {
                    counts.started(Duration::ZERO);
                    return Ok(admitted(seat));
                }
                Arrival::Refused(refusal) => {
                    counts.refused(refusal);
                    return Err(class.refused(refusal));
                }
                Arrival::Waits(ticket) => {
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
            let waited = self.now().saturating_duration_since(now);
            let mut inner = self.lock();
            let counts = inner.counts.of(&class.level, &class.schema);
            counts.waiting -= 1;
            counts.started(waited);
            // `queued` is dropped on the way out, and locks it once more.
            drop(inner);
            return Ok(admitted(seat));
        }
        queued.refusal = Refusal::TimeOut;
        Err(class.refused(Refusal::TimeOut))
    }
}
