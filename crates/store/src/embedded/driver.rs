//! The thread that runs the core: the only place where it meets the clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::command::Response;
use super::config::{Beats, Timing};
use super::core::{Answer, Core, Effects, Happening, Input};
use super::keeper::{self, Task};
use super::membership::Membership;
use super::transport::{self, Roster};
use crate::{Error, Leadership, MemberId, Metrics, State};

/// What comes into the driver's inbox.
pub enum Event {
    /// From the connections.
    Peers(transport::Event),
    /// A caller asks for a change.
    Change(Bytes, oneshot::Sender<Result<Response, Error>>),
    /// A caller asks for a read.
    Read(oneshot::Sender<Result<(), Error>>),
    /// From the disk.
    Disk(Input),
    /// End, and say so when nothing depends on this member any more.
    Shutdown(oneshot::Sender<()>),
    /// End at once.
    Stop,
}

/// How long a member that shuts down waits for another one to lead: an election that it asks for takes some ten milliseconds.
const RESIGN: Duration = Duration::from_millis(500);
/// The most events that are handled before what follows from them is done: enough that a sync of the disk serves all who wait,
/// and few enough that heartbeats are sent between them.
const TURN: usize = 1024;

/// What the thread owns.
pub struct Driver {
    pub core: Core,
    pub name: String,
    pub timing: Timing,
    pub inbox: Receiver<Event>,
    pub keeper: Sender<Task>,
    pub roster: Arc<Roster>,
    pub members: watch::Sender<Arc<Membership>>,
    pub removed: watch::Sender<bool>,
    pub states: watch::Sender<Arc<State>>,
    pub leadership: watch::Sender<Leadership>,
    pub beats: Option<Beats>,
    pub metrics: Arc<Metrics>,
}

/// The callers who wait for an answer, by their tokens.
#[derive(Default)]
struct Callers {
    next: u64,
    /// Each with when it asked.
    changes: HashMap<u64, (oneshot::Sender<Result<Response, Error>>, Instant)>,
    reads: HashMap<u64, oneshot::Sender<Result<(), Error>>>,
}

impl Driver {
    /// Runs until an event asks it to end.
    pub fn run(mut self) {
        self.turns();
        // A caller that still looks must not take an ended member for the leader.
        self.leadership.send_modify(|leadership| (leadership.leader, leadership.is_me) = (None, false));
    }

