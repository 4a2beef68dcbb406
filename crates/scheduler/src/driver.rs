//! Runs the scheduler while this member leads: reacts to a waiting pod, or to room for one, at once. While another
//! member leads it only follows, so that a takeover decodes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use machinery::Status;
use objects::{ObjectRef, Occurrence, Pod, Pool, Recorder, Reporter, Uid, Write, Writer};
use store::{Duty, State, Store};
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::debug_span;

use crate::metrics::{Attempt, Metrics, Pending};
use crate::profile::{self, Profiles};
use crate::room::Room;
use crate::tell;
use crate::unschedulable::{Preemption, Unschedulable};
use crate::volume_wait::{self, Asked};
use crate::waiting::{Decision, Silence, Waiting};

pub(crate) const USER: &str = "system:kube-scheduler";
/// The pause before a bind that failed is tried again, as client-go's first; it doubles with every further one, until it is
/// longer than the store takes to elect a leader.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Binds, preemptions and reports on their way at the same time. At 10,000 pods a second, each of which waits some 20 ms for its commit on
/// a busy machine, about 200 are. Pods that wait for their volumes are not among them: that takes as long as somebody else takes
/// to make them, and nobody's bind is to wait for it.
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
    /// Whose pods are placed, and how.
    pub profiles: Profiles,
    /// Where it counts what it does.
    pub metrics: Arc<Metrics>,
}

/// Runs the scheduler whenever this member leads, until the store ends.
pub async fn run(options: Options) {
    let mut duty = Scheduler { waiting: options.waiting(), options };
    let store = duty.options.store.clone();
    store::keep_ready(&*store, &mut duty).await;
}

impl Options {
    fn waiting(&self) -> Waiting {
        Waiting::under(self.profiles.clone(), self.store.snapshot(), &self.pods)
    }
}

struct Scheduler {
    options: Options,
    waiting: Waiting,
}

impl Duty for Scheduler {
    fn follow(&mut self, state: Arc<State>) {
        self.options.metrics.waiting(Pending::default());
        self.waiting.advance(state);
        self.waiting.stand_by(clocks().0);
    }

    async fn lead(&mut self) {
        let mut states = self.options.store.states();
        let mut silence = self.options.silence.clone();
        // What was on its way when this member last led is known by now, or never happened.
        self.waiting.take_over(&silence.borrow().clone(), clocks().0);
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
            // Where nothing more can be written, the end of a write is what it waits for: the other times may have passed.
            let next_time = if work.room() > 0 { work.waiting.next_time() } else { None };
            let times = [next_time, work.waiting.next_rebalance()];
            let next =
                work.retries.keys().next().copied().into_iter().chain(times.into_iter().flatten()).min();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = silence.changed(), if !deaf => deaf = changed.is_err(),
                Some(Ok(ended)) = work.binding.join_next() => work.ended(ended),
                Some(Ok(ended)) = work.volumes.join_next() => work.ended(ended),
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
    /// Writes for pods, as many as there is room for.
    binding: JoinSet<Ended>,
    /// Pods whose volumes are being made, as many as there are.
    volumes: JoinSet<Ended>,
    telling: JoinSet<()>,
    failures: HashMap<Uid, u32>,
    retries: BTreeMap<Instant, Vec<Uid>>,
    /// By the name that it has in Events.
    recorders: HashMap<String, Recorder>,
}

/// What was done for a pod came to an end.
struct Ended {
    pod: Arc<Pod>,
    end: End,
    decided: Instant,
}

enum End {
    /// Its volumes on this node are asked for.
    Asked(String, Asked),
    /// It has its volumes on this node.
    Provided(String),
    /// It is bound.
    Placed,
    /// Others are on their way out for it.
    Preempted,
    /// Nobody goes for it, as far as is known.
    Stayed,
    /// It is not bound, as far as is known.
    Failed,
}

impl<'a> Work<'a> {
    fn new(options: &Options, waiting: &'a mut Waiting) -> Self {
        Work {
            store: options.store.clone(),
            writer: options.writer.clone(),
            metrics: options.metrics.clone(),
            waiting,
            binding: JoinSet::new(),
            volumes: JoinSet::new(),
            telling: JoinSet::new(),
            failures: HashMap::new(),
            retries: BTreeMap::new(),
            recorders: HashMap::new(),
        }
    }

