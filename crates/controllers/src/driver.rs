//! Runs the controllers while this member leads: follows the state, reconciles what was touched, carries
//! the writes out. No polling: it sleeps until something changes or is due. While another member leads it only
//! follows, so that a takeover decodes nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use machinery::Status;
use objects::{AddressPool, Asker, Occurrence, Pod, Pool, Question, Recorder, Reporter, Write, Writer};
use pki::Authority;
use store::{Duty, State, Store};
use tasks::SpawnIn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::debug_span;

use crate::autoscaler::Answers;
use crate::controller::{Ended, Moment, Now, Part, Silence};
use crate::key::Key;
use crate::node;
use crate::node::lease::{self, Renewal};
use crate::notes::Notes;
use crate::plan::{Action, Note, with_reason};
use crate::queue::{Load, Outcome, Queue};
use crate::view::View;

const USER: &str = "system:kube-controller-manager";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The most writes of one key that are carried out at the same time: enough to fill one group of the store's commits, of which
/// others' writes get the rest.
const TOGETHER: usize = 64;
/// How many of them may begin before one has succeeded, so that a quota that refuses all of them refuses few. Upstream begins
/// with one and doubles (`SlowStartInitialBatchSize`): eight save it three waits for the disk.
const FIRST: usize = 8;
/// How many questions of one key are asked at the same time: an autoscaler may have thousands of metrics.
const QUESTIONS: usize = 16;
/// After this many decisions without a pause, other tasks of the thread get their turn. A decision takes some ten
/// microseconds, so what has arrived meanwhile waits for a few milliseconds.
const TURN: usize = 256;

/// What the controllers need.
#[derive(Clone)]
pub struct Options {
    /// Which controllers run.
    pub part: Part,
    /// The state, and who leads.
    pub store: Arc<dyn Store>,
    /// How changes are made.
    pub writer: Arc<dyn Writer>,
    /// Whom to ask for what isn't in the state.
    pub asker: Arc<dyn Asker>,
    /// Which hosts are silent, and when each was last heard.
    pub silence: watch::Receiver<Silence>,
    /// Whose leases are over for sure, as the members of today count.
    pub ended: watch::Receiver<Arc<Ended>>,
    /// A host that was silent for this long is not ready; [`GRACE`](crate::GRACE) by default.
    pub grace: Duration,
    /// A host that nobody can hear any more holds no lease after so long; [`FENCED_AFTER`](crate::FENCED_AFTER) by default.
    pub fenced_after: Duration,
    /// The port on which every host's API listens.
    pub api_port: u16,
    /// The addresses that Services of type LoadBalancer get.
    pub addresses: AddressPool,
    /// The pods, as the scheduler has them too.
    pub pods: Pool<Pod>,
    /// The certificate of the cluster's authority (PEM), by which pods believe the API.
    pub root_certificate: Arc<str>,
    /// The authority that signs what certificates are asked for; without it, nobody here signs them.
    pub signer: Option<Arc<Authority>>,
    /// Where is shown how much there is to do, by urgency, while this member leads.
    pub load: watch::Sender<Vec<Load>>,
}

/// Runs the controllers whenever this member leads, until the store ends.
pub async fn run(options: Options) {
    let mut duty = Controllers { view: options.view(options.store.snapshot()), options };
    let store = duty.options.store.clone();
    store::keep_ready(&*store, &mut duty).await;
}

impl Options {
    fn view(&self, state: Arc<State>) -> View {
        let view = View::load_part(state, &self.pods, self.part);
        let view = view.publishing(self.root_certificate.clone());
        let view = view.signing(self.signer.clone()).configured(self.grace, self.fenced_after, self.api_port);
        view.lending(self.addresses.clone())
    }
}

struct Controllers {
    options: Options,
    view: View,
}

impl Duty for Controllers {
    fn follow(&mut self, state: Arc<State>) {
        self.options.load.send_if_modified(|load| !std::mem::take(load).is_empty());
        if !self.view.advance(state.clone(), |_, _| {}) {
            self.view = self.options.view(state);
        }
    }

