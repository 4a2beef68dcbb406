//! Which epochs are over: the members' votes, counted, and what the hosts say themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Epoch, View, Word, majority};

/// What is sure about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The leases of this epoch and of all before it are over, and what ran under them has stopped.
    pub epoch: Epoch,
    /// The host has been heard in a later one, in which it may hold a lease. If not, it is *fenced*.
    pub is_back: bool,
}

/// The words that have arrived. Every host may count; what the count is good for is the leader's.
#[derive(Debug, Clone, Default)]
pub struct Count {
    members: BTreeSet<String>,
    view: View,
    hosts: BTreeMap<String, About>,
    is_new: bool,
}

/// What was said about a host.
#[derive(Debug, Clone, Default)]
struct About {
    votes: BTreeMap<String, Epoch>,
    /// When a member last said that it misses it.
    missed: BTreeMap<String, Instant>,
    /// The newest epoch in which it was heard here.
    heard: Option<Epoch>,
    /// The newest in which it was, and could hear the members.
    able: Option<Epoch>,
}

impl Count {
    /// About whom is counted, and whose word counts: that of `members`, which have this view. Votes that were cast when others' did count no more.
    pub fn follow<'a>(
        &mut self,
        hosts: impl IntoIterator<Item = &'a str>,
        members: BTreeSet<String>,
        view: View,
    ) {
        self.is_new = true;
        let mut former = std::mem::take(&mut self.hosts);
        let is_other = view != self.view;
        for host in hosts {
            let mut about = former.remove(host).unwrap_or_default();
            if is_other {
                about.votes.clear();
                about.missed.clear();
            }
            self.hosts.insert(host.to_owned(), about);
        }
        if is_other {
            self.view = view;
            self.members = members;
        }
    }

    /// A host was heard in this epoch.
    pub fn heard(&mut self, host: &str, epoch: Epoch) {
        self.heard_deaf(host, epoch);
        if let Some(about) = self.hosts.get_mut(host) {
            self.is_new |= about.able < Some(epoch);
            about.able = about.able.max(Some(epoch));
        }
    }

    /// A host that says that it hears too few of the members was heard in this epoch. All before it are over; it will hold no lease in this one while that is
    /// so, and is not back.
    pub fn heard_deaf(&mut self, host: &str, epoch: Epoch) {
        if let Some(about) = self.hosts.get_mut(host) {
            self.is_new |= about.heard < Some(epoch);
            about.heard = about.heard.max(Some(epoch));
        }
    }

    /// A member, which counts by this set of members, says this about a host. A vote is never taken back.
    pub fn word(&mut self, member: &str, view: View, host: &str, word: Word, now: Instant) {
        if view != self.view || !self.members.contains(member) {
            return;
        }
        let Some(about) = self.hosts.get_mut(host) else { return };
        match about.missed.get_mut(member) {
            Some(at) => *at = now.max(*at),
            None => drop(about.missed.insert(member.to_owned(), now)),
        }
        if let Word::Never(epoch) = word
            && about.votes.get(member).is_none_or(|known| *known < epoch)
        {
            about.votes.insert(member.to_owned(), epoch);
            self.is_new = true;
        }
    }

    /// Whether anything new came since this was last asked that [`all`](Self::all) may show.
    pub fn is_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Whether a majority has said within this time that it misses the host.
    pub fn is_missed(&self, host: &str, within: Duration, now: Instant) -> bool {
        let Some(about) = self.hosts.get(host) else { return false };
        let fresh = about.missed.values().filter(|at| now.saturating_duration_since(**at) < within);
        fresh.count() >= majority(self.members.len())
    }

    /// The hosts of which that is true.
    pub fn missed(&self, within: Duration, now: Instant) -> BTreeSet<String> {
        let spoken_of = self.hosts.iter().filter(|(_, about)| !about.missed.is_empty());
        spoken_of.map(|(host, _)| host).filter(|host| self.is_missed(host, within, now)).cloned().collect()
    }

    /// What is sure about a host; nothing if nothing is.
    pub fn ended(&self, host: &str) -> Option<Ended> {
        self.hosts.get(host)?.ended(majority(self.members.len()))
    }

    /// That about all hosts.
    pub fn all(&self) -> BTreeMap<String, Ended> {
        let majority = majority(self.members.len());
        let ended = |(host, about): (&String, &About)| Some((host.clone(), about.ended(majority)?));
        self.hosts.iter().filter_map(ended).collect()
    }
}

