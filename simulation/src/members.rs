//! Members that come, go, are replaced and lose their disks.

use rand::Rng;
use rand::seq::IteratorRandom;
use store::parts::{Command, Input, MemberChange, Response, retire};
use store::{Error, MemberId};

use crate::disk::SimulatedDisk;
use crate::member::{address, name};
use crate::report::Failure;
use crate::world::{Moment, World};

/// Clients have the numbers below in the last byte of their tokens; the operator has this one, and those that ask
/// to be let in have the ones above.
const OPERATOR: u64 = 100;

/// Whether a request's token is of a change of members.
pub fn is_of_members(token: u64) -> bool {
    token & 0xff >= OPERATOR
}

/// For so long a removal that was asked for may still be on its way through somebody's requests.
const ON_ITS_WAY: u64 = 12_000_000;

impl World {
    /// The machine whose process is, or was last, this member.
    pub fn machine(&self, id: MemberId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    /// A member runs under a number: nobody else ever had it.
    pub fn numbered(&mut self, n: usize, id: MemberId) -> Result<(), Failure> {
        let first = *self.numbers.entry(id).or_insert(n);
        if first != n || self.lost.contains(&id) && self.mistake.is_none() {
            return Err(Failure::new(
                "members",
                format!("n{} has number {id}, which n{} had", n + 1, first + 1),
            ));
        }
        Ok(())
    }

    /// A member tells who the members are.
    pub fn members_told(&mut self, n: usize) {
        let Some(running) = self.hosts[n].running.as_ref() else { return };
        let index = running.core.image().index;
        if index >= self.members.0 {
            self.members = (index, running.core.members().clone());
        }
    }

    /// No log holds two changes of members that are not committed.
    pub fn one_change_at_a_time(&self, n: usize) -> Result<(), Failure> {
        let Some(running) = self.hosts[n].running.as_ref() else { return Ok(()) };
        match running.core.changes_under_way().1 {
            0 | 1 => Ok(()),
            many => {
                let what = format!("n{} has {many} changes of members under way at a time", n + 1);
                Err(Failure::new("members", what))
            }
        }
    }

    /// Whether the disk of a machine may be lost without losing more than the cluster promises to bear: as many
    /// voting members as there are more than a majority, and none while their number is about to fall.
    pub fn may_lose(&self, n: usize) -> bool {
        let is_lost = |id: MemberId| {
            let host = self.machine(id).map(|n| &self.hosts[n]);
            host.is_none_or(|host| host.id != Some(id) || host.rot.is_some())
        };
        let voters: Vec<MemberId> = self.members.1.voters().collect();
        let changing = |host: &crate::member::Host| match &host.running {
            Some(running) => running.core.changes_under_way().0 > 0,
            None => host.left_changing,
        };
        let lost = voters.iter().filter(|id| is_lost(**id)).count();
        self.hosts[n].begun
            && self.hosts[n].id.is_some_and(|id| !is_lost(id))
            && self.now >= self.removal_until
            && !self.hosts.iter().any(changing)
            && (lost + 1) * 2 < voters.len()
    }

    /// A machine gets a new disk, and starts some time later.
    pub fn new_disk(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        host.disk = SimulatedDisk::default();
        host.rot = None;
        self.lost.extend(host.id.take());
        let later = self.rng.random_range(1_000..1_500_000);
        self.schedule(later, Moment::Start(n));
    }

    /// A member hears that it was removed: its process ends, and somebody empties the machine's disk.
    pub fn removed(&mut self, n: usize) -> Result<(), Failure> {
        self.report.fault("removed members told so");
        self.tell(|| format!("n{} hears that it was removed", n + 1));
        let id = self.hosts[n].id.unwrap_or_default();
        if !self.members.1.is_removed(id) {
            return Err(Failure::new(
                "members",
                format!("member {id} was told that it was removed and was not"),
            ));
        }
        // Noted or not: the others know.
        let _ = retire(&self.hosts[n].disk);
        self.crash(n, false);
        self.new_disk(n);
        Ok(())
    }

    /// A machine without a number asks one of the others for one, and again later.
    pub fn ask_to_join(&mut self, n: usize) -> Result<(), Failure> {
        let token = (self.report.steps << 8) + OPERATOR + 1 + n as u64;
        self.hosts[n].asks = Some(token);
        let life = self.hosts[n].life;
        let again = self.rng.random_range(2_000_000..4_000_000);
        self.schedule(again, Moment::Ask(n, life));
        let others = (0..self.hosts.len()).filter(|m| *m != n && self.hosts[*m].running.is_some());
        let Some(m) = others.choose(&mut self.rng).filter(|m| self.network.carries(n, *m)) else {
            return Ok(());
        };
        let change = MemberChange::Join { name: name(n), address: address(n) };
        self.give(m, Input::Propose(token, Command::Members(change).encode()))
    }

    /// It has heard nothing.
    pub fn ask_again(&mut self, n: usize, life: u64) -> Result<(), Failure> {
        let host = &self.hosts[n];
        if host.life == life && host.running.is_none() && host.asks.is_some() {
            return self.ask_to_join(n);
        }
        Ok(())
    }

    /// What became of a change of members that a member was asked for.
    pub fn members_changed(&mut self, m: usize, token: u64, result: Result<Response, Error>) {
        let who = (token & 0xff) - OPERATOR;
        let kind = match (&result, who) {
            (Ok(_), 0) => "members changed by hand",
            (Ok(_), _) => "members let in",
            (Err(Error::Members(_)), _) => "changes of members refused",
            _ => "changes of members unanswered",
        };
        self.report.fault(kind);
        self.tell(|| format!("n{}: {kind}: {result:?}", m + 1));
        let Some(n) = who.checked_sub(1).map(|n| n as usize) else { return };
        if let Ok(Response::Member(id)) = result
            && self.network.carries(m, n)
        {
            let later = self.rng.random_range(50..=self.weather.delay.max(100));
            self.schedule(later, Moment::Admitted(n, token, id));
        }
    }

    /// The answer to a machine that asked to be let in.
    pub fn admitted(&mut self, n: usize, token: u64, id: MemberId) -> Result<(), Failure> {
        if self.hosts[n].asks == Some(token) && self.hosts[n].running.is_none() {
            return self.start_as(n, Some(id));
        }
        Ok(())
    }

    /// Somebody changes the members by hand.
    pub fn operate(&mut self, change: MemberChange) -> Result<(), Failure> {
        let token = (self.report.steps << 8) + OPERATOR;
        let running = (0..self.hosts.len()).filter(|n| self.hosts[*n].running.is_some());
        let Some(n) = running.choose(&mut self.rng) else { return Ok(()) };
        self.tell(|| format!("n{} is asked for {change:?}", n + 1));
        self.give(n, Input::Propose(token, Command::Members(change).encode()))
    }

    /// A machine that was never on is switched on, after it was announced or not.
    pub fn grow(&mut self) -> Result<(), Failure> {
        let Some(n) = (0..self.hosts.len()).find(|n| self.hosts[*n].absent) else { return Ok(()) };
        self.report.fault("machines added");
        self.hosts[n].absent = false;
        let later = self.rng.random_range(1_000..800_000);
        self.schedule(later, Moment::Start(n));
        if self.rng.random() {
            let name = if self.rng.random() { name(n) } else { String::new() };
            let learner = self.rng.random();
            return self.operate(MemberChange::Add { name, address: address(n), learner });
        }
        Ok(())
    }

    /// A member, the leader as likely as all others together, is removed; not when a disk was lost or may be.
    pub fn shrink(&mut self) -> Result<(), Failure> {
        let whole = |host: &crate::member::Host| host.absent || host.id.is_some() && host.rot.is_none();
        if !self.hosts.iter().all(whole) {
            return Ok(());
        }
        let leads = |id: &MemberId| self.machine(*id).is_some_and(|n| self.leaders().contains(&n));
        let ids: Vec<MemberId> = self.members.1.iter().map(|(id, _)| id).collect();
        let leader = ids.iter().copied().find(leads).filter(|_| self.rng.random());
        let Some(id) = leader.or_else(|| ids.into_iter().choose(&mut self.rng)) else { return Ok(()) };
        self.removal_until = self.now + ON_ITS_WAY;
        self.operate(MemberChange::Remove(id))
    }

    /// A learner is let vote, if it has what it needs.
    pub fn promote(&mut self) -> Result<(), Failure> {
        let learners: Vec<MemberId> =
            self.members.1.iter().filter(|(_, record)| record.learner).map(|(id, _)| id).collect();
        match learners.into_iter().choose(&mut self.rng) {
            Some(id) => self.operate(MemberChange::Promote(id)),
            None => Ok(()),
        }
    }

    /// As when connecting: a removed member that calls is answered that it was removed, by those that know.
    pub fn tell_the_removed(&mut self, caller: usize, called: usize) {
        let Some(id) = self.hosts[caller].running.as_ref().map(|running| running.id) else { return };
        let knows = |running: &crate::member::Running| running.core.members().is_removed(id);
        if self.hosts[called].running.as_ref().is_some_and(knows) && self.network.carries(called, caller) {
            let later = self.rng.random_range(50..=self.weather.delay.max(100));
            let life = self.hosts[caller].life;
            self.schedule(later, Moment::Removed(caller, life));
        }
    }

    /// A member sees now and then to its connections to the others.
    pub fn knock(&mut self, n: usize) -> Result<(), Failure> {
        for m in 0..self.hosts.len() {
            if m != n && self.network.carries(n, m) {
                self.tell_the_removed(n, m);
            }
        }
        self.one_change_at_a_time(n)
    }

    /// Whether all machines that are on are members that vote.
    pub fn is_whole(&self) -> bool {
        let on = self.hosts.iter().filter(|host| !host.absent).filter_map(|host| host.id);
        let mut on: Vec<MemberId> = on.collect();
        on.sort_unstable();
        on.into_iter().eq(self.members.1.voters()) && self.members.1.iter().all(|(_, record)| !record.learner)
    }
}
