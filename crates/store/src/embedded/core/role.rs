//! Who leads: elections, stepping down, and the leader's duties.

use std::time::Duration;

use raft::{ProgressState, ReadOnlyOption, SnapshotStatus, StateRole};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Answer, Core, Happening, Reader, Settings};
use crate::embedded::command::Command;
use crate::{Error, Leadership, MemberId};

/// Raft draws its election timeout from the thread's own randomness. A range of one value that is never
/// reached takes that away; [`Core::tick`] holds the elections with a timeout from the seed instead.
const NEVER: usize = 1 << 30;

/// A snapshot that a peer has not answered after this long was lost on the way.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);
/// How many elections a member whose disk takes no changes leaves to the others: after that there seem to be none.
const MOST_HELD_BACK: u32 = 3;
/// How long a leader whose disk takes no changes waits for the one that it asked to lead.
const WAY_PATIENCE: Duration = Duration::from_millis(200);
/// A leader that gave a sign of life by other means this recently is taken to be late rather than dead: two beats of
/// 50 ms. A dead one costs no time by it, for an election starts no earlier than 150 ms after its last message.
const FRESH: Duration = Duration::from_millis(100);
/// For so long at most: a leader whose store does nothing is no leader, however well its other parts are.
const MOST_TRUST: Duration = Duration::from_secs(1);
/// Elections that follow each other within this time show that something is wrong that elections don't mend, such as a
/// machine with too much to do.
const HASTE: Duration = Duration::from_secs(2);
/// How often the election timeout is doubled then, at most: up to 600–1200 ms with the default clocks.
const MOST_CALMING: u32 = 2;
/// A snapshot that was sent in full is answered within this time, or not at all.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// What is known about who leads.
#[derive(Debug, Default)]
pub struct Role {
    /// When to hold an election, in ticks without a leader.
    timeout: usize,
    seen: (u64, u64, Option<StateRole>),
    committed_in_term: bool,
    published: Leadership,
    /// This leader was not running for a while: somebody else may lead by now.
    pub doubtful: bool,
    /// How often that was so.
    pub absences: u64,
    resigned: bool,
    campaigning: bool,
    /// How many elections this member left to those whose disks take changes.
    held_back: u32,
    /// When a leader whose disk takes no changes asks another member (again) to lead, and whom it has asked.
    next_way: Duration,
    asked: MemberId,
    /// When the leader last gave a sign of life by other means than its messages.
    leader_beat: Option<Duration>,
    /// Its connection broke, or it asked for votes: its beats don't count until there is another leader.
    distrusted: bool,
    /// The newest term with a leader, when that was first seen, and how many such terms came right after another.
    led_term: u64,
    elected_at: Duration,
    hasty: u32,
}

impl Role {
    /// Nothing known yet. The first election comes early: a member that starts while there is a leader is
    /// not heard by the others (pre-vote), and otherwise there is nothing to wait for.
    pub fn new(settings: &Settings, rng: &mut StdRng) -> Self {
        let shortest = settings.election_ticks.0;
        let timeout = rng.random_range((shortest / 3).max(1)..=shortest);
        Role { timeout, ..Role::default() }
    }
}

/// Raft's own settings.
pub fn raft_config(settings: &Settings, applied: u64) -> raft::Config {
    // A member hears a candidate once it has not heard its leader for this long: a little less than the
    // shortest timeout, so that the first candidate is not refused for a tick's difference.
    let lease = settings.election_ticks.0.saturating_sub(2).max(settings.heartbeat_ticks + 1);
    raft::Config {
        id: settings.id.0,
        election_tick: lease,
        heartbeat_tick: settings.heartbeat_ticks,
        applied,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: NEVER,
        max_election_tick: NEVER + 1,
        read_only_option: ReadOnlyOption::Safe,
        max_uncommitted_size: 64 << 20,
        max_committed_size_per_ready: 16 << 20,
        ..raft::Config::default()
    }
}

