//! Which host is to be switched off, and which is known to be off: a function of what is seen of the hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use membership::lease::Epoch;

/// What the leader sees of a host that it has a fence agent for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// For how long the leader hasn't heard it; nothing if it does.
    pub silent_for: Option<Duration>,
    /// Whether a majority of the members misses it, too.
    pub is_missed: bool,
    /// The epoch of its lease that it has registered.
    pub epoch: Option<Epoch>,
    /// Whether it is fenced in that already.
    pub is_fenced: bool,
    /// Whether something is there that must not run twice.
    pub has_single: bool,
    /// The epoch in which a leader began to have it switched off and on again, and hasn't written since that it is on.
    pub left_off: Option<Epoch>,
}

/// What a host's agent is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Switch it off. This epoch is over by that; then [`Book::ended`] is to follow.
    Off(Epoch),
    /// Switch it on, which a leader before this one didn't live to do; then [`Book::switched_on`] is to follow.
    On,
}

/// How far a host's agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// It runs. The host may have been heard meanwhile.
    Runs { was_heard: bool },
    /// The host is off, and so this epoch of its lease is over.
    Off(Epoch),
    /// The agent couldn't switch it off, or has done what another leader began. It isn't asked again before the host was heard.
    Over,
}

/// The hosts whose agents run or have run, of one at a time for each host.
#[derive(Debug, Clone, Default)]
pub struct Book(BTreeMap<String, Job>);

impl Book {
    /// Takes in what is seen of a host now, and answers what its agent is to do, if anything. Only a host that was silent for `after` is
    /// switched off, or on.
    pub fn look(&mut self, host: &str, seen: Seen, after: Duration) -> Option<Step> {
        let Some(silent_for) = seen.silent_for else {
            match self.0.get_mut(host) {
                Some(Job::Runs { was_heard }) => *was_heard = true,
                _ => _ = self.0.remove(host),
            }
            return None;
        };
        let is_due = silent_for >= after && seen.is_missed && !self.0.contains_key(host);
        let epoch = seen.epoch.filter(|_| is_due)?;
        let step = if seen.has_single && !seen.is_fenced {
            // Off and on again, also if that was begun: nobody knows whether it was off.
            Step::Off(epoch)
        } else if seen.left_off == Some(epoch) {
            Step::On
        } else {
            return None;
        };
        self.0.insert(host.to_owned(), Job::Runs { was_heard: false });
        Some(step)
    }

    /// A host's agent has ended, and says that the host is off, or not. Whether it is: a host that was heard meanwhile isn't.
    pub fn ended(&mut self, host: &str, epoch: Epoch, is_off: bool) -> bool {
        let was_heard = matches!(self.0.get(host), Some(Job::Runs { was_heard: true }));
        let is_off = is_off && !was_heard;
        match (is_off, was_heard) {
            (true, _) => _ = self.0.insert(host.to_owned(), Job::Off(epoch)),
            // It may fall silent again.
            (false, true) => _ = self.0.remove(host),
            (false, false) => _ = self.0.insert(host.to_owned(), Job::Over),
        }
        is_off
    }

    /// A host's agent has switched it on, or has failed to.
    pub fn switched_on(&mut self, host: &str) {
        if matches!(self.0.get(host), Some(Job::Runs { was_heard: true })) {
            // It may fall silent again.
            self.0.remove(host);
        } else {
            self.0.insert(host.to_owned(), Job::Over);
        }
    }

