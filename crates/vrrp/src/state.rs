//! The machine of the RFC for one virtual router on one host (RFC 9568, section 6): a function of its state, what happens, and the
//! time.
//!
//! Times are counted from a moment of the caller's. They are not rounded to hundredths of a second, as the RFC counts them: with an
//! interval of some hundredths, priorities that differ would wait equally long. keepalived doesn't either.

use std::net::Ipv4Addr;
use std::time::Duration;

/// The priority of who has the addresses for its own.
pub const OWNER: u8 = 255;
/// The priority by which a master says that it gives up.
pub const RESIGNS: u8 = 0;

/// What the machine goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Router {
    /// 1 to 255.
    pub priority: u8,
    /// From one advertisement of its own to the next, as a master.
    pub interval: Duration,
    /// Whether it takes over from a master of lower priority.
    pub preempt: bool,
    /// The address that its advertisements come from: of two masters of one priority the higher stays.
    pub address: Ipv4Addr,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// It takes no part.
    #[default]
    Initialize,
    /// It waits for the master to fall silent.
    Backup(Backup),
    /// It has the addresses.
    Master {
        /// When the next advertisement is due.
        next: Duration,
    },
}

/// A backup's view of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// When it last heard what counts, or began to listen.
    since: Duration,
    /// The master's interval, which may differ from its own.
    interval: Duration,
    /// The master has given up: the wait is only as long as it takes to let the best backup come first.
    resigned: bool,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It may take part.
    Startup,
    /// It may no longer.
    Shutdown,
    /// Its [`deadline`](Router::deadline) has come.
    Timer,
    /// An advertisement for this virtual router.
    Advert {
        /// The sender's.
        priority: u8,
        /// The sender's.
        interval: Duration,
        /// The sender.
        from: Ipv4Addr,
    },
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send an advertisement of this priority.
    Advertise(u8),
    /// Take the addresses, and tell the link.
    Take,
    /// Give the addresses up.
    Release,
}

impl Router {
    /// How much later than others this one falls in for a silent master: the higher its priority, the less.
    fn skew(&self, interval: Duration) -> Duration {
        interval * (256 - u32::from(self.priority)) / 256
    }

    /// After how much silence a master of this interval counts as gone.
    pub fn down_after(&self, interval: Duration) -> Duration {
        interval * 3 + self.skew(interval)
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self, state: State) -> Option<Duration> {
        match state {
            State::Initialize => None,
            State::Backup(Backup { since, interval, resigned: true }) => Some(since + self.skew(interval)),
            State::Backup(Backup { since, interval, resigned: false }) => {
                Some(since + self.down_after(interval))
            }
            State::Master { next } => Some(next),
        }
    }

