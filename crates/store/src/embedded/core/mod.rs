//! The consensus core without I/O: inputs (time, messages, requests, "that is on the disk now") change it,
//! and [`Core::effects`] says what is to be done in the world. No clock, thread, socket, file or hidden
//! randomness in here, so that a simulation with a seed drives the very code that runs on a host.

mod duties;
mod effects;
mod inbound;
mod members;
mod reads;
mod requests;
mod role;
mod storage;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{Entry, Message, MessageType};
use raft::{ProgressState, RawNode, StateRole};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::image::Image;
use super::log::{Persist, Recovered};
use super::machine::Machine;
use super::sessions::Novelty;
use crate::{Error, MemberId, State};
use duties::Duties;
pub use effects::{Answer, Effects, Happening, Input, Outgoing, Settings};
use members::Changes;
pub use reads::Reader;
use reads::Reads;
use requests::Requests;
use role::Role;
use storage::MemoryLog;

/// What a follower still lacks stays in the log for it up to this many times what stays in any case: under load, a
/// moment is many entries, and a whole snapshot in their place would put the follower back further.
const MOST_BEHIND: u64 = 4;

/// A step of Raft that is on its way to the disk.
struct Persisting {
    number: u64,
    needs_disk: bool,
    since: Duration,
    changes_vote: bool,
    /// The index of its first entry, if it has one.
    first: Option<u64>,
    /// Which other member's disk was the first to have that entry, and how long it took.
    taken: Option<(Duration, MemberId)>,
    /// May leave once it is there.
    messages: Vec<Message>,
    /// Takes the machine's place once it is there.
    image: Option<Image>,
}