    async fn lead(&mut self) {
        let mut states = self.options.store.states();
        let (mut silence, mut ended) = (self.options.silence.clone(), self.options.ended.clone());
        // And then everything is looked at: what changed while another member led made nothing due here.
        self.follow(states.borrow_and_update().clone());
        let mut work = Work::new(&self.options, &mut self.view, silence.borrow_and_update().clone());
        work.ended = ended.borrow_and_update().clone();
        work.resync();
        loop {
            let state = states.borrow_and_update().clone();
            work.advance(state);
            let goes_on = work.decide();
            self.options.load.send_replace(work.queue.load());
            if goes_on {
                tokio::task::yield_now().await;
                continue;
            }
            let next = work.queue.next_time();
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = silence.changed(), if !work.deaf => match changed {
                    Ok(()) => work.hear(silence.borrow_and_update().clone()),
                    Err(_) => work.deaf = true,
                },
                // Who counts may be gone before this is.
                Ok(()) = ended.changed() => work.count(ended.borrow_and_update().clone()),
                Some(Ok((key, outcome))) = work.writing.join_next() => {
                    work.queue.end(key, outcome, clocks().instant);
                }
                Some(Ok((key, answers))) = work.asking.join_next() => {
                    work.answers.insert(key.clone(), answers);
                    work.queue.add(key, clocks().instant);
                }
                () = sleep_until(next) => {}
            }
        }
    }
}

// The driver is where the clocks are read.
#[allow(clippy::disallowed_methods)]
fn clocks() -> Now {
    Now { wall: Timestamp::now(), instant: Instant::now() }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

struct Work<'a> {
    options: &'a Options,
    view: &'a mut View,
    /// Since when each silent host has given no sign of life: not by a heartbeat, nor by its agent's writes.
    silence: Silence,
    /// When the leases of nodes that send no heartbeats were last seen to be renewed.
    leases: Silence,
    /// Whose leases are over.
    ended: Arc<Ended>,
    deaf: bool,
    queue: Queue<Key>,
    writing: JoinSet<(Key, Outcome)>,
    asking: JoinSet<(Key, Answers)>,
    /// What was answered and has not been read.
    answers: HashMap<Key, Answers>,
    notes: HashMap<Key, Notes>,
    recorders: HashMap<&'static str, Recorder>,
}

impl<'a> Work<'a> {
    fn new(options: &'a Options, view: &'a mut View, silence: Silence) -> Self {
        Work {
            options,
            view,
            silence,
            leases: Silence::new(),
            ended: Arc::default(),
            deaf: false,
            queue: Queue::default(),
            writing: JoinSet::new(),
            asking: JoinSet::new(),
            answers: HashMap::new(),
            notes: HashMap::new(),
            recorders: HashMap::new(),
        }
    }

    fn resync(&mut self) {
        let now = clocks().instant;
        let queue = &mut self.queue;
        // What was renewed before is not known: those that are to be heard have their whole time from now on.
        self.leases = lease::all(self.view).map(|name| (name.to_owned(), now)).collect();
        Key::all(self.view, |key, wait| enqueue(queue, key, now, wait));
    }

    /// Takes a newer state in; everything that it touches becomes due.
    fn advance(&mut self, state: Arc<State>) {
        let now = clocks().instant;
        let (queue, silence, leases) = (&mut self.queue, &mut self.silence, &mut self.leases);
        let followed = self.view.advance(state.clone(), |view, change| {
            if let Some(name) = change.of().and_then(node::agent_spoke) {
                let signs = [silence.get_mut(name), leases.get_mut(name)];
                signs.into_iter().flatten().for_each(|since| *since = now);
            }
            match lease::renewal(view, change) {
                Some(Renewal::Gone(name)) => drop(leases.remove(name)),
                Some(Renewal::Renewed(name)) => match leases.get_mut(name) {
                    Some(since) => *since = now,
                    None => {
                        leases.insert(name.to_owned(), now);
                        heard(name, view.part(), queue, now);
                    }
                },
                None => {}
            }
            Key::touched(view, change, |key, wait| enqueue(queue, key, now, wait));
        });
        if !followed {
            *self.view = self.options.view(state);
            self.resync();
        }
    }