    /// What becomes of `state`, and what is to be done about it.
    pub fn step(&self, state: State, event: Event, now: Duration) -> (State, Vec<Action>) {
        use Action::{Advertise, Release, Take};
        let master = State::Master { next: now + self.interval };
        let backup = |interval, resigned| State::Backup(Backup { since: now, interval, resigned });
        // The others hear of it first, so that none of them begins as well.
        let promoted = (master, vec![Advertise(self.priority), Take]);
        match (state, event) {
            (State::Initialize, Event::Startup) if self.priority == OWNER => promoted,
            (State::Initialize, Event::Startup) => (backup(self.interval, false), vec![]),
            (State::Initialize, _) | (State::Backup(_) | State::Master { .. }, Event::Startup) => {
                (state, vec![])
            }

            (State::Backup(_), Event::Shutdown) => (State::Initialize, vec![]),
            (State::Backup(_), Event::Timer) => promoted,
            (State::Backup(Backup { interval, .. }), Event::Advert { priority: RESIGNS, .. }) => {
                (backup(interval, true), vec![])
            }
            (State::Backup(_), Event::Advert { priority, interval, .. })
                if !self.preempt || priority >= self.priority =>
            {
                (backup(interval, false), vec![])
            }
            // From a lower one, which is not to stay: unheard, it is replaced.
            (State::Backup(_), Event::Advert { .. }) => (state, vec![]),

            // The addresses go before the others hear that they may take them.
            (State::Master { .. }, Event::Shutdown) => (State::Initialize, vec![Release, Advertise(RESIGNS)]),
            (State::Master { .. }, Event::Timer) => (master, vec![Advertise(self.priority)]),
            (State::Master { .. }, Event::Advert { priority, interval, from })
                if (priority, from) > (self.priority, self.address) =>
            {
                (backup(interval, false), vec![Release])
            }
            // Another router with this one's address is a mistake that no answer mends: both would answer each other without end.
            (State::Master { .. }, Event::Advert { priority, from, .. })
                if (priority, from) == (self.priority, self.address) =>
            {
                (state, vec![])
            }
            // To who gives up, who knows of no master yet, and bridges that learnt the wrong way. (RFC 5798 stays silent except to
            // the first.)
            (State::Master { .. }, Event::Advert { .. }) => (master, vec![Advertise(self.priority)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Duration = Duration::from_secs(1000);
    const ROUTER: Router =
        Router { priority: 100, interval: SECOND, preempt: true, address: Ipv4Addr::new(10, 0, 0, 5) };

    fn advert(priority: u8, last: u8) -> Event {
        Event::Advert { priority, interval: SECOND * 2, from: Ipv4Addr::new(10, 0, 0, last) }
    }

    fn backup(router: Router) -> State {
        router.step(State::Initialize, Event::Startup, NOW).0
    }

    const MASTER: State = State::Master { next: NOW };

    #[test]
    fn a_backup_waits_three_intervals_and_its_skew() {
        let (state, actions) = ROUTER.step(State::Initialize, Event::Startup, NOW);
        assert_eq!(actions, []);
        // 156 of 256 parts of a second.
        let wait = Duration::from_micros(3_609_375);
        assert_eq!(ROUTER.deadline(state), Some(NOW + wait));
        let (state, actions) = ROUTER.step(state, Event::Timer, NOW + wait);
        assert_eq!(state, State::Master { next: NOW + wait + SECOND });
        assert_eq!(actions, [Action::Advertise(100), Action::Take]);
    }

    #[test]
    fn the_higher_the_priority_the_shorter_the_wait_also_with_the_shortest_interval() {
        let wait = |priority| Router { priority, ..ROUTER }.down_after(Duration::from_millis(10));
        assert!((1..=254).all(|priority| wait(priority) > wait(priority + 1)));
        assert!(wait(1) < Duration::from_millis(40));
    }

    #[test]
    fn an_owner_is_master_at_once() {
        let owner = Router { priority: OWNER, ..ROUTER };
        let (state, actions) = owner.step(State::Initialize, Event::Startup, NOW);
        assert_eq!(
            (state, actions),
            (State::Master { next: NOW + SECOND }, vec![Action::Advertise(255), Action::Take])
        );
    }

    #[test]
    fn a_backup_follows_the_master_s_interval() {
        for priority in [100, 101, 255] {
            let (state, actions) = ROUTER.step(backup(ROUTER), advert(priority, 1), NOW + SECOND);
            assert_eq!(actions, []);
            assert_eq!(ROUTER.deadline(state), Some(NOW + SECOND + ROUTER.down_after(SECOND * 2)));
        }
    }

    #[test]
    fn a_lower_master_counts_only_without_preemption() {
        let lower = advert(99, 9);
        assert_eq!(ROUTER.step(backup(ROUTER), lower, NOW + SECOND), (backup(ROUTER), vec![]));
        let patient = Router { preempt: false, ..ROUTER };
        let (state, _) = patient.step(backup(patient), lower, NOW + SECOND);
        assert_eq!(patient.deadline(state), Some(NOW + SECOND + patient.down_after(SECOND * 2)));
    }

    #[test]
    fn a_master_that_gives_up_is_followed_after_the_skew_alone() {
        let later = NOW + SECOND;
        // It has heard the master's interval before.
        let (state, _) = ROUTER.step(backup(ROUTER), advert(200, 1), NOW);
        let (state, actions) = ROUTER.step(state, advert(RESIGNS, 1), later);
        assert_eq!(actions, []);
        assert_eq!(ROUTER.deadline(state), Some(later + SECOND * 2 * 156 / 256));
        // Another one was faster.
        let (state, _) = ROUTER.step(state, advert(150, 2), later);
        assert_eq!(ROUTER.deadline(state), Some(later + ROUTER.down_after(SECOND * 2)));
    }

    #[test]
    fn a_master_gives_way_to_the_better_one() {
        for (better, event) in [
            (true, advert(101, 1)),
            (true, advert(100, 6)),
            (false, advert(100, 4)),
            (false, advert(99, 6)),
            (false, advert(RESIGNS, 6)),
        ] {
            let (state, actions) = ROUTER.step(MASTER, event, NOW);
            if better {
                assert_eq!(ROUTER.deadline(state), Some(NOW + ROUTER.down_after(SECOND * 2)), "{event:?}");
                assert_eq!(actions, [Action::Release], "{event:?}");
            } else {
                assert_eq!(state, State::Master { next: NOW + SECOND }, "{event:?}");
                assert_eq!(actions, [Action::Advertise(100)], "{event:?}");
            }
        }
    }

    #[test]
    fn two_hosts_with_one_address_don_t_answer_each_other_without_end() {
        assert_eq!(ROUTER.step(MASTER, advert(100, 5), NOW), (MASTER, vec![]));
    }

    #[test]
    fn a_master_that_ends_lets_go_before_it_says_so() {
        let released = vec![Action::Release, Action::Advertise(RESIGNS)];
        assert_eq!(ROUTER.step(MASTER, Event::Shutdown, NOW), (State::Initialize, released));
        assert_eq!(ROUTER.step(backup(ROUTER), Event::Shutdown, NOW), (State::Initialize, vec![]));
    }

    #[test]
    fn who_takes_no_part_does_nothing() {
        for event in [Event::Shutdown, Event::Timer, advert(1, 1), advert(RESIGNS, 1)] {
            assert_eq!(ROUTER.step(State::Initialize, event, NOW), (State::Initialize, vec![]));
        }
        assert_eq!(ROUTER.deadline(State::Initialize), None);
        for state in [backup(ROUTER), MASTER] {
            assert_eq!(ROUTER.step(state, Event::Startup, NOW), (state, vec![]));
        }
    }
}
