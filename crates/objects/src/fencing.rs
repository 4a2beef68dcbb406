//! What a Node says of its host's lease: until when what must not run twice may run there, and that it has stopped.
//!
//! A host registers by which grade it promises to stop such pods in time, and in which epoch it may run them. Once that epoch is over the
//! leader marks it as fenced. From then on the host starts no such pod in it, and its pods may be replaced.

use std::collections::BTreeMap;

/// The annotation by which a Node says how its host stops what must not run twice once nobody hears it: [`Grade`]s with commas between. Without it, it
/// promises nothing.
pub const FENCING: &str = "holdfast.dev/fencing";
/// The annotation with the epoch of the lease under which the host runs what must not run twice.
pub const LEASE_EPOCH: &str = "holdfast.dev/lease-epoch";
/// The annotation with the epoch up to which the host is fenced. The leader alone writes it.
pub const FENCED_EPOCH: &str = "holdfast.dev/fenced-epoch";
/// The annotation with the epoch in which the host's machine is being switched off by its fence agent, to be switched on again. The leader writes
/// it before, and takes it away once the machine is on: the next leader reads in it what is left to do.
pub const SWITCH_ON_EPOCH: &str = "holdfast.dev/switch-on-epoch";
/// The condition of a pod by which its host says, before it starts it, that it stops with its lease.
pub const STOPS_WITH_LEASE: &str = "holdfast.dev/StopsWithLease";

/// What stops on a host what must not run twice, the weakest first. What is stronger comes to the weaker, and doesn't replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Each pod's supervisor, which knows when the lease ends, and needs nobody for that.
    Lease,
    /// The machine's watchdog, which resets a machine on which that doesn't happen in time.
    Watchdog,
    /// A fence agent, which switches the machine off and says that it is.
    Agent,
}

impl Grade {
    /// All there are, the weakest first.
    pub const ALL: [Grade; 3] = [Grade::Lease, Grade::Watchdog, Grade::Agent];

    /// As a Node says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Grade::Lease => "lease",
            Grade::Watchdog => "watchdog",
            Grade::Agent => "agent",
        }
    }

    /// What a host of this grade and of no stronger one is not covered against, for people.
    pub fn lacks(self) -> &'static str {
        match self {
            Grade::Lease => "a kernel that hangs, or a machine that is paused and goes on later",
            Grade::Watchdog => {
                "a virtual machine that is paused together with its watchdog, and a kernel whose own watchdog (softdog) hangs with it"
            }
            Grade::Agent => {
                "a machine that is paused and goes on before its agent has switched it off, and an agent that fails: then the lease decides"
            }
        }
    }

    /// These, as a Node says them in [`FENCING`].
    pub fn listed(grades: &[Grade]) -> String {
        grades.iter().map(|grade| grade.as_str()).collect::<Vec<_>>().join(",")
    }
}

/// What a Node says of its host's lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fencing {
    /// The strongest of what stops what must not run twice; nothing where nothing does.
    pub grade: Option<Grade>,
    /// The epoch that is registered.
    pub epoch: Option<u64>,
    /// Up to which one the host is fenced.
    pub fenced: Option<u64>,
    /// In which one its machine was to be switched off and on, and isn't known to be on again.
    pub switch_on: Option<u64>,
}

impl Fencing {
    /// By a Node's annotations. What can't be read isn't there.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let said = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
        let words: Vec<&str> = said(FENCING).unwrap_or_default().split(',').collect();
        let has = |grade: &Grade| words.contains(&grade.as_str());
        let epoch = |name: &str| said(name).and_then(|epoch| epoch.parse::<u64>().ok());
        Fencing {
            // All others come to that.
            grade: Grade::ALL.into_iter().rev().find(has).filter(|_| has(&Grade::Lease)),
            epoch: epoch(LEASE_EPOCH),
            fenced: epoch(FENCED_EPOCH),
            switch_on: epoch(SWITCH_ON_EPOCH),
        }
    }

    /// Whether nothing runs any more on the host that stops with its lease, and nothing of that kind may be started there.
    pub fn is_fenced(&self) -> bool {
        self.grade.is_some() && self.epoch.is_some() && self.fenced >= self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_fenced_in_the_epoch_that_it_registered_if_it_promised_to_stop() {
        let node = |all: &[(&str, &str)]| {
            let all = all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Fencing::of(Some(&all))
        };
        let fenced = [(FENCING, "lease"), (LEASE_EPOCH, "7"), (FENCED_EPOCH, "7")];
        assert!(node(&fenced).is_fenced());
        assert!(!node(&fenced[1..]).is_fenced(), "it promised nothing");
        assert!(!node(&fenced[..2]).is_fenced());
        assert!(!node(&[fenced[0], fenced[2]]).is_fenced(), "nothing is registered");
        assert!(!node(&[fenced[0], (LEASE_EPOCH, "8"), fenced[2]]).is_fenced(), "it is back");
        assert!(!node(&[(FENCING, "hope"), fenced[1], fenced[2]]).is_fenced());
        let grades = ["lease", "lease,watchdog", "lease,agent", "lease,later", "watchdog", ""]
            .map(|said| node(&[(FENCING, said)]).grade);
        let (lease, watchdog, agent) = (Some(Grade::Lease), Some(Grade::Watchdog), Some(Grade::Agent));
        assert_eq!(grades, [lease, watchdog, agent, lease, None, None]);
        let both = Grade::listed(&[Grade::Lease, Grade::Watchdog]);
        assert_eq!(node(&[(FENCING, both.as_str())]).grade, Some(Grade::Watchdog));
        assert_eq!(node(&[(SWITCH_ON_EPOCH, "7")]), Fencing { switch_on: Some(7), ..Fencing::default() });
        assert_eq!(Fencing::of(None), Fencing::default());
    }
}
