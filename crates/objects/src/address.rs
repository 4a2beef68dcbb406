//! Addresses of Services of type LoadBalancer: of each one there is a Lease in `kube-system`, which says whose it is, which host is to hold
//! it, and which one does.
//!
//! The leader says who is to hold an address ([`wanted`](AddressLease::wanted)); the host writes that it takes it, and that it has given it
//! up. Nobody writes that another host takes it. The leader takes an address from a host once the host's lease of that epoch is over by what
//! the members say (`membership::lease`), and then the host has given it up by itself. Each write holds for the version that was looked at:
//! so of two that take an address the second is refused, and no two hosts hold one.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use machinery::Object;
use serde_json::{Value, json};
use store::{KeyValue, State};

use crate::{Delete, LEASE_EPOCH, TypedRef, Write};

const GROUP: &str = "coordination.k8s.io";
const PLURAL: &str = "leases";
/// Where the Leases of addresses lie.
pub const ADDRESS_NAMESPACE: &str = "kube-system";
/// What their names begin with, before the address.
const PREFIX: &str = "load-balancer-";
/// The annotation with the Service that has the address, `NAMESPACE/NAME`.
const SERVICE: &str = "holdfast.dev/service";
/// The annotation with the host that is to hold the address.
const WANTED: &str = "holdfast.dev/wanted-holder";
/// The annotation with the host that had the address or was to have it last, and should only get it again if no other can hold it.
const DECLINED: &str = "holdfast.dev/declined-by";
/// The annotation that tells the processes of one host apart.
const PROCESS: &str = "holdfast.dev/process";

/// A Service's address, as its Lease has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressLease {
    /// The address.
    pub address: Ipv4Addr,
    /// The Service that has it, `NAMESPACE/NAME`; none while it is being given back.
    pub service: Option<String>,
    /// The host that is to hold it.
    pub wanted: Option<String>,
    /// The host that held it, or was to, and didn't: another one is better.
    pub declined: Option<String>,
    /// Who holds it.
    pub holder: Option<AddressHolder>,
    /// How often it was taken. So a host tells what it holds from what it has given up, however late it reads.
    pub number: u64,
    /// The version that this is; empty if it isn't stored yet.
    pub version: String,
}

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressHolder {
    /// The host.
    pub host: String,
    /// The epoch of its lease in which it took the address, and with which it gives it up.
    pub epoch: u64,
    /// Which of its processes: a later one takes the address anew.
    pub process: u64,
}

impl AddressLease {
    /// A new one for a Service.
    pub fn new(address: Ipv4Addr, service: String, wanted: Option<String>) -> Self {
        let (declined, holder) = Default::default();
        AddressLease {
            address,
            service: Some(service),
            wanted,
            declined,
            holder,
            number: 0,
            version: String::new(),
        }
    }

    /// The key of an address's Lease in the store.
    pub fn key(address: Ipv4Addr) -> String {
        crate::key(GROUP, PLURAL, ADDRESS_NAMESPACE, &name(address))
    }

    /// What the keys of all of them begin with.
    pub fn prefix() -> String {
        crate::key(GROUP, PLURAL, ADDRESS_NAMESPACE, PREFIX)
    }

    /// The address of whose Lease this is the name; nothing if it is another one's.
    pub fn address_of(name: &str) -> Option<Ipv4Addr> {
        name.strip_prefix(PREFIX)?.parse().ok()
    }

    /// The address of whose Lease this is the key in the store.
    pub fn address_at(key: &[u8]) -> Option<Ipv4Addr> {
        let place = crate::parse(key)?;
        let is_one = (place.group, place.resource, place.namespace) == (GROUP, PLURAL, ADDRESS_NAMESPACE);
        is_one.then(|| Self::address_of(place.name)).flatten()
    }

    /// That in a stored value; nothing if it is none.
    pub fn of(kv: &KeyValue) -> Option<Self> {
        let address = Self::address_at(&kv.key)?;
        let lease: Value = serde_json::from_slice(&kv.value.bytes()).ok()?;
        Some(Self::read(address, &lease, kv.mod_revision.to_string()))
    }

