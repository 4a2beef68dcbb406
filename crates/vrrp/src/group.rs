//! What several virtual routers of a host do as one: keepalived's sync groups (keepalived.conf(5), `vrrp_sync_group`). A virtual
//! router in no group is a group of its own.
//!
//! All are masters, or none is. They become masters when each of them would: while one hears a master that it leaves alone, the
//! others wait with it, as keepalived's do. If one gives way, or may not go on, all the others end too; and say that they do, so that
//! who follows needn't wait.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::state::{Action, Event, Router, State};
use crate::track::Fitness;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Whether it may take part isn't known yet.
    Starting,
    /// It takes no part: a link or a script is at fault.
    Fault,
    /// Another host is master, or soon will be.
    Backup,
    /// This host is master.
    Master,
    /// It has ended.
    Stopped,
}

/// Virtual routers that do as one.
#[derive(Debug, Clone)]
pub struct Group {
    members: Vec<Member>,
    phase: Phase,
}

#[derive(Debug, Clone)]
struct Member {
    router: Router,
    state: State,
    fitness: Fitness,
}

/// What to do: for which member, and what.
pub type Actions = Vec<(usize, Action)>;

impl Group {
    /// These, of which nothing is known yet.
    pub fn new(routers: impl IntoIterator<Item = Router>) -> Self {
        let member = |router| Member { router, state: State::Initialize, fitness: Fitness::Unknown };
        Group { members: routers.into_iter().map(member).collect(), phase: Phase::Starting }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// A member's priority, as it is now.
    pub fn priority(&self, member: usize) -> u8 {
        self.members[member].router.priority
    }

    /// Whether a member may take part, and the address that it speaks from, are now these.
    pub fn suits(&mut self, member: usize, fitness: Fitness, address: Ipv4Addr, now: Duration) -> Actions {
        let mut actions = Actions::new();
        let changed = &mut self.members[member];
        changed.fitness = fitness;
        changed.router.address = address;
        if let Fitness::Fit(priority) = fitness
            && priority != changed.router.priority
        {
            changed.router.priority = priority;
            // A better router hears of it at once.
            if self.phase == Phase::Master {
                self.step(member, Event::Timer, now, &mut actions);
            }
        }
        let is = |wanted: fn(&Fitness) -> bool| self.members.iter().any(|member| wanted(&member.fitness));
        let unfit = is(|fitness| matches!(fitness, Fitness::Unfit));
        let unknown = is(|fitness| matches!(fitness, Fitness::Unknown));
        match self.phase {
            Phase::Stopped => {}
            Phase::Starting | Phase::Backup | Phase::Master if unfit => {
                self.all(Event::Shutdown, now, &mut actions);
                self.phase = Phase::Fault;
            }
            Phase::Starting | Phase::Fault if !unfit && !unknown => {
                self.all(Event::Startup, now, &mut actions);
                // An owner is master at once.
                let master = self.members.iter().all(|member| matches!(member.state, State::Master { .. }));
                self.phase = if master { Phase::Master } else { Phase::Backup };
            }
            _ => {}
        }
        actions
    }

    /// A member has heard an advertisement.
    pub fn heard(&mut self, member: usize, advert: Event, now: Duration) -> Actions {
        let mut actions = Actions::new();
        self.step(member, advert, now, &mut actions);
        if self.phase == Phase::Master && matches!(self.members[member].state, State::Backup(_)) {
            self.phase = Phase::Backup;
            for other in (0..self.members.len()).filter(|other| *other != member) {
                self.step(other, Event::Shutdown, now, &mut actions);
                self.step(other, Event::Startup, now, &mut actions);
            }
        }
        actions
    }

    /// When [`time`](Group::time) is to be called.
    pub fn deadline(&self) -> Option<Duration> {
        let deadlines = self.members.iter().filter_map(|member| member.router.deadline(member.state));
        match self.phase {
            Phase::Master => deadlines.min(),
            // The last: until then, one of them leaves the present master alone.
            Phase::Backup => deadlines.max(),
            Phase::Starting | Phase::Fault | Phase::Stopped => None,
        }
    }

    /// It is `now`.
    pub fn time(&mut self, now: Duration) -> Actions {
        let mut actions = Actions::new();
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return actions;
        }
        if self.phase == Phase::Backup {
            self.phase = Phase::Master;
            self.all(Event::Timer, now, &mut actions);
            return actions;
        }
        for member in 0..self.members.len() {
            let Member { router, state, .. } = &self.members[member];
            if router.deadline(*state).is_some_and(|deadline| deadline <= now) {
                self.step(member, Event::Timer, now, &mut actions);
            }
        }
        actions
    }

    /// It ends for good.
    pub fn stop(&mut self, now: Duration) -> Actions {
        let mut actions = Actions::new();
        self.all(Event::Shutdown, now, &mut actions);
        self.phase = Phase::Stopped;
        actions
    }

    fn all(&mut self, event: Event, now: Duration, actions: &mut Actions) {
        for member in 0..self.members.len() {
            self.step(member, event, now, actions);
        }
    }

    fn step(&mut self, member: usize, event: Event, now: Duration, actions: &mut Actions) {
        let Member { router, state, .. } = &mut self.members[member];
        let (next, steps) = router.step(*state, event, now);
        *state = next;
        actions.extend(steps.into_iter().map(|action| (member, action)));
    }
}

#[cfg(test)]
mod tests {
    use super::Action::{Advertise, Release, Take};
    use super::*;
    use crate::state::{OWNER, RESIGNS};

