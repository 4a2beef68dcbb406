//! Objects by what they have in common, so that nobody walks those that have it not.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use objects::{Kind, Pod};

use crate::tables::Index;
use crate::view::{controller_of, node_name};

/// What the objects of a kind are found by.
pub(crate) trait Group: Send + Sync + 'static {
    /// The kind.
    type Of: Kind + 'static;

    /// Calls `each` with every value by which an object is to be found.
    fn values(object: &Self::Of, each: &mut dyn FnMut(&str));
}

/// The objects that a [`Group`] finds, by its values; those of one value in the order of namespaces and names.
pub(crate) struct By<G: Group> {
    groups: HashMap<String, BTreeSet<Placed<G::Of>>>,
}

impl<G: Group> By<G> {
    /// The objects with a value.
    pub fn get(&self, value: &str) -> impl Iterator<Item = &Arc<G::Of>> + Clone {
        self.groups.get(value).into_iter().flatten().map(|placed| &placed.0)
    }

    /// All values that some object has.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }
}

impl<G: Group> Default for By<G> {
    fn default() -> Self {
        By { groups: HashMap::new() }
    }
}

impl<G: Group> Index for By<G> {
    type Of = G::Of;

    fn take(&mut self, old: Option<&Arc<G::Of>>, new: Option<&Arc<G::Of>>) {
        if let Some(old) = old {
            G::values(old, &mut |value| {
                if let Some(group) = self.groups.get_mut(value) {
                    group.remove(&Placed(old.clone()));
                    if group.is_empty() {
                        self.groups.remove(value);
                    }
                }
            });
        }
        if let Some(new) = new {
            G::values(new, &mut |value| match self.groups.get_mut(value) {
                Some(group) => drop(group.insert(Placed(new.clone()))),
                None => drop(self.groups.insert(value.to_owned(), BTreeSet::from([Placed(new.clone())]))),
            });
        }
    }
}

/// An object in the order of namespaces and names, which it has in itself.
struct Placed<T>(Arc<T>);

impl<T: Kind> Placed<T> {
    fn place(&self) -> (Option<&str>, Option<&str>) {
        let metadata = self.0.metadata();
        (metadata.namespace.as_deref(), metadata.name.as_deref())
    }
}

impl<T: Kind> Ord for Placed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl<T: Kind> PartialOrd for Placed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Kind> PartialEq for Placed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Kind> Eq for Placed<T> {}

/// By the uid of their controller.
pub(crate) struct Owner<T>(PhantomData<T>);

impl<T: Kind + 'static> Group for Owner<T> {
    type Of = T;

    fn values(object: &T, each: &mut dyn FnMut(&str)) {
        controller_of(object.metadata()).into_iter().for_each(|owner| each(&owner.uid));
    }
}

/// Pods by the node that they are placed on.
pub(crate) struct OnNode;

impl Group for OnNode {
    type Of = Pod;

    fn values(pod: &Pod, each: &mut dyn FnMut(&str)) {
        node_name(pod).into_iter().for_each(each);
    }
}
