//! Which host stands for which address. Decides without I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::announcement::{AddressKind, Announcement, Protocol};

/// How long a host stands for a service after it last said so: three announcements.
pub const FRESH: Duration = Duration::from_millis(300);
/// The most hosts that the table remembers: what claims more than these isn't a cluster of this machine.
const MOST_HOSTS: usize = 64;

/// An address that the switch keeps a socket on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
}

impl Frontend {
    pub fn socket(self) -> SocketAddr {
        (self.address, self.port).into()
    }
}

#[derive(Debug)]
struct Claim {
    target: SocketAddr,
    heard: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    host: String,
    target: SocketAddr,
}

#[derive(Debug, Default)]
struct Service {
    claims: BTreeMap<String, Claim>,
    turn: usize,
}

/// The table of the switch.
#[derive(Debug, Default)]
pub struct Table {
    /// The holders stay until others announce themselves, silent or not: so neighbours on a link keep an address in
    /// their ARP tables. One that is heard and announces an address no more has given it up.
    vips: BTreeMap<Frontend, Option<Holder>>,
    /// The one that is there before anybody announces it.
    first: Option<Frontend>,
    services: BTreeMap<Frontend, Service>,
}

impl Table {
    /// A table with a virtual address that nobody has announced yet.
    pub fn with_vip(vip: Frontend) -> Self {
        Self { vips: BTreeMap::from([(vip, None)]), first: Some(vip), services: BTreeMap::new() }
    }

    /// Takes in what a host announced. True if connections go elsewhere from now on, or somewhere at all.
    pub fn announced(&mut self, announcement: &Announcement, now: Instant) -> bool {
        let mut is_news = false;
        let mut listed = BTreeSet::new();
        for entry in &announcement.entries {
            let frontend = Frontend { protocol: entry.protocol, address: entry.address, port: entry.port };
            match entry.kind {
                AddressKind::Vip => {
                    let holder = Holder { host: announcement.host.clone(), target: entry.target };
                    let former = self.vips.insert(frontend, Some(holder)).flatten();
                    is_news |= former.is_none_or(|former| former.target != entry.target);
                    listed.insert(frontend);
                }
                AddressKind::Service if !self.vips.contains_key(&frontend) => {
                    let service = self.services.entry(frontend).or_default();
                    if service.claims.len() < MOST_HOSTS || service.claims.contains_key(&announcement.host) {
                        let claim = Claim { target: entry.target, heard: now };
                        let former = service.claims.insert(announcement.host.clone(), claim);
                        is_news |= former.is_none_or(|former| former.target != entry.target);
                    }
                    listed.insert(frontend);
                }
                AddressKind::Service => {}
            }
        }
        let first = self.first;
        self.vips.retain(|frontend, holder| {
            let is_its = holder.as_ref().is_some_and(|holder| holder.host == announcement.host);
            !is_its || listed.contains(frontend) || Some(*frontend) == first
        });
        for (frontend, service) in &mut self.services {
            if !listed.contains(frontend) {
                service.claims.remove(&announcement.host);
            }
        }
        self.expire(now);
        is_news
    }

    /// Whether the address is one that only one host holds at a time, and that is not the one at `holder`.
    pub fn is_elsewhere(&self, frontend: Frontend, holder: SocketAddr) -> bool {
        self.vips.get(&frontend).and_then(Option::as_ref).is_some_and(|now| now.target != holder)
    }

    /// Forgets the services of hosts that fell silent.
    pub fn expire(&mut self, now: Instant) {
        self.services.retain(|_, service| {
            service.claims.retain(|_, claim| is_fresh(claim, now));
            !service.claims.is_empty()
        });
    }

    /// The addresses to keep sockets on.
    pub fn frontends(&self) -> BTreeSet<Frontend> {
        self.vips.keys().chain(self.services.keys()).copied().collect()
    }

    /// Where a new connection goes: the targets to try, in this order.
    pub fn targets(&mut self, frontend: Frontend, now: Instant) -> Vec<SocketAddr> {
        if let Some(holder) = self.vips.get(&frontend) {
            return holder.iter().map(|holder| holder.target).collect();
        }
        let Some(service) = self.services.get_mut(&frontend) else { return Vec::new() };
        let mut targets: Vec<SocketAddr> =
            service.claims.values().filter(|claim| is_fresh(claim, now)).map(|claim| claim.target).collect();
        if !targets.is_empty() {
            service.turn = (service.turn + 1) % targets.len();
            targets.rotate_left(service.turn);
        }
        targets
    }
}

fn is_fresh(claim: &Claim, now: Instant) -> bool {
    now.saturating_duration_since(claim.heard) <= FRESH
}

#[cfg(test)]
mod tests {
    use super::super::announcement::Entry;
    use super::*;

