//! Where drivers still have room for a new volume, as they say themselves (KEP-1472).
//!
//! Follows `hasEnoughCapacity` of `plugins/volumebinding` upstream: of a driver whose CSIDriver says so, only nodes count of which a
//! CSIStorageCapacity says that there is room. There may be one for each node, so those of a class are found by a label of the node.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity};
use machinery::Quantity;
use objects::{Change, Meta, Table};
use store::{Event, State};

use crate::node::Node;

/// What drivers say of their room.
#[derive(Debug, Default)]
pub(crate) struct Capacities {
    drivers: Table<CSIDriver>,
    said: Table<CSIStorageCapacity>,
    by_class: BTreeMap<String, Arc<Rooms>>,
}

/// Where there is room for volumes of one class.
#[derive(Debug, Clone, Default)]
struct Rooms {
    /// By the first label that a node must have, name and value, then by the names of the objects that say it.
    labelled: BTreeMap<(String, String), BTreeMap<String, Arc<CSIStorageCapacity>>>,
    /// Those that ask for no such label.
    others: BTreeMap<String, Arc<CSIStorageCapacity>>,
}

/// Where there is room for one more volume.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    rooms: Arc<Rooms>,
    size: Quantity,
}

impl PartialEq for Room {
    // A change of what others hold is made to a copy: the same place is the same content.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rooms, &other.rooms) && self.size == other.size
    }
}

impl Capacities {
    /// Takes in all of a state.
    pub fn load(state: &State) -> Self {
        let mut capacities =
            Capacities { drivers: Table::load(state), said: Table::load(state), by_class: BTreeMap::new() };
        let said: Vec<_> = capacities.said.iter().cloned().collect();
        said.iter().for_each(|capacity| capacities.put(capacity));
        capacities
    }

    /// Takes one change in. False if it is of something else.
    pub fn apply(&mut self, event: &Event) -> bool {
        if let Some(Change { old, new, .. }) = self.said.apply(event) {
            old.iter().for_each(|capacity| self.take(capacity));
            new.iter().for_each(|capacity| self.put(capacity));
            return true;
        }
        self.drivers.apply(event).is_some()
    }

    fn put(&mut self, capacity: &Arc<CSIStorageCapacity>) {
        let rooms = Arc::make_mut(self.by_class.entry(capacity.storage_class_name.clone()).or_default());
        let group = match first_label(capacity) {
            Some(label) => rooms.labelled.entry(label).or_default(),
            None => &mut rooms.others,
        };
        group.insert(place(capacity), capacity.clone());
    }

    fn take(&mut self, capacity: &CSIStorageCapacity) {
        let Some(rooms) = self.by_class.get_mut(&capacity.storage_class_name) else { return };
        let rooms = Arc::make_mut(rooms);
        match first_label(capacity) {
            Some(label) => {
                if let Some(group) = rooms.labelled.get_mut(&label) {
                    group.remove(&place(capacity));
                    if group.is_empty() {
                        rooms.labelled.remove(&label);
                    }
                }
            }
            None => drop(rooms.others.remove(&place(capacity))),
        }
        if rooms.labelled.is_empty() && rooms.others.is_empty() {
            self.by_class.remove(&capacity.storage_class_name);
        }
    }

    /// Where there is room for a volume of a class and a size; nothing if its driver doesn't say.
    pub fn room(&self, class: &str, driver: &str, size: Option<Quantity>) -> Option<Room> {
        let driver = self.drivers.get("", driver)?;
        let size = size.filter(|_| driver.spec.storage_capacity == Some(true))?;
        Some(Room { rooms: self.by_class.get(class).cloned().unwrap_or_default(), size })
    }
}

impl Room {
    /// Whether there is room on a node.
    pub fn is_on(&self, node: &Node) -> bool {
        let labels = node.metadata.labels();
        let mut with_label = labels.into_iter().flatten().filter_map(|(name, value)| {
            self.rooms.labelled.get(&(name.clone(), value.clone())).map(BTreeMap::values)
        });
        with_label.any(|mut group| group.any(|capacity| self.fits(capacity, node)))
            || self.rooms.others.values().any(|capacity| self.fits(capacity, node))
    }

    fn fits(&self, capacity: &CSIStorageCapacity, node: &Node) -> bool {
        let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        let most = most.and_then(|most| Quantity::parse(&most.0).ok());
        let here = capacity.node_topology.as_ref();
        most.is_some_and(|most| most >= self.size)
            && here.is_some_and(|here| objects::selects(here, node.metadata.labels()))
    }
}

fn first_label(capacity: &CSIStorageCapacity) -> Option<(String, String)> {
    let labels = capacity.node_topology.as_ref()?.match_labels.as_ref()?;
    labels.iter().next().map(|(name, value)| (name.clone(), value.clone()))
}

fn place(capacity: &CSIStorageCapacity) -> String {
    format!("{}/{}", capacity.metadata.namespace(), capacity.metadata.name())
}
