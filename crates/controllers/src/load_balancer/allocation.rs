//! Which Service has which address.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use objects::{AddressLease, AddressPool, Occurrence};
use serde_json::{Value, json};

use super::{Addresses, COMPONENT, asks, changed, shown};
use crate::controller::{Controller, Due, Moment, Urgency, both};
use crate::index::{By, Group};
use crate::key::Key;
use crate::plan::{Action, Note, Plan, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Gives addresses to Services, and takes them back.
pub(crate) struct Allocation;

/// Services that wait for an address, and all others by those that they show.
struct Showing;

/// By which those are found that wait.
const WAITING: &str = "";

impl Group for Showing {
    type Of = Service;

    fn values(service: &Service, each: &mut dyn FnMut(&str)) {
        let mut waits = asks(service);
        for address in shown(service) {
            waits = false;
            each(address);
        }
        if waits {
            each(WAITING);
        }
    }
}

impl Controller for Allocation {
    fn name(&self) -> &'static str {
        "load-balancer"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Traffic
    }

    fn stays(&self) -> bool {
        true
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.account::<Addresses>();
        watches.table::<Service>();
        watches.index::<By<Showing>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Service>().iter().filter(|service| concerns(service)));
        // Those of Services that went while nobody looked.
        let leases = view.account::<Addresses>().into_iter().flat_map(|addresses| addresses.all.values());
        leases.filter_map(|lease| lease.service.as_deref()?.split_once('/')).for_each(|(namespace, name)| {
            due.now(namespace, name);
        });
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        if let Some(change) = change.of::<Service>()
            && both(change).any(|service| concerns(service))
        {
            due.objects(both(change).take(1));
        }
        let Some(address) = changed(change) else { return };
        due.objects(view.by::<Showing>(&address.to_string()));
        let lease = view.account::<Addresses>().and_then(|addresses| addresses.get(address));
        match lease {
            Some(lease) => {
                let service = lease.service.as_deref().and_then(|service| service.split_once('/'));
                service.into_iter().for_each(|(namespace, name)| due.now(namespace, name));
            }
            // Somebody else's from now on.
            None => due.objects(view.by::<Showing>(WAITING)),
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(addresses) = view.account::<Addresses>() else { return plan };
        let service = view.table::<Service>().get(key.namespace(), key.name());
        let name = format!("{}/{}", key.namespace(), key.name());
        let its: Vec<&AddressLease> = addresses.of_service(&name).collect();
        let asking = service.filter(|service| asks(service));
        let kept = asking.and_then(|service| kept(view, service, &its));
        let others = its.iter().filter(|lease| kept.is_none_or(|kept| kept.address != lease.address));
        for lease in others {
            let free = AddressLease { service: None, ..(*lease).clone() };
            let freed = Action::from(lease.change(&free, moment.now.wall));
            plan.actions.push(match service {
                Some(service) if asking.is_none() => {
                    freed.telling(event(service, "DeletedLoadBalancer", "Deleted load balancer"))
                }
                _ => freed,
            });
        }
        match (asking, kept) {
            (Some(service), Some(lease)) => show(service, lease.address, &mut plan),
            (Some(service), None) => match pick(view, addresses, service) {
                Ok(address) => {
                    let new = AddressLease::new(address, name, None).create(moment.now.wall);
                    let made = new.map(Action::from);
                    plan.actions.extend(made.map(|made| {
                        made.telling(event(service, "EnsuringLoadBalancer", "Ensuring load balancer"))
                    }));
                }
                Err(why) => {
                    hide(view, service, &mut plan);
                    let told = format!("Error syncing load balancer: failed to ensure load balancer: {why}");
                    plan.told.extend(
                        why.is_told(service)
                            .then(|| Occurrence::of(service.as_ref(), true, "SyncLoadBalancerFailed", told)),
                    );
                }
            },
            (None, _) => service.into_iter().for_each(|service| hide(view, service, &mut plan)),
        }
        plan
    }
}

/// Whether there may be anything to do for a Service.
fn concerns(service: &Service) -> bool {
    asks(service) || shown(service).next().is_some()
}

fn event(service: &Arc<Service>, reason: &'static str, message: &str) -> Note {
    Note::Event(Occurrence::of(service.as_ref(), false, reason, message.to_owned()))
}