/// One member's share of the consensus.
pub struct Core {
    settings: Settings,
    node: RawNode<MemoryLog>,
    machine: Machine,
    /// Index and term of the last entry applied.
    applied: (u64, u64),
    rng: StdRng,
    now: Duration,
    role: Role,
    requests: Requests,
    reads: Reads,
    duties: Duties,
    changes: Changes,
    persisting: VecDeque<Persisting>,
    /// Entries to carry out, with the number of the step that brought them.
    committed: VecDeque<(u64, Vec<Entry>)>,
    vote: (u64, u64),
    /// Snapshots that came with messages, until Raft says whether it takes them.
    received: HashMap<(u64, u64), Image>,
    /// Whether a snapshot is being written, and how many bytes of entries were applied since the last one.
    saving: bool,
    since_image: u64,
    /// Until when the answer of a peer that was sent a snapshot is waited for.
    sending: BTreeMap<MemberId, Duration>,
    /// Whether the disk takes changes; if not, the error for callers.
    space: Result<(), Error>,
    state_changed: bool,
    out: Effects,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raft = &self.node.raft;
        let progress = raft.prs().iter().map(|(id, p)| (*id, p.state, p.matched, p.next_idx, p.paused));
        f.debug_struct("Core")
            .field("id", &self.settings.id)
            .field("role", &(raft.state, raft.term, raft.leader_id))
            .field("committed", &raft.raft_log.committed)
            .field("persisted", &raft.raft_log.persisted)
            .field("applied", &self.applied)
            .field("log", &(self.node.store().first(), raft.raft_log.last_index()))
            .field("persisting", &self.persisting.len())
            .field("progress", &progress.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A core that goes on where it ended.
    ///
    /// # Errors
    /// What Raft says about settings that make no sense.
    pub fn new(settings: Settings, recovered: Recovered) -> raft::Result<Self> {
        let Recovered { hard_state, image, compacted, entries } = recovered;
        let image = image.unwrap_or(Image { index: 0, term: 0, machine: Machine::default() });
        let applied = (image.index, image.term);
        let since_image = entries.iter().map(storage::size).sum();
        let vote = (hard_state.term, hard_state.vote);
        let fresh = settings.trailing_bytes / 4;
        let log = MemoryLog::new(
            fresh,
            hard_state,
            image.machine.members.conf_state(),
            compacted,
            entries,
            applied,
        );
        let config = role::raft_config(&settings, applied.0);
        let node = RawNode::new(&config, log, &slog::Logger::root(slog::Discard, slog::o!()))?;
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let role = Role::new(&settings, &mut rng);
        let mut reads = Reads::new(settings.id, settings.boot, settings.tick * 3);
        reads.add(Reader::CatchUp, Duration::MAX);
        let mut core = Core {
            requests: Requests::new(settings.id, settings.boot),
            settings,
            node,
            machine: image.machine,
            applied,
            rng,
            now: Duration::ZERO,
            role,
            reads,
            duties: Duties::default(),
            changes: Changes::default(),
            persisting: VecDeque::new(),
            committed: VecDeque::new(),
            vote,
            received: HashMap::new(),
            saving: false,
            since_image,
            sending: BTreeMap::new(),
            space: Ok(()),
            state_changed: true,
            out: Effects::default(),
        };
        core.members_changed();
        if core.votes_alone() {
            core.campaign();
        }
        Ok(core)
    }

    /// The newest state.
    pub fn state(&self) -> &State {
        &self.machine.state
    }

    /// Takes note of what happened. What follows from it, [`effects`](Self::effects) tells; several inputs may
    /// come before.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Tick(now) => self.tick(now),
            Input::WokeLate => self.doubt_leadership(),
            Input::Message(message, image) => self.receive(message, image),
            Input::Propose(token, command) => match &self.space {
                Ok(()) => {
                    let deadline = self.now + self.settings.request_timeout;
                    self.requests.add(Some(token), command, self.now, deadline);
                }
                Err(refusal) => self.out.answers.push(Answer::Change(token, Err(refusal.clone()))),
            },
            Input::Read(token) => {
                self.reads.add(Reader::Caller(token), self.now + self.settings.request_timeout);
            }
            Input::Persisted(number) => self.persisted(number),
            Input::SnapshotSaved(index) => self.snapshot_saved(index),
            Input::SnapshotSent(to, arrived) => self.snapshot_sent(to, arrived),
            Input::LeaderBeat(at) => self.leader_beat(at),
            Input::Unreachable(peer) => {
                self.distrust(peer);
                self.node.report_unreachable(peer.0);
            }
            Input::Space(space) => {
                self.space = space;
                self.make_way();
            }
            Input::Resign => self.resign(),
            Input::Removed => self.leave(),
        }
    }

    /// What is to be done now.
    pub fn effects(&mut self) -> Effects {
        loop {
            self.apply_committed();
            self.observe_role();
            self.ask();
            if !self.node.has_ready() {
                break;
            }
            self.step();
        }
        if self.state_changed {
            self.state_changed = false;
            self.out.state = Some(Arc::new(self.machine.state.clone()));
        }
        std::mem::take(&mut self.out)
    }

    /// Hands Raft the requests and the question for the reads that are due.
    fn ask(&mut self) {
        if self.node.raft.leader_id == raft::INVALID_ID {
            return;
        }
        let leading = self.node.raft.state == StateRole::Leader;
        let known_boot = self.machine.sessions.boot(self.settings.id);
        for batch in self.requests.due(self.now, leading, known_boot) {
            let batch = if leading { self.propose_member_changes(batch) } else { batch };
            if batch.is_empty() {
                continue;
            }
            let mut message = Message::default();
            message.set_msg_type(MessageType::MsgPropose);
            message.from = self.settings.id.0;
            message.set_entries(batch.clone().into());
            if self.node.step(message).is_err() {
                self.requests.refused(&batch, self.now);
            }
        }
        if let Some(context) = self.reads.question(self.now) {
            self.node.read_index(context);
        }
    }

    /// Takes one step of Raft's and does with it what Raft asks for.
    fn step(&mut self) {
        let mut ready = self.node.ready();
        for message in ready.take_messages() {
            self.send(message);
        }
        for answer in ready.take_read_states() {
            self.reads.answer(answer.request_ctx, answer.index);
        }
        let number = ready.number();
        let of_members = self.committed_in(number, ready.take_committed_entries());
        let sync = ready.must_sync() || of_members;
        let mut messages = ready.take_persisted_messages();
        let mut persist = Persist { number, sync, hard_state: ready.hs().cloned(), ..Persist::default() };
        persist.entries = ready.take_entries();
        let metadata = ready.snapshot().get_metadata();
        if metadata.index != 0 {
            let (index, term) = (metadata.index, metadata.term);
            persist.image = self.received.get(&(index, term)).cloned();
            if persist.image.is_none() {
                self.out.fatal = Some(format!("the snapshot at index {index} is gone before it was used"));
            }
            self.node.mut_store().restart(index, term);
            // The snapshot has what they do, and Raft knows its members already.
            self.committed.clear();
        }
        // What Raft didn't take with this step it never will: a snapshot is taken with the message that brings it.
        self.received.clear();
        // Before Raft learns that the step is under way: from then on it reads these entries from here.
        self.node.mut_store().append(&persist.entries);
        let vote = persist.hard_state.as_ref().map_or(self.vote, |state| (state.term, state.vote));
        let changes_vote = std::mem::replace(&mut self.vote, vote) != vote;
        self.node.advance_append_async(ready);
        if !changes_vote && !self.persisting.iter().any(|step| step.changes_vote) {
            // These promise nothing about the log, only that this member is alive in its term: a slow disk
            // must not keep them back.
            for message in messages.extract_if(.., |message| promises_nothing(message)) {
                self.send(message);
            }
        }
        let needs_disk = sync || persist.image.is_some() || !persist.entries.is_empty();
        self.persisting.push_back(Persisting {
            number,
            needs_disk,
            since: self.now,
            changes_vote,
            first: persist.entries.first().map(|entry| entry.index),
            taken: None,
            messages,
            image: persist.image.clone(),
        });
        if needs_disk || persist.hard_state.is_some() {
            self.out.persist.push(persist);
        }
        self.release();
    }

    fn persisted(&mut self, number: u64) {
        for step in self.persisting.iter_mut().take_while(|step| step.number <= number) {
            step.needs_disk = false;
        }
        self.release();
    }

    /// Tells Raft about the steps that are done, in order, and sends what waited for them. A step behind one that still waits for
    /// the disk waits too: Raft takes a step's number for the word that all before it are durable.
    fn release(&mut self) {
        while let Some(step) = self.persisting.pop_front_if(|step| !step.needs_disk) {
            self.node.on_persist_ready(step.number);
            if let Some(image) = step.image {
                self.install(image);
            }
            for message in step.messages {
                self.send(message);
            }
        }
    }

    fn send(&mut self, message: Message) {
        let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let image = is_snapshot.then(|| {
            self.sending.insert(MemberId(message.to), self.now + role::SNAPSHOT_PATIENCE);
            self.image()
        });
        let metadata = message.get_snapshot().get_metadata();
        if image.as_ref().is_some_and(|image| (image.index, image.term) != (metadata.index, metadata.term)) {
            // It waited for the disk while the machine went on; Raft asks again.
            self.node.report_snapshot(message.to, raft::SnapshotStatus::Failure);
            return;
        }
        self.out.messages.push(Outgoing { message, image });
    }

    /// The machine as it is now.
    pub fn image(&self) -> Image {
        Image { index: self.applied.0, term: self.applied.1, machine: self.machine.clone() }
    }

    /// Takes committed entries over, to be carried out; says whether one of them changes the members. Such a one
    /// begins a batch of its own.
    fn committed_in(&mut self, number: u64, entries: Vec<Entry>) -> bool {
        if !entries.iter().any(members::is_change) {
            self.committed.push_back((number, entries));
            return false;
        }
        let batches = entries.chunk_by(|_, next| !members::is_change(next));
        self.committed.extend(batches.map(|batch| (number, batch.to_vec())));
        true
    }

    /// Carries out what is committed.
    fn apply_committed(&mut self) {
        while let Some((number, entries)) = self.committed.pop_front() {
            let change = entries.first().filter(|entry| members::is_change(entry));
            if change.is_some_and(|change| !self.may_change_members(number, change)) {
                self.committed.push_front((number, entries));
                break;
            }
            self.apply(entries);
        }
        self.answer_reads();
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last() else { return };
        let last = (last.index, last.term);
        for entry in &entries {
            self.since_image += storage::size(entry);
            let Some(applied) = self.machine.apply(entry) else { continue };
            self.state_changed = true;
            if !applied.conf_changes.is_empty() {
                self.change_conf(entry, &applied.conf_changes);
            }
            if let Some(lease) = applied.lease_started {
                // Its time starts at the end of the tick: never too early.
                self.duties.lease_started(lease, &self.machine, self.now + self.settings.tick);
            }
            if applied.novelty == Novelty::Outdated && applied.id.member == self.settings.id {
                self.requests.propose_again(self.now);
            } else if let Some(Some(token)) = self.requests.done(&applied.id) {
                // Without a result it was applied before this member could see how.
                let result = applied.result.unwrap_or(Err(Error::Unavailable));
                self.out.answers.push(Answer::Change(token, result));
            }
        }
        // Only now: a snapshot holds the machine as of this index, so it must never be made between two entries.
        self.advance_applied(last);
        self.save_if_due();
    }

    fn advance_applied(&mut self, applied: (u64, u64)) {
        self.applied = applied;
        self.node.mut_store().set_applied(applied.0, applied.1);
        self.node.advance_apply_to(applied.0);
    }

    fn answer_reads(&mut self) {
        for reader in self.reads.ready(self.applied.0) {
            match reader {
                Reader::Caller(token) => self.out.answers.push(Answer::Read(token, Ok(()))),
                Reader::CatchUp => self.out.happenings.push(Happening::CaughtUp(self.now)),
                Reader::Confirm(absence) if absence == self.role.absences => self.role.doubtful = false,
                Reader::Confirm(_) => {}
            }
        }
    }

    /// Takes a leader's snapshot in place of the machine.
    fn install(&mut self, image: Image) {
        // As of here the machine is another one. What this member had asked for may or may not be in it, so the answers that
        // it can't tell any more are "unavailable", never a guess.
        self.machine = image.machine;
        self.node.mut_store().set_members(self.machine.members.conf_state());
        self.members_changed();
        self.since_image = 0;
        self.state_changed = true;
        self.advance_applied((image.index, image.term));
        let sessions = &self.machine.sessions;
        for token in self.requests.lost(|member, boot, sequence| sessions.knows(member, boot, sequence)) {
            self.out.answers.push(Answer::Change(token, Err(Error::Unavailable)));
        }
    }

    fn save_if_due(&mut self) {
        let whole = self.machine.state.bytes() + self.machine.state.history_bytes();
        if self.settings.snapshot_due(self.since_image, whole) && !self.saving {
            self.saving = true;
            self.since_image = 0;
            self.out.save = Some(self.image());
        }
    }

    fn snapshot_saved(&mut self, index: Option<u64>) {
        self.saving = false;
        if let Some(index) = index {
            let needed = self.needed_by_followers();
            let keep = self.settings.trailing_bytes;
            let log = self.node.mut_store();
            let most =
                if log.bytes() <= keep.saturating_mul(MOST_BEHIND) { index.min(needed) } else { index };
            log.compact(most, keep);
            self.out.forget = Some(log.first() - 1);
        }
    }

    /// Up to where all have the log that follow this leader, each of them perhaps a moment behind.
    fn needed_by_followers(&self) -> u64 {
        if self.node.raft.state != StateRole::Leader {
            return u64::MAX;
        }
        let follows =
            |progress: &&raft::Progress| progress.recent_active && progress.state != ProgressState::Snapshot;
        let progress = self.node.raft.prs().iter().map(|(_, progress)| progress);
        progress.filter(follows).map(|progress| progress.matched).min().unwrap_or(u64::MAX)
    }
}

/// Whether a message may leave before the log is on the disk, as long as term and vote are.
fn promises_nothing(message: &Message) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgPropose
            | MessageType::MsgReadIndex
    )
}
