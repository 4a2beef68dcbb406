//! The cluster's names, kept change by change: without I/O, and in work that follows what changed.

mod find;
mod read;
mod reverse;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hickory_proto::rr::Name;
use ipnet::IpNet;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use membership::Hosts;
use objects::Kind;
use store::{Event, KeyRange, KeyValue, Revision, State};

pub use find::Found;
use read::{Endpoint, Slice, Spec};

/// Which of the names `10-244-1-7.NAMESPACE.pod.cluster.local` there are, as CoreDNS' setting `pods` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodNames {
    /// Those of pods that there are.
    #[default]
    Verified,
    /// Those of every address in a namespace that there is.
    Insecure,
    /// None.
    Disabled,
}

/// What the names depend on beside the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones {
    /// The cluster's domain, which all its names are in: `cluster.local.`.
    pub domain: Name,
    /// Networks whose addresses have names here and nowhere else: those of the services and the pods.
    pub networks: Vec<IpNet>,
    /// The address of this very service, which names it as the zones' server.
    pub server: IpAddr,
    /// Which names pods have.
    pub pods: PodNames,
}

/// The kinds of objects that names come from, as prefixes of their keys.
pub(crate) fn kinds() -> [String; 4] {
    [prefix_of::<Namespace>(), prefix_of::<Service>(), prefix_of::<EndpointSlice>(), prefix_of::<Pod>()]
}

/// All names of a cluster, as its objects have them.
///
/// Objects and hosts go in by [`load`](Records::load), [`apply`](Records::apply) and [`hosts`](Records::hosts), in any order;
/// [`find`](Records::find) answers what they amount to, whichever way they came to be so.
///
/// Between two calls: `of_slice` names exactly the slices that `namespaces` holds, and each Service's `endpoints` are those
/// of its slices; `reverse` holds exactly the addresses of Services and endpoints, `pods` exactly those of `of_pod`.
#[derive(Debug, Clone, PartialEq)]
pub struct Records {
    zones: Zones,
    /// That of the last change.
    revision: Revision,
    namespaces: HashMap<Box<str>, NamespaceNames>,
    /// Which Service each slice is of, by the slices' keys.
    of_slice: HashMap<Bytes, ServiceKey>,
    reverse: HashMap<IpAddr, BTreeSet<Owner>>,
    pods: HashMap<IpAddr, Vec<PodAt>>,
    of_pod: HashMap<Bytes, Vec<IpAddr>>,
    silent: HashSet<Box<str>>,
}

/// A Service's namespace and name.
type ServiceKey = (Box<str>, Box<str>);

/// What has names in a namespace. The Namespace itself may come last, and go first.
#[derive(Debug, Clone, Default, PartialEq)]
struct NamespaceNames {
    exists: bool,
    services: HashMap<Box<str>, ServiceNames>,
}

/// What is known of one Service. It may be slices alone: they can come first, and go last.
#[derive(Debug, Clone, Default, PartialEq)]
struct ServiceNames {
    spec: Option<Spec>,
    slices: BTreeMap<Bytes, Slice>,
    endpoints: Vec<Endpoint>,
    /// The places in `endpoints` of each name.
    by_name: HashMap<Box<str>, Vec<usize>>,
}

/// Whose an address is: a Service's own, or that of an endpoint by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    /// None comes first: a Service's own name is the address' better one.
    endpoint: Option<Box<str>>,
    service: ServiceKey,
}

/// A pod at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PodAt {
    key: Bytes,
    namespace: Arc<str>,
    on_host: bool,
}

impl Records {
    /// Of a cluster without objects.
    pub fn new(zones: Zones) -> Self {
        Records {
            zones,
            revision: Revision::ZERO,
            namespaces: HashMap::new(),
            of_slice: HashMap::new(),
            reverse: HashMap::new(),
            pods: HashMap::new(),
            of_pod: HashMap::new(),
            silent: HashSet::new(),
        }
    }

    /// The same with no object known.
    pub(crate) fn without_objects(&self) -> Self {
        Records { silent: self.silent.clone(), ..Records::new(self.zones.clone()) }
    }