/// The address that a Service asks for.
fn requested(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.load_balancer_ip.as_deref().filter(|address| !address.is_empty())
}

/// Of the addresses that a Service has the one that it keeps: the one that it shows, else the first.
fn kept<'a>(view: &View, service: &Service, its: &[&'a AddressLease]) -> Option<&'a AddressLease> {
    let fits = |lease: &&&AddressLease| {
        let address = lease.address.to_string();
        view.addresses().contains(lease.address) && requested(service).is_none_or(|wanted| wanted == address)
    };
    let is_shown = |lease: &&&AddressLease| shown(service).any(|shown| shown == lease.address.to_string());
    let fitting = its.iter().filter(fits);
    fitting.clone().find(is_shown).or_else(|| fitting.clone().next()).copied()
}

/// Why a Service gets no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Refused {
    #[error(
        "this cluster has no addresses for Services of type LoadBalancer: give its hosts some by loadBalancerCidrs"
    )]
    NoPool,
    #[error("no address of loadBalancerCidrs is free")]
    Exhausted,
    #[error("loadBalancerIP {0:?} is no address of loadBalancerCidrs")]
    Foreign(String),
    #[error("loadBalancerIP {0} is {1}'s")]
    Taken(Ipv4Addr, String),
}

impl Refused {
    /// Where the cluster has no pool, whatever else gives addresses may be at work.
    fn is_told(&self, service: &Service) -> bool {
        *self != Refused::NoPool || shown(service).next().is_none()
    }
}

/// A free address for a Service: the one that it asks for, the one that it shows already (after a backup was restored), else one by its name:
/// so many Services that come at once don't all want the same, and one that is made again seldom gets another.
fn pick(view: &View, addresses: &Addresses, service: &Service) -> Result<Ipv4Addr, Refused> {
    let pool = view.addresses();
    if pool.is_empty() {
        return Err(Refused::NoPool);
    }
    if let Some(wanted) = requested(service) {
        let wanted: Ipv4Addr = wanted.parse().map_err(|_| Refused::Foreign(wanted.to_owned()))?;
        if !pool.contains(wanted) {
            return Err(Refused::Foreign(wanted.to_string()));
        }
        return match addresses.get(wanted) {
            None => Ok(wanted),
            Some(lease) => {
                let whose = lease.service.clone().unwrap_or_else(|| "still being given back".to_owned());
                Err(Refused::Taken(wanted, whose))
            }
        };
    }
    let is_free = |address: &Ipv4Addr| addresses.get(*address).is_none();
    let known = shown(service).filter_map(|shown| shown.parse().ok());
    let known = known.filter(|address| pool.contains(*address)).find(is_free);
    known
        .or_else(|| {
            let start = start(service, pool);
            let from_there = pool.iter().skip(start).find(is_free);
            from_there.or_else(|| pool.iter().take(start).find(is_free))
        })
        .ok_or(Refused::Exhausted)
}

fn start(service: &Service, pool: &AddressPool) -> usize {
    let mut hasher = DefaultHasher::new();
    (&service.metadata.namespace, &service.metadata.name).hash(&mut hasher);
    let size = pool.len().max(1);
    usize::try_from(hasher.finish() % size as u64).unwrap_or_default()
}

/// Has a Service show its address.
fn show(service: &Arc<Service>, address: Ipv4Addr, plan: &mut Plan) {
    let wanted = json!([{"ip": address, "ipMode": "VIP"}]);
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let known =
        balancer.and_then(|balancer| serde_json::to_value(&balancer.ingress).ok()).unwrap_or_default();
    if known != wanted {
        let shown = Action::from(merge_this(service.as_ref(), "status", status(&wanted)));
        plan.actions.push(shown.telling(event(service, "EnsuredLoadBalancer", "Ensured load balancer")));
    }
}

/// Has a Service show no address of the pool that it hasn't.
fn hide(view: &View, service: &Arc<Service>, plan: &mut Plan) {
    let of_pool = |shown: &str| shown.parse().is_ok_and(|address| view.addresses().contains(address));
    if shown(service).any(of_pool) {
        plan.write(merge_this(service.as_ref(), "status", status(&Value::Null)));
    }
}

fn status(ingress: &Value) -> Value {
    json!({"status": {"loadBalancer": {"ingress": ingress}}})
}
