//! Services of type LoadBalancer: each gets an address of the cluster's pool, and each address a host that holds it.
//!
//! Both stand in one Lease an address ([`AddressLease`]). To make it is to give the address to a Service: of two Services that get the same
//! one, the second's Lease is refused. Which host holds the address is in it, too ([`holders`]).
//!
//! What people see follows upstream's service controller (`k8s.io/cloud-provider/controllers/service`): who is asked for an address, the
//! status, the Events.

mod allocation;
mod holders;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use objects::AddressLease;
use store::{Event, KeyRange, State};

pub(crate) use allocation::Allocation;
pub(crate) use holders::Holders;

use crate::tables::Account;
use crate::touched::Touched;

/// The class (`spec.loadBalancerClass`) of Services that want an address of the pool and of nobody else. One without a class gets it too.
const CLASS: &str = "holdfast.dev/pool";
/// Upstream's name for who does this.
const COMPONENT: &str = "service-controller";

/// The Leases of all addresses, by what is asked of them.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    all: BTreeMap<Ipv4Addr, AddressLease>,
    of_service: HashMap<String, BTreeSet<Ipv4Addr>>,
    /// Those that a host holds or is to hold.
    of_host: HashMap<String, BTreeSet<Ipv4Addr>>,
    /// How many each host is to hold.
    load: HashMap<String, usize>,
    /// Those that no host is to hold.
    homeless: BTreeSet<Ipv4Addr>,
    /// Those that another host holds than is to.
    moving: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    fn get(&self, address: Ipv4Addr) -> Option<&AddressLease> {
        self.all.get(&address)
    }

    fn of_service(&self, service: &str) -> impl Iterator<Item = &AddressLease> {
        self.of_service.get(service).into_iter().flatten().filter_map(|address| self.all.get(address))
    }

    fn of_host(&self, host: &str) -> impl Iterator<Item = &AddressLease> {
        self.of_host.get(host).into_iter().flatten().filter_map(|address| self.all.get(address))
    }

    fn homeless(&self) -> impl Iterator<Item = &AddressLease> {
        self.homeless.iter().filter_map(|address| self.all.get(address))
    }

    fn set(&mut self, address: Ipv4Addr, lease: Option<AddressLease>) {
        if let Some(old) = self.all.remove(&address) {
            if let Some(service) = &old.service {
                remove(&mut self.of_service, service, address);
            }
            hosts_of(&old).for_each(|host| remove(&mut self.of_host, host, address));
            if let Some(wanted) = &old.wanted
                && let Some(count) = self.load.get_mut(wanted)
            {
                *count -= 1;
                if *count == 0 {
                    self.load.remove(wanted);
                }
            }
            self.homeless.remove(&address);
            self.moving.remove(&address);
        }
        let Some(new) = lease else { return };
        if let Some(service) = &new.service {
            self.of_service.entry(service.clone()).or_default().insert(address);
        }
        for host in hosts_of(&new) {
            self.of_host.entry(host.to_owned()).or_default().insert(address);
        }
        match &new.wanted {
            Some(wanted) => *self.load.entry(wanted.clone()).or_default() += 1,
            None => drop(self.homeless.insert(address)),
        }
        if new.holder.as_ref().map(|holder| &holder.host) != new.wanted.as_ref() {
            self.moving.insert(address);
        }
        self.all.insert(address, new);
    }
}

impl Account for Addresses {
    fn open(state: &State) -> Self {
        let mut addresses = Addresses::default();
        for kv in state.range(&KeyRange::prefix(AddressLease::prefix())) {
            if let Some(lease) = AddressLease::of(kv) {
                addresses.set(lease.address, Some(lease));
            }
        }
        addresses
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Put { current, .. } => {
                if let Some(lease) = AddressLease::of(current) {
                    self.set(lease.address, Some(lease));
                }
            }
            Event::Delete { previous, .. } => {
                if let Some(address) = AddressLease::address_at(&previous.key) {
                    self.set(address, None);
                }
            }
        }
    }
}

fn remove(index: &mut HashMap<String, BTreeSet<Ipv4Addr>>, name: &str, address: Ipv4Addr) {
    if let Some(addresses) = index.get_mut(name) {
        addresses.remove(&address);
        if addresses.is_empty() {
            index.remove(name);
        }
    }
}

fn hosts_of(lease: &AddressLease) -> impl Iterator<Item = &str> {
    let holder = lease.holder.as_ref().map(|holder| holder.host.as_str());
    lease.wanted.as_deref().into_iter().chain(holder)
}

/// The address whose Lease changed, if one did.
fn changed(change: &Touched) -> Option<Ipv4Addr> {
    AddressLease::address_at(&change.owned().latest()?.key)
}

/// Whether a Service gets an address here.
fn asks(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS)
        && service.metadata.deletion_timestamp.is_none()
}

/// The addresses that a Service shows.
fn shown(service: &Service) -> impl Iterator<Item = &str> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.as_deref())
}

#[cfg(test)]
mod tests {
    use objects::AddressHolder;

    use super::*;

    #[test]
    fn what_is_counted_follows_every_change() {
        let at = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        let lease = |last: u8, wanted: Option<&str>, holder: Option<&str>| AddressLease {
            holder: holder.map(|host| AddressHolder { host: host.to_owned(), epoch: 1, process: 1 }),
            ..AddressLease::new(at(last), format!("d/s{last}"), wanted.map(str::to_owned))
        };
        let mut addresses = Addresses::default();
        addresses.set(at(1), Some(lease(1, Some("n1"), None)));
        addresses.set(at(2), Some(lease(2, Some("n1"), Some("n2"))));
        addresses.set(at(3), Some(lease(3, None, None)));
        let of = |addresses: &Addresses, host: &str| {
            addresses.of_host(host).map(|lease| lease.address).collect::<Vec<_>>()
        };
        assert_eq!((of(&addresses, "n1"), of(&addresses, "n2")), (vec![at(1), at(2)], vec![at(2)]));
        assert_eq!((addresses.load["n1"], addresses.load.get("n2")), (2, None));
        assert_eq!(addresses.homeless, BTreeSet::from([at(3)]));
        assert_eq!(addresses.moving, BTreeSet::from([at(1), at(2)]));
        addresses.set(at(2), Some(lease(2, Some("n2"), Some("n2"))));
        assert_eq!(addresses.of_service("d/s2").count(), 1);
        assert_eq!((addresses.load["n1"], addresses.load["n2"], addresses.moving.len()), (1, 1, 1));
        (1..=3).for_each(|last| addresses.set(at(last), None));
        assert!(addresses.all.is_empty() && addresses.of_host.is_empty() && addresses.load.is_empty());
        assert!(
            addresses.of_service.is_empty() && addresses.homeless.is_empty() && addresses.moving.is_empty()
        );
    }
}