impl About {
    fn ended(&self, majority: usize) -> Option<Ended> {
        let mut votes: Vec<Epoch> = self.votes.values().copied().collect();
        votes.sort_unstable_by(|a, b| b.cmp(a));
        // A majority has voted against this epoch or a later one.
        let fenced = votes.get(majority - 1).copied();
        // A host begins an epoch when nothing is left of the one before.
        let left = self.heard.and_then(|heard| heard.checked_sub(1)).filter(|left| *left > 0);
        let epoch = fenced.max(left)?;
        Some(Ended { epoch, is_back: self.able.is_some_and(|able| able > epoch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Terms;

    #[test]
    #[allow(clippy::disallowed_methods)] // Some instant to count from.
    fn votes_count_by_the_set_that_they_were_cast_in_until_the_host_is_back() {
        let (now, set) =
            (Instant::now(), |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect());
        let members: BTreeSet<String> = set(&["n1", "n2", "n3"]);
        let view = View::of(&members, Terms::default());
        let mut count = Count::default();
        count.follow(["n1", "w"], members.clone(), view);
        count.heard("w", 5);
        assert_eq!(count.ended("w"), Some(Ended { epoch: 4, is_back: true }));
        count.word("n1", view, "w", Word::Never(5), now);
        count.word("n2", View(9), "w", Word::Never(5), now);
        count.word("w", view, "w", Word::Never(5), now);
        assert_eq!(count.ended("w"), Some(Ended { epoch: 4, is_back: true }));
        count.word("n2", view, "w", Word::Never(7), now);
        assert_eq!(count.ended("w"), Some(Ended { epoch: 5, is_back: false }));
        count.heard_deaf("w", 8);
        assert_eq!(count.ended("w"), Some(Ended { epoch: 7, is_back: false }), "it hears nobody");
        count.heard("w", 8);
        assert_eq!(count.all(), BTreeMap::from([("w".into(), Ended { epoch: 7, is_back: true })]));

        count.follow(["n1"], members.clone(), view);
        count.follow(["n1", "w"], members, view);
        assert_eq!(count.ended("w"), None, "a host that was deleted");
        count.word("n1", view, "w", Word::Never(5), now);
        let fewer = set(&["n1", "n2"]);
        let view = View::of(&fewer, Terms::default());
        count.follow(["n1", "w"], fewer, view);
        count.word("n2", view, "w", Word::Never(5), now);
        assert_eq!(count.ended("w"), None, "the first was cast by another set of members");
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // Some instant to count from.
    fn a_host_is_missed_while_a_majority_says_so() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let members: BTreeSet<String> = ["n1", "n2", "n3"].map(str::to_owned).into();
        let view = View::of(&members, Terms::default());
        let mut count = Count::default();
        count.follow(["w"], members, view);
        count.word("n1", view, "w", Word::Missed, now);
        assert!(!count.is_missed("w", second, now));
        count.word("n2", view, "w", Word::Missed, now + second / 2);
        assert!(count.is_missed("w", second, now + second / 2));
        assert_eq!(count.missed(second, now + second / 2), BTreeSet::from(["w".to_owned()]));
        assert_eq!(count.missed(second, now + second), BTreeSet::new());
        assert!(!count.is_missed("w", second, now + second));
        assert_eq!(count.ended("w"), None);
    }
}
