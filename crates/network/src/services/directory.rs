//! Works out what changes of objects and of hosts change for callers of services: without I/O, and of the services that
//! changed alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use membership::Hosts;
use objects::Kind;
use store::{Event, KeyRange, KeyValue, State};

use super::hints::ZONE;
use super::read::{self, Slice};
use super::{Served, ServiceChange, ServiceId, ServicePort};
use crate::Targets;

/// All Services and EndpointSlices, as far as they say who serves what, and who is silent, as seen from one host.
///
/// Objects and hosts go in by [`load`](Directory::load), [`apply`](Directory::apply) and [`hosts`](Directory::hosts), in
/// any order, and [`changes`](Directory::changes) come out. All of them together, applied
/// to [`Services`](crate::Services), are what the objects amount to, whichever way they came to be so.
///
/// Between two calls: `of_slice` names exactly the slices that `services` holds; a Service whose `served` may differ
/// from what its ports and slices amount to is in `stale`; `on_host` counts the endpoints of all `served`.
#[derive(Debug)]
pub struct Directory {
    host: Box<str>,
    /// The host's zone, as its Node says.
    zone: Option<String>,
    targets: Targets,
    services: BTreeMap<ServiceId, Known>,
    /// Which Service each slice is of, by the slices' keys.
    of_slice: HashMap<Bytes, ServiceId>,
    /// Services to be worked out again.
    stale: BTreeSet<ServiceId>,
    silent: BTreeSet<String>,
    hosts: Vec<ServiceChange>,
    /// How many endpoints each host has: pairs of a Service and an address.
    on_host: HashMap<Arc<str>, usize>,
}

/// What is known of one Service. It may be slices alone: they can come first, and go last.
#[derive(Debug, Default)]
struct Known {
    /// Its ports without their endpoints.
    ports: Vec<ServicePort>,
    slices: BTreeMap<Bytes, Slice>,
    /// What has come out of it last.
    served: Option<Arc<Served>>,
}

impl Directory {
    /// One that knows nothing yet, on a host of this name. Endpoints that are no targets are left out.
    pub fn new(host: &str, targets: Targets) -> Self {
        Directory {
            host: host.into(),
            zone: None,
            targets,
            services: BTreeMap::new(),
            of_slice: HashMap::new(),
            stale: BTreeSet::new(),
            silent: BTreeSet::new(),
            hosts: Vec::new(),
            on_host: HashMap::new(),
        }
    }

    /// From now on these are the targets. What is known already was read with the former ones: [`load`](Directory::load) it
    /// again.
    pub fn aim(&mut self, targets: Targets) {
        self.targets = targets;
    }

    /// Takes all objects from a state; those that it doesn't have are gone.
    pub fn load(&mut self, state: &State) {
        // `served` stays: the next changes are what differs from it, and a Service that isn't in the state comes out
        // as gone.
        for (id, known) in &mut self.services {
            known.ports = Vec::new();
            known.slices = BTreeMap::new();
            self.stale.insert(id.clone());
        }
        self.of_slice.clear();
        for prefix in [prefix_of::<Service>(), prefix_of::<EndpointSlice>()] {
            state.range(&KeyRange::prefix(prefix)).for_each(|kv| self.put(kv));
        }
        let own = objects::key(Node::GROUP, Node::PLURAL, "", &self.host);
        self.set_node(state.get(own.as_bytes()).map(Arc::as_ref));
    }

