//! Which host holds which address.
//!
//! A host that holds an address keeps it for as long as it can. Where it can't, the host takes it that has fewest; where one has two more
//! than another one, one address moves, and the next once that one is there. The leader only says who is to hold an address: the host that holds
//! it gives it up by itself, and then the other one takes it. From a host that can't be asked it is taken once its lease is over by
//! what the members say, and no earlier: then the host has given it up. Of a host without a Node they say nothing, unless it is a member itself: its
//! lease is over when it must be, counted from when this leader missed the Node and any word.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use objects::{AddressHolder, AddressLease, AddressPool, Change, TAKES_ADDRESSES};

use super::{Addresses, COMPONENT, changed};
use crate::controller::{Controller, Due, Moment, Urgency, latest};
use crate::endpoints::{OfService, SERVICE_NAME};
use crate::index::By;
use crate::kept::Node;
use crate::key::Key;
use crate::node::condition;
use crate::node::lease::beats;
use crate::notes::Notes;
use crate::plan::{Action, Note, Plan};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// The label of Nodes that are to hold no addresses (`core/v1`, `LabelNodeExcludeBalancers`).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// A host that is to hold an address and hasn't taken it for so long is passed over.
const TAKES: Duration = Duration::from_secs(3);
/// For so long a host has been ready before addresses move to it only to be spread evenly: each move cuts connections, and a host that comes
/// and goes would cut them each time.
const STEADY: Duration = Duration::from_secs(10);

/// The keys' namespaces: those of one address, those of a host.
const ADDRESS: &str = "address";
const HOST: &str = "host";
/// The key of those that no host is to hold.
const HOMELESS: &str = "homeless";
/// The key of how evenly they are spread.
const BALANCE: &str = "balance";

/// Says which host is to hold which address.
pub(crate) struct Holders;

impl Controller for Holders {
    fn name(&self) -> &'static str {
        "address-holders"
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
        watches.table::<Node>();
        watches.table::<Service>();
        watches.index::<By<OfService>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        let leases = view.account::<Addresses>().into_iter().flat_map(|addresses| addresses.all.keys());
        leases.for_each(|address| due.now(ADDRESS, &address.to_string()));
        let holders = view.account::<Addresses>().into_iter().flat_map(|addresses| addresses.of_host.keys());
        holders.filter(|host| has_no_node(view, host)).for_each(|host| due.now(HOST, host));
        due.now("", BALANCE);
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let Some(addresses) = view.account::<Addresses>() else { return };
        if let Some(address) = changed(change) {
            due.now(ADDRESS, &address.to_string());
            due.now("", BALANCE);
            let holder = addresses.get(address).and_then(|lease| lease.holder.as_ref());
            if let Some(holder) = holder.filter(|holder| has_no_node(view, &holder.host)) {
                due.now(HOST, &holder.host);
            }
        }
        if addresses.all.is_empty() {
            return;
        }
        if let Some(node) = change.of::<Node>()
            && fitness(node.old.as_deref()) != fitness(node.new.as_deref())
        {
            let name = latest(node).and_then(|node| node.metadata.name.as_deref()).unwrap_or_default();
            due.now(HOST, name);
            due.now("", HOMELESS);
            due.now("", BALANCE);
        }
        let service = change.of::<Service>().and_then(|Change { new, .. }| new.as_ref());
        let service = service
            .map(|service| place(service.metadata.namespace.as_deref(), service.metadata.name.as_deref()));
        let slice = change.of::<EndpointSlice>().and_then(latest);
        let slice = slice.and_then(|slice| {
            let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
            Some(place(slice.metadata.namespace.as_deref(), Some(name)))
        });
        for lease in service.iter().chain(&slice).flat_map(|service| addresses.of_service(service)) {
            due.now(ADDRESS, &lease.address.to_string());
        }
    }

    fn heard(&self, host: &str, due: &mut Due<'_>) {
        due.now(HOST, host);
        due.now("", HOMELESS);
        due.now("", BALANCE);
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(addresses) = view.account::<Addresses>() else { return plan };
        let mut hosts = Hosts { view, moment, waited: None, missed: None };
        let mut load = addresses.load.clone();
        let its: Vec<&AddressLease> = match (key.namespace(), key.name()) {
            (ADDRESS, name) => {
                let lease = name.parse().ok().and_then(|address| addresses.get(address));
                (hosts.waited, plan.notes) = waited(lease, moment);
                lease.into_iter().collect()
            }
            (HOST, name) => {
                let its: Vec<&AddressLease> = addresses.of_host(name).collect();
                let is_holder =
                    |lease: &&AddressLease| lease.holder.as_ref().is_some_and(|holder| holder.host == name);
                let is_missed = its.iter().any(is_holder) && has_no_node(view, name);
                // A member is heard without a Node, too, and may hold its lease by that.
                let is_spoken_of = moment.ended.contains_key(name);
                if is_missed && is_spoken_of {
                    plan.again(view.fenced_after());
                }
                let (missed, notes) = missed_for(is_missed && !is_spoken_of, moment);
                plan.notes = notes;
                hosts.missed = missed.map(|missed| (name, missed));
                let left = missed.map(|missed| view.fenced_after().saturating_sub(missed));
                left.into_iter().filter(|left| !left.is_zero()).for_each(|left| plan.again(left));
                its
            }
            (_, HOMELESS) => addresses.homeless().collect(),
            _ => {
                hosts.balance(addresses, &mut plan);
                return plan;
            }
        };
        for lease in its {
            hosts.settle(lease, &mut load, &mut plan);
        }
        plan
    }
}

