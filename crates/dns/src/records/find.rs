//! What there is under a name, by the forms of Kubernetes' DNS specification 1.1.0
//! (`kubernetes/dns`, `docs/specification.md`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::read::{Endpoint, Spec, undashed};
use super::{PodNames, Records, ServiceNames};

/// For how long an answer holds, in seconds, and as long that there is none: CoreDNS' own default. Some programs keep answers
/// (most don't); an endpoint that is gone should not be asked for longer.
pub(super) const TTL: u32 = 5;
/// How many records one answer has at most: a message has 64 KiB, the longest name of a service 145 bytes, and `hickory-proto`
/// writes a name that was there before as a pointer for the first of them alone.
const MOST: usize = 400;
/// The version of the specification that the names follow.
const VERSION: &str = "1.1.0";
/// Of records that name a port, all are alike: priority and weight as CoreDNS gives them.
const PRIORITY: u16 = 0;
const WEIGHT: u16 = 100;

/// What there is under a name, of a type.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// These records, with others that say more about what they name.
    Records(Vec<Record>, Vec<Record>),
    /// The name stands for another one.
    Alias(Record, Name),
    /// Records of other types alone. With the start of the zone's authority.
    OtherTypes(Record),
    /// Nothing but names below it.
    NamesBelow(Record),
    /// No such name.
    Nothing(Record),
    /// The name isn't the cluster's to give.
    Outside,
}

/// A question: a name as it was written, and a type; and which of several equal answers comes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub name: &'a Name,
    pub kind: RecordType,
    pub turn: usize,
}

impl Asked<'_> {
    pub fn wants(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    pub fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), TTL, data)
    }
}

impl Records {
    /// What there is under `name` of the type `kind`. Of several addresses each comes first at another `turn`, so that callers who
    /// take the first spread.
    pub fn find(&self, name: &Name, kind: RecordType, turn: usize) -> Found {
        let lower = name.to_lowercase();
        let labels: Option<Vec<&str>> = lower.iter().map(|label| std::str::from_utf8(label).ok()).collect();
        let asked = Asked { name, kind, turn };
        let Some(labels) = labels else {
            // No name of an object has such letters.
            return if self.zones.domain.zone_of(name) { self.nothing() } else { Found::Outside };
        };
        if self.zones.domain.zone_of(name) {
            self.in_domain(asked, &labels[..labels.len() - usize::from(self.zones.domain.num_labels())])
        } else {
            self.in_reverse(asked, &labels)
        }
    }

    fn in_domain(&self, asked: Asked<'_>, labels: &[&str]) -> Found {
        let has_pods = self.zones.pods != PodNames::Disabled;
        match labels {
            [] => self.apex(asked, &self.zones.domain),
            ["dns-version"] if asked.wants(RecordType::TXT) => {
                Found::Records(vec![asked.record(RData::TXT(TXT::new(vec![VERSION.into()])))], Vec::new())
            }
            ["dns-version"] => self.other_types(),
            ["ns", "dns"] => self.addresses(asked, [self.zones.server].into_iter()),
            ["dns"] | ["svc"] => self.names_below(),
            ["pod"] if has_pods => self.names_below(),
            [namespace, "svc"] => self.namespace(namespace),
            [namespace, "pod"] if has_pods => self.namespace(namespace),
            [name, namespace, "svc"] => match self.service_at(namespace, name) {
                Some((service, spec)) => self.service_itself(asked, service, spec),
                None => self.nothing(),
            },
            [name, service, namespace, "svc"] => match self.service_at(namespace, service) {
                Some((service, spec)) => self.below_service(asked, service, spec, name),
                None => self.nothing(),
            },
            [port, protocol, service, namespace, "svc"] => {
                let underscored = || Some((port.strip_prefix('_')?, protocol.strip_prefix('_')?));
                match (self.service_at(namespace, service), underscored()) {
                    (Some((service, spec)), Some((port, protocol))) => {
                        self.port(asked, service, spec, port, protocol)
                    }
                    _ => self.nothing(),
                }
            }
            [address, namespace, "pod"] if has_pods => self.pod(asked, address, namespace),
            _ => self.nothing(),
        }
    }

