//! A host's lease: how it knows that a majority of the members has heard it lately, and how the others know that it can't
//! know so any more.
//!
//! A host sends its *epoch* with each beat, and each member answers with the newest beat that it has taken in
//! ([`Acknowledged`]). While a majority has acknowledged what the host sent within [`Terms::lease`], the host holds its lease
//! ([`OwnLease`]). A member that has taken in nothing of a host for [`Terms::fence`] *votes*: never again does it acknowledge this epoch or an
//! earlier one ([`Ballot`]). It says so once that promise is on its disk, where it outlasts its process. Once a majority has voted, the
//! host is *fenced* up to that epoch ([`Count`]).
//!
//! Why both can't be true of one epoch: two majorities share a member. It acknowledged nothing of the epoch after its vote, and nothing
//! for [`Terms::fence`] before it; what it acknowledged last was sent even earlier, so the lease that rests on it, which is
//! shorter, is over. How much shorter is the time that the host's clock may go wrong, and the time in which the host stops what must
//! not run twice. A host whose lease ran out never takes it up again: it stops all of that first, and then begins the next epoch
//! ([`OwnLease::begin`]). So who hears a host in an epoch knows that all before it are over, without any vote: a host that hears nobody and
//! is heard by all is known by that. It isn't *back* by that, since it can hold no lease ([`Count::heard_deaf`]).
//!
//! A vote costs the host, which may still hold its lease by the acknowledgements of others, one of those that it can count on. So a
//! member votes only when a majority says that it misses the host ([`Word::Missed`]); no promise rests on that.
//!
//! The idea is that of Gray and Cheriton's leases (SOSP 1989), with a quorum for the server; epochs are what Chubby calls sequencers and
//! Kleppmann fencing tokens.

mod ballot;
mod count;
mod own;
#[cfg(test)]
mod simulation;

use std::collections::BTreeSet;
use std::time::Duration;

pub use ballot::Ballot;
pub use count::{Count, Ended};
pub use own::OwnLease;

/// Which of its lives with a lease a host is in. It begins with 1, and only ever grows.
pub type Epoch = u64;

/// A clock that goes on while the machine sleeps (CLOCK_BOOTTIME), as the time since the machine was started.
pub type Boottime = Duration;

/// How long a lease holds, and how long it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A host may count on its lease for so long after it sent what a majority acknowledged.
    pub lease: Duration,
    /// A member votes once it has taken in nothing for so long.
    pub fence: Duration,
}

impl Default for Terms {
    /// 1.5 s and 2 s. A lease outlasts an election and a pause of a second. In the half second between them the host's clock may be wrong by
    /// 5 % (of 1.5 s; quartz is off by 0.02 %), the kernel may take 300 ms to kill what runs, and a beat 100 ms to arrive.
    fn default() -> Self {
        Terms { lease: Duration::from_millis(1500), fence: Duration::from_millis(2000) }
    }
}

/// The newest beat of a host that a member has taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The life of the host's process that sent it.
    pub incarnation: u64,
    /// What epoch it was sent in.
    pub epoch: Epoch,
    /// Its number.
    pub sequence: u64,
}

/// What the cluster's state knows of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The epoch that it has registered.
    pub epoch: Option<Epoch>,
    /// Up to which one it was fenced.
    pub fenced: Option<Epoch>,
}

impl Known {
    /// Whether the host is fenced, and hasn't registered a later epoch since.
    pub fn is_fenced(&self) -> bool {
        self.epoch.is_some() && self.fenced >= self.epoch
    }
}

/// What a member says about a host that it doesn't hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It has taken in nothing of it for as long as a lease holds. It may yet.
    Missed,
    /// It will never acknowledge this epoch or an earlier one: its vote.
    Never(Epoch),
}

/// A set of members and the terms by which they count, short enough for every beat. Equal ones have equal views; that others have different
/// ones is as sure as a hash of 64 bits is: nobody makes such sets on purpose. The terms are in it since a lease that is longer than the
/// others wait would be held beside its successor's: where they are changed host by host, words of the others don't count meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct View(pub u64);

impl View {
    /// The view of those who count by these terms.
    pub fn of(members: &BTreeSet<String>, terms: Terms) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for time in [terms.lease, terms.fence] {
            context.update(&time.as_nanos().to_be_bytes());
        }
        for member in members {
            // No name has a NUL in it.
            context.update(member.as_bytes());
            context.update(&[0]);
        }
        let digest = context.finish();
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        View(u64::from_be_bytes(first))
    }
}

/// Whether it pays to stop what a host runs once its lease is over: the members go on without any one of them. With one or two they don't. One that
/// is started anew would then stop all hosts, its own and those that are no members, and nobody could make anywhere else what has stopped.
pub fn can_be_fenced(members: &BTreeSet<String>) -> bool {
    members.len() > majority(members.len())
}

/// How many are more than half of `members`.
fn majority(members: usize) -> usize {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_can_be_fenced_where_the_members_are_a_majority_without_any_one() {
        let members = |count: usize| (1..=count).map(|n| format!("n{n}")).collect::<BTreeSet<_>>();
        let can = (0..=5).map(|count| can_be_fenced(&members(count))).collect::<Vec<_>>();
        assert_eq!(can, [false, false, false, true, true, true]);
    }

    #[test]
    fn members_that_count_by_other_terms_have_another_view() {
        let members = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
        let terms = Terms::default();
        let longer = Terms { lease: terms.lease + terms.lease, ..terms };
        assert_eq!(View::of(&members, terms), View::of(&members.clone(), terms));
        assert_ne!(View::of(&members, terms), View::of(&members, longer));
        assert_ne!(View::of(&members, terms), View::of(&BTreeSet::new(), terms));
    }
}