    /// Takes one change of a Service, an EndpointSlice or the host's own Node in; others pass by.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Put { current, .. } => self.put(current),
            Event::Delete { previous, .. } => self.delete(&previous.key),
        }
    }

    /// Takes in who is silent.
    pub fn hosts(&mut self, hosts: &Hosts) {
        for (host, known) in &hosts.0 {
            if known.silent && self.silent.insert(host.clone()) {
                self.hosts.push(ServiceChange::Silent(host.clone()));
            }
        }
        self.silent.retain(|host| {
            let is_silent = hosts.is_silent(host);
            if !is_silent {
                self.hosts.push(ServiceChange::Heard(host.clone()));
            }
            is_silent
        });
    }

    /// What came of all that went in since the last time, hosts first; each Service is in it once at most, as it is now.
    pub fn changes(&mut self) -> Vec<ServiceChange> {
        let mut changes = std::mem::take(&mut self.hosts);
        for id in std::mem::take(&mut self.stale) {
            changes.extend(self.work_out(id));
        }
        changes
    }

    /// The silent hosts.
    pub fn silent(&self) -> &BTreeSet<String> {
        &self.silent
    }

    /// How many endpoints a host has, as of the last [`changes`](Directory::changes): pairs of a Service and an address.
    pub fn endpoints_on(&self, host: &str) -> usize {
        self.on_host.get(host).copied().unwrap_or_default()
    }

    /// Whether there is nothing of objects that are gone.
    #[cfg(test)]
    pub(super) fn keeps_nothing_idle(&self) -> bool {
        let used = |known: &Known| !known.ports.is_empty() || !known.slices.is_empty();
        let slices: usize = self.services.values().map(|known| known.slices.len()).sum();
        self.services.values().all(used) && slices == self.of_slice.len() && self.stale.is_empty()
    }

    fn put(&mut self, kv: &KeyValue) {
        let parts = objects::parse(&kv.key);
        let Some(place) = parts else { return };
        if (place.group, place.resource) == (Service::GROUP, Service::PLURAL) {
            let id = ServiceId { namespace: place.namespace.into(), name: place.name.into() };
            let ports = objects::decode::<Service>(kv).map(|service| read::ports_of(&service));
            self.set_ports(id, ports.unwrap_or_default());
        } else if (place.group, place.resource) == (EndpointSlice::GROUP, EndpointSlice::PLURAL) {
            let slice = objects::decode::<EndpointSlice>(kv).ok();
            let slice = slice.and_then(|slice| Slice::of(&slice, &self.targets, &self.host));
            self.set_slice(&kv.key, slice);
        } else if self.is_own_node(&place) {
            self.set_node(Some(kv));
        }
    }

    fn delete(&mut self, key: &Bytes) {
        let Some(place) = objects::parse(key) else { return };
        if (place.group, place.resource) == (Service::GROUP, Service::PLURAL) {
            let id = ServiceId { namespace: place.namespace.into(), name: place.name.into() };
            self.set_ports(id, Vec::new());
        } else if self.is_own_node(&place) {
            self.set_node(None);
        } else {
            self.set_slice(key, None);
        }
    }

    fn is_own_node(&self, place: &objects::ObjectKey<'_>) -> bool {
        (place.group, place.resource, place.name) == (Node::GROUP, Node::PLURAL, &*self.host)
    }

    fn set_node(&mut self, node: Option<&KeyValue>) {
        let node = node.and_then(|kv| objects::decode::<Node>(kv).ok());
        let label = node.and_then(|node| node.metadata.labels?.remove(ZONE));
        // A label without a value names no zone.
        let zone = label.filter(|zone| !zone.is_empty());
        if self.zone != zone {
            self.zone = zone;
            let asked = |known: &Known| known.slices.values().any(Slice::names_zones);
            let asking = self.services.iter().filter(|(_, known)| asked(known));
            self.stale.extend(asking.map(|(id, _)| id.clone()));
        }
    }

    fn set_ports(&mut self, id: ServiceId, ports: Vec<ServicePort>) {
        let known = self.services.entry(id.clone()).or_default();
        known.ports = ports;
        self.stale.insert(id);
    }

    fn set_slice(&mut self, key: &Bytes, slice: Option<Slice>) {
        let before = match &slice {
            Some(slice) => self.of_slice.insert(key.clone(), slice.service.clone()),
            None => self.of_slice.remove(key),
        };
        // Its label may name another Service than before.
        if let Some(before) = before
            && slice.as_ref().is_none_or(|slice| slice.service != before)
            && let Some(known) = self.services.get_mut(&before)
        {
            known.slices.remove(key);
            self.stale.insert(before);
        }
        if let Some(slice) = slice {
            let id = slice.service.clone();
            let known = self.services.entry(id.clone()).or_default();
            if known.slices.get(key) != Some(&slice) {
                known.slices.insert(key.clone(), slice);
                self.stale.insert(id);
            }
        }
    }

    fn work_out(&mut self, id: ServiceId) -> Option<ServiceChange> {
        let known = self.services.get_mut(&id)?;
        let ports = known.ports.iter().map(|port| ServicePort {
            endpoints: read::endpoints(
                known.slices.values(),
                &port.id.port,
                port.protocol,
                self.zone.as_deref(),
            ),
            ..port.clone()
        });
        let now = Served { id: id.clone(), ports: ports.collect() };
        let now = Some(now).filter(|served| !served.ports.is_empty());
        let is_known = known.served.as_deref() == now.as_ref();
        let now = if is_known { known.served.clone() } else { now.map(Arc::new) };
        let before = std::mem::replace(&mut known.served, now.clone());
        if known.ports.is_empty() && known.slices.is_empty() {
            self.services.remove(&id);
        }
        if is_known {
            return None;
        }
        for host in before.iter().flat_map(|served| hosts_of(served)) {
            if let Some(count) = self.on_host.get_mut(&host) {
                *count -= 1;
                if *count == 0 {
                    self.on_host.remove(&host);
                }
            }
        }
        for host in now.iter().flat_map(|served| hosts_of(served)) {
            *self.on_host.entry(host).or_default() += 1;
        }
        Some(now.map_or(ServiceChange::Gone(id), ServiceChange::Served))
    }
}

fn prefix_of<T: Kind>() -> String {
    objects::kind_prefix(T::GROUP, T::PLURAL)
}

/// The host of each address at which a Service is served.
fn hosts_of(served: &Served) -> Vec<Arc<str>> {
    let endpoints = served.ports.iter().flat_map(|port| &port.endpoints);
    let places = endpoints.filter_map(|endpoint| Some((endpoint.address.ip(), endpoint.node.clone()?)));
    let places: HashSet<(IpAddr, Arc<str>)> = places.collect();
    places.into_iter().map(|(_, host)| host).collect()
}