impl Core {
    /// Lets a tick pass.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
        self.node.tick();
        let leading = self.node.raft.state == StateRole::Leader;
        if !leading && self.node.raft.election_elapsed >= self.role.timeout && !self.trusts_leader() {
            self.node.raft.election_elapsed = 0;
            self.draw_timeout();
            self.campaign();
        }
        if leading {
            self.watch_disk();
            self.make_way();
        }
        for token in self.requests.expired(now) {
            self.out.answers.push(Answer::Change(token, Err(Error::Unavailable)));
        }
        for token in self.reads.expired(now) {
            self.out.answers.push(Answer::Read(token, Err(Error::Unavailable)));
        }
        for command in self.duties.due(&self.machine, self.settings.history_bytes, now) {
            if self.space.is_ok() || matches!(command, Command::Compact(_)) {
                let deadline = now + self.settings.request_timeout;
                self.requests.add(None, command.encode(), now, deadline);
            }
        }
        self.watch_snapshots();
        self.tend_members();
    }

    /// Takes note that the leader gave a sign of life, though not by a message of its store.
    pub(super) fn leader_beat(&mut self, at: Duration) {
        self.role.leader_beat = Some(at);
    }

    /// What comes from the leader says that it leads no more, or lives no more: its beats don't count.
    pub(super) fn distrust(&mut self, member: MemberId) {
        if member.0 == self.node.raft.leader_id {
            self.role.leader_beat = None;
            self.role.distrusted = true;
        }
    }

    /// Whether the leader, though it is late, is to be waited for. One election more would help nobody if it only has
    /// too much to do.
    fn trusts_leader(&self) -> bool {
        let late = self.settings.tick * u32::try_from(self.node.raft.election_elapsed).unwrap_or(u32::MAX);
        let fresh = self.role.leader_beat.is_some_and(|at| self.now < at + FRESH);
        let known = self.node.raft.leader_id != raft::INVALID_ID && !self.role.distrusted;
        known && fresh && late < MOST_TRUST
    }

    /// Raft waits forever for a peer's answer to a snapshot, unless it hears that there will be none.
    fn watch_snapshots(&mut self) {
        for (id, progress) in self.node.raft.prs().iter() {
            if progress.state == ProgressState::Snapshot {
                self.sending.entry(MemberId(*id)).or_insert(self.now + SNAPSHOT_PATIENCE);
            } else {
                self.sending.remove(&MemberId(*id));
            }
        }
        let overdue = |(to, until): (&MemberId, &Duration)| (*until <= self.now).then_some(*to);
        let lost: Vec<MemberId> = self.sending.iter().filter_map(overdue).collect();
        for to in lost {
            self.snapshot_sent(to, false);
        }
    }

    /// Holds an election, unless this member is in no state to lead.
    pub(super) fn campaign(&mut self) {
        // Raft can't campaign between taking a snapshot and applying it.
        let installing = self.persisting.iter().any(|step| step.image.is_some());
        // A member that votes alone leads at once, and then its log must be on the disk.
        let unsaved = self.votes_alone() && self.persisting.iter().any(|step| step.needs_disk);
        let may = self.node.raft.promotable() && !unsaved && !installing && !self.role.resigned;
        if !may || self.disk_stalls(self.settings.disk_stall) {
            return;
        }
        if self.space.is_err() && !self.votes_alone() && self.role.held_back < MOST_HELD_BACK {
            self.role.held_back += 1;
            return;
        }
        if !self.role.campaigning {
            self.role.campaigning = true;
            self.out.happenings.push(Happening::ElectionStarted(self.node.raft.term + 1));
        }
        // Raft only refuses what `campaign` never sends.
        let _ = self.node.campaign();
    }

    fn draw_timeout(&mut self) {
        let (shortest, longest) = self.settings.election_ticks;
        let calm = 1 << self.role.hasty;
        self.role.timeout = self.rng.random_range(shortest * calm..=longest * calm);
    }

    /// Whether messages that ask for an election must be left out.
    pub(super) fn may_not_lead(&self) -> bool {
        self.role.resigned || self.space.is_err() || self.persisting.iter().any(|step| step.image.is_some())
    }

    fn disk_stalls(&self, limit: Duration) -> bool {
        let oldest = self.persisting.iter().find(|step| step.needs_disk);
        oldest.is_some_and(|step| step.since + limit <= self.now)
    }

    /// A leader whose disk stalls can apply nothing: it asks a member with a faster one to lead, and if that does not
    /// help, stops being in the way. Where all disks are as slow it goes on, for the next leader would do no better,
    /// and nothing is written while one follows the other.
    fn watch_disk(&mut self) {
        let limit = self.settings.disk_stall;
        self.watch_other_disks();
        if self.votes_alone() || !self.disk_stalls(limit) {
            return;
        }
        if self.faster_disk(limit * 3).is_some() {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        } else if let Some(id) = self.faster_disk(limit)
            && self.node.raft.lead_transferee.is_none()
        {
            self.node.transfer_leader(id.0);
        }
    }

    /// Takes note of what has reached another member's disk before this one's.
    fn watch_other_disks(&mut self) {
        let Some((matched, id)) = self.others().max() else { return };
        let now = self.now;
        for step in self.persisting.iter_mut().filter(|step| step.needs_disk && step.taken.is_none()) {
            if step.first.is_some_and(|first| first <= matched) {
                step.taken = Some((now.saturating_sub(step.since), id));
            }
        }
    }

    /// A member whose disk took within a third of the time what this one's hasn't taken within `limit`. As a step may have
    /// to wait for the sync before it, two disks that are as fast can differ by half.
    fn faster_disk(&self, limit: Duration) -> Option<MemberId> {
        self.persisting.iter().filter(|step| step.needs_disk).find_map(|step| {
            let waited = self.now.saturating_sub(step.since);
            let (took, id) = step.taken?;
            (waited >= limit && took * 3 <= waited).then_some(id)
        })
    }

    /// A leader whose disk takes no changes stands in the way of all others: it asks them to lead, one after the
    /// other. Those whose disks take none either don't listen, and where there are no others it goes on, for
    /// the reads.
    pub(super) fn make_way(&mut self) {
        let waits = self.now < self.role.next_way || self.node.raft.lead_transferee.is_some();
        if self.space.is_ok() || waits || self.node.raft.state != StateRole::Leader {
            return;
        }
        self.role.next_way = self.now + WAY_PATIENCE;
        let asked = self.role.asked;
        let others = || self.others().map(|(_, id)| id);
        let next = others().filter(|id| *id > asked).min().or_else(|| others().min());
        if let Some(id) = next {
            self.role.asked = id;
            self.node.transfer_leader(id.0);
        }
    }

    /// The other voters that are there: how far their logs are known to agree with this one, and their numbers.
    fn others(&self) -> impl Iterator<Item = (u64, MemberId)> {
        let me = self.settings.id.0;
        let prs = self.node.raft.prs();
        let voters = prs.conf().voters();
        prs.iter()
            .filter(move |(id, progress)| **id != me && progress.recent_active && voters.contains(**id))
            .map(|(id, progress)| (progress.matched, MemberId(*id)))
    }

    /// Asks the most up-to-date of the members that are there to lead.
    pub(super) fn hand_over(&mut self) {
        if let Some((_, id)) = self.others().max() {
            self.node.transfer_leader(id.0);
        }
    }

    pub(super) fn resign(&mut self) {
        self.role.resigned = true;
        if self.node.raft.state == StateRole::Leader {
            self.hand_over();
        }
    }

    /// A leader that did not run for a while asks the others before it calls itself leader again.
    pub(super) fn doubt_leadership(&mut self) {
        if self.node.raft.state == StateRole::Leader && !self.votes_alone() {
            self.role.doubtful = true;
            self.role.absences += 1;
            self.reads.add(Reader::Confirm(self.role.absences), Duration::MAX);
            self.reads.ask_again();
        }
    }

    pub(super) fn snapshot_sent(&mut self, to: MemberId, arrived: bool) {
        if arrived {
            // The peer's own answer ends this; should that get lost, the patience does.
            if let Some(until) = self.sending.get_mut(&to) {
                *until = self.now + ANSWER_PATIENCE;
            }
        } else if self.sending.remove(&to).is_some() {
            self.node.report_snapshot(to.0, SnapshotStatus::Failure);
        }
    }

    /// Follows what Raft thinks of who leads, and does what depends on it.
    pub(super) fn observe_role(&mut self) {
        let (term, leader, state) = (self.node.raft.term, self.node.raft.leader_id, self.node.raft.state);
        let committed_in_term = self.applied.1 == term;
        let seen = (term, leader, Some(state));
        if seen != self.role.seen {
            if leader != raft::INVALID_ID && term > self.role.led_term {
                let hasty = self.role.led_term > 0 && self.now < self.role.elected_at + HASTE;
                self.role.hasty = if hasty { (self.role.hasty + 1).min(MOST_CALMING) } else { 0 };
                (self.role.led_term, self.role.elected_at) = (term, self.now);
                self.role.distrusted = false;
            }
            if (term, Some(state)) != (self.role.seen.0, self.role.seen.2) && self.role.seen.2.is_some() {
                self.draw_timeout();
            }
            if state == StateRole::Leader && self.role.seen.2 != Some(StateRole::Leader) {
                self.out.happenings.push(Happening::ElectionWon(term));
            }
            if state != StateRole::Leader {
                self.role.doubtful = false;
                self.sending.clear();
            }
            if leader != raft::INVALID_ID {
                self.role.campaigning = false;
                self.role.held_back = 0;
                self.requests.propose_again(self.now);
                self.reads.ask_again();
            }
            self.role.seen = seen;
        }
        if committed_in_term && !self.role.committed_in_term {
            // A new leader answers no read before it has committed something itself: now it has.
            self.reads.ask_again();
        }
        self.role.committed_in_term = committed_in_term;

        let is_out = self.role.doubtful || self.is_removed();
        let is_me = state == StateRole::Leader && committed_in_term && !is_out;
        let leader =
            self.machine.members.get(MemberId(leader)).filter(|_| !is_out).map(|record| record.name.clone());
        let leadership = Leadership { leader, term, is_me };
        if leadership != self.role.published {
            self.duties.set_leading(is_me, &self.machine, self.now + self.settings.tick);
            self.out.leadership = Some(leadership.clone());
            self.role.published = leadership;
        }
    }
}