/// For how long an address has been offered to a host that hasn't taken it, as seen by this leader: clocks of different hosts differ. And what
/// is to be remembered for that.
fn waited(lease: Option<&AddressLease>, moment: &Moment<'_>) -> (Option<Duration>, Option<Notes>) {
    let Some(lease) = lease.filter(|lease| lease.wanted.is_some() && lease.holder.is_none()) else {
        return (None, Some(Notes::Nothing));
    };
    let now = moment.now.instant;
    let since = moment.notes.and_then(|notes| notes.offered(&lease.version)).unwrap_or(now);
    (Some(now.saturating_duration_since(since)), Some(Notes::Offer(lease.version.clone(), since)))
}

/// For how long the Node of a host that holds addresses has been missed, as seen by this leader. And what is to be remembered for that.
fn missed_for(is_missed: bool, moment: &Moment<'_>) -> (Option<Duration>, Option<Notes>) {
    if !is_missed {
        return (None, Some(Notes::Nothing));
    }
    let now = moment.now.instant;
    let since = moment.notes.and_then(Notes::missed).unwrap_or(now);
    (Some(now.saturating_duration_since(since)), Some(Notes::Missed(since)))
}

fn has_no_node(view: &View, host: &str) -> bool {
    view.table::<Node>().get("", host).is_none()
}

