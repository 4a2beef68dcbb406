//! What a member has heard of the hosts, and what it promises about them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Acknowledged, Epoch, Known, Terms, View, Word};

/// How many promises are kept about hosts that are not followed any more. Such a host may come back under its name, and its old epoch
/// with it, where somebody deleted its Node too early; those that were made about the oldest epochs go first.
const ABOUT_STRANGERS: usize = 1024;

/// A member's acknowledgements and votes.
///
/// A vote is a promise: nothing of that epoch is ever acknowledged again by this member, nor by its later processes. So promises are
/// written to the disk ([`promises`](Self::promises)), and other hosts hear only of those that are there ([`kept`](Self::kept)).
#[derive(Debug, Clone)]
pub struct Ballot {
    terms: Terms,
    view: View,
    last_check: Option<Instant>,
    records: BTreeMap<String, Record>,
    /// Up to which epoch nothing of a host is acknowledged.
    promises: BTreeMap<String, Epoch>,
    /// How often they changed.
    changes: u64,
    /// Those of them that are on the disk.
    kept: BTreeMap<String, Epoch>,
}

#[derive(Debug, Clone)]
struct Record {
    /// The newest beat that counted; nothing until one came.
    heard: Option<Acknowledged>,
    /// When it came; when this member began to listen, or to count by another set of members, if that was later.
    at: Instant,
    /// The epoch that the cluster's state knows.
    known: Option<Epoch>,
    /// Whether the present set of members heard of a promise that covers all that is known of the host.
    is_voted: bool,
}

impl Ballot {
    /// Of a member that has heard nobody yet, and whose former processes promised this.
    pub fn new(terms: Terms, promises: BTreeMap<String, Epoch>) -> Self {
        let (kept, records) = (promises.clone(), BTreeMap::new());
        Ballot { terms, view: View::default(), last_check: None, records, promises, changes: 0, kept }
    }

    /// Listens to these hosts from now on, and counts by this set of members. What was heard of a host that isn't among them any more
    /// is forgotten; what was promised is not.
    pub fn follow<'a>(&mut self, hosts: impl IntoIterator<Item = &'a str>, view: View, now: Instant) {
        let mut former = std::mem::take(&mut self.records);
        let is_other = view != self.view;
        self.view = view;
        for host in hosts {
            let new = Record { heard: None, at: now, known: None, is_voted: false };
            let mut record = former.remove(host).unwrap_or(new);
            if is_other {
                record.at = record.at.max(now);
                record.is_voted = false;
            }
            self.records.insert(host.to_owned(), record);
        }
        let strangers = self.promises.iter().filter(|(host, _)| !self.records.contains_key(*host));
        let mut strangers: Vec<_> = strangers.map(|(host, epoch)| (*epoch, host.clone())).collect();
        if let Some(too_many) = strangers.len().checked_sub(ABOUT_STRANGERS + 1) {
            strangers.sort_unstable();
            for (_, host) in strangers.drain(..=too_many) {
                self.promises.remove(&host);
            }
            self.changes += 1;
        }
    }

    /// A beat came. Beats that were heard before are none.
    pub fn beat(&mut self, host: &str, beat: Acknowledged, now: Instant) {
        let Some(record) = self.records.get_mut(host) else { return };
        if self.promises.get(host).is_some_and(|promised| beat.epoch <= *promised) {
            return;
        }
        // An epoch that is over is heard no more: its beats were late.
        if record.heard.is_some_and(|heard| beat.epoch < heard.epoch) {
            return;
        }
        record.heard = Some(beat);
        record.at = record.at.max(now);
        record.is_voted = false;
    }

    /// The cluster's state knows this of a host. So a member that never heard a host can
    /// vote about it too, and one that lost its disk learns what was made of its promises.
    pub fn told(&mut self, host: &str, known: Known) {
        let Some(record) = self.records.get_mut(host) else { return };
        record.known = record.known.max(known.epoch);
        if let Some(fenced) = known.fenced {
            if self.promises.get(host).is_none_or(|promised| *promised < fenced) {
                self.promises.insert(host.to_owned(), fenced);
                self.changes += 1;
            }
            record.heard = record.heard.filter(|heard| heard.epoch > fenced);
        }
    }

    /// Votes about the hosts of which nothing was taken in for too long, and which a majority misses. Once all beats that have arrived
    /// are counted: after a pause of this member they are waiting.
    pub fn check(&mut self, now: Instant, is_missed: impl Fn(&str) -> bool) {
        // A pause of this member is not held against the others, whose beats may be lost by it.
        let since = self.last_check.map_or_else(Default::default, |last| now.saturating_duration_since(last));
        let late = since.saturating_sub(self.terms.fence / 8);
        self.last_check = self.last_check.max(Some(now));
        for (host, record) in &mut self.records {
            record.at = (record.at + late).min(now).max(record.at);
            let overdue = now.saturating_duration_since(record.at) >= self.terms.fence;
            if !overdue || record.is_voted || !is_missed(host) {
                continue;
            }
            let promised = self.promises.get(host).copied();
            let Some(newest) = record.newest(promised) else { continue };
            record.heard = None;
            record.is_voted = true;
            if promised != Some(newest) {
                self.promises.insert(host.clone(), newest);
                self.changes += 1;
            }
        }
    }

    /// Grows whenever the promises change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All promises, for the disk.
    pub fn promises(&self) -> &BTreeMap<String, Epoch> {
        &self.promises
    }

    /// These promises are on the disk.
    pub fn kept(&mut self, promises: BTreeMap<String, Epoch>) {
        self.kept = promises;
    }

    /// What this member tells a host that it has taken in of it.
    pub fn acknowledges(&self, host: &str) -> Option<Acknowledged> {
        self.records.get(host)?.heard
    }

    /// What this member says about hosts that it doesn't hear. A vote is repeated as long as it hears nothing of a later epoch.
    pub fn words(&self, now: Instant) -> impl Iterator<Item = (&str, Word)> {
        self.records.iter().filter_map(move |(host, record)| {
            let promised = self.promises.get(host).copied();
            let kept = self.kept.get(host).copied();
            let is_missed = now.saturating_duration_since(record.at) >= self.terms.lease;
            match promised {
                Some(epoch) if record.is_voted && kept == promised => Some((&**host, Word::Never(epoch))),
                _ if is_missed && record.newest(promised).is_some() => Some((&**host, Word::Missed)),
                _ => None,
            }
        })
    }
}

