//! What goes into the core and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Message;

use crate::embedded::command::Response;
use crate::embedded::image::Image;
use crate::embedded::log::Persist;
use crate::embedded::membership::Membership;
use crate::{Error, Leadership, MemberId, State};

/// The settings of a core, which it gets once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This member's number.
    pub id: MemberId,
    /// Which life of this member it is; grows with every start.
    pub boot: u64,
    /// Seeds all randomness.
    pub seed: u64,
    /// How much time a tick stands for.
    pub tick: Duration,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// The shortest and the longest election timeout, in ticks.
    pub election_ticks: (usize, usize),
    /// How long a request may wait for its answer.
    pub request_timeout: Duration,
    /// How long a leader's disk may stall before a member whose disk doesn't is asked to lead.
    pub disk_stall: Duration,
    /// With fewer bytes of entries since the last one, no snapshot is made.
    pub snapshot_bytes: u64,
    /// Entries before a snapshot are kept for members that were away for a moment, up to this many bytes.
    pub trailing_bytes: u64,
    /// The most bytes of history that are kept, or half as many as the map takes where that is more.
    pub history_bytes: u64,
}

impl Settings {
    /// Whether a snapshot of a state of `whole` bytes is due after this many bytes of entries.
    ///
    /// A snapshot writes everything, however little is new: it waits for a share of that, so that the disk gets no more
    /// than [`SHARE`] bytes of snapshots for each byte of the log, while what lies in the log (in memory, on the disk and
    /// before a start) stays within that share of the state.
    pub(super) fn snapshot_due(&self, entries: u64, whole: u64) -> bool {
        entries >= self.snapshot_bytes.max(whole / SHARE)
    }
}

/// The log may take one part in this many of what the state takes.
const SHARE: u64 = 2;

/// What happened in the world.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all inputs are messages.
pub enum Input {
    /// A tick passed; the time since some moment before the core was made.
    Tick(Duration),
    /// The core was not running for longer than an election takes.
    WokeLate,
    /// The leader gave a sign of life by other means than a message, at this time (as in `Tick`).
    LeaderBeat(Duration),
    /// A message came; with the snapshot, if it is one of those.
    Message(Message, Option<Image>),
    /// A caller asks for a change (an encoded [`Command`](crate::embedded::command::Command)).
    Propose(u64, Bytes),
    /// A caller asks for a read.
    Read(u64),
    /// Every step up to this number is on the disk.
    Persisted(u64),
    /// The snapshot at this index is on the disk, or could not be written.
    SnapshotSaved(Option<u64>),
    /// A snapshot was handed to a peer in full, or was not.
    SnapshotSent(MemberId, bool),
    /// The connection to a peer broke.
    Unreachable(MemberId),
    /// Whether the disk takes changes; if not, the error for callers.
    Space(Result<(), Error>),
    /// The process is about to end: let another member lead.
    Resign,
    /// A peer says that this member was removed from the cluster.
    Removed,
}

/// A message for a peer.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// The snapshot that goes with it.
    pub image: Option<Image>,
}

/// An answer to a caller.
#[derive(Debug)]
pub enum Answer {
    /// To a change.
    Change(u64, Result<Response, Error>),
    /// To a read: the newest state answers it now.
    Read(u64, Result<(), Error>),
}

/// Something for the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// This member wants to lead.
    ElectionStarted(u64),
    /// This member leads, in this term.
    ElectionWon(u64),
    /// This member has applied all that was committed when it started; how long that took.
    CaughtUp(Duration),
}

/// What is to be done. Messages may leave at once; state and leadership are to be shown before the answers
/// are given; steps are to be persisted in order, and their numbers told by [`Input::Persisted`].
#[derive(Debug, Default)]
pub struct Effects {
    /// For peers.
    pub messages: Vec<Outgoing>,
    /// For the log.
    pub persist: Vec<Persist>,
    /// The newest state, if it changed.
    pub state: Option<Arc<State>>,
    /// Who the members are, if that changed.
    pub members: Option<Arc<Membership>>,
    /// Who leads, if that changed.
    pub leadership: Option<Leadership>,
    /// For callers.
    pub answers: Vec<Answer>,
    /// A snapshot to write; [`Input::SnapshotSaved`] tells when it is there.
    pub save: Option<Image>,
    /// The log may forget entries up to this index.
    pub forget: Option<u64>,
    /// For the timeline.
    pub happenings: Vec<Happening>,
    /// This member was removed from the cluster: it is to end, and never to come back under its number.
    pub removed: bool,
    /// This member must not go on, and why.
    pub fatal: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_worth_what_it_writes() {
        let settings = Settings {
            id: MemberId(1),
            boot: 1,
            seed: 1,
            tick: Duration::ZERO,
            heartbeat_ticks: 1,
            election_ticks: (1, 2),
            request_timeout: Duration::ZERO,
            disk_stall: Duration::ZERO,
            snapshot_bytes: 1000,
            trailing_bytes: 0,
            history_bytes: 0,
        };
        let table = [
            (999, 0, false, "too little is new"),
            (1000, 0, true, "enough is new"),
            (1000, 2002, false, "the state is large"),
            (1001, 2002, true, "half as much is new"),
        ];
        for (entries, whole, due, why) in table {
            assert_eq!(settings.snapshot_due(entries, whole), due, "{why}");
        }
    }
}
