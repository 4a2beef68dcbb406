//! What a host knows of its own lease.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Acknowledged, Boottime, Epoch, Terms, View, majority};

/// How many beats are remembered with the time at which they were sent: two seconds' worth at 20 a second and more. What is acknowledged
/// later than that renews nothing.
const REMEMBERED: usize = 64;

/// A host's own lease.
///
/// The times at which a beat was *sent* count, never those at which its acknowledgement arrived: the members count from when they took it
/// in, which is later.
#[derive(Debug, Clone)]
pub struct OwnLease {
    terms: Terms,
    name: String,
    incarnation: u64,
    epoch: Epoch,
    members: BTreeSet<String>,
    view: View,
    /// What a former process of this host had in hand, until a majority is heard of again.
    handed_on: Option<Boottime>,
    /// By number.
    sent: VecDeque<(u64, Boottime)>,
    /// When the newest beat was sent that each member has taken in. Of the present epoch alone.
    heard: BTreeMap<String, Boottime>,
    /// It was seen to be over: it stays so until the next epoch begins.
    is_over: bool,
}

impl OwnLease {
    /// Of the host `name`, which holds none yet: its first epoch begins with the first beat.
    pub fn new(terms: Terms, name: String, incarnation: u64, epoch: Epoch) -> Self {
        let (members, view, handed_on, sent, heard) = Default::default();
        OwnLease { terms, name, incarnation, epoch, members, view, handed_on, sent, heard, is_over: false }
    }

    /// Of a host whose former process held its lease until then, while what must not run twice ran on without it.
    pub fn handed_on(self, until: Boottime) -> Self {
        OwnLease { handed_on: Some(until), ..self }
    }

    /// Who has a say. What was acknowledged when others had counts no more.
    pub fn follow(&mut self, members: BTreeSet<String>) {
        if members == self.members {
            return;
        }
        // What was held by the former majority is held on. An epoch in which nothing was held gives way to the next: so what others have
        // counted of it stays true, also where those who voted have no say any more.
        self.handed_on = self.until();
        if self.handed_on.is_none() && !self.is_over && !self.members.is_empty() {
            self.begin();
        }
        self.heard.clear();
        self.view = View::of(&members, self.terms);
        self.members = members;
    }

    /// The epoch that the next beat is sent in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// A beat is about to be sent. Take the time before, never after.
    pub fn sent(&mut self, sequence: u64, at: Boottime) {
        // First, as below: a lone member's own beat renews its lease.
        self.is_held(at);
        self.sent.push_back((sequence, at));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        // A member takes in its own beats at once, unless it has voted against itself, which is what an ended lease is.
        if self.members.contains(&self.name) {
            self.heard.insert(self.name.clone(), at);
        }
    }

    /// A member says what it has taken in of this host, and by which set of members it counts.
    pub fn acknowledged(&mut self, member: &str, view: View, what: Acknowledged, now: Boottime) {
        // First: what renews the lease comes too late if it is over by now.
        self.is_held(now);
        if self.is_over || view != self.view || !self.members.contains(member) {
            return;
        }
        if (what.incarnation, what.epoch) != (self.incarnation, self.epoch) {
            return;
        }
        let Some((_, at)) = self.sent.iter().find(|(sequence, _)| *sequence == what.sequence) else { return };
        let heard = self.heard.entry(member.to_owned()).or_insert(*at);
        *heard = (*heard).max(*at);
    }

    /// A member has voted against this host up to this epoch, and will never acknowledge it. If there was no lease in it yet, nothing
    /// runs under it: the next one begins, or this host would wait for ever.
    pub fn refused(&mut self, epoch: Epoch) {
        if epoch >= self.epoch && !self.is_over && self.until().is_none() {
            self.epoch = epoch;
            self.begin();
        }
    }

    /// When the lease is over unless more is acknowledged; nothing if there is none.
    pub fn until(&self) -> Option<Boottime> {
        if self.is_over {
            return None;
        }
        let mut heard: Vec<Boottime> = self.heard.values().copied().collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        // That of the member with which a majority is complete: all before it have heard newer beats.
        let by_majority = heard.get(majority(self.members.len()) - 1).map(|at| *at + self.terms.lease);
        by_majority.max(self.handed_on)
    }

    /// Whether the lease is held. Once it was and isn't any more, it never is again in this epoch.
    pub fn is_held(&mut self, now: Boottime) -> bool {
        match self.until() {
            Some(until) if now < until => true,
            Some(_) => {
                self.is_over = true;
                false
            }
            None => false,
        }
    }

    /// Whether the lease of the present epoch has ended: time to stop what must not run twice, and then to [`begin`](Self::begin) anew.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Begins the next epoch. Nothing that must not run twice may be left of the former one.
    pub fn begin(&mut self) -> Epoch {
        self.epoch = self.epoch.saturating_add(1);
        self.is_over = false;
        self.handed_on = None;
        self.heard.clear();
        self.sent.clear();
        self.epoch
    }
}