    fn namespace(&self, name: &str) -> Found {
        let is_there = self.namespaces.get(name).is_some_and(|known| known.exists);
        if is_there { self.names_below() } else { self.nothing() }
    }

    fn service_at(&self, namespace: &str, name: &str) -> Option<(&ServiceNames, &Spec)> {
        let service = self.namespaces.get(namespace)?.services.get(name)?;
        // Slices alone are no Service.
        Some((service, service.spec.as_ref()?))
    }

    fn service_itself(&self, asked: Asked<'_>, service: &ServiceNames, spec: &Spec) -> Found {
        match spec {
            Spec::Own(addresses, _) => self.addresses(asked, addresses.iter().copied()),
            Spec::Headless => self.addresses(asked, self.heard(service).map(|endpoint| endpoint.address)),
            Spec::External(Some(target)) => {
                Found::Alias(asked.record(RData::CNAME(CNAME(target.clone()))), target.clone())
            }
            Spec::External(None) => self.other_types(),
        }
    }

    /// An endpoint by its name; or what the ports' names are below.
    fn below_service(&self, asked: Asked<'_>, service: &ServiceNames, spec: &Spec, name: &str) -> Found {
        if let Some(protocol) = name.strip_prefix('_') {
            let own = match spec {
                Spec::Own(_, ports) => ports.iter().any(|port| port.protocol == protocol),
                Spec::Headless => service
                    .slices
                    .values()
                    .flat_map(|slice| &slice.ports)
                    .any(|port| port.protocol == protocol),
                Spec::External(_) => false,
            };
            return if own { self.names_below() } else { self.nothing() };
        }
        let places = service.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let endpoints = places.iter().filter_map(|place| service.endpoints.get(*place));
        let addresses: Vec<IpAddr> =
            endpoints.filter(|endpoint| !self.is_silent(endpoint)).map(|endpoint| endpoint.address).collect();
        if addresses.is_empty() { self.nothing() } else { self.addresses(asked, addresses.into_iter()) }
    }

    fn port(
        &self,
        asked: Asked<'_>,
        service: &ServiceNames,
        spec: &Spec,
        name: &str,
        protocol: &str,
    ) -> Found {
        // The Service's name, as it was written in the question.
        let owner = asked.name.trim_to(asked.name.iter().count() - 2);
        let targets: Vec<(Name, u16, Vec<IpAddr>)> = match spec {
            Spec::Own(addresses, ports) => {
                let port = ports.iter().find(|port| &*port.name == name && port.protocol == protocol);
                port.map(|port| (owner, port.number, addresses.clone())).into_iter().collect()
            }
            Spec::Headless => self.endpoints_of_port(service, name, protocol, &owner),
            Spec::External(_) => Vec::new(),
        };
        if targets.is_empty() {
            return self.nothing();
        }
        if !asked.wants(RecordType::SRV) {
            return self.other_types();
        }
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        for (target, number, addresses) in turned(targets, asked.turn) {
            let address = |address: &IpAddr| Record::from_rdata(target.clone(), TTL, data_of(*address));
            additionals.extend(addresses.iter().map(address));
            answers.push(asked.record(RData::SRV(SRV::new(PRIORITY, WEIGHT, number, target))));
        }
        additionals.truncate(MOST);
        Found::Records(answers, additionals)
    }

    fn endpoints_of_port(
        &self,
        service: &ServiceNames,
        name: &str,
        protocol: &str,
        owner: &Name,
    ) -> Vec<(Name, u16, Vec<IpAddr>)> {
        let mut known: BTreeSet<(IpAddr, &str, u16)> = BTreeSet::new();
        for slice in service.slices.values() {
            let ports = slice.ports.iter().filter(|port| &*port.name == name && port.protocol == protocol);
            for port in ports {
                let heard = slice.endpoints.iter().filter(|endpoint| !self.is_silent(endpoint));
                known.extend(heard.map(|endpoint| (endpoint.address, &*endpoint.name, port.number)));
            }
        }
        let target = |(address, name, number): (IpAddr, &str, u16)| {
            // A name that would be too long can't be asked for either.
            Some((owner.prepend_label(name.as_bytes()).ok()?, number, vec![address]))
        };
        known.into_iter().filter_map(target).collect()
    }

