//! What drivers say that there is, and which of it claims have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cel::Quantity;
use k8s_openapi::api::resource::v1::{AllocationResult, Device, ResourceSlice};

/// A node, as far as it matters which devices it reaches.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// All devices. A clone costs as much as there are pools, and shares them.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    pools: BTreeMap<PoolId, Arc<Pool>>,
    /// The pools with something for one node alone, by its name.
    of_node: BTreeMap<String, BTreeSet<PoolId>>,
    /// The pools with something for nodes by other means.
    shared: BTreeSet<PoolId>,
}

/// A driver and the name of one of its pools.
type PoolId = (String, String);

#[derive(Debug, Clone, Default)]
struct Pool {
    slices: BTreeMap<String, Arc<ResourceSlice>>,
    /// How many claims have each device; more than one only for a moment.
    taken: BTreeMap<String, u32>,
}

/// What a node reaches of a pool.
#[derive(Debug)]
pub(crate) struct Reachable<'a> {
    pub driver: &'a str,
    pub pool: &'a str,
    /// Its devices, each with the slice that says so.
    pub devices: Vec<(&'a Device, &'a ResourceSlice)>,
    /// Some of its slices are still to come.
    pub is_incomplete: bool,
    taken: &'a BTreeMap<String, u32>,
    /// What is left of what its devices share, by counter set and counter.
    pub left: BTreeMap<(&'a str, &'a str), Quantity>,
}

impl Inventory {
    /// A slice is as it is now, or gone.
    pub fn set_slice(&mut self, before: Option<&Arc<ResourceSlice>>, now: Option<&Arc<ResourceSlice>>) {
        if let Some(slice) = before {
            let id = id_of(slice);
            if let Some(pool) = self.pools.get_mut(&id) {
                Arc::make_mut(pool).slices.remove(name_of(slice));
            }
            self.settle(&id, slice);
        }
        if let Some(slice) = now {
            let id = id_of(slice);
            match &slice.spec.node_name {
                Some(node) => self.of_node.entry(node.clone()).or_default().insert(id.clone()),
                None => self.shared.insert(id.clone()),
            };
            let pool = Arc::make_mut(self.pools.entry(id).or_default());
            pool.slices.insert(name_of(slice).to_owned(), slice.clone());
        }
    }

    /// A claim has these devices, or has them no longer.
    pub fn set_taken(&mut self, allocation: &AllocationResult, taken: bool) {
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        for result in results.filter(|result| result.admin_access != Some(true)) {
            let id = (result.driver.clone(), result.pool.clone());
            let pool = Arc::make_mut(self.pools.entry(id.clone()).or_default());
            let count = pool.taken.entry(result.device.clone()).or_default();
            *count = if taken { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                pool.taken.remove(&result.device);
            }
            if pool.taken.is_empty() && pool.slices.is_empty() {
                self.pools.remove(&id);
            }
        }
    }

    /// After a slice went: where its pool is found.
    fn settle(&mut self, id: &PoolId, gone: &ResourceSlice) {
        let pool = self.pools.get(id);
        let mut left = pool.into_iter().flat_map(|pool| pool.slices.values());
        let still = left.any(|slice| slice.spec.node_name == gone.spec.node_name);
        if !still {
            match &gone.spec.node_name {
                Some(node) => {
                    if let Some(pools) = self.of_node.get_mut(node) {
                        pools.remove(id);
                        if pools.is_empty() {
                            self.of_node.remove(node);
                        }
                    }
                }
                None => drop(self.shared.remove(id)),
            }
        }
        if self.pools.get(id).is_some_and(|pool| pool.slices.is_empty() && pool.taken.is_empty()) {
            self.pools.remove(id);
        }
    }

    /// What a node reaches.
    pub(crate) fn reachable<'a>(&'a self, place: Place<'_>) -> Vec<Reachable<'a>> {
        let own = self.of_node.get(place.name).into_iter().flatten();
        let ids: BTreeSet<&PoolId> = own.chain(&self.shared).collect();
        let pools = ids.into_iter().filter_map(|id| Some((id, self.pools.get(id)?)));
        pools.map(|(id, pool)| pool.reachable(id, place)).filter(|pool| !pool.devices.is_empty()).collect()
    }
}

impl Pool {
    fn reachable<'a>(&'a self, (driver, pool): &'a PoolId, place: Place<'_>) -> Reachable<'a> {
        // A driver that changes its pool writes slices of a new generation, and only then removes the old ones.
        let newest = self.slices.values().map(|slice| slice.spec.pool.generation).max();
        let slices: Vec<&ResourceSlice> = self
            .slices
            .values()
            .map(AsRef::as_ref)
            .filter(|slice| Some(slice.spec.pool.generation) == newest)
            .collect();
        let wanted = slices.iter().map(|slice| slice.spec.pool.resource_slice_count).max().unwrap_or(0);
        let is_incomplete = i64::try_from(slices.len()).unwrap_or(i64::MAX) < wanted;
        let devices = || {
            slices
                .iter()
                .flat_map(|slice| slice.spec.devices.iter().flatten().map(move |device| (device, *slice)))
        };
        let mut left = BTreeMap::new();
        for set in slices.iter().flat_map(|slice| slice.spec.shared_counters.iter().flatten()) {
            let counters = set.counters.iter();
            let values =
                counters.filter_map(|(name, counter)| Some((name, Quantity::parse(&counter.value.0).ok()?)));
            left.extend(values.map(|(name, value)| ((set.name.as_str(), name.as_str()), value)));
        }
        if !left.is_empty() {
            for (device, _) in devices().filter(|(device, _)| self.taken.contains_key(&device.name)) {
                for (counter, amount) in consumed(device) {
                    left.entry(counter).and_modify(|left| *left = *left - amount);
                }
            }
        }
        Reachable {
            driver,
            pool,
            devices: devices().filter(|(device, slice)| reaches(place, slice, device)).collect(),
            is_incomplete,
            taken: &self.taken,
            left,
        }
    }
}

impl Reachable<'_> {
    /// Whether a claim has a device.
    pub fn is_taken(&self, device: &Device) -> bool {
        self.taken.contains_key(&device.name)
    }
}

/// What a device takes of what the devices of its pool share.
pub(crate) fn consumed(device: &Device) -> impl Iterator<Item = ((&str, &str), Quantity)> {
    device.consumes_counters.iter().flatten().flat_map(|set| {
        let counters = set.counters.iter();
        counters.filter_map(|(name, counter)| {
            Some(((set.counter_set.as_str(), name.as_str()), Quantity::parse(&counter.value.0).ok()?))
        })
    })
}

fn reaches(place: Place<'_>, slice: &ResourceSlice, device: &Device) -> bool {
    let spec = &slice.spec;
    let (node, all, selector) = match spec.per_device_node_selection {
        Some(true) => (&device.node_name, device.all_nodes, &device.node_selector),
        _ => (&spec.node_name, spec.all_nodes, &spec.node_selector),
    };
    node.as_deref() == Some(place.name)
        || all == Some(true)
        || selector.as_ref().is_some_and(|selector| objects::selects_node(selector, place.name, place.labels))
}

fn id_of(slice: &ResourceSlice) -> PoolId {
    (slice.spec.driver.clone(), slice.spec.pool.name.clone())
}

fn name_of(slice: &ResourceSlice) -> &str {
    slice.metadata.name.as_deref().unwrap_or_default()
}