    fn hear(&mut self, mut silence: Silence) {
        let now = clocks().instant;
        for (host, since) in &mut silence {
            // An agent may have written after its host's last heartbeat: that sign of life still counts.
            *since = self.silence.get(host).map_or(*since, |known| *known.max(since));
        }
        for host in self.silence.keys().chain(silence.keys()) {
            if self.silence.get(host) != silence.get(host) {
                heard(host, self.view.part(), &mut self.queue, now);
            }
        }
        self.silence = silence;
    }

    fn count(&mut self, ended: Arc<Ended>) {
        let now = clocks().instant;
        for (host, end) in ended.iter().filter(|(host, end)| self.ended.get(*host) != Some(*end)) {
            tracing::debug!(host, end.epoch, end.is_back, "a host's lease is over");
            heard(host, self.view.part(), &mut self.queue, now);
        }
        self.ended = ended;
    }

    /// Decides on everything that is due, as far as there is room to write. True if it stopped only to
    /// let others have a turn.
    fn decide(&mut self) -> bool {
        for _ in 0..TURN {
            let now = clocks();
            let Some(key) = self.queue.pop(now.instant) else { return false };
            let (answers, notes) = (self.answers.remove(&key), self.notes.get(&key));
            let (silence, leases, ended) = (&self.silence, &self.leases, &*self.ended);
            let moment = Moment { now, silence, leases, ended, answers: answers.as_ref(), notes };
            let mut plan = key.reconcile(self.view, &moment);
            match plan.notes.take() {
                Some(Notes::Nothing) => drop(self.notes.remove(&key)),
                Some(notes) => drop(self.notes.insert(key.clone(), notes)),
                None => {}
            }
            if !plan.ask.is_empty() {
                self.ask(key.clone(), std::mem::take(&mut plan.ask));
            }
            for occurrence in plan.told.drain(..) {
                self.recorder(key.component()).record(occurrence);
            }
            if !plan.pause.is_zero() {
                self.queue.rest(key.clone(), now.instant + plan.pause);
            }
            if let Some(wait) = plan.again_in {
                self.queue.add_at(key.clone(), now.instant + wait);
            }
            if plan.actions.is_empty() {
                self.queue.quiet(&key);
                continue;
            }
            let recorder = self.recorder(key.component());
            self.queue.begin(key.clone());
            let writer = self.options.writer.clone();
            self.writing.spawn_in(
                debug_span!("write", controller = key.component(), key = key.name()),
                async move {
                    let outcome = carry_out_all(&*writer, &recorder, plan.actions).await;
                    (key, outcome)
                },
            );
        }
        true
    }

    /// Asks the API for a key, each question for a while.
    fn ask(&mut self, key: Key, questions: Vec<Question>) {
        let asker = self.options.asker.clone();
        let span = debug_span!("ask", controller = key.component(), key = key.name());
        self.asking.spawn_in(span, async move {
            let account = key.account();
            let one = async |question: Question| {
                let answer = tokio::time::timeout(ANSWER, asker.ask(&account, &question)).await;
                let answer =
                    answer.unwrap_or_else(|_| Err(Status::unavailable("no answer in time".to_owned())));
                (question, answer.map_err(|status| status.message))
            };
            // Together: what hangs holds up few other answers.
            let answers = futures::stream::iter(questions).map(one).buffered(QUESTIONS);
            let answers: Answers = answers.collect().await;
            (key, answers)
        });
    }

    fn recorder(&mut self, component: &'static str) -> Recorder {
        let start = || {
            let from = Reporter { component: component.to_owned(), host: None };
            Recorder::start(self.options.writer.clone(), USER.to_owned(), from)
        };
        self.recorders.entry(component).or_insert_with(start).clone()
    }
}

/// A host fell silent or is heard again, or its lease is over.
fn heard(host: &str, part: Part, queue: &mut Queue<Key>, now: Instant) {
    Key::heard(host, |key, wait| {
        if key.is_of(part) {
            enqueue(queue, key, now, wait);
        }
    });
}

