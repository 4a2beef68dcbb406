//! What the leader does unasked: end leases whose time is up, forget old history.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::embedded::command::Command;
use crate::embedded::machine::Machine;
use crate::{LeaseId, Revision};

const MARK_EVERY: Duration = Duration::from_secs(60);
const KEEP_HISTORY: Duration = Duration::from_secs(300);
/// More revisions than this are not kept, however young they are.
const MOST_REVISIONS: usize = 50_000;
const KEPT_REVISIONS: u64 = 40_000;
/// How long a command that was proposed may take before it is proposed once more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The leader's own clocks. They start anew with every leader, so time without one ends no lease.
#[derive(Debug, Default)]
pub struct Duties {
    leading: bool,
    leases: BTreeMap<LeaseId, Duration>,
    /// Revisions with when they were the newest.
    marks: VecDeque<(Duration, Revision)>,
    trimmed_at: Option<Duration>,
}

impl Duties {
    /// Says whether this member leads.
    pub fn set_leading(&mut self, leading: bool, machine: &Machine, now: Duration) {
        if leading == self.leading {
            return;
        }
        *self = Duties { leading, ..Duties::default() };
        if leading {
            let leases = machine.state.leases();
            self.leases = leases.map(|(lease, seconds)| (lease, end(now, seconds))).collect();
            self.marks.push_back((now, machine.state.revision()));
        }
    }

    /// A lease was made or kept alive.
    pub fn lease_started(&mut self, lease: LeaseId, machine: &Machine, now: Duration) {
        if let Some(seconds) = machine.state.lease(lease).filter(|_| self.leading) {
            self.leases.insert(lease, end(now, seconds));
        }
    }

    /// What is to be done now.
    pub fn due(&mut self, machine: &Machine, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        if !self.leading {
            return commands;
        }
        let state = &machine.state;
        self.leases.retain(|lease, _| state.lease(*lease).is_some());
        for (lease, end) in &mut self.leases {
            if *end <= now {
                let started = machine.lease_starts.get(lease).copied().unwrap_or(0);
                commands.push(Command::Expire { lease: *lease, started });
                *end = now + PATIENCE;
            }
        }
        if self.marks.back().is_none_or(|(at, _)| *at + MARK_EVERY <= now) {
            self.marks.push_back((now, state.revision()));
            let old = self.marks.iter().take_while(|(at, _)| *at + KEEP_HISTORY <= now).count();
            if let Some((_, revision)) = self.marks.drain(..old).next_back()
                && revision > state.compacted()
            {
                commands.push(Command::Compact(revision));
            }
        }
        let patient = self.trimmed_at.is_some_and(|at| now < at + PATIENCE);
        if state.history().len() > MOST_REVISIONS && !patient {
            self.trimmed_at = Some(now);
            commands.push(Command::Compact(state.revision() - KEPT_REVISIONS));
        }
        commands
    }
}

fn end(now: Duration, seconds: u64) -> Duration {
    now.saturating_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Txn;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_ends_unless_it_is_kept_alive_and_anew_with_every_leader() {
        let mut machine = Machine::default();
        machine.state.grant(7, 10);
        machine.lease_starts.insert(7, 3);
        let mut duties = Duties::default();
        assert_eq!(duties.due(&machine, 100 * S), []);
        duties.set_leading(true, &machine, 100 * S);
        assert_eq!(duties.due(&machine, 109 * S), []);
        duties.lease_started(7, &machine, 109 * S);
        assert_eq!(duties.due(&machine, 118 * S), []);
        assert_eq!(duties.due(&machine, 119 * S), [Command::Expire { lease: 7, started: 3 }]);
        assert_eq!(duties.due(&machine, 120 * S), [], "once is enough for now");
        duties.set_leading(false, &machine, 121 * S);
        duties.set_leading(true, &machine, 122 * S);
        assert_eq!(duties.due(&machine, 131 * S), []);
        machine.state.revoke(7).unwrap();
        assert_eq!(duties.due(&machine, 132 * S), []);
    }

    #[test]
    fn history_older_than_five_minutes_is_forgotten() {
        let mut machine = Machine::default();
        let mut duties = Duties::default();
        duties.set_leading(true, &machine, S);
        let mut compacted = Vec::new();
        for second in 1..=660u32 {
            machine.state.apply(&Txn::put("k", "v")).unwrap();
            for command in duties.due(&machine, second * S) {
                let Command::Compact(revision) = command else { panic!("{command:?}") };
                compacted.push((second, revision));
                machine.state.compact(revision);
            }
        }
        assert_eq!(compacted.len(), 6);
        assert!(
            compacted.iter().skip(1).all(|(at, revision)| u64::from(*at) - revision >= 298),
            "{compacted:?}"
        );
        machine.state.compact(machine.state.revision());
        duties = Duties::default();
        duties.set_leading(true, &machine, 700 * S);
        for _ in 0..=MOST_REVISIONS {
            machine.state.apply(&Txn::put("k", "v")).unwrap();
        }
        assert_eq!(
            duties.due(&machine, 701 * S),
            [Command::Compact(machine.state.revision() - KEPT_REVISIONS)]
        );
    }
}