    /// Takes all objects from a state; those that it doesn't have are gone.
    pub fn load(&mut self, state: &State) {
        *self = self.without_objects();
        let mut stale = BTreeSet::new();
        for prefix in kinds() {
            state.range(&KeyRange::prefix(prefix)).for_each(|kv| self.put(kv, &mut stale));
        }
        self.settle(stale);
        self.revision = state.revision();
    }

    /// Takes changes of objects in; of kinds that have no names they pass by.
    pub fn apply<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        let mut stale = BTreeSet::new();
        for event in events {
            match event {
                Event::Put { current, .. } => self.put(current, &mut stale),
                Event::Delete { previous, .. } => self.delete(&previous.key, &mut stale),
            }
            // Changes of one kind come in order, those of several may not.
            self.revision = self.revision.max(event.revision());
        }
        self.settle(stale);
    }

    /// Takes in who is silent: a silent host's endpoints have no names, as they get no callers from the proxies.
    /// Tells whether anything changed.
    pub fn hosts(&mut self, hosts: &Hosts) -> bool {
        let silent = hosts.0.iter().filter(|(_, known)| known.silent);
        let silent: HashSet<Box<str>> = silent.map(|(name, _)| name.as_str().into()).collect();
        let changed = silent != self.silent;
        self.silent = silent;
        changed
    }

    /// The namespace of the one pod at an address; none if it is several pods' or a host's.
    pub fn namespace_at(&self, address: IpAddr) -> Option<&str> {
        match self.pods.get(&address)?.as_slice() {
            [pod] if !pod.on_host => Some(&pod.namespace),
            _ => None,
        }
    }

    /// The zone that the cluster's names are in.
    pub fn domain(&self) -> &Name {
        &self.zones.domain
    }

    fn put(&mut self, kv: &KeyValue, stale: &mut BTreeSet<ServiceKey>) {
        let Some(place) = objects::parse(&kv.key) else { return };
        match (place.group, place.resource) {
            (Service::GROUP, Service::PLURAL) => {
                let spec = objects::decode::<Service>(kv).ok().and_then(|service| Spec::of(&service));
                self.set_spec((place.namespace.into(), place.name.into()), spec, stale);
            }
            (EndpointSlice::GROUP, EndpointSlice::PLURAL) => {
                let slice = objects::decode::<EndpointSlice>(kv).ok().and_then(|slice| Slice::of(&slice));
                self.set_slice(&kv.key, place.namespace, slice, stale);
            }
            (Pod::GROUP, Pod::PLURAL) => self.set_pod(&kv.key, place.namespace, read::Pod::read(kv)),
            (Namespace::GROUP, Namespace::PLURAL) => self.set_namespace(place.name, true),
            _ => {}
        }
    }

    fn delete(&mut self, key: &Bytes, stale: &mut BTreeSet<ServiceKey>) {
        let Some(place) = objects::parse(key) else { return };
        match (place.group, place.resource) {
            (Service::GROUP, Service::PLURAL) => {
                self.set_spec((place.namespace.into(), place.name.into()), None, stale);
            }
            (EndpointSlice::GROUP, EndpointSlice::PLURAL) => {
                self.set_slice(key, place.namespace, None, stale)
            }
            (Pod::GROUP, Pod::PLURAL) => self.set_pod(key, place.namespace, read::Pod::default()),
            (Namespace::GROUP, Namespace::PLURAL) => self.set_namespace(place.name, false),
            _ => {}
        }
    }

    fn set_namespace(&mut self, name: &str, exists: bool) {
        self.namespaces.entry(name.into()).or_default().exists = exists;
        self.forget_if_empty(name);
    }

    fn service(&mut self, (namespace, name): &ServiceKey) -> &mut ServiceNames {
        let namespace = self.namespaces.entry(namespace.clone()).or_default();
        namespace.services.entry(name.clone()).or_default()
    }

    fn set_spec(&mut self, key: ServiceKey, spec: Option<Spec>, stale: &mut BTreeSet<ServiceKey>) {
        let own = |spec: &Option<Spec>| match spec {
            Some(Spec::Own(addresses, _)) => addresses.clone(),
            _ => Vec::new(),
        };
        let service = self.service(&key);
        let (before, now) = (own(&service.spec), own(&spec));
        service.spec = spec;
        let owner = Owner { endpoint: None, service: key.clone() };
        before.iter().for_each(|address| self.disown(*address, &owner));
        now.iter().for_each(|address| self.own(*address, owner.clone()));
        stale.insert(key);
    }

    fn set_slice(
        &mut self,
        key: &Bytes,
        namespace: &str,
        slice: Option<Slice>,
        stale: &mut BTreeSet<ServiceKey>,
    ) {
        let now = slice.as_ref().map(|slice| (Box::from(namespace), slice.service.clone()));
        let before = match &now {
            Some(service) => self.of_slice.insert(key.clone(), service.clone()),
            None => self.of_slice.remove(key),
        };
        // Its label may name another Service than before.
        if let Some(before) = before.filter(|before| Some(before) != now.as_ref()) {
            self.service(&before).slices.remove(key);
            stale.insert(before);
        }
        if let (Some(service), Some(slice)) = (now, slice) {
            let known = self.service(&service);
            // Most changes of slices are of what has no name, such as whether an endpoint still serves.
            if known.slices.get(key) != Some(&slice) {
                known.slices.insert(key.clone(), slice);
                stale.insert(service);
            }
        }
    }

    fn set_pod(&mut self, key: &Bytes, namespace: &str, pod: read::Pod) {
        for address in self.of_pod.remove(key).into_iter().flatten() {
            if let Some(pods) = self.pods.get_mut(&address) {
                pods.retain(|known| known.key != *key);
                if pods.is_empty() {
                    self.pods.remove(&address);
                }
            }
        }
        if pod.addresses.is_empty() {
            return;
        }
        let namespace = objects::shared_text(namespace);
        for address in &pod.addresses {
            let at = PodAt { key: key.clone(), namespace: namespace.clone(), on_host: pod.on_host };
            let pods = self.pods.entry(*address).or_default();
            let place = pods.partition_point(|known| known.key < at.key);
            pods.insert(place, at);
        }
        self.of_pod.insert(key.clone(), pod.addresses);
    }

    /// Works out what the slices of these Services amount to.
    fn settle(&mut self, stale: BTreeSet<ServiceKey>) {
        for key in stale {
            let service = self.service(&key);
            let now = read::merged(&service.slices);
            if now != service.endpoints {
                let before = std::mem::replace(&mut service.endpoints, now.clone());
                service.by_name = HashMap::new();
                for (place, endpoint) in now.iter().enumerate() {
                    service.by_name.entry(endpoint.name.clone()).or_default().push(place);
                }
                let owner = |endpoint: Endpoint| {
                    let owner = Owner { endpoint: Some(endpoint.name), service: key.clone() };
                    (endpoint.address, owner)
                };
                for (address, owner) in before.into_iter().map(owner) {
                    self.disown(address, &owner);
                }
                for (address, owner) in now.into_iter().map(owner) {
                    self.own(address, owner);
                }
            }
            let namespace = self.namespaces.entry(key.0.clone()).or_default();
            let is_idle = |known: &ServiceNames| known.spec.is_none() && known.slices.is_empty();
            if namespace.services.get(&key.1).is_some_and(is_idle) {
                namespace.services.remove(&key.1);
            }
            self.forget_if_empty(&key.0);
        }
    }

    fn forget_if_empty(&mut self, name: &str) {
        let is_idle = |known: &NamespaceNames| !known.exists && known.services.is_empty();
        if self.namespaces.get(name).is_some_and(is_idle) {
            self.namespaces.remove(name);
        }
    }

    fn own(&mut self, address: IpAddr, owner: Owner) {
        self.reverse.entry(address).or_default().insert(owner);
    }

    fn disown(&mut self, address: IpAddr, owner: &Owner) {
        if let Some(owners) = self.reverse.get_mut(&address) {
            owners.remove(owner);
            if owners.is_empty() {
                self.reverse.remove(&address);
            }
        }
    }

    fn is_silent(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref().is_some_and(|node| self.silent.contains(node))
    }
}

fn prefix_of<T: Kind>() -> String {
    objects::kind_prefix(T::GROUP, T::PLURAL)
}

#[cfg(test)]
pub(crate) mod tests;