    const VIP: Frontend =
        Frontend { protocol: Protocol::Tcp, address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port: 1 };
    const SERVICE: Frontend = Frontend { port: 2, ..VIP };

    fn target(host: u8) -> SocketAddr {
        ([127, 0, host, 1], 6443).into()
    }

    fn says(host: u8, frontends: &[(AddressKind, Frontend)]) -> Announcement {
        let entry = |(kind, f): &(AddressKind, Frontend)| Entry {
            kind: *kind,
            address: f.address,
            port: f.port,
            protocol: f.protocol,
            target: target(host),
        };
        Announcement { host: format!("n{host}"), entries: frontends.iter().map(entry).collect() }
    }

    #[allow(clippy::disallowed_methods)] // Any moment will do as the first.
    fn moments() -> (Instant, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (start, move |ms| start + Duration::from_millis(ms))
    }

    #[test]
    fn a_virtual_address_stays_with_the_last_that_announced_it() {
        let (start, at) = moments();
        let mut table = Table::with_vip(VIP);
        assert_eq!(table.targets(VIP, start), []);
        assert!(table.announced(&says(1, &[(AddressKind::Vip, VIP)]), start));
        assert!(!table.announced(&says(1, &[(AddressKind::Vip, VIP)]), at(40)), "said before");
        table.announced(&says(2, &[]), at(50));
        table.expire(at(60_000));
        assert_eq!(table.targets(VIP, at(60_000)), [target(1)], "silence takes nothing away");
        assert!(!table.is_elsewhere(VIP, target(1)));
        assert!(table.announced(&says(2, &[(AddressKind::Vip, VIP)]), at(60_001)));
        assert!(table.is_elsewhere(VIP, target(1)) && !table.is_elsewhere(VIP, target(2)));
        assert_eq!(table.targets(VIP, at(60_001)), [target(2)]);
        assert_eq!(table.frontends(), BTreeSet::from([VIP]));
    }

    #[test]
    fn an_address_of_a_service_goes_when_its_holder_gives_it_up_and_nobody_else_has_it() {
        let (start, at) = moments();
        let (mut table, balanced) = (Table::with_vip(VIP), Frontend { port: 3, ..VIP });
        table.announced(&says(1, &[(AddressKind::Vip, balanced), (AddressKind::Vip, VIP)]), start);
        assert_eq!(table.targets(balanced, at(60_000)), [target(1)], "silence takes nothing away");
        assert!(table.announced(&says(2, &[(AddressKind::Vip, balanced)]), at(60_001)));
        table.announced(&says(1, &[]), at(60_002));
        assert_eq!(table.targets(balanced, at(60_002)), [target(2)], "it is another one's");
        assert_eq!(table.targets(VIP, at(60_002)), [target(1)]);
        table.announced(&says(2, &[]), at(60_003));
        assert_eq!(table.frontends(), BTreeSet::from([VIP]));
    }

    #[test]
    fn a_service_goes_round_those_heard_lately() {
        let (start, at) = moments();
        let mut table = Table::with_vip(VIP);
        for host in [1, 2, 3] {
            assert!(table.announced(&says(host, &[(AddressKind::Service, SERVICE)]), start));
        }
        assert!(!table.is_elsewhere(SERVICE, target(1)), "every host holds it");
        let first: BTreeSet<_> = (0..3).map(|_| table.targets(SERVICE, at(1))[0]).collect();
        assert_eq!(first, BTreeSet::from([target(1), target(2), target(3)]));
        table.announced(&says(1, &[(AddressKind::Service, SERVICE)]), at(299));
        assert_eq!(table.targets(SERVICE, at(300)).len(), 3);
        assert_eq!(table.targets(SERVICE, at(301)), [target(1)]);
        table.expire(at(600));
        assert_eq!(table.frontends(), BTreeSet::from([VIP]));
    }

    #[test]
    fn a_service_no_longer_listed_is_given_up_at_once() {
        let (start, at) = moments();
        let mut table = Table::with_vip(VIP);
        table.announced(&says(1, &[(AddressKind::Service, SERVICE)]), start);
        table.announced(&says(2, &[(AddressKind::Service, SERVICE)]), start);
        table.announced(&says(1, &[]), at(1));
        assert_eq!(table.targets(SERVICE, at(1)), [target(2)]);
    }

    #[test]
    fn hosts_that_claim_to_be_many_are_not_remembered_without_end() {
        let (start, _) = moments();
        let mut table = Table::with_vip(VIP);
        for n in 0..1000 {
            let host = format!("x{n}");
            table.announced(&Announcement { host, ..says(1, &[(AddressKind::Service, SERVICE)]) }, start);
        }
        assert_eq!(table.targets(SERVICE, start).len(), MOST_HOSTS);
    }
}