    /// Decides on what waits, as far as there is room to write. True if it stopped only to let others have a turn.
    fn decide(&mut self, silence: &Silence) -> bool {
        while self.telling.try_join_next().is_some() {}
        while let Some(Ok(ended)) = self.volumes.try_join_next() {
            self.ended(ended);
        }
        while let Some(Ok(ended)) = self.binding.try_join_next() {
            self.ended(ended);
        }
        let room = self.room();
        let now = clocks().0;
        let decisions = self.waiting.decide(silence, room.min(TURN), now);
        // Decided together, and each as long as the others.
        let each = clocks().0.duration_since(now).checked_div(decisions.len() as u32).unwrap_or_default();
        for Decision { pod, place, before, preempts } in decisions {
            match place {
                Ok(node) => match before {
                    Some(writes) => self.ask_for_volumes(pod, node, writes, now),
                    None => self.bind(pod, node, now),
                },
                Err(why) => {
                    self.metrics.attempted(Attempt::Unschedulable, each);
                    self.give_back(before.unwrap_or_default());
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

    /// What records Events about a pod, in the name of its profile.
    fn recorder(&mut self, pod: &Pod) -> Recorder {
        let name = profile::name_of(pod);
        if let Some(recorder) = self.recorders.get(name) {
            return recorder.clone();
        }
        let from = Reporter { component: name.to_owned(), host: None };
        let recorder = Recorder::start(self.writer.clone(), USER.to_owned(), from);
        self.recorders.insert(name.to_owned(), recorder.clone());
        recorder
    }

    /// How many writes may begin.
    fn room(&self) -> usize {
        WRITES.saturating_sub(self.binding.len() + self.telling.len())
    }

    fn ask_for_volumes(&mut self, pod: Arc<Pod>, node: String, writes: Vec<Write>, decided: Instant) {
        let writer = self.writer.clone();
        self.binding.spawn_in(debug_span!("ask for volumes", node), async move {
            let end = match volume_wait::ask(&*writer, writes).await {
                Ok(asked) => End::Asked(node, asked),
                Err(status) => without_volumes(&pod, &node, &status),
            };
            Ended { pod, end, decided }
        });
    }

    fn wait_for_volumes(&mut self, pod: Arc<Pod>, node: String, asked: Asked, decided: Instant) {
        let store = self.store.clone();
        self.volumes.spawn_in(debug_span!("wait for volumes", node), async move {
            let end = match volume_wait::wait(&*store, &pod, &node, asked).await {
                Ok(()) => End::Provided(node),
                Err(status) => without_volumes(&pod, &node, &status),
            };
            Ended { pod, end, decided }
        });
    }

    fn bind(&mut self, pod: Arc<Pod>, node: String, decided: Instant) {
        let (writer, recorder) = (self.writer.clone(), self.recorder(&pod));
        self.binding.spawn_in(debug_span!("bind", node), async move {
            let (object, uid) = (ObjectRef::of(&*pod), Uid::of(&*pod).unwrap_or_default());
            let write = Write::Bind { pod: object.clone(), uid, node: node.clone() };
            let end = match writer.write(USER, write).await {
                Ok(_) => {
                    tracing::info!(target: "timeline", what = "pod-placed", subject = %object, host = node);
                    let told = format!("Successfully assigned {object} to {node}");
                    recorder.record(Occurrence::of(pod.as_ref(), false, "Scheduled", told));
                    End::Placed
                }
                Err(status) => {
                    tracing::debug!(code = status.code, pod = %object, node, "not placed: {status}");
                    End::Failed
                }
            };
            Ended { pod, end, decided }
        });
    }

    /// Gives devices back that a pod without a place can't use where they are.
    fn give_back(&mut self, writes: Vec<Write>) {
        for write in writes {
            let writer = self.writer.clone();
            self.telling.spawn_in(debug_span!("give devices back"), async move {
                if let Err(status) = writer.write(USER, write).await {
                    tracing::debug!(code = status.code, "a claim keeps its devices: {status}");
                }
            });
        }
    }

    /// Has a pod evicted that crowds with others of its workload, if one is due and its budget lets it go.
    fn rebalance(&mut self) {
        let Some(pod) = self.waiting.rebalance(clocks().0) else { return };
        let (writer, recorder) = (self.writer.clone(), self.recorder(&pod));
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

    /// What was done for a pod ended, and the next step begins. What failed is tried again after a pause; until then the pod counts
    /// as placed, since a bind without an answer may have happened.
    fn ended(&mut self, Ended { pod, end, decided }: Ended) {
        let took = clocks().0.duration_since(decided);
        let uid = Uid::of(&*pod).unwrap_or_default();
        match end {
            End::Asked(node, asked) => return self.wait_for_volumes(pod, node, asked, decided),
            End::Provided(node) => return self.bind(pod, node, decided),
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
            // The attempt was counted when no place was found.
            End::Stayed => {}
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
        let told = Occurrence::of(pod.as_ref(), true, "FailedScheduling", why.to_string());
        self.recorder(pod).record(told);
        let writer = self.writer.clone();
        self.telling.spawn_in(debug_span!("unschedulable"), async move {
            if let Err(status) = writer.write(USER, write).await {
                tracing::debug!(code = status.code, "a pod's condition was not written: {status}");
            }
        });
    }

    /// Makes room for a pod: others go for it. Until they are on their way out it isn't looked at again.
    fn preempt(&mut self, pod: Arc<Pod>, why: Arc<Unschedulable>, decided: Instant) {
        let Preemption::Possible(victims) = why.preemption.clone() else { return };
        self.metrics.preempted(victims.pods.len());
        let recorder = self.recorder(&pod);
        recorder.record(Occurrence::of(pod.as_ref(), true, "FailedScheduling", why.to_string()));
        let span = debug_span!("preempt", node = victims.node);
        let room = Room { writer: self.writer.clone(), store: self.store.clone(), recorder };
        self.binding.spawn_in(span, async move {
            let end = match room.make(&pod, &why, &victims).await {
                Ok(()) => End::Preempted,
                Err(status) => {
                    tracing::debug!(code = status.code, "no room was made for a pod: {status}");
                    End::Stayed
                }
            };
            Ended { pod, end, decided }
        });
    }
}

fn without_volumes(pod: &Pod, node: &str, status: &Status) -> End {
    let pod = ObjectRef::of(pod);
    tracing::debug!(code = status.code, %pod, node, "without its volumes: {status}");
    End::Failed
}