fn place(namespace: Option<&str>, name: Option<&str>) -> String {
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

/// What of a Node says whether its host may hold addresses, and which.
fn fitness(node: Option<&Node>) -> Option<(bool, bool, Option<&String>)> {
    let node = node?;
    let takes = node.metadata.annotations.as_deref().and_then(|all| all.get(TAKES_ADDRESSES));
    Some((is_fit(node), beats(node), takes))
}

fn is_fit(node: &Node) -> bool {
    let is_excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    let is_ready = condition(node, "Ready").is_some_and(|ready| ready.status == "True");
    beats(node) && is_ready && !is_excluded && node.metadata.deletion_timestamp.is_none()
}

/// The hosts, as they are at a moment.
#[derive(Clone, Copy)]
struct Hosts<'a> {
    view: &'a View,
    moment: &'a Moment<'a>,
    /// For how long the address that is decided about has waited for its host to take it; nothing if it doesn't, or if that is for
    /// the address's own key to judge.
    waited: Option<Duration>,
    /// The host that is decided about, if it has no Node, and for how long it has had none; nothing if that is for another key to judge.
    missed: Option<(&'a str, Duration)>,
}

impl Hosts<'_> {
    /// Decides about one address. `load` is how many each host is to hold, as decided so far.
    fn settle(&self, lease: &AddressLease, load: &mut HashMap<String, usize>, plan: &mut Plan) {
        let mut next = lease.clone();
        next.holder = next.holder.filter(|holder| !self.is_over(holder));
        match &lease.service {
            None => next.wanted = None,
            Some(service) => self.choose(service, &mut next, load, plan),
        }
        if lease.service.is_none() && next.holder.is_none() {
            plan.write(lease.delete());
        } else if next != *lease {
            if let Some(count) = lease.wanted.as_ref().and_then(|wanted| load.get_mut(wanted)) {
                *count = count.saturating_sub(1);
            }
            next.wanted.iter().for_each(|wanted| *load.entry(wanted.clone()).or_default() += 1);
            plan.actions.push(self.change(lease, &next));
        }
    }

    fn change(&self, lease: &AddressLease, next: &AddressLease) -> Action {
        let action = Action::from(lease.change(next, self.moment.now.wall));
        match (&lease.holder, &next.holder) {
            (Some(_), None) => {
                let subject = lease.address.to_string();
                action.telling(Note::Timeline { what: "address-freed", subject, pod: None })
            }
            _ => action,
        }
    }

    /// Says who is to hold the address of a Service.
    fn choose(&self, service: &str, next: &mut AddressLease, load: &HashMap<String, usize>, plan: &mut Plan) {
        if let Some(holder) = &next.holder {
            if self.moment.silence.contains_key(&holder.host) {
                // Nobody can ask it to give the address up, and it may be heard again: until its lease is over.
                return;
            }
            if self.may_hold(&holder.host, service, next.address) && next.wanted.is_none() {
                next.wanted = Some(holder.host.clone());
            }
        }
        if let Some(wanted) =
            next.wanted.as_ref().filter(|wanted| self.may_hold(wanted, service, next.address))
        {
            match self.waited.map(|waited| TAKES.saturating_sub(waited)) {
                Some(left) if left.is_zero() => next.declined = Some(wanted.clone()),
                Some(left) => return plan.again(left),
                None => return,
            }
        }
        next.wanted = self.best(service, next, load);
        if next.wanted.is_some() {
            plan.again(TAKES);
        }
    }

    /// The host with fewest addresses of those that may hold this one; by chance where that leaves a choice, always by the same.
    fn best(&self, service: &str, lease: &AddressLease, load: &HashMap<String, usize>) -> Option<String> {
        let names = self.view.table::<Node>().iter().filter_map(|node| node.metadata.name.as_deref());
        let fitting = names.filter(|name| self.may_hold(name, service, lease.address));
        let order = |name: &&str| {
            let has_declined = lease.declined.as_deref() == Some(*name);
            (has_declined, load.get(*name).copied().unwrap_or_default(), rank(name, lease.address))
        };
        fitting.min_by_key(order).map(str::to_owned)
    }

    /// Moves one address from the host that has most to the one that has fewest, if that makes them more even.
    fn balance(&self, addresses: &Addresses, plan: &mut Plan) {
        if !addresses.moving.is_empty() {
            // When that one is there, this is looked at again.
            return;
        }
        let mut hosts = Vec::new();
        for node in self.view.table::<Node>().iter() {
            let Some(name) = node.metadata.name.as_deref().filter(|name| self.is_there(name)) else {
                continue;
            };
            let since = condition(node, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
            let ready_for = since.map(|since| self.moment.now.wall.duration_since(since.0).unsigned_abs());
            let left = STEADY.saturating_sub(ready_for.unwrap_or(STEADY));
            if left.is_zero() {
                hosts.push((addresses.load.get(name).copied().unwrap_or_default(), name));
            } else {
                plan.again(left);
            }
        }
        hosts.sort_unstable();
        for (few, to) in &hosts {
            for (_, from) in hosts.iter().rev().take_while(|(many, _)| *many >= few + 2) {
                let may_move = |lease: &&AddressLease| {
                    let service = lease.service.as_deref();
                    lease.wanted.as_deref() == Some(*from)
                        && service.is_some_and(|service| self.may_hold(to, service, lease.address))
                };
                let moved =
                    addresses.of_host(from).filter(may_move).min_by_key(|lease| rank(to, lease.address));
                if let Some(lease) = moved {
                    let next = AddressLease { wanted: Some((*to).to_owned()), ..lease.clone() };
                    plan.actions.push(self.change(lease, &next));
                    return;
                }
            }
        }
    }

    /// Whether what a host held in an epoch it holds no more, for sure.
    fn is_over(&self, holder: &AddressHolder) -> bool {
        let is_said = self.moment.ended.get(&holder.host).is_some_and(|end| end.epoch >= holder.epoch);
        let must_be =
            |(host, missed): (&str, Duration)| host == holder.host && missed >= self.view.fenced_after();
        is_said || self.missed.is_some_and(must_be)
    }

    /// Whether a host may hold addresses, and can be told so.
    fn is_there(&self, host: &str) -> bool {
        let is_lost = self.moment.ended.get(host).is_some_and(|end| !end.is_back);
        let node = self.view.table::<Node>().get("", host);
        !is_lost && !self.moment.silence.contains_key(host) && node.is_some_and(|node| is_fit(node))
    }

    /// Whether it may hold that of a Service: it says that it takes that one; and where only endpoints on the host serve
    /// (`externalTrafficPolicy: Local`), it needs one.
    fn may_hold(&self, host: &str, service: &str, address: Ipv4Addr) -> bool {
        let node = self.view.table::<Node>().get("", host);
        let takes =
            node.is_some_and(|node| AddressPool::is_taken_by(address, node.metadata.annotations.as_deref()));
        let (namespace, name) = service.split_once('/').unwrap_or_default();
        let spec =
            self.view.table::<Service>().get(namespace, name).and_then(|service| service.spec.as_ref());
        let is_local = spec.is_some_and(|spec| spec.external_traffic_policy.as_deref() == Some("Local"));
        takes && self.is_there(host) && (!is_local || self.serves(host, service))
    }

    fn serves(&self, host: &str, service: &str) -> bool {
        let slices = self.view.by::<OfService>(service);
        slices.flat_map(|slice| slice.endpoints.iter().flatten()).any(|endpoint| {
            let is_ready =
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            is_ready && endpoint.node_name.as_deref() == Some(host)
        })
    }
}

/// By which hosts are told apart that are equally good for an address: each address prefers another one, and none depends on which
/// others there are.
fn rank(host: &str, address: Ipv4Addr) -> u64 {
    let mut hasher = DefaultHasher::new();
    (host, address).hash(&mut hasher);
    hasher.finish()
}
