//! What a host does about the addresses that it is to hold, or holds. Decides without I/O.
//!
//! Why no two hosts hold one address: a host has it on its link only while (a) the newest Lease of the address that it has seen says that this very
//! process took it, and it hasn't given up what it took then, and (b) the host's lease is held in the epoch that stands there. Nobody but this
//! host writes that it takes the address, or gives it up, and it does so for the version that it saw: so while the Lease says that another one holds it, this
//! one has given it up and said so afterwards, or the leader has freed it. The leader does that once the epoch is over by what the members say,
//! and then (b) is over, too. What was given up is never taken on again by what an old state says: each taking has a number.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use membership::lease::Epoch;
use objects::{AddressHolder, AddressLease, AddressPool};
use store::Revision;

/// What a host knows and has.
#[derive(Debug)]
pub(crate) struct Holding {
    host: String,
    process: u64,
    pool: AddressPool,
    known: BTreeMap<Ipv4Addr, AddressLease>,
    /// What is here, or may be.
    here: BTreeMap<Ipv4Addr, Taking>,
    /// Up to which number each address was given up here.
    given_up: BTreeMap<Ipv4Addr, u64>,
    is_leaving: bool,
}

/// The taking of an address: which one, and in which epoch of the host's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taking {
    pub number: u64,
    pub epoch: Epoch,
}

/// Something to do about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Put it on the link, if the lease still holds then.
    Put(Taking),
    /// Take it from the link.
    Remove,
    /// Write that it is taken, or given up: what there is, and what is to be made of it.
    Write(Box<(AddressLease, AddressLease)>),
}

impl Holding {
    /// Of a process that has nothing.
    pub fn new(host: String, process: u64, pool: AddressPool) -> Self {
        let (known, here, given_up) = Default::default();
        Holding { host, process, pool, known, here, given_up, is_leaving: false }
    }

    /// The Lease of an address is this from now on; there is none if it is nothing.
    pub fn learn(&mut self, address: Ipv4Addr, lease: Option<AddressLease>) {
        match lease {
            Some(lease) => drop(self.known.insert(address, lease)),
            None => drop(self.known.remove(&address)),
        }
    }

    /// All Leases, as they are from now on.
    pub fn learn_all(&mut self, leases: impl IntoIterator<Item = AddressLease>) {
        self.known = leases.into_iter().map(|lease| (lease.address, lease)).collect();
    }

    /// Which version of an address's Lease is known.
    pub fn version(&self, address: Ipv4Addr) -> Option<Revision> {
        self.known.get(&address)?.version.parse().ok()
    }

    /// From now on all is given up, and nothing taken: this host is about to end.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// An address is about to be put on the link.
    pub fn puts(&mut self, address: Ipv4Addr, taking: Taking) {
        self.here.insert(address, taking);
    }

    /// An address has been taken from the link.
    pub fn removed(&mut self, address: Ipv4Addr) {
        if let Some(Taking { number, .. }) = self.here.remove(&address) {
            let given_up = self.given_up.entry(address).or_default();
            *given_up = number.max(*given_up);
        }
    }

