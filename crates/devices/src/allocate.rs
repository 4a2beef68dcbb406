//! The search: devices for all requests of all claims of a pod, on one node.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cel::Quantity;
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceAttribute, DeviceConstraint, ResourceSlice,
};

use crate::ask::{Alternative, Ask};
use crate::inventory::{Inventory, Place, Reachable, consumed};
use crate::result;

/// The most devices of one claim (`AllocationResultsMaxSize`).
const MOST: usize = 32;
/// After this number of devices tried, the node counts as one without: requests that hardly fit could be tried for hours. (Upstream
/// gives up after ten seconds.)
const STEPS: u32 = 100_000;

/// Devices for claims on a node, in their order; nothing if it hasn't enough of them.
///
/// # Errors
/// Why nothing can be allocated on any node.
pub fn allocate(
    asks: &[Arc<Ask>],
    place: Place<'_>,
    inventory: &Inventory,
) -> Result<Option<Vec<AllocationResult>>, String> {
    let pools = inventory.reachable(place);
    let mut candidates = BTreeMap::new();
    for (claim, ask) in asks.iter().enumerate() {
        for (request, alternatives) in ask.requests.iter().enumerate() {
            for (at, alternative) in alternatives.iter().enumerate() {
                candidates.insert((claim, request, at), eligible(alternative, &pools)?);
            }
        }
    }
    let mut search = Search { asks, pools: &pools, candidates, chosen: Vec::new(), steps: 0 };
    if !search.request(0, 0) {
        return Ok(None);
    }
    let chosen = search.chosen;
    let of = |claim: usize| chosen.iter().filter(move |chosen| chosen.claim == claim);
    Ok(Some(asks.iter().enumerate().map(|(claim, ask)| result::of(ask, of(claim), place)).collect()))
}

/// The devices that one way to meet a request means; nothing if it means all, and not all are known.
fn eligible<'a>(alternative: &Alternative, pools: &'a [Reachable<'a>]) -> Result<Candidates<'a>, String> {
    let mut found = Vec::new();
    for (pool, reachable) in pools.iter().enumerate() {
        for (device, slice) in &reachable.devices {
            if !alternative.means(reachable.driver, device)? {
                continue;
            }
            if !reachable.is_incomplete {
                found.push(Candidate { pool, reachable, device, slice });
            } else if alternative.count.is_none() {
                return Ok(Rc::from([]));
            }
        }
    }
    Ok(found.into())
}

type Candidates<'a> = Rc<[Candidate<'a>]>;

/// A device that may be it.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pool: usize,
    pub reachable: &'a Reachable<'a>,
    pub device: &'a Device,
    pub slice: &'a ResourceSlice,
}

/// A device for a request.
pub(crate) struct Chosen<'a> {
    claim: usize,
    pub alternative: &'a Alternative,
    pub candidate: Candidate<'a>,
}

struct Search<'a> {
    asks: &'a [Arc<Ask>],
    pools: &'a [Reachable<'a>],
    /// By claim, request and alternative.
    candidates: BTreeMap<(usize, usize, usize), Candidates<'a>>,
    chosen: Vec<Chosen<'a>>,
    steps: u32,
}

impl<'a> Search<'a> {
    /// Whether this request and all after it can be met.
    fn request(&mut self, claim: usize, request: usize) -> bool {
        let asks = self.asks;
        let Some(ask) = asks.get(claim) else { return true };
        let Some(alternatives) = ask.requests.get(request) else { return self.request(claim + 1, 0) };
        for (at, alternative) in alternatives.iter().enumerate() {
            let Some(candidates) = self.candidates.get(&(claim, request, at)).cloned() else { continue };
            let slot = Slot { claim, request, alternative };
            let before = self.chosen.len();
            let met = match alternative.count {
                Some(count) => self.pick(&slot, &candidates, count),
                None => {
                    !candidates.is_empty()
                        && candidates.iter().all(|candidate| self.take(&slot, *candidate))
                        && self.request(claim, request + 1)
                }
            };
            if met {
                return true;
            }
            self.chosen.truncate(before);
        }
        false
    }