fn enqueue(queue: &mut Queue<Key>, key: Key, now: Instant, wait: std::time::Duration) {
    if wait.is_zero() { queue.add(key, now) } else { queue.add_at(key, now + wait) }
}

fn worse(a: Outcome, b: Outcome) -> Outcome {
    match (a, b) {
        (Outcome::Done, other) | (other, Outcome::Done) => other,
        (Outcome::Failed, _) | (_, Outcome::Failed) => Outcome::Failed,
        _ => Outcome::Refused,
    }
}

/// Carries the writes of a plan out; the worst of their ends. Eight of them begin together, and one more for each that
/// has succeeded. Once a create was refused no further one begins: what refuses one pod of a set refuses the others
/// too, and nobody needs five hundred reports of it.
async fn carry_out_all(writer: &dyn Writer, recorder: &Recorder, actions: Vec<Action>) -> Outcome {
    let mut waiting = VecDeque::from(actions);
    let mut writing = FuturesUnordered::new();
    let (mut outcome, mut otherwise, mut succeeded) = (Outcome::Done, None, 0);
    loop {
        while writing.len() < TOGETHER.min(FIRST + succeeded)
            && let Some(action) = waiting.pop_front()
        {
            let is_create = is_create(&action);
            let write = carry_out(writer, recorder, action);
            writing.push(async move { (is_create, write.await) });
        }
        let Some((was_create, (ended, other))) = writing.next().await else { break };
        match ended {
            Outcome::Done => succeeded += 1,
            Outcome::Refused if was_create => waiting.retain(|action| !is_create(action)),
            Outcome::Refused | Outcome::Failed => {}
        }
        outcome = worse(outcome, ended);
        otherwise = otherwise.or(other);
    }
    if let Some(write) = otherwise
        && let Err(status) = writer.write(USER, write).await
    {
        tracing::debug!(code = status.code, reason = status.reason, "{status}");
    }
    outcome
}

fn is_create(action: &Action) -> bool {
    matches!(action.write, Write::Create(_))
}

/// How a write ended, and what to write because it was refused.
async fn carry_out(writer: &dyn Writer, recorder: &Recorder, action: Action) -> (Outcome, Option<Write>) {
    let is_create = is_create(&action);
    match writer.write(USER, action.write).await {
        Ok(object) => {
            for note in action.done {
                tell(recorder, note, object.name());
            }
            (Outcome::Done, None)
        }
        // It is gone: what was to be done to it needs no doing any more.
        Err(status) if status.code == 404 && !is_create => (Outcome::Done, None),
        Err(status) => {
            tracing::debug!(code = status.code, reason = status.reason, "{status}");
            let outcome = outcome(&status);
            if outcome != Outcome::Refused {
                return (outcome, None);
            }
            match action.refused {
                Some(occurrence) => record(recorder, occurrence, &status.message),
                // No Event tells it, and it is tried again for as long as it is refused.
                None => tracing::warn!(reason = status.reason, "refused to the controllers: {status}"),
            }
            (outcome, action.otherwise.map(|write| with_reason(write, &status.message)))
        }
    }
}

fn outcome(status: &Status) -> Outcome {
    match status.code {
        // 409: the view was behind. By the next look it has what somebody else wrote.
        408 | 409 | 410 | 429 | 500.. => Outcome::Failed,
        _ => Outcome::Refused,
    }
}

fn tell(recorder: &Recorder, note: Note, name: &str) {
    match note {
        Note::Timeline { what, subject, pod } => {
            let subject = subject.replace("{}", name);
            match pod {
                Some(pod) => tracing::info!(target: "timeline", what, subject, pod),
                None => tracing::info!(target: "timeline", what, subject),
            }
        }
        Note::Event(occurrence) => record(recorder, occurrence, name),
    }
}

fn record(recorder: &Recorder, mut occurrence: Occurrence, text: &str) {
    occurrence.message = occurrence.message.replace("{}", text);
    recorder.record(occurrence);
}