    /// The hosts that are off, each with the epoch that is over by that.
    pub fn off(&self) -> BTreeMap<String, Epoch> {
        let off = |(host, job): (&String, &Job)| match job {
            Job::Off(epoch) => Some((host.clone(), *epoch)),
            Job::Runs { .. } | Job::Over => None,
        };
        self.0.iter().filter_map(off).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(2);
    const SILENT: Seen = Seen {
        silent_for: Some(AFTER),
        is_missed: true,
        epoch: Some(7),
        is_fenced: false,
        has_single: true,
        left_off: None,
    };
    const HEARD: Seen = Seen { silent_for: None, ..SILENT };

    #[test]
    fn a_host_is_switched_off_once_all_miss_it_and_something_is_there_that_must_not_run_twice() {
        let asks = |seen: Seen| Book::default().look("n2", seen, AFTER);
        assert_eq!(asks(SILENT), Some(Step::Off(7)));
        for spared in [
            HEARD,
            Seen { silent_for: Some(Duration::from_secs(1)), ..SILENT },
            Seen { is_missed: false, ..SILENT },
            Seen { epoch: None, ..SILENT },
            Seen { is_fenced: true, ..SILENT },
            Seen { has_single: false, ..SILENT },
        ] {
            assert_eq!(asks(spared), None, "{spared:?}");
        }
    }

    #[test]
    fn one_agent_runs_for_a_host_and_not_again_before_the_host_was_heard() {
        let mut book = Book::default();
        assert_eq!(book.look("n2", SILENT, AFTER), Some(Step::Off(7)));
        assert_eq!(
            (book.look("n2", SILENT, AFTER), book.look("n3", SILENT, AFTER)),
            (None, Some(Step::Off(7)))
        );
        assert!(!book.ended("n2", 7, false));
        assert_eq!((book.look("n2", SILENT, AFTER), book.off()), (None, BTreeMap::new()));
        book.look("n2", HEARD, AFTER);
        assert_eq!(book.look("n2", SILENT, AFTER), Some(Step::Off(7)));
        assert!(book.ended("n2", 7, true));
        assert_eq!(book.off(), BTreeMap::from([("n2".to_owned(), 7)]));
        assert_eq!(book.look("n2", SILENT, AFTER), None);
        book.look("n2", Seen { epoch: Some(8), ..HEARD }, AFTER);
        assert_eq!(book.off(), BTreeMap::new(), "it is back");
    }

    #[test]
    fn a_leader_switches_on_what_the_one_before_left_off() {
        let left = Seen { is_fenced: true, has_single: false, left_off: Some(7), ..SILENT };
        let asks = |seen: Seen| Book::default().look("n2", seen, AFTER);
        assert_eq!(asks(left), Some(Step::On));
        assert_eq!(asks(Seen { is_fenced: false, ..left }), Some(Step::On), "its pods are elsewhere");
        assert_eq!(asks(Seen { left_off: Some(7), ..SILENT }), Some(Step::Off(7)), "it may be on yet");
        for spared in [
            Seen { left_off: Some(6), ..left },
            Seen { left_off: None, ..left },
            Seen { silent_for: None, ..left },
            Seen { silent_for: Some(Duration::from_secs(1)), ..left },
            Seen { is_missed: false, ..left },
        ] {
            assert_eq!(asks(spared), None, "{spared:?}");
        }
        let mut book = Book::default();
        assert_eq!((book.look("n2", left, AFTER), book.look("n2", left, AFTER)), (Some(Step::On), None));
        book.switched_on("n2");
        assert_eq!((book.look("n2", left, AFTER), book.off()), (None, BTreeMap::new()));
        book.look("n2", HEARD, AFTER);
        assert_eq!(book.look("n2", left, AFTER), Some(Step::On));
        book.look("n2", HEARD, AFTER);
        book.switched_on("n2");
        assert_eq!(book.look("n2", SILENT, AFTER), Some(Step::Off(7)), "it fell silent again");
    }

    #[test]
    fn a_host_that_was_heard_while_its_agent_ran_is_not_off_whatever_that_says() {
        let mut book = Book::default();
        assert_eq!(book.look("n2", SILENT, AFTER), Some(Step::Off(7)));
        book.look("n2", HEARD, AFTER);
        assert_eq!(book.look("n2", SILENT, AFTER), None, "it runs");
        assert!(!book.ended("n2", 7, true));
        assert_eq!(book.off(), BTreeMap::new());
        assert_eq!(book.look("n2", SILENT, AFTER), Some(Step::Off(7)));
    }
}