    const SECOND: Duration = Duration::from_secs(1);
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const ROUTER: Router = Router { priority: 100, interval: SECOND, preempt: true, address: OWN };
    const FIT: Fitness = Fitness::Fit(100);

    fn advert(priority: u8) -> Event {
        Event::Advert { priority, interval: SECOND, from: Ipv4Addr::new(10, 0, 0, 1) }
    }

    /// Two that are fit since 0, as backups.
    fn pair() -> Group {
        let mut group = Group::new([ROUTER, ROUTER]);
        assert_eq!(group.suits(0, FIT, OWN, Duration::ZERO), []);
        assert_eq!((group.phase(), group.deadline()), (Phase::Starting, None));
        assert_eq!(group.suits(1, FIT, OWN, Duration::ZERO), []);
        assert_eq!(group.phase(), Phase::Backup);
        group
    }

    fn masters(now: Duration) -> Group {
        let mut group = pair();
        let actions = group.time(now);
        assert_eq!(actions, [(0, Advertise(100)), (0, Take), (1, Advertise(100)), (1, Take)]);
        assert_eq!(group.phase(), Phase::Master);
        group
    }

    #[test]
    fn they_become_masters_once_each_of_them_would() {
        let mut group = pair();
        group.heard(1, advert(150), SECOND * 3);
        assert_eq!(group.deadline(), Some(SECOND * 3 + ROUTER.down_after(SECOND)));
        assert_eq!(group.time(SECOND * 4), [], "the first would, the second has a master");
        masters(SECOND * 4);
    }

    #[test]
    fn one_that_gives_way_takes_the_others_along() {
        let mut group = masters(SECOND * 4);
        let actions = group.heard(0, advert(101), SECOND * 5);
        assert_eq!(actions, [(0, Release), (1, Release), (1, Advertise(RESIGNS))]);
        assert_eq!(group.phase(), Phase::Backup);
        assert_eq!(group.deadline(), Some(SECOND * 5 + ROUTER.down_after(SECOND)), "they wait again");
        assert_eq!(group.heard(1, advert(99), SECOND * 5), []);
        assert_eq!(group.phase(), Phase::Backup);
    }

    #[test]
    fn a_fault_of_one_is_the_fault_of_all_and_ends_with_it() {
        let mut group = masters(SECOND * 4);
        let released = [(0, Release), (0, Advertise(RESIGNS)), (1, Release), (1, Advertise(RESIGNS))];
        assert_eq!(group.suits(1, Fitness::Unfit, OWN, SECOND * 5), released);
        assert_eq!((group.phase(), group.deadline()), (Phase::Fault, None));
        assert_eq!(group.heard(0, advert(RESIGNS), SECOND * 5), []);
        assert_eq!(group.time(SECOND * 60), []);
        assert_eq!(group.suits(0, Fitness::Unfit, OWN, SECOND * 60), []);
        assert_eq!(group.suits(1, FIT, OWN, SECOND * 61), []);
        assert_eq!(group.phase(), Phase::Fault, "the first still is");
        assert_eq!(group.suits(0, FIT, OWN, SECOND * 62), []);
        assert_eq!(group.deadline(), Some(SECOND * 62 + ROUTER.down_after(SECOND)));
    }

    #[test]
    fn each_advertises_at_its_own_interval() {
        let mut group = Group::new([ROUTER, Router { interval: SECOND * 2, ..ROUTER }]);
        for member in 0..2 {
            group.suits(member, FIT, OWN, Duration::ZERO);
        }
        let start = group.deadline().unwrap();
        assert_eq!(group.time(start).len(), 4);
        assert_eq!(group.time(start + SECOND / 2), []);
        assert_eq!(group.time(start + SECOND), [(0, Advertise(100))]);
        assert_eq!(group.time(start + SECOND * 2), [(0, Advertise(100)), (1, Advertise(100))]);
    }

    #[test]
    fn a_master_tells_its_new_priority_at_once_and_a_backup_waits_accordingly() {
        let mut group = masters(SECOND * 4);
        assert_eq!(group.suits(1, Fitness::Fit(80), OWN, SECOND * 5), [(1, Advertise(80))]);
        assert_eq!((group.priority(0), group.priority(1)), (100, 80));
        assert_eq!(group.suits(1, Fitness::Fit(80), OWN, SECOND * 5), [], "nothing new");
        let mut group = pair();
        assert_eq!(group.suits(1, Fitness::Fit(80), OWN, SECOND), []);
        assert_eq!(group.deadline(), Some(Router { priority: 80, ..ROUTER }.down_after(SECOND)));
    }

    #[test]
    fn an_owner_needs_no_election() {
        let mut group = Group::new([Router { priority: OWNER, ..ROUTER }]);
        let actions = group.suits(0, Fitness::Fit(OWNER), OWN, Duration::ZERO);
        assert_eq!(actions, [(0, Advertise(OWNER)), (0, Take)]);
        assert_eq!(group.phase(), Phase::Master);
    }

    #[test]
    fn the_end_is_for_good() {
        let mut group = masters(SECOND * 4);
        assert_eq!(group.stop(SECOND * 5).len(), 4);
        assert_eq!(group.suits(0, Fitness::Unfit, OWN, SECOND * 6), []);
        assert_eq!(group.suits(0, FIT, OWN, SECOND * 6), []);
        assert_eq!(group.phase(), Phase::Stopped);
    }
}