    #[allow(clippy::disallowed_methods)] // The core gets its time from here.
    fn turns(&mut self) {
        let start = Instant::now();
        let mut callers = Callers::default();
        let mut next_tick = start + self.timing.tick;
        let mut leaving: Option<(oneshot::Sender<()>, Instant)> = None;
        let mut turn = Vec::new();
        loop {
            match self.inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(event) => turn.push(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            turn.extend(self.inbox.try_iter().take(TURN));
            for event in turn.drain(..) {
                match event {
                    Event::Stop => return,
                    Event::Shutdown(done) => {
                        self.core.handle(Input::Resign);
                        leaving = Some((done, Instant::now() + RESIGN));
                    }
                    event => self.take(event, &mut callers),
                }
            }
            let now = Instant::now();
            if now >= next_tick {
                next_tick = self.tick(now, next_tick, start);
            }
            let effects = self.core.effects();
            let removed = effects.removed;
            self.perform(effects, &mut callers);
            if removed {
                self.retire(callers);
                return;
            }
            if let Some((_, limit)) = &leaving
                && (!self.leadership.borrow().is_me || self.roster.is_empty() || now >= *limit)
                && let Some((done, _)) = leaving.take()
            {
                // Nobody waiting for the word is no reason to go on.
                let _ = done.send(());
                return;
            }
        }
    }

    /// Lets the ticks pass that are due, but never many at once: a process that was stopped for a while must
    /// not believe that it was silence it heard.
    fn tick(&mut self, now: Instant, due: Instant, start: Instant) -> Instant {
        let (tick, late) = (self.timing.tick, now - due);
        if late >= self.timing.election_min {
            tracing::warn!(
                late_ms = late.as_millis() as u64,
                "the store's thread was not running for a while"
            );
            self.core.handle(Input::WokeLate);
        }
        if let Some(heard) = self.leader_heard() {
            self.core.handle(Input::LeaderBeat(heard.saturating_duration_since(start)));
        }
        self.core.handle(Input::Tick(now - start));
        if late < tick {
            return due + tick;
        }
        self.core.handle(Input::Tick(now - start));
        if late < tick * 2 { due + tick * 2 } else { now + tick }
    }

    /// When the leader, if it is another member, was last heard by other means.
    fn leader_heard(&self) -> Option<Instant> {
        let (beats, leadership) = (self.beats.as_ref()?, self.leadership.borrow());
        let leader = leadership.leader.as_deref().filter(|_| !leadership.is_me)?;
        beats.last_heard(leader)
    }

    #[allow(clippy::disallowed_methods)] // How long a change takes begins here.
    fn take(&mut self, event: Event, callers: &mut Callers) {
        match event {
            Event::Peers(transport::Event::Message(message, image, permit)) => {
                if image.is_some() {
                    self.metrics.snapshots_received.increase();
                }
                self.core.handle(Input::Message(message, image));
                drop(permit);
            }
            Event::Peers(transport::Event::Unreachable(peer)) => self.core.handle(Input::Unreachable(peer)),
            Event::Peers(transport::Event::SnapshotSent(peer, sent)) => {
                if sent {
                    self.metrics.snapshots_sent.increase();
                }
                self.core.handle(Input::SnapshotSent(peer, sent));
            }
            Event::Peers(transport::Event::Removed) => self.core.handle(Input::Removed),
            Event::Change(command, answer) | Event::Peers(transport::Event::Joins(command, answer)) => {
                callers.next += 1;
                callers.changes.insert(callers.next, (answer, Instant::now()));
                self.core.handle(Input::Propose(callers.next, command));
            }
            Event::Read(answer) => {
                callers.next += 1;
                callers.reads.insert(callers.next, answer);
                self.core.handle(Input::Read(callers.next));
            }
            Event::Disk(input) => self.core.handle(input),
            Event::Shutdown(_) | Event::Stop => {}
        }
    }

    /// The cluster goes on without this member.
    fn retire(&self, callers: Callers) {
        tracing::error!("this member was removed from the cluster: it takes no part any more");
        self.removed.send_replace(true);
        // The keeper ends after this thread; a caller that does not wait any more needs no answer.
        let _ = self.keeper.send(Task::Retire);
        for (caller, _) in callers.changes.into_values() {
            let _ = caller.send(Err(Error::Removed));
        }
        for caller in callers.reads.into_values() {
            let _ = caller.send(Err(Error::Removed));
        }
    }

    fn perform(&mut self, effects: Effects, callers: &mut Callers) {
        if let Some(problem) = effects.fatal {
            keeper::fatal(&problem);
        }
        for outgoing in effects.messages {
            if let Some(outbox) = self.roster.outbox(MemberId(outgoing.message.to)) {
                outbox.push(outgoing);
            }
        }
        let tasks = [
            (!effects.persist.is_empty()).then_some(Task::Persist(effects.persist)),
            effects.save.map(Task::Save),
            effects.forget.map(Task::Forget),
        ];
        for task in tasks.into_iter().flatten() {
            // The keeper ends after this thread: it is there.
            let _ = self.keeper.send(task);
        }
        if let Some(state) = effects.state {
            self.states.send_replace(state);
        }
        if let Some(members) = effects.members {
            tracing::info!(members = %members, "the store's members");
            self.members.send_replace(members);
        }
        if let Some(leadership) = effects.leadership {
            let leader = leadership.leader.clone();
            let before = self.leadership.send_replace(leadership);
            if leader.is_some() && before.leader != leader {
                self.metrics.leader_changes.increase();
            }
        }
        for answer in effects.answers {
            // A caller that does not wait any more needs no answer.
            match answer {
                Answer::Change(token, result) => {
                    let Some((caller, asked)) = callers.changes.remove(&token) else { continue };
                    if result.is_ok() {
                        self.metrics.commit.observe(asked.elapsed());
                    }
                    let _ = caller.send(result);
                }
                Answer::Read(token, result) => {
                    callers.reads.remove(&token).map(|caller| caller.send(result));
                }
            }
        }
        for happening in effects.happenings {
            self.tell(&happening);
        }
    }

    fn tell(&self, happening: &Happening) {
        let subject = &*self.name;
        match happening {
            Happening::ElectionStarted(term) => {
                self.metrics.elections_started.increase();
                tracing::info!(target: "timeline", what = "election-started", subject, term);
            }
            Happening::ElectionWon(term) => {
                self.metrics.elections_won.increase();
                tracing::info!(target: "timeline", what = "election-won", subject, term);
            }
            Happening::CaughtUp(took) => {
                let took_ms = took.as_millis() as u64;
                tracing::info!(target: "timeline", what = "store-caught-up", subject, took_ms);
            }
        }
    }
}