    /// That in a Lease as the API shows it; nothing if it is none.
    pub fn of_lease(lease: &Value) -> Option<Self> {
        let address = Self::address_of(lease["metadata"]["name"].as_str()?)?;
        let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        Some(Self::read(address, lease, version.to_owned()))
    }

    /// That of an address in a state.
    pub fn get(state: &State, address: Ipv4Addr) -> Option<Self> {
        state.get(Self::key(address).as_bytes()).and_then(|kv| Self::of(kv))
    }

    fn read(address: Ipv4Addr, lease: &Value, version: String) -> Self {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let said = |name: &str| text(&lease["metadata"]["annotations"][name]);
        let number = |name: &str| said(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        let holder = text(&lease["spec"]["holderIdentity"]).map(|host| AddressHolder {
            host,
            epoch: number(LEASE_EPOCH),
            process: number(PROCESS),
        });
        AddressLease {
            address,
            service: said(SERVICE),
            wanted: said(WANTED),
            declined: said(DECLINED),
            holder,
            number: lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default(),
            version,
        }
    }

    /// The same, taken.
    pub fn taken(&self, by: AddressHolder) -> Self {
        AddressLease { holder: Some(by), number: self.number + 1, declined: None, ..self.clone() }
    }

    /// The same, given up.
    pub fn released(&self) -> Self {
        AddressLease { holder: None, ..self.clone() }
    }

    /// The same, given up by a host that is about to leave.
    pub fn declined(&self, host: &str) -> Self {
        AddressLease { wanted: None, declined: Some(host.to_owned()), ..self.released() }
    }

    /// Stores it as a new one.
    pub fn create(&self, now: Timestamp) -> Option<Write> {
        let mut lease = self.fields(now);
        lease["kind"] = "Lease".into();
        lease["apiVersion"] = format!("{GROUP}/v1").into();
        lease["metadata"]["name"] = name(self.address).into();
        lease["metadata"]["namespace"] = ADDRESS_NAMESPACE.into();
        Object::from_value(without_nulls(lease)).map(Write::Create)
    }

    /// Makes `next` of it, if it is still this version.
    pub fn change(&self, next: &AddressLease, now: Timestamp) -> Write {
        let mut patch = next.fields(now);
        patch["metadata"]["resourceVersion"] = self.version.as_str().into();
        Write::Merge { subject: self.subject(), subresource: "", patch }
    }

    /// Deletes it, if it is still this version.
    pub fn delete(&self) -> Write {
        let options = Delete { resource_version: Some(self.version.clone()), ..Delete::default() };
        Write::Delete { subject: self.subject(), options }
    }

    fn subject(&self) -> TypedRef {
        TypedRef {
            api_version: format!("{GROUP}/v1"),
            kind: "Lease".into(),
            namespace: ADDRESS_NAMESPACE.into(),
            name: name(self.address),
        }
    }

    fn fields(&self, now: Timestamp) -> Value {
        let number = |number: fn(&AddressHolder) -> u64| self.holder.as_ref().map(|h| number(h).to_string());
        json!({
            "metadata": {"annotations": {
                (SERVICE): self.service,
                (WANTED): self.wanted,
                (DECLINED): self.declined,
                (LEASE_EPOCH): number(|holder| holder.epoch),
                (PROCESS): number(|holder| holder.process),
            }},
            "spec": {
                "holderIdentity": self.holder.as_ref().map(|holder| &holder.host),
                "leaseTransitions": self.number,
                "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            },
        })
    }
}

/// Whether a host may change a Lease of this name as it is stored: it is that of an address that the host is to hold, or holds.
pub fn may_change_address(host: &str, name: &str, state: &State) -> bool {
    let lease = AddressLease::address_of(name).and_then(|address| AddressLease::get(state, address));
    lease.is_some_and(|lease| concerns(&lease, host))
}

/// Whether what a host makes of an address's Lease is its own to say: that it takes the address or gives it up, and nothing else.
pub fn may_make_of_address(host: &str, name: &str, old: &Object, new: &Object) -> bool {
    let Some(address) = AddressLease::address_of(name) else { return false };
    let read = |object: &Object| {
        let fields = ["metadata", "spec"].map(|field| (field.to_owned(), object.0.get(field).cloned()));
        let fields = fields.into_iter().map(|(name, value)| (name, value.unwrap_or_default()));
        AddressLease::read(address, &Value::Object(fields.collect()), String::new())
    };
    let (old, new) = (read(old), read(new));
    let is_own = |holder: &Option<AddressHolder>| holder.as_ref().is_none_or(|holder| holder.host == host);
    let keeps_wanted = new.wanted == old.wanted || new.wanted.is_none();
    concerns(&old, host)
        && is_own(&old.holder)
        && is_own(&new.holder)
        && new.service == old.service
        && keeps_wanted
}

fn concerns(lease: &AddressLease, host: &str) -> bool {
    let holder = lease.holder.as_ref().map(|holder| holder.host.as_str());
    lease.wanted.as_deref() == Some(host) || holder == Some(host)
}

fn name(address: Ipv4Addr) -> String {
    format!("{PREFIX}{address}")
}

/// What is absent isn't written in a new object.
fn without_nulls(mut lease: Value) -> Value {
    for at in ["/metadata/annotations", "/spec"] {
        if let Some(Value::Object(fields)) = lease.pointer_mut(at) {
            fields.retain(|_, value| !value.is_null());
        }
    }
    lease
}

#[cfg(test)]
mod tests {
    use store::{Memory, Store, Txn};

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 200);

    fn holder(host: &str) -> AddressHolder {
        AddressHolder { host: host.to_owned(), epoch: 7, process: 9 }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[tokio::test]
    async fn a_lease_is_read_as_it_was_written() {
        let new = AddressLease::new(ADDRESS, "d/web".into(), Some("n1".into()));
        let Some(Write::Create(object)) = new.create(now()) else { panic!("not made") };
        assert_eq!(object.name(), "load-balancer-10.73.0.200");
        let shown = AddressLease::of_lease(&object.clone().into_value()).unwrap();
        assert_eq!(shown, new);
        assert_eq!(AddressLease::of_lease(&json!({"metadata": {"name": "kube-scheduler"}})), None);
        let store = Memory::default();
        store
            .txn(Txn::put(AddressLease::key(ADDRESS), object.clone().into_value().to_string()))
            .await
            .unwrap();
        let state = store.snapshot();
        let read = AddressLease::get(&state, ADDRESS).unwrap();
        let expected = AddressLease { version: read.version.clone(), ..new.clone() };
        assert_eq!(read, expected);
        assert!(state.range(&store::KeyRange::prefix(AddressLease::prefix())).next().is_some());

        let taken = read.taken(holder("n1"));
        let Write::Merge { patch, .. } = read.change(&taken, now()) else { panic!("no merge") };
        assert_eq!(patch["metadata"]["resourceVersion"], read.version.as_str());
        let again = AddressLease::read(ADDRESS, &patch, read.version.clone());
        assert_eq!((&again, again.number), (&taken, 1));
        let left = taken.declined("n1");
        assert_eq!((left.holder, left.wanted, left.declined), (None, None, Some("n1".to_owned())));
        assert!(may_change_address("n1", "load-balancer-10.73.0.200", &state));
        assert!(!may_change_address("n2", "load-balancer-10.73.0.200", &state));
        assert!(!may_change_address("n1", "kube-scheduler", &state));
    }

    #[test]
    fn a_host_says_of_an_address_that_it_takes_it_or_gives_it_up() {
        let object = |lease: &AddressLease| match lease.create(now()) {
            Some(Write::Create(object)) => object,
            other => panic!("{other:?}"),
        };
        let free = AddressLease::new(ADDRESS, "d/web".into(), Some("n1".into()));
        let (taken, others) = (free.taken(holder("n1")), free.taken(holder("n2")));
        let may = |old: &AddressLease, new: &AddressLease| {
            may_make_of_address("n1", "load-balancer-10.73.0.200", &object(old), &object(new))
        };
        assert!(may(&free, &taken) && may(&taken, &taken.released()) && may(&taken, &taken.declined("n1")));
        assert!(!may(&free, &others), "another one takes it by itself");
        assert!(!may(&others, &taken), "and gives it up by itself");
        assert!(!may(&free, &AddressLease { service: None, ..taken.clone() }));
        assert!(!may(&free, &AddressLease { wanted: Some("n2".into()), ..taken }));
    }
}