    /// What is here.
    pub fn here(&self) -> impl Iterator<Item = (Ipv4Addr, Taking)> + '_ {
        self.here.iter().map(|(address, taking)| (*address, *taking))
    }

    /// What is to be done, given the epoch in which the host's lease is held now. What gives up comes first.
    pub fn steps(&self, held: Option<Epoch>) -> Vec<(Ipv4Addr, Step)> {
        let mut steps = Vec::new();
        for (address, taking) in self.here() {
            if self.taking(address, held) != Some(taking) {
                steps.push((address, Step::Remove));
            }
        }
        for (address, lease) in &self.known {
            if self.here.contains_key(address) {
                continue;
            }
            let step = match self.taking(*address, held) {
                Some(taking) => Some(Step::Put(taking)),
                None => self.word(lease, held).map(|next| Step::Write(Box::new((lease.clone(), next)))),
            };
            steps.extend(step.map(|step| (*address, step)));
        }
        steps
    }

    /// By which taking an address is to be here; nothing if it isn't.
    fn taking(&self, address: Ipv4Addr, held: Option<Epoch>) -> Option<Taking> {
        let lease = self.known.get(&address)?;
        let AddressHolder { host, epoch, process } = lease.holder.as_ref()?;
        let is_mine = *host == self.host && *process == self.process && held == Some(*epoch);
        let is_new = self.given_up.get(&address).is_none_or(|given_up| *given_up < lease.number);
        (is_mine && is_new && self.is_to_hold(lease))
            .then_some(Taking { number: lease.number, epoch: *epoch })
    }

    fn is_to_hold(&self, lease: &AddressLease) -> bool {
        !self.is_leaving && lease.wanted.as_deref() == Some(&*self.host) && self.pool.contains(lease.address)
    }

    /// What this host makes of a Lease whose address isn't here.
    fn word(&self, lease: &AddressLease, held: Option<Epoch>) -> Option<AddressLease> {
        let is_own = lease.holder.as_ref().map(|holder| holder.host == self.host);
        match (is_own, held) {
            // Of another one, who says so when it isn't any more, or of one that was: it must not be taken from it.
            (Some(false), _) => None,
            // What it held in a former epoch, or as a former process, was given up before this one began.
            (_, Some(epoch)) if self.is_to_hold(lease) => {
                let by = AddressHolder { host: self.host.clone(), epoch, process: self.process };
                Some(lease.taken(by))
            }
            (Some(true), _) if self.is_leaving => Some(lease.declined(&self.host)),
            // Without its lease it reaches nobody who could write it; and the leader knows.
            (Some(true), Some(_)) => Some(lease.released()),
            (Some(true), None) | (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 200);

    fn holding() -> Holding {
        Holding::new("n1".into(), 9, AddressPool::new([(ADDRESS, ADDRESS)]))
    }

    fn wanted(host: &str) -> AddressLease {
        AddressLease::new(ADDRESS, "d/web".into(), Some(host.into()))
    }

    /// The only step.
    fn step(holding: &Holding, held: Option<Epoch>) -> Option<Step> {
        let mut steps = holding.steps(held);
        assert!(steps.len() <= 1, "{steps:?}");
        steps.pop().map(|(_, step)| step)
    }

    fn written(step: Option<Step>) -> AddressLease {
        match step {
            Some(Step::Write(change)) => change.1,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_is_taken_held_and_given_up_in_this_order() {
        let mut n1 = holding();
        n1.learn(ADDRESS, Some(wanted("n1")));
        assert_eq!(step(&n1, None), None, "without a lease nothing is taken");
        let taken = written(step(&n1, Some(5)));
        assert_eq!(taken.holder, Some(AddressHolder { host: "n1".into(), epoch: 5, process: 9 }));
        n1.learn(ADDRESS, Some(taken.clone()));
        let taking = Taking { number: 1, epoch: 5 };
        assert_eq!(step(&n1, Some(5)), Some(Step::Put(taking)));
        n1.puts(ADDRESS, taking);
        assert_eq!(step(&n1, Some(5)), None);
        // Another one is to hold it: first it is taken from the link, and then that is said.
        let moved = AddressLease { wanted: Some("n2".into()), ..taken.clone() };
        n1.learn(ADDRESS, Some(moved.clone()));
        assert_eq!(step(&n1, Some(5)), Some(Step::Remove));
        n1.removed(ADDRESS);
        assert_eq!(written(step(&n1, Some(5))), moved.released());
        // What an old state says brings nothing back.
        n1.learn(ADDRESS, Some(taken.clone()));
        assert_eq!(
            written(step(&n1, Some(5))).number,
            2,
            "it would have to take it anew, and is refused that"
        );
        n1.learn(ADDRESS, None);
        assert_eq!(step(&n1, Some(5)), None);
    }

    #[test]
    fn with_the_lease_or_the_process_all_is_given_up() {
        let mut n1 = holding();
        let by = AddressHolder { host: "n1".into(), epoch: 5, process: 9 };
        let taken = wanted("n1").taken(by.clone());
        n1.learn(ADDRESS, Some(taken.clone()));
        n1.puts(ADDRESS, Taking { number: 1, epoch: 5 });
        assert_eq!(step(&n1, None), Some(Step::Remove), "its lease is over");
        n1.removed(ADDRESS);
        assert_eq!(step(&n1, None), None, "it reaches nobody");
        let again = written(step(&n1, Some(6)));
        assert_eq!(
            (again.holder.map(|holder| holder.epoch), again.number),
            (Some(6), 2),
            "in the next epoch"
        );

        let mut next = Holding::new("n1".into(), 10, AddressPool::new([(ADDRESS, ADDRESS)]));
        next.learn(ADDRESS, Some(taken.clone()));
        assert_eq!(
            written(step(&next, Some(5))).number,
            2,
            "another process takes it anew, in the same epoch too"
        );
        next.leave();
        assert_eq!(written(step(&next, Some(5))), taken.declined("n1"));
        next.learn(ADDRESS, Some(wanted("n1")));
        assert_eq!(step(&next, Some(5)), None, "a host that leaves takes nothing");
    }

    #[test]
    fn what_is_another_s_or_in_no_pool_is_left_alone() {
        let mut n1 = holding();
        let by = AddressHolder { host: "n2".into(), epoch: 5, process: 9 };
        n1.learn(ADDRESS, Some(wanted("n1").taken(by)));
        assert_eq!(step(&n1, Some(5)), None, "until that one has given it up");
        let elsewhere = AddressLease { address: Ipv4Addr::new(192, 0, 2, 1), ..wanted("n1") };
        n1.learn_all([elsewhere]);
        assert_eq!(step(&n1, Some(5)), None);
    }
}
