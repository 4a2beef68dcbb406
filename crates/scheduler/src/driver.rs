//! Runs the scheduler while this member leads: reacts to a waiting pod, or to room for one, at once. While another
//! member leads it only follows, so that a takeover decodes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use objects::{ObjectRef, Occurrence, Pod, Pool, Recorder, Reporter, Uid, Write, Writer};
use store::{Duty, State, Store};
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::debug_span;

use crate::metrics::{Attempt, Metrics, Pending};
use crate::room::Room;
use crate::tell;
use crate::unschedulable::{Preemption, Unschedulable};
use crate::volume_wait::wait_for_volumes;
use crate::waiting::{Decision, Silence, Waiting};

pub(crate) const USER: &str = "system:kube-scheduler";
/// The pause before a bind that failed is tried again, as client-go's first; it doubles with every further one, until it is
/// longer than the store takes to elect a leader.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Binds, preemptions and reports on their way at the same time. At 10,000 pods a second, each of which waits some 20 ms for its commit on
/// a busy machine, about 200 are.
const WRITES: usize = 256;
/// After this many decisions without a pause, the state is looked at again and other tasks get their turn: half of the writes,
/// so that the next ones are decided while these are on their way.
const TURN: usize = 128;

/// What the scheduler needs.
#[derive(Clone)]
pub struct Options {
    /// The state, and who leads.
    pub store: Arc<dyn Store>,
    /// How changes are made.
    pub writer: Arc<dyn Writer>,
    /// Which hosts are silent, and when each was last heard.
    pub silence: watch::Receiver<Silence>,
    /// The pods, as the controllers have them too.
    pub pods: Pool<Pod>,
    /// Where it counts what it does.
    pub metrics: Arc<Metrics>,
}

/// Runs the scheduler whenever this member leads, until the store ends.
pub async fn run(options: Options) {
    let mut duty = Scheduler { waiting: Waiting::load(options.store.snapshot(), &options.pods), options };
    let store = duty.options.store.clone();
    store::keep_ready(&*store, &mut duty).await;
}

struct Scheduler {
    options: Options,
    waiting: Waiting,
}

impl Duty for Scheduler {
    fn follow(&mut self, state: Arc<State>) {
        self.options.metrics.waiting(Pending::default());
        self.waiting.advance(state);
    }

    async fn lead(&mut self) {
        let mut states = self.options.store.states();
        let mut silence = self.options.silence.clone();
        // What was on its way when this member last led is known by now, or never happened.
        self.waiting.forget_all();
        let mut work = Work::new(&self.options, &mut self.waiting);
        let mut deaf = false;
        loop {
            let state = states.borrow_and_update().clone();
            work.waiting.advance(state);
            work.retry();
            let silent = silence.borrow_and_update().clone();
            let goes_on = work.decide(&silent);
            work.metrics.waiting(work.waiting.pending());
            if goes_on {
                tokio::task::yield_now().await;
                continue;
            }
            work.rebalance();
            let times = [work.waiting.next_time(), work.waiting.next_rebalance()];
            let next =
                work.retries.keys().next().copied().into_iter().chain(times.into_iter().flatten()).min();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = silence.changed(), if !deaf => deaf = changed.is_err(),
                Some(Ok(ended)) = work.binding.join_next() => work.bound(ended),
                Some(_) = work.telling.join_next() => {}
                () = sleep_until(next) => {}
            }
        }
    }
}

// The driver is where the clocks are read.
#[allow(clippy::disallowed_methods)]
pub(crate) fn clocks() -> (Instant, Timestamp) {
    (Instant::now(), Timestamp::now())
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

struct Work<'a> {
    store: Arc<dyn Store>,
    writer: Arc<dyn Writer>,
    waiting: &'a mut Waiting,
    metrics: Arc<Metrics>,
    binding: JoinSet<Ended>,
    telling: JoinSet<()>,
    failures: HashMap<Uid, u32>,
    retries: BTreeMap<Instant, Vec<Uid>>,
    recorder: Recorder,
}

/// What was written for a pod came to an end.
struct Ended {
    uid: Uid,
    end: End,
    decided: Instant,
}

enum End {
    /// It is bound.
    Placed,
    /// Others are on their way out for it.
    Preempted,
    /// Neither, as far as is known.
    Failed,
}

impl<'a> Work<'a> {
    fn new(options: &Options, waiting: &'a mut Waiting) -> Self {
        let from = Reporter { component: "default-scheduler".to_owned(), host: None };
        Work {
            store: options.store.clone(),
            writer: options.writer.clone(),
            metrics: options.metrics.clone(),
            waiting,
            binding: JoinSet::new(),
            telling: JoinSet::new(),
            failures: HashMap::new(),
            retries: BTreeMap::new(),
            recorder: Recorder::start(options.writer.clone(), USER.to_owned(), from),
        }
    }

    /// Decides on what waits, as far as there is room to write. True if it stopped only to let others have a turn.
    fn decide(&mut self, silence: &Silence) -> bool {
        while self.telling.try_join_next().is_some() {}
        while let Some(Ok(ended)) = self.binding.try_join_next() {
            self.bound(ended);
        }
        let room = WRITES.saturating_sub(self.binding.len() + self.telling.len());
        let now = clocks().0;
        let decisions = self.waiting.decide(silence, room.min(TURN), now);
        // Decided together, and each as long as the others.
        let each = clocks().0.duration_since(now).checked_div(decisions.len() as u32).unwrap_or_default();
        for Decision { pod, place, before, preempts } in decisions {
            match place {
                Ok(node) => self.bind(pod, node, before, now),
                Err(why) => {
                    self.metrics.attempted(Attempt::Unschedulable, each);
                    if preempts {
                        self.preempt(pod, why, now);
                    } else {
                        self.tell(&pod, &why);
                    }
                }
            }
        }
        self.waiting.is_ready() && room > TURN
    }