    /// Whether that number of these devices, and what comes after them, can be had.
    fn pick(&mut self, slot: &Slot<'a>, candidates: &[Candidate<'a>], count: usize) -> bool {
        if count == 0 {
            return self.request(slot.claim, slot.request + 1);
        }
        for (at, candidate) in candidates.iter().enumerate() {
            if candidates.len() - at < count {
                return false;
            }
            let before = self.chosen.len();
            if self.take(slot, *candidate) && self.pick(slot, &candidates[at + 1..], count - 1) {
                return true;
            }
            self.chosen.truncate(before);
        }
        false
    }

    /// Takes a device, if it can be had beside those that were chosen.
    fn take(&mut self, slot: &Slot<'a>, candidate: Candidate<'a>) -> bool {
        self.steps += 1;
        let own = self.chosen.iter().filter(|chosen| chosen.claim == slot.claim);
        let can_be = self.steps <= STEPS
            && own.clone().count() < MOST
            && (slot.alternative.admin || self.is_free(&candidate))
            && self.asks[slot.claim].constraints().all(|constraint| {
                !slot.alternative.is_among(constraint.requests.as_deref())
                    || own
                        .clone()
                        .filter(|chosen| chosen.alternative.is_among(constraint.requests.as_deref()))
                        .map(|chosen| &chosen.candidate)
                        .all(|other| holds(constraint, &candidate, other))
                        && has_its_attribute(constraint, &candidate)
            });
        if can_be {
            self.chosen.push(Chosen { claim: slot.claim, alternative: slot.alternative, candidate });
        }
        can_be
    }

    /// Whether nobody has a device, and there is enough left of what it shares with others.
    fn is_free(&self, candidate: &Candidate<'a>) -> bool {
        let here = self
            .chosen
            .iter()
            .filter(|chosen| chosen.candidate.pool == candidate.pool && !chosen.alternative.admin);
        let is_chosen = here.clone().any(|chosen| chosen.candidate.device.name == candidate.device.name);
        if is_chosen || candidate.reachable.is_taken(candidate.device) {
            return false;
        }
        let pool = &self.pools[candidate.pool];
        consumed(candidate.device).all(|(counter, amount)| {
            let others = here.clone().flat_map(|chosen| consumed(chosen.candidate.device));
            let others = others.filter(|(other, _)| *other == counter).map(|(_, amount)| amount);
            let needed = others.fold(amount, |sum: Quantity, amount| sum + amount);
            pool.left.get(&counter).is_some_and(|left| needed <= *left)
        })
    }
}

/// One way to meet a request, and which request that is.
struct Slot<'a> {
    claim: usize,
    request: usize,
    alternative: &'a Alternative,
}

/// Whether two devices may be together, as far as a constraint says.
fn holds(constraint: &DeviceConstraint, one: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    let both = |name: &str| (attribute(one, name), attribute(other, name));
    constraint
        .match_attribute
        .as_deref()
        .is_none_or(|name| matches!(both(name), (Some(a), Some(b)) if a == b))
        && constraint
            .distinct_attribute
            .as_deref()
            .is_none_or(|name| matches!(both(name), (Some(a), Some(b)) if a != b))
}

/// Whether a device has the attribute that a constraint compares.
fn has_its_attribute(constraint: &DeviceConstraint, candidate: &Candidate<'_>) -> bool {
    let names = [&constraint.match_attribute, &constraint.distinct_attribute];
    names.into_iter().flatten().all(|name| attribute(candidate, name).is_some())
}

/// An attribute by its whole name; a device leaves out the domain where that is its driver's.
fn attribute<'a>(candidate: &Candidate<'a>, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = candidate.device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, name) = name.split_once('/')?;
        attributes.get(name).filter(|_| domain == candidate.reachable.driver)
    })
}