    fn pod(&self, asked: Asked<'_>, label: &str, namespace: &str) -> Found {
        let Some(address) = undashed(label) else { return self.nothing() };
        let is_there = match self.zones.pods {
            PodNames::Verified => {
                let pods = self.pods.get(&address).map(Vec::as_slice).unwrap_or_default();
                pods.iter().any(|pod| &*pod.namespace == namespace)
            }
            PodNames::Insecure => self.namespaces.get(namespace).is_some_and(|known| known.exists),
            PodNames::Disabled => false,
        };
        if is_there { self.addresses(asked, [address].into_iter()) } else { self.nothing() }
    }

    fn heard<'a>(&'a self, service: &'a ServiceNames) -> impl Iterator<Item = &'a Endpoint> {
        service.endpoints.iter().filter(|endpoint| !self.is_silent(endpoint))
    }

    fn addresses(&self, asked: Asked<'_>, addresses: impl Iterator<Item = IpAddr>) -> Found {
        let kind_of = |address: &IpAddr| if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        let mut addresses: Vec<IpAddr> = addresses.filter(|address| asked.wants(kind_of(address))).collect();
        // One address may have two names.
        addresses.dedup();
        if addresses.is_empty() {
            return self.other_types();
        }
        let records = turned(addresses, asked.turn).map(|address| asked.record(data_of(address)));
        Found::Records(records.collect(), Vec::new())
    }

    /// The top of a zone: who answers for it.
    pub(super) fn apex(&self, asked: Asked<'_>, zone: &Name) -> Found {
        if asked.wants(RecordType::SOA) {
            return Found::Records(vec![self.authority(zone)], Vec::new());
        }
        match (asked.kind, self.server_name()) {
            (RecordType::NS, Some(server)) => {
                let address = Record::from_rdata(server.clone(), TTL, data_of(self.zones.server));
                Found::Records(vec![asked.record(RData::NS(NS(server)))], vec![address])
            }
            _ => Found::OtherTypes(self.authority(zone)),
        }
    }

    /// The start of a zone's authority, which says for how long it holds that there is nothing (RFC 2308). The times for
    /// secondary servers mean nothing here, and are CoreDNS' own.
    pub(super) fn authority(&self, zone: &Name) -> Record {
        let contact = self.zones.domain.prepend_label(b"hostmaster".as_slice()).ok();
        let server = self.server_name().unwrap_or_else(|| self.zones.domain.clone());
        // A serial number has 32 bits and goes round (RFC 1982).
        let serial = self.revision.0 as u32;
        let contact = contact.unwrap_or_else(|| self.zones.domain.clone());
        let soa = SOA::new(server, contact, serial, 7200, 1800, 86_400, TTL);
        Record::from_rdata(zone.clone(), TTL, RData::SOA(soa))
    }

    fn server_name(&self) -> Option<Name> {
        let dns = self.zones.domain.prepend_label(b"dns".as_slice()).ok()?;
        dns.prepend_label(b"ns".as_slice()).ok()
    }

    pub(super) fn nothing(&self) -> Found {
        Found::Nothing(self.authority(&self.zones.domain))
    }

    fn other_types(&self) -> Found {
        Found::OtherTypes(self.authority(&self.zones.domain))
    }

    fn names_below(&self) -> Found {
        Found::NamesBelow(self.authority(&self.zones.domain))
    }
}

pub(super) fn data_of(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

/// As many as an answer has room for, beginning with another one each turn.
pub(super) fn turned<T>(mut list: Vec<T>, turn: usize) -> impl Iterator<Item = T> {
    let by = turn.checked_rem(list.len()).unwrap_or(0);
    list.rotate_left(by);
    list.into_iter().take(MOST)
}
