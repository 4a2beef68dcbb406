//! Objects by what they have in common, so that nobody walks those that have it not.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use objects::{Kind, Meta, Pod};

use crate::pods::claims;
use crate::selectors::{Labels, label};
use crate::tables::Index;
use crate::view::{View, controller_of};

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
    pub fn get<'a>(&'a self, value: &str) -> impl Iterator<Item = &'a Arc<G::Of>> + Clone + use<'a, G> {
        self.groups.get(value).into_iter().flatten().map(|placed| &placed.0)
    }

    /// How many objects have a value.
    pub fn count(&self, value: &str) -> usize {
        self.groups.get(value).map_or(0, BTreeSet::len)
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
    fn place(&self) -> (&str, &str) {
        let metadata = self.0.metadata();
        (metadata.namespace(), metadata.name())
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
        pod.node().into_iter().for_each(each);
    }
}

/// Pods by the claims that they use, `NAMESPACE/NAME`.
pub(crate) struct Claiming;

impl Group for Claiming {
    type Of = Pod;

    fn values(pod: &Pod, each: &mut dyn FnMut(&str)) {
        claims(pod).for_each(|claim| each(&format!("{}/{claim}", pod.metadata.namespace())));
    }
}

/// By each of their labels, in their namespace (see [`label`]), and by their namespace.
pub(crate) struct Labelled<T>(PhantomData<T>);

impl<T: Kind + 'static> Group for Labelled<T> {
    type Of = T;

    fn values(object: &T, each: &mut dyn FnMut(&str)) {
        let namespace = object.metadata().namespace();
        each(namespace);
        for (name, value) in object.metadata().labels().into_iter().flatten() {
            each(&label(namespace, name, value));
        }
    }
}

/// Those without a controller, like [`Labelled`].
pub(crate) struct Orphans<T>(PhantomData<T>);

impl<T: Kind + 'static> Group for Orphans<T> {
    type Of = T;

    fn values(object: &T, each: &mut dyn FnMut(&str)) {
        if controller_of(object.metadata()).is_none() {
            Labelled::values(object, each);
        }
    }
}

/// The objects of a namespace that may have all of these labels, in the order of their names: those with the label that
/// fewest have.
pub(crate) fn with_labels<'a, G: Group>(
    view: &'a View,
    namespace: &str,
    labels: &Labels,
) -> impl Iterator<Item = &'a Arc<G::Of>> + use<'a, G> {
    let count = |value: &String| view.index::<By<G>>().map_or(0, |index| index.count(value));
    let rarest = labels.iter().map(|(name, value)| label(namespace, name, value)).min_by_key(count);
    view.by::<G>(rarest.as_deref().unwrap_or(namespace))
}
