//! What the leader does unasked: end leases whose time is up, forget old history.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::embedded::command::Command;
use crate::embedded::machine::Machine;
use crate::{LeaseId, Revision};

/// How often the leader notes which revision is the newest.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// How long history is kept, unless it grows too large before: as long as kube-apiserver's `--etcd-compaction-interval` keeps it by default.
const KEEP_HISTORY: Duration = Duration::from_secs(300);
/// How long a command that was proposed may take before it is proposed once more.
const PATIENCE: Duration = Duration::from_secs(10);

/// The leader's own clocks. They start anew with every leader, so time without one ends no lease.
#[derive(Debug, Default)]
pub struct Duties {
    leading: bool,
    leases: BTreeMap<LeaseId, Duration>,
    /// Revisions with when they were the newest.
    marks: VecDeque<(Duration, Revision)>,
    /// What was to be forgotten as it was too much, and when that was said.
    trimmed: Option<(Revision, Duration)>,
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

    /// What is to be done now. `history` is how many bytes of it may be kept in any case.
    pub fn due(&mut self, machine: &Machine, history: u64, now: Duration) -> Vec<Command> {
        let mut commands = Vec::new();
        if !self.leading {
            return commands;
        }
        let state = &machine.state;
        self.leases.retain(|lease, _| state.lease(*lease).is_some());
        for (lease, end) in &mut self.leases {
            if *end <= now {
                // Which start ran out goes with the command: a keep-alive that is before it in the log made another one, and
                // so the lease lives.
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
        // However young it is. The next one is due as soon as the one before was done: a client that writes as much as
        // the disks take fills the whole bound again within seconds.
        let patient =
            self.trimmed.is_some_and(|(up_to, at)| state.compacted() < up_to && now < at + PATIENCE);
        if let Some(revision) = state.too_much_history(history).filter(|_| !patient) {
            self.trimmed = Some((revision, now));
            commands.push(Command::Compact(revision));
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
    const MOST: u64 = 64 << 20;

    #[test]
    fn a_lease_ends_unless_it_is_kept_alive_and_anew_with_every_leader() {
        let mut machine = Machine::default();
        machine.state.grant(LeaseId(7), 10);
        machine.lease_starts.insert(LeaseId(7), 3);
        let mut duties = Duties::default();
        assert_eq!(duties.due(&machine, MOST, 100 * S), []);
        duties.set_leading(true, &machine, 100 * S);
        assert_eq!(duties.due(&machine, MOST, 109 * S), []);
        duties.lease_started(LeaseId(7), &machine, 109 * S);
        assert_eq!(duties.due(&machine, MOST, 118 * S), []);
        assert_eq!(duties.due(&machine, MOST, 119 * S), [Command::Expire { lease: LeaseId(7), started: 3 }]);
        assert_eq!(duties.due(&machine, MOST, 120 * S), [], "once is enough for now");
        duties.set_leading(false, &machine, 121 * S);
        duties.set_leading(true, &machine, 122 * S);
        assert_eq!(duties.due(&machine, MOST, 131 * S), []);
        machine.state.revoke(LeaseId(7)).unwrap();
        assert_eq!(duties.due(&machine, MOST, 132 * S), []);
    }

    #[test]
    fn history_older_than_five_minutes_is_forgotten() {
        let mut machine = Machine::default();
        let mut duties = Duties::default();
        duties.set_leading(true, &machine, S);
        let mut compacted = Vec::new();
        for second in 1..=660u32 {
            machine.state.apply(&Txn::put("k", "v")).unwrap();
            for command in duties.due(&machine, MOST, second * S) {
                let Command::Compact(revision) = command else { panic!("{command:?}") };
                compacted.push((second, revision));
                machine.state.compact(revision);
            }
        }
        assert_eq!(compacted.len(), 6);
        assert!(
            compacted.iter().skip(1).all(|(at, revision)| u64::from(*at) - revision.0 >= 298),
            "{compacted:?}"
        );
    }

    #[test]
    fn more_history_than_fits_is_forgotten_however_young_it_is() {
        // More revisions than 50,000; more bytes than the bound; the same where the map itself takes much more.
        for (keys, value, writes, kept) in
            [(1, 1, 50_001, 40_000), (1, 1 << 20, 65, 47), (400, 1 << 20, 600, 149)]
        {
            let mut machine = Machine::default();
            let mut duties = Duties::default();
            duties.set_leading(true, &machine, S);
            let value = bytes::Bytes::from(vec![0; value]);
            for n in 0..writes {
                assert_eq!(duties.due(&machine, MOST, S), [], "{keys} {n}");
                machine.state.apply(&Txn::put(format!("k{}", n % keys), value.clone())).unwrap();
            }
            let newest = machine.state.revision();
            let due = duties.due(&machine, MOST, 2 * S);
            let [Command::Compact(revision)] = due[..] else { panic!("{keys} {writes}: {due:?}") };
            assert_eq!(newest.0 - revision.0, kept, "{keys} {writes}");
            assert_eq!(duties.due(&machine, MOST, 3 * S), [], "once is enough for now");
            machine.state.compact(revision);
            assert_eq!(duties.due(&machine, MOST, 4 * S), [], "there is room again");
            for n in 0..writes {
                machine.state.apply(&Txn::put(format!("k{}", n % keys), value.clone())).unwrap();
            }
            assert_eq!(duties.due(&machine, MOST, 5 * S).len(), 1, "and no patience when there is none");
        }
    }
}