impl Record {
    /// The newest epoch that the host may be in. About a host that this member never heard, it knows only what others have heard.
    fn newest(&self, promised: Option<Epoch>) -> Option<Epoch> {
        self.heard.map(|heard| heard.epoch).max(self.known).max(promised)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn beat(epoch: Epoch, sequence: u64) -> Acknowledged {
        Acknowledged { incarnation: 1, epoch, sequence }
    }

    #[allow(clippy::disallowed_methods)] // Some instant to count from.
    fn begin() -> Instant {
        Instant::now()
    }

    /// Looks every 50 ms, as the driver does.
    fn wait(ballot: &mut Ballot, from: Instant, to: Instant, is_missed: bool) {
        let mut now = from;
        while now <= to {
            ballot.check(now, |_| is_missed);
            now += Duration::from_millis(50);
        }
    }

    fn ballot(promises: &[(&str, Epoch)], now: Instant) -> Ballot {
        let promises = promises.iter().map(|(host, epoch)| ((*host).to_owned(), *epoch)).collect();
        let mut ballot = Ballot::new(Terms::default(), promises);
        ballot.follow(["n1"], View(1), now);
        ballot
    }

    #[test]
    fn a_vote_is_told_once_it_is_on_the_disk_and_holds_for_later_processes() {
        let start = begin();
        let mut first = ballot(&[], start);
        first.beat("n1", beat(7, 1), start);
        let late = start + Duration::from_secs(3);
        wait(&mut first, start, late, true);
        assert_eq!(first.acknowledges("n1"), None);
        assert_eq!(first.words(late).collect::<Vec<_>>(), [("n1", Word::Missed)]);
        first.kept(first.promises().clone());
        assert_eq!(first.words(late).collect::<Vec<_>>(), [("n1", Word::Never(7))]);

        let mut second = Ballot::new(Terms::default(), first.promises().clone());
        second.follow(["n1"], View(1), start);
        second.beat("n1", beat(7, 2), start);
        assert_eq!(second.acknowledges("n1"), None);
        wait(&mut second, start, late, true);
        assert_eq!(second.words(late).collect::<Vec<_>>(), [("n1", Word::Never(7))]);
        second.beat("n1", beat(8, 3), late);
        assert_eq!(second.acknowledges("n1"), Some(beat(8, 3)));
        assert_eq!(second.words(late).count(), 0);
    }

    #[test]
    fn a_member_does_not_vote_alone() {
        let start = begin();
        let mut ballot = ballot(&[], start);
        ballot.beat("n1", beat(7, 1), start);
        let late = start + Duration::from_secs(9);
        wait(&mut ballot, start, late, false);
        assert_eq!(ballot.words(late).collect::<Vec<_>>(), [("n1", Word::Missed)]);
        ballot.beat("n1", beat(7, 2), late);
        assert_eq!(ballot.acknowledges("n1"), Some(beat(7, 2)));
    }

    #[test]
    fn a_pause_of_the_member_itself_is_not_held_against_others() {
        let start = begin();
        let mut ballot = ballot(&[], start);
        ballot.beat("n1", beat(7, 1), start);
        ballot.check(start, |_| true);
        ballot.check(start + Duration::from_secs(5), |_| true);
        assert_eq!(ballot.acknowledges("n1"), Some(beat(7, 1)));
        assert!(ballot.promises().is_empty());
    }

    #[test]
    fn a_host_that_was_never_heard_is_voted_on_by_what_the_state_knows() {
        let start = begin();
        let late = start + Duration::from_secs(3);
        let mut ballot = ballot(&[], start);
        wait(&mut ballot, start, late, true);
        assert!(ballot.promises().is_empty() && ballot.words(late).count() == 0);
        ballot.told("n1", Known { epoch: Some(5), fenced: None });
        ballot.check(late, |_| true);
        assert_eq!(ballot.promises()["n1"], 5);
        // What others have fenced is never acknowledged either.
        ballot.told("n1", Known { epoch: Some(5), fenced: Some(6) });
        ballot.beat("n1", beat(6, 1), late);
        assert_eq!(ballot.acknowledges("n1"), None);
    }

    #[test]
    fn a_promise_outlasts_the_host_and_promises_about_strangers_are_bounded() {
        let start = begin();
        let mut ballot = ballot(&[("n1", 1_000_000)], start);
        ballot.follow([], View(1), start);
        ballot.follow(["n1"], View(1), start);
        ballot.beat("n1", beat(1_000_000, 1), start);
        assert_eq!(ballot.acknowledges("n1"), None);

        let many = (0..3000).map(|n| (format!("gone-{n}"), n + 1)).collect();
        let mut ballot = Ballot::new(Terms::default(), many);
        ballot.follow([], View(1), start);
        assert_eq!(ballot.promises().len(), ABOUT_STRANGERS);
        assert!(ballot.promises().contains_key("gone-2999"));
    }
}