    fn bind(&mut self, pod: Arc<Pod>, node: String, before: Option<Vec<Write>>, decided: Instant) {
        let (store, writer, recorder) = (self.store.clone(), self.writer.clone(), self.recorder.clone());
        self.binding.spawn_in(debug_span!("bind", node), async move {
            let (object, uid) = (ObjectRef::of(&*pod), Uid::of(&*pod).unwrap_or_default());
            if let Some(writes) = before
                && let Err(status) = wait_for_volumes(&*store, &*writer, &pod, &node, writes).await
            {
                tracing::debug!(code = status.code, pod = %object, node, "without its volumes: {status}");
                return Ended { uid, end: End::Failed, decided };
            }
            let write = Write::Bind { pod: object.clone(), uid: uid.clone(), node: node.clone() };
            match writer.write(USER, write).await {
                Ok(_) => {
                    tracing::info!(target: "timeline", what = "pod-placed", subject = %object, host = node);
                    let told = format!("Successfully assigned {object} to {node}");
                    recorder.record(Occurrence::of(pod.as_ref(), false, "Scheduled", told));
                    Ended { uid, end: End::Placed, decided }
                }
                Err(status) => {
                    tracing::debug!(code = status.code, pod = %object, node, "not placed: {status}");
                    Ended { uid, end: End::Failed, decided }
                }
            }
        });
    }

    /// Has a pod evicted that crowds with others of its workload, if one is due and its budget lets it go.
    fn rebalance(&mut self) {
        let Some(pod) = self.waiting.rebalance(clocks().0) else { return };
        let (writer, recorder) = (self.writer.clone(), self.recorder.clone());
        self.telling.spawn_in(debug_span!("rebalance"), async move {
            let object = ObjectRef::of(&*pod);
            let evict = Write::Evict { pod: object.clone(), uid: Uid::of(&*pod).unwrap_or_default() };
            match writer.write(USER, evict).await {
                Ok(_) => {
                    let told = "Evicted: a host came back, and too many replicas are on this one".to_owned();
                    recorder.record(Occurrence::of(pod.as_ref(), false, "Rebalanced", told));
                }
                Err(status) => tracing::debug!(code = status.code, pod = %object, "it stays: {status}"),
            }
        });
    }

    /// What was written for a pod ended. What failed is tried again after a pause; until then the pod counts as placed,
    /// since a bind without an answer may have happened.
    fn bound(&mut self, Ended { uid, end, decided }: Ended) {
        let took = clocks().0.duration_since(decided);
        match end {
            End::Placed => {
                self.metrics.attempted(Attempt::Scheduled, took);
                self.failures.remove(&uid);
                return;
            }
            End::Preempted => {
                self.failures.remove(&uid);
                self.waiting.forget(&uid);
                return;
            }
            End::Failed => self.metrics.attempted(Attempt::Error, took),
        }
        let failures = self.failures.entry(uid.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(10)).min(LONGEST_PAUSE);
        *failures += 1;
        self.retries.entry(clocks().0 + pause).or_default().push(uid);
    }

    fn retry(&mut self) {
        let now = clocks().0;
        // What is due at this very moment stays on this side.
        let later = self.retries.split_off(&(now + Duration::from_nanos(1)));
        let due = std::mem::replace(&mut self.retries, later);
        for uid in due.values().flatten() {
            self.waiting.forget(uid);
        }
        // Pods that were deleted meanwhile have left theirs.
        if self.failures.len() > self.waiting.len() + 64 {
            self.failures.clear();
        }
    }

    /// Says on the pod, and in an Event, why it has no place; once for each reason.
    fn tell(&mut self, pod: &Arc<Pod>, why: &Unschedulable) {
        let Some(write) = tell::no_place(pod, why, self.waiting.state(), clocks().1) else { return };
        self.recorder.record(Occurrence::of(pod.as_ref(), true, "FailedScheduling", why.to_string()));
        let writer = self.writer.clone();
        self.telling.spawn_in(debug_span!("unschedulable"), async move {
            if let Err(status) = writer.write(USER, write).await {
                tracing::debug!(code = status.code, "a pod's condition was not written: {status}");
            }
        });
    }

    /// Makes room for a pod: others go for it. Until they are on their way out it isn't looked at again.
    fn preempt(&mut self, pod: Arc<Pod>, why: Arc<Unschedulable>, decided: Instant) {
        let Preemption::Possible(victims) = &why.preemption else { return };
        self.metrics.preempted(victims.pods.len());
        self.recorder.record(Occurrence::of(pod.as_ref(), true, "FailedScheduling", why.to_string()));
        let span = debug_span!("preempt", node = victims.node);
        let room =
            Room { writer: self.writer.clone(), store: self.store.clone(), recorder: self.recorder.clone() };
        self.binding.spawn_in(span, async move {
            let uid = Uid::of(&*pod).unwrap_or_default();
            let ended = match room.make(&pod, &why).await {
                Ok(()) => End::Preempted,
                Err(status) => {
                    tracing::debug!(code = status.code, "no room was made for a pod: {status}");
                    End::Failed
                }
            };
            Ended { uid, end: ended, decided }
        });
    }
}
